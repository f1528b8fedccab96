"""Activities: tasks that workers fetch with GetActivityTask."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from dataclasses import dataclass


@dataclass
class _Offer:
    token: str
    text: str
    loop: asyncio.AbstractEventLoop
    taken: asyncio.Future[str | None]


class Activities:
    """The waiting tasks of every activity, oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[_Offer]] = defaultdict(deque)
        self._changed = threading.Condition()

    async def offer(self, arn: str, token: str, text: str) -> str | None:
        """Wait until a worker takes the task, and return the worker's name."""
        loop = asyncio.get_running_loop()
        offer = _Offer(token, text, loop, loop.create_future())
        with self._changed:
            self._waiting[arn].append(offer)
            self._changed.notify_all()
        try:
            return await offer.taken
        finally:
            with self._changed:
                if offer in self._waiting[arn]:
                    self._waiting[arn].remove(offer)

    def take(self, arn: str, worker: str | None, timeout: float) -> tuple[str, str] | None:
        """Return token and input of the oldest task, None if there is none within the timeout."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting[arn], timeout):
                return None
            offer = self._waiting[arn].popleft()

        def accept() -> None:
            if not offer.taken.done():
                offer.taken.set_result(worker)

        offer.loop.call_soon_threadsafe(accept)
        return offer.token, offer.text
