"""Metrics of functions and queues, and the embedded metric format."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local.lambda_runtime.metrics import embedded
from local.lambda_runtime.output import LogEvent
from tests.local.lambda_helpers import Functions, eventually

EMBEDDED = """
from aws_lambda_powertools import Metrics
metrics = Metrics(namespace="TestsOfEmf", service="ingest")

@metrics.log_metrics
def lambda_handler(event, context):
    metrics.add_metric(name="Accepted", unit="Count", value=3)
    metrics.add_metric(name="Accepted", unit="Count", value=4)
    if event: raise ValueError("x")
"""


@pytest.fixture(scope="module")
def functions(server: Any) -> Functions:
    return Functions(lambda service: server.client(service, retries={"total_max_attempts": 1}))


def total(
    functions: Functions, namespace: str, name: str, dimension: tuple[str, str], statistic: str = "Sum"
) -> float:
    now = datetime.now(UTC)
    points = functions.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": dimension[0], "Value": dimension[1]}],
        StartTime=now - timedelta(minutes=5),
        EndTime=now + timedelta(minutes=5),
        Period=3600,
        Statistics=[statistic],
    )["Datapoints"]
    return float(sum(point[statistic] for point in points))


def test_metrics_in_the_log_and_of_the_platform_reach_cloudwatch(functions: Functions) -> None:
    name = functions.create(EMBEDDED, Timeout=30)
    functions.invoke(name)
    functions.fail(name, True)

    own = ("FunctionName", name)
    eventually(lambda: total(functions, "AWS/Lambda", "Invocations", own) == 2)
    assert total(functions, "AWS/Lambda", "Errors", own) == 1
    assert total(functions, "AWS/Lambda", "Duration", own) > 0
    assert total(functions, "TestsOfEmf", "Accepted", ("service", "ingest")) == 14

    functions.api.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(functions.api.exceptions.TooManyRequestsException):
        functions.invoke(name)
    eventually(lambda: total(functions, "AWS/Lambda", "Throttles", own) == 1)


def test_the_messages_that_wait_in_a_queue_are_published(functions: Functions) -> None:
    url, arn = functions.queue()
    functions.client("sqs").send_message(QueueUrl=url, MessageBody="x")

    own = ("QueueName", arn.split(":")[-1])
    eventually(lambda: total(functions, "AWS/SQS", "ApproximateNumberOfMessagesVisible", own, "Maximum") == 1)


@pytest.mark.parametrize(
    "document",
    [
        '{"_aws": ',
        '{"_aws": {}}',
        '{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "n", "Metrics": [{"Name": "m"}]}]}}',
        '{"_aws": {"Timestamp": "now", "CloudWatchMetrics": []}}',
    ],
)
def test_what_is_no_valid_format_is_said_and_skipped(document: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="local.lambda"):
        assert list(embedded([LogEvent(0, "plain text"), LogEvent(0, document)])) == []
    assert "no valid embedded metric format" in caplog.text


def test_every_set_of_dimensions_gets_the_values() -> None:
    directive = {
        "Namespace": "n",
        "Dimensions": [["a"], ["a", "b"]],
        "Metrics": [{"Name": "m", "Unit": "Seconds"}],
    }
    document = {
        "_aws": {"Timestamp": 1000, "CloudWatchMetrics": [directive]},
        "a": "x",
        "b": "y",
        "m": [1, 2.5],
    }

    data = list(embedded([LogEvent(0, json.dumps(document))]))

    assert [entry["Dimensions"] for _, entry in data] == [
        [{"Name": "a", "Value": "x"}],
        [{"Name": "a", "Value": "x"}, {"Name": "b", "Value": "y"}],
    ]
    assert {(namespace, tuple(entry["Values"]), entry["Unit"]) for namespace, entry in data} == {
        ("n", (1.0, 2.5), "Seconds")
    }
