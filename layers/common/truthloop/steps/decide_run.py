"""Say what a finished pipeline execution came to, and write the recommendation on its packages."""

from __future__ import annotations

from typing import TypedDict

from truthloop.errors import PipelineStillRunning
from truthloop.inputs import DecideInput
from truthloop.names import evaluation_key
from truthloop.ports import PipelineExecution, Ports
from truthloop.retraining.bill import bill
from truthloop.retraining.decision import (
    FAILED,
    PIPELINE_LIVE,
    PIPELINE_SUCCEEDED,
    STEP_STOPPED,
    STOPPED,
    SUCCEEDED,
    WAITED,
    Evaluation,
    StepResult,
    is_costless,
    judge_failure,
)
from truthloop.serving.registry import PENDING
from truthloop.steps.training_jobs import read_steps


class PackageOutput(TypedDict):
    """One registered candidate."""

    arn: str
    candidate: str
    recommended: bool
    accuracy: float | None


class Outcome(TypedDict):
    """What the run came to."""

    outcome: str
    message: str
    modelPackages: list[PackageOutput]
    approve: str | None
    costless: bool


class DecideOutput(Outcome):
    """What the run came to, and what its training was billed."""

    billedUsd: float | None
    spotSavingsPercent: float | None


def decide_run(event: object, ports: Ports) -> DecideOutput:
    """Decide the run by its pipeline execution's status, steps and evaluation.

    A generation that only waited for an orphan has none: it says what it waited for and how that ended. A run
    that nobody stopped, though the pipeline calls it so because its spot instances never came, has failed.

    Raises
    ------
    PipelineStillRunning
        When the execution has not ended.
    DatasetInvalid, ObjectMissing
        When the run succeeded and its evaluation cannot be read.
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = DecideInput.parse(event)
    execution = _ended(given, ports)
    record = ports.table.read()
    if record and record.waits_for and record.waits_for.pipeline_execution_arn == execution.arn:
        # Another one's run: what its jobs came to and cost is no part of this decision.
        message = record.waits_for.ended(execution.status, execution.failure_reason, len(record.pending))
        return {**_without_models(WAITED, message), "billedUsd": None, "spotSavingsPercent": None}
    steps = read_steps(execution.arn, ports.pipeline, ports.jobs)
    found = _judge(given.generation, execution, steps, ports)
    billed = bill(steps, ports.settings.policy)
    return {**found, "billedUsd": billed.usd, "spotSavingsPercent": billed.spot_savings_percent}


def _judge(
    generation: str, execution: PipelineExecution, steps: tuple[StepResult, ...], ports: Ports
) -> Outcome:
    if execution.status == PIPELINE_SUCCEEDED:
        return _succeeded(generation, execution, steps, ports)
    costless = is_costless(steps)
    if execution.status == STEP_STOPPED and not costless:
        return _without_models(STOPPED, execution.failure_reason or "the pipeline execution was stopped")
    return _without_models(*judge_failure(steps, execution.failure_reason), costless=costless)


def _without_models(outcome: str, message: str, *, costless: bool = False) -> Outcome:
    return {
        "outcome": outcome,
        "message": message,
        "modelPackages": [],
        "approve": None,
        "costless": costless,
    }


def _ended(given: DecideInput, ports: Ports) -> PipelineExecution:
    arn = given.pipeline_execution_arn
    if given.status is None or given.status in PIPELINE_LIVE:
        execution = ports.pipeline.describe(arn)
        if execution.status in PIPELINE_LIVE:
            raise PipelineStillRunning(f"{arn} is {execution.status}: wait for it before deciding")
        return execution
    return PipelineExecution(arn, given.status, given.failure_reason)


def _succeeded(
    generation: str, execution: PipelineExecution, steps: tuple[StepResult, ...], ports: Ports
) -> Outcome:
    key = evaluation_key(generation)
    evaluation = Evaluation.from_json(ports.objects.read(key), ports.objects.uri(key))
    packages: list[PackageOutput] = []
    approve: str | None = None
    for step in steps:
        if step.model_package_arn is None:
            continue
        package = ports.registry.describe(step.model_package_arn)
        ports.registry.annotate(package, evaluation.metadata(package.candidate))
        recommended = package.candidate == evaluation.recommended
        packages.append(
            {
                "arn": package.arn,
                "candidate": package.candidate,
                "recommended": recommended,
                "accuracy": evaluation.accuracies.get(package.candidate),
            }
        )
        # Someone who has approved or rejected it meanwhile has decided; a retry must not undo that.
        if recommended and ports.settings.policy.approval == "auto" and package.approval == PENDING:
            approve = package.arn
    if not packages:
        message = f"{execution.arn} succeeded without registering a model; see its steps"
        return _without_models(FAILED, message)
    return {
        "outcome": SUCCEEDED,
        "message": evaluation.reason,
        "modelPackages": packages,
        "approve": approve,
        "costless": False,
    }
