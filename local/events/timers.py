"""Work that is due later: one thread that hands it to the pool of the embedded AWS when its time comes."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from local.context import LocalAws


class Timers:
    """Run work after a delay without blocking a worker thread while it waits."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._thread = threading.Thread(target=self._run, name="local-timers", daemon=True)
        self._thread.start()
        aws.on_stop(self._stop)

    def after(self, seconds: float, work: Callable[[], object]) -> None:
        """Run ``work`` in the background ``seconds`` from now."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._order), work))
            self._changed.notify()

    def every(self, seconds: float, work: Callable[[], object]) -> None:
        """Run ``work`` again and again, ``seconds`` after its last run ended."""

        def once() -> None:
            try:
                work()
            finally:
                if not self._aws.stopping.is_set():
                    self.after(seconds, once)

        self.after(seconds, once)

    def _run(self) -> None:
        while not self._aws.stopping.is_set():
            with self._changed:
                while not self._heap or self._heap[0][0] > time.monotonic():
                    if self._aws.stopping.is_set():
                        return
                    self._changed.wait(self._heap[0][0] - time.monotonic() if self._heap else None)
                _, _, work = heapq.heappop(self._heap)
            if not self._aws.stopping.is_set():
                self._aws.submit(work)

    def _stop(self) -> None:
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=2)
