"""When an alarm speaks of the model in service, and what CloudWatch accepts to be asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truthloop.aws.alarms import period_for
from truthloop.retraining.alarm import AlarmReading, Measurement

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
BELOW = "LessThanThreshold"


def reading(
    value: float | None, state: str = "ALARM", comparison: str = BELOW, threshold: float = 0.85
) -> AlarmReading:
    newest = None if value is None else Measurement(value, NOW)
    return AlarmReading("accuracy", state, comparison, threshold, NOW - timedelta(days=1), newest)


@pytest.mark.parametrize(
    ("comparison", "breaching"),
    [
        ("LessThanThreshold", [True, False, False]),
        ("LessThanOrEqualToThreshold", [True, True, False]),
        ("GreaterThanThreshold", [False, False, True]),
        ("GreaterThanOrEqualToThreshold", [False, True, True]),
        ("LessThanLowerThreshold", [False, False, False]),
    ],
)
def test_the_wrong_side_is_the_alarms_own(comparison: str, breaching: list[bool]) -> None:
    assert [reading(value, comparison=comparison).breaching for value in (0.8, 0.85, 0.9)] == breaching
    assert "accuracy is in ALARM" in reading(0.8, comparison=comparison).describe()


@pytest.mark.parametrize("state", ["OK", "INSUFFICIENT_DATA"])
def test_only_an_alarm_in_alarm_is_breaching(state: str) -> None:
    assert not reading(0.1, state).breaching
    assert reading(0.1, state).describe() == f"the alarm accuracy is {state}"


def test_what_was_not_measured_since_the_deployment_is_said() -> None:
    assert not reading(None).breaching
    assert (
        "deployed at 2026-11-21T10:00:00.000000Z: it speaks of the model before" in reading(None).describe()
    )


@given(st.integers(1, 455 * 86400).map(lambda seconds: timedelta(seconds=seconds)))
def test_a_period_is_one_that_cloudwatch_accepts(span: timedelta) -> None:
    # GetMetricStatistics: at most 1,440 points, and a multiple of what is kept of the oldest moment.
    period = period_for(span)
    assert span / timedelta(seconds=period) <= 1439
    assert period % 60 == 0
    assert period % 300 == 0 or span < timedelta(days=15)
    assert period % 3600 == 0 or span < timedelta(days=63)
