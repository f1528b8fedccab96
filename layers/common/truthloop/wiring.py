"""The one wiring point: adapters from settings, made when first asked for, clients once per process."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any

from truthloop import ports
from truthloop.settings import Settings


class Wiring:
    """Implements ``ports.Ports`` with AWS. What a function does not ask for is neither imported nor created.

    Parameters
    ----------
    settings : Settings
        The function's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @property
    def settings(self) -> Settings:
        """The function's settings."""
        return self._settings

    @cached_property
    def table(self) -> ports.LoopTable:
        """The loop table."""
        from truthloop.aws.table import DynamoLoopTable

        return DynamoLoopTable(self._client("dynamodb"), self._settings.table_name)

    @cached_property
    def objects(self) -> ports.Objects:
        """The data bucket."""
        from truthloop.aws.objects import S3Objects

        return S3Objects(self._client("s3"), self._settings.bucket)

    @cached_property
    def executions(self) -> ports.Executions:
        """Step Functions."""
        from truthloop.aws.executions import StepFunctionsExecutions

        return StepFunctionsExecutions(self._client("stepfunctions"))

    @cached_property
    def pipeline(self) -> ports.Pipeline:
        """The pipeline."""
        from truthloop.aws.pipeline import SageMakerPipeline

        return SageMakerPipeline(self._sagemaker, self._settings.pipeline_name)

    @cached_property
    def registry(self) -> ports.Registry:
        """The registry."""
        from truthloop.aws.registry import SageMakerRegistry

        return SageMakerRegistry(self._sagemaker, self._settings.model_package_group)

    @cached_property
    def endpoint(self) -> ports.Endpoint:
        """The endpoint."""
        from truthloop.aws.endpoint import SageMakerEndpoint

        # Few functions invoke the endpoint: the others do without that client.
        runtime = cache(lambda: self._client("sagemaker-runtime"))
        return SageMakerEndpoint(self._sagemaker, runtime, self._settings.endpoint_name)

    @cached_property
    def jobs(self) -> ports.Jobs:
        """Processing and training jobs."""
        from truthloop.aws.jobs import SageMakerJobs

        return SageMakerJobs(self._sagemaker)

    @cached_property
    def alarms(self) -> ports.Alarms:
        """CloudWatch alarms."""
        from truthloop.aws.alarms import CloudWatchAlarms

        return CloudWatchAlarms(self._client("cloudwatch"))

    @cached_property
    def quotas(self) -> ports.Quotas:
        """The account's quotas."""
        from truthloop.aws.quotas import ServiceQuotas

        return ServiceQuotas(self._client("service-quotas"), self._sagemaker)

    @cached_property
    def events(self) -> ports.Events:
        """The event bus."""
        from truthloop.aws.events import EventBridgeEvents

        return EventBridgeEvents(self._client("events"))

    def now(self) -> datetime:
        """Return the present, in UTC."""
        return datetime.now(UTC)

    @cached_property
    def _sagemaker(self) -> Any:
        return self._client("sagemaker")

    @cached_property
    def _session(self) -> Any:
        from truthloop.aws.session import Session

        return Session()

    def _client(self, service: str) -> Any:
        from truthloop.aws.calls import CLIENT_CONFIG

        return self._session.client(service, config=CLIENT_CONFIG)


@cache
def wiring() -> Wiring:
    """Return this process's wiring, from its environment."""
    return Wiring(Settings(os.environ))
