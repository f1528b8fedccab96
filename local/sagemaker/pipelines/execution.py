"""One execution of a pipeline: schedules the steps, keeps their records, publishes the changes."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from local.sagemaker.data_channels import DataChannels
from local.sagemaker.errors import JobError
from local.sagemaker.jobs import Job
from local.sagemaker.pipelines.definition import Step
from local.sagemaker.pipelines.expressions import Scope
from local.sagemaker.pipelines.records import Pipeline
from local.sagemaker.pipelines.steps import RUNNERS, StepContext, StepStoppedError
from local.sagemaker.publisher import seconds
from local.sagemaker.state import Params, SageMaker, now

log = logging.getLogger("local.sagemaker")

EXECUTION_EVENT = "SageMaker Model Building Pipeline Execution Status Change"
STEP_EVENT = "SageMaker Model Building Pipeline Execution Step Status Change"
TERMINAL = ("Succeeded", "Failed", "Stopped")
REASON_LIMIT = 1300


class Execution:
    """One execution.

    Parameters
    ----------
    sagemaker, region, pipeline
        What runs where; the definition is the one of the moment of the start.
    body
        The description as DescribePipelineExecution returns it.
    parameters
        Parameter values, converted.
    given
        The parameters that the caller named, as given.
    """

    def __init__(
        self,
        sagemaker: SageMaker,
        region: str,
        pipeline: Pipeline,
        body: Params,
        parameters: dict[str, Any],
        given: list[Params],
    ) -> None:
        self.sagemaker = sagemaker
        self.region = region
        self.pipeline = pipeline
        self.body = body
        self.arn: str = body["PipelineExecutionArn"]
        self.id = self.arn.rsplit("/", 1)[-1]
        self.parameters = parameters
        self.given = given
        self.definition = pipeline.definition
        self.definition_text: str = pipeline.body["PipelineDefinition"]
        self.created: datetime = body["CreationTime"]
        self.ended: datetime | None = None
        self.steps: dict[str, Params] = {}
        self._condition = threading.Condition()
        self._skipped: set[str] = set()
        self._outcomes: dict[str, bool] = {}
        self._properties: dict[str, Any] = {}
        self._files: dict[tuple[str, str], str] = {}
        self._jobs: dict[str, Job] = {}
        self._running: set[str] = set()
        self._stopping = False

    @property
    def status(self) -> str:
        """The execution's status."""
        return str(self.body["PipelineExecutionStatus"])

    @property
    def limit(self) -> int:
        """How many steps may run at once."""
        config = self.body.get("ParallelismConfiguration") or {}
        return int(config.get("MaxParallelExecutionSteps", 50))

    def describe(self) -> Params:
        """Return a copy of the description."""
        with self._condition:
            return copy.deepcopy(self.body)

    def list_steps(self) -> list[Params]:
        """Return the steps that were reached, in order of their start."""
        with self._condition:
            return [copy.deepcopy(step) for step in self.steps.values()]

    def start(self) -> None:
        """Run in the background."""
        self._publish(None)
        self.sagemaker.spawn(self._run, name=f"pipeline-{self.id}")

    def stop(self) -> None:
        """Start no further step and stop the running jobs."""
        with self._condition:
            if self.status in TERMINAL or self._stopping:
                return
            self._stopping = True
            jobs = list(self._jobs.values())
            self._set_status("Stopping")
            for name in self._running:
                self._set_step(name, "Stopping")
            self._condition.notify_all()
        for job in jobs:
            job.request_stop()

    def retry(self) -> None:
        """Run what did not succeed again; what succeeded is kept."""
        with self._condition:
            for name in [n for n, step in self.steps.items() if step["StepStatus"] != "Succeeded"]:
                del self.steps[name]
            self._skipped.clear()
            self._stopping = False
            self.ended = None
            self.body.pop("FailureReason", None)
            self._set_status("Executing")
        self.sagemaker.spawn(self._run, name=f"pipeline-{self.id}")

    # -- scheduling ----------------------------------------------------------------------------
    def _run(self) -> None:
        try:
            with self._condition:
                while True:
                    self._launch()
                    if not self._running:
                        break
                    self._condition.wait()
                self._end()
        except Exception as error:
            log.exception("pipeline execution %s", self.arn)
            with self._condition:
                self.body["FailureReason"] = f"InternalServerError: {error!r}"
                self._set_status("Failed")

    def _launch(self) -> None:
        progress = True
        while progress and not self._halted():
            progress = False
            for step in self.definition.steps.values():
                if step.name in self.steps or step.name in self._skipped:
                    continue
                if self._is_unreachable(step):
                    self._skipped.add(step.name)
                    progress = True
                elif self._is_ready(step) and len(self._running) < self.limit:
                    self._begin(step)

    def _halted(self) -> bool:
        return self._stopping or any(step["StepStatus"] == "Failed" for step in self.steps.values())

    def _is_unreachable(self, step: Step) -> bool:
        if step.needs & self._skipped:
            return True
        return step.parent in self._outcomes and self._outcomes[str(step.parent)] != step.branch

    def _is_ready(self, step: Step) -> bool:
        return all(self.steps.get(name, {}).get("StepStatus") == "Succeeded" for name in step.needs)

    def _begin(self, step: Step) -> None:
        self.steps[step.name] = {
            "StepName": step.name,
            "StepDisplayName": step.body.get("DisplayName"),
            "StepDescription": step.body.get("Description"),
            "StartTime": now(),
            "StepStatus": "Starting",
            "AttemptCount": 1,
            "Metadata": {},
        }
        self._running.add(step.name)
        self._publish_step(step.name, None)
        self._set_step(step.name, "Executing")
        self.sagemaker.spawn(self._run_step, step, name=f"step-{step.name}")

    def _run_step(self, step: Step) -> None:
        status, reason = "Succeeded", None
        try:
            self._attempt(step)
        except StepStoppedError:
            status = "Stopped"
        except JobError as error:
            status, reason = "Failed", str(error)
        except Exception as error:
            log.exception("step %s of %s", step.name, self.arn)
            status, reason = "Failed", f"InternalServerError: {error!r}"
        with self._condition:
            record = self.steps[step.name]
            record["EndTime"] = now()
            if reason:
                record["FailureReason"] = reason
            self._running.discard(step.name)
            self._set_step(step.name, status)
            self._condition.notify_all()

    def _attempt(self, step: Step) -> None:
        """Run a step, again as often as its RetryPolicies say."""
        used: dict[int, int] = {}
        started = time.monotonic()
        while True:
            try:
                return self._execute(step)
            except JobError as error:
                wait = self._retry_wait(step, str(error), used, started)
                if wait is None:
                    raise
            with self._condition:
                self.steps[step.name]["AttemptCount"] += 1
                self._condition.wait_for(lambda: self._stopping, timeout=wait)
                if self._stopping:
                    raise StepStoppedError

    def _retry_wait(self, step: Step, reason: str, used: dict[int, int], started: float) -> float | None:
        for index, policy in enumerate(step.body.get("RetryPolicies") or []):
            if not set(policy.get("ExceptionType") or []) & _exception_types(reason):
                continue
            count = used.get(index, 0)
            expired = time.monotonic() - started > 60 * float(policy.get("ExpireAfterMin", 1e9))
            if self._stopping or expired or count >= int(policy.get("MaxAttempts", 5)):
                return None
            used[index] = count + 1
            return float(policy.get("IntervalSeconds", 1)) * float(policy.get("BackoffRate", 2.0)) ** count
        return None

    def _execute(self, step: Step) -> None:
        scope = self._scope()
        if step.type == "Condition":
            outcome = all(scope.holds(item) for item in step.arguments["Conditions"])
            with self._condition:
                self._outcomes[step.name] = outcome
                self._properties[step.name] = {"Outcome": outcome}
                self.steps[step.name]["Metadata"] = {"Condition": {"Outcome": str(outcome)}}
            return
        context = StepContext(
            self.sagemaker,
            self.region,
            self.id,
            self.definition.custom_job_prefix,
            tell=lambda metadata: self._tell(step.name, metadata),
            watch=lambda job: self._watch(step.name, job),
        )
        arguments = scope.value(step.arguments)
        if step.type == "RegisterModel":
            arguments.setdefault("MetadataProperties", {}).setdefault("GeneratedBy", self.arn)
        elif "RoleArn" not in arguments and step.type in ("Training", "Processing"):
            arguments["RoleArn"] = self.pipeline.body["RoleArn"]
        properties = RUNNERS[step.type](context, step, arguments)
        files = self._property_files(step, properties)
        with self._condition:
            self._properties[step.name] = properties
            self._files.update(files)

    def _property_files(self, step: Step, properties: Any) -> dict[tuple[str, str], str]:
        outputs = (
            {
                item["OutputName"]: item["S3Output"]["S3Uri"]
                for item in ((properties or {}).get("ProcessingOutputConfig") or {}).get("Outputs") or []
            }
            if isinstance(properties, dict)
            else {}
        )
        files = {}
        for item in step.body.get("PropertyFiles") or []:
            if item["OutputName"] not in outputs:
                raise JobError(
                    f"ClientError: the property file {item['PropertyFileName']} names the output "
                    f"{item['OutputName']!r}, which the step {step.name} does not have."
                )
            uri = f"{outputs[item['OutputName']].rstrip('/')}/{item['FilePath']}"
            files[(step.name, item["PropertyFileName"])] = uri
        return files

    def _scope(self) -> Scope:
        execution: dict[str, str | Callable[[], str]] = {
            "PipelineName": self.pipeline.name,
            "PipelineArn": self.pipeline.arn,
            "PipelineExecutionId": self.id,
            "PipelineExecutionArn": self.arn,
            "StartDateTime": seconds(self.created),
            "CurrentDateTime": lambda: seconds(now()),
        }
        channels = DataChannels(self.sagemaker.aws, self.region, self.pipeline.body["RoleArn"])
        with self._condition:
            return Scope(
                self.parameters,
                execution,
                dict(self._properties),
                dict(self._files),
                channels.read,
            )

    def _tell(self, name: str, metadata: Params) -> None:
        with self._condition:
            self.steps[name]["Metadata"] = metadata

    def _watch(self, name: str, job: Job | None) -> None:
        with self._condition:
            if job is None:
                self._jobs.pop(name, None)
                return
            self._jobs[name] = job
            stopping = self._stopping
        if stopping:
            job.request_stop()

    def _end(self) -> None:
        self.ended = now()
        failed = [step for step in self.steps.values() if step["StepStatus"] == "Failed"]
        if failed:
            reasons = "; ".join(f"{s['StepName']}: {s.get('FailureReason', '')}" for s in failed)
            reason = f"Step failure: One or multiple steps failed. {reasons}"
            self.body["FailureReason"] = reason[:REASON_LIMIT]
            self._set_status("Failed")
        elif self._stopping:
            self._set_status("Stopped")
        else:
            self._set_status("Succeeded")

    # -- records and events --------------------------------------------------------------------
    def _set_status(self, status: str) -> None:
        previous = self.status
        self.body["PipelineExecutionStatus"] = status
        self.body["LastModifiedTime"] = now()
        self._publish(previous)

    def _publish(self, previous: str | None) -> None:
        detail: Params = {
            "pipelineExecutionDisplayName": self.body.get("PipelineExecutionDisplayName"),
            "currentPipelineExecutionStatus": self.status,
            "previousPipelineExecutionStatus": previous,
            "executionStartTime": seconds(self.created),
            "executionEndTime": seconds(self.ended) if self.ended else None,
            "pipelineExecutionDescription": self.body.get("PipelineExecutionDescription"),
            "pipelineArn": self.pipeline.arn,
            "pipelineExecutionArn": self.arn,
        }
        self._send(EXECUTION_EVENT, detail)

    def _set_step(self, name: str, status: str) -> None:
        previous = self.steps[name]["StepStatus"]
        self.steps[name]["StepStatus"] = status
        self._publish_step(name, previous)

    def _publish_step(self, name: str, previous: str | None) -> None:
        step = self.steps[name]
        ended = step.get("EndTime")
        detail: Params = {
            "metadata": _lower_camel(step["Metadata"]),
            "stepStartTime": seconds(step["StartTime"]),
            "stepEndTime": seconds(ended) if ended else None,
            "stepName": name,
            "stepType": self.definition.steps[name].type,
            "previousStepStatus": previous,
            "currentStepStatus": step["StepStatus"],
            "failureReason": step.get("FailureReason"),
            "pipelineArn": self.pipeline.arn,
            "pipelineExecutionArn": self.arn,
        }
        self._send(STEP_EVENT, detail)

    def _send(self, kind: str, detail: Params) -> None:
        present = {key: value for key, value in detail.items() if value is not None}
        self.sagemaker.publisher.publish(self.region, kind, [self.pipeline.arn, self.arn], present)


def _exception_types(reason: str) -> set[str]:
    """Return the retry exception types that a failure reason stands for."""
    if reason.startswith("InternalServerError"):
        return {"SageMaker.JOB_INTERNAL_ERROR", "Step.SERVICE_FAULT"}
    if reason.startswith("CapacityError"):
        return {"SageMaker.CAPACITY_ERROR"}
    if "ResourceLimitExceeded" in reason:
        return {"SageMaker.RESOURCE_LIMIT"}
    return {"Step.THROTTLING"} if "ThrottlingException" in reason else set()


def _lower_camel(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _lower_camel(item) for key, item in value.items()}
    return value
