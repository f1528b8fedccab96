"""Rules with a schedule, EventBridge Scheduler: fired by the running server, and by a clock of our own."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
WINDOW = {"Mode": "OFF"}


class Inbox:
    """A queue and what arrives in it."""

    def __init__(self, server: Any) -> None:
        self.sqs = server.client("sqs")
        self.name = f"inbox-{uuid.uuid4().hex[:8]}"
        self.url = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        self.arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}"

    def take(self, wait: int = 20) -> list[Any]:
        answer = self.sqs.receive_message(
            QueueUrl=self.url, WaitTimeSeconds=wait, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        for message in answer.get("Messages", []):
            self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return list(answer.get("Messages", []))

    def bodies(self, wait: int = 20) -> list[Any]:
        return [json.loads(message["Body"]) for message in self.take(wait)]


@pytest.fixture
def inbox(server: Any) -> Inbox:
    return Inbox(server)


def at(seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return f"at({moment:%Y-%m-%dT%H:%M:%S})"


# -- the running server ----------------------------------------------------------------------------


def test_one_time_schedule_runs_and_deletes_itself(server: Any, inbox: Inbox) -> None:
    scheduler = server.client("scheduler")
    target = {
        "Arn": inbox.arn,
        "RoleArn": ROLE,
        "Input": json.dumps(
            {
                "at": "<aws.scheduler.scheduled-time>",
                "id": "<aws.scheduler.execution-id>",
                "attempt": "<aws.scheduler.attempt-number>",
                "arn": "<aws.scheduler.schedule-arn>",
                "other": "<not.ours>",
            }
        ),
    }
    when = at(1)
    created = scheduler.create_schedule(
        Name=inbox.name,
        ScheduleExpression=when,
        FlexibleTimeWindow={"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 15},
        Target=target,
        ActionAfterCompletion="DELETE",
    )
    [body] = inbox.bodies()
    assert len(body.pop("id")) == 16
    assert body == {
        "at": when[3:-1] + "Z",
        "attempt": "1",
        "arn": created["ScheduleArn"],
        "other": "<not.ours>",
    }
    end = time.monotonic() + 60
    while scheduler.list_schedules(NamePrefix=inbox.name)["Schedules"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_rate_without_start_date_fires_at_once_and_its_default_input_is_an_event(
    server: Any, inbox: Inbox
) -> None:
    scheduler = server.client("scheduler")
    arn = scheduler.create_schedule(
        Name=inbox.name,
        ScheduleExpression="rate(1 day)",
        FlexibleTimeWindow=WINDOW,
        Target={"Arn": inbox.arn, "RoleArn": ROLE},
    )["ScheduleArn"]
    assert scheduler.get_schedule(Name=inbox.name)["State"] == "ENABLED"
    [event] = inbox.bodies()
    assert (event["source"], event["detail-type"]) == ("aws.scheduler", "Scheduled Event")
    assert (event["resources"], event["detail"]) == ([arn], "{}")
    assert inbox.bodies(wait=0) == []


def test_disabled_schedule_waits_until_it_is_enabled(server: Any, inbox: Inbox) -> None:
    scheduler = server.client("scheduler")
    settings = {
        "Name": inbox.name,
        "ScheduleExpression": "rate(1 day)",
        "FlexibleTimeWindow": WINDOW,
        "Target": {"Arn": inbox.arn, "RoleArn": ROLE, "Input": "{}"},
    }
    scheduler.create_schedule(**settings, State="DISABLED", ActionAfterCompletion="NONE")
    assert inbox.take(wait=1) == []
    scheduler.update_schedule(**settings, ActionAfterCompletion="DELETE")
    assert scheduler.get_schedule(Name=inbox.name)["State"] == "ENABLED"
    assert scheduler.get_schedule(Name=inbox.name)["ActionAfterCompletion"] == "DELETE"
    assert inbox.bodies() == [{}]


def test_universal_targets_call_any_operation(server: Any, inbox: Inbox) -> None:
    scheduler, states = server.client("scheduler"), server.client("stepfunctions")
    definition = {"StartAt": "Stop", "States": {"Stop": {"Type": "Pass", "End": True}}}
    machine = states.create_state_machine(name=inbox.name, definition=json.dumps(definition), roleArn=ROLE)
    url = f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{inbox.name}"
    calls = {
        "sqs:sendMessage": {"QueueUrl": url, "MessageBody": '{"universal": true}'},
        "sfn:startExecution": {"StateMachineArn": machine["stateMachineArn"], "Input": {"by": "schedule"}},
    }
    for operation, arguments in calls.items():
        scheduler.create_schedule(
            Name=f"{inbox.name}-{operation[:3]}",
            ScheduleExpression=at(0),
            FlexibleTimeWindow=WINDOW,
            Target={
                "Arn": f"arn:aws:scheduler:::aws-sdk:{operation}",
                "RoleArn": ROLE,
                "Input": json.dumps(arguments),
            },
        )
    assert inbox.bodies() == [{"universal": True}]
    end = time.monotonic() + 60
    while not (found := states.list_executions(stateMachineArn=machine["stateMachineArn"])["executions"]):
        assert time.monotonic() < end
        time.sleep(0.05)
    started = states.describe_execution(executionArn=found[0]["executionArn"])
    assert json.loads(started["input"]) == {"by": "schedule"}


def test_templated_target_event_bus(server: Any, inbox: Inbox) -> None:
    events = server.client("events")
    events.put_rule(Name=inbox.name, EventPattern=json.dumps({"source": [inbox.name]}))
    events.put_targets(Rule=inbox.name, Targets=[{"Id": "1", "Arn": inbox.arn, "InputPath": "$.detail"}])
    server.client("scheduler").create_schedule(
        Name=inbox.name,
        ScheduleExpression=at(0),
        FlexibleTimeWindow=WINDOW,
        Target={
            "Arn": f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default",
            "RoleArn": ROLE,
            "EventBridgeParameters": {"DetailType": "Sweep", "Source": inbox.name},
            "Input": '{"n": 1}',
        },
    )
    assert inbox.bodies() == [{"n": 1}]


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ({"Arn": f"arn:aws:sqs:us-east-1:{ACCOUNT}:nowhere", "Input": '{"n": 1}'}, "NO_RESOURCE"),
        (
            {
                "Arn": f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default",
                "EventBridgeParameters": {"DetailType": "t", "Source": "aws.s3"},
                "Input": '{"n": 1}',
            },
            "SDK_CLIENT_ERROR",
        ),
        ({"Arn": "arn:aws:scheduler:::aws-sdk:sns:publish", "Input": '{"n": 1}'}, "SDK_CLIENT_ERROR"),
    ],
)
def test_failed_invocation_goes_to_the_dead_letter_queue(
    server: Any, inbox: Inbox, target: dict[str, Any], code: str
) -> None:
    arn = server.client("scheduler").create_schedule(
        Name=inbox.name,
        ScheduleExpression=at(0),
        FlexibleTimeWindow=WINDOW,
        Target={**target, "RoleArn": ROLE, "DeadLetterConfig": {"Arn": inbox.arn}},
    )["ScheduleArn"]
    [letter] = inbox.take()
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert json.loads(letter["Body"]) == {"n": 1}
    assert attributes["ERROR_CODE"] == code
    assert attributes["SCHEDULE_ARN"] == arn
    assert attributes["TARGET_ARN"] == target["Arn"]
    assert attributes["SCHEDULED_TIME"].endswith("Z")
    assert attributes["EXECUTION_ID"]
    assert attributes["IS_PAYLOAD_TRUNCATED"] == "false"
    assert attributes["RETRY_ATTEMPTS"] == "0"


QUEUE = f"arn:aws:sqs:us-east-1:{ACCOUNT}:q"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ScheduleExpression": "rate(0 minutes)"}, "Invalid Schedule Expression rate(0 minutes)"),
        ({"ScheduleExpressionTimezone": "Mars/Olympus"}, "time zone Mars/Olympus is not valid"),
        ({"GroupName": "nowhere"}, "Schedule group nowhere does not exist"),
        ({"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}}, "MaximumWindowInMinutes must be specified"),
        (
            {"StartDate": datetime(2030, 1, 2), "EndDate": datetime(2030, 1, 1)},
            "must come after the StartDate",
        ),
        ({"Target": {"Arn": f"arn:aws:codebuild:us-east-1:{ACCOUNT}:project/p"}}, "not supported"),
        ({"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:receiveMessage"}}, "only reads"),
        ({"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sing"}}, "has no operation sing"),
        ({"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:nosuch:doIt"}}, "no service nosuch"),
        (
            {"Target": {"Arn": "arn:aws:scheduler:::aws-sdk:sqs:sendMessage", "Input": "{"}},
            "is not valid JSON",
        ),
        ({"Target": {"Arn": f"{QUEUE}.fifo"}}, "MessageGroupId are required"),
        (
            {"Target": {"Arn": f"arn:aws:events:us-east-1:{ACCOUNT}:event-bus/default"}},
            "EventBridgeParameters with DetailType and Source are required",
        ),
        ({"Target": {"Arn": QUEUE, "RetryPolicy": {"MaximumRetryAttempts": 186}}}, "between 0 and 185"),
        ({"Target": {"Arn": QUEUE, "RetryPolicy": {"MaximumEventAgeInSeconds": 5}}}, "between 60 and 86400"),
    ],
)
def test_invalid_schedule_is_refused(server: Any, settings: dict[str, Any], words: str) -> None:
    scheduler = server.client("scheduler", parameter_validation=False)
    given = {
        "Name": f"bad-{uuid.uuid4().hex[:8]}",
        "ScheduleExpression": "rate(1 day)",
        "FlexibleTimeWindow": WINDOW,
        "Target": {"Arn": QUEUE},
        **settings,
    }
    given["Target"] = {"RoleArn": ROLE, **given["Target"]}
    with pytest.raises(ClientError) as error:
        scheduler.create_schedule(**given)
    assert words in error.value.response["Error"]["Message"]
    assert error.value.response["Error"]["Code"] in ("ValidationException", "ResourceNotFoundException")


# -- under a clock of our own ----------------------------------------------------------------------


class Clock:
    now = datetime(2027, 6, 1, 12, 0, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Workshop:
    """Schedules in this process, fired by hand; what they send goes to the running server."""

    def __init__(self, server: Any) -> None:
        from moto.events.models import events_backends
        from moto.scheduler.models import scheduler_backends

        from local.context import LocalAws
        from local.events.bus import EventBuses
        from local.events.delivery import Deliverer
        from local.events.schedules import Schedules
        from local.events.timers import Timers

        self.aws, self.clock = LocalAws(server.port), Clock()
        timers = Timers(self.aws)
        deliverer = Deliverer(self.aws, timers)
        self.schedules = Schedules(self.aws, EventBuses(self.aws, deliverer), deliverer, self.clock)
        self.rules = events_backends[ACCOUNT]["us-east-1"]
        self.scheduler = scheduler_backends[ACCOUNT]["us-east-1"]

    def rule(self, inbox: Inbox, expression: str) -> Any:
        rule = self.rules.put_rule(inbox.name, scheduled_expression=expression)
        rule.put_targets([{"Id": "1", "Arn": inbox.arn}])
        return rule

    def schedule(self, inbox: Inbox, expression: str, **settings: Any) -> Any:
        defaults: dict[str, Any] = {
            "description": "",
            "end_date": None,
            "flexible_time_window": WINDOW,
            "group_name": "default",
            "kms_key_arn": None,
            "name": inbox.name,
            "schedule_expression": expression,
            "schedule_expression_timezone": "UTC",
            "start_date": None,
            "state": "ENABLED",
            "target": {
                "Arn": inbox.arn,
                "RoleArn": ROLE,
                "Input": '{"at": "<aws.scheduler.scheduled-time>"}',
            },
            "action_after_completion": None,
        }
        return self.scheduler.create_schedule(**(defaults | settings))

    def pass_time(self, **time: float) -> None:
        self.clock.now += timedelta(**time)
        self.schedules.fire_due()


@pytest.fixture
def workshop(server: Any) -> Iterator[Workshop]:
    shop = Workshop(server)
    yield shop
    shop.rules.event_buses["default"].rules.clear()
    shop.scheduler.schedule_groups["default"].schedules.clear()
    shop.aws.stop()


def test_rule_with_a_rate_fires_scheduled_events(workshop: Workshop, inbox: Inbox) -> None:
    rule = workshop.rule(inbox, "rate(5 minutes)")
    workshop.pass_time()
    workshop.pass_time(minutes=4)
    assert inbox.take(wait=0) == []
    workshop.pass_time(minutes=1)
    [event] = inbox.bodies()
    assert event.pop("id")
    assert event == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT,
        "time": "2027-06-01T12:05:30Z",
        "region": "us-east-1",
        "resources": [rule.arn],
        "detail": {},
    }


def test_rule_with_cron_fires_on_the_minute_and_missed_times_fire_once(
    workshop: Workshop, inbox: Inbox
) -> None:
    workshop.rule(inbox, "cron(0/10 * * * ? *)")
    workshop.pass_time()
    workshop.pass_time(minutes=9, seconds=30)
    assert [event["time"] for event in inbox.bodies()] == ["2027-06-01T12:10:00Z"]
    workshop.pass_time(hours=2)
    assert [event["time"] for event in inbox.bodies()] == ["2027-06-01T12:20:00Z"]
    workshop.pass_time(minutes=10)
    assert [event["time"] for event in inbox.bodies()] == ["2027-06-01T14:20:00Z"]


def test_disabled_rule_does_not_fire_and_starts_afresh(workshop: Workshop, inbox: Inbox) -> None:
    rule = workshop.rule(inbox, "rate(1 minute)")
    workshop.pass_time()
    rule.disable()
    workshop.pass_time(minutes=5)
    rule.enable()
    workshop.pass_time(minutes=5)
    assert inbox.take(wait=0) == []
    workshop.pass_time(minutes=1)
    assert len(inbox.take()) == 1


def test_schedule_follows_its_time_zone(workshop: Workshop, inbox: Inbox) -> None:
    workshop.schedule(inbox, "cron(0 15 * * ? *)", schedule_expression_timezone="Europe/Berlin")
    workshop.pass_time()
    workshop.pass_time(hours=1)
    assert inbox.bodies() == [{"at": "2027-06-01T13:00:00Z"}]


def test_start_and_end_date_bound_a_rate(workshop: Workshop, inbox: Inbox) -> None:
    start = workshop.clock.now + timedelta(hours=1)
    end = start + timedelta(minutes=15)
    workshop.schedule(
        inbox,
        "rate(10 minutes)",
        start_date=start.timestamp(),
        end_date=end.timestamp(),
        action_after_completion="DELETE",
    )
    workshop.pass_time(minutes=59)
    assert inbox.take(wait=0) == []
    workshop.pass_time(minutes=1)
    assert inbox.bodies() == [{"at": "2027-06-01T13:00:30Z"}]
    workshop.pass_time(minutes=10)
    assert inbox.bodies() == [{"at": "2027-06-01T13:10:30Z"}]
    workshop.pass_time(minutes=10)
    assert inbox.take(wait=0) == []
    assert inbox.name not in workshop.scheduler.schedule_groups["default"].schedules


def test_one_time_schedule_long_past_does_not_run(workshop: Workshop, inbox: Inbox) -> None:
    workshop.schedule(inbox, "at(2027-06-01T11:00:00)")
    workshop.pass_time(minutes=1)
    assert inbox.take(wait=0) == []
