"""The types of states, and what each does."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from local.stepfunctions import choice
from local.stepfunctions.errors import NO_CHOICE, QUERY_EVALUATION, StateError, runtime_error
from local.stepfunctions.frame import Frame, Handler
from local.stepfunctions.history import compact
from local.stepfunctions.interpreter import run_flow, run_together
from local.stepfunctions.jsonata import is_expression
from local.stepfunctions.mapping import run_map
from local.stepfunctions.task import run_task
from local.stepfunctions.waiting import sleep_until, wait_deadline


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
    return frame.finish(await run_task(frame))


async def _map(frame: Frame) -> Any:
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
