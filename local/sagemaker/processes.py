"""Containers as processes: started in a group of their own, logged, stopped, never left behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from local.context import LocalAws
from local.lambda_runtime.guardian import Guardian

NICENESS = 5
"""Jobs give way to the server and to whoever drives it."""

LineHandler = Callable[[list[str]], None]


class Supervisor:
    """Starts containers' processes and makes sure that none outlives the server."""

    def __init__(self, aws: LocalAws) -> None:
        self._groups: set[int] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._guardian = Guardian()
        aws.on_stop(self.close)

    def start(
        self,
        argv: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        on_lines: LineHandler,
        nice: int = NICENESS,
    ) -> ContainerProcess:
        """Start one process group.

        Raises
        ------
        OSError
            The program cannot be executed.
        """
        with self._lock:
            if self._closed:
                raise OSError("the server is stopping")
            child = subprocess.Popen(
                argv,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.add(child.pid)
            self._guardian.watch(child.pid)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PGRP, child.pid, nice)
        return ContainerProcess(child, on_lines, self._forget)

    def close(self) -> None:
        """Kill every group that is left and end the guardian."""
        with self._lock:
            self._closed = True
            left = list(self._groups)
        for group in left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._guardian.stop()

    def _forget(self, group: int) -> None:
        with self._lock:
            if group in self._groups:
                self._groups.discard(group)
                self._guardian.forget(group)


class ContainerProcess:
    """One running container: its main process and whatever that started."""

    def __init__(
        self, child: subprocess.Popen[bytes], on_lines: LineHandler, forget: Callable[[int], None]
    ) -> None:
        self._child = child
        self._on_lines = on_lines
        self._forget = forget
        self._exited = threading.Event()
        self._logged = threading.Event()
        self.pid = child.pid
        threading.Thread(
            target=self._read, args=(child.stdout,), name=f"log-{child.pid}", daemon=True
        ).start()
        threading.Thread(target=self._watch, name=f"wait-{child.pid}", daemon=True).start()

    @property
    def returncode(self) -> int | None:
        """Exit code as Docker reports it (128 + signal), None while running."""
        code = self._child.returncode
        return 128 - code if code is not None and code < 0 else code

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the end and return the exit code, or None when the time was over first."""
        return self.returncode if self._exited.wait(timeout) else None

    def signal(self, number: int) -> None:
        """Signal the main process, as ``docker stop`` does."""
        if not self._exited.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, grace: float) -> int:
        """Ask to end, wait ``grace`` seconds, then kill; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.end_by(time.monotonic() + grace)

    def end_by(self, deadline: float) -> int:
        """Wait until then, by the monotonic clock, and kill; return the exit code."""
        code = self.wait(max(0.0, deadline - time.monotonic()))
        if code is None:
            self._kill_group()
            code = self.wait(10)
        return 137 if code is None else code

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _watch(self) -> None:
        # WNOWAIT keeps the leader's pid reserved until its group is gone: no other gets the number.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._kill_group()
        self._child.wait()
        self._forget(self.pid)
        self._logged.wait(5)
        self._exited.set()

    def _read(self, stream: IO[bytes]) -> None:
        rest = b""
        with stream:
            while True:
                readable, _, _ = select.select([stream], [], [], 0.5)
                if not readable:
                    continue
                chunk = os.read(stream.fileno(), 65536)
                if not chunk:
                    break
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > 200_000:
                    lines, rest = [*lines, rest], b""
                if lines:
                    self._on_lines([line.decode("utf-8", "replace").rstrip("\r") for line in lines])
        if rest:
            self._on_lines([rest.decode("utf-8", "replace")])
        self._logged.set()
