"""``truthloop requeue``: put quarantined records back through the inbox, so that the door judges them again.

First the upload, and only when S3 has it the entries leave their quarantine objects. A crash in between
leaves both, and a repetition uploads the same name again, which changes nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from cli import quarantine
from cli.bucket import Bucket, Content
from cli.errors import BadInputError
from cli.output import counted, print_json
from cli.records import CSV, Entry, csv_header, read_entries, stated
from cli.stack import Stack
from truthloop.names import digest
from truthloop.settings import INBOX_PREFIX
from truthloop.steps.evidence import read_forgotten
from truthloop.steps.ingest_ground_truth import KnownLabels
from truthloop.uploads.door import Judge, Rejection, SourceObject
from truthloop.uploads.lines import MAXIMUM_LINE_BYTES, Line
from truthloop.versions.standing import author_digest

PREFIX = f"{INBOX_PREFIX}requeued/"
_BYTES_AT_ONCE = 8 * 1024 * 1024
_ENTRIES_AT_ONCE = 50_000

ACCEPTED = "accepted"

Identity = tuple[str, str, int]


@dataclass
class Done:
    """What a run of the command did."""

    records: int = 0
    uploaded: int = 0
    again: int = 0
    removed: int = 0
    whole_objects: int = 0
    cut: int = 0
    forgotten: int = 0
    foreseen: Counter[str] = field(default_factory=Counter)

    def to_map(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "records": self.records,
            "uploadedObjects": self.uploaded,
            "uploadedBefore": self.again,
            "removedFromQuarantine": self.removed,
            "wholeObjects": self.whole_objects,
            "cutRecords": self.cut,
            "forgotten": self.forgotten,
            "foreseen": dict(self.foreseen.most_common()),
        }

    def sentences(self) -> Iterator[str]:
        """Say it in words, and what comes next."""
        if self.records:
            before = f", {self.again} of them uploaded before" if self.again else ""
            yield (
                f"{counted(self.records, 'record')} went back to {PREFIX} in "
                f"{counted(self.uploaded + self.again, 'object')}{before}; "
                f"{counted(self.removed, 'entry')} left the quarantine."
            )
            foreseen = ", ".join(f"{count} × {what}" for what, count in self.foreseen.most_common())
            yield f"What the door will say of them, within a minute: {foreseen}."
            if set(self.foreseen) != {ACCEPTED}:
                yield "What it refuses comes back to the quarantine: truthloop quarantine"
        else:
            yield "No record went back."
        if self.whole_objects:
            yield (
                f"{self.whole_objects} entries are about whole objects, which lie in the inbox as they came: "
                "mend those files and upload them again."
            )
        if self.forgotten:
            yield (
                f"{counted(self.forgotten, 'record')} stayed: the author was forgotten after the upload. "
                "truthloop forget --inbox deletes what quarantine holds of somebody."
            )
        if self.cut:
            yield (
                f"{self.cut} records are longer than a line may be and were cut: shorten the original, or "
                "mend the entry in a file (truthloop quarantine --reason TOO_LARGE --save FILE)."
            )


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "requeue", parents=[common], help="put mended records, or all of one reason, back through the inbox"
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="mended entries (truthloop quarantine --save)"
    )
    what.add_argument("--reason", metavar="CODE", help="all of this reason, as they are")


def run(stack: Stack, given: argparse.Namespace, console: Console) -> int:
    """Run the command; return the exit code."""
    ports, done = stack.ports(), Done()
    labels, forgotten = KnownLabels().get(ports).labels, read_forgotten(ports.objects)
    requeue = Requeue(stack.bucket, labels, forgotten, ports.now(), done)
    if given.file:
        requeue.from_file(given.file)
    else:
        requeue.of_reason(given.reason)
    if given.json:
        print_json(done.to_map())
    else:
        for sentence in done.sentences():
            console.print(sentence, markup=False)
    return 0


class Requeue:
    """Sends entries back.

    Parameters
    ----------
    bucket : Bucket
        The data bucket.
    labels : frozenset[str] or None
        The served model's label set, to foresee what the door will say.
    forgotten : Mapping[str, str]
        Per forgotten author (SHA-256) the time before which their uploads do not exist. Sent back, a record
        would be a new upload, and the door knows nobody.
    now : datetime
        When the records will be uploaded.
    done : Done
        What is counted.
    """

    def __init__(
        self,
        bucket: Bucket,
        labels: frozenset[str] | None,
        forgotten: Mapping[str, str],
        now: datetime,
        done: Done,
    ) -> None:
        self._bucket = bucket
        self._labels = labels
        self._forgotten = forgotten
        self._now = now
        self._done = done

    def from_file(self, path: Path) -> None:
        """Send the entries of a file back, and take them out of the quarantine by where they came from.

        Raises
        ------
        BadInputError
            When the file or a line of it cannot be used; then nothing was done.
        """
        entries = [entry for entry in _read(path) if not self._is_forgotten(entry)]
        for part in _parts(entries):
            self._upload(part)
        gone = {entry.identity for entry in entries}
        for content in quarantine.objects(self._bucket):
            self._remove(content, gone, None)

    def of_reason(self, reason: str) -> None:
        """Send everything of one reason back, as it is, some quarantine objects at a time.

        Raises
        ------
        BadInputError
            When nothing is in quarantine for that reason.
        """
        seen: set[str] = set()
        sent: set[Identity] = set()
        held: list[Content] = []
        size = 0
        for content in quarantine.objects(self._bucket):
            entries = list(read_entries(content.body, content.key))
            seen |= {entry.reason for entry in entries}
            chosen = [entry for entry in entries if entry.reason == reason]
            self._done.whole_objects += sum(entry.is_object for entry in chosen)
            self._done.cut += sum(entry.is_cut and not entry.is_object for entry in chosen)
            if any(map(_goes_back, chosen)):
                held.append(content)
                size += len(content.body)
            if size > _BYTES_AT_ONCE:
                self._send(held, reason, sent)
                held, size = [], 0
        self._send(held, reason, sent)
        if reason not in seen:
            known = f"there are {', '.join(sorted(seen))}" if seen else "it is empty"
            raise BadInputError(f"nothing is in quarantine for {reason}: {known} (truthloop quarantine)")

    def _send(self, held: list[Content], reason: str, sent: set[Identity]) -> None:
        entries: dict[Identity, Entry] = {}
        for content in held:
            for entry in read_entries(content.body, content.key):
                if entry.reason != reason or not _goes_back(entry) or entry.identity in sent:
                    continue
                if not self._is_forgotten(entry):
                    entries[entry.identity] = entry
        for part in _parts(entries.values()):
            self._upload(part)
        sent |= set(entries)
        for content in held:
            self._remove(content, sent, reason)

    def _is_forgotten(self, entry: Entry) -> bool:
        author, _ = stated(entry.content, entry.format, entry.columns)
        before = self._forgotten.get(author_digest(author)) if author and self._forgotten else None
        stays = before is not None and entry.uploaded_at < before
        self._done.forgotten += stays
        return stays

    def _upload(self, part: list[Entry]) -> None:
        lines = [entry.to_upload() for entry in part]
        kind = part[0].format
        if kind == CSV:
            header = io.StringIO()
            csv.writer(header, lineterminator="").writerow(csv_header(part[0].columns))
            lines.insert(0, header.getvalue().encode())
        content = b"\n".join(lines) + b"\n"
        # Of content and origin: a record that is refused and sent back a second time, unchanged, is another
        # upload; the same entries sent twice are not.
        origins = (f"{key} {version} {line}" for key, version, line in (entry.identity for entry in part))
        key = f"{PREFIX}{digest(*origins, content.decode('latin-1'))}.{kind}"
        if self._bucket.put_once(key, content):
            self._done.uploaded += 1
        else:
            self._done.again += 1
        self._done.records += len(part)
        self._foresee(key, kind, lines)

    def _foresee(self, key: str, kind: str, lines: list[bytes]) -> None:
        judge = Judge(SourceObject(self._bucket.name, key, "", "", self._now), kind, self._labels)
        for number, line in enumerate(lines, 1):
            said = judge(Line(number, 0, line, len(line) <= MAXIMUM_LINE_BYTES))
            if said is not None:
                self._done.foreseen[said.reason if isinstance(said, Rejection) else ACCEPTED] += 1

    def _remove(self, content: Content, gone: set[Identity], reason: str | None) -> None:
        kept, removed = [], 0
        for entry in read_entries(content.body, content.key):
            if entry.identity in gone and reason in (None, entry.reason) and not entry.is_object:
                removed += 1
            else:
                kept.append(entry.to_line())
        if removed:
            # The key stays, also of an emptied object: a redelivery must not bring its entries back.
            self._bucket.rewrite(content, b"".join(kept))
            self._done.removed += removed


def _read(path: Path) -> list[Entry]:
    """Read the whole file before anything is done: a bad line changes nothing."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error
    entries = list(read_entries(content, str(path)))
    for number, entry in enumerate(entries, 1):
        if entry.is_object:
            raise BadInputError(
                f"entry {number} of {path} is about a whole object ({entry.reason}), which lies in the inbox "
                f"as it came ({entry.identity[0]}): mend that file and upload it again; take the entry out"
            )
        if b"\n" in entry.content or not entry.content.strip():
            raise BadInputError(f"entry {number} of {path}: record must be exactly one line")
    return entries


def _goes_back(entry: Entry) -> bool:
    return not entry.is_object and not entry.is_cut


def _parts(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Split entries into what goes into one object: of one format, one set of columns, and not too many."""
    open_parts: dict[tuple[str, tuple[str, ...]], list[Entry]] = {}
    sizes: dict[tuple[str, tuple[str, ...]], int] = {}
    for entry in entries:
        kind = (entry.format, entry.columns)
        part = open_parts.setdefault(kind, [])
        part.append(entry)
        sizes[kind] = sizes.get(kind, 0) + len(entry.content)
        if sizes[kind] > _BYTES_AT_ONCE or len(part) >= _ENTRIES_AT_ONCE:
            yield open_parts.pop(kind)
            sizes[kind] = 0
    yield from open_parts.values()
