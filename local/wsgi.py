"""A threaded WSGI server on the loopback interface that keeps connections open.

werkzeug's own closes each connection after one answer, which costs every AWS call a new connection
and a new thread. Bodies are read and written whole: no operation of the embedded AWS streams.
"""

from __future__ import annotations

import io
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import escape

from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import ThreadedWSGIServer

from local.context import LocalAws

log = logging.getLogger("local.wsgi")
Application = Callable[..., Iterable[bytes]]
_NO_BODY = {204, 304}
_LONGEST_HEADER = 65_536
_MOST_HEADERS = 100


class _Handler(MotoRequestHandler):
    """One connection; each request is read whole, answered whole, in one write."""

    protocol_version = "HTTP/1.1"
    # Nagle's algorithm and the client's delayed acknowledgement would hold every answer for 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1
    timeout = 900

    def parse_request(self) -> bool:
        """Read the request line and the headers; anything unusual is left to the standard library.

        That reads headers with the parser for e-mail, which takes a third of the time of a small request.
        """
        words = self.raw_requestline.decode("iso-8859-1").split()
        if len(words) != 3 or words[2] != "HTTP/1.1":
            return bool(super().parse_request())
        self.requestline = " ".join(words)
        self.command, self.path, self.request_version = words
        if self.path.startswith("//"):  # no address of another host, as in the standard library
            self.path = "/" + self.path.lstrip("/")
        headers = self.headers = self.MessageClass()
        count = 0
        while (line := self.rfile.readline(_LONGEST_HEADER + 1)) not in (b"\r\n", b"\n", b""):
            count += 1
            if len(line) > _LONGEST_HEADER or count > _MOST_HEADERS:
                self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return False
            name, colon, value = line.decode("iso-8859-1").partition(":")
            if not colon or not name or name != name.strip():
                self.send_error(HTTPStatus.BAD_REQUEST, f"Bad header line ({name!r})")
                return False
            headers.set_raw(name, value.strip())
        self.close_connection = headers.get("Connection", "").lower() == "close"
        if headers.get("Expect", "").lower() == "100-continue":
            return bool(self.handle_expect_100())
        return True

    def handle_expect_100(self) -> bool:
        """Ask for the body at once; in the buffer the answer would only go out with the next one."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def run_wsgi(self) -> None:
        """Answer one request."""
        environ = self.make_environ()
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            body = environ["wsgi.input"].read()
            environ.pop("HTTP_TRANSFER_ENCODING")
            environ.pop("wsgi.input_terminated", None)
        else:
            body = self.rfile.read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        started: list[Any] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], _: Any = None
        ) -> Callable[[bytes], None]:
            started[:] = [status, headers]
            return written.append

        written: list[bytes] = []
        try:
            parts = self.server.app(environ, start_response)
            try:
                written.extend(parts)
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except NotImplementedError as error:
            started[:], written[:] = _failure(environ, "501 Not Implemented", "NotImplemented", str(error))
        except Exception as error:
            log.exception("%s %s broke off", self.command, self.path)
            message = f"the embedded AWS failed to answer ({type(error).__name__}: {error}); see its log"
            started[:], written[:] = _failure(
                environ, "500 Internal Server Error", "InternalFailure", message
            )
        self._answer(started[0], started[1], b"".join(written))

    def _answer(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        code, _, message = status.partition(" ")
        self.send_response(int(code), message)
        bodiless = self.command == "HEAD" or int(code) in _NO_BODY
        for name, value in headers:
            # Of a HEAD answer the length is what GET would send; otherwise what is really sent.
            if name.lower() not in ("connection", "transfer-encoding") and (
                bodiless or name.lower() != "content-length"
            ):
                self.send_header(name, value)
        if not bodiless:
            self.send_header("Content-Length", str(len(body)))
        elif not any(name.lower() == "content-length" for name, _ in headers) and int(code) not in _NO_BODY:
            self.send_header("Content-Length", "0")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if not bodiless:
            self.wfile.write(body)
        self.wfile.flush()

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:
        """Do nothing: clients may leave at any time."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Do not write a line for each request."""


def _failure(environ: dict[str, Any], status: str, code: str, message: str) -> tuple[list[Any], list[bytes]]:
    """Return a failure in the form that the caller's protocol can read."""
    form = "form-urlencoded" in environ.get("CONTENT_TYPE", "")
    if form or "/s3/aws4_request" in environ.get("HTTP_AUTHORIZATION", ""):
        error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        text = f"<ErrorResponse>{error}</ErrorResponse>" if form else error
        return [status, [("Content-Type", "text/xml")]], [text.encode()]
    body = json.dumps({"__type": code, "message": message}).encode()
    return [status, [("Content-Type", "application/json"), ("x-amzn-errortype", code)]], [body]


class _Server(ThreadedWSGIServer):
    """Ends without waiting for connections that clients keep open."""

    daemon_threads = True
    block_on_close = False


def serve(aws: LocalAws, listener: socket.socket, application: Application) -> None:
    """Serve ``application`` on ``listener`` until ``aws`` stops."""
    host, port = listener.getsockname()[:2]
    server = _Server(host, port, application, handler=_Handler, fd=listener.fileno())
    # werkzeug has made a descriptor of its own from the one it was given.
    listener.close()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join(5)

    aws.on_stop(stop)
