"""Servers as processes: started on a free loopback port, pinned, measured and ended."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
CONTAINERS = HERE.parents[1] / "containers"
BENCH_PYTHON = HERE.parents[1] / ".venv-bench" / "bin" / "python"
START_SECONDS = 120


@dataclass(frozen=True)
class Started:
    """A server that answers."""

    port: int
    process: psutil.Process

    def _family(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]

    def cpu_seconds(self) -> float:
        """Return the user and system time of the server's processes so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    def resident_mib(self) -> float:
        """Return the resident memory of the server's processes."""
        return sum(process.memory_info().rss for process in self._family()) / 2**20


def cores() -> tuple[set[int], set[int]]:
    """Return the core of the server and those of the rest; the same where there is only one."""
    every = sorted(os.sched_getaffinity(0))
    return {every[0]}, set(every[1:]) or {every[0]}


@contextmanager
def running(
    command: Callable[[int], list[str]],
    *,
    environment: dict[str, str] | None = None,
    port_variable: str = "",
    pinned: bool = True,
    body: bytes = b"",
    content_type: str = "image/png",
) -> Iterator[Started]:
    """Start the server that the command for a port starts, wait until it answers the body, and end it."""
    port = _free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        use = ",".join(map(str, cores()[0] if pinned else os.sched_getaffinity(0)))
        process = subprocess.Popen(
            [sys.executable, "-c", _PINNED, use, *command(port)],
            cwd=CONTAINERS,
            env={**os.environ, "TMPDIR": scratch, **(environment or {}), port_variable or "_": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started = Started(port, psutil.Process(process.pid))
        try:
            _wait(started, body, content_type)
            yield started
        finally:
            family = started._family() if process.poll() is None else []
            for member in family:
                member.terminate()
            for member in psutil.wait_procs(family, timeout=20)[1]:
                member.kill()


def _free_port() -> int:
    """Return a port below 32,768: the multi-model server takes no other."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no port between 20,000 and 32,000 is free")


_PINNED = (
    "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(','))); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def _wait(server: Started, body: bytes, content_type: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.process.is_running():
        connection = HTTPConnection("127.0.0.1", server.port, timeout=20)
        try:
            connection.request("POST", "/invocations", body, {"Content-Type": content_type})
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
        time.sleep(0.1)
    raise RuntimeError(f"the server {server.process} does not answer on port {server.port}")
