"""Plays a state machine against scripted functions and says what came of it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from tests.local.conftest import LocalServer
from tests.local.lambda_helpers import Functions, archive
from tests.local.sagemaker_driver import PROBE, REGISTRY, ROLE, Driver, unique, wait_until
from tests.local.stepfunctions_driver import Driver as Machines
from tests.statemachine import machines
from truthloop import errors
from truthloop.aws.attributes import from_item

Json = dict[str, Any]
STACK = "truthloop"
SIDE_BY_SIDE = 16
"""Scenarios that play at the same time: they mostly wait."""

# What a script or an expectation names before it exists: the real name takes its place while it plays.
SCENARIO = "<the scenario>"
EXECUTION = "<the execution>"
TRAINED_RUN = "<the pipeline run that succeeds>"
FAILED_RUN = "<the pipeline run that fails>"
LONG_RUN = "<the pipeline run that goes on>"
CANDIDATE = "<a registered package>"
LIVE_ENDPOINT, LIVE_CONFIG = "<the endpoint in service>", "<its configuration>"
BROKEN_ENDPOINT, BROKEN_CONFIG = "<the endpoint that failed>", "<the configuration that fails>"
STARTING_ENDPOINT, STARTING_CONFIG = "<the endpoint that is being created>", "<the configuration to come>"


@dataclass(frozen=True)
class Script:
    """What happens in one scenario.

    Attributes
    ----------
    answers
        Per function what its first, second, … call comes to: a result, ``raises(…)``, ``DIES`` or ``HANGS``.
    given
        The execution's input.
    topic, log
        Whether the topic exists that the machine publishes to, and the table that it logs in.
    prepare, before, during
        What the test does first of all (it may add names), before the start, and while the execution runs.
    """

    answers: Mapping[str, Sequence[Any]]
    given: Any = field(default_factory=dict)
    topic: bool = True
    log: bool = True
    prepare: Callable[[Scene], None] | None = None
    before: Callable[[Scene], None] | None = None
    during: Callable[[Scene], None] | None = None


@dataclass(frozen=True)
class Played:
    """What came of a scenario; real names are replaced by the ones that the script uses."""

    status: str
    error: str
    cause: str
    output: Any
    calls: list[tuple[str, Any]]
    notices: list[tuple[str, str]]
    decisions: list[Json]
    states: list[str]
    paths: tuple[set[str], set[machines.Edge], set[machines.Retrier]]
    executions: list[str]
    candidate: Json

    @property
    def called(self) -> list[str]:
        """The functions in the order of their calls."""
        return [function for function, _ in self.calls]

    def inputs(self, function: str) -> list[Any]:
        """Return what a function was called with."""
        return [given for name, given in self.calls if name == function]


Test = Callable[..., None]
OPTIONS = ("given", "topic", "log", "prepare", "before", "during")


def registrar(scripts: dict[str, Script]) -> Callable[..., Callable[[Test], Test]]:
    """Return a decorator that gives a test its scenario: the functions' answers, the script's options."""

    def scenario(**given: Any) -> Callable[[Test], Test]:
        options = {name: given.pop(name) for name in OPTIONS if name in given}

        def register(test: Test) -> Test:
            scripts[test.__name__] = Script(given, **options)
            return test

        return register

    return scenario


def raises(name: str, message: str) -> tuple[str, str, str]:
    """Return the answer of a function that fails with an exception of a class of this name."""
    return ("raises", name, message)


DIES = ("dies",)
"""The answer of a function whose process ends, as it does when it needs too much memory."""

HANGS = ("hangs",)
"""The answer of a function that runs out of time."""


def _answer(answer: Any) -> list[Any]:
    return list(answer) if isinstance(answer, tuple) else ["returns", answer]


class Stage:
    """What all scenarios share: the functions, pipeline runs, endpoints, one registry."""

    def __init__(self, server: LocalServer, folder: Path) -> None:
        self.folder = folder
        # One client per service for all threads: making one costs more than a scenario's calls.
        self.client = cache(partial(server.client, max_pool_connections=SIDE_BY_SIDE))
        self.functions = Functions(self.client)
        self.role = self.functions.role()
        self.aws = Driver(server)
        self.table, self.log = unique("scripts"), unique("loop")
        self._create_table(self.table, "scenario")
        self._create_table(self.log, "pk", "sk")
        self.arns: dict[str, str] = {}
        self.names = self._pipeline_runs() | self._endpoints()
        self.group = unique("group")
        self.aws.sagemaker.create_model_package_group(ModelPackageGroupName=self.group)

    def _create_table(self, name: str, *key: str) -> None:
        kinds: tuple[Literal["HASH", "RANGE"], ...] = ("HASH", "RANGE")
        self.client("dynamodb").create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": part, "AttributeType": "S"} for part in key],
            KeySchema=[
                {"AttributeName": part, "KeyType": kind} for part, kind in zip(key, kinds, strict=False)
            ],
            BillingMode="PAY_PER_REQUEST",
        )

    def function(self, name: str) -> str:
        """Return the ARN of a scripted function, made when it is missing."""
        if name not in self.arns:
            code = (Path(__file__).parent / "scripted/app.py").read_text()
            made = self.functions.create(
                Code={"ZipFile": archive({"app.py": code})},
                Role=self.role,
                Timeout=4,
                Environment={"Variables": {"FUNCTION": name, "SCRIPT_TABLE": self.table}},
            )
            self.arns[name] = self.functions.api.get_function(FunctionName=made)["Configuration"][
                "FunctionArn"
            ]
        return self.arns[name]

    def start_pipeline(self, *steps: Json) -> str:
        document = {"Version": "2020-12-01", "Metadata": {}, "Parameters": [], "Steps": list(steps)}
        name = unique("pipeline")
        self.aws.sagemaker.create_pipeline(
            PipelineName=name,
            PipelineDefinition=json.dumps(document),
            RoleArn=ROLE,
            ClientRequestToken=uuid.uuid4().hex,
        )
        started = self.aws.sagemaker.start_pipeline_execution(
            PipelineName=name, ClientRequestToken=uuid.uuid4().hex
        )
        return str(started["PipelineExecutionArn"])

    def _pipeline_runs(self) -> dict[str, str]:
        fail = {"Name": "FailGate", "Type": "Fail", "Arguments": {"ErrorMessage": "the base set is broken"}}
        equal = {"Type": "Equals", "LeftValue": 1, "RightValue": 1}
        nothing = {"Conditions": [equal], "IfSteps": [], "ElseSteps": []}
        endless = {"HyperParameters": {"seconds": "900"}, "StoppingCondition": {"MaxRuntimeInSeconds": 900}}
        request = self.aws.training_request("x", **endless)
        del request["TrainingJobName"]
        return {
            TRAINED_RUN: self.start_pipeline({"Name": "Check", "Type": "Condition", "Arguments": nothing}),
            FAILED_RUN: self.start_pipeline(fail),
            LONG_RUN: self.start_pipeline({"Name": "Long", "Type": "Training", "Arguments": request}),
        }

    def configuration(self, image: str, **model: Any) -> str:
        """Return an endpoint configuration with a model of its own."""
        name = unique("config")
        container = {"Image": image, "ModelDataUrl": self.aws.model_data(answer="7", **model)}
        self.aws.sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.g4dn.xlarge",
            "ContainerStartupHealthCheckTimeoutInSeconds": 60,
        }
        self.aws.sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        return name

    def create_endpoint(self, config: str) -> str:
        name = unique("endpoint")
        self.aws.sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
        return name

    def _endpoints(self) -> dict[str, str]:
        live, broken = self.configuration(PROBE), self.configuration(f"{REGISTRY}/truthloop-broken:latest")
        names = {
            LIVE_CONFIG: live,
            LIVE_ENDPOINT: self.create_endpoint(live),
            BROKEN_CONFIG: broken,
            BROKEN_ENDPOINT: self.create_endpoint(broken),
        }
        for endpoint in (names[LIVE_ENDPOINT], names[BROKEN_ENDPOINT]):
            wait_until(partial(self._settled, endpoint), what=f"endpoint {endpoint}")
        return names

    def _settled(self, endpoint: str) -> bool:
        status = self.aws.sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"]
        return status in ("InService", "Failed")

    def package(self) -> str:
        """Register a package that waits for its approval."""
        answer = self.aws.sagemaker.create_model_package(
            ModelPackageGroupName=self.group,
            ModelApprovalStatus="PendingManualApproval",
            InferenceSpecification={
                "Containers": [{"Image": PROBE, "ModelDataUrl": "s3://b/model.tar.gz"}],
                "SupportedContentTypes": ["image/png"],
                "SupportedResponseMIMETypes": ["application/json"],
            },
        )
        return str(answer["ModelPackageArn"])


class Scene:
    """One scenario on the stage: its machine, topic, script and names."""

    def __init__(self, stage: Stage, machine: str, script: Script) -> None:
        self.stage = stage
        self.script = script
        self.key = f"scenario-{uuid.uuid4().hex[:8]}"
        self.machines = Machines(stage.client("stepfunctions"))
        self.file = stage.folder / self.key
        self.names = {**stage.names, SCENARIO: self.key}
        if CANDIDATE in json.dumps(script.answers):
            self.names[CANDIDATE] = stage.package()
        self.topic, self.queue = self._topic()
        values = {name: stage.function(function) for name, function in machines.functions(machine).items()}
        values |= {"NotificationTopicArn": self.topic, "PollIntervalSeconds": "1", "StackName": STACK}
        if machine == "retrain":
            values["LoopTableName"] = stage.log if script.log else "gone"
        self.definition = machines.load(machine, values)
        self.arn = str(
            self.machines.client.create_state_machine(
                name=self.key, definition=json.dumps(self.definition), roleArn=stage.role
            )["stateMachineArn"]
        )
        self.execution = ""

    def _topic(self) -> tuple[str, str]:
        sns = self.stage.client("sns")
        topic = str(sns.create_topic(Name=self.key)["TopicArn"])
        url, arn = self.stage.functions.queue()
        if self.script.topic:
            sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        else:
            sns.delete_topic(TopicArn=topic)
        return topic, url

    def real(self, value: Any) -> Any:
        """Replace the script's names by the real ones."""
        text = json.dumps(value)
        for name, found in self.names.items():
            text = text.replace(name, found)
        return json.loads(text)

    def told(self, value: Any) -> Any:
        """Replace the real names by the script's."""
        text = json.dumps(value)
        for name, found in sorted(self.names.items(), key=lambda item: -len(item[1])):
            text = text.replace(found, name)
        return json.loads(text)

    def start(self, given: Any, name: str) -> str:
        answer = self.machines.client.start_execution(
            stateMachineArn=self.arn, name=name, input=json.dumps(self.real(given))
        )
        return str(answer["executionArn"])

    def play(self) -> Played:
        """Play the scenario to the end of every execution of the machine."""
        script = self.script
        if script.prepare:
            script.prepare(self)
        answers = {name: [_answer(a) for a in given] for name, given in script.answers.items()}
        dynamodb, table = self.stage.client("dynamodb"), self.stage.table
        key = {"scenario": {"S": self.key}}
        text = {"S": json.dumps(self.real(answers))}
        dynamodb.put_item(TableName=table, Item={**key, "script": text, "calls": {"L": []}})
        if script.before:
            script.before(self)
        self.execution = self.start(script.given, "run")
        self.names[EXECUTION] = self.execution
        if script.during:
            script.during(self)
        executions = self.ended()
        found = self.machines.client.describe_execution(executionArn=self.execution)
        calls = dynamodb.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]["calls"]["L"]
        events = self.machines.events(self.execution)
        told = self.told(
            {
                "status": found["status"],
                "error": found.get("error", ""),
                "cause": found.get("cause", ""),
                "output": json.loads(found["output"]) if "output" in found else None,
                "executions": executions,
                "notices": self._notices(),
                "decisions": self._decisions(),
            }
        )
        candidate = self.names.get(CANDIDATE)
        return Played(
            **{**told, "notices": [tuple(notice) for notice in told["notices"]]},
            calls=[tuple(self.told(json.loads(call["S"]))) for call in calls],
            states=[e["stateEnteredEventDetails"]["name"] for e in events if "stateEnteredEventDetails" in e],
            paths=machines.taken(self.definition, events),
            candidate=self.stage.aws.sagemaker.describe_model_package(ModelPackageName=candidate)
            if candidate
            else {},
        )

    def ended(self) -> list[str]:
        """Wait until no execution of the machine runs; return the names of all."""

        def look() -> list[str] | None:
            every = self.machines.client.list_executions(stateMachineArn=self.arn)["executions"]
            return None if any(e["status"] == "RUNNING" for e in every) else [e["name"] for e in every]

        return sorted(wait_until(look, 90, f"the end of {self.key}", pause=0.3))

    def _decisions(self) -> list[Json]:
        """Return the items that the execution has in the decision log."""
        found = self.stage.client("dynamodb").query(
            TableName=self.stage.log,
            KeyConditionExpression="pk = :pk",
            FilterExpression="execution = :execution",
            ExpressionAttributeValues={":pk": {"S": "DECISION"}, ":execution": {"S": self.execution}},
            ConsistentRead=True,
        )
        return [from_item(item) for item in found["Items"]]

    def _published(self) -> int:
        """Return how many messages the machine's executions have published to the topic."""
        every = self.machines.client.list_executions(stateMachineArn=self.arn)["executions"]
        events = [event for found in every for event in self.machines.events(found["executionArn"])]
        done = [e["taskSucceededEventDetails"] for e in events if e["type"] == "TaskSucceeded"]
        return sum(details["resourceType"] == "sns" for details in done)

    def _notices(self) -> list[tuple[str, str]]:
        """Return subject and message of what the topic has delivered: soon after it has answered."""
        sqs = self.stage.client("sqs")
        found: list[tuple[str, str]] = []

        def look() -> bool:
            messages = sqs.receive_message(QueueUrl=self.queue, MaxNumberOfMessages=10).get("Messages", [])
            for message in messages:
                body = json.loads(message["Body"])
                found.append((body["Subject"], body["Message"]))
                sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=message["ReceiptHandle"])
            return not messages and len(found) >= expected

        expected = self._published() if self.script.topic else 0
        wait_until(look, 60, f"what {self.key} has published", pause=0.05)
        return found

    def wait_for_state(self, name: str, times: int = 1) -> None:
        """Wait until the execution has entered a state so many times."""

        def look() -> bool:
            events = self.machines.events(self.execution)
            return [e.get("stateEnteredEventDetails", {}).get("name") for e in events].count(name) >= times

        wait_until(look, 60, f"{name} in {self.key}", pause=0.3)


Plays = Mapping[str, Future[Played]]


def play_all(stage: Stage, machine: str, scripts: Mapping[str, Script]) -> Plays:
    """Play scenarios side by side; one that cannot be played fails its own test alone."""
    for function in machines.functions(machine).values():
        stage.function(function)
    # Those that wait for time-outs take longest: they begin first.
    order = sorted(scripts, key=lambda name: str(scripts[name].answers).count(str(HANGS)), reverse=True)
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return {
            name: pool.submit(lambda script: Scene(stage, machine, script).play(), scripts[name])
            for name in order
        }


def _shape(value: Any, kind: Any, where: str) -> list[str]:
    """Return where a value is not of a kind of JSON."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        if not isinstance(value, dict) or set(value) != set(hints):
            return [f"{where} is {value!r}, which has not the keys {sorted(hints)}"]
        return [wrong for key, item in value.items() for wrong in _shape(item, hints[key], f"{where}.{key}")]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        found = [_shape(value, each, where) for each in arguments]
        return [] if [] in found else found[0]
    if origin is list and isinstance(value, list):
        return [wrong for item in value for wrong in _shape(item, arguments[0], f"{where}[]")]
    if kind is float and isinstance(value, int):
        return []
    return [] if isinstance(value, origin or kind) else [f"{where} is {value!r}, not {kind}"]


def breaches(scripts: Mapping[str, Script]) -> list[str]:
    """Return what scripted functions answer or raise that the functions themselves never would."""
    found = []
    for scenario, script in scripts.items():
        for function, answers in script.answers.items():
            step = getattr(import_module(f"truthloop.steps.{function}"), function)
            for answer in answers:
                where = f"{scenario}: {function}"
                if not isinstance(answer, tuple):
                    found += _shape(answer, get_type_hints(step)["return"], where)
                elif answer[0] == "raises" and not hasattr(errors, answer[1]):
                    found.append(f"{where} raises {answer[1]}, which truthloop/errors.py does not know")
    return found
