"""``truthloop quarantine``: which records the door refused, why, and where they came from."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.bucket import Bucket, Content
from cli.errors import BadInputError
from cli.output import counted, print_json
from cli.records import Entry, read_entries, stated
from cli.stack import Stack
from truthloop.settings import QUARANTINE_PREFIX

UNKNOWN_LABEL = "UNKNOWN_LABEL"
_EXAMPLE_SHOWN = 80
_CLASSES_SHOWN = 20


@dataclass
class Group:
    """Everything that was refused for one reason; `missing` counts labels that the served model lacks."""

    reason: str
    example: Entry
    records: int = 0
    newest: str = ""
    missing: Counter[str] = field(default_factory=Counter)

    def add(self, entry: Entry) -> None:
        """Count one entry; the newest is the example."""
        self.records += 1
        if entry.uploaded_at >= self.newest:
            self.newest, self.example = entry.uploaded_at, entry
        if self.reason == UNKNOWN_LABEL:
            _, label = stated(entry.content, entry.format, entry.columns)
            self.missing[label or "?"] += 1

    def to_map(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "reason": self.reason,
            "records": self.records,
            "newest": self.newest,
            "example": dict(self.example.value),
            **({"missingClasses": dict(self.missing.most_common())} if self.missing else {}),
        }


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "quarantine", parents=[common], help="which records were refused at the door, and why"
    )
    command.add_argument("--reason", metavar="CODE", help="only these, such as UNKNOWN_LABEL")
    command.add_argument(
        "--save", metavar="FILE", type=Path, help="write the entries as JSON lines, to be mended and requeued"
    )


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code."""
    bucket = stack.bucket
    groups: dict[str, Group] = {}
    seen: set[tuple[str, tuple[str, str, int]]] = set()
    saved: list[bytes] = []
    for entry in _entries(bucket):
        # A crash at the door, and another label set afterwards, can quarantine a record twice.
        known = (entry.reason, entry.identity)
        if known in seen or given.reason not in (None, entry.reason):
            continue
        seen.add(known)
        groups.setdefault(entry.reason, Group(entry.reason, entry)).add(entry)
        if given.save:
            saved.append(entry.to_line())
    if given.save:
        _write(given.save, saved)
        print(
            f"{given.save} has {counted(len(saved), 'entry')}: mend their field record, then", file=sys.stderr
        )
        print(f"  truthloop requeue {given.save}", file=sys.stderr)
    found = sorted(groups.values(), key=lambda group: (-group.records, group.reason))
    if given.json:
        print_json([group.to_map() for group in found])
    elif not found:
        of = f" for {given.reason}" if given.reason else ""
        console.print(f"nothing is in quarantine{of}")
    else:
        console.print(_table(found))
        for line in _missing(groups.get(UNKNOWN_LABEL)):
            console.print(escape(line))
    return 0


def objects(bucket: Bucket) -> Iterator[Content]:
    """Read every object of the quarantine that holds something."""
    yield from bucket.read_all(item for item in bucket.list(QUARANTINE_PREFIX) if item.size)


def _entries(bucket: Bucket) -> Iterator[Entry]:
    for content in objects(bucket):
        yield from read_entries(content.body, content.key)


def _write(path: Path, lines: list[bytes]) -> None:
    try:
        path.write_bytes(b"".join(lines))
    except OSError as error:
        raise BadInputError(f"{path} cannot be written: {error.strerror}") from error


def _table(groups: list[Group]) -> Table:
    rendered = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    rendered.add_column("records", justify="right")
    for name in ("reason", "newest (UTC)"):
        rendered.add_column(name, no_wrap=True)
    rendered.add_column("what was wrong, for example", overflow="fold", ratio=1)
    rendered.add_column("which is", overflow="fold", ratio=1)
    for group in groups:
        example = group.example
        key, _, line = example.identity
        rendered.add_row(
            str(group.records),
            group.reason,
            group.newest[:19].replace("T", " "),
            escape(str(example.value.get("detail") or "")),
            escape(f"{key}{f', line {line}' if line else ''}: {_example(example)}"),
        )
    return rendered


def _example(entry: Entry) -> str:
    if entry.is_object:
        return "the whole object"
    text = str(entry.value.get("record") or "")
    return text if len(text) <= _EXAMPLE_SHOWN else text[: _EXAMPLE_SHOWN - 1] + "…"


def _missing(group: Group | None) -> Iterator[str]:
    if group is None:
        return
    named = ", ".join(f"{label} × {count}" for label, count in group.missing.most_common(_CLASSES_SHOWN))
    more = len(group.missing) - _CLASSES_SHOWN
    yield ""
    yield f"Classes that the served model lacks: {named}{f' and {more} more' if more > 0 else ''}"
    yield (
        "Put examples of them into base/ and train; when the new model is approved: "
        "truthloop requeue --reason UNKNOWN_LABEL"
    )
