"""The metrics that AWS publishes of functions and queues, and those that functions write into their logs.

Alarms on failed invocations or on messages in a dead-letter queue, and Powertools' metrics, work only if
somebody publishes the numbers: AWS/Lambda, AWS/SQS and the embedded metric format (EMF).
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from local.lambda_runtime import sqs
from local.lambda_runtime.config import FunctionConfig
from local.lambda_runtime.output import LogEvent
from local.lambda_runtime.worker import Report

log = logging.getLogger("local.lambda")

QUIET_SECONDS = 1.0
"""A queue's metrics are published at most this often while it changes; AWS does it every minute."""
REPEAT_SECONDS = 60.0
"""How often the metrics of a queue that is not empty are repeated, so that alarms see them go on."""

Datum = tuple[str, dict[str, Any]]
"""Namespace and one entry of PutMetricData's MetricData."""


class Metrics:
    """Publishes metrics in the background: an invocation does not wait for it."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[str, str, list[Datum]] | None] = queue.SimpleQueue()
        self._changed: set[Any] = set()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._publish, name="lambda-metrics", daemon=True),
            threading.Thread(target=self._watch_queues, name="queue-metrics", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        sqs.observe(self._queue_changed)

    def invoked(self, function: FunctionConfig, report: Report) -> None:
        """Count an invocation, and what it has written in the embedded metric format."""
        data = list(embedded(report.events))
        data.append(_of_function(function, "Invocations", 1.0, "Count"))
        data.append(_of_function(function, "Errors", float(report.failed), "Count"))
        data.append(_of_function(function, "Duration", report.duration_ms, "Milliseconds"))
        self._work.put((function.account_id, function.region, data))

    def throttled(self, function: FunctionConfig) -> None:
        """Count an invocation that found no free concurrency."""
        self._work.put(
            (function.account_id, function.region, [_of_function(function, "Throttles", 1.0, "Count")])
        )

    def _queue_changed(self, changed: Any) -> None:
        with self._lock:
            self._changed.add(changed)

    def _watch_queues(self) -> None:
        watched: dict[Any, float] = {}  # non-empty queues → when they were last published
        while not self._stopping.wait(QUIET_SECONDS):
            with self._lock:
                changed, self._changed = self._changed, set()
            now = time.monotonic()
            due = changed | {item for item, last in watched.items() if now - last >= REPEAT_SECONDS}
            for item in due:
                data, empty = _of_queue(item)
                watched[item] = now
                if empty or not _exists(item):
                    del watched[item]
                self._work.put((item.account_id, item.region, data))

    def _publish(self) -> None:
        from moto.cloudwatch.models import cloudwatch_backends

        while (work := self._work.get()) is not None:
            account, region, data = work
            by_namespace: dict[str, list[dict[str, Any]]] = {}
            for namespace, entry in data:
                by_namespace.setdefault(namespace, []).append(entry)
            for namespace, entries in by_namespace.items():
                try:
                    cloudwatch_backends[account][region].put_metric_data(namespace, entries)
                except Exception:
                    log.exception("cannot publish the metrics of %s: %s", namespace, entries)

    def stop(self) -> None:
        """Publish what is left and end."""
        self._stopping.set()
        self._work.put(None)
        for thread in self._threads:
            thread.join(5)


def embedded(events: list[LogEvent]) -> Iterator[Datum]:
    """Yield what log events in the embedded metric format say (CloudWatch user guide, EMF specification)."""
    for event in events:
        if '"_aws"' not in event.message:
            continue
        try:
            document = json.loads(event.message)
            metadata = document["_aws"]
            stamp = datetime.fromtimestamp(metadata["Timestamp"] / 1000, UTC).replace(tzinfo=None)
            for directive in metadata["CloudWatchMetrics"]:
                yield from _directive(document, directive, stamp)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning(
                "a log event with _aws is no valid embedded metric format (%r): %s", error, event.message
            )


def _directive(document: dict[str, Any], directive: dict[str, Any], stamp: datetime) -> Iterator[Datum]:
    for names in directive.get("Dimensions") or [[]]:
        dimensions = [{"Name": name, "Value": str(document[name])} for name in names]
        for metric in directive["Metrics"]:
            value = document[metric["Name"]]
            yield (
                directive["Namespace"],
                {
                    "MetricName": metric["Name"],
                    "Dimensions": dimensions,
                    "Values": [float(item) for item in (value if isinstance(value, list) else [value])],
                    "Unit": metric.get("Unit", "None"),
                    "Timestamp": stamp,
                },
            )


def _of_function(function: FunctionConfig, name: str, value: float, unit: str) -> Datum:
    return "AWS/Lambda", _datum(name, value, unit, "FunctionName", function.name)


def _of_queue(item: Any) -> tuple[list[Datum], bool]:
    """Return the metrics of a queue, and whether it is empty."""
    with item._messages_lock:
        visible = item.approximate_number_of_messages
        delayed = item.approximate_number_of_messages_delayed
        hidden = item.approximate_number_of_messages_not_visible
    counts = {"Visible": visible, "Delayed": delayed, "NotVisible": hidden}
    data: list[Datum] = [
        (
            "AWS/SQS",
            _datum(f"ApproximateNumberOfMessages{kind}", float(count), "Count", "QueueName", item.name),
        )
        for kind, count in counts.items()
    ]
    return data, not any(counts.values())


def _exists(item: Any) -> bool:
    from moto.sqs.models import sqs_backends

    return sqs_backends[item.account_id][item.region].queues.get(item.name) is item


def _datum(name: str, value: float, unit: str, dimension: str, owner: str) -> dict[str, Any]:
    return {
        "MetricName": name,
        "Dimensions": [{"Name": dimension, "Value": owner}],
        "Values": [value],
        "Unit": unit,
        "Timestamp": datetime.now(UTC).replace(tzinfo=None),
    }
