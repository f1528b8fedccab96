"""What a worker writes: lines on its output, and frames of the runtime interface client's logger."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

FRAME_HEADER = 16
READ_SIZE = 1 << 16


@dataclass(frozen=True)
class LogEvent:
    """One event of a log stream; ``timestamp`` in milliseconds since the epoch."""

    timestamp: int
    message: str


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class LineReader:
    """Reads a worker's standard output and error: one event per line."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.ended = False
        self._rest = b""

    def read(self) -> list[LogEvent]:
        """Return the complete lines that have arrived."""
        data, self.ended = _read_available(self.descriptor)
        *lines, self._rest = (self._rest + data).split(b"\n")
        stamp = now_ms()
        return [LogEvent(stamp, line.decode("utf-8", "replace") + "\n") for line in lines]

    def flush(self) -> list[LogEvent]:
        """Return what was written without a newline, at the end of an invocation."""
        rest, self._rest = self._rest, b""
        return [LogEvent(now_ms(), rest.decode("utf-8", "replace"))] if rest else []


class FrameReader:
    """Reads the telemetry frames: 4 bytes type, 4 length, 8 microseconds, then a message of any shape."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.ended = False
        self._buffer = bytearray()

    def read(self) -> list[LogEvent]:
        """Return the complete frames that have arrived."""
        data, self.ended = _read_available(self.descriptor)
        self._buffer += data
        events = []
        while len(self._buffer) >= FRAME_HEADER:
            length = int.from_bytes(self._buffer[4:8], "big")
            if len(self._buffer) < FRAME_HEADER + length:
                break
            stamp = int.from_bytes(self._buffer[8:16], "big") // 1000
            message = self._buffer[FRAME_HEADER : FRAME_HEADER + length].decode("utf-8", "replace")
            del self._buffer[: FRAME_HEADER + length]
            events.append(LogEvent(stamp, message if message.endswith("\n") else message + "\n"))
        return events


def _read_available(descriptor: int) -> tuple[bytes, bool]:
    """Return what can be read without waiting, and whether the other side has closed."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, READ_SIZE)
        except BlockingIOError:
            return b"".join(parts), False
        if not part:
            return b"".join(parts), True
        parts.append(part)
