"""CloudWatch Logs of executions: what a state machine's LoggingConfiguration asks for."""

from __future__ import annotations

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.context import LocalAws
from local.stepfunctions.history import compact, details_name
from local.stepfunctions.machine import Machine

log = logging.getLogger("local.stepfunctions")

_PAUSE = 0.2
"""Seconds in which events gather before they are sent together."""
_FATAL = frozenset({"ExecutionFailed", "ExecutionAborted", "ExecutionTimedOut"})
_DATA = frozenset({"input", "output", "parameters", "assignedVariables"})
_Target = tuple[str, str, str]


def is_logged(level: str, kind: str) -> bool:
    """Tell whether a log level includes an event type."""
    if level == "ALL":
        return True
    if level == "ERROR":
        return kind.endswith(("Failed", "TimedOut", "Aborted"))
    return level == "FATAL" and kind in _FATAL


def log_line(execution_arn: str, event: Mapping[str, Any], *, with_data: bool) -> str:
    """Return an event as Step Functions writes it to a log group."""
    details = event.get(str(details_name(event["type"])))
    line = {
        "id": str(event["id"]),
        "type": event["type"],
        "details": details and {key: item for key, item in details.items() if with_data or key not in _DATA},
        "previous_event_id": str(event["previousEventId"]),
        "event_timestamp": str(round(event["timestamp"].timestamp() * 1000)),
        "execution_arn": execution_arn,
    }
    return compact({key: item for key, item in line.items() if item is not None})


class ExecutionLogs:
    """Sends the events of all executions to their log groups, from one thread."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._lines: queue.SimpleQueue[tuple[_Target, int, str]] = queue.SimpleQueue()
        self._streams: set[_Target] = set()
        self._missing: set[str] = set()
        threading.Thread(target=self._deliver, name="stepfunctions-logs", daemon=True).start()

    def writer(
        self, machine: Machine, execution_arn: str, name: str, started: datetime
    ) -> Callable[[Mapping[str, Any]], None]:
        """Return what queues those of an execution's events that its state machine logs."""
        settings = machine.logging
        level, with_data = settings.get("level", "OFF"), bool(settings.get("includeExecutionData"))
        stream = f"states/{machine.name}/{started:%Y-%m-%d-%H-%M}/{name[:36]}"
        arns = [each["cloudWatchLogsLogGroup"]["logGroupArn"] for each in settings.get("destinations", ())]
        groups = [arn.split(":log-group:", 1)[1].removesuffix(":*") for arn in arns]

        def write(event: Mapping[str, Any]) -> None:
            if not is_logged(level, event["type"]):
                return
            line = log_line(execution_arn, event, with_data=with_data)
            moment = round(event["timestamp"].timestamp() * 1000)
            for group in groups:
                self._lines.put(((machine.region, group, stream), moment, line))

        return write

    def _deliver(self) -> None:
        while not self._aws.stopping.wait(_PAUSE):
            batches: dict[_Target, list[dict[str, Any]]] = defaultdict(list)
            while not self._lines.empty():
                target, moment, line = self._lines.get()
                batches[target].append({"timestamp": moment, "message": line})
            for target, lines in batches.items():
                self._send(target, lines)

    def _send(self, target: _Target, lines: list[dict[str, Any]]) -> None:
        region, group, stream = target
        client = self._aws.client("logs", region)
        try:
            if target not in self._streams:
                client.create_log_stream(logGroupName=group, logStreamName=stream)
                self._streams.add(target)
            for start in range(0, len(lines), 1000):
                client.put_log_events(
                    logGroupName=group, logStreamName=stream, logEvents=lines[start : start + 1000]
                )
        except (ClientError, BotoCoreError) as error:
            # The execution goes on, as on AWS; one line for each group says why its log stays empty.
            if group not in self._missing and not self._aws.stopping.is_set():
                self._missing.add(group)
                log.warning("executions cannot write to the log group %s: %s", group, error)
