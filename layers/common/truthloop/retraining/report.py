"""A decision in plain words: what the mail says, and what ``truthloop decisions`` prints.

One function for both, fed with nothing but the decision log's item, so that they cannot say two things.
Short lines and no tables: it is read in a mail on a phone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from truthloop.retraining.decision import (
    COALESCED,
    DEPLOYED,
    FAILED,
    FORGOTTEN,
    INVALID,
    REFUSED,
    REJECTED,
    REJECTED_BY_GATE,
    STOPPED,
    SUCCEEDED,
    SUPERSEDED,
    WAITED,
)

_CLASSES_SHOWN = 12
_BREACHES_SHOWN = 3
_CONFLICTS_SHOWN = 3
_DETAIL_SHOWN = 160

HEADLINES = {
    SUCCEEDED: "trained; both candidates are registered",
    REJECTED_BY_GATE: "trained, but no candidate is good enough",
    REFUSED: "did not train",
    FAILED: "failed",
    STOPPED: "was stopped",
    WAITED: "trained nothing itself: it waited for a pipeline run that nobody else waited for",
    COALESCED: "another run was going on; this trigger waits for it",
    INVALID: "the input is no reason to look",
    DEPLOYED: "in service",
    REJECTED: "deployment failed; the package is rejected",
    SUPERSEDED: "deployment overtaken by a newer decision",
    FORGOTTEN: "a person's corrections were deleted",
}
"""What each outcome means."""

FORCE = '{"force": true, "reason": "why"}'
ADVICE: dict[str, str] = {
    "SAME_EVIDENCE": f"Wait for new corrections, or start by hand with {FORCE} to train on the same again.",
    "CANDIDATE_PENDING": "Approve or reject the candidate that waits.",
    "NO_MODEL_YET": "Put a base set under base/ and start the first run by hand with the input {}.",
    "NO_NEW_LABELS": "Upload corrections to the inbox. truthloop quarantine shows what was refused.",
    "MINIMUM_NEW_LABELS": "Wait for more corrections, or lower the parameter MinimumNewLabels.",
    "MINIMUM_PER_CLASS": "Label more of the classes that lack examples, or lower MinimumNewLabelsPerClass.",
    "COOLDOWN": f"Wait, lower the parameter CooldownMinutes, or start by hand with {FORCE}.",
    "PRICE_KNOWN": "Set the parameter InstancePriceUsd to what an hour costs, or MonthlySpendCapUsd to 0.",
    "MONTHLY_SPEND_CAP": f"Raise the parameter MonthlySpendCapUsd, or start by hand with {FORCE}.",
    "IMAGE_GPU": "Name another type in TrainingInstanceType, or build the training image for this one.",
    "QUOTA": "Raise the quota (Service Quotas, Amazon SageMaker), or name another TrainingInstanceType.",
    "WAITING_FOR_CAPTURE": "Nothing: the corrections count as soon as their predictions are captured.",
    "CLAIM_FAILED": "Nothing was started. The next trigger, or the sweep, looks at the evidence again; "
    "a forced start must be sent again, unless a later decision names it.",
    "INVALID_TRIGGER": f"Start it with {{}}, with {FORCE}, or with an event as in events/.",
}
"""What a person can do about a reason. By code, not by the policy's names: the release need not load it."""


def report(decision: Mapping[str, Any]) -> str:
    """Say in plain words what was decided, on what evidence, by which rules, at what cost, and what is next.

    Parameters
    ----------
    decision : Mapping
        The decision log's item (``Decision.to_map()``); what it lacks is left out.

    Returns
    -------
    str
        Lines of text without markup, the outcome first. The same item gives the same text.
    """
    parts = [(title, list(lines(decision))) for title, lines in _PARTS]
    text = [*_head(decision)]
    for title, lines in parts:
        if lines:
            text += ["", title, *lines]
    return "\n".join(text)


def _head(decision: Mapping[str, Any]) -> Iterator[str]:
    outcome, reason = str(decision.get("outcome") or "?"), str(decision.get("reason") or "")
    generation = str(decision.get("generation") or "none")
    subject = "truthloop" if generation == "none" else generation
    meaning = HEADLINES.get(outcome, outcome)
    yield f"{subject}: {meaning} ({outcome if reason in ('', outcome) else f'{outcome}, {reason}'})"
    message = str(decision.get("message") or "")
    if message and message not in (outcome, reason):
        yield message


def _triggers(decision: Mapping[str, Any]) -> Iterator[str]:
    triggers = list(decision.get("triggers") or ())
    kinds = Counter(str(trigger.get("kind", "?")) for trigger in triggers)
    for kind, count in kinds.items():
        newest = max((t for t in triggers if str(t.get("kind", "?")) == kind), key=lambda t: str(t.get("at")))
        forced = ", forced" if any(t.get("force") for t in triggers if t.get("kind") == kind) else ""
        times = "" if count == 1 else f" × {count}, the last"
        detail = _short(newest.get("detail"))
        yield f"- {kind}{forced}{times} at {_minute(newest.get('at'))}{f': {detail}' if detail else ''}"


def _evidence(decision: Mapping[str, Any]) -> Iterator[str]:
    evidence = decision.get("evidence") or {}
    if "newLabels" in evidence:
        classes = _classes(evidence.get("newPerLabel") or {})
        yield f"- {_plural(evidence['newLabels'], 'new label')}{f': {classes}' if classes else ''}"
    for name, words in _COUNTED:
        count = _count(evidence.get(name))
        if count:
            yield f"- {words.format(count)}"
    breaches = evidence.get("breaches") or ()
    for breach in breaches[:_BREACHES_SHOWN]:
        yield f"- breach ({breach.get('kind')}): {_short(breach.get('detail'))}"
    alarm = evidence.get("alarm") or {}
    if alarm.get("breaching"):
        yield f"- the alarm {alarm.get('name')} still breaches: {_rounded(alarm.get('value'))} was measured"
    failure = evidence.get("lastFailure") or {}
    if failure:
        yield f"- the last run {str(failure.get('status')).lower()}: {_short(failure.get('reason'))}"
    if len(breaches) > _BREACHES_SHOWN:
        yield f"- and {_plural(len(breaches) - _BREACHES_SHOWN, 'more breach', 'more breaches')}"


_COUNTED = (
    ("waiting", "{} waiting: the prediction is not captured yet, or the image is not uploaded"),
    ("conflicts", "{} set aside: authors disagree"),
    ("overShare", "{} set aside: beyond their author's share"),
    ("expired", "{} expired: no prediction was ever captured (quarantined as NO_CAPTURE)"),
    ("forgotten", "{} of people who were forgotten"),
)
"""Parts of the evidence that are counted beside the new labels."""


def _rules(decision: Mapping[str, Any]) -> Iterator[str]:
    rules = list(decision.get("rules") or ())
    for words, role, passed in (("for", "GROUND", True), ("against", "BAR", False)):
        for rule in rules:
            if rule.get("role", "BAR") == role and bool(rule.get("passed")) is passed:
                yield f"- {words}: {rule.get('rule')}: {rule.get('detail')}"
    if not any(rule.get("role") == "GROUND" and rule.get("passed") for rule in rules):
        for rule in rules:
            if rule.get("role") == "GROUND":
                yield f"- not met: {rule.get('rule')}: {rule.get('detail')}"
    bars = [rule for rule in rules if rule.get("role", "BAR") == "BAR"]
    passed_bars = sum(bool(rule.get("passed")) for rule in bars)
    if bars:
        yield f"- {passed_bars} of {len(bars)} bars passed"


def _cost(decision: Mapping[str, Any]) -> Iterator[str]:
    estimate = float(decision.get("estimatedUsd") or 0)
    billed, saved = decision.get("billedUsd"), decision.get("spotSavingsPercent")
    if billed is not None:
        yield f"- the training was billed about {float(billed):,.2f} USD; {estimate:,.2f} were estimated"
    elif estimate:
        started = bool(decision.get("pipelineExecutionArn"))
        yield f"- {'about' if started else 'a run would cost about'} {estimate:,.2f} USD"
    if saved is not None:
        yield f"- spot instances saved {float(saved):.0f} % of the training"
    spent = (decision.get("evidence") or {}).get("spentThisMonthUsd")
    if spent:
        yield f"- {float(spent):,.2f} USD were estimated for earlier runs of this month"


def _result(decision: Mapping[str, Any]) -> Iterator[str]:
    for package in decision.get("modelPackages") or ():
        accuracy = package.get("accuracy")
        said = [
            f"accuracy {float(accuracy):.1%}" if accuracy is not None else "",
            "recommended" if package.get("recommended") else "",
            "approved automatically" if package.get("approved") else "",
        ]
        words = ", ".join(word for word in said if word)
        yield f"- {package.get('candidate')}{f': {words}' if words else ''}"


def _next(decision: Mapping[str, Any]) -> Iterator[str]:
    outcome, reason = str(decision.get("outcome")), str(decision.get("reason"))
    if outcome == SUCCEEDED:
        yield from _approval(list(decision.get("modelPackages") or ()))
    elif outcome == REJECTED_BY_GATE:
        yield "- More and better labels, or a lower AccuracyThreshold. The model in service stays."
    elif outcome in (FAILED, STOPPED) and reason not in ADVICE:
        yield f"- {_after_failure(decision)}"
    elif outcome == WAITED:
        yield "- Nothing: what asked for this run is decided by the next decision."
    elif outcome == COALESCED:
        yield "- Nothing: it is decided when the other run has ended, by the next decision."
    elif outcome in (REFUSED, INVALID, FAILED) and reason in ADVICE:
        yield f"- {ADVICE[reason]}"
        if reason == "CANDIDATE_PENDING":
            yield from _approve((decision.get("evidence") or {}).get("pendingCandidate"))
    elif outcome == REJECTED:
        yield "- Mend the cause and approve the package again, or another: truthloop models"
    evidence = decision.get("evidence") or {}
    if _count(evidence.get("conflicts")):
        named = ", ".join(_short(i) for i in (evidence.get("conflictingIds") or ())[:_CONFLICTS_SHOWN])
        about = (
            f" ({named}{', …' if _count(evidence.get('conflicts')) > _CONFLICTS_SHOWN else ''})"
            if named
            else ""
        )
        yield f"- Settle where authors disagree{about}: truthloop conflicts, then truthloop settle ID LABEL"
    if _count(evidence.get("expired")):
        yield "- Look at what expired: truthloop quarantine --reason NO_CAPTURE"


def _after_failure(decision: Mapping[str, Any]) -> str:
    """Say what starts again, as the policy's bar SAME_EVIDENCE will decide it."""
    if not decision.get("pipelineExecutionArn"):
        again = "the next trigger, or the sweep, looks at the evidence again"
        return f"Mend the cause. Nothing was trained: {again}."
    if decision.get("trained"):
        return (
            "Both models were trained; only the result could not be read. Look at them: truthloop models, "
            f"and approve one by hand. To train on the same again start by hand with {FORCE}."
        )
    if decision.get("costless"):
        return (
            "Nothing: it never had its instances. A trigger, or the sweep, tries again after the cool-down, "
            "at the earliest an hour after its start. Should it fail again, name another "
            "TrainingInstanceType."
        )
    what = "To go on" if decision.get("outcome") == STOPPED else "Mend the cause, then"
    return (
        f"{what} start by hand with {FORCE}. It does not start again by itself, unless other code is named "
        "in TrainingImageUri or MinimumNewLabels labels are new since its dataset."
    )


def _approval(packages: list[Mapping[str, Any]]) -> Iterator[str]:
    if any(package.get("approved") for package in packages):
        yield "- Nothing: the recommended candidate is approved and will be deployed."
        return
    recommended = [package for package in packages if package.get("recommended")]
    if not recommended:
        yield "- No candidate is recommended. Approve one all the same, or keep the model in service:"
    for package in recommended or packages:
        yield from _approve(package.get("arn"))


def _approve(arn: object) -> Iterator[str]:
    if arn:
        yield "- Approve it (or reject it: Rejected):"
        command = "aws sagemaker update-model-package --model-approval-status Approved"
        yield f"  {command} --model-package-arn {arn}"


def _arns(decision: Mapping[str, Any]) -> Iterator[str]:
    named = (("execution", "execution"), ("pipelineExecutionArn", "pipeline"), ("datasetVersion", "dataset"))
    for name, words in named:
        if decision.get(name):
            yield f"- {words}: {decision[name]}"
    if decision.get("at"):
        yield f"- decided: {_minute(decision['at'])}"


_PARTS: tuple[tuple[str, Callable[[Mapping[str, Any]], Iterable[str]]], ...] = (
    ("Why it looked", _triggers),
    ("Evidence", _evidence),
    ("Rules", _rules),
    ("Cost", _cost),
    ("Candidates", _result),
    ("What to do", _next),
    ("Where", _arns),
)


def _classes(counts: Mapping[str, Any]) -> str:
    most = sorted(counts.items(), key=lambda item: (-int(item[1]), item[0]))
    shown = ", ".join(f"{label} × {int(count)}" for label, count in most[:_CLASSES_SHOWN])
    more = len(most) - _CLASSES_SHOWN
    return f"{shown} and {_plural(more, 'more class', 'more classes')}" if more > 0 else shown


def _count(value: Any) -> int:
    return len(value) if isinstance(value, Mapping | list | tuple) else int(value or 0)


def _plural(count: Any, one: str, many: str | None = None) -> str:
    return f"{int(count)} {one if int(count) == 1 else many or one + 's'}"


def _rounded(value: Any) -> str:
    return "nothing" if value is None else f"{float(value):.4g}"


def _short(text: object) -> str:
    words = " ".join(str(text or "").split())
    return words if len(words) <= _DETAIL_SHOWN else words[: _DETAIL_SHOWN - 1] + "…"


def _minute(at: object) -> str:
    return f"{str(at or '?')[:16].replace('T', ' ')} UTC"
