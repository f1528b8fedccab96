"""``truthloop forget``: delete what one person said, from accepted data and from the next dataset version.

In an order that may be interrupted anywhere: first the tombstone (from then on nothing of it counts), then
the accepted objects, then their older versions, then the log. Run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console

from cli.bucket import Bucket, Content, Listed
from cli.errors import BadInputError
from cli.output import confirm, counted, print_json
from cli.records import CSV, Entry, read_entries, stated
from cli.stack import Stack
from truthloop.aws.table import DynamoLoopTable
from truthloop.errors import UploadRejected
from truthloop.names import digest
from truthloop.retraining.decision import FORGOTTEN, Decision
from truthloop.settings import ACCEPTED_PREFIX, FORGOTTEN_PREFIX, INBOX_PREFIX, QUARANTINE_PREFIX
from truthloop.times import from_iso, to_iso
from truthloop.uploads.door import COLUMNS
from truthloop.uploads.lines import format_of, read_lines
from truthloop.versions.standing import author_digest

_NO_MESSAGE_LEFT_AFTER = timedelta(days=20)
"""No queue keeps a message about an upload for so long: what was not read by then never will be."""
_DATASETS = "datasets/"
_SHOWN = 20


@dataclass(frozen=True)
class Tombstone:
    """What ``ground-truth/forgotten/<sha256>.json`` says."""

    author: str
    before: str
    by: str
    reason: str
    records: int
    objects: int
    uploads: int

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps({"version": 1, **vars(self)}, indent=1, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> Tombstone:
        """Read what `to_json` wrote."""
        value = json.loads(content)
        return cls(**{name: value[name] for name in cls.__dataclass_fields__})

    @property
    def execution(self) -> str:
        """What the decision log calls it."""
        return f"forget-{self.before}"

    def decision(self) -> Decision:
        """Return the decision log's item: the same for the same tombstone."""
        return Decision(
            at=self.before,
            execution=self.execution,
            generation="none",
            outcome=FORGOTTEN,
            reason=FORGOTTEN,
            message=(
                f"{counted(self.records, 'record')} in {counted(self.objects, 'accepted object')} and "
                f"{counted(self.uploads, 'whole upload')} were deleted, asked for by "
                f"{self.by}: {self.reason} (author {self.author})"
            ),
            evidence={
                "author": self.author,
                "records": self.records,
                "objects": self.objects,
                "uploads": self.uploads,
            },
        )


@dataclass
class Found:
    """Where the author's records still are."""

    records: int = 0
    accepted: list[Listed] = field(default_factory=list)
    quarantine: list[Listed] = field(default_factory=list)
    inbox: list[Listed] = field(default_factory=list)
    inbox_not_ingested: list[Listed] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "forget",
        parents=[common],
        help="delete one person's corrections, and keep a record of having done so",
    )
    command.add_argument("--author", required=True, metavar="NAME", help="the author that the records name")
    command.add_argument("--reason", required=True, metavar="TEXT", help="why; kept in the log")
    command.add_argument("--yes", action="store_true", help="do not ask")
    command.add_argument(
        "--inbox", action="store_true", help="delete the uploads and quarantined records that hold them, too"
    )


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code."""
    author, bucket = given.author, stack.bucket
    if not author.strip() or not given.reason.strip():
        raise BadInputError("--author and --reason must not be empty")
    if author in given.reason:
        raise BadInputError("the reason names the author: it is kept in the log, so say it without the name")
    table = DynamoLoopTable(stack.client("dynamodb"), stack.outputs["LoopTableName"])
    tombstone = _read_tombstone(bucket, author)
    interrupted = tombstone is not None and table.find_decision(tombstone.execution, "none") is None
    now = bucket.now()
    # S3 tells the second only, of an upload as of its own time: all that was uploaded in this one is meant.
    before = tombstone.before if tombstone and interrupted else to_iso(now + timedelta(seconds=1))
    found = _look(bucket, author, before, now)
    uploads = bool(given.inbox and (found.inbox or found.quarantine))
    if not (found.accepted or uploads or interrupted):
        return _nothing(found, tombstone, given, console)
    _ask(found, given)
    if tombstone is None or not interrupted:
        tombstone = Tombstone(
            author_digest(author),
            before,
            stack.caller,
            given.reason,
            found.records,
            len(found.accepted),
            len(found.inbox) if given.inbox else 0,
        )
        bucket.put(forgotten_key(author), tombstone.to_json())
    for content in bucket.read_all(found.accepted):
        _rewrite(content, author, before, bucket)
    # Accepted objects are written once, so only this command makes a second version of one: whatever is not
    # the newest is what was to be forgotten, also when an earlier attempt ended right here.
    bucket.delete_versions(item for item in bucket.versions(ACCEPTED_PREFIX) if not item.latest)
    if given.inbox:
        _clear_uploads(found, author, bucket)
    table.put_decision(tombstone.decision())
    _tell(found, tombstone, given, bucket, console)
    return 0


def forgotten_key(author: str) -> str:
    """Return the key of an author's tombstone."""
    return f"{FORGOTTEN_PREFIX}{author_digest(author)}.json"


def _read_tombstone(bucket: Bucket, author: str) -> Tombstone | None:
    content = bucket.read(Listed(forgotten_key(author), 0))
    return Tombstone.from_json(content.body) if content else None


def _look(bucket: Bucket, author: str, before: str, now: datetime) -> Found:
    """Read everything that can hold a record of the author; accepted ones count if uploaded `before`."""
    found = Found()
    listed = list(bucket.list(ACCEPTED_PREFIX))
    for content in bucket.read_all(item for item in listed if item.size):
        records = sum(1 for line in content.body.split(b"\n") if _is_by(line, author, before))
        if records:
            found.records += records
            found.accepted.append(content.listed)
    names = {_name(item.key) for item in listed}
    refused: dict[str, set[int]] = {}
    for content in bucket.read_all(bucket.list(QUARANTINE_PREFIX)):
        entries = list(read_entries(content.body, content.key))
        refused.setdefault(_name(content.key), set()).update(entry.identity[2] for entry in entries)
        if any(_entry_by(entry, author) for entry in entries):
            found.quarantine.append(content.listed)
    for upload in bucket.read_all(item for item in bucket.versions(INBOX_PREFIX) if not item.deleted):
        records, by_author = _upload_records(upload, author)
        if not by_author:
            continue
        item = upload.listed
        name = digest(bucket.name, item.key, str(item.version_id))
        lines = refused.get(name)
        # Another person's correction in an upload that was not read to its end must not be deleted with it.
        ingested = name in names or (
            lines is not None and (0 in lines or len(lines) >= records or _is_old(item, now))
        )
        (found.inbox if ingested else found.inbox_not_ingested).append(item)
    found.datasets = sorted(
        {
            content.key.split("/")[1]
            for content in bucket.read_all(
                item
                for item in bucket.list(_DATASETS)
                if item.key.endswith(("/statements.jsonl", "/ground-truth.jsonl"))
            )
            if any(_dataset_line_by(line, author) for line in content.body.split(b"\n"))
        }
    )
    return found


def _is_by(line: bytes, author: str, before: str) -> bool:
    """Whether a line of an accepted object is the author's, uploaded before an instant."""
    if not line.strip():
        return False
    record = json.loads(line)
    return bool(record["eventMetadata"].get("author") == author and record["origin"]["uploadedAt"] < before)


def _entry_by(entry: Entry, author: str) -> bool:
    """Whether a quarantined record is the author's, or cannot be read and holds the name."""
    return _record_by(entry.content, entry.format, entry.columns, author)


def _record_by(content: bytes, file_format: str, columns: tuple[str, ...], author: str) -> bool:
    said, label = stated(content, file_format, columns)
    if said is None and label is None:
        escaped = json.dumps(author)[1:-1].encode()
        return author.encode() in content or escaped in content
    return said == author


def _dataset_line_by(line: bytes, author: str) -> bool:
    return bool(line.strip()) and json.loads(line).get("author") == author


def _upload_records(content: Content, author: str) -> tuple[int, bool]:
    """Count the records of an upload, and say whether one is the author's.

    An upload that cannot be read is searched for the name.
    """
    records, by_author = 0, False
    try:
        kind = format_of(content.key)
        columns: tuple[str, ...] = COLUMNS if kind.records == CSV else ()
        for line in read_lines([content.body], kind, len(content.body)):
            if kind.records == CSV and (header := _header(line.content)):
                columns = header
                continue
            records += 1
            by_author = by_author or _record_by(line.content, kind.records, columns, author)
    except UploadRejected:
        return records, by_author or author.encode() in content.body
    return records, by_author


def _header(line: bytes) -> tuple[str, ...] | None:
    cells = tuple(cell.strip() for cell in line.decode("utf-8", "replace").split(","))
    return cells if set(COLUMNS) <= set(cells) else None


def _name(key: str) -> str:
    """Return the digest of the upload in the key of an accepted or a quarantine object."""
    return key.rsplit("/", 1)[-1].split(".", 1)[0]


def _is_old(item: Listed, now: datetime) -> bool:
    return bool(item.uploaded_at) and from_iso(item.uploaded_at) < now - _NO_MESSAGE_LEFT_AFTER


def _rewrite(content: Content, author: str, before: str, bucket: Bucket) -> None:
    kept = [line for line in content.body.split(b"\n") if line.strip() and not _is_by(line, author, before)]
    # The key stays, also of an emptied object: a redelivery must not bring its records back.
    bucket.rewrite(content, b"".join(line + b"\n" for line in kept))


def _clear_uploads(found: Found, author: str, bucket: Bucket) -> None:
    # The uploads first: what is in quarantine tells whether an upload was read to its end.
    bucket.delete_versions(found.inbox)
    for content in bucket.read_all(found.quarantine):
        entries = read_entries(content.body, content.key)
        bucket.rewrite(content, b"".join(e.to_line() for e in entries if not _entry_by(e, author)))
    # Older versions of quarantine objects hold what was sent back or was to be forgotten: both are done with.
    bucket.delete_versions(item for item in bucket.versions(QUARANTINE_PREFIX) if not item.latest)


def _ask(found: Found, given: argparse.Namespace) -> None:
    parts = [f"{counted(found.records, 'record')} in {counted(len(found.accepted), 'accepted object')}"]
    if given.inbox:
        parts.append(f"{counted(len(found.inbox), 'upload')} as a whole")
        parts.append(f"the author's entries in {counted(len(found.quarantine), 'quarantine object')}")
    confirm(f"This deletes {', '.join(parts)}, for good.", yes=given.yes)


def _nothing(found: Found, tombstone: Tombstone | None, given: argparse.Namespace, console: Console) -> int:
    """Say that there is nothing to delete; an author who was never heard of is most likely misspelt."""
    if tombstone is None and not (found.inbox or found.inbox_not_ingested or found.quarantine):
        raise BadInputError("no record names this author: is the name spelt as in the records?")
    _tell(found, tombstone, given, None, console)
    return 0


def _tell(
    found: Found,
    tombstone: Tombstone | None,
    given: argparse.Namespace,
    bucket: Bucket | None,
    console: Console,
) -> None:
    left_inbox = [] if given.inbox and bucket else found.inbox
    left_quarantine = [] if given.inbox and bucket else found.quarantine
    if given.json:
        print_json(
            {
                "tombstone": {"version": 1, **vars(tombstone)} if tombstone else None,
                "inbox": [_version_map(item) for item in left_inbox],
                "inboxNotIngested": [_version_map(item) for item in found.inbox_not_ingested],
                "quarantine": [item.key for item in left_quarantine],
                "datasets": found.datasets,
            }
        )
        return
    for sentence in _sentences(found, tombstone, left_inbox, left_quarantine):
        console.print(sentence, markup=False, soft_wrap=True)


def _version_map(item: Listed) -> dict[str, Any]:
    return {"key": item.key, "versionId": item.version_id}


def _sentences(
    found: Found, tombstone: Tombstone | None, inbox: list[Listed], quarantined: list[Listed]
) -> Iterator[str]:
    if tombstone:
        yield (
            f"Forgotten: {counted(tombstone.records, 'record')} in "
            f"{counted(tombstone.objects, 'accepted object')}. What the author "
            f"uploaded before {tombstone.before[:19]}Z does not count any more. The log keeps that "
            "this was done, without the name."
        )
    else:
        yield "Accepted data holds nothing of this author."
    if found.inbox_not_ingested:
        waiting = counted(len(found.inbox_not_ingested), "upload")
        yield f"Not ingested to the end yet: {waiting}; run the command again later:"
        yield from _some(item.key for item in found.inbox_not_ingested)
    if inbox or quarantined:
        yield "Still there, with the records as they came (--inbox deletes them, whole uploads at a time):"
        yield from _some(item.key for item in (*inbox, *quarantined))
    if found.datasets:
        yield (
            "Datasets that earlier models were trained on are kept as they were, and so are the models. When "
            "the next run has trained, delete what names the author:"
        )
        yield from _some(
            f"{_DATASETS}{generation}/{name}"
            for generation in found.datasets
            for name in ("statements.jsonl", "ground-truth.jsonl")
        )
        yield (
            "  with: aws s3api list-object-versions --bucket BUCKET --prefix KEY, then for each version "
            "aws s3api delete-object --bucket BUCKET --key KEY --version-id ID"
        )


def _some(names: Iterable[str]) -> Iterator[str]:
    every = list(names)
    yield from (f"  {name}" for name in every[:_SHOWN])
    if len(every) > _SHOWN:
        yield f"  and {len(every) - _SHOWN} more (--json names all)"
