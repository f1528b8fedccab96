"""Claim the run, take it over, or leave the trigger with the execution that holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict

from truthloop.errors import ConditionFailed, InvalidTrigger, PipelineNotFound, TransientAwsError
from truthloop.inputs import ClaimInput
from truthloop.names import dataset_prefix, execution_name, generation_name
from truthloop.ports import Objects, Ports
from truthloop.retraining.claim import (
    CLAIMED,
    Coalesce,
    GenerationRecord,
    Held,
    HolderState,
    LastRun,
    Take,
    TakeOver,
    forgotten_first,
    plan_claim,
)
from truthloop.retraining.decision import COALESCED, INVALID, Decision, shorten
from truthloop.retraining.triggers import Trigger, parse_trigger
from truthloop.steps.orphans import find_orphans, forgotten_run, forgotten_run_of
from truthloop.times import to_iso

_ATTEMPTS = 10
"""Each lost race means that another execution got through: this many are a storm, not a deadlock."""


class TriggerOutput(TypedDict):
    """One trigger of the claim."""

    id: str
    kind: str
    at: str


class ClaimOutput(TypedDict):
    """What the state machine branches on."""

    outcome: str
    generation: str
    holder: str
    pipelineExecutionArn: str | None
    triggers: list[TriggerOutput]


def claim_run(event: object, ports: Ports) -> ClaimOutput:
    """Pass the one gate, or be recorded at it.

    Parameters
    ----------
    event : object
        ``execution`` (ARN), ``trigger`` (the execution's raw input), ``startedAt`` (ISO 8601).
    ports : Ports
        The outside world.

    Raises
    ------
    InvalidTrigger
        When the input is no reason to look.
    InvalidEvent
        When it does not say who asks, or since when.
    TransientAwsError
        When AWS fails for the moment, or other executions kept winning the race.
    """
    given = ClaimInput.parse(event)
    execution, started_at = given.execution, to_iso(given.started_at)
    try:
        trigger = parse_trigger(
            given.trigger, execution_name=execution_name(execution), started_at=started_at
        )
    except InvalidTrigger as error:
        ports.table.put_decision(_invalid(given.trigger, execution, started_at, error))
        raise
    for _ in range(_ATTEMPTS):
        try:
            return _try(execution, started_at, trigger, ports)
        except ConditionFailed:
            continue  # the record moved between reading and writing: look again
    raise TransientAwsError(f"{execution} lost the race for the generation record {_ATTEMPTS} times")


def _try(execution: str, started_at: str, trigger: Trigger, ports: Ports) -> ClaimOutput:
    record = ports.table.read()
    plan = plan_claim(record, execution, trigger, _holder_state(record, execution, ports), ports.now())
    at = to_iso(ports.now())
    if isinstance(plan, Take | TakeOver) and ports.table.has_decision(started_at, execution):
        # An earlier attempt was coalesced, and its answer lost: whoever has held the claim since has decided
        # about the trigger, or will. A forced start would else be paid twice.
        holder = str(record.holder or "") if record else ""
        return _answer("COALESCED", plan.generation, holder, None, {trigger.id: trigger})
    match plan:
        case Held(held):
            adopted = held.adopted_from or held.pipeline_execution_arn
            return _output("ADOPTED" if adopted else "CLAIMED", held)
        case Take():
            take = _beside_nobody(plan, ports)
            ports.table.take(take, execution, at)
            arn = take.pipeline_execution_arn
            return _answer("ADOPTED" if arn else "CLAIMED", take.generation, execution, arn, take.triggers)
        case TakeOver():
            if record is None:
                raise AssertionError("a claim is only taken over from a record")
            arn, run = _left_behind(record, ports)
            if run is not None and not plan.has_run:
                plan = plan.behind_its_run(record, trigger)
            ports.table.take_over(plan, execution, at, arn, run)
            return _answer("ADOPTED", plan.generation, execution, arn, plan.triggers)
        case Coalesce():
            return _coalesce(plan, execution, started_at, trigger, ports)


def _beside_nobody(plan: Take, ports: Ports) -> Take:
    """Return the claim of a generation that no pipeline run is in the way of.

    With a live run about that nobody waits for, the claim waits for it and starts none: two of them would
    cost twice and might train on the same evidence.
    """
    try:
        orphans = forgotten_first(find_orphans(ports), plan.expected_generation or 0)
    except PipelineNotFound:
        orphans = []  # without a pipeline nothing can be running; the claim must still pass on
    for orphan in orphans:
        if orphan.generation >= plan.generation and (run := forgotten_run(orphan, ports)):
            return plan.adopting(run)
    generation = _unused(plan.generation, ports.objects)
    if orphans:
        oldest = min(orphans, key=lambda orphan: orphan.started_at)
        return plan.waiting_for(oldest, generation)
    return replace(plan, generation=generation)


def _unused(generation: int, objects: Objects) -> int:
    """Return the first number from `generation` on that names no dataset yet.

    A table that was restored from a backup, or made anew beside a bucket that was kept, counts generations
    again. Their names must not: the run would train on the old dataset and find the old pipeline execution.
    """
    while next(iter(objects.list(dataset_prefix(generation_name(generation)))), None) is not None:
        generation += 1
    return generation


def _holder_state(record: GenerationRecord | None, execution: str, ports: Ports) -> HolderState | None:
    if record is None or record.status != CLAIMED or record.holder in (None, execution):
        return None
    return ports.executions.state(str(record.holder))


def _left_behind(record: GenerationRecord, ports: Ports) -> tuple[str | None, LastRun | None]:
    """Return the pipeline execution of a claim whose holder has ended, and its run; None where there is none.

    The holder may have ended between starting the pipeline and writing that down. And a record that asks for
    no start may be older than the start: a table that was restored from a backup is.
    """
    arn = record.pipeline_execution_arn
    if arn is not None:
        return arn, record.run_of(arn)
    try:
        if record.starting is None:
            run = forgotten_run_of(record.name, ports)
            return (run.pipeline_execution_arn, run) if run else (None, None)
        found = ports.pipeline.find(record.name)
    except PipelineNotFound:
        return None, None  # without a pipeline nothing can be running; the claim must still pass on
    return (found.arn, record.run_of(found.arn)) if found else (None, None)


_SHOWN = 512
"""Characters of an invalid input in the decision log: enough to find who sent it."""


def _invalid(given: object, execution: str, started_at: str, error: InvalidTrigger) -> Decision:
    text = shorten(json.dumps(given, default=str), _SHOWN)
    return Decision(
        at=started_at,  # not the present: a retry must write the same item
        execution=execution,
        generation="none",
        outcome=INVALID,
        reason="INVALID_TRIGGER",
        message=f"{shorten(str(error), _SHOWN)}; the input was {text}",
    )


def _coalesce(plan: Coalesce, execution: str, started_at: str, trigger: Trigger, ports: Ports) -> ClaimOutput:
    decision = Decision(
        at=started_at,  # not the present: a retry must write the same item
        execution=execution,
        generation=generation_name(plan.generation),
        outcome=COALESCED,
        reason=COALESCED,
        message=f"{generation_name(plan.generation)} is under way; this trigger is decided when it ends",
        triggers=({"id": trigger.id, **trigger.to_map()},),
    )
    if plan.waiting is None:
        ports.table.put_decision(decision)
    else:
        ports.table.coalesce(plan.generation, plan.holder, plan.waiting, decision)
    return _answer("COALESCED", plan.generation, plan.holder, None, {trigger.id: trigger})


def _output(outcome: str, record: GenerationRecord) -> ClaimOutput:
    return _answer(
        outcome, record.generation, str(record.holder), record.pipeline_execution_arn, record.triggers
    )


def _answer(
    outcome: str, generation: int, holder: str, arn: str | None, triggers: Mapping[str, Trigger]
) -> ClaimOutput:
    return {
        "outcome": outcome,
        "generation": generation_name(generation),
        "holder": holder,
        "pipelineExecutionArn": arn,
        "triggers": [{"id": t.id, "kind": t.kind, "at": t.at} for t in triggers.values()],
    }
