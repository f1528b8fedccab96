"""The one place where a claim ends, with a decision in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

from truthloop.errors import (
    ConditionFailed,
    InvalidEvent,
    PipelineNotFound,
    StartUnsettled,
    TransientAwsError,
)
from truthloop.inputs import ErrorPart, ReleaseInput, ResultPart
from truthloop.names import generation_number
from truthloop.ports import PipelineExecution, Ports
from truthloop.retraining.claim import (
    GenerationRecord,
    LastRun,
    follow_up,
    require_claim,
    start_is_unsettled,
    was_released,
)
from truthloop.retraining.decision import (
    FAILED,
    PIPELINE_LIVE,
    PIPELINE_SUCCEEDED,
    REFUSED,
    TRAINED,
    Decision,
)
from truthloop.retraining.policy import REFUSE
from truthloop.retraining.report import report
from truthloop.times import to_iso


class ReleaseOutput(TypedDict):
    """Whether the claim ended, and who looks next."""

    released: bool
    pipelineExecutionArn: str | None
    outcome: str
    message: str
    report: str
    followUp: str | None


def release_run(event: object, ports: Ports) -> ReleaseOutput:
    """End the claim, unless its pipeline execution is still live.

    The record becomes idle and the decision is written in one transaction, conditional on the claim. A retry
    after it got through finds the generation released and gives the same answer. Triggers that came
    meanwhile stay pending, and the answer names the follow-up generation that should look at them.

    Raises
    ------
    ClaimLost
        When another execution holds the generation.
    StartUnsettled
        When a pipeline execution may have been started that nobody can see yet: with the claim released, the
        next generation would start a second one beside it.
    TransientAwsError
        When triggers kept arriving between reading the record and writing it.
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = ReleaseInput.parse(event)
    execution, generation = given.execution, given.generation
    number = generation_number(generation)
    outcome, reason, message = _resolve(given)
    record = ports.table.read()
    if was_released(record, number):
        run = record.last_run if record else None
        return {
            "released": True,
            "pipelineExecutionArn": run.pipeline_execution_arn
            if run and run.generation == generation
            else None,
            "outcome": outcome,
            "message": message,
            "report": _report_again(execution, generation, message, ports),
            "followUp": follow_up(record, number),
        }
    record = require_claim(record, execution, generation)
    running = _pipeline_of(record, ports)
    arn = running.arn if running else None
    if running and running.status in PIPELINE_LIVE:
        if record.pipeline_execution_arn is None:
            ports.table.record_start(record.generation, execution, running.arn, record.run_of(running.arn))
        return {
            "released": False,
            "pipelineExecutionArn": arn,
            "outcome": outcome,
            "message": f"the pipeline execution is {running.status}; the claim stays until it has ended",
            "report": message,
            "followUp": None,
        }
    run = record.run_of(arn) if arn else None
    # A run whose result could not be read has trained all the same: it must not be paid for again.
    succeeded = running is not None and running.status == PIPELINE_SUCCEEDED
    decision = _decision(given, record, run, (outcome, reason, message), to_iso(ports.now()))
    if outcome == FAILED and run is not None:
        costless = given.decision is not None and given.decision.costless
        decision = replace(decision, costless=costless, trained=succeeded)
    if given.decision is not None:
        decision = replace(
            decision,
            billed_usd=given.decision.billed_usd,
            spot_savings_percent=given.decision.spot_savings_percent,
        )
    told = _told(decision)
    try:
        ports.table.release(record, decision, run, trained=outcome in TRAINED or succeeded)
    except ConditionFailed as error:
        # Either an earlier attempt of this call got through, or the claim is lost: reading again tells.
        raise TransientAwsError(f"the record of {generation} changed during its release") from error
    return {
        "released": True,
        "pipelineExecutionArn": arn,
        "outcome": outcome,
        "message": message,
        "report": told,
        "followUp": follow_up(ports.table.read(), number),
    }


def _told(decision: Decision) -> str:
    """Put the decision into words before anything is written: an input that has none is refused."""
    try:
        return report(decision.to_map())
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidEvent(f"the decision cannot be told from the parts of the input: {error!r}") from error


def _report_again(execution: str, generation: str, message: str, ports: Ports) -> str:
    """Say what the attempt that got through has said: its decision is in the log, triggers and all."""
    written = ports.table.find_decision(execution, generation)
    return report(written) if written else message


def _pipeline_of(record: GenerationRecord, ports: Ports) -> PipelineExecution | None:
    if record.pipeline_execution_arn is not None:
        try:
            return ports.pipeline.describe(record.pipeline_execution_arn)
        except PipelineNotFound:
            return PipelineExecution(record.pipeline_execution_arn, "Deleted", "")
    if record.starting is None:
        return None
    # A start was asked for, and nobody has written down what came of it.
    try:
        found = ports.pipeline.find(record.name)
    except PipelineNotFound:
        return None
    if found is None and start_is_unsettled(record, ports.now()):
        raise StartUnsettled(
            f"the start that {record.name} asked for at {record.start_asked_at} may yet come to light"
        )
    return found


def _resolve(given: ReleaseInput) -> tuple[str, str, str]:
    """Return outcome, reason code and message; what the machine says goes before what the parts say."""
    preflight, decision = given.preflight, given.decision
    # A run that was decided after all has outlived its errors: a poll, or the automatic approval.
    error = None if decision else given.error
    refusal = preflight if preflight and preflight.verdict == REFUSE else None
    derived = decision.outcome if decision else REFUSED if refusal else FAILED
    outcome = FAILED if error else given.outcome or derived
    reason = (error.error if error else "") or outcome
    if refusal and outcome == REFUSED:
        reason = refusal.reason or outcome
    spoken = (decision.message if decision else "", refusal.message if refusal else "", _cause(error))
    message = given.message or next((text for text in spoken if text), outcome)
    return outcome, reason, message


def _cause(error: ErrorPart | None) -> str:
    if error is None:
        return ""
    cause = error.cause or "no cause given"
    try:
        # Lambda's cause is JSON with a stack trace; a person wants the sentence.
        cause = str(json.loads(cause)["errorMessage"])
    except (ValueError, KeyError, TypeError, RecursionError):
        cause = cause[:1024]
    return f"{error.error or 'an error'}: {cause}"


def _decision(
    given: ReleaseInput,
    record: GenerationRecord,
    run: LastRun | None,
    result: tuple[str, str, str],
    at: str,
) -> Decision:
    preflight, (outcome, reason, message) = given.preflight, result
    evidence = preflight.evidence if preflight else {}
    estimate = preflight.estimated_usd if preflight else 0.0
    # A run that was only waited for has cost its money too; it says nothing of this generation's evidence.
    paid = run or record.waits_for
    return Decision(
        at=at,
        execution=str(record.holder),
        generation=record.name,
        outcome=outcome,
        reason=reason,
        message=message,
        triggers=tuple({"id": t.id, **t.to_map()} for t in record.triggers.values()),
        rules=preflight.rules if preflight else (),
        evidence=evidence,
        estimated_usd=paid.estimated_usd if paid else estimate,
        pipeline_execution_arn=paid.pipeline_execution_arn if paid else None,
        dataset_version=_dataset_version(record, run, evidence),
        model_packages=_packages(given.decision, approved=given.error is None),
    )


def _packages(decided: ResultPart | None, *, approved: bool) -> tuple[Mapping[str, Any], ...]:
    """Return the registered candidates; the one that the machine has approved by itself is marked.

    An error beside a decision is that of the automatic approval: the machine forgets earlier ones.
    """
    if decided is None:
        return ()
    approve = decided.approve if approved else None
    return tuple(
        {**package, "approved": True} if approve and package["arn"] == approve else package
        for package in decided.model_packages
    )


def _dataset_version(
    record: GenerationRecord, run: LastRun | None, evidence: Mapping[str, Any]
) -> str | None:
    if run is not None:
        return run.dataset_version
    judged = None if record.waits_for else evidence.get("datasetVersion")
    return str(judged) if judged else None
