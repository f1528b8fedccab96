"""The Step Functions API on top of the engine: what moto's responses lack or do differently from AWS."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import Any

from moto.core.exceptions import AWSError
from moto.core.responses import ActionResult, EmptyResult
from moto.stepfunctions import models, responses
from moto.stepfunctions.exceptions import (
    ActivityDoesNotExist,
    ExecutionAlreadyExists,
    ExecutionDoesNotExist,
    InvalidExecutionInput,
    InvalidToken,
    ResourceNotFound,
    StateMachineDoesNotExist,
    ValidationException,
)
from moto.stepfunctions.models import StepFunctionBackend
from moto.stepfunctions.responses import StepFunctionResponse

from local.stepfunctions.definition import diagnose_state, diagnose_text
from local.stepfunctions.errors import StateError
from local.stepfunctions.execution import Callback, Engine, Execution
from local.stepfunctions.frame import PAYLOAD_LIMIT
from local.stepfunctions.history import compact
from local.stepfunctions.machine import Machine
from local.stepfunctions.trial import try_state

_ACTIVITY_POLL = 60
"""Seconds that GetActivityTask waits for work, as on AWS."""


_PAGE, _LARGEST_PAGE = 100, 1000
"""Items of a page by default and at most."""


class InvalidDefinition(AWSError):  # noqa: N818 - the name of AWS
    """The definition of a state machine is refused."""

    TYPE = "InvalidDefinition"


class InvalidArn(AWSError):  # noqa: N818 - the name of AWS
    """The ARN is of something that the operation does not take."""

    TYPE = "InvalidArn"

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid Arn: '{reason}'")


class InvalidOutput(AWSError):  # noqa: N818 - the name of AWS
    """The output that a worker sent is not JSON."""

    TYPE = "InvalidOutput"


class TaskTimedOut(AWSError):  # noqa: N818 - the name of AWS
    """The task of the token has ended."""

    TYPE = "TaskTimedOut"


class StateMachineAlreadyExists(AWSError):  # noqa: N818 - the name of AWS
    """A state machine of that name has another definition."""

    TYPE = "StateMachineAlreadyExists"


class StateMachineTypeNotSupported(AWSError):  # noqa: N818 - the name of AWS
    """The operation needs a machine of the other type."""

    TYPE = "StateMachineTypeNotSupported"


class MissingRequiredParameter(AWSError):  # noqa: N818 - the name of AWS
    """A request lacks what it needs."""

    TYPE = "MissingRequiredParameter"


class ExecutionNotRedrivable(AWSError):  # noqa: N818 - the name of AWS
    """The execution cannot be redriven."""

    TYPE = "ExecutionNotRedrivable"


def check_definition(text: str, kind: str | None = None) -> None:
    """Refuse a definition that could not run.

    Raises
    ------
    InvalidDefinition
        With every finding.
    """
    found = [item for item in diagnose_text(text, kind or "STANDARD") if item.code not in _WARNINGS]
    if found:
        raise InvalidDefinition("Invalid State Machine Definition: '" + ", ".join(map(str, found)) + "'")


_WARNINGS = frozenset({"NO_TERMINAL_STATE", "RESERVED_ERROR_NAME"})
"""Findings that AWS accepts: a machine may loop until somebody stops it, and name its errors as it likes."""


def _page(items: list[Any], size: int | None, token: str | None) -> tuple[list[Any], str | None]:
    """Return one page and the token of the next; a token is the position, opaque to the caller."""
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
    except ValueError:
        raise InvalidToken(f"'{token}'") from None
    end = start + min(size or _PAGE, _LARGEST_PAGE)
    after = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(items) else None
    return items[start:end], after


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


class _Api:
    """The operations; each method replaces the one of its name on moto's response class."""

    engine: Engine

    # -- state machines

    def create_state_machine(self: Any) -> ActionResult:
        name, definition = self._get_param("name"), self._get_param("definition")
        kind = self._get_param("type")
        if kind not in (None, "STANDARD", "EXPRESS"):
            raise ValidationException(
                f"1 validation error detected: Value '{kind}' at 'type' failed to satisfy constraint: "
                "Member must satisfy enum value set: [STANDARD, EXPRESS]"
            )
        backend = self.stepfunction_backend
        existing = next((machine for machine in backend.state_machines if machine.name == name), None)
        if existing is not None:
            same = (definition, self._get_param("roleArn"), self._get_param("type") or "STANDARD")
            if same != (existing.definition, existing.roleArn, existing.type):
                raise StateMachineAlreadyExists(f"State Machine Already Exists: '{existing.arn}'")
        return _create_state_machine(self)

    def delete_state_machine(self: Any) -> ActionResult:
        arn = self._get_param("stateMachineArn")
        answer: ActionResult = _delete_state_machine(self)
        # A machine created later under the same name starts without history, so names are free again.
        self.engine.forget(
            lambda execution: execution.machine.arn == arn or execution.machine.arn.startswith(f"{arn}/")
        )
        return answer

    def test_state(self: Any) -> ActionResult:
        state = json.loads(self._get_param("definition"))
        found = [
            item
            for item in diagnose_state(state)
            if item.code not in {*_WARNINGS, "MISSING_TRANSITION_TARGET"}
        ]
        if found:
            raise InvalidDefinition("Invalid State Definition: '" + ", ".join(map(str, found)) + "'")
        text = self._get_param("input") or "{}"
        try:
            json.loads(text)
        except ValueError as error:
            raise InvalidExecutionInput(f"Invalid input: '{error}'") from None
        variables = json.loads(self._get_param("variables") or "{}")
        role, region = self._get_param("roleArn") or "", self.stepfunction_backend.region_name
        return ActionResult(try_state(self.engine, state, text, variables, role, region))

    def validate_state_machine_definition(self: Any) -> ActionResult:
        found = diagnose_text(self._get_param("definition"), self._get_param("type") or "STANDARD")
        wanted = self._get_param("severity") or "ERROR"
        diagnostics = [
            {
                "severity": "WARNING" if item.code in _WARNINGS else "ERROR",
                "code": item.code,
                "message": item.message,
                "location": item.location,
            }
            for item in found
        ]
        failed = any(item["severity"] == "ERROR" for item in diagnostics)
        shown = [item for item in diagnostics if wanted == "WARNING" or item["severity"] == "ERROR"]
        limit = self._get_int_param("maxResults") or 100
        return ActionResult(
            {
                "result": "FAIL" if failed else "OK",
                "diagnostics": shown[:limit],
                "truncated": len(shown) > limit,
            }
        )

    def describe_state_machine_for_execution(self: Any) -> ActionResult:
        execution = self._execution()
        machine = execution.machine
        return ActionResult(
            {
                "stateMachineArn": machine.arn,
                "name": machine.name,
                "definition": json.dumps(machine.definition),
                "roleArn": machine.role_arn,
                "updateDate": execution.start_date,
                "loggingConfiguration": dict(machine.logging) or {"level": "OFF"},
            }
        )

    # -- executions

    def _execution(self: Any) -> Execution:
        arn = self._get_param("executionArn")
        if arn.startswith("arn:") and arn.split(":")[5:6] == ["express"]:
            # Only its log group and StartSyncExecution tell about an Express execution.
            raise InvalidArn("Resource type not valid in this context: express")
        execution = self.engine.executions.get(arn)
        if execution is None:
            self.stepfunction_backend._validate_execution_arn(arn)
            raise ExecutionDoesNotExist(f"Execution Does Not Exist: '{arn}'")
        found: Execution = execution
        return found

    def _machine(self: Any, arn: str) -> Machine:
        backend = self.stepfunction_backend
        try:
            instance = backend.describe_state_machine(arn)
        except StateMachineDoesNotExist:
            instance = self._aliased(arn)
        return Machine(
            arn=getattr(instance, "source_arn", instance.arn),
            name=instance.name,
            definition=json.loads(instance.definition),
            role_arn=instance.roleArn,
            kind=instance.type,
            account_id=backend.account_id,
            region=backend.region_name,
            logging=instance.loggingConfiguration or {},
        )

    def _aliased(self: Any, arn: str) -> Any:
        backend = self.stepfunction_backend
        base, _, name = arn.rpartition(":")
        machine = next((item for item in backend.state_machines if item.arn == base), None)
        if machine is None or name not in machine.aliases:
            raise StateMachineDoesNotExist(f"State Machine Does Not Exist: '{arn}'")
        route = max(machine.aliases[name].routing_configuration, key=lambda item: item["weight"])
        return backend.describe_state_machine(route["stateMachineVersionArn"])

    def _begin(self: Any, *, sync: bool = False) -> Execution:
        arn = self._get_param("stateMachineArn")
        name = self._get_param("name")
        text = self._get_param("input") or "{}"
        try:
            # Half a surrogate pair is JSON but no text that could ever be sent on.
            compact(json.loads(text)).encode()
        except ValueError as error:
            raise InvalidExecutionInput(f"Invalid State Machine Execution Input: '{error}'") from None
        if len(text.encode()) > PAYLOAD_LIMIT:
            raise InvalidExecutionInput(
                f"Invalid State Machine Execution Input: more than {PAYLOAD_LIMIT} bytes"
            )
        if name:
            self.stepfunction_backend._validate_name(name)
        machine = self._machine(arn)
        if sync and machine.kind != "EXPRESS":
            raise StateMachineTypeNotSupported(
                "StartSyncExecution is not supported by this type of state machine: it needs EXPRESS"
            )
        name = name or str(uuid.uuid4())
        if machine.kind == "EXPRESS":
            base = machine.arn.replace(":stateMachine:", ":express:")
            execution_arn = f"{base}:{name}:{uuid.uuid4()}"
        else:
            execution_arn = machine.arn.replace(":stateMachine:", ":execution:") + f":{name}"
        with self.engine.lock:
            existing: Execution | None = self.engine.executions.get(execution_arn)
            if existing is not None:
                same = existing.status == "RUNNING" and _same_json(existing.execution_input, text)
                if same:
                    return existing
                raise ExecutionAlreadyExists(f"Execution Already Exists: '{execution_arn}'")
            execution = Execution(
                self.engine, machine, name, execution_arn, text, self._get_param("traceHeader")
            )
            self.engine.start(execution)
        return execution

    def start_execution(self: Any) -> ActionResult:
        execution = self._begin()
        return ActionResult({"executionArn": execution.execution_arn, "startDate": execution.start_date})

    def start_sync_execution(self: Any) -> ActionResult:
        execution = self._begin(sync=True)
        execution.finished.wait(300)
        report = _describe(execution)
        millis = round((execution.stop_date - execution.start_date).total_seconds() * 1000)
        report["billingDetails"] = {
            "billedMemoryUsedInMB": 64,
            "billedDurationInMilliseconds": max(100, -(-millis // 100) * 100),
        }
        return ActionResult(report)

    def stop_execution(self: Any) -> ActionResult:
        execution = self._execution()
        execution.stop(self._get_param("error"), self._get_param("cause"))
        return ActionResult({"stopDate": execution.stop_date})

    def describe_execution(self: Any) -> ActionResult:
        return ActionResult(_describe(self._execution()))

    def list_executions(self: Any) -> ActionResult:
        machine_arn, run_arn = self._get_param("stateMachineArn"), self._get_param("mapRunArn")
        if run_arn:
            if run_arn not in self.engine.map_runs:
                raise ResourceNotFound(run_arn)
            found = list(self.engine.children.get(run_arn, ()))
        elif machine_arn:
            machine = self._machine(machine_arn)
            if machine.kind == "EXPRESS":
                raise StateMachineTypeNotSupported(
                    "This operation is not supported by this type of state machine"
                )
            arn = machine.arn
            with self.engine.lock:
                found = [
                    execution
                    for execution in self.engine.executions.values()
                    if execution.machine.arn == arn and execution.map_run_arn is None
                ]
        else:
            raise ValidationException("Must provide a stateMachineArn or a mapRunArn")
        status = self._get_param("statusFilter")
        found = [execution for execution in found if not status or execution.status == status]
        found.reverse()
        found.sort(key=lambda execution: execution.start_date, reverse=True)
        page, token = _page(found, self._get_int_param("maxResults"), self._get_param("nextToken"))
        items = [
            _present(
                {
                    "executionArn": execution.execution_arn,
                    "stateMachineArn": execution.machine.arn,
                    "name": execution.name,
                    "status": execution.status,
                    "startDate": execution.start_date,
                    "stopDate": execution.stop_date,
                    "mapRunArn": execution.map_run_arn,
                    "redriveCount": 0,
                }
            )
            for execution in page
        ]
        return ActionResult(_present({"executions": items, "nextToken": token}))

    def get_execution_history(self: Any) -> ActionResult:
        events = list(self._execution().history.events)
        if self._get_param("reverseOrder"):
            events.reverse()
        page, token = _page(events, self._get_int_param("maxResults"), self._get_param("nextToken"))
        if self._get_param("includeExecutionData") is False:
            page = [_without_data(event) for event in page]
        return ActionResult(_present({"events": page, "nextToken": token}))

    def redrive_execution(self: Any) -> ActionResult:
        arn = self._execution().execution_arn
        raise ExecutionNotRedrivable(
            f"Execution '{arn}' is not redrivable: the embedded AWS lacks RedriveExecution; start a new one"
        )

    # -- task tokens and activities

    def _callback(self: Any) -> Callback:
        token = self._get_param("taskToken")
        with self.engine.lock:
            if token in self.engine.callbacks:
                callback: Callback = self.engine.callbacks[token]
                return callback
            if token in self.engine.settled:
                raise TaskTimedOut("Task Timed Out: 'Provided task does not exist anymore'")
        raise InvalidToken("'Invalid token'")

    def send_task_success(self: Any) -> ActionResult:
        callback = self._callback()
        try:
            value = json.loads(self._get_param("output"))
        except (TypeError, ValueError) as error:
            raise InvalidOutput(f"Invalid Output: '{error}'") from None
        callback.settle(value)
        self.engine.drop_callback(self._get_param("taskToken"))
        return EmptyResult()

    def send_task_failure(self: Any) -> ActionResult:
        callback = self._callback()
        callback.settle(error=StateError(self._get_param("error"), self._get_param("cause")))
        self.engine.drop_callback(self._get_param("taskToken"))
        return EmptyResult()

    def send_task_heartbeat(self: Any) -> ActionResult:
        self._callback().beat()
        return EmptyResult()

    def get_activity_task(self: Any) -> ActionResult:
        arn = self._get_param("activityArn")
        if arn not in self.stepfunction_backend.activities:
            raise ActivityDoesNotExist(f"Activity Does Not Exist: '{arn}'")
        worker = self._get_param("workerName")
        deadline = time.monotonic() + _ACTIVITY_POLL
        while time.monotonic() < deadline and not self.engine.aws.stopping.is_set():
            taken = self.engine.activities.take(arn, worker, 0.5)
            if taken is not None:
                return ActionResult({"taskToken": taken[0], "input": taken[1]})
        return ActionResult({})

    # -- map runs

    def _map_run(self: Any) -> Any:
        arn = self._get_param("mapRunArn")
        if arn not in self.engine.map_runs:
            raise ResourceNotFound(arn)
        return self.engine.map_runs[arn]

    def list_map_runs(self: Any) -> ActionResult:
        runs = [run.item() for run in self._execution().map_runs]
        page, token = _page(runs, self._get_int_param("maxResults"), self._get_param("nextToken"))
        return ActionResult(_present({"mapRuns": page, "nextToken": token}))

    def describe_map_run(self: Any) -> ActionResult:
        return ActionResult(self._map_run().describe())

    def update_map_run(self: Any) -> ActionResult:
        self._map_run().update(
            self._get_int_param("maxConcurrency"),
            self._get_param("toleratedFailureCount"),
            self._get_param("toleratedFailurePercentage"),
        )
        return EmptyResult()


def _same_json(first: str, second: str) -> bool:
    return first == second or bool(json.loads(first) == json.loads(second))


def _describe(execution: Execution) -> dict[str, Any]:
    return _present(
        {
            "executionArn": execution.execution_arn,
            "stateMachineArn": execution.machine.arn,
            "name": execution.name,
            "status": execution.status,
            "startDate": execution.start_date,
            "stopDate": execution.stop_date,
            "input": execution.execution_input,
            "inputDetails": {"included": True},
            "output": execution.output,
            "outputDetails": {"included": True} if execution.output is not None else None,
            "traceHeader": execution.trace_header,
            "mapRunArn": execution.map_run_arn,
            "error": execution.error,
            "cause": execution.cause,
            "redriveCount": 0,
            "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": "The embedded AWS has no RedriveExecution",
        }
    )


_DATA = frozenset({"input", "output", "parameters", "assignedVariables"})


def _without_data(event: dict[str, Any]) -> dict[str, Any]:
    return {
        key: {name: item for name, item in value.items() if name not in _DATA}
        if isinstance(value, dict)
        else value
        for key, value in event.items()
    }


_delete_state_machine = StepFunctionResponse.delete_state_machine
_create_state_machine = StepFunctionResponse.create_state_machine
_store_state_machine = StepFunctionBackend.create_state_machine
_change_state_machine = StepFunctionBackend.update_state_machine


def _store_checked(self: Any, name: str, definition: str, *args: Any, **kwargs: Any) -> Any:
    check_definition(definition, kwargs.get("sm_type"))
    given = kwargs.get("loggingConfiguration") or {}
    kwargs["loggingConfiguration"] = {"level": "OFF", "includeExecutionData": False, **given}
    return _store_state_machine(self, name, definition, *args, **kwargs)


def _change_checked(self: Any, arn: str, definition: str | None = None, *args: Any, **kwargs: Any) -> Any:
    settings = (definition, *args, *kwargs.values())
    if not any(value is not None for value in settings):
        raise MissingRequiredParameter(
            "Either the definition, the role ARN, the LoggingConfiguration, the EncryptionConfiguration "
            "or the TracingConfiguration must be specified"
        )
    if definition is not None:
        check_definition(definition, self.describe_state_machine(arn).type)
    return _change_state_machine(self, arn, definition, *args, **kwargs)


def install(engine: Engine) -> None:
    """Put the operations on moto's response class and one validating backend behind every caller."""
    # CloudFormation stores machines in this backend; moto's API would look into another.
    responses.get_backend = lambda account, region: models.stepfunctions_backends[account][region]
    StepFunctionBackend.create_state_machine = _store_checked
    StepFunctionBackend.update_state_machine = _change_checked
    StepFunctionResponse.engine = engine
    clear = StepFunctionBackend.reset

    def reset(backend: Any) -> None:
        engine.forget(lambda execution: execution.machine.region == backend.region_name)
        clear(backend)

    StepFunctionBackend.reset = reset
    for name, operation in vars(_Api).items():
        if callable(operation):
            setattr(StepFunctionResponse, name, operation)
