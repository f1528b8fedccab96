"""Work in the background, now or later, on threads of its own.

Not on those of :meth:`LocalAws.submit`: functions run there for minutes, and an alarm must not wait for them.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from local.context import LocalAws

log = logging.getLogger("local.events")

WORKERS = 16


class Timers:
    """Run work after a delay without blocking a worker thread while it waits."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="local-events")
        self._thread = threading.Thread(target=self._run, name="local-timers", daemon=True)
        self._thread.start()
        aws.on_stop(self._stop)

    def soon(self, work: Callable[[], object]) -> None:
        """Run ``work`` in the background now; an exception is logged, never lost."""

        def guarded() -> None:
            try:
                work()
            except Exception:
                if not self._aws.stopping.is_set():
                    log.exception("background work failed: %s", getattr(work, "__qualname__", work))

        if not self._aws.stopping.is_set():
            self._pool.submit(guarded)

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
            self.soon(work)

    def _stop(self) -> None:
        with self._changed:
            self._changed.notify()
        self._thread.join(timeout=2)
        self._pool.shutdown(wait=False, cancel_futures=True)
