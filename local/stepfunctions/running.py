"""Run an execution from its first state to its terminal status."""

from __future__ import annotations

import asyncio
import json
import logging

from local.stepfunctions.errors import RUNTIME, ExecutionLimitError, StateError
from local.stepfunctions.execution import Execution
from local.stepfunctions.frame import Flow
from local.stepfunctions.interpreter import run_flow
from local.stepfunctions.states import HANDLERS

log = logging.getLogger("local.stepfunctions")


async def run(execution: Execution) -> None:
    """Run to the end; whatever happens, the execution gets a terminal status."""
    definition = execution.machine.definition
    flow = Flow(
        execution=execution,
        handlers=HANDLERS,
        states=definition["States"],
        language=definition.get("QueryLanguage", "JSONPath"),
        context=execution.context(),
    )
    try:
        execution.begin()
        value = json.loads(execution.execution_input)
        async with asyncio.timeout(definition.get("TimeoutSeconds")) as limit:
            result = await run_flow(flow, definition["StartAt"], value)
        execution.succeed(flow.previous, result)
    except asyncio.CancelledError:
        execution.abort(flow.previous)
    except TimeoutError:
        if limit.expired():
            execution.time_out(flow.previous)
        else:
            _crash(execution, flow)
    except StateError as error:
        execution.fail(flow.previous, error.error, error.cause)
    except ExecutionLimitError as error:
        execution.fail(flow.previous, RUNTIME, str(error))
    except Exception:
        _crash(execution, flow)


def _crash(execution: Execution, flow: Flow) -> None:
    log.exception("the interpreter failed in the execution %s", execution.execution_arn)
    cause = "The interpreter failed: the server's log has the traceback"
    execution.fail(flow.previous, RUNTIME, cause)
