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
        self._pipe = -1
        self._lock = threading.Lock()

    def watch(self, process_id: int) -> None:
        """End the process group ``process_id`` when this server disappears."""
        with self._lock:
            if self._process is None:
                reader, self._pipe = os.pipe()
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__],
                    stdin=reader,
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                )
                os.close(reader)
            os.write(self._pipe, f"+{process_id}\n".encode())

    def forget(self, process_id: int) -> None:
        """Stop watching ``process_id``: it has ended."""
        with self._lock:
            if self._process is not None:
                os.write(self._pipe, f"-{process_id}\n".encode())

    def stop(self) -> None:
        """End the guardian, and with it whatever is still watched."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            os.close(self._pipe)
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
