"""Invoking a function: the rules around the worker that runs it."""

from __future__ import annotations

import base64
import io
import json
import secrets
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import boto3
from botocore.config import Config

from local.context import LocalAws
from local.lambda_runtime import interpreter
from local.lambda_runtime.artifacts import Artifacts
from local.lambda_runtime.config import FunctionConfig, layer_version
from local.lambda_runtime.errors import (
    InvalidParameterError,
    InvalidRequestContentError,
    NotEmulatedError,
    RequestTooLargeError,
    TooManyRequestsError,
)
from local.lambda_runtime.guardian import Guardian
from local.lambda_runtime.identity import access_key_for
from local.lambda_runtime.logs import LogWriter, platform_log, tail
from local.lambda_runtime.metrics import Metrics
from local.lambda_runtime.output import now_ms
from local.lambda_runtime.pool import Concurrency, WorkerPool
from local.lambda_runtime.settings import Settings
from local.lambda_runtime.worker import Invocation, Report, Worker, WorkerGoneError

SYNC_LIMIT = 6 * 1024 * 1024
ASYNC_LIMIT = 1024 * 1024
LOST_WORKERS = 3
"""Idle workers that may turn out to be dead before an invocation gives up."""


@dataclass(frozen=True)
class Outcome:
    """What the caller of an invocation gets.

    Attributes
    ----------
    payload
        JSON: the result or the error document.
    failed
        Whether ``payload`` is an error document.
    log_tail
        The last 4 KB of the log.
    """

    payload: bytes
    failed: bool
    log_tail: bytes
    executed_version: str
    request_id: str


class LambdaService:
    """Runs functions that moto has on record."""

    def __init__(self, aws: LocalAws, settings: Settings) -> None:
        self.aws = aws
        self.settings = settings
        self._artifacts = Artifacts(aws.workdir / "lambda")
        self._scratch = aws.workdir / "lambda-scratch"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._guardian = Guardian()
        self._logs = LogWriter()
        self._metrics = Metrics()
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, str], Any] = {}
        self._concurrency = Concurrency(settings.account_concurrency)
        self.pool = WorkerPool(settings)

    def backend(self, account_id: str, region: str) -> Any:
        """Return moto's Lambda backend."""
        from moto.awslambda.models import lambda_backends

        return lambda_backends[account_id][region]

    def check_invocable(self, function: Any) -> None:
        """Refuse a function that no worker could run.

        Raises
        ------
        NotEmulatedError, InvalidParameterError
            For images, for runtimes other than Python's, and for what AWS refuses too.
        """
        if function.package_type != "Zip":
            raise NotEmulatedError("functions with PackageType Image")
        check_runtime(function.run_time)
        if not function.handler:
            raise InvalidParameterError(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages."
            )
        if not zipfile.is_zipfile(io.BytesIO(function.code_bytes)):
            raise InvalidParameterError(
                "Could not unzip uploaded file. Please check your file, then try to upload again."
            )

    def prepare(self, function: Any) -> None:
        """Unpack a function's code and layers, so that its first invocation need not."""
        self._roots(function, interpreter.find(function.run_time, self.settings.python))

    def _roots(self, function: Any, python: str) -> tuple[Any, Any]:
        task = self._artifacts.unpack("task", [function.code_bytes], python)
        if not function.layers:
            return task, None
        zips = [layer_version(function, layer["Arn"]).code_bytes for layer in function.layers]
        return task, self._artifacts.unpack("opt", zips, python)

    def client_as(self, role: str, service: str, region: str) -> Any:
        """Return a client that calls the local AWS with the rights of ``role``, as Lambda itself does."""
        key = (role, service, region)
        with self._lock:
            if key not in self._clients:
                access_key = access_key_for(role)
                self._clients[key] = boto3.session.Session().client(
                    service,  # type: ignore[call-overload]
                    region_name=region,
                    endpoint_url=self.aws.endpoint,
                    aws_access_key_id=access_key,
                    aws_secret_access_key=f"secret-of-{access_key}",
                    config=Config(retries={"total_max_attempts": 1}),
                )
            return self._clients[key]

    def _start_worker(self, function: Any, config: FunctionConfig) -> Worker:
        python = interpreter.find(config.runtime, self.settings.python)
        task, layers = self._roots(function, python)
        key = access_key_for(config.role)
        environment = {
            "AWS_ENDPOINT_URL": self.aws.endpoint,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": f"secret-of-{key}",
            "AWS_SESSION_TOKEN": f"session-of-{key}",
        }
        return Worker(config, python, task, layers, environment, self._guardian, self._scratch)

    def validate_payload(self, payload: bytes, limit: int) -> bytes:
        """Return the payload, ``{}`` for an empty one.

        Raises
        ------
        RequestTooLargeError, InvalidRequestContentError
            When it exceeds ``limit`` bytes or is no JSON.
        """
        if len(payload) > limit:
            raise RequestTooLargeError(limit)
        if not payload:
            return b"{}"
        try:
            json.loads(payload)
        except ValueError as error:
            raise InvalidRequestContentError(str(error)) from error
        return payload

    def invoke(
        self,
        function: Any,
        payload: bytes,
        *,
        request_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        invoked_arn: str | None = None,
    ) -> Outcome:
        """Run ``function`` once, synchronously, and write its log.

        Raises
        ------
        TooManyRequestsError
            When there is no free concurrency.
        """
        self.check_invocable(function)
        config = FunctionConfig.of(function)
        headers = headers or {}
        call = Invocation(
            request_id=request_id or str(uuid.uuid4()),
            payload=payload,
            function_arn=invoked_arn or config.arn,
            trace_id=headers.get("X-Amzn-Trace-Id") or _new_trace_id(config.tracing),
            client_context=_client_context(headers.get("X-Amz-Client-Context", "")),
        )
        try:
            with self._concurrency.claim(config.name, *self._reservations(function)):
                report = self._run(config, call, lambda: self._start_worker(function, config))
        except TooManyRequestsError:
            self._metrics.throttled(config)
            raise
        self._metrics.invoked(config, report)
        return Outcome(
            payload=report.payload,
            failed=report.failed,
            log_tail=tail(report.events),
            executed_version=config.version,
            request_id=call.request_id,
        )

    def _run(self, config: FunctionConfig, call: Invocation, start: Callable[[], Worker]) -> Report:
        begun = now_ms()
        for _ in range(LOST_WORKERS):
            with self.pool.worker(config, start) as worker:
                try:
                    report = worker.invoke(call, config.timeout, self.settings.init_timeout)
                except WorkerGoneError:
                    worker.kill()
                    continue
                stream = worker.log_stream
            if report.status == "timeout" and report.duration_ms == 0.0:
                report, stream = self._retry_init(config, call, report, stream, start)
            events = platform_log(config, call.request_id, begun, report)
            self._logs.write(config, stream, events)
            return replace(report, events=events)
        raise InvalidParameterError(
            f"{LOST_WORKERS} workers of {config.name} ended before they could take the event. See its log."
        )

    def _retry_init(
        self,
        config: FunctionConfig,
        call: Invocation,
        first: Report,
        stream: str,
        start: Callable[[], Worker],
    ) -> tuple[Report, str]:
        """Initialise again after a time-out, now within the function's own time, as Lambda does."""
        self._logs.write(config, stream, first.events)
        begun = time.monotonic()
        with self.pool.worker(config, start) as worker:
            report = worker.invoke(call, config.timeout, config.timeout)
            stream = worker.log_stream
        if report.status == "timeout" and report.duration_ms == 0.0:
            report.duration_ms = (time.monotonic() - begun) * 1000
        return report, stream

    def _reservations(self, function: Any) -> tuple[int | None, int]:
        """Return the function's own reserved concurrency and the sum of all others'."""
        own, others = None, 0
        for other in self.backend(function.account_id, function.region).list_functions():
            if other.reserved_concurrency is None:
                continue
            if other.function_name == function.function_name:
                own = int(other.reserved_concurrency)
            else:
                others += int(other.reserved_concurrency)
        return own, others

    def stop(self) -> None:
        """End every worker and delete what was unpacked."""
        self.pool.stop()
        self._metrics.stop()
        self._guardian.stop()
        self._artifacts.remove()


def check_runtime(runtime: str | None) -> None:
    """Refuse a runtime that no worker could run.

    Raises
    ------
    NotEmulatedError
        For all but Python's.
    """
    if not interpreter.is_supported(runtime):
        raise NotEmulatedError(f"the runtime {runtime}: it runs functions of Python runtimes")


def _new_trace_id(tracing: str) -> str:
    sampled = 1 if tracing == "Active" else 0
    root = f"1-{int(time.time()):08x}-{secrets.token_hex(12)}"
    return f"Root={root};Parent={secrets.token_hex(8)};Sampled={sampled}"


def _client_context(header: str) -> str:
    if not header:
        return ""
    try:
        return base64.b64decode(header, validate=True).decode()
    except ValueError as error:
        raise InvalidRequestContentError(
            "Client context must be a valid Base64-encoded JSON object."
        ) from error
