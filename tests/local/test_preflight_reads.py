"""What preflight reads of an account, from the embedded AWS over HTTP: the alarm's metric and what trains."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.local.sagemaker_driver import Driver, unique, wait_until
from truthloop.aws.alarms import CloudWatchAlarms
from truthloop.aws.quotas import ServiceQuotas
from truthloop.retraining.alarm import AlarmReading


@pytest.fixture(scope="module")
def aws(server: Any) -> Driver:
    return Driver(server)


@pytest.fixture
def accuracy(aws: Driver) -> Iterator[str]:
    """Watch an endpoint's accuracy; the alarm's name is the endpoint's."""
    name = unique("accuracy")
    aws.cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="Truthloop",
        MetricName="Accuracy",
        Dimensions=[{"Name": "EndpointName", "Value": name}],
        Statistic="Minimum",
        Period=10,
        EvaluationPeriods=1,
        Threshold=0.85,
        ComparisonOperator="LessThanThreshold",
        TreatMissingData="ignore",
    )
    yield name
    aws.cloudwatch.delete_alarms(AlarmNames=[name])


def measure(aws: Driver, endpoint: str, value: float, at: datetime, **more: str) -> None:
    dimensions = [{"Name": name, "Value": text} for name, text in {"EndpointName": endpoint, **more}.items()]
    datum = {"MetricName": "Accuracy", "Dimensions": dimensions, "Value": value, "Timestamp": at}
    aws.cloudwatch.put_metric_data(Namespace="Truthloop", MetricData=[datum])


def read(aws: Driver, name: str, since: datetime) -> AlarmReading | None:
    return CloudWatchAlarms(aws.cloudwatch).read(name, since, datetime.now(UTC) + timedelta(minutes=1))


def test_the_newest_measurement_since_the_deployment_counts(aws: Driver, accuracy: str) -> None:
    now = datetime.now(UTC)
    measure(aws, accuracy, 0.4, now - timedelta(seconds=8))
    measure(aws, accuracy, 0.6, now)
    measure(aws, accuracy, 0.1, now, Variant="another metric")
    measure(aws, f"{accuracy}-2", 0.2, now)

    def alarmed() -> AlarmReading | None:
        reading = read(aws, accuracy, now - timedelta(hours=1))
        return reading if reading and reading.state == "ALARM" else None

    reading = wait_until(alarmed, what="the alarm")
    assert reading.breaching
    assert reading.newest is not None
    # One period of GetMetricStatistics holds both, and the alarm's statistic is the minimum.
    assert reading.newest.value in (0.4, 0.6)
    stale = read(aws, accuracy, now + timedelta(seconds=5))
    assert stale is not None
    assert (stale.state, stale.newest, stale.breaching) == ("ALARM", None, False)


def test_an_alarm_that_is_not_in_alarm_is_not_measured(aws: Driver, accuracy: str) -> None:
    reading = read(aws, accuracy, datetime.now(UTC) - timedelta(days=400))
    assert reading is not None
    assert (reading.state, reading.threshold, reading.newest) == ("INSUFFICIENT_DATA", 0.85, None)


def test_there_may_be_no_such_alarm(aws: Driver) -> None:
    assert read(aws, unique("none"), datetime.now(UTC)) is None


def test_what_trains_now_uses_the_quota_until_it_has_ended(aws: Driver) -> None:
    name, kind = unique("quota"), "ml.g4dn.12xlarge"
    request = aws.training_request(name, HyperParameters={"seconds": "60"})
    request["ResourceConfig"] |= {"InstanceType": kind, "InstanceCount": 1}
    aws.sagemaker.create_training_job(**request)
    reader = ServiceQuotas(aws.server.client("service-quotas"), aws.sagemaker)
    assert reader.read(kind, 2, spot=False).in_use == 1
    assert reader.read("ml.g6.12xlarge", 2, spot=False).in_use == 0
    assert reader.read(kind, 2, spot=True).in_use == 0
    aws.sagemaker.stop_training_job(TrainingJobName=name)
    wait_until(lambda: reader.read(kind, 2, spot=False).in_use == 0, what="the end of the job")
