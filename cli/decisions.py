"""``truthloop decisions``: why it did, or did not, retrain or deploy."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from boto3.dynamodb.types import TypeDeserializer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.output import print_json
from cli.stack import Stack
from truthloop.names import generation_name, generation_number
from truthloop.retraining.report import report
from truthloop.times import from_iso, to_iso

DEFAULT_LIMIT = 20
NO_GENERATION = "none"
"""What is logged beside any generation: inputs that are no reason to look, and people who were forgotten."""

COLOURS = {
    "SUCCEEDED": "green",
    "DEPLOYED": "green",
    "COALESCED": "cyan",
    "REFUSED": "cyan",
    "SUPERSEDED": "cyan",
    "WAITED": "cyan",
    "REJECTED_BY_GATE": "yellow",
    "REJECTED": "red",
    "FAILED": "red",
    "STOPPED": "red",
    "INVALID": "red",
    "FORGOTTEN": "magenta",
}


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "decisions",
        parents=[common],
        help="the decision log, newest first: why it did or did not retrain",
    )
    command.add_argument(
        "generation",
        nargs="?",
        metavar="GENERATION",
        type=_generation,
        help="such as g00000007 or 7; none for what belongs to none",
    )
    command.add_argument(
        "--limit", type=_positive, help="how many decisions (default: 20; all of a generation)"
    )
    command.add_argument("--outcome", metavar="X", type=str.upper, help="only these, such as REFUSED")
    command.add_argument(
        "--since",
        metavar="T",
        type=_since,
        help="only from then on: 2026-11-22, 2026-11-22T10:00:00Z, 24h, 7d",
    )


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code."""
    limit = given.limit or (None if given.generation else DEFAULT_LIMIT)
    found = read(stack, limit, generation=given.generation, outcome=given.outcome, since=given.since)
    if given.json:
        print_json(found)
    elif not found and any((given.generation, given.outcome, given.since)):
        console.print("no such decision: truthloop decisions shows the newest")
    elif not found:
        console.print("no decisions yet: nothing has started the retrain state machine")
    elif given.generation:
        # In the order in which it happened, each as it was mailed.
        console.print("\n\n----\n\n".join(map(report, reversed(found))), markup=False, soft_wrap=True)
    else:
        console.print(table(found))
        console.print("\nIn plain words: truthloop decisions GENERATION", markup=False)
    return 0


def read(
    stack: Stack,
    limit: int | None,
    *,
    generation: str | None = None,
    outcome: str | None = None,
    since: str | None = None,
) -> list[dict[str, Any]]:
    """Return the newest decisions, newest first; ``None`` as limit means all.

    Parameters
    ----------
    stack : Stack
        Whose log.
    limit : int or None
        How many.
    generation, outcome : str or None
        Only decisions of this generation, with this outcome.
    since : str or None
        Only decisions from this instant on, as the log writes instants.
    """
    client = stack.client("dynamodb")
    decode = TypeDeserializer().deserialize
    wanted = {"generation": generation, "outcome": outcome}
    filters = [f"{name} = :{name}" for name, value in wanted.items() if value]
    values = {f":{name}": {"S": value} for name, value in wanted.items() if value}
    pages = client.get_paginator("query").paginate(
        TableName=stack.outputs["LoopTableName"],
        KeyConditionExpression="pk = :decision" + (" AND sk >= :since" if since else ""),
        ExpressionAttributeValues={
            ":decision": {"S": "DECISION"},
            **({":since": {"S": since}} if since else {}),
            **values,
        },
        **({"FilterExpression": " AND ".join(filters)} if filters else {}),
        ScanIndexForward=False,
        PaginationConfig={"MaxItems": limit},
    )
    return [
        {name: plain(decode(item[name])) for name in sorted(item) if name not in {"pk", "sk"}}
        for page in pages
        for item in page["Items"]
    ]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _generation(text: str) -> str:
    if text == NO_GENERATION:
        return text
    name = generation_name(int(text)) if text.isdecimal() else text
    try:
        generation_number(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return name


def _since(text: str) -> str:
    if match := re.fullmatch(r"(\d{1,5})([hd])", text):
        ago = timedelta(hours=int(match[1]) * (24 if match[2] == "d" else 1))
        return to_iso(datetime.now(UTC) - ago)
    try:
        return to_iso(from_iso(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: 2026-11-22, 2026-11-22T10:00:00Z, 24h or 7d"
        ) from error


def plain(value: Any) -> Any:
    """Turn what DynamoDB's deserialiser returns into JSON values."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {key: plain(value[key]) for key in sorted(value)}
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
