"""The depth of queues as CloudWatch metrics, so that an alarm on a dead-letter queue goes off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends
from moto.sqs.models import sqs_backends

from local.events.timers import Timers

LOOK_EVERY = 2.0
"""Seconds. SQS publishes every minute; here a changed depth shows at once."""
REPEAT_EVERY = 60.0
"""Seconds after which an unchanged depth is published again, as on AWS."""
_DEPTHS = {
    "ApproximateNumberOfMessagesVisible": "approximate_number_of_messages",
    "ApproximateNumberOfMessagesNotVisible": "approximate_number_of_messages_not_visible",
    "ApproximateNumberOfMessagesDelayed": "approximate_number_of_messages_delayed",
}


class QueueMetrics:
    """Publishes ``AWS/SQS`` depths of the queues that alarms watch."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._published: dict[tuple[str, str, str, str], tuple[float, float]] = {}

    def install(self, timers: Timers) -> None:
        """Look from now on."""
        timers.every(LOOK_EVERY, self.publish)

    def publish(self) -> None:
        """Publish every watched depth that changed or was not published for a minute."""
        for account, backends in list(cloudwatch_backends.items()):
            for region, backend in list(backends.items()):
                for queue_name, metric in _watched(backend):
                    self._publish(account, region, backend, queue_name, metric)

    def _publish(self, account: str, region: str, backend: Any, queue_name: str, metric: str) -> None:
        queue = sqs_backends[account][region].queues.get(queue_name)
        if queue is None:
            return
        depth, now = float(getattr(queue, _DEPTHS[metric])), self._clock()
        place = (account, region, queue_name, metric)
        last, when = self._published.get(place, (-1.0, 0.0))
        if depth == last and now - when < REPEAT_EVERY:
            return
        self._published[place] = (depth, now)
        dimensions = [{"Name": "QueueName", "Value": queue_name}]
        datum = {"MetricName": metric, "Dimensions": dimensions, "Value": depth, "Unit": "Count"}
        backend.put_metric_data("AWS/SQS", [datum])


def _watched(backend: Any) -> set[tuple[str, str]]:
    """Return queue name and metric of every depth that an alarm of ``backend`` watches."""
    found = set()
    for alarm in list(backend.alarms.values()):
        for namespace, metric, dimensions in alarm.watch.keys if alarm.watch else ():
            if (
                namespace == "AWS/SQS"
                and metric in _DEPTHS
                and [name for name, _ in dimensions] == ["QueueName"]
            ):
                found.add((dimensions[0][1], metric))
    return found
