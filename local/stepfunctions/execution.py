"""Executions, and the one event loop on which all of them run."""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import secrets
import threading
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.config import Config

from local.context import LocalAws
from local.events import emit
from local.stepfunctions.activities import Activities
from local.stepfunctions.errors import TIMEOUT, StateError
from local.stepfunctions.history import EVENT_LIMIT, History, compact, iso, now
from local.stepfunctions.logs import ExecutionLogs
from local.stepfunctions.machine import Machine

log = logging.getLogger("local.stepfunctions")

_LONGEST_CALL = 24 * 3600
"""Seconds that a client waits for an answer; the state's own timeout ends a task earlier."""


@dataclass
class Callback:
    """A task that waits for its token."""

    loop: asyncio.AbstractEventLoop
    outcome: asyncio.Future[Any]
    beats: asyncio.Event
    machine_arn: str

    def settle(self, value: Any = None, error: StateError | None = None) -> None:
        """Finish the task from any thread."""

        def act() -> None:
            if not self.outcome.done():
                if error is not None:
                    self.outcome.set_exception(error)
                else:
                    self.outcome.set_result(value)

        self.loop.call_soon_threadsafe(act)

    def beat(self) -> None:
        """Take a heartbeat from any thread."""
        self.loop.call_soon_threadsafe(self.beats.set)


class Execution:
    """One run of a state machine, or of one child of a distributed Map."""

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        name: str,
        arn: str,
        text: str,
        trace_header: str | None = None,
        map_run_arn: str | None = None,
    ) -> None:
        self.engine = engine
        self.machine = machine
        self.name = name
        self.execution_arn = arn
        self.execution_input = text
        self.trace_header = trace_header
        self.map_run_arn = map_run_arn
        self.map_runs: list[Any] = []
        self.status = "RUNNING"
        self.start_date = now()
        self.history = History(
            EVENT_LIMIT, engine.logs.writer(machine, arn, name, self.start_date) if machine.logging else None
        )
        self.stop_date: datetime | None = None
        self.output: str | None = None
        self.error: str | None = None
        self.cause: str | None = None
        self.finished = threading.Event()
        self.done: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._stop_reason: tuple[str | None, str | None] | None = None

    @property
    def state_machine_arn(self) -> str:
        """The ARN of the machine."""
        return self.machine.arn

    def context(self) -> dict[str, Any]:
        """Return the context object as it is when the execution starts."""
        return {
            "Execution": {
                "Id": self.execution_arn,
                "Input": json.loads(self.execution_input),
                "Name": self.name,
                "RoleArn": self.machine.role_arn,
                "StartTime": iso(self.start_date),
                "RedriveCount": 0,
            },
            "StateMachine": {"Id": self.machine.arn, "Name": self.machine.name},
        }

    def begin(self) -> None:
        """Take the current task for the one that runs this.

        Raises
        ------
        asyncio.CancelledError
            It was stopped before its first step.
        """
        self._task = asyncio.current_task()
        self.done = self.done or asyncio.get_running_loop().create_future()
        self.history.add(
            "ExecutionStarted",
            0,
            {
                "input": self.execution_input,
                "inputDetails": {"truncated": False},
                "roleArn": self.machine.role_arn,
            },
        )
        if self._stop_reason is not None:
            raise asyncio.CancelledError

    def succeed(self, previous: int, output: Any) -> None:
        """End with an output, after the event of the number `previous`."""
        self.output = compact(output)
        self._end("SUCCEEDED", previous, {"output": self.output, "outputDetails": {"truncated": False}})

    def abort(self, previous: int) -> None:
        """End as whoever stopped it has asked."""
        self.error, self.cause = self._stop_reason or (None, None)
        self._end("ABORTED", previous, {"error": self.error, "cause": self.cause})

    def time_out(self, previous: int) -> None:
        """End because the machine's time is over."""
        self._end("TIMED_OUT", previous, {"error": TIMEOUT})

    def fail(self, previous: int, error: str | None, cause: str | None) -> None:
        """End with an error."""
        self.error, self.cause = error, cause
        self._end("FAILED", previous, {"error": error, "cause": cause})

    def _end(self, status: str, previous: int, details: dict[str, Any]) -> None:
        kind = {"TIMED_OUT": "TimedOut"}.get(status, status.capitalize())
        self.history.add(f"Execution{kind}", previous, details)
        self.stop_date = self.history.events[-1]["timestamp"]
        self.status = status
        if self.done is not None and not self.done.done():
            self.done.set_result(None)
        self.finished.set()
        self.engine.announce(self)

    def stop(self, error: str | None, cause: str | None) -> None:
        """Abort from any thread and wait until the execution has ended."""

        def act() -> None:
            if not self.finished.is_set():
                self._stop_reason = (error, cause)
                if self._task is not None:
                    self._task.cancel()

        self.engine.loop.call_soon_threadsafe(act)
        self.finished.wait(10)

    async def join(self) -> None:
        """Wait, on the engine's loop, until the execution has ended."""
        if not self.finished.is_set():
            self.done = self.done or asyncio.get_running_loop().create_future()
            await asyncio.shield(self.done)


class Engine:
    """All executions of the embedded AWS, on one event loop in one thread.

    Parameters
    ----------
    aws
        The embedded AWS.
    run
        Runs an execution to its end.
    """

    def __init__(self, aws: LocalAws, run: Callable[[Execution], Coroutine[Any, Any, None]]) -> None:
        self.aws = aws
        self.run = run
        self.loop = asyncio.new_event_loop()
        self.executions: dict[str, Execution] = {}
        self.children: dict[str, list[Execution]] = {}
        self.map_runs: dict[str, Any] = {}
        self.callbacks: dict[str, Callback] = {}
        self.settled: set[str] = set()
        self.activities = Activities()
        self.logs = ExecutionLogs(aws)
        self.lock = threading.RLock()
        self._clients: dict[tuple[str, str], Any] = {}
        self._client_lock = threading.Lock()
        self._events: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run_loop, name="stepfunctions", daemon=True).start()
        threading.Thread(target=self._publish, name="stepfunctions-events", daemon=True).start()
        aws.on_stop(self.close)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def close(self) -> None:
        """Stop the loop; executions that still run end with the process."""
        self._events.put(None)
        self.loop.call_soon_threadsafe(self.loop.stop)

    def start(self, execution: Execution) -> None:
        """Run an execution in the background."""
        with self.lock:
            self.executions[execution.execution_arn] = execution
        self.announce(execution)
        asyncio.run_coroutine_threadsafe(self.run(execution), self.loop)

    def forget(self, belongs: Callable[[Execution], bool]) -> None:
        """Abort and drop executions whose state machine is gone, with their children."""
        with self.lock:
            gone = [execution for execution in self.executions.values() if belongs(execution)]
        for execution in gone:
            if not execution.finished.is_set() and execution.map_run_arn is None:
                execution.stop(None, None)
        with self.lock:
            for execution in gone:
                self.executions.pop(execution.execution_arn, None)
                for run in execution.map_runs:
                    self.map_runs.pop(run.arn, None)
                    self.children.pop(run.arn, None)

    def client(self, service: str, region: str) -> Any:
        """Return a client for a task; unlike those of LocalAws it waits as long as a task may take.

        The first client of a service reads its model, up to a second: never call this on the loop.
        """
        with self._client_lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = boto3.session.Session().client(
                    service,  # type: ignore[call-overload]
                    region_name=region,
                    endpoint_url=self.aws.endpoint,
                    aws_access_key_id="local",
                    aws_secret_access_key="local",  # noqa: S106 - moto takes any
                    config=Config(
                        retries={"total_max_attempts": 1},
                        max_pool_connections=128,
                        read_timeout=_LONGEST_CALL,
                        inject_host_prefix=False,
                        s3={"addressing_style": "path"},
                    ),
                )
            return self._clients[service, region]

    async def call(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run blocking work in a thread of its own, which never keeps the process alive."""
        future: asyncio.Future[Any] = self.loop.create_future()

        def settle(setter: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                setter(value)

        def act() -> None:
            try:
                result = work(*args, **kwargs)
            except Exception as error:
                outcome: tuple[Callable[[Any], None], Any] = (future.set_exception, error)
            else:
                outcome = (future.set_result, result)
            if not self.loop.is_closed():
                self.loop.call_soon_threadsafe(settle, *outcome)

        threading.Thread(target=act, name="stepfunctions-task", daemon=True).start()
        return await future

    def new_callback(self, machine_arn: str) -> tuple[str, Callback]:
        """Make a task token; call on the engine's loop."""
        token = secrets.token_urlsafe(96)
        callback = Callback(self.loop, self.loop.create_future(), asyncio.Event(), machine_arn)
        with self.lock:
            self.callbacks[token] = callback
        return token, callback

    def drop_callback(self, token: str) -> None:
        """Forget a token whose task has ended, but remember that it was one."""
        with self.lock:
            self.callbacks.pop(token, None)
            self.settled.add(token)

    def child(self, parent: Execution, machine: Machine, value: Any, map_run_arn: str) -> Execution:
        """Make a child execution of a distributed Map; the caller runs it."""
        name = str(uuid.uuid4())
        arn = machine.arn.replace(":stateMachine:", ":execution:") + f":{name}"
        execution = Execution(self, machine, name, arn, compact(value), parent.trace_header, map_run_arn)
        with self.lock:
            self.executions[arn] = execution
            self.children.setdefault(map_run_arn, []).append(execution)
        return execution

    def announce(self, execution: Execution) -> None:
        """Queue the status-change event of a Standard execution, in order."""
        if execution.machine.kind == "EXPRESS" or execution.map_run_arn is not None:
            return
        detail: dict[str, Any] = {
            "executionArn": execution.execution_arn,
            "stateMachineArn": execution.machine.arn,
            "name": execution.name,
            "status": execution.status,
            "startDate": _millis(execution.start_date),
            "stopDate": _millis(execution.stop_date),
            "input": execution.execution_input,
            "output": execution.output,
            "inputDetails": {"included": True},
            "outputDetails": {"included": True} if execution.output is not None else None,
            "stateMachineVersionArn": None,
            "stateMachineAliasArn": None,
            "redriveCount": 0,
            "redriveDate": None,
            "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": None,
            "error": execution.error,
            "cause": execution.cause,
        }
        self._events.put((execution.execution_arn, detail, execution.machine.region))

    def _publish(self) -> None:
        while (item := self._events.get()) is not None:
            arn, detail, region = item
            try:
                emit(
                    self.aws,
                    "aws.states",
                    "Step Functions Execution Status Change",
                    [arn],
                    detail,
                    region=region,
                )
            except Exception:
                if not self.aws.stopping.is_set():
                    log.exception("no status-change event for %s", arn)


def _millis(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)
