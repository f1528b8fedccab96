"""The platform's part of a function's log, and the way of every event into CloudWatch Logs."""

from __future__ import annotations

import json
import math
import sys
import threading
from datetime import UTC, datetime
from typing import Any

from local.lambda_runtime.config import FunctionConfig
from local.lambda_runtime.output import LogEvent, now_ms
from local.lambda_runtime.worker import Report

_LEVELS = {"DEBUG": 0, "INFO": 1, "WARN": 2}
TAIL_BYTES = 4096


def platform_log(function: FunctionConfig, request_id: str, begun_ms: int, report: Report) -> list[LogEvent]:
    """Put the function's events between those of the platform, in the function's log format.

    With the JSON format the system log level decides which of the platform's events are kept.
    """
    end = now_ms()
    events = [LogEvent(min(max(e.timestamp, begun_ms), end), e.message) for e in report.events]
    events.sort(key=lambda event: event.timestamp)
    cold = report.init_ms is not None
    if function.log_format == "JSON":
        before = [
            (begun_ms, "INFO", "platform.start", {"requestId": request_id, "version": function.version})
        ]
        if cold:
            before.insert(0, (begun_ms, "INFO", "platform.initStart", _init_record(function)))
        after = [
            (end, "DEBUG", "platform.runtimeDone", {"requestId": request_id, "status": report.status}),
            (end, "INFO", "platform.report", _report_record(function, request_id, report)),
        ]
        least = _LEVELS.get(function.system_log_level, 1)
        return [
            *(_json_event(*event) for event in before if _LEVELS[event[1]] >= least),
            *events,
            *(_json_event(*event) for event in after if _LEVELS[event[1]] >= least),
        ]
    head = [LogEvent(begun_ms, f"START RequestId: {request_id} Version: {function.version}\n")]
    if cold:
        version = ".".join(map(str, sys.version_info[:2]))
        head.insert(0, LogEvent(begun_ms, f"INIT_START Runtime Version: python:{version}.local\n"))
    line = (
        f"REPORT RequestId: {request_id}\tDuration: {report.duration_ms:.2f} ms\t"
        f"Billed Duration: {math.ceil(report.duration_ms + (report.init_ms or 0))} ms\t"
        f"Memory Size: {function.memory_size} MB\tMax Memory Used: {report.max_memory_mb} MB\t"
    )
    if report.init_ms is not None:
        line += f"Init Duration: {report.init_ms:.2f} ms\t"
    if report.status == "timeout":
        line += "Status: timeout"
    elif report.status == "error" and report.payload.startswith(b'{"errorType": "Runtime.ExitError"'):
        line += "Status: error\tError Type: Runtime.ExitError"
    return [*head, *events, LogEvent(end, f"END RequestId: {request_id}\n"), LogEvent(end, line + "\n")]


def _init_record(function: FunctionConfig) -> dict[str, Any]:
    return {
        "initializationType": "on-demand",
        "phase": "init",
        "functionName": function.name,
        "functionVersion": function.version,
    }


def _report_record(function: FunctionConfig, request_id: str, report: Report) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "durationMs": round(report.duration_ms, 3),
        "billedDurationMs": math.ceil(report.duration_ms + (report.init_ms or 0)),
        "memorySizeMB": function.memory_size,
        "maxMemoryUsedMB": report.max_memory_mb,
    }
    if report.init_ms is not None:
        metrics["initDurationMs"] = round(report.init_ms, 3)
    return {"requestId": request_id, "metrics": metrics, "status": report.status}


def _json_event(stamp: int, _: str, kind: str, record: dict[str, Any]) -> LogEvent:
    time = datetime.fromtimestamp(stamp / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    return LogEvent(stamp, json.dumps({"time": time, "type": kind, "record": record}) + "\n")


def tail(events: list[LogEvent]) -> bytes:
    """Return the last 4 KB of a log, as ``LogType=Tail`` gives it."""
    return "".join(event.message for event in events).encode()[-TAIL_BYTES:]


class LogWriter:
    """Writes into moto's CloudWatch Logs, without the round trip over HTTP."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def write(self, function: FunctionConfig, stream: str, events: list[LogEvent]) -> None:
        """Append ``events`` to the worker's stream, making group and stream where they are missing."""
        if not events:
            return
        from moto.logs.models import logs_backends

        backend = logs_backends[function.account_id][function.region]
        with self._lock:
            backend.ensure_log_group(function.log_group)
            backend.ensure_log_stream(function.log_group, stream)
        backend.put_log_events(
            function.log_group, stream, [{"timestamp": e.timestamp, "message": e.message} for e in events]
        )
