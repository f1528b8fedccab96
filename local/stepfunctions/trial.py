"""TestState: one state alone, with what its retriers and catchers would have done."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

from local.stepfunctions.errors import StateError
from local.stepfunctions.execution import Engine, Execution
from local.stepfunctions.frame import Flow, Frame
from local.stepfunctions.history import compact
from local.stepfunctions.interpreter import catch_error, explain
from local.stepfunctions.machine import Machine
from local.stepfunctions.states import HANDLERS

_NAME = "TestedState"


def try_state(
    engine: Engine, state: Mapping[str, Any], text: str, variables: Mapping[str, Any], role: str, region: str
) -> dict[str, Any]:
    """Run a state once and return the answer of TestState."""
    account = engine.aws.account_id
    arn = f"arn:aws:states:{region}:{account}:stateMachine:TestState"
    name = str(uuid.uuid4())
    definition = {"StartAt": _NAME, "States": {_NAME: state}}
    machine = Machine(arn, "TestState", definition, role, "EXPRESS", account, region)
    execution = Execution(engine, machine, name, f"{arn.replace('stateMachine', 'express')}:{name}", text)
    flow = Flow(
        execution=execution,
        handlers=HANDLERS,
        states={_NAME: state},
        language=state.get("QueryLanguage", "JSONPath"),
        context=execution.context(),
        variables=dict(variables),
    )
    flow.context["State"] = {"EnteredTime": None, "Name": _NAME, "RetryCount": 0}
    frame = Frame(flow, _NAME, state, json.loads(text))
    return asyncio.run_coroutine_threadsafe(_run(frame), engine.loop).result()


async def _run(frame: Frame) -> dict[str, Any]:
    try:
        output = await HANDLERS[frame.state["Type"]](frame)
    except StateError as error:
        explain(error, frame.flow, _NAME, 1)
        answer = {"status": "FAILED", **_error(error)}
        if any(error.matches(rule["ErrorEquals"]) for rule in frame.state.get("Retry", ())):
            return {**answer, "status": "RETRIABLE"}
        try:
            output = catch_error(frame, error)
        except StateError:
            return answer
        return {**answer, "status": "CAUGHT_ERROR", "output": compact(output), "nextState": frame.next}
    answer = {"status": "SUCCEEDED", "output": compact(output)}
    return {**answer, "nextState": frame.next} if frame.next is not None else answer


def _error(error: StateError) -> dict[str, str]:
    return {
        key: value for key, value in (("error", error.error), ("cause", error.cause)) if value is not None
    }
