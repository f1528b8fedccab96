"""The little HTTP that the runtime interface client speaks, on a socket that is never blocked on.

A general server would need a thread per connection and a hand-over to the invoking thread, twice per call.
Here the invoking thread itself answers its worker.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

READ_SIZE = 1 << 18


@dataclass(frozen=True)
class Request:
    """One request of a worker; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection of a worker to the Runtime API."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.closed = False
        self._buffer = bytearray()

    def read(self) -> Request | None:
        """Take what has arrived; return a request when one is complete, else None."""
        try:
            while data := self.socket.recv(READ_SIZE):
                self._buffer += data
            self.closed = True
        except BlockingIOError:
            return self._parse()
        except ConnectionResetError:
            self.closed = True
        return self._parse()

    def _parse(self) -> Request | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        length = int(headers.get("content-length", "0"))
        start = end + 4
        if len(self._buffer) < start + length:
            return None
        body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        method, path, _ = first.split(" ", 2)
        return Request(method, path, headers, body)

    def respond(self, status: str, headers: dict[str, str], body: bytes) -> None:
        """Send one response, headers and body in one piece.

        Raises
        ------
        OSError
            When the worker is gone.
        """
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1", "replace")
        self.socket.settimeout(10)
        try:
            self.socket.sendall(head + body)
        finally:
            self.socket.setblocking(False)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
