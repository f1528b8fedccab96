"""Rules deliver to real targets of a running server, retry, and give up into dead-letter queues."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"


def wait_for(look: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Look until something is there."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"nothing after {seconds} s"
        time.sleep(0.05)
    return found


class Inbox:
    """A queue and what arrives in it."""

    def __init__(self, server: Any, name: str = "", **attributes: str) -> None:
        self.sqs = server.client("sqs")
        self.name = name or f"inbox-{uuid.uuid4().hex[:8]}"
        self.url = self.sqs.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"]
        self.arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}"

    def take(self, wait: int = 20) -> list[Any]:
        answer = self.sqs.receive_message(
            QueueUrl=self.url,
            WaitTimeSeconds=wait,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        )
        for message in answer.get("Messages", []):
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return list(answer.get("Messages", []))

    def one(self) -> Any:
        messages = self.take()
        assert len(messages) == 1
        return messages[0]

    def event(self) -> Any:
        return json.loads(self.one()["Body"])


class Sender:
    """A source of its own, so that tests share a bus without meeting."""

    def __init__(self, server: Any) -> None:
        self.events = server.client("events")
        self.source = f"test.{uuid.uuid4().hex[:8]}"

    def rule(self, *targets: dict[str, Any], name: str = "", **settings: Any) -> str:
        name = name or f"rule-{uuid.uuid4().hex[:8]}"
        settings.setdefault("EventPattern", json.dumps({"source": [self.source]}))
        arn = str(self.events.put_rule(Name=name, **settings)["RuleArn"])
        bus = {"EventBusName": settings["EventBusName"]} if "EventBusName" in settings else {}
        if targets:
            numbered = [{"Id": str(number), **target} for number, target in enumerate(targets)]
            self.events.put_targets(Rule=name, Targets=numbered, **bus)
        return arn

    def put(self, detail: Any, **entry: Any) -> str:
        answer = self.events.put_events(
            Entries=[
                {"Source": self.source, "DetailType": "Thing Happened", "Detail": json.dumps(detail), **entry}
            ]
        )
        assert answer["FailedEntryCount"] == 0
        return str(answer["Entries"][0]["EventId"])


@pytest.fixture
def sender(server: Any) -> Sender:
    return Sender(server)


def test_event_reaches_a_queue_in_the_shape_of_aws(server: Any, sender: Sender) -> None:
    inbox = Inbox(server)
    sender.rule({"Arn": inbox.arn})
    event_id = sender.put({"n": 1}, Resources=["arn:one"], Time="2026-11-22T10:00:00+01:00")
    assert inbox.event() == {
        "version": "0",
        "id": event_id,
        "detail-type": "Thing Happened",
        "source": sender.source,
        "account": ACCOUNT,
        "time": "2026-11-22T09:00:00Z",
        "region": "us-east-1",
        "resources": ["arn:one"],
        "detail": {"n": 1},
    }


def test_inputs_of_targets(server: Any, sender: Sender) -> None:
    constant, path, template = Inbox(server), Inbox(server), Inbox(server)
    transformer = {
        "InputPathsMap": {"n": "$.detail.n"},
        "InputTemplate": '{"number": <n>, "text": "no. <n>"}',
    }
    sender.rule(
        {"Arn": constant.arn, "Input": '{"constant": true}'},
        {"Arn": path.arn, "InputPath": "$.detail"},
        {"Arn": template.arn, "InputTransformer": transformer},
    )
    sender.put({"n": 7})
    assert constant.event() == {"constant": True}
    assert path.event() == {"n": 7}
    assert template.event() == {"number": 7, "text": "no. 7"}


def test_fifo_queue_gets_its_group(server: Any, sender: Sender) -> None:
    inbox = Inbox(server, f"q{uuid.uuid4().hex[:8]}.fifo", FifoQueue="true", ContentBasedDeduplication="true")
    sender.rule({"Arn": inbox.arn, "SqsParameters": {"MessageGroupId": "labels"}})
    sender.put({})
    assert inbox.one()["Attributes"]["MessageGroupId"] == "labels"


def test_topic(server: Any, sender: Sender) -> None:
    inbox, sns = Inbox(server), server.client("sns")
    topic = sns.create_topic(Name=f"t-{uuid.uuid4().hex[:8]}")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=inbox.arn)
    sender.rule({"Arn": topic})
    sender.put({"n": 2})
    assert json.loads(inbox.event()["Message"])["detail"] == {"n": 2}


def test_function(server: Any, sender: Sender) -> None:
    inbox = Inbox(server)
    code = """
import json, boto3
def handle(event, _):
    boto3.client("sqs").send_message(QueueUrl=event["url"], MessageBody=json.dumps(event))
"""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("app.py", code)
    iam, role = server.client("iam"), f"r-{uuid.uuid4().hex[:8]}"
    role_arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    allowed = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": inbox.arn}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    iam.put_role_policy(RoleName=role, PolicyName="send", PolicyDocument=json.dumps(policy))
    function = server.client("lambda").create_function(
        FunctionName=f"f-{uuid.uuid4().hex[:8]}",
        Runtime="python3.13",
        Handler="app.handle",
        Role=role_arn,
        Code={"ZipFile": archive.getvalue()},
        Timeout=20,
    )
    sender.rule({"Arn": function["FunctionArn"], "Input": json.dumps({"url": inbox.url, "from": "rule"})})
    sender.put({})
    assert inbox.event()["from"] == "rule"


def machine(server: Any) -> str:
    definition = {"StartAt": "Stop", "States": {"Stop": {"Type": "Pass", "End": True}}}
    created = server.client("stepfunctions").create_state_machine(
        name=f"m-{uuid.uuid4().hex[:8]}", definition=json.dumps(definition), roleArn=ROLE
    )
    return str(created["stateMachineArn"])


def test_state_machine_starts_under_a_name_of_the_event(server: Any, sender: Sender) -> None:
    arn, states = machine(server), server.client("stepfunctions")
    sender.rule({"Arn": arn, "RoleArn": ROLE})
    event_id = sender.put({"n": 3})
    execution = wait_for(lambda: states.list_executions(stateMachineArn=arn)["executions"])[0]
    assert execution["name"].startswith(event_id)
    started = states.describe_execution(executionArn=execution["executionArn"])
    assert json.loads(started["input"])["detail"] == {"n": 3}


def test_pipeline_gets_its_parameters(server: Any, sender: Sender) -> None:
    sagemaker, name = server.client("sagemaker"), f"p-{uuid.uuid4().hex[:8]}"
    parameter = {"Name": "Reason", "Type": "String", "DefaultValue": "none"}
    definition = {
        "Version": "2020-12-01",
        "Parameters": [parameter],
        "Steps": [{"Name": "Stop", "Type": "Fail", "Arguments": {"ErrorMessage": "on purpose"}}],
    }
    created = sagemaker.create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps(definition),
        RoleArn=ROLE,
        ClientRequestToken="t" * 32,
    )
    sender.rule(
        {
            "Arn": created["PipelineArn"],
            "RoleArn": ROLE,
            "SageMakerPipelineParameters": {"PipelineParameterList": [{"Name": "Reason", "Value": "event"}]},
        }
    )
    sender.put({})
    summary = wait_for(
        lambda: sagemaker.list_pipeline_executions(PipelineName=name)["PipelineExecutionSummaries"]
    )
    given = sagemaker.list_pipeline_parameters_for_execution(
        PipelineExecutionArn=summary[0]["PipelineExecutionArn"]
    )
    assert {"Name": "Reason", "Value": "event"} in given["PipelineParameters"]


def test_log_group(server: Any, sender: Sender) -> None:
    logs, group = server.client("logs"), f"/aws/events/{uuid.uuid4().hex[:8]}"
    logs.create_log_group(logGroupName=group)
    sender.rule({"Arn": f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{group}"})
    sender.put({"n": 4})
    events = wait_for(lambda: logs.filter_log_events(logGroupName=group)["events"])
    assert json.loads(events[0]["message"])["detail"] == {"n": 4}


def test_another_bus(server: Any, sender: Sender) -> None:
    inbox, bus = Inbox(server), f"bus-{uuid.uuid4().hex[:8]}"
    arn = sender.events.create_event_bus(Name=bus)["EventBusArn"]
    sender.rule({"Arn": inbox.arn}, EventBusName=bus)
    sender.rule({"Arn": arn, "RoleArn": ROLE})
    event_id = sender.put({"n": 5})
    assert inbox.event()["id"] == event_id
    sender.put({"n": 6}, EventBusName=arn)
    assert inbox.event()["detail"] == {"n": 6}


def test_archive_and_replay(server: Any, sender: Sender) -> None:
    inbox, name = Inbox(server), f"a-{uuid.uuid4().hex[:8]}"
    bus = f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"
    archive = sender.events.create_archive(
        ArchiveName=name, EventSourceArn=bus, EventPattern=json.dumps({"source": [sender.source]})
    )
    sender.put({"n": 8})
    wait_for(lambda: sender.events.describe_archive(ArchiveName=name)["EventCount"])
    sender.rule({"Arn": inbox.arn})
    sender.events.start_replay(
        ReplayName=name,
        EventSourceArn=archive["ArchiveArn"],
        EventStartTime=0,
        EventEndTime=time.time() + 60,
        Destination={"Arn": bus},
    )
    replayed = inbox.event()
    assert (replayed["detail"], replayed["replay-name"]) == ({"n": 8}, name)


def test_disabled_rule_and_rule_with_schedule_only_receive_nothing(server: Any, sender: Sender) -> None:
    silent, both = Inbox(server), Inbox(server)
    sender.rule({"Arn": silent.arn}, State="DISABLED")
    sender.events.put_rule(Name=f"{sender.source}-s", ScheduleExpression="rate(1 day)")
    sender.events.put_targets(Rule=f"{sender.source}-s", Targets=[{"Id": "0", "Arn": silent.arn}])
    sender.rule({"Arn": both.arn}, ScheduleExpression="rate(1 day)")
    sender.put({})
    assert len(both.take()) == 1
    assert silent.take(wait=0) == []


def test_rule_enabled_again_receives(server: Any, sender: Sender) -> None:
    inbox = Inbox(server)
    sender.rule({"Arn": inbox.arn}, name=sender.source)
    sender.events.disable_rule(Name=sender.source)
    sender.put({"n": 1})
    sender.events.enable_rule(Name=sender.source)
    sender.put({"n": 2})
    assert inbox.event()["detail"] == {"n": 2}


def test_missing_target_goes_to_the_dead_letter_queue_at_once(server: Any, sender: Sender) -> None:
    dead = Inbox(server)
    missing = f"arn:aws:sqs:us-east-1:{ACCOUNT}:nowhere"
    rule = sender.rule({"Arn": missing, "DeadLetterConfig": {"Arn": dead.arn}})
    event_id = sender.put({"n": 9})
    letter = dead.one()
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"])["id"] == event_id
    assert attributes["RULE_ARN"] == rule
    assert attributes["TARGET_ARN"] == missing
    assert attributes["ERROR_CODE"] == "NO_RESOURCE"
    assert attributes["ERROR_MESSAGE"]
    assert attributes["RETRY_ATTEMPTS"] == "0"
    assert "EXHAUSTED_RETRY_CONDITION" not in attributes


def test_input_that_a_target_refuses_is_not_tried_again(server: Any, sender: Sender) -> None:
    dead, arn = Inbox(server), machine(server)
    transformer = {"InputPathsMap": {"n": "$.detail.n"}, "InputTemplate": "<n> apples"}
    sender.rule(
        {"Arn": arn, "RoleArn": ROLE, "InputTransformer": transformer, "DeadLetterConfig": {"Arn": dead.arn}}
    )
    sender.put({"n": 9})
    attributes = dead.one()["MessageAttributes"]
    assert attributes["ERROR_CODE"]["StringValue"] == "SDK_CLIENT_ERROR"
    assert attributes["RETRY_ATTEMPTS"]["StringValue"] == "0"


def refusal(call: Callable[..., Any], **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**arguments)
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]


def test_invalid_pattern_is_refused(sender: Sender) -> None:
    code, message = refusal(sender.events.put_rule, Name="bad", EventPattern='{"source": [{"like": "x"}]}')
    assert code == "InvalidEventPatternException"
    assert message == "Event pattern is not valid. Reason: Unrecognized match type like"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ScheduleExpression": "rate(1 minutes)"}, "ScheduleExpression is not valid"),
        ({"Name": "a b", "ScheduleExpression": "rate(1 minute)"}, "regular expression pattern"),
        ({"ScheduleExpression": "cron(0 10 * * * *)"}, "ScheduleExpression is not valid"),
        ({"ScheduleExpression": "at(2030-01-01T00:00:00)"}, "ScheduleExpression is not valid"),
        ({"EventPattern": '{"a": ["b"]}', "State": "SLEEPING"}, "'SLEEPING' at 'state'"),
    ],
)
def test_invalid_rule_is_refused(sender: Sender, settings: dict[str, str], words: str) -> None:
    code, message = refusal(sender.events.put_rule, **{"Name": "bad", **settings})
    assert code == "ValidationException"
    assert words in message


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"Arn": f"arn:aws:codebuild:us-east-1:{ACCOUNT}:project/p"}, "does not deliver to"),
        ({"Arn": f"arn:aws:lambda:us-east-1:{ACCOUNT}:layer:x"}, "does not deliver to"),
        ({"Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer"),
        ({"Input": "{bad"}, "JSON syntax error in input"),
        ({"InputPath": "detail"}, "Invalid InputPath"),
        ({"InputTransformer": {"InputPathsMap": {"a": "b"}, "InputTemplate": "<a>"}}, "Invalid InputPath"),
        ({"InputTransformer": {"InputPathsMap": {"aws.x": "$"}, "InputTemplate": "<aws.x>"}}, "reserved"),
        ({"InputTransformer": {"InputPathsMap": {"a": "$"}, "InputTemplate": "<b>"}}, "not in InputPathsMap"),
        ({"RetryPolicy": {"MaximumRetryAttempts": 186}}, "less than or equal to 185"),
        ({"RetryPolicy": {"MaximumEventAgeInSeconds": 59}}, "greater than or equal to 60"),
    ],
)
def test_invalid_target_is_refused(server: Any, sender: Sender, target: dict[str, Any], words: str) -> None:
    sender.rule(name=sender.source)
    given = {"Id": "1", "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q", **target}
    events = server.client("events", parameter_validation=False)
    code, message = refusal(events.put_targets, Rule=sender.source, Targets=[given])
    assert code == "ValidationException"
    assert words in message


def test_sixth_target_is_refused(sender: Sender) -> None:
    sender.rule(name=sender.source)
    targets = [{"Id": str(number), "Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"} for number in range(6)]
    sender.events.put_targets(Rule=sender.source, Targets=targets[:5])
    sender.events.put_targets(Rule=sender.source, Targets=targets[:1])
    assert (
        refusal(sender.events.put_targets, Rule=sender.source, Targets=targets[5:])[0]
        == "LimitExceededException"
    )


def test_each_entry_fails_on_its_own(server: Any, sender: Sender) -> None:
    inbox = Inbox(server)
    sender.rule({"Arn": inbox.arn})
    good = {"Source": sender.source, "DetailType": "t", "Detail": "{}"}
    answer = sender.events.put_events(
        Entries=[
            good,
            good | {"Detail": "{bad"},
            good | {"Detail": "[1]"},
            good | {"Source": "aws.s3"},
            good | {"DetailType": ""},
            good | {"EventBusName": "no-such-bus"},
        ]
    )
    codes = [entry.get("ErrorCode") for entry in answer["Entries"]]
    assert codes == [
        None,
        "MalformedDetail",
        "MalformedDetail",
        "NotAuthorizedForSourceException",
        "InvalidArgument",
        None,
    ]
    assert answer["FailedEntryCount"] == 4
    assert len(inbox.take()) == 1


def test_limits_of_put_events(sender: Sender) -> None:
    entry = {"Source": sender.source, "DetailType": "t", "Detail": "{}"}
    assert refusal(sender.events.put_events, Entries=[entry] * 11)[0] == "ValidationException"
    large = [entry | {"Detail": json.dumps({"text": "x" * 600_000})}] * 2
    code, message = refusal(sender.events.put_events, Entries=large)
    assert (code, message) == (
        "ValidationException",
        "Total size of the entries in the request is over the limit.",
    )
    sender.put({"text": "x" * 1_000_000})


def test_test_event_pattern(sender: Sender) -> None:
    event = {
        "id": "1",
        "account": "1",
        "source": "s",
        "time": "2026-11-22T10:00:00Z",
        "region": "r",
        "resources": [],
        "detail-type": "t",
    }

    def result(pattern: str, given: Any = event) -> Any:
        return sender.events.test_event_pattern(EventPattern=pattern, Event=json.dumps(given))["Result"]

    assert result('{"source": [{"prefix": "s"}]}') is True
    assert result('{"source": ["other"]}') is False
    bad = refusal(sender.events.test_event_pattern, EventPattern='{"source": "s"}', Event=json.dumps(event))
    assert bad[0] == "InvalidEventPatternException"
    incomplete = refusal(
        sender.events.test_event_pattern, EventPattern='{"source": ["s"]}', Event='{"id": "1"}'
    )
    assert incomplete[0] == "ValidationException"
    assert (
        refusal(sender.events.test_event_pattern, EventPattern='{"source": ["s"]}', Event="{")[0]
        == "ValidationException"
    )


# -- retries: a proxy before the server fails on purpose -------------------------------------------


class FlakyProxy:
    """Answers 503 to the first requests of an operation, then passes on to the real server."""

    def __init__(self, port: int) -> None:
        self.failures: dict[str, int] = {}
        self.lose_answers = False
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].split(".")[-1]
                proxy.seen.append(operation)
                failing = proxy.failures.get(operation, 0) > 0
                if failing:
                    proxy.failures[operation] -= 1
                status, answer = 503, b'{"__type": "ServiceUnavailable", "message": "on purpose"}'
                if not failing or proxy.lose_answers:
                    upstream = HTTPConnection("localhost", port)
                    headers = {**dict(self.headers.items()), "Host": f"localhost:{port}"}
                    upstream.request("POST", self.path, body, headers)
                    response = upstream.getresponse()
                    if not failing:
                        status, answer = response.status, response.read()
                    upstream.close()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def flaky(server: Any) -> Iterator[FlakyProxy]:
    proxy = FlakyProxy(server.port)
    yield proxy
    proxy.http.shutdown()
    proxy.http.server_close()


class Rule:
    """Just what the delivery needs to know of a rule."""

    def __init__(self, target: dict[str, Any]) -> None:
        self.name = f"r-{uuid.uuid4().hex[:8]}"
        self.arn = f"arn:aws:events:us-east-1:{ACCOUNT}:rule/{self.name}"
        self.targets = [{"Id": "1", **target}]


@pytest.fixture
def deliver(flaky: FlakyProxy) -> Iterator[Callable[..., dict[str, Any]]]:
    from local.context import LocalAws
    from local.events.bus import EventBuses
    from local.events.delivery import Deliverer
    from local.events.timers import Timers

    aws = LocalAws(flaky.http.server_port)
    buses = EventBuses(aws, Deliverer(aws, Timers(aws)))

    def run(target: dict[str, Any]) -> dict[str, Any]:
        event = buses.new_event("my.app", "t", [], {"n": 1}, region="us-east-1", account=ACCOUNT)
        buses.deliver(Rule(target), event)
        return event

    yield run
    aws.stop()


def test_failing_target_is_tried_again(server: Any, flaky: FlakyProxy, deliver: Any) -> None:
    inbox = Inbox(server)
    flaky.failures["SendMessage"] = 2
    event = deliver({"Arn": inbox.arn})
    assert inbox.event() == event
    assert flaky.seen.count("SendMessage") == 3


def test_retries_are_spent_and_the_dead_letter_says_so(server: Any, flaky: FlakyProxy, deliver: Any) -> None:
    dead, arn = Inbox(server), machine(server)
    flaky.failures["StartExecution"] = 99
    policy = {"MaximumRetryAttempts": 2}
    event = deliver({"Arn": arn, "RetryPolicy": policy, "DeadLetterConfig": {"Arn": dead.arn}})
    letter = dead.one()
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"]) == event
    assert attributes["ERROR_CODE"] == "ERROR_FROM_TARGET"
    assert attributes["RETRY_ATTEMPTS"] == "2"
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == "MaximumRetryAttempts"
    assert flaky.seen.count("StartExecution") == 3


def test_event_that_is_too_old_is_given_up(server: Any, flaky: FlakyProxy, deliver: Any) -> None:
    dead, arn = Inbox(server), machine(server)
    flaky.failures["StartExecution"] = 99
    # Not through PutTargets, which insists on a minute.
    policy = {"MaximumEventAgeInSeconds": 0}
    deliver({"Arn": arn, "RetryPolicy": policy, "DeadLetterConfig": {"Arn": dead.arn}})
    attributes = dead.one()["MessageAttributes"]
    assert attributes["EXHAUSTED_RETRY_CONDITION"]["StringValue"] == "MaximumEventAgeInSeconds"
    assert attributes["RETRY_ATTEMPTS"]["StringValue"] == "0"


def test_retry_after_a_lost_answer_starts_no_second_execution(
    server: Any, flaky: FlakyProxy, deliver: Any
) -> None:
    arn, states = machine(server), server.client("stepfunctions")
    flaky.failures["StartExecution"], flaky.lose_answers = 2, True
    deliver({"Arn": arn})
    wait_for(lambda: flaky.seen.count("StartExecution") == 3)
    time.sleep(0.2)
    assert len(states.list_executions(stateMachineArn=arn)["executions"]) == 1


def test_dead_letter_queue_that_is_gone_is_logged(
    flaky: FlakyProxy, deliver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    missing = f"arn:aws:sqs:us-east-1:{ACCOUNT}:nowhere"
    deliver({"Arn": missing, "DeadLetterConfig": {"Arn": missing}})
    wait_for(lambda: "is lost, its dead-letter queue refused it" in caplog.text)


def test_unreachable_server_is_a_connection_failure(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    from local.context import LocalAws
    from local.events.targets import DeliveryError, Payload, send

    aws = LocalAws(1)
    with pytest.raises(DeliveryError) as error:
        send(aws, {"Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"}, Payload("{}", key="k"))
    aws.stop()
    assert (error.value.code, error.value.retryable) == ("CONNECTION_FAILURE", True)


def test_adapters_publish_as_services(server: Any) -> None:
    from moto.events.models import events_backends

    from local.context import LocalAws
    from local.events import emit
    from local.events.bus import EventBuses
    from local.events.delivery import Deliverer
    from local.events.timers import Timers

    aws, inbox = LocalAws(server.port), Inbox(server)
    buses = EventBuses(aws, Deliverer(aws, Timers(aws)))
    buses.install()
    vars(aws)["event_buses"] = buses
    backend = events_backends[ACCOUNT]["us-east-1"]
    backend.put_rule("emitted", event_pattern=json.dumps({"source": ["aws.sagemaker"]}))
    backend.put_targets("emitted", None, [{"Id": "1", "Arn": inbox.arn}])
    event_id = emit(aws, "aws.sagemaker", "State Change", ["arn:x"], {"n": 1})
    event = inbox.event()
    backend.event_buses["default"].rules.clear()
    aws.stop()
    assert (event["id"], event["source"], event["detail-type"]) == (event_id, "aws.sagemaker", "State Change")
    assert (event["resources"], event["detail"]) == (["arn:x"], {"n": 1})


def test_fault_of_the_adapter_does_not_lose_the_event(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    from local.context import LocalAws
    from local.events.delivery import Deliverer, Failure, Job, RetryPolicy
    from local.events.timers import Timers

    aws, dead = LocalAws(server.port), Inbox(server)

    def attempt(_: int) -> None:
        raise KeyError("unforeseen")

    def letter(failure: Failure) -> tuple[str, dict[str, str]]:
        return "the event", failure.attributes()

    Deliverer(aws, Timers(aws)).start(Job("the job", attempt, RetryPolicy(), dead.arn, letter))
    message = dead.one()
    aws.stop()
    assert message["Body"] == "the event"
    assert message["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "INTERNAL_ERROR"
    assert "the job broke off" in caplog.text


def test_background_work_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    from local.context import LocalAws
    from local.events.timers import Timers

    aws = LocalAws(1)
    timers = Timers(aws)
    timers.after(0.01, lambda: [][0])
    wait_for(lambda: "background work failed" in caplog.text)
    aws.stop()
