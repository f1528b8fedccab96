"""Task states: functions, activities, SDK and optimised integrations, synchronous jobs, task tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from local.stepfunctions import jobs, shapes
from local.stepfunctions.errors import (
    HEARTBEAT_TIMEOUT,
    TIMEOUT,
    StateError,
    runtime_error,
)
from local.stepfunctions.execution import Callback
from local.stepfunctions.frame import Frame, check_size
from local.stepfunctions.history import compact
from local.stepfunctions.resource import Resource, parse_resource

OPTIMISED_ERRORS = {
    "dynamodb": ("DynamoDB", "AmazonDynamoDBException"),
    "sqs": ("SQS", "AmazonSQSException"),
    "sns": ("SNS", "AmazonSNSException"),
    "events": ("EventBridge", "AmazonCloudWatchEventsException"),
    "states": ("StepFunctions", "AWSStepFunctionsException"),
    "sagemaker": ("SageMaker", "AmazonSageMakerException"),
    "lambda": ("Lambda", "AWSLambdaException"),
}
"""Error prefix and general exception of the optimised integrations, which use the first Java SDK."""

_FIRST_SDK = {
    "dynamodb": "AmazonDynamoDBv2",
    "sqs": "AmazonSQS",
    "sns": "AmazonSNS",
    "events": "AmazonCloudWatchEvents",
    "states": "AWSStepFunctions",
    "sagemaker": "AmazonSageMaker",
    "lambda": "AWSLambda",
}
"""What the first Java SDK calls a service in the causes of its errors."""

_NO_LIMIT = 99_999_999


async def run_task(frame: Frame) -> Any:
    """Run the task of a state within its timeouts and return the raw result."""
    resource = parse_resource(frame.state["Resource"])
    timeout = frame.whole("TimeoutSeconds", least=1) or _NO_LIMIT
    heartbeat = frame.whole("HeartbeatSeconds", least=1)
    if resource.kind == "activity":
        return await _run_activity(frame, resource, timeout, heartbeat)
    if resource.kind == "function":
        return await _run_function(frame, resource, timeout)
    token, callback = "", None
    engine = frame.execution.engine
    if resource.pattern == "waitForTaskToken":
        token, callback = engine.new_callback(frame.execution.machine.arn)
        frame.flow.context["Task"] = {"Token": token}
    try:
        return await _run_service(frame, resource, timeout, heartbeat, callback)
    finally:
        frame.flow.context.pop("Task", None)
        if token:
            engine.drop_callback(token)


async def _within(work: Awaitable[Any], timeout: int) -> Any:
    """Await work; on a timeout raise the States.Timeout error."""
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise StateError(TIMEOUT) from None
        raise


async def _run_service(
    frame: Frame, resource: Resource, timeout: int, heartbeat: int | None, callback: Callback | None
) -> Any:
    about = {"resourceType": resource.type_name, "resource": resource.resource}
    region = resource.region or frame.execution.machine.region
    parameters = frame.arguments(default={})
    if not isinstance(parameters, dict):
        raise runtime_error(f"The arguments of '{resource.arn}' must be an object, not {compact(parameters)}")
    flow = frame.flow
    flow.record(
        "TaskScheduled",
        {
            **about,
            "region": region,
            "parameters": compact(parameters),
            "timeoutInSeconds": timeout if timeout != _NO_LIMIT else None,
            "heartbeatInSeconds": heartbeat,
        },
    )
    flow.record("TaskStarted", about)

    async def act() -> Any:
        result = await _call(frame, resource, region, parameters)
        if not resource.pattern:
            return result
        flow.record(
            "TaskSubmitted", {**about, "output": compact(result), "outputDetails": {"truncated": False}}
        )
        if callback is not None:
            return await _await_token(callback, heartbeat)
        return await jobs.await_job(frame, resource, region, parameters, result)

    try:
        result = await _within(act(), timeout)
        check_size(resource.type_name, result)
    except StateError as error:
        kind = "TaskTimedOut" if error.error == TIMEOUT else "TaskFailed"
        flow.record(kind, {**about, "error": error.error, "cause": error.cause})
        raise
    flow.record("TaskSucceeded", {**about, "output": compact(result), "outputDetails": {"truncated": False}})
    return result


async def _call(frame: Frame, resource: Resource, region: str, parameters: dict[str, Any]) -> Any:
    """Make the API call of a service task and return its result in Step Functions' form."""
    engine = frame.execution.engine
    model = shapes.operation(resource.service, resource.action)
    sdk = resource.kind == "sdk"
    if sdk:
        prefix = shapes.service_prefix(resource.service)
        generic = f"{prefix}Exception"
    else:
        prefix, generic = OPTIMISED_ERRORS[resource.type_name]
        parameters = _prepare(frame, resource, parameters)
    request = shapes.to_request(parameters, model.input_shape) if model.input_shape is not None else {}
    # Optimised integrations keep the API's own names, which only states has in lower case.
    rename = sdk or resource.type_name == "states"

    def call() -> Any:
        response = engine.client(resource.service, region)._make_api_call(model.name, request)
        shape = model.output_shape
        result = shapes.from_response(response, shape, millis=not sdk, rename=rename) if shape else {}
        return result if sdk else {**result, **shapes.sdk_metadata(response)}

    try:
        result = await engine.call(call)
    except ClientError as error:
        called = prefix if sdk else _FIRST_SDK[resource.type_name]
        raise StateError(
            shapes.error_name(error, resource.service, prefix, generic),
            shapes.error_cause(error, called, first_sdk=not sdk),
        ) from error
    except ParamValidationError as error:
        if _only_missing(error):
            # The Java SDK sends such a request, and the service refuses it.
            raise StateError(f"{prefix}.{generic}", str(error)) from error
        raise runtime_error(
            f"The Parameters '{compact(parameters)}' could not be used to start the Task: [{error}]"
        ) from error
    except BotoCoreError as error:
        raise StateError(f"{prefix}.SdkClientException", str(error)) from error
    return result if sdk else _conclude(resource, result)


def _only_missing(error: ParamValidationError) -> bool:
    """Tell whether a request lacks parameters and is sound otherwise."""
    found = str(error.kwargs.get("report", "")).splitlines()
    return bool(found) and all(line.startswith("Missing required parameter") for line in found)


def _prepare(frame: Frame, resource: Resource, parameters: dict[str, Any]) -> dict[str, Any]:
    """Add to the parameters what an optimised integration adds."""
    if resource.type_name == "events":
        extra = [frame.execution.execution_arn, frame.execution.machine.arn]
        entries = parameters.get("Entries")
        if isinstance(entries, list):
            entries = [
                {**entry, "Resources": [*entry.get("Resources", []), *extra]}
                if isinstance(entry, dict)
                else entry
                for entry in entries
            ]
            return {**parameters, "Entries": entries}
    if resource.type_name == "lambda" and "Payload" in parameters:
        # A string is JSON text only between quotes here; the SDK integration passes it as it is.
        return {**parameters, "Payload": compact(parameters["Payload"]).encode()}
    return parameters


def _conclude(resource: Resource, result: dict[str, Any]) -> dict[str, Any]:
    """Read the result of an optimised integration as AWS does."""
    if resource.type_name == "lambda":
        if "FunctionError" in result:
            raise function_error(result.get("Payload", ""))
        return {**result, "Payload": shapes.parsed(result.get("Payload"))}
    if resource.type_name == "events" and result.get("FailedEntryCount"):
        raise StateError("EventBridge.FailedEntry", compact(result))
    return result


def function_error(payload: str) -> StateError:
    """Return the error of a function that failed: its error type names it."""
    report = shapes.parsed(payload)
    kind = report.get("errorType") if isinstance(report, dict) else None
    return StateError(str(kind) if kind else "Lambda.Unknown", payload)


async def _await_token(callback: Callback, heartbeat: int | None) -> Any:
    """Wait for SendTaskSuccess or SendTaskFailure; without heartbeats in time the task times out."""
    if heartbeat is None:
        return await callback.outcome
    while True:
        beat = asyncio.ensure_future(callback.beats.wait())
        try:
            done, _ = await asyncio.wait(
                {callback.outcome, beat}, timeout=heartbeat, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            beat.cancel()
        if callback.outcome in done:
            return callback.outcome.result()
        if not done:
            raise StateError(TIMEOUT, aliases=(HEARTBEAT_TIMEOUT,))
        callback.beats.clear()


async def _run_function(frame: Frame, resource: Resource, timeout: int) -> Any:
    """Invoke a function whose ARN is the Resource: input in, output out."""
    flow, engine = frame.flow, frame.execution.engine
    payload = frame.arguments()
    flow.record(
        "LambdaFunctionScheduled",
        {
            "resource": resource.arn,
            "input": compact(payload),
            "inputDetails": {"truncated": False},
            "timeoutInSeconds": timeout if timeout != _NO_LIMIT else None,
        },
    )
    flow.record("LambdaFunctionStarted")

    def call() -> Any:
        client = engine.client("lambda", resource.arn.split(":")[3])
        response = client.invoke(FunctionName=resource.arn, Payload=compact(payload).encode())
        return response.get("FunctionError"), response["Payload"].read().decode()

    try:
        failed, text = await _within(engine.call(call), timeout)
        if failed:
            raise function_error(text)
        result = json.loads(text) if text else None
        check_size(resource.arn, result)
    except ClientError as error:
        problem = StateError(
            shapes.error_name(error, "lambda", "Lambda", "AWSLambdaException"),
            shapes.error_cause(error, _FIRST_SDK["lambda"], first_sdk=True),
        )
        flow.record("LambdaFunctionFailed", {"error": problem.error, "cause": problem.cause})
        raise problem from error
    except StateError as error:
        kind = "LambdaFunctionTimedOut" if error.error == TIMEOUT else "LambdaFunctionFailed"
        flow.record(kind, {"error": error.error, "cause": error.cause})
        raise
    flow.record("LambdaFunctionSucceeded", {"output": compact(result), "outputDetails": {"truncated": False}})
    return result


async def _run_activity(frame: Frame, resource: Resource, timeout: int, heartbeat: int | None) -> Any:
    """Offer the input to the workers that poll the activity and wait for one's answer."""
    flow, engine = frame.flow, frame.execution.engine
    text = compact(frame.arguments())
    token, callback = engine.new_callback(frame.execution.machine.arn)
    flow.record(
        "ActivityScheduled",
        {
            "resource": resource.arn,
            "input": text,
            "inputDetails": {"truncated": False},
            "timeoutInSeconds": timeout if timeout != _NO_LIMIT else None,
            "heartbeatInSeconds": heartbeat,
        },
    )

    async def act() -> Any:
        worker = await engine.activities.offer(resource.arn, token, text)
        flow.record("ActivityStarted", {"workerName": worker})
        return await _await_token(callback, heartbeat)

    try:
        result = await _within(act(), timeout)
        check_size(resource.arn, result)
    except StateError as error:
        kind = "ActivityTimedOut" if error.error == TIMEOUT else "ActivityFailed"
        flow.record(kind, {"error": error.error, "cause": error.cause})
        raise
    finally:
        engine.drop_callback(token)
    flow.record("ActivitySucceeded", {"output": compact(result), "outputDetails": {"truncated": False}})
    return result
