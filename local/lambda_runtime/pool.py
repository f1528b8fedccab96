"""Which workers exist, who uses them, and when they end."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from local.lambda_runtime.config import FunctionConfig
from local.lambda_runtime.errors import TooManyRequestsError
from local.lambda_runtime.settings import Settings
from local.lambda_runtime.worker import Worker

log = logging.getLogger("local.lambda")

SLOT_WAIT_SECONDS = 30.0
"""How long an invocation waits for one of the machine's worker slots before it is throttled."""


class Concurrency:
    """Counts executions as AWS does: reserved per function, the rest shared by the account."""

    def __init__(self, account_limit: int) -> None:
        self._limit = account_limit
        self._running: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def claim(self, function_name: str, reserved: int | None, reserved_elsewhere: int) -> Iterator[None]:
        """Hold one execution of ``function_name``.

        Raises
        ------
        TooManyRequestsError
            When the reservation, or what the reservations of others leave of the account, is used up.
        """
        with self._lock:
            if reserved is not None:
                if self._running[function_name] >= reserved:
                    raise TooManyRequestsError("ReservedFunctionConcurrentInvocationLimitExceeded")
            elif self._running.total() >= self._limit - reserved_elsewhere:
                raise TooManyRequestsError("ConcurrentInvocationLimitExceeded")
            self._running[function_name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[function_name] -= 1


class WorkerPool:
    """Keeps idle workers warm, within bounds, and starts others.

    Parameters
    ----------
    settings
        The bounds.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[Worker] = []  # the longest unused first
        self._busy: set[Worker] = set()
        self._current: dict[str, str] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._slots = threading.BoundedSemaphore(settings.max_running)
        self._stopped = False
        self._reaper = threading.Thread(target=self._reap, name="lambda-reaper", daemon=True)
        self._reaper.start()

    @contextmanager
    def worker(self, function: FunctionConfig, start: Callable[[], Worker]) -> Iterator[Worker]:
        """Lend a worker of exactly this configuration, from ``start`` if none is idle.

        Idle workers of older configurations are retired.

        Raises
        ------
        TooManyRequestsError
            When no slot of the machine becomes free in time, or the server is ending.
        """
        if not self._slots.acquire(timeout=SLOT_WAIT_SECONDS):
            raise TooManyRequestsError("ConcurrentInvocationLimitExceeded")
        try:
            worker = self._take(function) or start()
            with self._lock:
                stopped = self._stopped
                self._busy.add(worker)
            try:
                if stopped:
                    raise TooManyRequestsError("ServerStopping")
                yield worker
            finally:
                self._give_back(worker)
        finally:
            self._slots.release()

    def _take(self, function: FunctionConfig) -> Worker | None:
        fingerprint = function.fingerprint
        with self._lock:
            self._current[function.arn] = fingerprint
            outdated = [
                w
                for w in self._idle
                if w.function.arn == function.arn and w.function.fingerprint != fingerprint
            ]
            dead: list[Worker] = []
            taken = None
            for worker in reversed(self._idle):  # the warmest first, so that the others can be reaped
                if worker.function.fingerprint == fingerprint:
                    if worker.alive:
                        taken = worker
                        break
                    dead.append(worker)
            gone = {*outdated, *dead}
            self._idle = [w for w in self._idle if w is not taken and w not in gone]
        for worker in gone:
            worker.close()
        return taken

    def _give_back(self, worker: Worker) -> None:
        surplus: list[Worker] = []
        with self._lock:
            self._busy.discard(worker)
            wanted = self._current.get(worker.function.arn) == worker.function.fingerprint
            if self._stopped or not wanted or not worker.alive:
                surplus.append(worker)
            else:
                worker.idle_since = time.monotonic()
                self._idle.append(worker)
                while len(self._idle) > self._settings.max_idle:
                    surplus.append(self._idle.pop(0))
                self._changed.notify()
        for other in surplus:
            other.close()

    def retire(self, function_name: str, region: str) -> None:
        """End the function's idle workers now and its busy ones when they have finished."""
        with self._lock:
            mine = [w for w in self._idle if (w.function.name, w.function.region) == (function_name, region)]
            self._idle = [w for w in self._idle if w not in mine]
            for worker in [*mine, *self._busy]:
                if (worker.function.name, worker.function.region) == (function_name, region):
                    self._current.pop(worker.function.arn, None)
        for worker in mine:
            worker.close()

    def _reap(self) -> None:
        while True:
            with self._lock:
                if self._stopped:
                    return
                horizon = time.monotonic() - self._settings.idle_seconds
                expired = [w for w in self._idle if w.idle_since <= horizon]
                self._idle = self._idle[len(expired) :]
                if not expired:
                    oldest = self._idle[0].idle_since if self._idle else None
                    self._changed.wait(None if oldest is None else max(0.01, oldest - horizon))
            for worker in expired:
                worker.close()

    def stop(self) -> None:
        """End every worker."""
        with self._lock:
            self._stopped = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
            self._changed.notify()
        for worker in idle:
            worker.close()
        for worker in busy:
            worker.kill()
        self._reaper.join(5)
