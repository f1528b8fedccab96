"""The loop table in DynamoDB: every change of the generation record is one conditional write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from truthloop.aws.attributes import from_item, to_attribute, to_item
from truthloop.aws.calls import translated
from truthloop.errors import RecordInvalid
from truthloop.retraining.claim import CLAIMED, IDLE, GenerationRecord, LastRun, Orphan, Take, TakeOver
from truthloop.retraining.decision import Decision, decision_key
from truthloop.retraining.triggers import Trigger
from truthloop.times import from_iso

_RECORD_KEY = to_item({"pk": "GENERATION", "sk": "CURRENT"})
_DECISIONS = "DECISION"
_TESTED = "TESTED"
_HELD = "#status = :claimed AND #holder = :holder AND #generation = :generation"
_NO_RUN = "attribute_not_exists(starting) AND attribute_not_exists(pipelineExecutionArn)"
_NAMES = {"#status": "status", "#holder": "holder", "#generation": "generation"}


class DynamoLoopTable:
    """Implements ``ports.LoopTable``."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name

    def read(self) -> GenerationRecord | None:
        """Read the record, strongly consistent."""
        with translated():
            answer = self._client.get_item(TableName=self._name, Key=_RECORD_KEY, ConsistentRead=True)
        if "Item" not in answer:
            return None
        try:
            return _record(from_item(answer["Item"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecordInvalid(
                f"the generation record in {self._name} cannot be read ({error!r}): restore it from a backup"
            ) from error

    def take(self, plan: Take, execution: str, at: str) -> None:
        """Write a claim of the next generation, unless the record has moved on."""
        condition = "attribute_not_exists(pk)"
        expected: dict[str, Any] = {}
        if plan.expected_generation is not None:
            condition = "#status = :idle AND #generation = :expected"
            expected = {":idle": IDLE, ":expected": plan.expected_generation}
        found = {
            "pipelineExecutionArn": plan.pipeline_execution_arn,
            "lastRun": plan.run.to_map() if plan.run else None,
            "waitsFor": plan.waits_for.to_map() if plan.waits_for else None,
        }
        known = {name: value for name, value in found.items() if value is not None}
        unknown = [name for name in found if name not in known and name != "lastRun"]
        self._update(
            "SET #generation = :generation, #status = :claimed, #holder = :holder, claimedAt = :at, "
            "triggers = :triggers, pending = :pending"
            + "".join(f", {name} = :{name}" for name in known)
            + f" REMOVE {', '.join(['starting', 'startAskedAt', 'adoptedFrom', *unknown])}",
            condition,
            {},
            {
                **expected,
                ":generation": plan.generation,
                ":claimed": CLAIMED,
                ":holder": execution,
                ":at": at,
                ":triggers": _triggers(plan.triggers),
                ":pending": _triggers(plan.pending),
                **{f":{name}": value for name, value in known.items()},
            },
        )

    def take_over(
        self,
        plan: TakeOver,
        execution: str,
        at: str,
        pipeline_execution_arn: str | None,
        run: LastRun | None,
    ) -> None:
        """Write a claim in place of a holder that has ended, with the pipeline execution that it left."""
        found = ", pipelineExecutionArn = :arn" if pipeline_execution_arn else ""
        if run is not None:
            found += ", lastRun = :run"
        waiting = [plan.waiting] if plan.waiting else []
        pending, names, values = _pending(waiting)
        self._update(
            "SET #holder = :taker, claimedAt = :at, adoptedFrom = :holder, triggers = :triggers"
            + found
            + pending,
            _HELD if plan.has_run else f"{_HELD} AND {_NO_RUN}",
            names,
            {
                **_held(plan.generation, plan.expected_holder),
                ":taker": execution,
                ":at": at,
                ":triggers": _triggers(plan.triggers),
                **values,
                **({":arn": pipeline_execution_arn} if pipeline_execution_arn else {}),
                **({":run": run.to_map()} if run else {}),
            },
        )

    def coalesce(self, generation: int, holder: str, trigger: Trigger, decision: Decision) -> None:
        """Record a trigger with the live holder's claim, and its decision, in one transaction."""
        with translated():
            self._client.transact_write_items(
                TransactItems=[
                    {
                        "Update": self._change(
                            "SET pending.#trigger = :trigger",
                            _HELD,
                            {"#trigger": trigger.id},
                            {**_held(generation, holder), ":trigger": trigger.to_map()},
                        )
                    },
                    {"Put": self._decision(decision)},
                ]
            )

    def request_start(self, generation: int, execution: str, run: LastRun, at: str) -> None:
        """Record, under the claim, that the pipeline is about to be started."""
        self._update(
            "SET starting = if_not_exists(starting, :run), startAskedAt = :at",
            _HELD,
            {},
            {**_held(generation, execution), ":run": run.to_map(), ":at": at},
        )

    def record_start(
        self, generation: int, execution: str, pipeline_execution_arn: str, run: LastRun | None
    ) -> None:
        """Record, under the claim, the pipeline execution and what it was started on."""
        values = {**_held(generation, execution), ":arn": pipeline_execution_arn}
        expression = "SET pipelineExecutionArn = :arn"
        if run is not None:
            expression += ", lastRun = :run"
            values[":run"] = run.to_map()
        self._update(expression, _HELD, {}, values)

    def wait_for(
        self, generation: int, execution: str, orphan: Orphan, waiting: Mapping[str, Trigger]
    ) -> None:
        """Record, under the claim, that it only waits for an orphan; its triggers go to those that wait."""
        # Each by its own name: others may be joining the map at the same time.
        pending, names, values = _pending(list(waiting.values()))
        self._update(
            "SET waitsFor = :orphan, pipelineExecutionArn = :arn, triggers = :none"
            + pending
            + " REMOVE starting, startAskedAt",
            _HELD,
            names,
            {
                **_held(generation, execution),
                ":orphan": orphan.to_map(),
                ":arn": orphan.pipeline_execution_arn,
                ":none": {},
                **values,
            },
        )

    def release(
        self, record: GenerationRecord, decision: Decision, run: LastRun | None, *, trained: bool
    ) -> None:
        """Make the record idle and write the decision, in one transaction; what is pending stays."""
        expression = "SET #status = :idle, triggers = :none"
        values = {**_held(record.generation, record.holder or ""), ":idle": IDLE, ":none": {}}
        if run is not None:
            expression += ", lastRun = :run" + (", lastTrained = :run" if trained else "")
            values[":run"] = run.to_map()
        with translated():
            self._client.transact_write_items(
                TransactItems=[
                    {
                        "Update": self._change(
                            expression
                            + " REMOVE #holder, claimedAt, pipelineExecutionArn, starting, startAskedAt, "
                            "adoptedFrom, waitsFor",
                            _HELD,
                            {},
                            values,
                        )
                    },
                    {"Put": self._decision(decision)},
                ]
            )

    def find_decision(self, execution: str, generation: str) -> Mapping[str, Any] | None:
        """Read the newest decision of an execution about a generation, strongly consistent."""
        with translated():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._name,
                KeyConditionExpression="pk = :pk",
                FilterExpression="execution = :execution AND generation = :generation",
                ExpressionAttributeValues=to_item(
                    {":pk": _DECISIONS, ":execution": execution, ":generation": generation}
                ),
                ScanIndexForward=False,
                ConsistentRead=True,
            )
            found = next((item for page in pages for item in page["Items"]), None)
        return from_item(found) if found else None

    def has_decision(self, at: str, execution: str) -> bool:
        """Look for the decision of an execution at a time, strongly consistent."""
        key = to_item({"pk": _DECISIONS, "sk": decision_key(at, execution)})
        with translated():
            return "Item" in self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True)

    def put_decision(self, decision: Decision) -> None:
        """Write one decision; its key is its time and execution, so the same one again changes nothing."""
        with translated():
            self._client.put_item(**self._decision(decision))

    def mark_tested(self, config_name: str, at: str) -> None:
        """Write the item of a configuration; the same again changes nothing but its time."""
        item = {"pk": _TESTED, "sk": config_name, "at": at}
        with translated():
            self._client.put_item(TableName=self._name, Item=to_item(item))

    def was_tested(self, config_name: str) -> bool:
        """Look for the item of a configuration, strongly consistent."""
        key = to_item({"pk": _TESTED, "sk": config_name})
        with translated():
            return "Item" in self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True)

    def spent_usd(self, month: str) -> float:
        """Sum the estimates of the month's runs: the decisions that name a pipeline execution."""
        total = 0.0
        with translated():
            pages = self._client.get_paginator("query").paginate(
                TableName=self._name,
                KeyConditionExpression="pk = :pk AND begins_with(sk, :month)",
                ExpressionAttributeValues=to_item({":pk": _DECISIONS, ":month": month}),
                ProjectionExpression="estimatedUsd, pipelineExecutionArn",
                ConsistentRead=True,
            )
            for page in pages:
                for item in map(from_item, page["Items"]):
                    if item.get("pipelineExecutionArn"):
                        total += float(item.get("estimatedUsd") or 0)
        return round(total, 2)

    def _update(
        self, expression: str, condition: str, names: Mapping[str, str], values: Mapping[str, Any]
    ) -> None:
        with translated():
            self._client.update_item(**self._change(expression, condition, names, values))

    def _change(
        self, expression: str, condition: str, names: Mapping[str, str], values: Mapping[str, Any]
    ) -> dict[str, Any]:
        # DynamoDB refuses names and values that an expression does not use.
        used = {name: meant for name, meant in _NAMES.items() if name in expression + condition}
        return {
            "TableName": self._name,
            "Key": _RECORD_KEY,
            "UpdateExpression": expression,
            "ConditionExpression": condition,
            "ExpressionAttributeValues": {key: to_attribute(value) for key, value in values.items()},
            **({"ExpressionAttributeNames": {**used, **names}} if used or names else {}),
        }

    def _decision(self, decision: Decision) -> dict[str, Any]:
        item = {"pk": _DECISIONS, "sk": decision.sort_key, **decision.to_map()}
        return {"TableName": self._name, "Item": to_item(item)}


def _held(generation: int, holder: str) -> dict[str, Any]:
    return {":claimed": CLAIMED, ":holder": holder, ":generation": generation}


def _pending(waiting: Sequence[Trigger]) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Return the part of an expression that adds triggers to the map of those that wait."""
    expression = "".join(f", pending.#t{place} = :t{place}" for place, _ in enumerate(waiting))
    names = {f"#t{place}": trigger.id for place, trigger in enumerate(waiting)}
    return expression, names, {f":t{place}": trigger.to_map() for place, trigger in enumerate(waiting)}


def _triggers(triggers: Mapping[str, Trigger]) -> dict[str, Any]:
    return {identifier: trigger.to_map() for identifier, trigger in triggers.items()}


def _record(item: Mapping[str, Any]) -> GenerationRecord:
    return GenerationRecord(
        generation=int(item["generation"]),
        status=str(item["status"]),
        holder=item.get("holder"),
        claimed_at=_moment(item.get("claimedAt")),
        triggers=_read_triggers(item.get("triggers")),
        pending=_read_triggers(item.get("pending")),
        pipeline_execution_arn=item.get("pipelineExecutionArn"),
        starting=_read_run(item.get("starting")),
        start_asked_at=_moment(item.get("startAskedAt")),
        adopted_from=item.get("adoptedFrom"),
        last_run=_read_run(item.get("lastRun")),
        last_trained=_read_run(item.get("lastTrained")),
        waits_for=Orphan.from_map(item["waitsFor"]) if item.get("waitsFor") else None,
    )


def _moment(value: str | None) -> str | None:
    if value is not None:
        from_iso(value)  # who reads it later could not say whose fault it is
    return value


def _read_run(value: Mapping[str, Any] | None) -> LastRun | None:
    return LastRun.from_map(value) if value else None


def _read_triggers(value: Mapping[str, Any] | None) -> dict[str, Trigger]:
    return {identifier: Trigger.from_map(identifier, part) for identifier, part in (value or {}).items()}
