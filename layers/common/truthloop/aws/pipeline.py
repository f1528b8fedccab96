"""The SageMaker pipeline and its executions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from truthloop.aws.calls import translated
from truthloop.errors import AwsRequestFailed, PipelineNotFound
from truthloop.ports import PipelineExecution
from truthloop.retraining.decision import PIPELINE_LIVE, StepResult
from truthloop.times import to_iso

_MISSING = frozenset({"ResourceNotFound", "ResourceNotFoundException"})
_MOST_PER_PAGE = 100


class SageMakerPipeline:
    """Implements ``ports.Pipeline``."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self._name

    def find(self, display_name: str) -> PipelineExecution | None:
        """Look an execution up by its display name, newest first."""
        return next((one for one in self._listed() if one.display_name == display_name), None)

    def live(self) -> tuple[PipelineExecution, ...]:
        """Return the executions that run, newest first.

        The list shows for a while as running what has ended, so each of them is asked for by itself.
        """
        listed = [one for one in self._listed() if one.status in PIPELINE_LIVE]
        looked_at = (self._describe_if_exists(one.arn) for one in listed)
        return tuple(one for one in looked_at if one is not None and one.status in PIPELINE_LIVE)

    def _listed(self) -> Iterator[PipelineExecution]:
        try:
            with translated():
                pages = self._client.get_paginator("list_pipeline_executions").paginate(
                    PipelineName=self._name,
                    SortBy="CreationTime",
                    SortOrder="Descending",
                    PaginationConfig={"PageSize": _MOST_PER_PAGE},
                )
                for page in pages:
                    yield from map(_execution, page["PipelineExecutionSummaries"])
        except AwsRequestFailed as error:
            raise self._named(error) from error

    def _describe_if_exists(self, arn: str) -> PipelineExecution | None:
        try:
            return self.describe(arn)
        except PipelineNotFound:
            return None

    def start(self, display_name: str, token: str, parameters: Mapping[str, str]) -> str:
        """Start an execution, or find the one that `token` has started."""
        try:
            with translated():
                answer = self._client.start_pipeline_execution(
                    PipelineName=self._name,
                    PipelineExecutionDisplayName=display_name,
                    ClientRequestToken=token,
                    PipelineParameters=[{"Name": name, "Value": value} for name, value in parameters.items()],
                )
        except AwsRequestFailed as error:
            raise self._named(error) from error
        return str(answer["PipelineExecutionArn"])

    def describe(self, arn: str) -> PipelineExecution:
        """Describe an execution."""
        try:
            with translated():
                return _execution(self._client.describe_pipeline_execution(PipelineExecutionArn=arn))
        except AwsRequestFailed as error:
            raise self._named(error) from error

    def steps(self, arn: str) -> tuple[StepResult, ...]:
        """Return the steps that have begun."""
        try:
            with translated():
                pages = self._client.get_paginator("list_pipeline_execution_steps").paginate(
                    PipelineExecutionArn=arn
                )
                return tuple(_step(step) for page in pages for step in page["PipelineExecutionSteps"])
        except AwsRequestFailed as error:
            raise self._named(error) from error

    def _named(self, error: AwsRequestFailed) -> AwsRequestFailed | PipelineNotFound:
        if error.code in _MISSING:
            return PipelineNotFound(f"the pipeline {self._name} or its execution does not exist: {error}")
        return error


def _execution(summary: Mapping[str, Any]) -> PipelineExecution:
    return PipelineExecution(
        arn=str(summary["PipelineExecutionArn"]),
        status=str(summary["PipelineExecutionStatus"]),
        failure_reason=str(
            summary.get("FailureReason") or summary.get("PipelineExecutionFailureReason") or ""
        ),
        display_name=str(summary.get("PipelineExecutionDisplayName") or ""),
        started_at=_instant(summary.get("CreationTime") or summary.get("StartTime")),
    )


def _instant(moment: datetime | None) -> str:
    return to_iso(moment) if moment else ""


def _step(step: Mapping[str, Any]) -> StepResult:
    metadata = step.get("Metadata") or {}
    return StepResult(
        name=str(step["StepName"]),
        status=str(step["StepStatus"]),
        failure_reason=str(
            (metadata.get("Fail") or {}).get("ErrorMessage") or step.get("FailureReason") or ""
        ),
        model_package_arn=(metadata.get("RegisterModel") or {}).get("Arn"),
        job_arn=(metadata.get("TrainingJob") or {}).get("Arn"),
    )
