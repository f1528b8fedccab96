"""Run the states of a definition: one coroutine for each line of control, no thread while it waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from local.stepfunctions import choice
from local.stepfunctions.errors import (
    DATA_LIMIT,
    NO_CHOICE,
    QUERY_EVALUATION,
    StateError,
    runtime_error,
)
from local.stepfunctions.history import compact, iso, now
from local.stepfunctions.jsonata import evaluate_template, is_expression, to_jsonata
from local.stepfunctions.paths import Scope, fill_template, place, resolve, select
from local.stepfunctions.waiting import sleep_until, wait_deadline

if TYPE_CHECKING:
    from local.stepfunctions.execution import Execution

PAYLOAD_LIMIT = 262_144
"""Bytes of the largest input, output or result."""

NEIGHBOUR_FAILED = "a branch or iteration beside this one failed"
"""Why :func:`run_together` cancels what still runs."""

RETRYING = frozenset({"Task", "Parallel", "Map"})
_NEVER = object()


@dataclass
class Flow:
    """One line of control: the top level, a branch of a Parallel state or an iteration of a Map state."""

    execution: Execution
    states: Mapping[str, Any]
    language: str
    context: dict[str, Any]
    outer: Mapping[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    previous: int = 0

    def record(self, kind: str, details: dict[str, Any] | None = None) -> int:
        """Append an event to the execution's history."""
        self.previous = self.execution.history.add(kind, self.previous, details)
        return self.previous

    def visible(self) -> dict[str, Any]:
        """Return every variable that a state of this flow can read."""
        return {**self.outer, **self.variables}

    def branch(self, machine: Mapping[str, Any], extra_context: Mapping[str, Any] | None = None) -> Flow:
        """Return a flow for nested states, which read this flow's variables but never set them."""
        return Flow(
            execution=self.execution,
            states=machine["States"],
            language=machine.get("QueryLanguage", self.language),
            context={**self.context, **(extra_context or {})},
            outer=self.visible(),
            previous=self.previous,
        )


def whole_number(value: Any) -> Any:
    """Return 5.0 as 5 and anything else as it is: JSON does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Frame:
    """One visit of one state: its definition, its input, and how its fields are evaluated."""

    def __init__(self, flow: Flow, name: str, state: Mapping[str, Any], raw: Any) -> None:
        self.flow = flow
        self.name = name
        self.state = state
        self.raw = raw
        self.jsonata = state.get("QueryLanguage", flow.language) == "JSONata"
        self.context = flow.context
        self.variables = flow.visible()
        self.next: str | None = state.get("Next")
        self.assigned: dict[str, Any] = {}
        self._bound: dict[str, Any] | None = None

    @property
    def execution(self) -> Execution:
        """The execution that this visit belongs to."""
        return self.flow.execution

    def bindings(self, **extra: Any) -> dict[str, Any]:
        """Return the variables of a JSONata expression; ``extra`` adds members of ``$states``."""
        if self._bound is None:
            self._bound = {name: to_jsonata(value) for name, value in self.variables.items()}
            self._bound["states"] = {"input": to_jsonata(self.raw)}
        states = {**self._bound["states"], "context": to_jsonata(self.context)}
        states.update((name, to_jsonata(value)) for name, value in extra.items())
        return {**self._bound, "states": states}

    def scope(self, data: Any) -> Scope:
        """Return what a JSONPath can see when ``$`` is the given data."""
        return Scope(data, self.context, self.variables)

    def evaluate(self, value: Any, where: str, **extra: Any) -> Any:
        """Evaluate a JSONata field of the state."""
        return evaluate_template(value, self.bindings(**extra), where)

    def effective_input(self) -> Any:
        """Return the input after InputPath."""
        if self.jsonata or "InputPath" not in self.state:
            return self.raw
        path = self.state["InputPath"]
        return {} if path is None else select(path, self.scope(self.raw), "InputPath")

    def arguments(self, default: Any = _NEVER) -> Any:
        """Return what the state works on: Arguments or Parameters, else the effective input."""
        if self.jsonata:
            if "Arguments" in self.state:
                return self.evaluate(self.state["Arguments"], "Arguments")
            return self.raw if default is _NEVER else default
        data = self.effective_input()
        if "Parameters" in self.state:
            return fill_template(self.state["Parameters"], self.scope(data), "Parameters")
        return data if default is _NEVER else default

    def setting(self, name: str, data: Any = None) -> Any:
        """Return a scalar field that may be a literal, an expression or a ``…Path``; None if absent."""
        if self.jsonata:
            value = self.state.get(name)
            return self.evaluate(value, name) if is_expression(value) else value
        if f"{name}Path" in self.state:
            source = self.effective_input() if data is None else data
            return resolve(self.state[f"{name}Path"], self.scope(source), f"{name}Path")
        return self.state.get(name)

    def whole(self, name: str, least: int = 0) -> int | None:
        """Return a setting that must be a whole number."""
        value = whole_number(self.setting(name))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            cause = f"The value {compact(value)} of the field '{name}' is not an integer of at least {least}"
            if self.jsonata:
                raise StateError(QUERY_EVALUATION, cause, location=name, interpreter=True)
            raise runtime_error(cause)
        return value

    def assign(self, declared: Mapping[str, Any] | None, data: Any, **extra: Any) -> None:
        """Evaluate an Assign field with the values that the variables had before the state."""
        if not declared:
            return
        if self.jsonata:
            values = self.evaluate(dict(declared), "Assign", **extra)
        else:
            values = fill_template(dict(declared), self.scope(data), "Assign")
        for name in values:
            if name in self.flow.outer:
                raise runtime_error(
                    f"The variable '{name}' belongs to an outer scope and cannot be assigned here"
                )
        self.assigned = values

    def finish(self, result: Any, default: Any = _NEVER) -> Any:
        """Turn a result into the state's output; ``default`` is that of JSONata states without Output."""
        if self.jsonata:
            extra = {"result": result} if default is _NEVER else {}
            self.assign(self.state.get("Assign"), None, **extra)
            if "Output" in self.state:
                return self.evaluate(self.state["Output"], "Output", **extra)
            return result if default is _NEVER else default
        if "ResultSelector" in self.state:
            result = fill_template(self.state["ResultSelector"], self.scope(result), "ResultSelector")
        self.assign(self.state.get("Assign"), result)
        if self.state["Type"] in RETRYING or self.state["Type"] == "Pass":
            path = self.state.get("ResultPath", "$")
            result = self.raw if path is None else place(path, self.raw, result)
        return self.output_path(result)

    def output_path(self, value: Any) -> Any:
        """Apply OutputPath."""
        path = self.state.get("OutputPath", "$")
        if path is None:
            return {}
        return value if path == "$" else select(path, self.scope(value), "OutputPath")


Handler = Callable[[Frame], Awaitable[Any]]


async def run_flow(flow: Flow, start_at: str, value: Any) -> Any:
    """Run states from ``start_at`` until one ends the flow, and return its output."""
    name: str | None = start_at
    while name is not None:
        # A machine that never waits must not starve the other executions of the loop.
        await asyncio.sleep(0)
        value, name = await run_state(flow, name, value)
    return value


async def run_state(flow: Flow, name: str, value: Any) -> tuple[Any, str | None]:
    """Visit one state, with its retries and catchers; return its output and the next state."""
    state = flow.states[name]
    kind = state["Type"]
    entered = flow.record(
        f"{kind}StateEntered", {"name": name, "input": compact(value), "inputDetails": _WHOLE}
    )
    flow.context["State"] = {"EnteredTime": iso(now()), "Name": name, "RetryCount": 0}
    attempts: dict[int, int] = {}
    while True:
        frame = Frame(flow, name, state, value)
        try:
            output = await HANDLERS[kind](frame)
            check_size(name, output)
        except asyncio.CancelledError as stop:
            # A stopped or timed out execution ends where it is; only a failed neighbour is told of here.
            if stop.args == (NEIGHBOUR_FAILED,):
                flow.record(f"{kind}StateAborted")
            raise
        except StateError as error:
            explain(error, flow, name, entered)
            if kind not in RETRYING:
                raise
            delay = _retry_delay(state, error, attempts)
            if delay is not None:
                await asyncio.sleep(delay)
                flow.context["State"]["RetryCount"] += 1
                continue
            output = catch_error(frame, error)
        flow.variables.update(frame.assigned)
        exited: dict[str, Any] = {"name": name, "output": compact(output), "outputDetails": _WHOLE}
        if frame.assigned:
            exited["assignedVariables"] = {key: compact(item) for key, item in frame.assigned.items()}
            exited["assignedVariablesDetails"] = _WHOLE
        flow.record(f"{kind}StateExited", exited)
        return output, frame.next


_WHOLE = {"truncated": False}


def check_size(name: str, output: Any) -> None:
    """Raise ``States.DataLimitExceeded`` if what a state or task returned is too large."""
    if len(compact(output).encode()) > PAYLOAD_LIMIT:
        raise StateError(
            DATA_LIMIT,
            f"The state/task '{name}' returned a result with a size exceeding "
            f"the maximum number of bytes service limit.",
        )


def explain(error: StateError, flow: Flow, name: str, entered: int) -> None:
    """Name the state in the cause of an error that the interpreter found, once."""
    if error.interpreter:
        if error.error == QUERY_EVALUATION:
            flow.record(
                "EvaluationFailed",
                {"error": error.error, "cause": error.cause, "location": error.location, "state": name},
            )
        error.cause = (
            f"An error occurred while executing the state '{name}' (entered at the event id #{entered}). "
            f"{error.cause}"
        )
        error.interpreter = False


def _retry_delay(state: Mapping[str, Any], error: StateError, attempts: dict[int, int]) -> float | None:
    """Return how long to wait before the next attempt, None when no retrier wants one."""
    for index, retrier in enumerate(state.get("Retry", ())):
        if not error.matches(retrier["ErrorEquals"]):
            continue
        done = attempts.get(index, 0)
        if done >= retrier.get("MaxAttempts", 3):
            return None
        attempts[index] = done + 1
        delay: float = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2.0) ** done
        delay = min(delay, retrier.get("MaxDelaySeconds", delay))
        if retrier.get("JitterStrategy", "NONE") == "FULL":
            delay = random.uniform(0, delay)  # noqa: S311 - jitter is no secret
        return delay
    return None


def catch_error(frame: Frame, error: StateError) -> Any:
    """Return the output of the first catcher that matches, or raise the error again."""
    for catcher in frame.state.get("Catch", ()):
        if not error.matches(catcher["ErrorEquals"]):
            continue
        frame.next = catcher["Next"]
        frame.assigned = {}
        caught = error.output()
        frame.assign(catcher.get("Assign"), caught, errorOutput=caught)
        if not frame.jsonata:
            path = catcher.get("ResultPath", "$")
            return frame.raw if path is None else place(path, frame.raw, caught)
        if "Output" in catcher:
            return frame.evaluate(catcher["Output"], "Catch/Output", errorOutput=caught)
        return caught
    raise error


async def run_together(jobs: Sequence[Callable[[], Coroutine[Any, Any, Any]]], limit: int = 0) -> list[Any]:
    """Run coroutines concurrently; the first failure cancels the others and is raised."""
    gate = asyncio.Semaphore(limit or max(len(jobs), 1))

    async def guarded(job: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async with gate:
            return await job()

    tasks = [asyncio.ensure_future(guarded(job)) for job in jobs]
    reason: str | None = NEIGHBOUR_FAILED
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done() and not task.cancelled() and (problem := task.exception()) is not None:
                raise problem
        return [task.result() for task in tasks]
    except asyncio.CancelledError as stop:
        reason = stop.args[0] if stop.args else None
        raise
    finally:
        for task in tasks:
            task.cancel(reason)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(frame: Frame) -> Any:
    if frame.jsonata:
        return frame.finish(None, default=frame.raw)
    return frame.finish(frame.state["Result"] if "Result" in frame.state else frame.arguments())


async def _succeed(frame: Frame) -> Any:
    frame.next = None
    if frame.jsonata:
        return frame.finish(None, default=frame.raw)
    return frame.finish(frame.effective_input())


async def _fail(frame: Frame) -> Any:
    data = frame.effective_input()
    texts = {}
    for name in ("Error", "Cause"):
        value = frame.setting(name, data)
        if value is not None and not isinstance(value, str):
            raise runtime_error(f"The field '{name}' must be a string, not {compact(value)}")
        texts[name] = value
    raise StateError(texts["Error"], texts["Cause"])


async def _wait(frame: Frame) -> Any:
    await sleep_until(wait_deadline(frame))
    if frame.jsonata:
        return frame.finish(None, default=frame.raw)
    return frame.finish(frame.effective_input())


async def _choice(frame: Frame) -> Any:
    data = frame.effective_input()
    for index, rule in enumerate(frame.state["Choices"]):
        if frame.jsonata:
            verdict = rule["Condition"]
            if is_expression(verdict):
                verdict = frame.evaluate(verdict, f"Choices[{index}]/Condition")
            if not isinstance(verdict, bool):
                raise StateError(
                    QUERY_EVALUATION,
                    f"The expression '{rule['Condition']}' specified for the field "
                    f"'Choices[{index}]/Condition' returned {compact(verdict)}, not a boolean.",
                    location=f"Choices[{index}]/Condition",
                    interpreter=True,
                )
        else:
            verdict = choice.holds(rule, frame.scope(data))
        if verdict:
            frame.next = rule["Next"]
            return _choose(frame, rule, data)
    if "Default" not in frame.state:
        raise StateError(NO_CHOICE, "No choice rule matched and the state has no Default.", interpreter=True)
    frame.next = frame.state["Default"]
    return _choose(frame, frame.state, data)


def _choose(frame: Frame, rule: Mapping[str, Any], data: Any) -> Any:
    frame.assign(rule.get("Assign"), data)
    if not frame.jsonata:
        return frame.output_path(data)
    return frame.evaluate(rule["Output"], "Output") if "Output" in rule else frame.raw


async def _parallel(frame: Frame) -> Any:
    value = frame.arguments()
    frame.flow.record("ParallelStateStarted")
    branches = [(frame.flow.branch(machine), machine["StartAt"]) for machine in frame.state["Branches"]]
    try:
        outputs = await run_together([partial(run_flow, flow, start, value) for flow, start in branches])
    except StateError as error:
        frame.flow.previous = max(flow.previous for flow, _ in branches)
        frame.flow.record("ParallelStateFailed", {"error": error.error, "cause": error.cause})
        raise
    frame.flow.previous = max(flow.previous for flow, _ in branches)
    frame.flow.record("ParallelStateSucceeded")
    return frame.finish(outputs)


async def _task(frame: Frame) -> Any:
    from local.stepfunctions.task import run_task

    return frame.finish(await run_task(frame))


async def _map(frame: Frame) -> Any:
    from local.stepfunctions.mapping import run_map

    return frame.finish(await run_map(frame))


HANDLERS: dict[str, Handler] = {
    "Pass": _pass,
    "Succeed": _succeed,
    "Fail": _fail,
    "Wait": _wait,
    "Choice": _choice,
    "Parallel": _parallel,
    "Task": _task,
    "Map": _map,
}
