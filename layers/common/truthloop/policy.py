"""Policy before money: the rules that a retrain must pass, as data, each with its reason code.

All rules are evaluated and recorded; the first that fails is the reason. A forced start skips the policy,
never the claim, and never a second time for what the run that it waited for has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from truthloop.claim import LastRun
from truthloop.prices import PRICES_AS_OF, PRICES_REGION, USD_PER_HOUR, estimate
from truthloop.settings import PolicySettings
from truthloop.times import from_iso, to_iso
from truthloop.triggers import BREACHES, MANUAL, Trigger

START = "START"
REFUSE = "REFUSE"

SAME_EVIDENCE = "SAME_EVIDENCE"
CANDIDATE_PENDING = "CANDIDATE_PENDING"
NO_MODEL_YET = "NO_MODEL_YET"
NO_NEW_LABELS = "NO_NEW_LABELS"
MINIMUM_NEW_LABELS = "MINIMUM_NEW_LABELS"
COOLDOWN = "COOLDOWN"
PRICE_KNOWN = "PRICE_KNOWN"
MONTHLY_SPEND_CAP = "MONTHLY_SPEND_CAP"

ALL_RULES_PASSED = "ALL_RULES_PASSED"
FORCED = "FORCED"
ALREADY_STARTED = "ALREADY_STARTED"


_LABELS_SHOWN = 100
_BREACHES_SHOWN = 20
"""What the decision log and the state machine are given of lists that anyone who uploads can make long."""


@dataclass(frozen=True)
class Evidence:
    """What the rules look at.

    `new_labels` counts inference ids whose label is new or different since the last run that trained;
    `dataset_version` is the version that a snapshot would have now; `last_run_trained` says whether
    `last_run` is that run, or failed.
    """

    triggers: tuple[Trigger, ...]
    new_labels: int
    new_per_label: Mapping[str, int]
    dataset_version: str
    last_run: LastRun | None
    champion: str | None
    pending_candidate: str | None
    spent_this_month_usd: float
    last_run_trained: bool = True

    @property
    def breaches(self) -> tuple[Trigger, ...]:
        """The triggers that say that the model in service has become worse."""
        return tuple(trigger for trigger in self.triggers if trigger.kind in BREACHES)

    def new_code(self, policy: PolicySettings) -> bool:
        """Whether the training code differs from that of the last run."""
        return self.last_run is not None and self.last_run.code_version != policy.code_version

    def to_map(self) -> dict[str, Any]:
        """Return what the decision log keeps."""
        return {
            "newLabels": self.new_labels,
            "newPerLabel": _largest(self.new_per_label),
            "breaches": [
                {"kind": t.kind, "at": t.at, "detail": t.detail} for t in self.breaches[:_BREACHES_SHOWN]
            ],
            "datasetVersion": self.dataset_version,
            "previousDatasetVersion": self.last_run.dataset_version if self.last_run else None,
            "champion": self.champion,
            "pendingCandidate": self.pending_candidate,
            "spentThisMonthUsd": self.spent_this_month_usd,
        }


def _largest(counts: Mapping[str, int]) -> dict[str, int]:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_LABELS_SHOWN]
    return dict(sorted(most))


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule says."""

    rule: str
    passed: bool
    detail: str

    def to_map(self) -> dict[str, Any]:
        """Return what outputs and the decision log hold."""
        return {"rule": self.rule, "passed": self.passed, "detail": self.detail}


@dataclass(frozen=True)
class Verdict:
    """Whether a run starts, and why."""

    verdict: str
    reason: str
    message: str
    outcomes: tuple[RuleOutcome, ...]
    estimated_usd: float


Rule = Callable[[Evidence, PolicySettings, datetime], tuple[bool, str]]


def _same_evidence(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Refuse what the last run has seen already: the same dataset version under the same code."""
    last = evidence.last_run
    if last is None:
        return True, "no run has started before"
    if last.dataset_version != evidence.dataset_version:
        return True, f"the data differs from that of {last.generation}"
    if evidence.new_code(policy):
        return True, f"the code differs from that of {last.generation}"
    return False, (
        f"{last.generation} was started with exactly this data and code; start by hand with force and "
        "a reason to train on it again"
    )


def _no_model_yet(evidence: Evidence, _: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Leave the first model to a person: before the base set is complete, no event asks for a GPU."""
    if evidence.champion is not None:
        return True, f"{evidence.champion} is in service"
    if any(trigger.kind == MANUAL for trigger in evidence.triggers):
        return True, "no model is in service yet, and the first was asked for"
    return False, "no model is in service yet: put a base set under base/ and start the first run by hand"


def _candidate_pending(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Do not answer a breach with a second run while its remedy awaits approval."""
    if evidence.pending_candidate is None:
        return True, "no recommended candidate awaits approval"
    if evidence.new_labels >= policy.minimum_new_labels or evidence.new_code(policy):
        return True, f"{evidence.pending_candidate} awaits approval, but there is enough that it has not seen"
    return False, (
        f"{evidence.pending_candidate} is recommended and awaits approval: approve or reject it first"
    )


def _no_new_labels(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Demand that something is new to a model in service: a label, or code."""
    if evidence.champion is None:
        return True, "there is no model in service yet"
    if evidence.new_labels > 0:
        return True, f"{evidence.new_labels} new labels"
    if evidence.new_code(policy):
        return True, "no new labels, but new code"
    return False, "no label is new since the last run that trained"


def _minimum_new_labels(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Demand enough new labels; a breach lowers the demand to one."""
    wanted = policy.minimum_new_labels
    if evidence.champion is None:
        return True, "there is no model in service yet"
    if evidence.new_labels >= wanted:
        return True, f"{evidence.new_labels} new labels of at least {wanted}"
    if evidence.new_code(policy):
        return True, "new code"
    if evidence.breaches and evidence.new_labels > 0:
        return True, f"{evidence.new_labels} new labels and a breach ({evidence.breaches[0].kind})"
    return False, f"{evidence.new_labels} new labels; {wanted} are wanted without a breach"


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
        + (f"the cool-down ends at {to_iso(ends)}"),
    )


def _price_known(_: Evidence, policy: PolicySettings, __: datetime) -> tuple[bool, str]:
    """Know the price: a spend cap cannot be kept without it."""
    cost = estimated_usd(policy)
    if cost is not None or policy.monthly_spend_cap_usd <= 0:
        return True, "no price is needed" if cost is None else f"a run is estimated at {cost:.2f} USD"
    known = ", ".join(sorted(USD_PER_HOUR))
    return False, (
        f"no list price for {policy.training_instance_type} (known: {known}; {PRICES_REGION}, "
        f"{PRICES_AS_OF}); set the parameter InstancePriceUsd, or MonthlySpendCapUsd to 0"
    )


def _monthly_spend_cap(evidence: Evidence, policy: PolicySettings, _: datetime) -> tuple[bool, str]:
    """Keep the month's runs and this one within the cap."""
    cap = policy.monthly_spend_cap_usd
    if cap <= 0:
        return True, "no cap is set"
    total = evidence.spent_this_month_usd + (estimated_usd(policy) or 0.0)
    detail = f"{evidence.spent_this_month_usd:.2f} USD this month, {total:.2f} with this run, cap {cap:.2f}"
    return total <= cap, detail


RULES: tuple[tuple[str, Rule], ...] = (
    (SAME_EVIDENCE, _same_evidence),
    (CANDIDATE_PENDING, _candidate_pending),
    (NO_MODEL_YET, _no_model_yet),
    (NO_NEW_LABELS, _no_new_labels),
    (MINIMUM_NEW_LABELS, _minimum_new_labels),
    (COOLDOWN, _cooldown),
    (PRICE_KNOWN, _price_known),
    (MONTHLY_SPEND_CAP, _monthly_spend_cap),
)


def estimated_usd(policy: PolicySettings) -> float | None:
    """Return what one run is expected to cost; None when the instance's price is not known."""
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
    outcomes = tuple(RuleOutcome(name, *rule(evidence, policy, now)) for name, rule in RULES)
    cost = estimated_usd(policy) or 0.0
    if already_started:
        return Verdict(
            START, ALREADY_STARTED, "an earlier holder of this claim has started it", outcomes, cost
        )
    forced = _forced(evidence, policy, now)
    if forced is not None:
        return Verdict(START, FORCED, f"forced by hand: {forced.detail}", outcomes, cost)
    failed = next((outcome for outcome in outcomes if not outcome.passed), None)
    if failed is not None:
        return Verdict(REFUSE, failed.rule, failed.detail, outcomes, cost)
    labels = f"{evidence.new_labels} new labels"
    kinds = ", ".join(sorted({trigger.kind for trigger in evidence.triggers})) or "no trigger"
    message = f"started by {kinds}: {labels}; estimated at {cost:.2f} USD"
    return Verdict(START, ALL_RULES_PASSED, message, outcomes, cost)
