"""A small AWS around the real handlers and the real state machines, in one process and in virtual time.

DynamoDB is moto's, S3 and the registry are those of store.py. What moves by itself on AWS is here:
executions of the real definitions on local/'s interpreter, pipeline runs, the endpoint, the ingestion's
queue, events, time.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

import local.stepfunctions.execution as execution_module
import local.stepfunctions.history as history_module
import local.stepfunctions.interpreter as interpreter_module
import local.stepfunctions.waiting as waiting_module
from local.stepfunctions import running
from local.stepfunctions.execution import Execution
from local.stepfunctions.machine import Machine
from tests.faults.clock import Clock
from tests.faults.hook import Died, Explorer, Refused
from tests.faults.store import Bucket, Registry
from tests.handlers import conftest
from tests.handlers.conftest import BUCKET, ENDPOINT, GROUP, PIPELINE, ROLE, TABLE, World, batch, uploaded
from tests.statemachine import machines
from truthloop.names import sides_keys
from truthloop.wiring import Wiring, wiring

Json = dict[str, Any]
ACCOUNT, REGION = "123456789012", "us-east-1"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:truthloop-notifications"
ALARM = "truthloop-accuracy"
POLL_SECONDS = 300
LIST_LAG_SECONDS = 45.0
"""ListPipelineExecutions is eventually consistent: a start shows up so much later."""
RUN_SECONDS = 2000.0
CHANGE_SECONDS = 400.0
VISIBILITY_SECONDS = 2100.0
MAXIMUM_RECEIVES = 5
LIVE = ("Executing", "Stopping")

_calling: ContextVar[Play | None] = ContextVar("calling", default=None)
_function: ContextVar[str] = ContextVar("function", default="")


@dataclass
class Run:
    """One execution of the training pipeline."""

    arn: str
    name: str
    token: str
    started: float
    dataset: str
    status: str = "Executing"
    reason: str = ""
    steps: list[Json] = field(default_factory=list)


@dataclass
class Play:
    """One execution of a state machine."""

    machine: str
    name: str
    arn: str
    text: str
    execution: Execution

    @property
    def status(self) -> str:
        """Its status, as DescribeExecution says it."""
        return self.execution.status


@dataclass
class Fleet:
    """The endpoint."""

    status: str
    config: str
    pending: str | None
    changed: datetime
    reason: str = ""
    changes: int = 0


class InOrder:
    """A pool whose work is done when it is handed in: one process may fork, and its calls have an order."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> InOrder:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *given: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*given))
        except Exception as problem:
            future.set_exception(problem)
        return future


class Engine:
    """What an execution asks of local/'s engine."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of all executions."""
        return asyncio.get_running_loop()

    def announce(self, execution: Execution) -> None:
        """Say nothing of a change of status: nothing here listens."""

    def client(self, service: str, _: str) -> Any:
        """Return the client of a task."""
        return self._cloud.lambda_client if service == "lambda" else self._cloud.client(service)

    async def call(self, work: Callable[[], Any]) -> Any:
        """Do a task's work; a stop that came during it is under way."""
        try:
            return work()
        except Died:
            await asyncio.sleep(3600)


class Cloud:
    """The simulated account.

    Attributes
    ----------
    outcomes
        What the next pipeline runs come to: ``Succeeded``, ``gate`` or ``Failed``; the last repeats.
    refuses
        Parts of configuration names that the endpoint cannot be updated to: the update rolls back.
    broken
        Invariants that a call has broken, in words.
    """

    def __init__(
        self,
        clients: Callable[[str], Any],
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
        simulated: tuple[str, ...] = ("s3", "sagemaker"),
    ) -> None:
        self.clock = clock
        self.runs: list[Run] = []
        self.plays: dict[str, Play] = {}
        self.notices: list[str] = []
        self.dead_letters: list[Any] = []
        self.uploaded_lines: list[str] = []
        self.sent = 0
        self.broken: list[str] = []
        self.outcomes = ["Succeeded"]
        self.fleet: Fleet | None = None
        self.serves: Callable[[str], str] = lambda config: '{"label": "7", "score": 0.9}'
        self.rolls_back: Callable[[str], bool] = lambda config: False
        self.alarm = "OK"
        self.tasks: set[asyncio.Task[None]] = set()
        self.bucket, self.registry = Bucket(clock.now), Registry(clock.now, GROUP)
        self.explorer = Explorer(self.who, self.stop_caller, clock.pass_by, self._stand_ins())
        self.lambda_client = SimpleNamespace(_make_api_call=self._invoke_by_machine)
        self._attached: dict[str, Any] = {}
        self._clients = clients
        self._detach = [self.explorer.simulate(clients(service)) for service in simulated]
        self.world = World("", clients, monkeypatch)
        for module in (history_module, execution_module, interpreter_module):
            monkeypatch.setattr(module, "now", clock.stamp)
        monkeypatch.setattr(waiting_module, "time", clock)
        monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor", InOrder)
        # A retry at once is the hardest on whoever must be found again; backoff still doubles up to its cap.
        monkeypatch.setattr(interpreter_module.random, "uniform", lambda low, high: (low + high) / 2)
        monkeypatch.setattr(Wiring, "now", lambda _: clock.now())
        monkeypatch.setattr(Wiring, "_client", lambda _, service: self.client(service))

    # -- who calls -----------------------------------------------------------------------------------------

    def client(self, service: str) -> Any:
        """Return the client of a function or a machine, hooked."""
        if service not in self._attached:
            client = self._clients(f"function:{service}")
            self._detach.append(self.explorer.attach(client))
            self._attached[service] = client
        return self._attached[service]

    def close(self) -> None:
        """Leave the clients as they were."""
        for detach in self._detach:
            detach()

    def who(self) -> str:
        """Name the function that runs, else the machine's state."""
        play = _calling.get()
        if _function.get():
            return _function.get()
        if play is None:
            raise AssertionError("a call that nobody makes")
        states = (e["stateEnteredEventDetails"]["name"] for e in reversed(play.execution.history.events)
                  if e["type"] == "TaskStateEntered")  # fmt: skip
        return f"{play.machine}.{next(states)}"

    def stop_caller(self) -> bool:
        """Stop the execution that calls, as StopExecution or its time-out would."""
        play = _calling.get()
        if play is None or play.execution._task is None:
            return False
        play.execution._stop_reason = ("Stopped", "by a fault")
        play.execution._task.cancel()
        return True

    # -- functions -----------------------------------------------------------------------------------------

    def invoke(self, function: str, event: Any) -> Any:
        """Call a handler; a process that died is a new one the next time."""
        token = _function.set(function)
        # Always a cold start: what a process remembers would hide calls.
        wiring.cache_clear()
        conftest._LOADED.pop("ingest_ground_truth", None)
        try:
            answer = self.world.run(function, event)
        except (Exception, Died) as problem:
            self.explorer.invoked(type(problem).__name__)
            raise
        finally:
            _function.reset(token)
        self.explorer.invoked("")
        return answer

    def _invoke_by_machine(self, _: str, request: Json) -> Json:
        function = request["FunctionName"].rsplit(":", 1)[-1]
        event = json.loads(request["Payload"])
        try:
            late = self.explorer.arrive("lambda", "Invoke")
            answer = self._payload(function, event)
            if late == "sent twice":
                self.explorer._again = False
                answer = self._payload(function, event)
            self.explorer.leave(late)
        except Refused as refused:
            raise refused.client_error("Invoke") from None
        return {"StatusCode": 200, **answer, "ResponseMetadata": {"HTTPStatusCode": 200}}

    def _payload(self, function: str, event: Any) -> Json:
        try:
            return {"Payload": json.dumps(self.invoke(function, event))}
        except Died:
            error = {"errorType": "Runtime.ExitError", "errorMessage": "RequestId: r Error: Runtime exited"}
        except Exception as problem:
            error = {"errorType": type(problem).__name__, "errorMessage": str(problem)}
        return {"FunctionError": "Unhandled", "Payload": json.dumps(error)}

    # -- executions ----------------------------------------------------------------------------------------

    def start(self, machine: str, given: Any, name: str) -> Play:
        """Start an execution of a shipped definition."""
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:truthloop-{machine}:{name}"
        kind = Machine(
            arn=f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:truthloop-{machine}",
            name=f"truthloop-{machine}",
            definition=definition(machine),
            role_arn=ROLE,
            kind="STANDARD",
            account_id=ACCOUNT,
            region=REGION,
        )
        text = json.dumps(given)
        execution = Execution(Engine(self), kind, name, arn, text)  # type: ignore[arg-type]
        play = self.plays[arn] = Play(machine, name, arn, text, execution)

        async def run() -> None:
            _calling.set(play)
            await running.run(execution)

        self.spawn(run())
        return play

    # -- time ----------------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something happen beside everything else."""
        # A context of its own: whoever lets it happen is not who calls in it.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self.tasks.add(task)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen after a while."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            action()

        self.spawn(wait())

    async def settle(self) -> None:
        """Wait until nothing happens any more."""
        while self.tasks:
            done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
            self.tasks -= done
            for task in done:
                if not task.cancelled() and (problem := task.exception()) is not None:
                    raise problem

    # -- ingestion's queue ---------------------------------------------------------------------------------

    def upload(self, *objects: tuple[str, str]) -> None:
        """Upload objects to the inbox: (key, content); their events come in one batch of the queue."""
        messages = []
        for place, (key, content) in enumerate(objects):
            full = f"ground-truth/inbox/{key}"
            version = self.world.put(full, content)
            self.uploaded_lines += content.splitlines()
            messages.append(uploaded(full, version, f"{self.sent + place:02x}"))
        self.sent += len(objects)
        self.spawn(self._deliver(messages))

    async def _deliver(self, messages: list[Json]) -> None:
        for _ in range(MAXIMUM_RECEIVES):
            try:
                failures = self.invoke("ingest_ground_truth", batch(*messages))["batchItemFailures"]
                back = {failure["itemIdentifier"] for failure in failures}
                messages = [m for place, m in enumerate(messages) if f"m{place}" in back]
            except (Exception, Died):
                pass  # the whole batch comes again
            if not messages:
                return
            await asyncio.sleep(VISIBILITY_SECONDS)
        self.dead_letters += messages

    @property
    def forbidden(self) -> set[tuple[str, str]]:
        """Operations that a permission is missing for, until it is mended."""
        return self.explorer.forbidden

    def redrive(self) -> None:
        """Send the dead letters again, as a person would whom the alarm has called."""
        messages, self.dead_letters = self.dead_letters, []
        if messages:
            self.spawn(self._deliver(messages))

    async def lambda_async(self, function: str, event: Any) -> None:
        """Invoke a function as EventBridge Scheduler does: it is tried twice more."""
        for _ in range(3):
            try:
                self.invoke(function, event)
            except (Exception, Died):
                await asyncio.sleep(60)
            else:
                return

    # -- what answers in AWS's place -----------------------------------------------------------------------

    def _stand_ins(self) -> dict[tuple[str, str], Callable[[Json], Json]]:
        return {
            ("dynamodb", "CreateTable"): lambda _: {},
            ("stepfunctions", "CreateStateMachine"): lambda _: {"stateMachineArn": "none"},
            ("stepfunctions", "StartExecution"): self._start_execution,
            ("stepfunctions", "DescribeExecution"): self._describe_execution,
            **self.bucket.operations(),
            **self.registry.operations(),
            ("sagemaker", "StartPipelineExecution"): self._start_pipeline,
            ("sagemaker", "ListPipelineExecutions"): self._list_pipelines,
            ("sagemaker", "DescribePipelineExecution"): self._describe_pipeline,
            ("sagemaker", "ListPipelineExecutionSteps"): self._list_steps,
            ("sagemaker", "CreateEndpoint"): self._create_endpoint,
            ("sagemaker", "UpdateEndpoint"): self._update_endpoint,
            ("sagemaker", "DescribeEndpoint"): self._describe_endpoint,
            ("sagemaker", "DeleteEndpoint"): self._delete_endpoint,
            ("sagemaker-runtime", "InvokeEndpoint"): self._invoke_endpoint,
            ("sagemaker", "ListTrainingJobs"): self._list_training_jobs,
            ("sagemaker", "DescribeTrainingJob"): self._describe_training_job,
            ("service-quotas", "ListServiceQuotas"): lambda _: {"Quotas": []},
            ("service-quotas", "ListAWSDefaultServiceQuotas"): self._default_quotas,
            ("cloudwatch", "DescribeAlarms"): self._describe_alarms,
            ("cloudwatch", "GetMetricStatistics"): self._statistics,
            ("sns", "Publish"): self._publish,
            ("events", "PutEvents"): self._put_events,
        }

    def _start_execution(self, request: Json) -> Json:
        machine = request["stateMachineArn"].rsplit("-", 1)[-1]
        name = request["name"]
        arn = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:truthloop-{machine}:{name}"
        known = self.plays.get(arn)
        if known is None:
            known = self.start(machine, json.loads(request["input"]), name)
        elif known.text != request["input"] or known.status != "RUNNING":
            raise Refused("ExecutionAlreadyExists", f"{arn} exists")
        return {"executionArn": arn, "startDate": self.clock.stamp()}

    def _describe_execution(self, request: Json) -> Json:
        play = self.plays.get(request["executionArn"])
        if play is None:
            raise Refused("ExecutionDoesNotExist")
        return {"executionArn": play.arn, "status": play.status, "startDate": self.clock.stamp()}

    def _start_pipeline(self, request: Json) -> Json:
        token, name = request["ClientRequestToken"], request["PipelineExecutionDisplayName"]
        for run in self.runs:
            if run.token == token:
                return {"PipelineExecutionArn": run.arn}
        parameters = {p["Name"]: p["Value"] for p in request["PipelineParameters"]}
        dataset = json.loads(self.world.get(f"datasets/{name}/dataset.json"))
        live = [run.name for run in self.runs if run.status in LIVE]
        if live:
            self.broken.append(f"two live pipeline runs: {name} was started beside {live}")
        if any(run.name == name for run in self.runs):
            self.broken.append(f"{name} was started twice")
        if not parameters["DatasetUri"].endswith(f"/datasets/{name}/"):
            self.broken.append(f"{name} trains on {parameters['DatasetUri']}")
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:pipeline/{PIPELINE}/execution/{name}{len(self.runs):03d}"
        run = Run(arn, name, token, self.clock.seconds, dataset["datasetVersion"])
        self.runs.append(run)
        self.later(RUN_SECONDS, lambda: self._end_run(run))
        return {"PipelineExecutionArn": arn}

    def _end_run(self, run: Run) -> None:
        self.world.put(sides_keys(run.name)[0], f"the sides of {run.name}")
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if outcome == "Failed":
            run.status, run.reason = "Failed", "no capacity"
            run.steps = [{**self._trained("New", "Failed"), "FailureReason": "no capacity"}]
            return
        if outcome == "gate":
            words = {"Fail": {"ErrorMessage": "best 0.5 is below 0.85"}}
            run.status, run.reason = "Failed", "Step failure"
            gate = {"StepName": "FailGate", "StepStatus": "Failed", "Metadata": words}
            run.steps = [self._trained("Old"), self._trained("New"), gate]
            return
        place = f"runs/{run.name}/evaluation"
        self.world.put(f"{place}/labels.json", ["1", "3", "7"])
        self.world.put(f"{place}/evaluation.json", {
            "version": 1,
            "models": {"champion": None, "old": {"accuracy": 0.9}, "new": {"accuracy": 0.97}},
            "recommendation": {"candidate": "new", "reason": "new gains 0.07"},
        })  # fmt: skip
        run.steps = [self._trained("Old"), self._trained("New")]
        for candidate in ("old", "new"):
            arn = self.world.register(run.name, candidate, labelsUri=f"s3://{BUCKET}/{place}/labels.json")
            run.steps.append({
                "StepName": f"Register{candidate.title()}", "StepStatus": "Succeeded",
                "Metadata": {"RegisterModel": {"Arn": arn}},
            })  # fmt: skip
        run.status = "Succeeded"

    def _trained(self, candidate: str, status: str = "Succeeded") -> Json:
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/pipelines-x-Train{candidate}-y"
        job = {"TrainingJob": {"Arn": arn}}
        return {"StepName": f"Train{candidate}", "StepStatus": status, "Metadata": job}

    def _run(self, arn: str) -> Run:
        for run in self.runs:
            if run.arn == arn:
                return run
        raise Refused("ResourceNotFound")

    def _began(self, run: Run) -> datetime:
        return self.clock.now() - timedelta(seconds=self.clock.seconds - run.started)

    def _list_pipelines(self, _: Json) -> Json:
        shown = [run for run in self.runs if self.clock.seconds - run.started >= LIST_LAG_SECONDS]
        return {
            "PipelineExecutionSummaries": [
                {
                    "PipelineExecutionArn": run.arn,
                    "PipelineExecutionDisplayName": run.name,
                    "PipelineExecutionStatus": run.status,
                    "StartTime": self._began(run),
                }
                for run in reversed(shown)
            ]
        }

    def _describe_pipeline(self, request: Json) -> Json:
        run = self._run(request["PipelineExecutionArn"])
        return {
            "PipelineExecutionArn": run.arn,
            "PipelineExecutionDisplayName": run.name,
            "PipelineExecutionStatus": run.status,
            "CreationTime": self._began(run),
            **({"FailureReason": run.reason} if run.reason else {}),
        }

    def _list_steps(self, request: Json) -> Json:
        return {"PipelineExecutionSteps": self._run(request["PipelineExecutionArn"]).steps}

    # What a run needs, and what it would mend:

    def _list_training_jobs(self, _: Json) -> Json:
        summary = {
            "TrainingJobName": "somebody-elses",
            "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/somebody-elses",
            "CreationTime": self.clock.now(),
            "TrainingJobStatus": "InProgress",
        }
        return {"TrainingJobSummaries": [summary]}

    def _describe_training_job(self, _: Json) -> Json:
        return {
            "TrainingJobStatus": "Completed",
            "SecondaryStatus": "Completed",
            "TrainingStartTime": self.clock.now(),
            "TrainingTimeInSeconds": 36_000,
            "BillableTimeInSeconds": 36_000,
            "ResourceConfig": {"InstanceType": "ml.p3.8xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        }

    def _default_quotas(self, _: Json) -> Json:
        return {"Quotas": [{"QuotaName": "ml.p3.8xlarge for training job usage", "Value": 3.0}]}

    def _describe_alarms(self, _: Json) -> Json:
        return {
            "MetricAlarms": [
                {
                    "AlarmName": ALARM,
                    "StateValue": self.alarm,
                    "ComparisonOperator": "LessThanThreshold",
                    "Threshold": 0.85,
                    "Namespace": "Truthloop",
                    "MetricName": "Accuracy",
                    "Statistic": "Average",
                    "Dimensions": [],
                }
            ]
        }

    def _statistics(self, _: Json) -> Json:
        return {"Datapoints": [{"Average": 0.5, "Timestamp": self.clock.now()}]}

    # The endpoint:

    def package_of(self, config: str) -> Json:
        """Describe the package behind a configuration."""
        sagemaker = self.world.sagemaker
        variants = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"]
        model = sagemaker.describe_model(ModelName=variants[0]["ModelName"])
        found: Json = sagemaker.describe_model_package(
            ModelPackageName=model["PrimaryContainer"]["ModelPackageName"]
        )
        return found

    def _deploy(self, config: str) -> None:
        package = self.package_of(config)
        if package["ModelApprovalStatus"] != "Approved":
            self.broken.append(f"{config} deploys a package that is {package['ModelApprovalStatus']}")

    def _create_endpoint(self, request: Json) -> Json:
        if self.fleet is not None:
            raise Refused("ValidationException", "Cannot create already existing endpoint")
        config = request["EndpointConfigName"]
        self._deploy(config)
        self.fleet = Fleet("Creating", config, None, self.clock.now())
        self._change(self.fleet, config, "Failed")
        return {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"}

    def _update_endpoint(self, request: Json) -> Json:
        fleet = self.fleet
        if fleet is None or fleet.status not in ("InService", "Failed"):
            raise Refused("ValidationException", "Cannot update in-progress endpoint")
        config = request["EndpointConfigName"]
        self._deploy(config)
        fleet.status, fleet.pending, fleet.changed = "Updating", config, self.clock.now()
        self._change(fleet, config, "InService")
        return {"EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e"}

    def _change(self, fleet: Fleet, config: str, if_refused: str) -> None:
        fleet.changes += 1
        change = fleet.changes

        def end() -> None:
            if fleet.changes != change:
                return
            fleet.pending, fleet.changed = None, self.clock.now()
            if self.rolls_back(config):
                fleet.status, fleet.reason = if_refused, "alarm truthloop-5xx"
            else:
                fleet.status, fleet.config = "InService", config

        self.later(CHANGE_SECONDS, end)

    def _describe_endpoint(self, _: Json) -> Json:
        fleet = self.fleet
        if fleet is None:
            raise Refused("ValidationException", "Could not find endpoint")
        return {
            "EndpointName": ENDPOINT,
            "EndpointArn": "arn:aws:sagemaker:us-east-1:123456789012:endpoint/e",
            "EndpointStatus": fleet.status,
            "EndpointConfigName": fleet.config,
            "LastModifiedTime": fleet.changed,
            "CreationTime": fleet.changed,
            **({"FailureReason": fleet.reason} if fleet.reason else {}),
            **({"PendingDeploymentSummary": {"EndpointConfigName": fleet.pending}} if fleet.pending else {}),
        }

    def _delete_endpoint(self, _: Json) -> Json:
        fleet = self.fleet
        if fleet is None or fleet.status not in ("InService", "Failed", "UpdateRollbackFailed"):
            raise Refused("ValidationException", "Cannot delete")
        fleet.status = "Deleting"

        def end() -> None:
            self.fleet = None

        self.later(120, end)
        return {}

    def _invoke_endpoint(self, _: Json) -> Json:
        import io

        if self.fleet is None:
            raise Refused("ValidationError", "no endpoint")
        return {
            "Body": io.BytesIO(self.serves(self.fleet.config).encode()),
            "ContentType": "application/json",
        }

    # Notices and events:

    def _publish(self, request: Json) -> Json:
        self.notices.append(request["Subject"])
        return {"MessageId": "m"}

    def _put_events(self, request: Json) -> Json:
        for entry in request["Entries"]:
            number = sum(1 for play in self.plays.values() if play.name.startswith("event-"))
            event = {
                "version": "0",
                "id": f"event-{number}",
                "source": entry["Source"],
                "detail-type": entry["DetailType"],
                "time": self.clock.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "detail": json.loads(entry["Detail"]),
            }
            self.start("retrain", event, f"event-{number}")
        return {"FailedEntryCount": 0, "Entries": [{"EventId": "e"}]}


_DEFINITIONS: dict[str, Json] = {}


def definition(machine: str) -> Json:
    """Return a shipped definition, its substitutions filled and nothing else changed."""
    if machine not in _DEFINITIONS:
        values = {
            name: f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
            for name, function in machines.functions(machine).items()
        }
        values |= {
            "NotificationTopicArn": TOPIC, "PollIntervalSeconds": str(POLL_SECONDS), "StackName": "truthloop",
            "LoopTableName": TABLE,
        }  # fmt: skip
        text = json.dumps(machines.shipped(machine))
        _DEFINITIONS[machine] = json.loads(re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text))
    return _DEFINITIONS[machine]
