"""The event history of one execution, in the shapes of GetExecutionHistory."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from local.stepfunctions.errors import ExecutionLimitError

EVENT_LIMIT = 25_000
"""AWS's quota of history events of one Standard execution."""


def now() -> datetime:
    """Return the time of an event: milliseconds, as AWS keeps them."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def iso(moment: datetime) -> str:
    """Return a time as the context object and event payloads write it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def compact(value: Any) -> str:
    """Return JSON as Step Functions writes payloads."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)


def details_name(kind: str) -> str | None:
    """Return the member of HistoryEvent that holds the details of an event type."""
    if kind.endswith("StateEntered"):
        return "stateEnteredEventDetails"
    if kind.endswith("StateExited"):
        return "stateExitedEventDetails"
    if kind.startswith("MapIteration"):
        return f"mapIteration{kind.removeprefix('MapIteration')}EventDetails"
    return f"{kind[0].lower()}{kind[1:]}EventDetails"


class History:
    """The growing list of events; ids start at 1 and never skip."""

    def __init__(
        self, limit: int = EVENT_LIMIT, watch: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self._limit = limit
        self._watch = watch

    def add(self, kind: str, previous: int, details: dict[str, Any] | None = None) -> int:
        """Append an event and return its id.

        Raises
        ------
        ExecutionLimitError
            If only the event that ends the execution may still follow.
        """
        if len(self.events) >= self._limit - 1 and not kind.startswith("Execution"):
            raise ExecutionLimitError(
                f"The execution reached the maximum number of history events ({self._limit})."
            )
        event: dict[str, Any] = {
            "timestamp": now(),
            "type": kind,
            "id": len(self.events) + 1,
            "previousEventId": previous,
        }
        if details is not None:
            event[str(details_name(kind))] = {
                key: value for key, value in details.items() if value is not None
            }
        self.events.append(event)
        if self._watch is not None:
            self._watch(event)
        return len(self.events)
