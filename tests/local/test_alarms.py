"""Alarms of a running server change state, tell everyone, and are refused when they cannot be watched."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.lambda_helpers import forwarder

ACCOUNT = "123456789012"
SIZE = [{"Name": "EndpointName", "Value": "digits"}]


class Watched:
    """One alarm on a metric of its own, with a queue for its events."""

    def __init__(self, server: Any) -> None:
        self.cw, self.sqs, self.events = (server.client(name) for name in ("cloudwatch", "sqs", "events"))
        self.name = f"alarm-{uuid.uuid4().hex[:8]}"
        self.namespace = f"Test/{self.name}"
        self.url = self.sqs.create_queue(QueueName=self.name)["QueueUrl"]
        self.queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}"

    def route_events(self) -> None:
        pattern = {"source": ["aws.cloudwatch"], "detail": {"alarmName": [self.name]}}
        self.events.put_rule(Name=self.name, EventPattern=json.dumps(pattern))
        self.events.put_targets(Rule=self.name, Targets=[{"Id": "1", "Arn": self.queue}])

    def alarm(self, **settings: Any) -> None:
        defaults: dict[str, Any] = {
            "AlarmName": self.name,
            "EvaluationPeriods": 1,
            "Threshold": 0.9,
            "ComparisonOperator": "LessThanThreshold",
        }
        if "Metrics" not in settings:
            defaults |= {
                "Namespace": self.namespace,
                "MetricName": "accuracy",
                "Dimensions": SIZE,
                "Period": 3600,
                "Statistic": "Average",
            }
        merged = {name: value for name, value in (defaults | settings).items() if value is not None}
        self.cw.put_metric_alarm(**merged)

    def measure(self, value: float, name: str = "accuracy", **datum: Any) -> None:
        given = {"MetricName": name, "Dimensions": SIZE, "Value": value, **datum}
        self.cw.put_metric_data(Namespace=self.namespace, MetricData=[given])

    def described(self) -> Any:
        return self.cw.describe_alarms(AlarmNames=[self.name])["MetricAlarms"][0]

    def reaches(self, state: str) -> Any:
        end = time.monotonic() + 60
        while (alarm := self.described())["StateValue"] != state:
            assert time.monotonic() < end, f"{alarm['StateValue']}: {alarm['StateReason']}"
            time.sleep(0.05)
        return alarm

    def take(self, count: int = 1, wait: int = 20) -> list[Any]:
        """Receive until ``count`` messages have come, or none for ``wait`` seconds."""
        found: list[Any] = []
        while len(found) < count:
            answer = self.sqs.receive_message(QueueUrl=self.url, WaitTimeSeconds=wait, MaxNumberOfMessages=10)
            if not (messages := answer.get("Messages", [])):
                break
            for message in messages:
                found.append(json.loads(message["Body"]))
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found


@pytest.fixture
def watched(server: Any) -> Watched:
    return Watched(server)


def test_breach_changes_the_state_once_and_the_event_has_the_shape_of_aws(watched: Watched) -> None:
    watched.route_events()
    watched.alarm(AlarmDescription="accuracy below the floor")
    first = watched.described()
    assert first["StateValue"] == "INSUFFICIENT_DATA"
    watched.measure(0.5)
    [event] = watched.take()
    assert event["detail-type"] == "CloudWatch Alarm State Change"
    assert event["source"] == "aws.cloudwatch"
    assert event["resources"] == [first["AlarmArn"]]
    detail = event["detail"]
    metric = detail["configuration"]["metrics"][0]
    assert detail["configuration"]["description"] == "accuracy below the floor"
    assert metric["returnData"] is True
    assert metric["metricStat"] == {
        "metric": {
            "dimensions": {"EndpointName": "digits"},
            "name": "accuracy",
            "namespace": watched.namespace,
        },
        "period": 3600,
        "stat": "Average",
    }
    assert detail["previousState"]["value"] == "INSUFFICIENT_DATA"
    assert detail["state"]["value"] == "ALARM"
    assert detail["state"]["timestamp"].endswith("+0000")
    data = json.loads(detail["state"]["reasonData"])
    assert (data["version"], data["recentDatapoints"], data["threshold"]) == ("1.0", [0.5], 0.9)
    alarm = watched.described()
    assert alarm["StateReason"].startswith("Threshold Crossed: 1 out of the last 1 datapoints [0.5 (")
    assert alarm["StateUpdatedTimestamp"] > first["StateUpdatedTimestamp"]
    watched.measure(0.4)
    assert watched.take(wait=1) == []  # a breach that persists is no transition


def test_recovery_carries_the_previous_reason_data(watched: Watched) -> None:
    watched.route_events()
    watched.alarm(Statistic="Maximum")
    watched.measure(0.5)
    watched.reaches("ALARM")
    watched.measure(0.95)
    watched.reaches("OK")
    states = [event["detail"]["state"]["value"] for event in watched.take(2)]
    assert sorted(states) == ["ALARM", "OK"]
    assert json.loads(watched.described()["StateReasonData"])["recentDatapoints"] == [0.95]


def test_dimensions_must_match_exactly_and_units_when_given(watched: Watched) -> None:
    watched.alarm(Unit="Percent")
    watched.measure(0.1)  # no unit
    watched.measure(0.1, Dimensions=[], Unit="Percent")
    watched.measure(0.1, Dimensions=[*SIZE, {"Name": "Variant", "Value": "a"}], Unit="Percent")
    watched.measure(0.95, Unit="Percent")
    watched.reaches("OK")


def test_percentile(watched: Watched) -> None:
    watched.alarm(
        Statistic=None,
        ExtendedStatistic="p90",
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        Threshold=9,
    )
    datum = {"MetricName": "accuracy", "Dimensions": SIZE, "Values": [1.0, 9.0], "Counts": [8.0, 2.0]}
    watched.cw.put_metric_data(Namespace=watched.namespace, MetricData=[datum])
    assert "[9.0 (" in watched.reaches("ALARM")["StateReason"]


def test_late_data_points_count_in_their_own_period(watched: Watched) -> None:
    watched.alarm(Period=60, EvaluationPeriods=2, DatapointsToAlarm=2, TreatMissingData="notBreaching")
    now = datetime.now(UTC)
    watched.measure(0.5, Timestamp=now)
    watched.reaches("OK")
    watched.measure(0.5, Timestamp=now - timedelta(seconds=60))
    assert "2 out of the last 2 datapoints" in watched.reaches("ALARM")["StateReason"]


def test_metric_math(watched: Watched) -> None:
    def stat(name: str) -> dict[str, Any]:
        metric = {"Namespace": watched.namespace, "MetricName": name, "Dimensions": SIZE}
        return {"Metric": metric, "Period": 3600, "Stat": "Sum"}

    watched.route_events()
    watched.alarm(
        Metrics=[
            {
                "Id": "share",
                "Expression": "IF(all > 10, right / all, 1)",
                "Label": "accuracy",
                "ReturnData": True,
            },
            {"Id": "right", "MetricStat": stat("right"), "ReturnData": False},
            {"Id": "all", "MetricStat": stat("all"), "ReturnData": False},
        ]
    )
    assert [query["Id"] for query in watched.described()["Metrics"]] == ["share", "right", "all"]
    now = datetime.now(UTC)  # one period, also when an hour begins
    watched.measure(5, "right", Timestamp=now)
    watched.measure(10, "all", Timestamp=now)
    watched.reaches("OK")
    watched.measure(10, "all", Timestamp=now)
    watched.reaches("ALARM")
    queries = watched.take(2)[-1]["detail"]["configuration"]["metrics"]
    assert queries[0] == {
        "id": "share",
        "label": "accuracy",
        "expression": "IF(all > 10, right / all, 1)",
        "returnData": True,
    }


def test_actions_notify_topics_on_each_transition(server: Any, watched: Watched) -> None:
    sns = server.client("sns")
    topic = sns.create_topic(Name=watched.name)["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=watched.queue)
    watched.alarm(AlarmActions=[topic], Statistic="Maximum")
    watched.measure(0.5)
    [wrapped] = watched.take()
    assert wrapped["Subject"] == f'ALARM: "{watched.name}" in US East (N. Virginia)'
    message = json.loads(wrapped["Message"])
    assert (message["NewStateValue"], message["OldStateValue"]) == ("ALARM", "INSUFFICIENT_DATA")
    assert message["AWSAccountId"] == ACCOUNT
    assert message["Trigger"]["Dimensions"] == [{"value": "digits", "name": "EndpointName"}]
    assert message["Trigger"]["Statistic"] == "MAXIMUM"
    watched.measure(0.95)  # no OK action
    watched.reaches("OK")
    watched.cw.disable_alarm_actions(AlarmNames=[watched.name])
    watched.cw.set_alarm_state(AlarmName=watched.name, StateValue="ALARM", StateReason="by hand")
    assert watched.take(wait=1) == []


def test_set_alarm_state_is_a_transition_and_lasts_until_new_data(watched: Watched) -> None:
    watched.route_events()
    watched.alarm()
    watched.measure(0.95)
    watched.reaches("OK")
    watched.take()
    watched.cw.set_alarm_state(AlarmName=watched.name, StateValue="ALARM", StateReason="by hand")
    [event] = watched.take()
    assert event["detail"]["state"]["reason"] == "by hand"
    time.sleep(1.2)  # the next look at all alarms
    assert watched.described()["StateValue"] == "ALARM"
    watched.measure(0.95)
    watched.reaches("OK")


def test_history_and_failed_action(watched: Watched) -> None:
    missing = f"arn:aws:sns:us-east-1:{ACCOUNT}:nowhere"
    watched.alarm(AlarmActions=[missing])
    watched.measure(0.5)
    watched.reaches("ALARM")
    end = time.monotonic() + 60
    while len(items := watched.cw.describe_alarm_history(AlarmName=watched.name)["AlarmHistoryItems"]) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert {item["HistoryItemType"] for item in items} == {"Action", "StateUpdate", "ConfigurationUpdate"}
    updates = watched.cw.describe_alarm_history(AlarmName=watched.name, HistoryItemType="StateUpdate")
    data = json.loads(updates["AlarmHistoryItems"][0]["HistoryData"])
    assert data["newState"]["stateValue"] == "ALARM"
    assert any(item["HistorySummary"].startswith("Failed to execute action") for item in items)


def test_update_keeps_the_state(watched: Watched) -> None:
    watched.alarm()
    watched.measure(0.5)
    watched.reaches("ALARM")
    watched.alarm(AlarmDescription="new words")
    alarm = watched.described()
    assert (alarm["StateValue"], alarm["AlarmDescription"]) == ("ALARM", "new words")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"ComparisonOperator": "LessThanLowerOrGreaterThanUpperThreshold"},
            "not supported by the embedded AWS",
        ),
        ({"Threshold": None}, "Threshold is required"),
        ({"TreatMissingData": "maybe"}, "Option maybe is not supported"),
        ({"EvaluationPeriods": 2, "DatapointsToAlarm": 3}, "DatapointsToAlarm must be between"),
        ({"Period": 45}, "Period must be"),
        ({"Period": 86_400, "EvaluationPeriods": 8}, "more than a week"),
        ({"Statistic": None}, "either Statistic or ExtendedStatistic"),
        ({"Statistic": None, "ExtendedStatistic": "p101"}, "p101"),
        ({"MetricName": None}, "required when there is no Metrics list"),
        ({"AlarmActions": ["arn:aws:automate:us-east-1:ec2:stop"]}, "unsupported alarm action"),
        ({"Metrics": [{"Id": "e", "Expression": "SEARCH('x', 'Sum')"}]}, "does not compute"),
        ({"Metrics": [{"Id": "e", "Expression": "1 +"}]}, "invalid syntax"),
    ],
)
def test_alarm_that_cannot_be_watched_is_refused(
    watched: Watched, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClientError) as error:
        watched.alarm(**settings)
    assert words in error.value.response["Error"]["Message"]
    assert watched.cw.describe_alarms(AlarmNames=[watched.name])["MetricAlarms"] == []


def queries(
    *, period: int = 60, returned: tuple[bool, bool] = (True, False), uses: str = "m"
) -> list[dict[str, Any]]:
    metric = {"Namespace": "N", "MetricName": "m"}
    return [
        {"Id": "e", "Expression": f"{uses} * 2", "ReturnData": returned[0]},
        {
            "Id": "m",
            "MetricStat": {"Metric": metric, "Period": period, "Stat": "Sum"},
            "ReturnData": returned[1],
        },
        {"Id": "n", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}, "ReturnData": False},
    ]


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (queries(period=300), "Period must be the same"),
        (queries(returned=(True, True)), "Exactly one element"),
        (queries(uses="x"), "Expression e uses x"),
    ],
)
def test_metrics_list_that_cannot_be_watched_is_refused(
    watched: Watched, metrics: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(ClientError, match=words):
        watched.alarm(Metrics=metrics)


# -- with a clock of our own: silence --------------------------------------------------------------


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def quiet_room(server: Any) -> Iterator[tuple[Any, Clock]]:
    """Alarms in this process, under a clock that a test moves, and a backend to put them in."""
    from moto.cloudwatch.models import cloudwatch_backends

    from local.context import LocalAws
    from local.events.alarms import Alarms
    from local.events.bus import EventBuses
    from local.events.delivery import Deliverer
    from local.events.timers import Timers

    aws, clock = LocalAws(server.port), Clock()
    timers = Timers(aws)
    deliverer = Deliverer(aws, timers)
    alarms = Alarms(aws, EventBuses(aws, deliverer), deliverer, timers, clock)
    alarms.install()
    yield (alarms, cloudwatch_backends[ACCOUNT]["us-east-1"]), clock
    aws.stop()


@pytest.mark.parametrize(
    ("treatment", "state"),
    [("missing", "INSUFFICIENT_DATA"), ("ignore", "ALARM"), ("breaching", "ALARM"), ("notBreaching", "OK")],
)
@pytest.mark.parametrize("period", [10, 60])
def test_silence(quiet_room: tuple[Any, Clock], treatment: str, state: str, period: int) -> None:
    (alarms, backend), clock = quiet_room
    name = f"{treatment}-{period}"
    alarm = backend.put_metric_alarm(
        name=name,
        namespace="N",
        metric_name=name,
        comparison_operator="GreaterThanThreshold",
        evaluation_periods=1,
        period=period,
        threshold=1.0,
        statistic="Sum",
        description="",
        dimensions=[],
        alarm_actions=[],
        treat_missing_data=treatment,
    )
    moment = datetime.fromtimestamp(clock.now, UTC)
    backend.put_metric_data("N", [{"MetricName": name, "Value": 5.0, "Timestamp": moment}])
    alarms.evaluate(backend, alarm)
    assert alarm.state_value == "ALARM"
    clock.now += 2 * period
    alarms.evaluate(backend, alarm)
    assert alarm.state_value == "ALARM"  # the point still lies in the evaluation range
    clock.now += 3 * period
    alarms.evaluate(backend, alarm)
    assert alarm.state_value == state


def test_alarm_on_the_depth_of_a_queue(watched: Watched) -> None:
    watched.alarm(
        Namespace="AWS/SQS",
        MetricName="ApproximateNumberOfMessagesVisible",
        Dimensions=[{"Name": "QueueName", "Value": watched.name}],
        Statistic="Maximum",
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )
    watched.reaches("OK")
    watched.sqs.send_message(QueueUrl=watched.url, MessageBody="nobody wanted me")
    watched.reaches("ALARM")


def test_action_invokes_a_function(server: Any, watched: Watched) -> None:
    function = forwarder(server, watched.name, watched.queue, watched.url)
    watched.alarm(AlarmActions=[function], AlarmDescription="floor")
    watched.measure(0.5)
    [event] = watched.take()
    assert (event["source"], event["accountId"], event["region"]) == ("aws.cloudwatch", ACCOUNT, "us-east-1")
    assert event["alarmArn"] == watched.described()["AlarmArn"]
    data = event["alarmData"]
    assert (data["alarmName"], data["configuration"]["description"]) == (watched.name, "floor")
    assert (data["previousState"]["value"], data["state"]["value"]) == ("INSUFFICIENT_DATA", "ALARM")
