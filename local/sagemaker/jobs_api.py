"""API operations on training and processing jobs, and on tags."""

from __future__ import annotations

from typing import Any

from local.sagemaker import processing, training
from local.sagemaker.errors import ResourceNotFound, ValidationError
from local.sagemaker.jobs import Job
from local.sagemaker.operations import Call, operation, page
from local.sagemaker.processing import ProcessingJob
from local.sagemaker.state import Params
from local.sagemaker.training import TrainingJob


@operation("CreateTrainingJob")
def create_training_job(call: Call) -> Params:
    """CreateTrainingJob."""
    return {"TrainingJobArn": training.create(call.sagemaker, call.region, call.params).arn}


@operation("DescribeTrainingJob")
def describe_training_job(call: Call) -> Params:
    """DescribeTrainingJob."""
    return _training_job(call).describe()


@operation("StopTrainingJob")
def stop_training_job(call: Call) -> Params:
    """StopTrainingJob."""
    job = _training_job(call)
    if job.terminal:
        raise ValidationError(f"The request was rejected because the training job is in status {job.status}.")
    job.request_stop()
    return {}


@operation("ListTrainingJobs")
def list_training_jobs(call: Call) -> Params:
    """ListTrainingJobs."""
    items = [job.describe() for job in list(call.state.held(TrainingJob).values())]
    return _list(call, items, "TrainingJob", "TrainingJobSummaries")


@operation("CreateProcessingJob")
def create_processing_job(call: Call) -> Params:
    """CreateProcessingJob."""
    return {"ProcessingJobArn": processing.create(call.sagemaker, call.region, call.params).arn}


@operation("DescribeProcessingJob")
def describe_processing_job(call: Call) -> Params:
    """DescribeProcessingJob."""
    return _processing_job(call).describe()


@operation("StopProcessingJob")
def stop_processing_job(call: Call) -> Params:
    """StopProcessingJob."""
    job = _processing_job(call)
    if job.terminal:
        raise ValidationError(
            f"The request was rejected because the processing job is in status {job.status}."
        )
    job.request_stop()
    return {}


@operation("ListProcessingJobs")
def list_processing_jobs(call: Call) -> Params:
    """ListProcessingJobs."""
    items = [job.describe() for job in list(call.state.held(ProcessingJob).values())]
    return _list(call, items, "ProcessingJob", "ProcessingJobSummaries")


def _training_job(call: Call) -> Job:
    job = call.state.held(TrainingJob).get(call["TrainingJobName"])
    if job is None:
        raise ValidationError("Requested resource not found.")
    return job


def _processing_job(call: Call) -> Job:
    job = call.state.held(ProcessingJob).get(call["ProcessingJobName"])
    if job is None:
        raise ValidationError(f"Could not find requested job with name: {call['ProcessingJobName']}")
    return job


def _list(call: Call, items: list[Params], kind: str, result: str) -> Params:
    wanted = call.get("StatusEquals")
    if wanted is not None:
        items = [item for item in items if item[f"{kind}Status"] == wanted]
    return page(
        call,
        items,
        result=result,
        sort={
            "Name": lambda item: item[f"{kind}Name"],
            "CreationTime": lambda item: item["CreationTime"],
            "Status": lambda item: item[f"{kind}Status"],
        },
        default_sort="CreationTime",
        name_of=lambda item: str(item[f"{kind}Name"]),
    )


@operation("AddTags")
def add_tags(call: Call) -> Params:
    """AddTags."""
    record = _taggable(call)
    record.tags.update({tag["Key"]: tag["Value"] for tag in call["Tags"]})
    return {"Tags": _tag_list(record.tags)}


@operation("ListTags")
def list_tags(call: Call) -> Params:
    """ListTags."""
    return {"Tags": _tag_list(_taggable(call).tags)}


@operation("DeleteTags")
def delete_tags(call: Call) -> Params:
    """DeleteTags."""
    record = _taggable(call)
    for key in call["TagKeys"]:
        record.tags.pop(key, None)
    return {}


def _taggable(call: Call) -> Any:
    record = call.state.taggable(call["ResourceArn"])
    if record is None:
        raise ResourceNotFound(f"Could not find the resource {call['ResourceArn']}.")
    return record


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
