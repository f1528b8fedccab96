"""What the policy looks at, and what of it the decision log keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from truthloop.instances.capacity import QuotaReading
from truthloop.retraining.alarm import AlarmReading
from truthloop.retraining.claim import LastRun
from truthloop.retraining.decision import shorten
from truthloop.retraining.triggers import BREACHES, Trigger
from truthloop.settings import PolicySettings
from truthloop.times import from_iso, to_iso

_LABELS_SHOWN = 100
_BREACHES_SHOWN = 20
CONFLICTS_SHOWN = 20
CLASSES_SHOWN = 10
LONGEST_ID = 128
LONGEST_REASON = 300
"""What the decision log and the state machine are given of lists and texts that anyone who uploads, or a
job that fails, can make long."""


@dataclass(frozen=True)
class Failure:
    """How a run that did not train ended: the pipeline's status, and the reason as far as it is known.

    `costless` says that it never had instances to train on: whatever else ended it may have cost a day.
    """

    status: str
    reason: str
    costless: bool = False


@dataclass(frozen=True)
class Evidence:
    """What the rules look at; what is not known is None, and the rule that wanted it says so.

    Parameters
    ----------
    triggers : tuple of Trigger
        The claim's.
    new_labels : int
        Inference ids whose label is new or different since the last run that trained.
    new_per_label : mapping
        The same per label.
    dataset_version : str
        The version that a snapshot would have now.
    last_run : LastRun or None
        The newest run that has started.
    champion : str or None
        The package of the model in service.
    pending_candidate : str or None
        The last run's recommended package that awaits approval.
    spent_this_month_usd : float
        The month's estimates, summed.
    last_run_trained : bool
        Whether `last_run` has trained; else it failed or was stopped, as `last_failure` says.
    last_failure : Failure or None
        How it ended.
    news_since_failure : int or None
        Labels that are new or different since the dataset of a last run that failed and was not costless;
        None when they were not counted, or that dataset is not there any more.
    waiting_since_failure : int
        How many more of these there will be when what waits is captured.
    waiting_per_label : mapping
        New labels that cannot be trained on yet: their prediction is not captured, their image not there.
    conflicts : tuple of str
        Inference ids whose authors disagree; `conflict_count` may be more than are named.
    over_share, expired, forgotten : int
        Labels beyond their author's share; statements that waited too long; statements that were forgotten.
    classes : tuple of str or None
        The served model's labels; read only when a minimum per class is wanted.
    champion_registered_at : datetime or None
        When the champion was registered.
    last_trained_at : datetime or None
        When the newest run that trained was started.
    served_since : datetime or None
        When what is in service was put into service; None without an endpoint.
    alarm : AlarmReading or None
        The accuracy alarm; None when there is none, or no model that it could speak of.
    quota : QuotaReading or None
        The quota for the instance type; None when nobody asked, because no run is wanted anyway.
    claimed_at : datetime or None
        When this claim was made.
    forced_start_waits : bool
        A forced start came during this claim: it is decided about as soon as this claim ends.
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
    last_failure: Failure | None = None
    news_since_failure: int | None = None
    waiting_since_failure: int = 0
    waiting_per_label: Mapping[str, int] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()
    conflict_count: int = 0
    over_share: int = 0
    expired: int = 0
    forgotten: int = 0
    classes: tuple[str, ...] | None = None
    champion_registered_at: datetime | None = None
    last_trained_at: datetime | None = None
    served_since: datetime | None = None
    alarm: AlarmReading | None = None
    quota: QuotaReading | None = None
    claimed_at: datetime | None = None
    forced_start_waits: bool = False

    @property
    def waiting(self) -> int:
        """How many labels wait."""
        return sum(self.waiting_per_label.values())

    @property
    def breaches(self) -> tuple[Trigger, ...]:
        """The triggers that say that the model in service has become worse.

        One from before it was put into service speaks of the model before: it waited for a run, or
        EventBridge, which tries for a day, delivered it late.
        """
        since = self.served_since
        return tuple(t for t in self._reported if since is None or from_iso(t.at) >= since)

    @property
    def stale_breaches(self) -> int:
        """How many triggers speak of the model before."""
        return len(self._reported) - len(self.breaches)

    @property
    def _reported(self) -> tuple[Trigger, ...]:
        return tuple(trigger for trigger in self.triggers if trigger.kind in BREACHES)

    def new_code(self, policy: PolicySettings) -> bool:
        """Whether the training code differs from that of the last run."""
        return self.last_run is not None and self.last_run.code_version != policy.code_version

    def when_captured(self) -> Evidence:
        """Return what the evidence would be if every waiting label could be trained on."""
        if not self.waiting_per_label:
            return self
        per_label = Counter(self.new_per_label) + Counter(self.waiting_per_label)
        return replace(
            self,
            new_labels=self.new_labels + self.waiting,
            new_per_label=dict(per_label),
            dataset_version=f"{self.dataset_version}+waiting",
            waiting_per_label={},
            news_since_failure=None
            if self.news_since_failure is None
            else self.news_since_failure + self.waiting_since_failure,
            waiting_since_failure=0,
        )

    def to_map(self) -> dict[str, Any]:
        """Return what the decision log keeps."""
        alarm, quota = self.alarm, self.quota
        return {
            "newLabels": self.new_labels,
            "newPerLabel": _largest(self.new_per_label),
            "waiting": self.waiting,
            "waitingPerLabel": _largest(self.waiting_per_label, CLASSES_SHOWN),
            "conflicts": self.conflict_count,
            "conflictingIds": [shorten(name, LONGEST_ID) for name in self.conflicts[:CONFLICTS_SHOWN]],
            "overShare": self.over_share,
            "expired": self.expired,
            "forgotten": self.forgotten,
            "breaches": [
                {"kind": t.kind, "at": t.at, "detail": t.detail} for t in self.breaches[:_BREACHES_SHOWN]
            ],
            "alarm": alarm
            and {
                "name": alarm.name,
                "state": alarm.state,
                "breaching": alarm.breaching,
                "value": alarm.newest.value if alarm.newest else None,
                "measuredAt": to_iso(alarm.newest.at) if alarm.newest else None,
            },
            "quota": quota and {"limit": quota.limit, "inUse": quota.in_use, "problem": quota.problem},
            "datasetVersion": self.dataset_version,
            "previousDatasetVersion": self.last_run.dataset_version if self.last_run else None,
            "champion": self.champion,
            "championRegisteredAt": _iso(self.champion_registered_at),
            "servedSince": _iso(self.served_since),
            "pendingCandidate": self.pending_candidate,
            "lastFailure": self.last_failure
            and {
                "status": self.last_failure.status,
                "reason": shorten(self.last_failure.reason, LONGEST_REASON),
                "costless": self.last_failure.costless,
                "newLabelsSince": self.news_since_failure,
            },
            "spentThisMonthUsd": self.spent_this_month_usd,
        }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else to_iso(moment)


def _largest(counts: Mapping[str, int], shown: int = _LABELS_SHOWN) -> dict[str, int]:
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:shown]
    return dict(sorted(most))
