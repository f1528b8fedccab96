"""Dynamic micro-batching: requests that wait at the same time are computed together.

While one batch computes, the next one gathers. So a server under load forms large batches without making
anybody wait for them; an idle one answers at once, unless it is given a budget to wait for company.

Everything but `compute` happens on the event loop, in plain callbacks: a task for each batch and a timer for
each request would cost more than the rest of the server.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class QueueFullError(Exception):
    """As many requests wait as may wait."""


class TooLateError(Exception):
    """The request's time was over before its answer came."""


class BatchFailedError(Exception):
    """The computation of the request's batch failed as a whole."""


class Worker:
    """One thread that runs calls in their order.

    A `ThreadPoolExecutor` would do, but the future that it makes of each call costs as much as the hand-over.
    A call that raised would end the thread, so calls take care of their errors.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have the thread run the call after those before it."""
        self._calls.put((call, arguments))

    def stop(self) -> None:
        """Wait until everything that was submitted has run; nothing more may be."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (next_call := self._calls.get()) is not None:
            call, arguments = next_call
            call(*arguments)


# An object with names would cost each request a fifth of a microsecond.
_Entry: TypeAlias = tuple[Item, "asyncio.Future[Result]", float, float]
"""An item, its answer, its deadline and, where there is a budget, when it arrived."""


class Batcher(Generic[Item, Result]):
    """A queue in front of one worker that computes whole batches. It is made and used on the event loop.

    Parameters
    ----------
    compute
        Maps items to as many results, in their order; a result that is an exception is raised for its item
        alone. It runs on `worker`.
    worker
        Where batches are computed; one thread, since a GPU gains nothing from two batches side by side.
    max_batch
        Items of one batch at most.
    budget
        Seconds that the oldest item may wait for company while the worker is idle; the loop's timers count
        whole milliseconds.
    max_waiting
        Items that may wait; beyond that `submit` refuses, because whoever waits longer than the caller's
        time-out is computed for nobody.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        worker: Worker,
        *,
        max_batch: int,
        budget: float,
        max_waiting: int,
    ) -> None:
        self._compute = compute
        self._worker = worker
        self._max_batch = max_batch
        self._budget = budget
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._computing: list[_Entry[Item, Result]] = []
        self._started = 0.0
        self._next: asyncio.Handle | None = None
        self._next_is_now = False
        self._watch: asyncio.TimerHandle | None = None
        self._watched = math.inf
        self.now = self._loop.time
        """The clock of deadlines."""
        self.failures: list[str] = []
        """Why the newest batches failed, since the last one that did not."""

    @property
    def waiting(self) -> int:
        """How many items wait now."""
        return len(self._waiting)

    @property
    def computing_for(self) -> float:
        """Seconds since the batch that is computed was begun; 0 when none is."""
        return self.now() - self._started if self._computing else 0.0

    def submit(self, item: Item, deadline: float) -> asyncio.Future[Result]:
        """Return a future of the item's result; who cancels it before its batch begins is not computed.

        Parameters
        ----------
        item
            What to compute.
        deadline
            When to give up, by the loop's clock: the future then raises `TooLateError`.

        Raises
        ------
        QueueFullError
            Too many wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise QueueFullError(f"{len(self._waiting)} requests are waiting, which is the limit")
        answer: asyncio.Future[Result] = self._loop.create_future()
        self._waiting.append((item, answer, deadline, self.now() if self._budget else 0.0))
        if deadline < self._watched:
            self._watch_until(deadline)
        if not self._computing and (self._next is None or not self._next_is_now):
            self._plan()
        return answer

    def forget(self) -> None:
        """Let go of the waiting items whose answers nobody wants any more: they hold memory and places."""
        self._waiting = deque(entry for entry in self._waiting if not entry[1].done())

    def _plan(self) -> None:
        """Let the next batch begin when the first item's budget is over, or at once when it is full.

        "At once" is when the loop has read what has arrived: that comes along.
        """
        now = not self._budget or len(self._waiting) >= self._max_batch
        if self._next is not None:
            if not now or self._next_is_now:
                return
            self._next.cancel()
        self._next_is_now = now
        if now:
            self._next = self._loop.call_soon(self._gather, len(self._waiting), False)
        else:
            arrived = self._waiting[0][3]
            self._next = self._loop.call_at(arrived + self._budget, self._begin)

    def _gather(self, seen: int, barren: bool) -> None:
        """Begin after two turns of the loop that brought nobody; the first reads what lies in the sockets.

        While each turn brings somebody, the loop has work at hand, and to wake the worker for a part of it
        costs more than it gains.
        """
        found = len(self._waiting)
        brought_nobody = found <= seen
        if found >= self._max_batch or (barren and brought_nobody):
            self._begin()
        else:
            self._next = self._loop.call_soon(self._gather, found, brought_nobody)

    def _begin(self) -> None:
        """Take the oldest items out, but for those that nobody waits for any more, and compute them."""
        self._next = None
        batch: list[_Entry[Item, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            entry = self._waiting.popleft()
            if not entry[1].done():
                batch.append(entry)
        if not batch:
            return
        self._computing = batch
        self._started = self.now()
        self._worker.submit(self._work, batch)

    def _work(self, batch: list[_Entry[Item, Result]]) -> None:
        """Compute, on the worker's thread."""
        results: Sequence[Result | Exception]
        failure = ""
        try:
            results = self._compute([entry[0] for entry in batch])
            if len(results) != len(batch):
                raise ValueError(f"{len(results)} results for {len(batch)} items")  # noqa: TRY301
        except BaseException as error:  # a panic, too: the requests are told, the thread stays
            log.exception("a batch of %d failed", len(batch))
            failure = f"{type(error).__name__}: {error}"
            results = [BatchFailedError(failure)] * len(batch)
        self._loop.call_soon_threadsafe(self._finish, batch, results, failure)

    def _finish(
        self, batch: list[_Entry[Item, Result]], results: Sequence[Result | Exception], failure: str
    ) -> None:
        self._computing = []
        self.failures = [*self.failures[-9:], failure] if failure else []
        if self._waiting:
            if len(self._waiting) < self._max_batch:
                self._plan()
            else:
                self._begin()  # before the answers go out: the worker need not wait for that
        for (_, answer, _, _), result in zip(batch, results, strict=True):
            if answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _watch_until(self, deadline: float) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._watch = self._loop.call_at(deadline, self._give_up)
        self._watched = deadline

    def _give_up(self) -> None:
        """Fail those whose time is over, and look again when the next one's is: one timer for all."""
        self._watch, self._watched = None, math.inf
        now = self.now()
        later = math.inf
        for _, answer, deadline, _ in (*self._computing, *self._waiting):
            if answer.done():
                continue
            if deadline <= now:
                answer.set_exception(TooLateError("the request's time is over"))
            else:
                later = min(later, deadline)
        self.forget()
        if later < math.inf:
            self._watch_until(later)
