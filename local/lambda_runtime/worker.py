"""One worker process and the conversation with it.

The process is the unmodified runtime interface client, ``python -m awslambdaric <handler>``. Its Runtime API
is a listening socket of its own, which the invoking thread serves (see :mod:`local.lambda_runtime.http`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from local.lambda_runtime.config import FunctionConfig
from local.lambda_runtime.guardian import Guardian
from local.lambda_runtime.http import Connection, Request
from local.lambda_runtime.output import FrameReader, LineReader, LogEvent, now_ms

API = "/2018-06-01/runtime"
MAX_RESPONSE = 6 * 1024 * 1024
RESPONSE = re.compile(rf"{API}/invocation/(?P<id>[^/]+)/(?P<kind>response|error)")


class WorkerGoneError(Exception):
    """The worker ended while it was idle: the invocation has not begun and another worker can take it."""


@dataclass(frozen=True)
class Invocation:
    """One event on its way to a worker."""

    request_id: str
    payload: bytes
    function_arn: str
    trace_id: str
    client_context: str = ""


@dataclass
class Report:
    """How an invocation ended.

    Attributes
    ----------
    payload
        The handler's result, or the error document.
    failed
        Whether the function failed: an exception, an exit, a timeout.
    status
        ``success``, ``error`` or ``timeout``, as the platform's log says it.
    duration_ms, init_ms
        The handler's time, and the init phase's if this invocation was cold.
    """

    payload: bytes
    failed: bool
    status: str
    duration_ms: float
    init_ms: float | None
    max_memory_mb: int
    events: list[LogEvent] = field(default_factory=list)


class _Ended(Exception):  # noqa: N818 - it is control flow: the process has ended
    """The worker process has ended."""


class _TimedOut(Exception):  # noqa: N818 - it is control flow: the deadline has passed
    """The deadline has passed."""


class Worker:
    """A worker process of one function.

    Parameters
    ----------
    function
        What it runs.
    interpreter
        Python executable.
    task_root, layer_root
        The unpacked code and merged layers.
    environment
        Everything that depends on the server: endpoint and credentials.
    guardian
        Is told of the process, so that it never outlives the server.
    """

    def __init__(
        self,
        function: FunctionConfig,
        interpreter: str,
        task_root: Path,
        layer_root: Path | None,
        environment: dict[str, str],
        guardian: Guardian,
        scratch: Path,
    ) -> None:
        self.function = function
        self.idle_since = 0.0
        self.init_ms: float | None = None
        self.log_stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid.uuid4().hex}"
        self._guardian = guardian
        self._next: Connection | None = None
        self._connections: set[Connection] = set()
        self._closed = False
        self._scratch = Path(tempfile.mkdtemp(prefix="tmp-", dir=scratch))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        out_read, out_write = os.pipe()
        log_read, log_write = os.pipe()
        self._lines, self._frames = LineReader(out_read), FrameReader(log_read)
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [interpreter, "-m", "awslambdaric", function.handler],
                cwd=task_root,
                env=self._environment(task_root, layer_root, environment, log_write),
                stdin=subprocess.DEVNULL,
                stdout=out_write,
                stderr=out_write,
                pass_fds=(log_write,),
                start_new_session=True,
            )
        finally:
            os.close(out_write)
            os.close(log_write)
        guardian.watch(self._process.pid)
        self._ended = os.pidfd_open(self._process.pid)
        self._selector = selectors.DefaultSelector()
        for source in (self._listener, self._lines, self._frames, self._ended):
            descriptor = source.descriptor if isinstance(source, (LineReader, FrameReader)) else source
            self._selector.register(descriptor, selectors.EVENT_READ, source)

    def _environment(
        self, task_root: Path, layer_root: Path | None, server: dict[str, str], log_descriptor: int
    ) -> dict[str, str]:
        """Lambda's environment and nothing of the host's but PATH; HOME is empty, so no ~/.aws is read."""
        function = self.function
        own = dict(function.environment)
        path, python_path = [os.environ.get("PATH", os.defpath)], [own.pop("PYTHONPATH", "")]
        libraries = []
        if layer_root is not None:
            path.insert(0, str(layer_root / "bin"))
            packages = layer_root / "python"
            python_path += [
                str(packages / f"lib/python{function.python_version}/site-packages"),
                str(packages),
            ]
            libraries.append(str(layer_root / "lib"))
        address = self._listener.getsockname()
        environment = {
            "PATH": os.pathsep.join(path),
            "LD_LIBRARY_PATH": os.pathsep.join([*libraries, str(task_root), str(task_root / "lib")]),
            "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
            "PYTHONNOUSERSITE": "1",
            "HOME": str(self._scratch),
            "TMPDIR": str(self._scratch),
            "LANG": "en_US.UTF-8",
            "PYTHONUTF8": "1",  # the host may lack that locale
            "TZ": ":UTC",
            "LAMBDA_TASK_ROOT": str(task_root),
            "LAMBDA_RUNTIME_DIR": "/var/runtime",
            "_HANDLER": function.handler,
            "_LAMBDA_TELEMETRY_LOG_FD": str(log_descriptor),
            "AWS_LAMBDA_RUNTIME_API": f"{address[0]}:{address[1]}",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": function.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
            "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
            "AWS_LAMBDA_LOG_STREAM_NAME": self.log_stream,
            "AWS_LAMBDA_LOG_FORMAT": function.log_format,
            "AWS_REGION": function.region,
            "AWS_DEFAULT_REGION": function.region,
            "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        }
        if function.application_log_level:
            environment["AWS_LAMBDA_LOG_LEVEL"] = function.application_log_level
        return environment | server | own

    @property
    def process_id(self) -> int:
        """The worker's process id, which is also its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return not self._closed and self._process.poll() is None

    def invoke(self, call: Invocation, timeout: float, init_timeout: float) -> Report:
        """Run one invocation to its end. Only a worker whose report has not failed fatally can be used again.

        Raises
        ------
        WorkerGoneError
            When the worker had ended before it could take the event.
        """
        cold = self.init_ms is None
        events: list[LogEvent] = []
        if self._next is None:
            try:
                self._await_next(time.monotonic() + (init_timeout if cold else timeout), events)
            except (_Ended, _TimedOut) as reason:
                if not cold:
                    raise WorkerGoneError from reason
                return self._init_failure(call, reason, events, init_timeout)
        if self._next is None:
            return self._init_error_report(call, self._init_error or b"{}", events)
        waiting, self._next = self._next, None
        begun = time.monotonic()
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": call.request_id,
            "Lambda-Runtime-Deadline-Ms": str(now_ms() + int(timeout * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": call.function_arn,
            "Lambda-Runtime-Trace-Id": call.trace_id,
        }
        if call.client_context:
            headers["Lambda-Runtime-Client-Context"] = call.client_context
        try:
            waiting.respond("200 OK", headers, call.payload)
        except OSError as error:
            raise WorkerGoneError from error
        try:
            payload, failed = self._await_response(call.request_id, begun + timeout, events)
            status = "error" if failed else "success"
        except _TimedOut:
            payload, failed, status = _timeout_document(call.request_id, timeout), True, "timeout"
        except _Ended:
            payload, failed, status = self._exit_document(call.request_id), True, "error"
        duration = (time.monotonic() - begun) * 1000
        if status == "timeout":
            duration = timeout * 1000
            stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
            events.append(
                LogEvent(
                    now_ms(), f"{stamp}Z {call.request_id} Task timed out after {timeout:.2f} seconds\n\n"
                )
            )
        memory = self._peak_memory()
        if status == "timeout":
            self.kill()
        events += self._drain()
        return Report(payload, failed, status, duration, self.init_ms if cold else None, memory, events)

    # -- the init phase ------------------------------------------------------------------------------------

    _init_error: bytes | None = None

    def _await_next(self, deadline: float, events: list[LogEvent]) -> None:
        """Wait until the worker asks for an event, or reports that it cannot be initialised."""
        while self._next is None and self._init_error is None:
            connection, request = self._await_request(deadline, events)
            if request.method == "GET" and request.path == f"{API}/invocation/next":
                self._next = connection
            elif request.path == f"{API}/init/error":
                self._init_error = request.body
                _accept(connection)
            else:
                _reject(connection, request)
        if self.init_ms is None:
            self.init_ms = (time.monotonic() - self._started) * 1000

    def _init_failure(
        self, call: Invocation, reason: Exception, events: list[LogEvent], init_timeout: float
    ) -> Report:
        self.init_ms = (time.monotonic() - self._started) * 1000
        timed_out = isinstance(reason, _TimedOut)
        if timed_out:
            payload = _timeout_document(call.request_id, init_timeout)
            message = f"INIT_REPORT Init Duration: {self.init_ms:.2f} ms\tPhase: init\tStatus: timeout\n"
        else:
            payload = self._exit_document(call.request_id)
            message = f"INIT_REPORT Init Duration: {self.init_ms:.2f} ms\tPhase: init\tStatus: error\t"
            message += "Error Type: Runtime.ExitError\n"
        events.append(LogEvent(now_ms(), message))
        memory = self._peak_memory()
        self.kill()
        events += self._drain()
        status = "timeout" if timed_out else "error"
        return Report(payload, True, status, 0.0, self.init_ms, memory, events)

    def _init_error_report(self, call: Invocation, error: bytes, events: list[LogEvent]) -> Report:
        document = json.loads(error) | {"requestId": call.request_id}
        memory = self._peak_memory()
        with contextlib.suppress(_TimedOut, _Ended):
            self._await_request(time.monotonic() + 2, events)  # it exits by itself: take its last words
        self.kill()
        events += self._drain()
        message = f"INIT_REPORT Init Duration: {self.init_ms:.2f} ms\tPhase: init\tStatus: error\t"
        events.append(LogEvent(now_ms(), f"{message}Error Type: {document.get('errorType', '')}\n"))
        return Report(json.dumps(document).encode(), True, "error", 0.0, self.init_ms, memory, events)

    # -- the conversation ----------------------------------------------------------------------------------

    def _await_response(self, request_id: str, deadline: float, events: list[LogEvent]) -> tuple[bytes, bool]:
        while True:
            connection, request = self._await_request(deadline, events)
            match = RESPONSE.fullmatch(request.path)
            if request.method != "POST" or match is None or match["id"] != request_id:
                _reject(connection, request)
                continue
            if len(request.body) > MAX_RESPONSE:
                connection.respond("413 Payload Too Large", {}, b"")
                return _too_large_document(len(request.body)), True
            _accept(connection)
            return request.body, match["kind"] == "error"

    def _await_request(self, deadline: float, events: list[LogEvent]) -> tuple[Connection, Request]:
        """Serve the sockets and pipes until a request is complete.

        Raises
        ------
        _TimedOut, _Ended
            When the deadline passes or the process ends first.
        """
        for connection in self._connections:  # a request may already lie in a buffer
            if request := connection.read():
                return connection, request
        while True:
            ready = self._selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _TimedOut
            ended = False
            for key, _ in ready:
                source = key.data
                if source is self._listener:
                    self._accept_connection()
                elif isinstance(source, Connection):
                    if request := source.read():
                        return source, request
                    if source.closed:
                        self._drop(source)
                elif isinstance(source, (LineReader, FrameReader)):
                    events += source.read()
                    if source.ended:
                        self._selector.unregister(source.descriptor)
                else:
                    ended = True
            if ended:  # what it sent before it ended still counts
                self._accept_connection()
                for connection in self._connections:
                    if request := connection.read():
                        return connection, request
                raise _Ended

    def _accept_connection(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = self._listener.accept()
            connection = Connection(sock)
            self._connections.add(connection)
            self._selector.register(sock, selectors.EVENT_READ, connection)

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        self._connections.discard(connection)
        connection.close()

    def _drain(self) -> list[LogEvent]:
        """Return what the process has written so far and nobody has read."""
        return [*self._lines.read(), *self._lines.flush(), *self._frames.read()]

    def _exit_document(self, request_id: str) -> bytes:
        code = self._process.wait()
        if code < 0:
            reason = (
                f"Runtime exited with error: signal: {signal.Signals(-code).name.removeprefix('SIG').lower()}"
            )
        elif code:
            reason = f"Runtime exited with error: exit status {code}"
        else:
            reason = "Runtime exited without providing a reason"
        message = f"RequestId: {request_id} Error: {reason}"
        return json.dumps({"errorType": "Runtime.ExitError", "errorMessage": message}).encode()

    def _peak_memory(self) -> int:
        """Return the peak resident size in megabytes; 0 when the process has already gone."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return 0
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(match[1]) // 1024 if match else 0

    def kill(self) -> None:
        """Kill the process with everything that it has started; any thread may do this."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        """Kill the process and give back what it held; only for the thread that has taken the worker."""
        if self._closed:
            return
        self._closed = True
        self.kill()
        self._guardian.forget(self._process.pid)
        self._selector.close()
        os.close(self._lines.descriptor)
        os.close(self._frames.descriptor)
        for connection in self._connections:
            connection.close()
        self._listener.close()
        os.close(self._ended)
        shutil.rmtree(self._scratch, ignore_errors=True)


def _accept(connection: Connection) -> None:
    with contextlib.suppress(OSError):  # a worker that ends right after its report need not hear the answer
        connection.respond("202 Accepted", {"Content-Type": "application/json"}, b'{"status":"OK"}')


def _reject(connection: Connection, request: Request) -> None:
    document = {
        "errorType": "InvalidRequestID",
        "errorMessage": f"Unexpected {request.method} {request.path}",
    }
    with contextlib.suppress(OSError):
        connection.respond(
            "400 Bad Request", {"Content-Type": "application/json"}, json.dumps(document).encode()
        )


def _timeout_document(request_id: str, timeout: float) -> bytes:
    message = f"RequestId: {request_id} Error: Task timed out after {timeout:.2f} seconds"
    return json.dumps({"errorType": "Sandbox.Timedout", "errorMessage": message}).encode()


def _too_large_document(size: int) -> bytes:
    message = f"Response payload size ({size} bytes) exceeded maximum allowed payload size (6291556 bytes)."
    return json.dumps({"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}).encode()
