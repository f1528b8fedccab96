"""Virtual time: an event loop whose sleeps take none, and the clock that they move."""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta


class Stuck(Exception):  # noqa: N818 - it says what happened
    """Nothing is scheduled and somebody still waits."""


class Clock:
    """The time that the functions, the state machines and the simulated services share."""

    def __init__(self, start: datetime) -> None:
        self._start = start
        self.seconds = 0.0

    def now(self) -> datetime:
        """Return the virtual present."""
        return self._start + timedelta(seconds=self.seconds)

    def stamp(self) -> datetime:
        """Return the present in milliseconds, as Step Functions keeps times."""
        moment = self.now().astimezone(UTC)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def time(self) -> float:
        """Stand in for ``time.time``."""
        return self.now().timestamp()

    def pass_by(self, seconds: float) -> None:
        """Let time pass while somebody works."""
        self.seconds += seconds


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise Stuck("every task waits for another")
        if not ready and timeout and timeout > 0:
            self._clock.pass_by(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on a virtual clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Selector(clock))
        self._clock = clock

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._clock.seconds
