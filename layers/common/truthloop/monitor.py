"""Which stretch of time a monitor job looks at, and what it is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from truthloop.errors import InvalidEvent
from truthloop.names import digest, resource_name
from truthloop.times import from_iso, hour_prefix, to_iso

PERIODS = {"daily": timedelta(days=1), "weekly": timedelta(days=7)}


@dataclass(frozen=True)
class Window:
    """The captured predictions from `start` (inclusive) to `end` (exclusive)."""

    start: datetime
    end: datetime

    def hours(self) -> Iterator[str]:
        """Yield the ``yyyy/mm/dd/hh`` of every hour that the window touches."""
        hour = self.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        while hour < self.end:
            yield hour_prefix(hour)
            hour += timedelta(hours=1)


def plan_window(
    event: Mapping[str, Any], frequency: str, now: datetime, serving_since: datetime | None
) -> Window:
    """Return the window that `event` asks for.

    A scheduled look covers one period before the scheduled time; a look by hand without a window covers one
    period before now. Either begins no earlier than `serving_since`, when the endpoint was last changed:
    what an earlier model predicted says nothing about the one in service. A window given by hand is taken as
    it is.

    Raises
    ------
    InvalidEvent
        When a time cannot be read, only one end is given, or the window is empty.
    """
    try:
        if "start" in event or "end" in event:
            window = Window(from_iso(str(event["start"])), from_iso(str(event["end"])))
        else:
            given = event.get("scheduledTime")
            end = from_iso(str(given)) if given else now
            start = end - PERIODS[frequency]
            window = Window(max(start, serving_since) if serving_since else start, end)
    except (KeyError, ValueError) as error:
        raise InvalidEvent(f"the window needs start and end as ISO 8601 times: {error!r}") from error
    if "start" in event and window.start >= window.end:
        raise InvalidEvent(f"the window ends at {window.end} and does not start before that")
    return window


def job_name(endpoint_name: str, window: Window) -> str:
    """Name the job: the same window of the same endpoint is the same job."""
    return resource_name(
        endpoint_name, "monitor", digest(endpoint_name, to_iso(window.start), to_iso(window.end))[:12]
    )


def captures_of(keys: Iterable[str], window: Window) -> list[str]:
    """Keep the ``capture/<endpoint>/<variant>/yyyy/mm/dd/hh/<file>`` whose hour the window touches."""
    hours = set(window.hours())
    return [key for key in keys if "/".join(key.split("/")[3:7]) in hours]
