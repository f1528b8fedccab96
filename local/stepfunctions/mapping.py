"""Map states: iterations inside the execution (inline) or child executions of a map run (distributed)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from local.stepfunctions import mapfiles
from local.stepfunctions.errors import QUERY_EVALUATION, TOLERANCE, StateError, runtime_error
from local.stepfunctions.execution import Execution
from local.stepfunctions.frame import Flow, Frame
from local.stepfunctions.history import compact, now
from local.stepfunctions.interpreter import run_flow, run_together
from local.stepfunctions.machine import Machine
from local.stepfunctions.paths import select
from local.stepfunctions.templates import fill_template

_MOST_CHILDREN = 1000
"""Child executions that run at the same time when the state sets no MaxConcurrency."""


async def run_map(frame: Frame) -> Any:
    """Run a Map state and return its raw result."""
    state = frame.state
    processor = state.get("ItemProcessor", state.get("Iterator"))
    distributed = processor.get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED"
    reader = state.get("ItemReader")
    items = await mapfiles.read_items(frame, reader) if reader is not None else _items(frame)
    source = mapfiles.source(frame, reader) if reader is not None else "STATE_DATA"
    contexts = [
        {"Index": index, "Value": value} | ({"Key": key} if key is not None else {}) | {"Source": source}
        for index, (key, value) in enumerate(items)
    ]
    inputs = [_select(frame, item) for item in contexts]
    limit = frame.whole("MaxConcurrency") or 0
    if distributed:
        return await _run_distributed(frame, processor, inputs, limit)
    return await _run_inline(frame, processor, list(zip(contexts, inputs, strict=True)), limit)


def _items(frame: Frame) -> list[tuple[str | None, Any]]:
    """Return the items that the state's input or Items field holds, with keys if they come from an object."""
    if frame.jsonata:
        value = frame.evaluate(frame.state["Items"], "Items") if "Items" in frame.state else frame.raw
    else:
        value = frame.effective_input()
        if "ItemsPath" in frame.state:
            value = select(frame.state["ItemsPath"], frame.scope(value), "ItemsPath")
    if isinstance(value, list):
        return [(None, item) for item in value]
    if isinstance(value, dict):
        return list(value.items())
    if frame.jsonata:
        raise StateError(
            QUERY_EVALUATION,
            f"The JSONata expression '{frame.state.get('Items')}' specified for the field 'Items' returned "
            f"an unexpected result type. Expected 'array', but was {compact(value)}.",
            location="Items",
            interpreter=True,
        )
    path = frame.state.get("ItemsPath", "$")
    raise runtime_error(f'Reference path "{path}" must point to array, but points to {compact(value)}.')


def _select(frame: Frame, item: dict[str, Any]) -> Any:
    """Return the input of one iteration: the item, or what ItemSelector makes of it."""
    selector = frame.state.get("ItemSelector")
    frame.flow.context["Map"] = {"Item": item}
    try:
        if selector is not None:
            if frame.jsonata:
                return frame.evaluate(selector, "ItemSelector")
            return fill_template(selector, frame.scope(frame.effective_input()), "ItemSelector")
        if not frame.jsonata and "Parameters" in frame.state:
            return fill_template(
                frame.state["Parameters"], frame.scope(frame.effective_input()), "Parameters"
            )
    finally:
        frame.flow.context.pop("Map")
    return {"Key": item["Key"], "Value": item["Value"]} if "Key" in item else item["Value"]


async def _run_inline(
    frame: Frame, processor: Mapping[str, Any], items: list[tuple[dict[str, Any], Any]], limit: int
) -> Any:
    flow, name = frame.flow, frame.name
    flow.record("MapStateStarted", {"length": len(items)})
    branches: list[Flow] = []

    async def iterate(index: int, item: dict[str, Any], value: Any) -> Any:
        # The context keeps the item as it came, whatever ItemSelector made of it.
        branch = flow.branch(processor, {"Map": {"Item": item}})
        branches.append(branch)
        about = {"name": name, "index": index}
        branch.record("MapIterationStarted", about)
        try:
            output = await run_flow(branch, processor["StartAt"], value)
        except StateError:
            branch.record("MapIterationFailed", about)
            raise
        except asyncio.CancelledError:
            branch.record("MapIterationAborted", about)
            raise
        branch.record("MapIterationSucceeded", about)
        return output

    jobs = [partial(iterate, index, item, value) for index, (item, value) in enumerate(items)]
    try:
        outputs = await run_together(jobs, limit)
    except StateError as error:
        flow.previous = max((branch.previous for branch in branches), default=flow.previous)
        flow.record("MapStateFailed", {"error": error.error, "cause": error.cause})
        raise
    flow.previous = max((branch.previous for branch in branches), default=flow.previous)
    flow.record("MapStateSucceeded")
    return outputs


class MapRun:
    """One run of a distributed Map: its settings, its children and their counts."""

    def __init__(
        self, execution: Execution, arn: str, sizes: list[int], limit: int, count: int, percentage: float
    ) -> None:
        self.execution = execution
        self.arn = arn
        self.sizes = sizes
        self.limit = limit
        self.count = count
        self.percentage = percentage
        self.status = "RUNNING"
        self.start_date = now()
        self.stop_date: Any = None
        self.children: dict[int, Execution] = {}
        self.written = 0
        self.changed = asyncio.Event()

    def item(self) -> dict[str, Any]:
        """Return the run as ListMapRuns shows it."""
        found = {
            "executionArn": self.execution.execution_arn,
            "mapRunArn": self.arn,
            "stateMachineArn": self.execution.machine.arn,
            "startDate": self.start_date,
        }
        return found | ({"stopDate": self.stop_date} if self.stop_date else {})

    def _counts(self, *, items: bool) -> dict[str, int]:
        counts = dict.fromkeys(("pending", "running", "succeeded", "failed", "timedOut", "aborted"), 0)
        for index, size in enumerate(self.sizes):
            child = self.children.get(index)
            status = (
                "pending"
                if child is None
                else {"TIMED_OUT": "timedOut"}.get(child.status, child.status.lower())
            )
            if child is None and self.status != "RUNNING":
                status = "aborted"
            counts[status] += size if items else 1
        total = sum(self.sizes) if items else len(self.sizes)
        written = self.written if items else sum(1 for _ in self.children if self.written)
        return {**counts, "total": total, "resultsWritten": written}

    def describe(self) -> dict[str, Any]:
        """Return the run as DescribeMapRun shows it."""
        return {
            "mapRunArn": self.arn,
            "executionArn": self.execution.execution_arn,
            "status": self.status,
            "startDate": self.start_date,
            "maxConcurrency": self.limit,
            "toleratedFailurePercentage": self.percentage,
            "toleratedFailureCount": self.count,
            "itemCounts": self._counts(items=True),
            "executionCounts": self._counts(items=False),
            "redriveCount": 0,
        } | ({"stopDate": self.stop_date} if self.stop_date else {})

    def update(self, limit: int | None, count: int | None, percentage: float | None) -> None:
        """Change the settings of a run that goes on."""
        if limit is not None:
            self.limit = limit
        if count is not None:
            self.count = count
        if percentage is not None:
            self.percentage = percentage
        self.execution.engine.loop.call_soon_threadsafe(self.changed.set)

    def intolerable(self) -> bool:
        """Tell whether more items have failed than the state tolerates."""
        failed = sum(
            size
            for index, size in enumerate(self.sizes)
            if index in self.children and self.children[index].status in ("FAILED", "TIMED_OUT", "ABORTED")
        )
        if failed == 0:
            return False
        # Exceeding either threshold fails the run; a threshold of 0 that stands beside another is unset.
        if self.percentage and 100 * failed / sum(self.sizes) > self.percentage:
            return True
        if self.count:
            return failed > self.count
        return not self.percentage

    def end(self, status: str) -> None:
        """Give the run its terminal status."""
        self.status = status
        self.stop_date = now()


async def _run_distributed(frame: Frame, processor: Mapping[str, Any], inputs: list[Any], limit: int) -> Any:
    execution, flow = frame.execution, frame.flow
    engine = execution.engine
    label = frame.state.get("Label") or "".join(mark for mark in frame.name if mark.isalnum())[:40]
    batches = _batches(frame, inputs)
    arn = execution.machine.arn.replace(":stateMachine:", ":mapRun:") + f"/{label}:{uuid.uuid4()}"
    run = MapRun(
        execution,
        arn,
        [size for _, size in batches],
        limit,
        frame.whole("ToleratedFailureCount") or 0,
        frame.setting("ToleratedFailurePercentage") or 0,
    )
    engine.map_runs[arn] = run
    execution.map_runs.append(run)
    flow.record("MapStateStarted", {"length": len(inputs)})
    flow.record("MapRunStarted", {"mapRunArn": arn})
    try:
        await _run_children(frame, processor, run, [value for value, _ in batches], label)
        writer = frame.state.get("ResultWriter")
        children = [run.children[index] for index in sorted(run.children)]
        result: Any
        if writer is not None and (
            writer.get("Resource") or writer.get("Arguments") or writer.get("Parameters")
        ):
            result = await mapfiles.write_results(frame, writer, arn, children)
            run.written = sum(run.sizes)
        else:
            result = mapfiles.transform(writer or {}, children)
    except StateError as error:
        run.end("FAILED")
        flow.record("MapRunFailed", {"error": error.error, "cause": error.cause})
        flow.record("MapStateFailed", {"error": error.error, "cause": error.cause})
        raise
    except asyncio.CancelledError:
        run.end("ABORTED")
        flow.record("MapRunAborted")
        raise
    run.end("SUCCEEDED")
    flow.record("MapRunSucceeded")
    flow.record("MapStateSucceeded")
    return result


def _batches(frame: Frame, inputs: list[Any]) -> list[tuple[Any, int]]:
    """Return the input of each child with the number of items in it."""
    batcher = frame.state.get("ItemBatcher")
    if batcher is None:
        return [(value, 1) for value in inputs]

    def number(name: str) -> int:
        value = batcher.get(name)
        if f"{name}Path" in batcher:
            value = select(batcher[f"{name}Path"], frame.scope(frame.effective_input()), f"{name}Path")
        elif frame.jsonata and isinstance(value, str):
            value = frame.evaluate(value, f"ItemBatcher/{name}")
        return int(value or 0)

    extra: dict[str, Any] = {}
    if "BatchInput" in batcher:
        common = batcher["BatchInput"]
        extra["BatchInput"] = (
            frame.evaluate(common, "ItemBatcher/BatchInput")
            if frame.jsonata
            else fill_template(common, frame.scope(frame.effective_input()), "BatchInput")
        )
    most, room = number("MaxItemsPerBatch"), number("MaxInputBytesPerBatch")
    groups: list[list[Any]] = []
    used = 0
    for value in inputs:
        size = len(compact(value).encode()) + 1
        full = groups and ((most and len(groups[-1]) >= most) or (room and used + size > room))
        if not groups or full:
            groups.append([])
            used = len(compact({**extra, "Items": []}).encode())
        groups[-1].append(value)
        used += size
    return [({**extra, "Items": group}, len(group)) for group in groups]


async def _run_children(
    frame: Frame, processor: Mapping[str, Any], run: MapRun, inputs: list[Any], label: str
) -> None:
    """Run a child execution for each input, as many at a time as the run allows at that moment."""
    execution = frame.execution
    parent = execution.machine
    machine = Machine(
        arn=f"{parent.arn}/{label}",
        name=parent.name,
        definition={"QueryLanguage": frame.flow.language, **processor},
        role_arn=parent.role_arn,
        kind=processor.get("ProcessorConfig", {}).get("ExecutionType", "STANDARD"),
        account_id=parent.account_id,
        region=parent.region,
    )
    active: set[asyncio.Task[Any]] = set()
    ahead = 0
    try:
        while (ahead < len(inputs) or active) and not run.intolerable():
            while ahead < len(inputs) and len(active) < (run.limit or _MOST_CHILDREN):
                child = execution.engine.child(execution, machine, inputs[ahead], run.arn)
                run.children[ahead] = child
                active.add(asyncio.ensure_future(execution.engine.run(child)))
                ahead += 1
            run.changed.clear()
            change = asyncio.ensure_future(run.changed.wait())
            try:
                done, _ = await asyncio.wait({*active, change}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
            active -= done
    finally:
        for task in active:
            task.cancel()
        await asyncio.gather(*active, return_exceptions=True)
    if run.intolerable():
        raise StateError(TOLERANCE, "The specified tolerated failure threshold was exceeded")
