"""CloudWatch alarms, and what their metric was since a moment."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from truthloop.aws.calls import translated
from truthloop.retraining.alarm import IN_ALARM, AlarmReading, Measurement

_INSTANT = timedelta(seconds=1)  # CloudWatch takes no shorter span
_MOST_POINTS = 1440  # of one GetMetricStatistics
_GRANULARITY = ((timedelta(days=15), 60), (timedelta(days=63), 300))
"""CloudWatch keeps data points of a minute for 15 days, of five for 63, then of an hour: a period must be a
multiple of what is kept of the oldest moment asked for."""


class CloudWatchAlarms:
    """Implements ``ports.Alarms``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, name: str, since: datetime, now: datetime) -> AlarmReading | None:
        """Read an alarm, and the newest data point of its metric since `since`; None when there is none."""
        with translated():
            answer = self._client.describe_alarms(AlarmNames=[name], AlarmTypes=["MetricAlarm"])
        alarm = next(iter(answer["MetricAlarms"]), None)
        if alarm is None:
            return None
        state = str(alarm["StateValue"])
        return AlarmReading(
            name=name,
            state=state,
            comparison=str(alarm["ComparisonOperator"]),
            threshold=float(alarm.get("Threshold") or 0.0),
            since=since,
            newest=self._newest(alarm, since, now) if state == IN_ALARM and now - since > _INSTANT else None,
        )

    def _newest(self, alarm: Mapping[str, Any], since: datetime, now: datetime) -> Measurement | None:
        if not alarm.get("Statistic"):
            return None  # metric math or a percentile: there is no single metric to ask for
        statistic = str(alarm["Statistic"])
        with translated():
            answer = self._client.get_metric_statistics(
                Namespace=alarm["Namespace"],
                MetricName=alarm["MetricName"],
                Dimensions=alarm.get("Dimensions") or [],
                StartTime=since,
                EndTime=now,
                Period=period_for(now - since),
                Statistics=[statistic],
            )
        # CloudWatch rounds the start down to a whole period: the first point may be of the model before.
        points = [
            Measurement(float(point[statistic]), point["Timestamp"])
            for point in answer["Datapoints"]
            if point["Timestamp"] >= since
        ]
        return max(points, key=lambda point: point.at, default=None)


def period_for(span: timedelta) -> int:
    """Return the shortest period, in seconds, that GetMetricStatistics accepts for a span until now."""
    grain = next((seconds for limit, seconds in _GRANULARITY if span < limit), 3600)
    # The start is rounded down to a whole period: one more point than the span has.
    shortest = span.total_seconds() / (_MOST_POINTS - 1)
    return max(1, -int(-shortest // grain)) * grain
