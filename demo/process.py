"""The embedded AWS as a child process: started, watched, ended, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from demo.errors import LocalAwsError, PortInUseError

START_SECONDS = 60.0
"""A cold start on a busy machine takes about ten seconds; after this it is not coming."""

STOP_SECONDS = 20.0
"""How long the embedded AWS may take to end its own processes before they are killed."""

ROOT = Path(__file__).resolve().parents[1]


def require_free(port: int) -> None:
    """Raise :class:`PortInUseError` if somebody listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise PortInUseError(
                f"port {port} is in use by another program: stop it, or choose another port with "
                f"--port or PORT=, or give none and the demo takes a free one"
            )


class LocalAwsProcess:
    """``python -m local --no-deploy`` for the time of a ``with`` block.

    Parameters
    ----------
    port
        Where it listens, on the loopback interface only.
    log
        File that gets everything it prints.
    """

    def __init__(self, port: int, log: Path) -> None:
        self.port = port
        self.endpoint = f"http://localhost:{port}"
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        require_free(self.port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        options = ["--no-deploy", "--port", str(self.port), "--end-with-stdin"]
        with self.log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the demo alone, which ends its child in order.
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "local", *options],
                cwd=ROOT,
                # A pipe that nobody writes to: it closes with the demo, even if that is killed.
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            self.require_alive()
            if "ready" in self.log.read_text(errors="replace").split("\n"):
                return
            time.sleep(0.05)
        raise LocalAwsError(
            f"the embedded AWS did not become ready within {START_SECONDS:.0f} s", self.last_lines()
        )

    def require_alive(self) -> None:
        """Raise :class:`LocalAwsError` with its last words if the process has ended."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise LocalAwsError(
                f"the embedded AWS (python -m local) ended by itself with exit code {code}", self.last_lines()
            )

    def last_lines(self, count: int = 20) -> list[str]:
        """Return the end of its log."""
        with self.log.open(errors="replace") as lines:
            return [line.rstrip("\n") for line in deque(lines, maxlen=count)]

    def stop(self) -> None:
        """End the process and everything it started; returns when all of it is gone."""
        process = self._process
        if process is None:
            return
        self._process = None
        family = _family(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdin is not None:
            process.stdin.close()
        _end(family)


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end(processes: list[psutil.Process]) -> None:
    """Give stragglers two seconds, then kill what is left."""
    _, alive = psutil.wait_procs(processes, timeout=2)
    for process in alive:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=2)


class MemoryMeter(threading.Thread):
    """Samples the memory of this process and all its descendants together.

    The measure is the proportional set size (a page shared by n processes counts 1/n for each), which
    adds up to what the machine really gives; where the kernel does not tell it, the resident set size.
    """

    def __init__(self, interval: float = 0.5) -> None:
        super().__init__(name="memory-meter", daemon=True)
        self.interval = interval
        self.peak_bytes = 0
        self.peak_at = 0.0
        self.samples: list[tuple[float, int]] = []
        self.measure = "PSS" if Path(f"/proc/{os.getpid()}/smaps_rollup").exists() else "RSS"
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until :meth:`stop`."""
        while not self._done.wait(self.interval):
            self.sample()

    def sample(self) -> None:
        """Take one sample now."""
        me = psutil.Process()
        total = sum(memory_of(process) for process in [me, *me.children(recursive=True)])
        now = time.time()
        self.samples.append((now, total))
        if total > self.peak_bytes:
            self.peak_bytes, self.peak_at = total, now

    def stop(self) -> None:
        """End the sampling."""
        self._done.set()
        self.join()


def memory_of(process: psutil.Process) -> int:
    """Return the memory of one process in bytes, 0 if it has just ended."""
    try:
        with open(f"/proc/{process.pid}/smaps_rollup") as lines:
            # A process that is just ending has no such line.
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    except OSError:
        try:
            return int(process.memory_info().rss)
        except psutil.Error:
            return 0
