"""Which stretch of time a monitor job looks at, and what it is called."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from truthloop.errors import InvalidEvent
from truthloop.inputs import MonitorInput
from truthloop.names import digest, resource_name
from truthloop.times import hour_prefix, to_iso

PERIODS = {"daily": timedelta(days=1), "weekly": timedelta(days=7)}
LONGEST = timedelta(days=366)
"""Of a window by hand: its captures are looked up hour by hour."""


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


def plan_window(given: MonitorInput, frequency: str, now: datetime, serving_since: datetime | None) -> Window:
    """Return the window that is asked for.

    A scheduled look covers one period before the scheduled time; a look by hand without a window covers one
    period before now. Either begins no earlier than `serving_since`, when the endpoint was last changed:
    what an earlier model predicted says nothing about the one in service. A window given by hand is taken as
    it is.

    Raises
    ------
    InvalidEvent
        When a window by hand is empty, or longer than a year.
    """
    if given.window is None:
        end = given.scheduled_time or now
        start = end - PERIODS[frequency]
        return Window(max(start, serving_since) if serving_since else start, end)
    window = Window(*given.window)
    if window.start >= window.end:
        raise InvalidEvent(f"the window ends at {window.end} and does not start before that")
    if window.end - window.start > LONGEST:
        raise InvalidEvent(
            f"the window is {(window.end - window.start).days} days long; give at most {LONGEST.days}"
        )
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
