"""What each type of step does; jobs are real ones and visible through the jobs' own API."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import botocore.session
from botocore.validate import ParamValidator
from moto.core.exceptions import ServiceException

from local.sagemaker import constraints, models, processing, registry, training
from local.sagemaker.errors import JobError
from local.sagemaker.jobs import Job
from local.sagemaker.pipelines.definition import Step
from local.sagemaker.state import Params, SageMaker, random_id

_MODEL = botocore.session.get_session().get_service_model("sagemaker")


class StepContext:
    """What a running step can use and tells back.

    Parameters
    ----------
    sagemaker, region
        Where the jobs are made.
    execution_id
        Id of the execution; job names contain it.
    tell
        Called with the step's metadata as soon as they are known.
    watch
        Called with the running job (and None at its end), so that the execution can stop it.
    """

    def __init__(
        self,
        sagemaker: SageMaker,
        region: str,
        execution_id: str,
        custom_prefix: bool,
        tell: Callable[[Params], None],
        watch: Callable[[Job | None], None],
    ) -> None:
        self.sagemaker = sagemaker
        self.region = region
        self.execution_id = execution_id
        self.custom_prefix = custom_prefix
        self.tell = tell
        self.watch = watch

    def job_name(self, step: str, arguments: Params, member: str) -> str:
        """Return ``pipelines-<execution>-<step>-<random>``, as AWS names its jobs."""
        prefix = arguments.get(member) if self.custom_prefix else None
        if prefix:
            return f"{str(prefix)[:40]}-{self.execution_id}-{random_id(10)}"[:63]
        clean = re.sub(r"[^A-Za-z0-9\-]", "-", step)[:20].strip("-")
        return f"pipelines-{self.execution_id}-{clean}-{random_id(10)}"


class StepStoppedError(Exception):
    """The step's job was stopped."""


def run_training(context: StepContext, step: Step, arguments: Params) -> Any:
    """Run a training job to its end."""
    arguments = {**arguments, "TrainingJobName": context.job_name(step.name, arguments, "TrainingJobName")}
    _validate("CreateTrainingJob", arguments)
    job = _made("CreateTrainingJob", training.create, context, arguments)
    context.tell({"TrainingJob": {"Arn": job.arn}})
    return _finish(context, job)


def run_processing(context: StepContext, step: Step, arguments: Params) -> Any:
    """Run a processing job to its end."""
    arguments = {
        **arguments,
        "ProcessingJobName": context.job_name(step.name, arguments, "ProcessingJobName"),
    }
    _validate("CreateProcessingJob", arguments)
    job = _made("CreateProcessingJob", processing.create, context, arguments)
    context.tell({"ProcessingJob": {"Arn": job.arn}})
    return _finish(context, job)


def run_register_model(context: StepContext, step: Step, arguments: Params) -> Any:
    """Register a model package; MetadataProperties say which pipeline made it."""
    _validate("CreateModelPackage", arguments)
    arn = _made("CreateModelPackage", registry.create, context, arguments)
    context.tell({"RegisterModel": {"Arn": arn}})
    return context.sagemaker.region(context.region).packages[arn].body


def run_model(context: StepContext, step: Step, arguments: Params) -> Any:
    """Create a model."""
    arguments = {**arguments, "ModelName": context.job_name(step.name, arguments, "ModelName")}
    _validate("CreateModel", arguments)
    record = _made("CreateModel", models.create, context, arguments)
    context.tell({"Model": {"Arn": record.arn}})
    return record.body


def run_fail(context: StepContext, step: Step, arguments: Params) -> Any:
    """Fail with the message of the definition."""
    message = str(arguments["ErrorMessage"])
    context.tell({"Fail": {"ErrorMessage": message}})
    raise JobError(message)


RUNNERS: dict[str, Callable[[StepContext, Step, Params], Any]] = {
    "Training": run_training,
    "Processing": run_processing,
    "RegisterModel": run_register_model,
    "Model": run_model,
    "Fail": run_fail,
}


def _made(operation: str, create: Callable[..., Any], context: StepContext, arguments: Params) -> Any:
    try:
        return create(context.sagemaker, context.region, arguments)
    except ServiceException as error:
        raise JobError(
            f"ClientError: Failed to invoke sagemaker:{operation}. Error Details: {error.message}"
        ) from error


def _validate(operation: str, arguments: Params) -> None:
    shape: Any = _MODEL.operation_model(operation).input_shape
    report = ParamValidator().validate(arguments, shape)
    wrong = report.generate_report() or "; ".join(constraints.violations(operation, arguments))
    if wrong:
        raise JobError(f"ClientError: Failed to invoke sagemaker:{operation}. Error Details: {wrong}")


def _finish(context: StepContext, job: Job) -> Any:
    context.watch(job)
    try:
        job.done.wait()
    finally:
        context.watch(None)
    if job.status == "Stopped" and job.timed_out:
        secondary = job.describe().get("SecondaryStatus", "MaxRuntimeExceeded")
        raise JobError(f"ClientError: {job.name} ran into its time limit and was stopped ({secondary}).")
    if job.status == "Stopped":
        raise StepStoppedError
    description = job.describe()
    if job.status == "Failed":
        raise JobError(str(description.get("FailureReason", "")))
    return description
