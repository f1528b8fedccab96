"""The one place where a claim ends, with a decision in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypedDict

from truthloop.claim import (
    GenerationRecord,
    LastRun,
    follow_up,
    require_claim,
    start_is_unsettled,
    was_released,
)
from truthloop.decision import FAILED, PIPELINE_LIVE, REFUSED, TRAINED, Decision
from truthloop.errors import ConditionFailed, PipelineNotFound, StartUnsettled, TransientAwsError
from truthloop.names import generation_number
from truthloop.policy import REFUSE
from truthloop.ports import PipelineExecution, Ports
from truthloop.report import report
from truthloop.times import to_iso


class ReleaseOutput(TypedDict):
    """Whether the claim ended, and who looks next."""

    released: bool
    pipelineExecutionArn: str | None
    outcome: str
    message: str
    report: str
    followUp: str | None


def release_run(event: Mapping[str, Any], ports: Ports) -> ReleaseOutput:
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
    """
    execution, generation = str(event["execution"]), str(event["generation"])
    number = generation_number(generation)
    outcome, reason, message = _resolve(event)
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
    decision = _decision(event, record, run, (outcome, reason, message), to_iso(ports.now()))
    try:
        ports.table.release(record, decision, run, trained=outcome in TRAINED)
    except ConditionFailed as error:
        # Either an earlier attempt of this call got through, or the claim is lost: reading again tells.
        raise TransientAwsError(f"the record of {generation} changed during its release") from error
    return {
        "released": True,
        "pipelineExecutionArn": arn,
        "outcome": outcome,
        "message": message,
        "report": report(decision.to_map()),
        "followUp": follow_up(ports.table.read(), number),
    }


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


def _resolve(event: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return outcome, reason code and message; what the machine says goes before what the parts say."""
    preflight, decision = event.get("preflight") or {}, event.get("decision") or {}
    # A run that was decided after all has outlived its errors: a poll, or the automatic approval.
    error: Mapping[str, Any] = {} if decision else _error_of(event)
    refused = preflight.get("verdict") == REFUSE
    derived = decision.get("outcome") or (REFUSED if refused else FAILED)
    outcome = str((FAILED if error else None) or event.get("outcome") or derived)
    reason = (
        str(preflight["reason"]) if refused and outcome == REFUSED else str(error.get("Error") or outcome)
    )
    spoken = [decision.get("message"), preflight.get("message") if refused else None, _cause(error)]
    message = event.get("message") or next((text for text in spoken if text), outcome)
    return outcome, reason, str(message)


def _error_of(event: Mapping[str, Any]) -> Mapping[str, Any]:
    error = event.get("error") or {}
    return error if isinstance(error, Mapping) else {"Error": str(error)}


def _cause(error: Mapping[str, Any]) -> str | None:
    if not error:
        return None
    cause = str(error.get("Cause") or "no cause given")
    try:
        # Lambda's cause is JSON with a stack trace; a person wants the sentence.
        cause = str(json.loads(cause)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        cause = cause[:1024]
    return f"{error.get('Error', 'an error')}: {cause}"


def _decision(
    event: Mapping[str, Any],
    record: GenerationRecord,
    run: LastRun | None,
    result: tuple[str, str, str],
    at: str,
) -> Decision:
    preflight, decided = event.get("preflight") or {}, event.get("decision") or {}
    outcome, reason, message = result
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
        rules=tuple(preflight.get("rules") or ()),
        evidence=preflight.get("evidence") or {},
        estimated_usd=paid.estimated_usd if paid else float(preflight.get("estimatedUsd") or 0.0),
        pipeline_execution_arn=paid.pipeline_execution_arn if paid else None,
        dataset_version=_dataset_version(record, run, preflight),
        model_packages=_packages(decided, approved=not event.get("error")),
    )


def _packages(decided: Mapping[str, Any], *, approved: bool) -> tuple[Mapping[str, Any], ...]:
    """Return the registered candidates; the one that the machine has approved by itself is marked.

    An error beside a decision is that of the automatic approval: the machine forgets earlier ones.
    """
    approve = decided.get("approve") if approved else None
    return tuple(
        {**package, "approved": True} if approve and package["arn"] == approve else package
        for package in decided.get("modelPackages") or ()
    )


def _dataset_version(
    record: GenerationRecord, run: LastRun | None, preflight: Mapping[str, Any]
) -> str | None:
    if run is not None:
        return run.dataset_version
    judged = None if record.waits_for else (preflight.get("evidence") or {}).get("datasetVersion")
    return str(judged) if judged else None
