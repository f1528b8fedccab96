"""SageMaker processing and training jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import AwsRequestFailed
from truthloop.retraining.training_job import TrainingJob

_EXISTS = frozenset({"ResourceInUse", "ResourceInUseException", "ConflictException", "ValidationException"})


class SageMakerJobs:
    """Implements ``ports.Jobs``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def start(self, name: str, request: Mapping[str, Any]) -> str:
        """Start a processing job, or find the one of that name."""
        try:
            with translated():
                self._client.create_processing_job(ProcessingJobName=name, **request)
        except AwsRequestFailed as error:
            if error.code not in _EXISTS:
                raise
            try:
                return self._status(name)
            except AwsRequestFailed:
                raise error from None  # there is no such job: the refusal was about something else
        return self._status(name)

    def describe_training(self, name: str) -> TrainingJob:
        """Describe a training job that has ended."""
        with translated():
            job = self._client.describe_training_job(TrainingJobName=name)
        resources = job.get("ResourceConfig") or {}
        return TrainingJob(
            secondary_status=str(job["SecondaryStatus"]),
            phases=frozenset(str(each["Status"]) for each in job.get("SecondaryStatusTransitions") or ()),
            started=job.get("TrainingStartTime") is not None,
            instance_type=str(resources.get("InstanceType") or ""),
            instances=int(resources.get("InstanceCount") or 1),
            spot=bool(job.get("EnableManagedSpotTraining")),
            training_seconds=job.get("TrainingTimeInSeconds"),
            billable_seconds=job.get("BillableTimeInSeconds"),
        )

    def _status(self, name: str) -> str:
        with translated():
            answer = self._client.describe_processing_job(ProcessingJobName=name)
        return str(answer["ProcessingJobStatus"])
