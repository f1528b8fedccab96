"""``truthloop conflicts`` and ``truthloop settle``: where authors disagree, and who has the last word."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import IO, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.errors import BadInputError
from cli.output import print_json
from cli.stack import Stack
from truthloop.aws.objects import S3Objects
from truthloop.names import digest
from truthloop.retraining.claim import IDLE, GenerationRecord
from truthloop.settings import INBOX_PREFIX
from truthloop.steps.evidence import fold_labels
from truthloop.steps.ingest_ground_truth import KnownLabels
from truthloop.uploads.door import IMAGE_ID, Judge, Rejection, SourceObject
from truthloop.uploads.lines import JSONL, Line
from truthloop.versions.labels import Statement
from truthloop.versions.standing import DECISION

_NOTHING_YET = GenerationRecord(generation=0, status=IDLE)


class _ReadOnly(S3Objects):
    """The data bucket for somebody who only looks: what a fold would write down is not written."""

    def put(self, key: str, content: bytes) -> None:
        """Write nothing."""

    def put_once(self, key: str, content: bytes | IO[bytes]) -> bool:
        """Write nothing."""
        return False


def add_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the commands to the command line."""
    commands.add_parser(
        "conflicts", parents=[common], help="labels that are set aside because authors disagree"
    )
    settle = commands.add_parser(
        "settle", parents=[common], help="say which label is right where authors disagree"
    )
    settle.add_argument("id", metavar="ID", help="the inference id, or image:<key> of a labelled example")
    settle.add_argument("label", metavar="LABEL", help="the right label")
    settle.add_argument("--author", metavar="ME", help="who decides (default: the name in your AWS identity)")


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """List what is set aside; return the exit code."""
    found = read(stack)
    if given.json:
        print_json(found)
    elif not found:
        console.print("nothing is set aside: no authors disagree")
    else:
        console.print(_table(found))
        console.print("\nSay which is right: truthloop settle ID LABEL", markup=False)
    return 0


def read(stack: Stack) -> list[dict[str, Any]]:
    """Return the conflicts as the next run would see them, by inference id: the preflight's own fold."""
    ports = stack.deciding_ports()
    ports.objects = _ReadOnly(stack.client("s3"), stack.outputs["DataBucketName"])
    fold = fold_labels(ports, ports.table.read() or _NOTHING_YET, ports.now())
    return [
        {
            "id": identifier,
            "statements": [_statement(s) for s in sorted(statements, key=lambda s: s.order, reverse=True)],
        }
        for identifier, statements in sorted(fold.conflicts.items())
    ]


def _statement(statement: Statement) -> dict[str, Any]:
    return {
        "label": statement.label,
        "author": statement.author,
        "eventTime": statement.event_time,
        "source": statement.source,
        "origin": statement.origin.to_json(),
    }


def settle(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Upload the last word on one id; return the exit code."""
    author = given.author or stack.caller.rsplit(":", 1)[-1].rsplit("/", 1)[-1]
    record = _decision(given.id, given.label, author)
    content = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    key = f"{INBOX_PREFIX}decisions/{digest(given.id, given.label, author)}.jsonl"
    _judge(stack, key, content)
    # A new version each time: what was settled, unsettled and settled again must count again.
    stack.bucket.put(key, content + b"\n")
    if given.json:
        print_json({"key": key, "record": record})
    else:
        console.print(
            f"{given.id} is {given.label}, says {author}. It counts as soon as the door has let it in: "
            "truthloop conflicts",
            markup=False,
            soft_wrap=True,
        )
    return 0


def _decision(identifier: str, label: str, author: str) -> Mapping[str, Any]:
    said = {"author": author, "source": DECISION}
    if identifier.startswith(IMAGE_ID):
        return {"source-ref": identifier.removeprefix(IMAGE_ID), "label": label, **said}
    return {
        "groundTruthData": {"data": label, "encoding": "CSV"},
        "eventMetadata": {"eventId": identifier, **said},
        "eventVersion": "0",
    }


def _judge(stack: Stack, key: str, content: bytes) -> None:
    """Ask the door's own rules before anything is uploaded."""
    ports = stack.ports()
    source = SourceObject(stack.bucket.name, key, "", "", ports.now())
    said = Judge(source, JSONL, KnownLabels().get(ports).labels)(Line(1, 0, content))
    if isinstance(said, Rejection):
        raise BadInputError(f"the door would refuse this ({said.reason}): {said.detail}")


def _table(conflicts: list[dict[str, Any]]) -> Table:
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("id", "label", "author", "since (UTC)"):
        rendered.add_column(name, overflow="fold")
    for conflict in conflicts:
        for number, statement in enumerate(conflict["statements"]):
            rendered.add_row(
                "" if number else escape(conflict["id"]),
                escape(statement["label"]),
                escape(statement["author"] or "(nobody)"),
                statement["eventTime"][:19].replace("T", " "),
            )
    return rendered
