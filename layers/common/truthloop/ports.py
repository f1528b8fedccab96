"""What the steps need of the outside world; ``truthloop.aws`` implements it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a function loads the rules that it uses, not all that the ports speak of
    from truthloop.instances.capacity import QuotaReading
    from truthloop.retraining.alarm import AlarmReading
    from truthloop.retraining.claim import GenerationRecord, HolderState, LastRun, Orphan, Take, TakeOver
    from truthloop.retraining.decision import Decision, StepResult
    from truthloop.retraining.training_job import TrainingJob
    from truthloop.retraining.triggers import Trigger
    from truthloop.serving.deployment import EndpointState, Target
    from truthloop.serving.registry import ModelPackage
    from truthloop.settings import DeploymentSettings, Settings
    from truthloop.versions.dataset import ObjectInfo


class LoopTable(Protocol):
    """Generation record and decision log; a write to a record that moved on raises ``ConditionFailed``."""

    def read(self) -> GenerationRecord | None:
        """Read the record, strongly consistent."""
        ...

    def take(self, plan: Take, execution: str, at: str) -> None:
        """Write a claim of the next generation."""
        ...

    def take_over(
        self,
        plan: TakeOver,
        execution: str,
        at: str,
        pipeline_execution_arn: str | None,
        run: LastRun | None,
    ) -> None:
        """Write a claim in place of a holder that has ended, with the pipeline execution that it left."""
        ...

    def coalesce(self, generation: int, holder: str, trigger: Trigger, decision: Decision) -> None:
        """Record a trigger with the live holder's claim, and its decision, in one transaction."""
        ...

    def request_start(self, generation: int, execution: str, run: LastRun, at: str) -> None:
        """Record, under the claim, that the pipeline is to be started; the first call says on what."""
        ...

    def record_start(
        self, generation: int, execution: str, pipeline_execution_arn: str, run: LastRun | None
    ) -> None:
        """Record, under the claim, the pipeline execution; `run` becomes the last run unless None."""
        ...

    def wait_for(
        self, generation: int, execution: str, orphan: Orphan, waiting: Mapping[str, Trigger]
    ) -> None:
        """Record, under the claim, that it only waits for an orphan; its triggers go to those that wait."""
        ...

    def release(
        self, record: GenerationRecord, decision: Decision, run: LastRun | None, *, trained: bool
    ) -> None:
        """Make the record idle and write the decision, in one transaction; `run` is the generation's."""
        ...

    def find_decision(self, execution: str, generation: str) -> Mapping[str, Any] | None:
        """Read the newest decision that an execution has written about a generation."""
        ...

    def has_decision(self, at: str, execution: str) -> bool:
        """Whether an execution has a decision of that time in the log."""
        ...

    def put_decision(self, decision: Decision) -> None:
        """Write one decision; the same one again changes nothing."""
        ...

    def mark_tested(self, config_name: str, at: str) -> None:
        """Write down that an endpoint configuration has passed its smoke test."""
        ...

    def was_tested(self, config_name: str) -> bool:
        """Whether an endpoint configuration has ever passed its smoke test."""
        ...

    def spent_usd(self, month: str) -> float:
        """Sum the estimates of the month's (``yyyy-mm``) runs."""
        ...


@dataclass(frozen=True)
class ObjectStream:
    """An object being read: its bytes and what its headers say."""

    chunks: Iterator[bytes]
    size: int
    last_modified: datetime
    version_id: str


class Objects(Protocol):
    """The data bucket (or another that a message names)."""

    @property
    def bucket(self) -> str:
        """Name of the data bucket."""
        ...

    def uri(self, key: str) -> str:
        """Return the S3 URI of `key`."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """List objects by key."""
        ...

    def read(self, key: str) -> bytes:
        """Read a whole object; raises ``ObjectMissing``."""
        ...

    def read_if_exists(self, key: str) -> bytes | None:
        """Read a whole object, or None."""
        ...

    def lines(self, key: str) -> Iterator[bytes]:
        """Read an object line by line; raises ``ObjectMissing``."""
        ...

    def lines_of_each(self, items: Iterable[ObjectInfo]) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Read many objects, in order; small ones are fetched ahead, several at once.

        Each object's lines are to be read before the next object is asked for; raises ``ObjectMissing``.
        """
        ...

    def stream(self, bucket: str, key: str, version_id: str | None) -> AbstractContextManager[ObjectStream]:
        """Open one version of an object for reading; raises ``ObjectMissing``."""
        ...

    def put(self, key: str, content: bytes) -> None:
        """Write an object, replacing one that exists."""
        ...

    def put_once(self, key: str, content: bytes | IO[bytes]) -> bool:
        """Write an object unless it exists; returns whether it was written."""
        ...


class Executions(Protocol):
    """Step Functions executions."""

    def state(self, execution_arn: str) -> HolderState:
        """Say whether an execution may still act."""
        ...


@dataclass(frozen=True)
class PipelineExecution:
    """One execution of the pipeline."""

    arn: str
    status: str
    failure_reason: str
    display_name: str = ""
    started_at: str = ""


class Pipeline(Protocol):
    """The SageMaker pipeline."""

    @property
    def name(self) -> str:
        """The pipeline's name."""
        ...

    def find(self, display_name: str) -> PipelineExecution | None:
        """Look an execution up by its display name, newest first."""
        ...

    def live(self) -> tuple[PipelineExecution, ...]:
        """Return the executions that run, newest first, with name and start."""
        ...

    def start(self, display_name: str, token: str, parameters: Mapping[str, str]) -> str:
        """Start an execution, or find the one that `token` has started; returns its ARN."""
        ...

    def describe(self, arn: str) -> PipelineExecution:
        """Describe an execution; raises ``PipelineNotFound``."""
        ...

    def steps(self, arn: str) -> tuple[StepResult, ...]:
        """Return the steps that have begun."""
        ...


class Registry(Protocol):
    """The model package group."""

    def newest(self, approval: str) -> ModelPackage | None:
        """Return the highest version with that approval status."""
        ...

    def newest_pending(self, limit: int) -> Iterable[ModelPackage]:
        """Return up to `limit` packages that await approval, highest version first."""
        ...

    def describe(self, arn: str) -> ModelPackage:
        """Describe one package; raises ``ModelPackageInvalid`` when it has no model data."""
        ...

    def annotate(self, package: ModelPackage, metadata: Mapping[str, str]) -> None:
        """Add customer metadata to a package."""
        ...

    def reject(self, package: ModelPackage, reason: str) -> None:
        """Mark a package Rejected."""
        ...


class Endpoint(Protocol):
    """The endpoint."""

    @property
    def name(self) -> str:
        """The endpoint's name."""
        ...

    def state(self) -> EndpointState | None:
        """Describe the endpoint; None when there is none."""
        ...

    def served_package_arn(self, config_name: str) -> str | None:
        """Return the package behind a configuration; None when the configuration or model is not ours."""
        ...

    def ensure_model(self, target: Target, role_arn: str) -> None:
        """Create the model unless it exists."""
        ...

    def ensure_config(self, target: Target, settings: DeploymentSettings, bucket: str) -> None:
        """Create the endpoint configuration unless it exists."""
        ...

    def create(self, config_name: str) -> None:
        """Create the endpoint; raises ``AwsRequestFailed`` when SageMaker refuses."""
        ...

    def update(self, config_name: str, deployment_config: Mapping[str, Any]) -> None:
        """Update the endpoint; raises ``AwsRequestFailed`` when SageMaker refuses."""
        ...

    def delete(self) -> None:
        """Ask for the deletion of the endpoint; nothing happens when there is none."""
        ...

    def invoke(self, image: bytes, content_type: str, inference_id: str) -> bytes:
        """Ask the endpoint about one image."""
        ...


class Jobs(Protocol):
    """SageMaker processing and training jobs."""

    def start(self, name: str, request: Mapping[str, Any]) -> str:
        """Start a processing job, or find the one of that name; returns its status."""
        ...

    def describe_training(self, name: str) -> TrainingJob:
        """Describe a training job that has ended."""
        ...


class Alarms(Protocol):
    """CloudWatch alarms."""

    def read(self, name: str, since: datetime, now: datetime) -> AlarmReading | None:
        """Read an alarm, and the newest data point of its metric since `since`; None when there is none."""
        ...


class Quotas(Protocol):
    """The account's quotas for training instances."""

    def read(self, instance_type: str, needed: int, *, spot: bool) -> QuotaReading:
        """Read a type's quota and its use; what cannot be read is said in the answer, not raised."""
        ...


class Events(Protocol):
    """The default event bus."""

    def publish(self, source: str, detail_type: str, detail: Mapping[str, Any]) -> None:
        """Put one event."""
        ...


class Ports(Protocol):
    """Everything that a step may ask for; adapters are made when first asked for."""

    @property
    def settings(self) -> Settings:
        """The function's settings."""
        ...

    @property
    def table(self) -> LoopTable:
        """The loop table."""
        ...

    @property
    def objects(self) -> Objects:
        """The data bucket."""
        ...

    @property
    def executions(self) -> Executions:
        """Step Functions."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline."""
        ...

    @property
    def registry(self) -> Registry:
        """The registry."""
        ...

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint."""
        ...

    @property
    def jobs(self) -> Jobs:
        """Processing jobs."""
        ...

    @property
    def alarms(self) -> Alarms:
        """CloudWatch alarms."""
        ...

    @property
    def quotas(self) -> Quotas:
        """The account's quotas."""
        ...

    @property
    def events(self) -> Events:
        """The event bus."""
        ...

    def now(self) -> datetime:
        """Return the present, with a zone."""
        ...
