"""The synchronous integrations: wait for what the task started, stop it when the task is stopped."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from botocore.model import Shape

from local.stepfunctions import shapes
from local.stepfunctions.errors import TASK_FAILED, StateError
from local.stepfunctions.frame import Frame
from local.stepfunctions.history import compact
from local.stepfunctions.resource import Resource

_SHORTEST_POLL = 0.1
_LONGEST_POLL = 2.0


@dataclass(frozen=True)
class _Job:
    """How a SageMaker job is watched."""

    name: str
    describe: str
    stop: str
    status: str


_JOBS = {
    f"create{kind}": _Job(f"{kind}Name", f"Describe{kind}", f"Stop{kind}", f"{kind}Status")
    for kind in ("TrainingJob", "ProcessingJob", "TransformJob", "HyperParameterTuningJob")
}


async def await_job(
    frame: Frame, resource: Resource, region: str, parameters: dict[str, Any], started: dict[str, Any]
) -> Any:
    """Return the description of what a synchronous task started, once it has succeeded.

    Raises
    ------
    StateError
        ``States.TaskFailed`` with the description as its cause.
    """
    if resource.type_name == "states":
        return await _await_execution(frame, resource, started["ExecutionArn"])
    return await _await_sagemaker(frame, resource, region, parameters)


async def _await_execution(frame: Frame, resource: Resource, arn: str) -> Any:
    engine = frame.execution.engine
    child = engine.executions[arn]
    try:
        await child.join()
    except asyncio.CancelledError:
        if not child.finished.is_set():
            asyncio.ensure_future(engine.call(child.stop, None, None))  # noqa: RUF006 - ends by itself
        raise
    read = shapes.parsed if resource.pattern == "sync:2" else str
    report: dict[str, Any] = {
        "ExecutionArn": arn,
        "Input": read(child.execution_input),
        "InputDetails": {"Included": True},
        "Name": child.name,
        "Output": read(child.output) if child.output is not None else None,
        "OutputDetails": {"Included": True},
        "RedriveCount": 0,
        "RedriveStatus": "NOT_REDRIVABLE",
        "StartDate": round(child.start_date.timestamp() * 1000),
        "StateMachineArn": child.machine.arn,
        "Status": child.status,
        "StopDate": round(child.stop_date.timestamp() * 1000) if child.stop_date else None,
        "Error": child.error,
        "Cause": child.cause,
    }
    report = {key: value for key, value in report.items() if value is not None or key == "Output"}
    if child.status != "SUCCEEDED":
        report.pop("Output")
        raise StateError(TASK_FAILED, compact(report))
    return report


def _input_shape(resource: Resource) -> Shape:
    shape = shapes.operation(resource.service, resource.action).input_shape
    if shape is None:
        raise shapes.UnknownIntegrationError(f"The action {resource.action} has no parameters")
    return shape


async def _await_sagemaker(frame: Frame, resource: Resource, region: str, parameters: dict[str, Any]) -> Any:
    engine = frame.execution.engine
    job = _JOBS[resource.action]
    request = shapes.to_request(parameters, _input_shape(resource))
    key = {job.name: request[job.name]}

    async def ask(operation: str) -> Any:
        client = await engine.call(engine.client, resource.service, region)
        return await engine.call(client._make_api_call, operation, key)

    shape = shapes.operation(resource.service, job.describe[:1].lower() + job.describe[1:]).output_shape
    pause = _SHORTEST_POLL
    try:
        while True:
            response = await ask(job.describe)
            report = shapes.from_response(response, shape, millis=True, rename=False)
            if report[job.status] not in ("InProgress", "Stopping"):
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)
    except asyncio.CancelledError:
        # The job runs from the moment in which the task was submitted, so also before the first look.
        asyncio.ensure_future(ask(job.stop))  # noqa: RUF006 - ends by itself
        raise
    if report[job.status] != "Completed":
        raise StateError(TASK_FAILED, compact(report))
    return report
