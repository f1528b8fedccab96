"""``truthloop decisions``: why it did, or did not, retrain or deploy."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer
from rich import box
from rich.markup import escape
from rich.table import Table

from cli.stack import Stack

COLOURS = {
    "SUCCEEDED": "green",
    "DEPLOYED": "green",
    "COALESCED": "cyan",
    "REFUSED": "cyan",
    "SUPERSEDED": "cyan",
    "REJECTED_BY_GATE": "yellow",
    "REJECTED": "red",
    "FAILED": "red",
    "STOPPED": "red",
}


def read(stack: Stack, limit: int | None) -> list[dict[str, Any]]:
    """Return the newest decisions, newest first; ``None`` as limit means all."""
    client = stack.client("dynamodb")
    decode = TypeDeserializer().deserialize
    pages = client.get_paginator("query").paginate(
        TableName=stack.outputs["LoopTableName"],
        KeyConditionExpression="pk = :decision",
        ExpressionAttributeValues={":decision": {"S": "DECISION"}},
        ScanIndexForward=False,
        PaginationConfig={"MaxItems": limit},
    )
    return [
        {name: plain(decode(value)) for name, value in item.items() if name not in {"pk", "sk"}}
        for page in pages
        for item in page["Items"]
    ]


def plain(value: Any) -> Any:
    """Turn what DynamoDB's deserialiser returns into JSON values."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(inner) for inner in value]
    return value


def table(decisions: list[dict[str, Any]]) -> Table:
    """Render the decisions, one row each."""
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("at (UTC)", "generation", "outcome", "triggers"):
        rendered.add_column(name, no_wrap=name != "triggers")
    rendered.add_column("estimate", justify="right", no_wrap=True)
    rendered.add_column("reason", overflow="fold", ratio=1)
    for decision in decisions:
        outcome = str(decision.get("outcome", "?"))
        colour = COLOURS.get(outcome, "default")
        estimate = decision.get("estimatedUsd")
        rendered.add_row(
            escape(str(decision.get("at", ""))[:19].replace("T", " ")),
            escape(decision.get("generation") or ""),
            f"[{colour}]{escape(outcome)}[/{colour}]",
            escape(triggers(decision)),
            f"${estimate:,.2f}" if estimate else "",
            escape(reason(decision)),
        )
    return rendered


def triggers(decision: dict[str, Any]) -> str:
    """Name the kinds of the triggers, each with its number if it came more than once."""
    kinds = Counter(str(trigger.get("kind", "?")) for trigger in decision.get("triggers") or [])
    return ", ".join(kind if count == 1 else f"{kind} × {count}" for kind, count in kinds.items())


def reason(decision: dict[str, Any]) -> str:
    """Return the reason code, and the message if it says more."""
    code, message = str(decision.get("reason") or ""), str(decision.get("message") or "")
    return f"{code}: {message}" if code and message and message != code else code or message
