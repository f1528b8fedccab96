"""When a Wait state ends."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime

from local.stepfunctions.errors import QUERY_EVALUATION, StateError, runtime_error
from local.stepfunctions.frame import Frame
from local.stepfunctions.history import compact

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_LONGEST = 99_999_999


def parse_timestamp(text: object) -> datetime | None:
    """Return the time that an RFC 3339 text names, None for anything else."""
    if not isinstance(text, str) or _TIMESTAMP.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def wait_deadline(frame: Frame) -> float:
    """Return the epoch time at which the Wait state of a frame ends.

    Raises
    ------
    StateError
        If the field holds neither a number of seconds from 0 to 99999999 nor an RFC 3339 timestamp.
    """
    started = time.time()
    state = frame.state
    if "Seconds" in state or "SecondsPath" in state:
        seconds = frame.setting("Seconds")
        if isinstance(seconds, float) and seconds.is_integer():
            seconds = int(seconds)
        if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds <= _LONGEST:
            raise _wrong(frame, "Seconds", seconds, f"an integer from 0 to {_LONGEST}")
        return started + seconds
    text = frame.setting("Timestamp")
    moment = parse_timestamp(text)
    if moment is None:
        raise _wrong(frame, "Timestamp", text, "an RFC 3339 timestamp such as 2026-11-22T11:00:00Z")
    return moment.astimezone(UTC).timestamp()


def _wrong(frame: Frame, name: str, value: object, wanted: str) -> StateError:
    cause = f"The field '{name}' of the Wait state has the value {compact(value)}, which is not {wanted}"
    if frame.jsonata:
        return StateError(QUERY_EVALUATION, cause, location=name, interpreter=True)
    return runtime_error(cause)


async def sleep_until(deadline: float) -> None:
    """Sleep until an epoch time, also across changes of the wall clock."""
    while (rest := deadline - time.time()) > 0:
        await asyncio.sleep(min(rest, 3600))
