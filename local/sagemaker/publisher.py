"""State change events: published in order by one thread, so that no job waits for a target."""

from __future__ import annotations

import logging
import queue
import threading
from datetime import datetime
from typing import Any

from local import events
from local.context import LocalAws

log = logging.getLogger("local.sagemaker")

SOURCE = "aws.sagemaker"


def millis(moment: datetime) -> int:
    """Return epoch milliseconds: the time format of job and endpoint events."""
    return int(moment.timestamp() * 1000)


def seconds(moment: datetime) -> str:
    """Return ISO 8601 with seconds: the time format of pipeline and model package events."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def with_millis(value: Any) -> Any:
    """Return ``value`` with every datetime in it as epoch milliseconds."""
    return _convert(value, millis)


def with_seconds(value: Any) -> Any:
    """Return ``value`` with every datetime in it as ISO 8601."""
    return _convert(value, seconds)


def _convert(value: Any, convert: Any) -> Any:
    if isinstance(value, datetime):
        return convert(value)
    if isinstance(value, dict):
        return {key: _convert(item, convert) for key, item in value.items()}
    if isinstance(value, list):
        return [_convert(item, convert) for item in value]
    return value


class Publisher:
    """Puts SageMaker's events on the default bus, in the order in which the states changed."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._queue: queue.SimpleQueue[tuple[str, str, list[str], dict[str, Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="sagemaker-events", daemon=True).start()

    def publish(self, region: str, detail_type: str, resources: list[str], detail: dict[str, Any]) -> None:
        """Queue one event."""
        self._queue.put((region, detail_type, resources, detail))

    def _run(self) -> None:
        while True:
            region, detail_type, resources, detail = self._queue.get()
            try:
                events.emit(self._aws, SOURCE, detail_type, resources, detail, region=region)
            except Exception:
                # SageMaker's events are best effort; a lost one must not stop those after it.
                if not self._aws.stopping.is_set():
                    log.exception("event %s for %s was not delivered", detail_type, resources)
