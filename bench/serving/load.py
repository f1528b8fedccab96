"""A load generator in a process of its own: ``python bench/serving/load.py '<JSON of a Load>'``.

It holds keep-alive connections and sends one prepared request again and again. Closed loop: each connection
sends when its answer has come, which finds the capacity. Open loop: requests are due at the times of a
Poisson process whether or not the server keeps up, and a latency counts from when the request was *due*, so
waiting for a free connection or a late timer is in it (no coordinated omission).
It prints one JSON object with an `Outcome`'s members.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httptools
import uvloop

HEADERS = {
    "host": "model.aws.local",
    "user-agent": "AHC/2.0",
    "accept": "*/*",
    "x-amzn-sagemaker-inference-id": "5e0f1a9c-3f0b-4c44-9a0e-0d1f1c2b3a49",
    "x-amzn-sagemaker-custom-attributes": "top_k=3",
}
"""What SageMaker's front sends along."""
SETTLE_SECONDS = 30


@dataclass(frozen=True)
class Load:
    """What is sent to a server.

    ``rate`` 0 is the closed loop of ``requests`` requests; else so many requests are due ``rate`` times a
    second on average.
    """

    port: int
    body: str
    content_type: str
    connections: int
    requests: int
    rate: float = 0.0
    seed: int = 0


@dataclass
class Outcome:
    """What came back; latencies in milliseconds."""

    seconds: float
    requests_per_second: float
    p50: float
    p99: float
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def all_answered(self) -> bool:
        """Whether every request was answered with 200."""
        return set(self.statuses) == {"200"}


def generate(load: Load) -> Outcome:
    """Send the load from a process of its own, and return what came back."""
    text = json.dumps(dataclasses.asdict(load))
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), text], check=True, stdout=subprocess.PIPE, text=True
    )
    return Outcome(**json.loads(done.stdout))


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.due = 0.0
        self.transport: asyncio.Transport
        self.parser: httptools.HttpResponseParser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)

    def send(self, due: float) -> None:
        """Send the request that was due then."""
        self.due = due
        self.transport.write(self.run.request)

    def data_received(self, data: bytes) -> None:
        """Feed the parser."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count the answer."""
        status = self.parser.get_status_code()
        # A parser is good for one answer unless it is told that another follows.
        self.parser = httptools.HttpResponseParser(self)
        self.run.answered(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the run: the servers under test keep connections open."""
        self.run.fail(exc)


class Run:
    """A load on its way."""

    def __init__(self, load: Load) -> None:
        body = Path(load.body).read_bytes()
        lines = {**HEADERS, "content-type": load.content_type, "content-length": str(len(body))}
        head = "POST /invocations HTTP/1.1\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in lines.items()
        )
        self.request = head.encode() + b"\r\n" + body
        self.load = load
        self.idle: deque[Connection] = deque()
        self.late: deque[float] = deque()
        self.left = load.requests
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.ended: asyncio.Future[None]

    async def play(self) -> Outcome:
        """Send everything and wait for the answers."""
        loop = asyncio.get_running_loop()
        self.ended = loop.create_future()
        for _ in range(self.load.connections):
            _, connection = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self.load.port
            )
            self.idle.append(connection)
        begun = time.perf_counter()
        if self.load.rate:
            await self._open_loop(begun)
        else:
            while self.idle and self.left:
                self._send(time.perf_counter())
        async with asyncio.timeout(SETTLE_SECONDS if self.load.rate else None):
            await self.ended
        seconds = time.perf_counter() - begun
        ordered = sorted(self.latencies)
        return Outcome(
            seconds,
            len(ordered) / seconds,
            ordered[len(ordered) // 2] * 1000,
            ordered[int(len(ordered) * 0.99)] * 1000,
            self.statuses,
        )

    async def _open_loop(self, begun: float) -> None:
        dice = random.Random(self.load.seed)
        due = begun
        for _ in range(self.load.requests):
            due += dice.expovariate(self.load.rate)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            if self.idle:
                self._send(due)
            else:
                self.late.append(due)

    def _send(self, due: float) -> None:
        self.left -= 1
        self.idle.popleft().send(due)

    def answered(self, connection: Connection, status: int) -> None:
        """Take an answer, and send what waits for a connection."""
        now = time.perf_counter()
        self.latencies.append(now - connection.due)
        self.statuses[str(status)] = self.statuses.get(str(status), 0) + 1
        if len(self.latencies) == self.load.requests:
            self.ended.set_result(None)
            return
        self.idle.append(connection)
        if self.late:
            self._send(self.late.popleft())
        elif not self.load.rate and self.left:
            self._send(now)

    def fail(self, error: Exception | None) -> None:
        """Give up: a server closed a connection in the middle."""
        if not self.ended.done():
            self.ended.set_exception(error or ConnectionError("the server closed a connection"))


def main() -> int:
    """Play the load that the argument describes."""
    outcome = uvloop.run(Run(Load(**json.loads(sys.argv[1]))).play())
    print(json.dumps(dataclasses.asdict(outcome)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
