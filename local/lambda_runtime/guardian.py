"""Ends the worker processes when the server can no longer do it: it was killed.

Run as a script by :class:`Guardian` with nothing but the standard library. It reads ``+<process id>`` and
``-<process id>`` from standard input; end of file means that the server is gone, however it ended.
A death signal (PR_SET_PDEATHSIG) would not do: it fires when the *thread* that started the process ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


class Guardian:
    """The server's side: starts the process with the first child to watch and tells it of every other."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def watch(self, process_id: int) -> None:
        """End the process group ``process_id`` when this server disappears."""
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._tell(f"+{process_id}\n")

    def forget(self, process_id: int) -> None:
        """Stop watching ``process_id``: it has ended."""
        with self._lock:
            if self._process is not None:
                self._tell(f"-{process_id}\n")

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()

    def stop(self) -> None:
        """End the guardian, and with it whatever is still watched."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def main() -> None:
    """Read until the server is gone, then kill what it has left."""
    watched: set[int] = set()
    for line in sys.stdin:
        number = int(line[1:])
        if line[0] == "+":
            watched.add(number)
        else:
            watched.discard(number)
    for number in watched:
        try:
            os.killpg(number, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
