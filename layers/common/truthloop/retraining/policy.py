"""Policy before money: the rules that decide about a retrain, as data, each with its reason code.

A *ground* speaks for a run, a *bar* forbids it: a run needs one ground and no bar. All rules are evaluated
and recorded. A forced start skips the policy, never the claim, and never a second time for what the run that
it waited for has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from truthloop.instances.capacity import judge_quota
from truthloop.instances.hardware import SHIPPED_ARCHITECTURES, TRAINING_INSTANCES, judge_image
from truthloop.instances.prices import PRICES_AS_OF, PRICES_REGION, estimate
from truthloop.retraining.claim import LastRun
from truthloop.retraining.decision import shorten
from truthloop.retraining.evidence import CLASSES_SHOWN, LONGEST_ID, LONGEST_REASON, Evidence, Failure
from truthloop.retraining.triggers import MANUAL, Trigger
from truthloop.settings import PolicySettings
from truthloop.times import from_iso, to_iso

START = "START"
REFUSE = "REFUSE"
WAIT = "WAIT"

GROUND = "GROUND"
BAR = "BAR"

FIRST_MODEL = "FIRST_MODEL"
ENOUGH_NEW_LABELS = "ENOUGH_NEW_LABELS"
ACCURACY_BREACH = "ACCURACY_BREACH"
CODE_CHANGE = "CODE_CHANGE"
MODEL_AGE = "MODEL_AGE"

SAME_EVIDENCE = "SAME_EVIDENCE"
CANDIDATE_PENDING = "CANDIDATE_PENDING"
NO_MODEL_YET = "NO_MODEL_YET"
NO_NEW_LABELS = "NO_NEW_LABELS"
COOLDOWN = "COOLDOWN"
PRICE_KNOWN = "PRICE_KNOWN"
MONTHLY_SPEND_CAP = "MONTHLY_SPEND_CAP"
IMAGE_GPU = "IMAGE_GPU"
QUOTA = "QUOTA"

MINIMUM_NEW_LABELS = "MINIMUM_NEW_LABELS"
MINIMUM_PER_CLASS = "MINIMUM_PER_CLASS"
WAITING_FOR_CAPTURE = "WAITING_FOR_CAPTURE"
ALL_RULES_PASSED = "ALL_RULES_PASSED"
FORCED = "FORCED"
ALREADY_STARTED = "ALREADY_STARTED"

FAILED_RUN_RESTS = timedelta(hours=1)
"""A run for which AWS had no instances is tried again after the cool-down, and never sooner than this:
without a cool-down every trigger would start it anew."""

STOPPED_STATUS = "Stopped"


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule says: a ground that passed holds, a bar that passed does not forbid."""

    rule: str
    role: str
    passed: bool
    detail: str

    def to_map(self) -> dict[str, Any]:
        """Return what outputs and the decision log hold."""
        return {"rule": self.rule, "role": self.role, "passed": self.passed, "detail": self.detail}


@dataclass(frozen=True)
class Verdict:
    """Whether a run starts, and why."""

    verdict: str
    reason: str
    message: str
    outcomes: tuple[RuleOutcome, ...]
    estimated_usd: float


Rule = Callable[[Evidence, PolicySettings, datetime], tuple[bool, str]]


class Entry(NamedTuple):
    """One line of the table."""

    name: str
    role: str
    rule: Rule


# -- grounds -----------------------------------------------------------------------------------------------


def _first_model(evidence: Evidence, _: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Train the first model when a person asks for it."""
    if evidence.champion is not None:
        return False, "a model is in service"
    if any(trigger.kind == MANUAL for trigger in evidence.triggers):
        return True, "no model is in service yet, and the first was asked for"
    return False, "no model is in service yet, and nobody has asked for the first"


def _enough_new_labels(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Learn from enough new labels: in all, and of each class of the served model."""
    wanted, wanted_per_class = policy.minimum_new_labels, policy.minimum_new_labels_per_class
    found = f"{_labels(evidence.new_labels)}; {wanted} are wanted"
    if evidence.waiting:
        found += f"; {evidence.waiting} more wait for their captured prediction or image"
    enough = evidence.new_labels >= wanted
    if wanted_per_class <= 0:
        return enough, found
    if evidence.classes is None:
        return enough, (
            f"{found}; {wanted_per_class} of each class are wanted too, but the served model's package names "
            "no labels: only the total was judged"
        )
    short = [name for name in evidence.classes if evidence.new_per_label.get(name, 0) < wanted_per_class]
    if not short:
        return enough, f"{found}; each of the {len(evidence.classes)} classes has {wanted_per_class} or more"
    named = ", ".join(
        f"{shorten(name, LONGEST_ID)} ({evidence.new_per_label.get(name, 0)})"
        for name in short[:CLASSES_SHOWN]
    )
    return False, (
        f"{found}; {wanted_per_class} of each class are wanted too, and {len(short)} of "
        f"{len(evidence.classes)} classes have fewer: {named}{', …' if len(short) > CLASSES_SHOWN else ''}"
    )


def _accuracy_breach(evidence: Evidence, _: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Answer a model that is worse than it should be: something says so now, or the alarm still does."""
    alarm = evidence.alarm.describe() if evidence.alarm else "no accuracy alarm was read"
    if evidence.breaches:
        newest = max(evidence.breaches, key=lambda trigger: trigger.at)
        return True, f"a breach was reported at {newest.at} ({newest.kind}: {newest.detail}); {alarm}"
    nothing = "no breach was reported"
    if evidence.stale_breaches:
        nothing += " since the model in service was deployed, what is older speaks of the model before"
    return bool(evidence.alarm and evidence.alarm.breaching), f"{nothing}; {alarm}"


def _code_change(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Try other training code than that of the last run."""
    if evidence.last_run is None:
        return False, "no run has started before"
    if evidence.new_code(policy):
        return True, f"the code differs from that of {evidence.last_run.generation}"
    return False, f"the code is that of {evidence.last_run.generation}"


def _model_age(evidence: Evidence, policy: PolicySettings, now: datetime) -> tuple[bool, str]:
    """Replace a model that is older than a model may become.

    A run since then that brought no better one counts: it would bring no better one a day later either.
    """
    limit, registered = policy.maximum_model_age_days, evidence.champion_registered_at
    if limit <= 0:
        return False, "no maximum age is set"
    if registered is None:
        return False, "no model is in service, or it is not known when it was registered"
    age, trained = (now - registered) / timedelta(days=1), evidence.last_trained_at
    found = f"the model in service was registered {age:.1f} days ago"
    if trained is not None and trained > registered:
        age = (now - trained) / timedelta(days=1)
        found += f", and a run that trained was started {age:.1f} days ago"
    return age > limit, f"{found}; {limit:g} are allowed"


# -- bars --------------------------------------------------------------------------------------------------


def _same_evidence(evidence: Evidence, policy: PolicySettings, now: datetime) -> tuple[bool, str]:
    """Refuse what the last run has trained on, or has failed on: the same data under the same code."""
    last = evidence.last_run
    if last is None:
        return True, "no run has started before"
    if evidence.new_code(policy):
        return True, f"the code differs from that of {last.generation}"
    failure = evidence.last_failure
    costless = failure is not None and failure.costless
    if not evidence.last_run_trained and not costless:
        return _failed_before(evidence, last, policy)
    if last.dataset_version != evidence.dataset_version:
        return True, f"the data differs from that of {last.generation}"
    if failure is not None and costless and not evidence.last_run_trained:
        return _found_no_instances(failure, last, policy, now)
    return False, (
        f"{last.generation} was started with exactly this data and code; start by hand with force and "
        "a reason to train on it again"
    )


def _failed_before(evidence: Evidence, last: LastRun, policy: PolicySettings) -> tuple[bool, str]:
    """Let a person look first at what may have cost hours of a GPU, and would again.

    Only as many new labels as a run needs anyway are other evidence: with a correction an hour, any change
    of the data would buy the same failure once per cool-down.
    """
    failure, news, wanted = evidence.last_failure, evidence.news_since_failure, policy.minimum_new_labels
    if evidence.dataset_version == last.dataset_version:
        what = f"{last.generation} was started with exactly this data and code"
    elif news is None:
        what = f"{last.generation} was started with this code on a dataset that is not there any more"
    elif news >= wanted:
        return True, f"{_labels(news)} since the dataset of {last.generation}, which did not train"
    else:
        what = f"{last.generation} was started with this code on all but {_labels(news)} of {wanted} wanted"
    if failure is not None and failure.status == STOPPED_STATUS:
        return False, f"{what} and was stopped; {_BY_HAND} to go on"
    return False, f"{what} and failed{_why(failure)}; mend the cause, then {_BY_HAND} to try it again"


def _found_no_instances(
    failure: Failure, last: LastRun, policy: PolicySettings, now: datetime
) -> tuple[bool, str]:
    """Try a run again by itself that never had its instances, but not at once."""
    again = from_iso(last.started_at) + max(FAILED_RUN_RESTS, timedelta(minutes=policy.cooldown_minutes))
    found = (
        f"{last.generation} was started with exactly this data and code and failed for lack of instances"
        f"{_why(failure)}"
    )
    if now >= again:
        return True, found
    return False, f"{found}; it is tried again from {to_iso(again)} on, or at once when you {_BY_HAND}"


_BY_HAND = "start by hand with force and a reason"


def _why(failure: Failure | None) -> str:
    return f" ({shorten(failure.reason, LONGEST_REASON)})" if failure and failure.reason else ""


def _candidate_pending(evidence: Evidence, policy: PolicySettings, now: datetime) -> tuple[bool, str]:
    """Do not answer a breach with a second run while its remedy awaits approval."""
    if evidence.pending_candidate is None:
        return True, "no recommended candidate awaits approval"
    if _enough_new_labels(evidence, policy, now)[0] or evidence.new_code(policy):
        return True, f"{evidence.pending_candidate} awaits approval, but there is enough that it has not seen"
    return False, (
        f"{evidence.pending_candidate} is recommended and awaits approval: approve or reject it first"
    )


def _no_model_yet(evidence: Evidence, _: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Leave the first model to a person: before the base set is complete, no event asks for a GPU."""
    if evidence.champion is not None:
        return True, f"{evidence.champion} is in service"
    if any(trigger.kind == MANUAL for trigger in evidence.triggers):
        return True, "no model is in service yet, and the first was asked for"
    return False, "no model is in service yet: put a base set under base/ and start the first run by hand"


def _no_new_labels(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Demand that something is new to a model in service: a label, or code."""
    if evidence.champion is None:
        return True, "there is no model in service yet"
    if evidence.new_labels > 0:
        return True, _labels(evidence.new_labels)
    if evidence.new_code(policy):
        return True, "no new labels, but new code"
    waits = f"; {evidence.waiting} wait for their captured prediction or image" if evidence.waiting else ""
    return False, (
        f"no label is new since the last run that trained{waits}: another run would train on the same again; "
        "upload corrections first"
    )


def _cooldown(evidence: Evidence, policy: PolicySettings, now: datetime) -> tuple[bool, str]:
    """Leave time between the starts of two runs."""
    if evidence.last_run is None or policy.cooldown_minutes <= 0:
        return True, "no cool-down applies"
    ends = from_iso(evidence.last_run.started_at) + timedelta(minutes=policy.cooldown_minutes)
    if now >= ends:
        return True, f"the cool-down ended at {to_iso(ends)}"
    return (
        False,
        f"{evidence.last_run.generation} started less than {policy.cooldown_minutes:g} minutes ago; "
        f"the cool-down ends at {to_iso(ends)}, and the next sweep or trigger after that looks again",
    )


def _price_known(_: Evidence, policy: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Know the price: a spend cap cannot be kept without it."""
    cost = estimated_usd(policy)
    if cost is not None or policy.monthly_spend_cap_usd <= 0:
        return True, "no price is needed" if cost is None else f"a run is estimated at {_usd(cost, policy)}"
    return False, (
        f"the list price of {policy.training_instance_type} is not known here ({PRICES_REGION}, "
        f"{PRICES_AS_OF}); set the parameter InstancePriceUsd, or MonthlySpendCapUsd to 0"
    )


def _monthly_spend_cap(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Keep the month's runs and this one within the cap."""
    cap = policy.monthly_spend_cap_usd
    if cap <= 0:
        return True, "no cap is set"
    total = evidence.spent_this_month_usd + (estimated_usd(policy) or 0.0)
    found = f"{evidence.spent_this_month_usd:.2f} USD this month, {total:.2f} with this run, cap {cap:.2f}"
    if policy.use_spot_training:
        found += f" ({_ON_DEMAND})"
    if total <= cap:
        return True, found
    return False, f"{found}; wait for the next month, or raise the parameter MonthlySpendCapUsd"


def _image_gpu(_: Evidence, policy: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Train only where the image has kernels for the GPU: it would fail after minutes that cost."""
    built = policy.training_image_architectures or SHIPPED_ARCHITECTURES
    return judge_image(policy.training_instance_type, built)


def _quota(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Start only what the account's quota holds: both training jobs at the same time."""
    if evidence.quota is None:
        return True, "not asked for, since no run is wanted"
    passed, said = judge_quota(
        evidence.quota,
        policy.training_instance_type,
        instances_needed(policy),
        spot=policy.use_spot_training,
    )
    last, failure = evidence.last_run, evidence.last_failure
    if last and failure and failure.costless:
        said += (
            f"; {last.generation} got no {policy.training_instance_type}, and whether AWS has some now "
            "cannot be asked: should it fail again, set TrainingInstanceType to another type"
        )
    return passed, said


RULES: tuple[Entry, ...] = (
    Entry(FIRST_MODEL, GROUND, _first_model),
    Entry(ENOUGH_NEW_LABELS, GROUND, _enough_new_labels),
    Entry(ACCURACY_BREACH, GROUND, _accuracy_breach),
    Entry(CODE_CHANGE, GROUND, _code_change),
    Entry(MODEL_AGE, GROUND, _model_age),
    Entry(SAME_EVIDENCE, BAR, _same_evidence),
    Entry(CANDIDATE_PENDING, BAR, _candidate_pending),
    Entry(NO_MODEL_YET, BAR, _no_model_yet),
    Entry(NO_NEW_LABELS, BAR, _no_new_labels),
    Entry(COOLDOWN, BAR, _cooldown),
    Entry(PRICE_KNOWN, BAR, _price_known),
    Entry(MONTHLY_SPEND_CAP, BAR, _monthly_spend_cap),
    Entry(IMAGE_GPU, BAR, _image_gpu),
    Entry(QUOTA, BAR, _quota),
)


def _labels(count: int) -> str:
    return f"{count} new label{'' if count == 1 else 's'}"


_ON_DEMAND = "at the price on demand; spot training costs less, how much is not known before"


def _usd(cost: float, policy: PolicySettings) -> str:
    return f"{cost:.2f} USD ({_ON_DEMAND})" if policy.use_spot_training else f"{cost:.2f} USD"


def instances_needed(policy: PolicySettings) -> int:
    """Return how many training instances a run needs at the same time."""
    return TRAINING_INSTANCES * policy.training_instance_count


def estimated_usd(policy: PolicySettings) -> float | None:
    """Return what one run is expected to cost; None when the instance's price is not known.

    The price is the one on demand also for spot training, whose discount nobody knows in advance: the spend
    cap is kept by the upper bound.
    """
    return estimate(policy.training_instance_type, policy.expected_instance_hours, policy.instance_price_usd)


def _forced(evidence: Evidence, policy: PolicySettings, now: datetime) -> Trigger | None:
    """Return the forced start that sets the policy aside.

    One that came while a run was under way has had its wish when that run has trained on this very evidence:
    a start that was sent twice must not be paid twice.
    """
    last, (news, _) = evidence.last_run, _same_evidence(evidence, policy, now)
    answered = last.generation if last and evidence.last_run_trained and not news else None
    return next((t for t in evidence.triggers if t.force and (not t.during or t.during != answered)), None)


def judge(
    evidence: Evidence, policy: PolicySettings, now: datetime, *, already_started: bool = False
) -> Verdict:
    """Evaluate every rule and say whether a run starts.

    Parameters
    ----------
    evidence : Evidence
        What there is to look at.
    policy : PolicySettings
        What is wanted.
    now : datetime
        The present, with a zone.
    already_started : bool
        An earlier holder of this generation has decided to start: that decision stands.
    """
    outcomes = tuple(RuleOutcome(name, role, *rule(evidence, policy, now)) for name, role, rule in RULES)
    cost = estimated_usd(policy) or 0.0

    def verdict(what: str, reason: str, message: str) -> Verdict:
        return Verdict(what, reason, message, outcomes, cost)

    if already_started:
        return verdict(START, ALREADY_STARTED, "an earlier holder of this claim has started it")
    failed = [outcome for outcome in outcomes if outcome.role == BAR and not outcome.passed]
    forced = _forced(evidence, policy, now)
    if forced is not None:
        overruled = f"; overruled: {', '.join(bar.rule for bar in failed)}" if failed else ""
        return verdict(START, FORCED, f"forced by hand: {forced.detail}{overruled}")
    grounds = [outcome for outcome in outcomes if outcome.role == GROUND and outcome.passed]
    if grounds and not failed:
        kinds = ", ".join(sorted({trigger.kind for trigger in evidence.triggers})) or "no trigger"
        why = "; ".join(ground.detail for ground in grounds)
        return verdict(
            START, ALL_RULES_PASSED, f"started by {kinds}: {why}; estimated at {_usd(cost, policy)}"
        )
    reason, message = _refusal(evidence, policy, outcomes, failed)
    if evidence.waiting and judge(evidence.when_captured(), policy, now).verdict == START:
        return _wait_or_refuse(evidence, policy, now, verdict, (reason, message))
    return verdict(REFUSE, reason, message)


def _refusal(
    evidence: Evidence,
    policy: PolicySettings,
    outcomes: tuple[RuleOutcome, ...],
    failed: list[RuleOutcome],
) -> tuple[str, str]:
    """Name the first bar, else which of the two minima is not met."""
    if failed:
        return failed[0].rule, failed[0].detail
    few = evidence.new_labels < policy.minimum_new_labels
    found = next(outcome.detail for outcome in outcomes if outcome.rule == ENOUGH_NEW_LABELS)
    parameter = "MinimumNewLabels" if few else "MinimumNewLabelsPerClass"
    return (MINIMUM_NEW_LABELS if few else MINIMUM_PER_CLASS), (
        f"{found}, and nothing else asks for a run (no breach, no new code, no model too old); wait for more "
        f"corrections, or lower the parameter {parameter}"
    )


def _wait_or_refuse(
    evidence: Evidence,
    policy: PolicySettings,
    now: datetime,
    verdict: Callable[[str, str, str], Verdict],
    refusal: tuple[str, str],
) -> Verdict:
    """Wait while the labels that are missing are on their way, and nobody has a better reason to look."""
    reason, message = refusal
    if evidence.forced_start_waits:
        return verdict(REFUSE, reason, f"{message}. A forced start waits: it is decided about at once")
    claimed = evidence.claimed_at
    until = claimed and claimed + timedelta(minutes=policy.capture_wait_minutes)
    if until is None or now >= until:
        return verdict(REFUSE, reason, message)
    return verdict(
        WAIT,
        WAITING_FOR_CAPTURE,
        f"{evidence.waiting} labels wait for their captured prediction or image, and with them a run would "
        f"start: looking again until {to_iso(until)}",
    )
