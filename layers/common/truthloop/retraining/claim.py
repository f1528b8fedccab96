"""The one gate: who may act for the current generation, as transitions of the generation record.

A claim is one conditional write. It never expires by time; it passes on only when its holder is proven to
have ended, and whoever takes it over goes on with the same generation, so with the same names, and finds
what the old holder has started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from truthloop.errors import ClaimLost
from truthloop.names import generation_name, generation_number
from truthloop.retraining.triggers import Trigger
from truthloop.times import from_iso

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
class Orphan:
    """A live pipeline run that no claim waited for: started by hand, or forgotten by a lost table."""

    pipeline_execution_arn: str
    display_name: str
    started_at: str
    estimated_usd: float = 0.0

    @property
    def generation(self) -> int:
        """The number of the generation that its display name says it is; 0 when it says none."""
        try:
            return generation_number(self.display_name)
        except ValueError:
            return 0

    def to_map(self) -> dict[str, Any]:
        """Return the record's ``waitsFor``."""
        return {
            "pipelineExecutionArn": self.pipeline_execution_arn,
            "displayName": self.display_name,
            "startedAt": self.started_at,
            "estimatedUsd": self.estimated_usd,
        }

    @classmethod
    def from_map(cls, value: Mapping[str, Any]) -> Orphan:
        """Read what `to_map` wrote."""
        return cls(
            pipeline_execution_arn=str(value["pipelineExecutionArn"]),
            display_name=str(value["displayName"]),
            started_at=str(value["startedAt"]),
            estimated_usd=float(value.get("estimatedUsd", 0.0)),
        )

    def ended(self, status: str, reason: str, waiting: int) -> str:
        """Say what was waited for, how it ended and what becomes of the triggers that waited."""
        why = f": {reason}" if reason else ""
        triggers = "1 trigger waits" if waiting == 1 else f"{waiting} triggers wait"
        return (
            f"no run was started beside {self.display_name or 'an unnamed pipeline run'}, live since "
            f"{self.started_at} with nobody waiting for it ({self.pipeline_execution_arn}). It was waited "
            f"for and ended {status}{why}. {triggers} for the next decision"
        )


@dataclass(frozen=True)
class GenerationRecord:
    """The generation record, as read.

    `starting` is set, under the claim, before the pipeline is started: from then on the generation has a run
    even while nobody can see it, and whoever takes the claim over must start it (under the same name and
    token) and not refuse it; `start_asked_at` is when it was last asked for. It becomes `last_run` as soon as
    its execution is known. `last_trained` is the newest run that did train: new labels are counted against
    its dataset, so that a run that failed consumes no correction. `waits_for` is set while the generation has
    no run of its own and only waits until an orphan has ended.
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
    waits_for: Orphan | None = None

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

    @property
    def has_run(self) -> bool:
        """Whether a pipeline run was asked for or adopted: what comes now is not part of its evidence."""
        return self.starting is not None or self.pipeline_execution_arn is not None


class HolderState(Enum):
    """What Step Functions says of a claim's holder."""

    LIVE = "live"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Take:
    """Claim the next generation; every trigger that waits joins it.

    With an orphan about, the claim begins with its `pipeline_execution_arn`: as its own `run` when the
    orphan is a generation that the record has forgotten, else as what it `waits_for`. Either way the triggers
    stay `pending`: the orphan was started before they came, so it decides none of them.
    """

    generation: int
    expected_generation: int | None
    triggers: Mapping[str, Trigger]
    pending: Mapping[str, Trigger] = field(default_factory=dict)
    pipeline_execution_arn: str | None = None
    run: LastRun | None = None
    waits_for: Orphan | None = None

    def adopting(self, run: LastRun) -> Take:
        """Take the generation of a run that the record has forgotten, instead of the next one."""
        return replace(
            self,
            generation=generation_number(run.generation),
            triggers={},
            pending=self.triggers,
            pipeline_execution_arn=run.pipeline_execution_arn,
            run=run,
        )

    def waiting_for(self, orphan: Orphan, generation: int) -> Take:
        """Take `generation` only to wait until an orphan has ended."""
        return replace(
            self,
            generation=generation,
            triggers={},
            pending=self.triggers,
            pipeline_execution_arn=orphan.pipeline_execution_arn,
            waits_for=orphan,
        )


@dataclass(frozen=True)
class TakeOver:
    """Become the holder of the same generation, in place of one that has ended.

    `waiting` is the taker's trigger when it came too late for the generation's run: it stays pending, as it
    would have if the holder had lived. None when it joins `triggers`, or is recorded already. With `has_run`
    false the write must find the generation without a run: the function that its holder called last may
    still be asking for one.
    """

    generation: int
    expected_holder: str
    triggers: Mapping[str, Trigger]
    waiting: Trigger | None = None
    has_run: bool = False

    def behind_its_run(self, record: GenerationRecord, trigger: Trigger) -> TakeOver:
        """Take over a generation whose run the record has forgotten: the taker's trigger came too late."""
        return replace(self, triggers=record.triggers, waiting=_to_wait(record, trigger))


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
        # One that waited for two runs, the second an orphan, can only have been answered by the first.
        waited = {key: replace(p, during=p.during or record.name) for key, p in record.pending.items()}
        return Take(record.generation + 1, record.generation, {**waited, trigger.id: trigger})
    if record.holder == execution:
        return Held(record)
    waiting = _to_wait(record, trigger)
    if not _is_gone(record, holder_state, now):
        return Coalesce(record.generation, record.holder, waiting)
    if record.has_run:
        return TakeOver(record.generation, record.holder, record.triggers, waiting, has_run=True)
    return TakeOver(record.generation, record.holder, {**record.triggers, trigger.id: trigger})


def forgotten_first(orphans: Sequence[Orphan], record_generation: int) -> list[Orphan]:
    """Order orphans by which is waited for first.

    Generations that the record has forgotten come as they were numbered, so that each can still be taken
    under its own number; then the others, oldest first.
    """

    def place(orphan: Orphan) -> tuple[bool, int, str]:
        forgotten = orphan.generation > record_generation
        return not forgotten, orphan.generation if forgotten else 0, orphan.started_at

    return sorted(orphans, key=place)


def left_waiting(record: GenerationRecord) -> dict[str, Trigger]:
    """Return a claim's triggers as they wait once it turns out that it can only wait for an orphan."""
    waiting: dict[str, Trigger] = {}
    for trigger in record.triggers.values():
        placed = _placed(trigger, {**record.pending, **waiting})
        waiting[placed.id] = placed
    return waiting


def _to_wait(record: GenerationRecord, trigger: Trigger) -> Trigger | None:
    """Return a trigger as it waits on the record; None when it is there already."""
    if trigger.id in record.pending or trigger.id in record.triggers:
        return None
    return _placed(trigger, record.pending)


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
