"""API operations on pipelines and their executions."""

from __future__ import annotations

import json
import logging
from typing import Any

from local.sagemaker.data_channels import DataChannels
from local.sagemaker.errors import (
    ConflictError,
    ResourceNotFound,
    UnsupportedOperation,
    ValidationError,
)
from local.sagemaker.operations import Call, operation, page
from local.sagemaker.pipelines.definition import Definition, DefinitionError, parse
from local.sagemaker.pipelines.execution import TERMINAL, Execution
from local.sagemaker.pipelines.records import Pipeline
from local.sagemaker.state import Params, now, random_id, tags_of

log = logging.getLogger("local.sagemaker")


@operation("CreatePipeline")
def create_pipeline(call: Call) -> Params:
    """CreatePipeline."""
    name = call["PipelineName"]
    text = _definition_text(call)
    definition = _parsed(text, name)
    arn = call.sagemaker.arn(call.region, f"pipeline/{name}")
    created = now()
    with call.state.lock:
        if name in call.state.held(Pipeline):
            raise ValidationError(
                f"Pipeline names must be unique within an AWS account and region. Pipeline with name "
                f"({name}) already exists."
            )
        body: Params = {
            "PipelineArn": arn,
            "PipelineName": name,
            "PipelineDisplayName": call.get("PipelineDisplayName", name),
            "PipelineDescription": call.get("PipelineDescription"),
            "PipelineDefinition": text,
            "RoleArn": call["RoleArn"],
            "PipelineStatus": "Active",
            "CreationTime": created,
            "LastModifiedTime": created,
            "ParallelismConfiguration": call.get("ParallelismConfiguration"),
            "CreatedBy": {},
            "LastModifiedBy": {},
        }
        call.state.held(Pipeline)[name] = Pipeline(arn, body, definition, tags_of(call.params))
    return {"PipelineArn": arn}


@operation("UpdatePipeline")
def update_pipeline(call: Call) -> Params:
    """UpdatePipeline; running executions keep the definition that they began with."""
    pipeline = _pipeline(call)
    changes: Params = {
        key: call.get(key)
        for key in ("PipelineDisplayName", "PipelineDescription", "RoleArn", "ParallelismConfiguration")
        if call.get(key) is not None
    }
    definition = pipeline.definition
    if call.get("PipelineDefinition") or call.get("PipelineDefinitionS3Location"):
        changes["PipelineDefinition"] = _definition_text(call)
        definition = _parsed(changes["PipelineDefinition"], pipeline.name)
    with call.state.lock:
        pipeline.body = {**pipeline.body, **changes, "LastModifiedTime": now()}
        pipeline.definition = definition
    return {"PipelineArn": pipeline.arn}


@operation("DescribePipeline")
def describe_pipeline(call: Call) -> Params:
    """DescribePipeline."""
    return _pipeline(call).body


@operation("DeletePipeline")
def delete_pipeline(call: Call) -> Params:
    """DeletePipeline; not while it runs."""
    pipeline = _pipeline(call)
    with call.state.lock:
        running = [
            arn for arn in pipeline.execution_arns if call.state.held(Execution)[arn].status not in TERMINAL
        ]
        if running:
            raise ConflictError(f"Pipeline {pipeline.arn} has running executions: {', '.join(running)}")
        for arn in pipeline.execution_arns:
            call.state.held(Execution).pop(arn, None)
        del call.state.held(Pipeline)[pipeline.name]
    return {"PipelineArn": pipeline.arn}


@operation("ListPipelines")
def list_pipelines(call: Call) -> Params:
    """ListPipelines."""
    items = [pipeline.body for pipeline in list(call.state.held(Pipeline).values())]
    prefix = call.get("PipelineNamePrefix")
    if prefix is not None:
        items = [item for item in items if item["PipelineName"].startswith(prefix)]
    return page(
        call,
        items,
        result="PipelineSummaries",
        sort={
            "Name": lambda item: item["PipelineName"],
            "CreationTime": lambda item: item["CreationTime"],
        },
        default_sort="CreationTime",
    )


@operation("StartPipelineExecution")
def start_execution(call: Call) -> Params:
    """StartPipelineExecution; the same ClientRequestToken gives the same execution."""
    pipeline = _pipeline(call)
    for unsupported in ("SelectiveExecutionConfig", "PipelineVersionId", "MlflowExperimentName"):
        if call.get(unsupported) is not None:
            raise UnsupportedOperation(f"{unsupported} is not supported by the embedded AWS.")
    token = call.get("ClientRequestToken")
    # One lock around the look-up and the record: two starts with one token are one execution.
    with call.state.lock:
        if token is not None and token in pipeline.tokens:
            return {"PipelineExecutionArn": pipeline.tokens[token]}
        given = call.get("PipelineParameters", [])
        parameters = _parameters(pipeline.definition, given)
        identifier = random_id()
        arn = f"{pipeline.arn}/execution/{identifier}"
        created = now()
        body: Params = {
            "PipelineArn": pipeline.arn,
            "PipelineExecutionArn": arn,
            "PipelineExecutionDisplayName": call.get(
                "PipelineExecutionDisplayName", f"execution-{int(created.timestamp() * 1000)}"
            ),
            "PipelineExecutionDescription": call.get("PipelineExecutionDescription"),
            "PipelineExecutionStatus": "Executing",
            "CreationTime": created,
            "LastModifiedTime": created,
            "CreatedBy": {},
            "LastModifiedBy": {},
            "ParallelismConfiguration": call.get("ParallelismConfiguration")
            or pipeline.body.get("ParallelismConfiguration"),
        }
        execution = Execution(call.sagemaker, call.region, pipeline, body, parameters, given)
        call.state.held(Execution)[arn] = execution
        pipeline.execution_arns.append(arn)
        pipeline.body["LastRunTime"] = created
        if token is not None:
            pipeline.tokens[token] = arn
    execution.start()
    return {"PipelineExecutionArn": arn}


@operation("StopPipelineExecution")
def stop_execution(call: Call) -> Params:
    """StopPipelineExecution."""
    execution = _execution(call)
    if execution.status in TERMINAL:
        raise ConflictError(
            f"Pipeline execution with ARN {execution.arn} is in status {execution.status}: only an "
            "execution in status Executing can be stopped."
        )
    execution.stop()
    return {"PipelineExecutionArn": execution.arn}


@operation("RetryPipelineExecution")
def retry_execution(call: Call) -> Params:
    """RetryPipelineExecution."""
    execution = _execution(call)
    with call.state.lock:
        if execution.status not in ("Failed", "Stopped"):
            raise ConflictError(
                f"Pipeline execution with ARN {execution.arn} is in status {execution.status}: only a "
                "failed or stopped execution can be retried."
            )
        if call.get("ParallelismConfiguration"):
            execution.body["ParallelismConfiguration"] = call["ParallelismConfiguration"]
        execution.retry()
    return {"PipelineExecutionArn": execution.arn}


@operation("DescribePipelineExecution")
def describe_execution(call: Call) -> Params:
    """DescribePipelineExecution."""
    return _execution(call).describe()


@operation("ListPipelineExecutions")
def list_executions(call: Call) -> Params:
    """ListPipelineExecutions."""
    pipeline = _pipeline(call)
    items = []
    for arn in list(pipeline.execution_arns):
        body = call.state.held(Execution)[arn].describe()
        items.append(
            {
                "PipelineExecutionArn": arn,
                "StartTime": body["CreationTime"],
                "PipelineExecutionStatus": body["PipelineExecutionStatus"],
                "PipelineExecutionDescription": body.get("PipelineExecutionDescription"),
                "PipelineExecutionDisplayName": body["PipelineExecutionDisplayName"],
                "PipelineExecutionFailureReason": body.get("FailureReason"),
            }
        )
    return page(
        call,
        items,
        result="PipelineExecutionSummaries",
        sort={
            "CreationTime": lambda item: item["StartTime"],
            "PipelineExecutionArn": lambda item: item["PipelineExecutionArn"],
        },
        default_sort="CreationTime",
        created="StartTime",
    )


@operation("ListPipelineExecutionSteps")
def list_execution_steps(call: Call) -> Params:
    """ListPipelineExecutionSteps."""
    return page(
        call,
        _execution(call).list_steps(),
        result="PipelineExecutionSteps",
        sort={"StartTime": lambda item: item["StartTime"]},
        default_sort="StartTime",
    )


@operation("DescribePipelineDefinitionForExecution")
def describe_definition(call: Call) -> Params:
    """DescribePipelineDefinitionForExecution."""
    execution = _execution(call)
    return {"PipelineDefinition": execution.definition_text, "CreationTime": execution.created}


@operation("ListPipelineParametersForExecution")
def list_parameters(call: Call) -> Params:
    """ListPipelineParametersForExecution."""
    execution = _execution(call)
    items = [
        {"Name": name, "Value": value if isinstance(value, str) else json.dumps(value)}
        for name, value in execution.parameters.items()
    ]
    return page(
        call,
        items,
        result="PipelineParameters",
        sort={"Name": lambda item: item["Name"]},
        default_sort="Name",
        default_order="Ascending",
    )


def _pipeline(call: Call) -> Pipeline:
    name = str(call["PipelineName"]).rsplit("/", 1)[-1]
    pipeline = call.state.held(Pipeline).get(name)
    if pipeline is None:
        arn = call.sagemaker.arn(call.region, f"pipeline/{name}")
        raise ResourceNotFound(f"Pipeline '{arn}' does not exist.")
    return pipeline


def _execution(call: Call) -> Execution:
    arn = call["PipelineExecutionArn"]
    execution = call.state.held(Execution).get(arn)
    if execution is None:
        raise ResourceNotFound(f"Pipeline execution '{arn}' does not exist.")
    return execution


def _definition_text(call: Call) -> str:
    text, location = call.get("PipelineDefinition"), call.get("PipelineDefinitionS3Location")
    if (text is None) == (location is None):
        raise ValidationError("Give either PipelineDefinition or PipelineDefinitionS3Location.")
    if text is not None:
        return str(text)
    if location.get("VersionId"):
        raise UnsupportedOperation(
            "PipelineDefinitionS3Location.VersionId is not supported by the embedded AWS."
        )
    uri = f"s3://{location['Bucket']}/{location['ObjectKey']}"
    channels = DataChannels(call.sagemaker.aws, call.region, str(call.get("RoleArn", "")))
    body = channels.read(uri)
    if body is None:
        raise ValidationError(f"PipelineDefinitionS3Location: {uri} does not exist.")
    return body.decode("utf-8", "replace")


def _parsed(text: str, name: str) -> Definition:
    try:
        definition = parse(text)
    except DefinitionError as error:
        raise ValidationError(f"Unable to parse pipeline definition of {name}. {error}") from error
    cached = [s.name for s in definition.steps.values() if (s.body.get("CacheConfig") or {}).get("Enabled")]
    if cached:
        log.warning("pipeline %s: step caching is not simulated; always run: %s", name, ", ".join(cached))
    return definition


def _parameters(definition: Definition, given: list[Params]) -> dict[str, Any]:
    values = {name: item.default for name, item in definition.parameters.items() if item.has_default}
    for entry in given:
        name = entry["Name"]
        if name not in definition.parameters:
            raise ValidationError(
                f"Unknown parameter {name!r}; the pipeline declares "
                f"{', '.join(definition.parameters) or 'none'}."
            )
        try:
            values[name] = definition.parameters[name].convert(entry["Value"])
        except ValueError as error:
            raise ValidationError(
                f"Parameter {name!r} must be of type {definition.parameters[name].type}: {error}"
            ) from error
    missing = [name for name in definition.parameters if name not in values]
    if missing:
        raise ValidationError(f"Missing value for the required parameter {', '.join(missing)}.")
    return values
