"""Dynamic micro-batching: requests that wait at the same time are computed together.

While one batch computes, the next one gathers. So a server under load forms large batches without making
anybody wait for them; an idle one answers at once, unless it is given a budget to wait for company.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """As many requests wait as may wait."""


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[Item, Result]):
    """A queue in front of one worker that computes whole batches.

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
        Seconds that the oldest item may wait for company while the worker is idle.
    max_waiting
        Items that may wait; beyond that `submit` refuses, because whoever waits longer than the caller's
        time-out is computed for nobody.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        worker: Executor,
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
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._full = asyncio.Event()
        self.batches = 0
        self.items = 0

    @property
    def waiting(self) -> int:
        """How many items wait now."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Return the item's result.

        Raises
        ------
        QueueFullError
            Too many wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise QueueFullError(f"{len(self._waiting)} requests are waiting, which is the limit")
        entry: _Waiting[Item, Result] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if len(self._waiting) >= self._max_batch:
            self._full.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await entry.answer

    async def _run(self) -> None:
        """Compute batches until nothing waits."""
        try:
            while self._waiting:
                await self._gather()
                if batch := self._take():
                    await self._answer(batch)
        finally:
            # Nothing is awaited between the last look at the queue and this line: no item is left behind.
            self._runner = None

    async def _gather(self) -> None:
        """Let the oldest item's budget pass, or a full batch come together."""
        left = self._waiting[0].arrived + self._budget - time.monotonic()
        if left <= 0 or len(self._waiting) >= self._max_batch:
            return
        self._full.clear()
        try:
            async with asyncio.timeout(left):
                await self._full.wait()
        except TimeoutError:
            return

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Take the oldest items out; those whose client has gone are not computed."""
        batch: list[_Waiting[Item, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            entry = self._waiting.popleft()
            if not entry.answer.done():
                batch.append(entry)
        return batch

    async def _answer(self, batch: list[_Waiting[Item, Result]]) -> None:
        items = [entry.item for entry in batch]
        self.batches += 1
        self.items += len(items)
        results: Sequence[Result | Exception]
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._worker, self._compute, items)
        except Exception as error:  # each of the batch's requests is told
            results = [error] * len(batch)
        for entry, result in zip(batch, results, strict=True):
            if entry.answer.done():
                continue
            if isinstance(result, Exception):
                entry.answer.set_exception(result)
            else:
                entry.answer.set_result(result)
