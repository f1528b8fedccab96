"""The one gate: who may act for the current generation, as transitions of the generation record.

A claim is one conditional write. It never expires by time; it passes on only when its holder is proven to
have ended, and whoever takes it over goes on with the same generation, so with the same names, and finds
what the old holder has started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from truthloop.errors import ClaimLost
from truthloop.names import generation_name
from truthloop.times import from_iso
from truthloop.triggers import Trigger

IDLE = "IDLE"
CLAIMED = "CLAIMED"

UNKNOWN_HOLDER_GRACE = timedelta(minutes=5)
"""DescribeExecution is eventually consistent: a holder that it does not know may have started just
now. Only for a claim older than this does "does not exist" prove that the execution is gone."""

MAXIMUM_PENDING = 50
"""Triggers that wait each in a place of its own. A run takes a day, an item of the table holds 400 KB, and a
state machine passes on 256 KiB: what comes after these shares one place per kind."""

START_SETTLES_AFTER = timedelta(minutes=3)
"""How long after it was last asked for a start of the pipeline may still come to light: the function that
asks lives for 2 minutes at most, and ListPipelineExecutions is eventually consistent."""


@dataclass(frozen=True)
class LastRun:
    """A pipeline run: the newest that any generation has started, or the newest that trained."""

    generation: str
    dataset_version: str
    dataset_uri: str
    pipeline_execution_arn: str
    started_at: str
    code_version: str
    estimated_usd: float = 0.0

    def to_map(self) -> dict[str, Any]:
        """Return the record's ``lastRun``."""
        return {
            "generation": self.generation,
            "datasetVersion": self.dataset_version,
            "datasetUri": self.dataset_uri,
            "pipelineExecutionArn": self.pipeline_execution_arn,
            "startedAt": self.started_at,
            "codeVersion": self.code_version,
            "estimatedUsd": self.estimated_usd,
        }

    @classmethod
    def from_map(cls, value: Mapping[str, Any]) -> LastRun:
        """Read what `to_map` wrote."""
        return cls(
            generation=str(value["generation"]),
            dataset_version=str(value["datasetVersion"]),
            dataset_uri=str(value["datasetUri"]),
            pipeline_execution_arn=str(value["pipelineExecutionArn"]),
            started_at=str(value["startedAt"]),
            code_version=str(value["codeVersion"]),
            estimated_usd=float(value.get("estimatedUsd", 0.0)),
        )


@dataclass(frozen=True)
class GenerationRecord:
    """The generation record, as read.

    `starting` is set, under the claim, before the pipeline is started: from then on the generation has a run
    even while nobody can see it, and whoever takes the claim over must start it (under the same name and
    token) and not refuse it; `start_asked_at` is when it was last asked for. It becomes `last_run` as soon as
    its execution is known. `last_trained` is the newest run that did train: new labels are counted against
    its dataset, so that a run that failed consumes no correction.
    """

    generation: int
    status: str
    holder: str | None = None
    claimed_at: str | None = None
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    pending: Mapping[str, Trigger] = field(default_factory=dict)
    pipeline_execution_arn: str | None = None
    starting: LastRun | None = None
    start_asked_at: str | None = None
    adopted_from: str | None = None
    last_run: LastRun | None = None
    last_trained: LastRun | None = None

    @property
    def name(self) -> str:
        """The generation's name."""
        return generation_name(self.generation)

    def run_of(self, pipeline_execution_arn: str) -> LastRun | None:
        """Return this generation's run, now that its pipeline execution is known."""
        run = self.starting or self.last_run
        if run is None or run.generation != self.name:
            return None
        return replace(run, pipeline_execution_arn=pipeline_execution_arn)


class HolderState(Enum):
    """What Step Functions says of a claim's holder."""

    LIVE = "live"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Take:
    """Claim the next generation; every trigger that waits joins it."""

    generation: int
    expected_generation: int | None
    triggers: Mapping[str, Trigger]


@dataclass(frozen=True)
class TakeOver:
    """Become the holder of the same generation, in place of one that has ended."""

    generation: int
    expected_holder: str
    triggers: Mapping[str, Trigger]


@dataclass(frozen=True)
class Coalesce:
    """Leave the trigger with the live holder's record, as `waiting`; None when it is there already."""

    generation: int
    holder: str
    waiting: Trigger | None


@dataclass(frozen=True)
class Held:
    """Go on: the execution is the holder already: an earlier attempt got through."""

    record: GenerationRecord


ClaimPlan = Take | TakeOver | Coalesce | Held


def plan_claim(
    record: GenerationRecord | None,
    execution: str,
    trigger: Trigger,
    holder_state: HolderState | None,
    now: datetime,
) -> ClaimPlan:
    """Decide what a claim does, given the record as read.

    Parameters
    ----------
    record : GenerationRecord or None
        None before the first claim ever.
    execution : str
        ARN of the execution that asks.
    trigger : Trigger
        Why it asks.
    holder_state : HolderState or None
        State of the record's holder; None when the record has none or `execution` is the holder.
    now : datetime
        The present, with a zone.
    """
    if record is None:
        return Take(1, None, {trigger.id: trigger})
    if record.status == IDLE or record.holder is None:
        waited = {key: replace(pending, during=record.name) for key, pending in record.pending.items()}
        return Take(record.generation + 1, record.generation, {**waited, trigger.id: trigger})
    if record.holder == execution:
        return Held(record)
    if _is_gone(record, holder_state, now):
        return TakeOver(record.generation, record.holder, {**record.triggers, trigger.id: trigger})
    recorded = trigger.id in record.pending or trigger.id in record.triggers
    return Coalesce(record.generation, record.holder, None if recorded else _placed(trigger, record.pending))


def _placed(trigger: Trigger, pending: Mapping[str, Trigger]) -> Trigger:
    """Give a trigger its place: its own, or one that it shares with its kind once many wait.

    The decision log has each of them; the follow-up needs to know only which kinds there were.
    """
    if len(pending) < MAXIMUM_PENDING:
        return trigger
    return replace(trigger, id=f"more-{trigger.kind}{'-forced' if trigger.force else ''}")


def _is_gone(record: GenerationRecord, state: HolderState | None, now: datetime) -> bool:
    if state is HolderState.ENDED:
        return True
    if state is HolderState.UNKNOWN:
        return record.claimed_at is None or now - from_iso(record.claimed_at) > UNKNOWN_HOLDER_GRACE
    return False


def require_claim(record: GenerationRecord | None, execution: str, generation: str) -> GenerationRecord:
    """Return the record if `execution` holds `generation`.

    Raises
    ------
    ClaimLost
        When it does not: what it was about to do is somebody else's now.
    """
    if record is None or record.status != CLAIMED or record.holder != execution or record.name != generation:
        state = "no record" if record is None else f"{record.name} {record.status} by {record.holder}"
        raise ClaimLost(f"{execution} does not hold the claim of {generation} (the record says: {state})")
    return record


def start_is_unsettled(record: GenerationRecord, now: datetime) -> bool:
    """Whether a pipeline execution that cannot be found may still come to light."""
    asked_at = record.start_asked_at
    return asked_at is not None and now - from_iso(asked_at) <= START_SETTLES_AFTER


def was_released(record: GenerationRecord | None, generation: int) -> bool:
    """Whether `generation` has been released: the record is idle at it or has moved past it."""
    if record is None:
        return False
    return record.generation > generation or (record.generation == generation and record.status == IDLE)


def follow_up(record: GenerationRecord | None, generation: int) -> str | None:
    """Name the generation that should look at triggers which came during `generation`.

    None when nothing waits, or when a later claim has taken what waited already.
    """
    if record is None or record.generation != generation or not record.pending:
        return None
    return generation_name(generation + 1)
