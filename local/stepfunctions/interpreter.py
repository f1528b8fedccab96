"""Visit the states of a definition: one coroutine for each line of control, no thread while it waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from local.stepfunctions.errors import QUERY_EVALUATION, StateError
from local.stepfunctions.frame import RETRYING, Flow, Frame, check_size
from local.stepfunctions.history import compact, iso, now
from local.stepfunctions.paths import place

NEIGHBOUR_FAILED = "a branch or iteration beside this one failed"
"""Why :func:`run_together` cancels what still runs."""


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
            output = await flow.handlers[kind](frame)
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
