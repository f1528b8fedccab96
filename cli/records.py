"""Records as people upload them and as quarantine keeps them: whose, about what, and fit to be sent again."""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cli.errors import BadInputError

JSONL = "jsonl"
CSV = "csv"
_CSV_TIME = "event_time"
_CUT = "TOO_LARGE"


@dataclass(frozen=True)
class Entry:
    """One line of a quarantine object: a record that the door refused, why, and where it came from."""

    value: Mapping[str, Any]

    @classmethod
    def parse(cls, line: bytes, where: str) -> Entry:
        """Read a line of a quarantine object, or of a file that ``truthloop quarantine --save`` wrote.

        Raises
        ------
        BadInputError
            When it is none.
        """
        try:
            value = json.loads(line)
            entry = cls(value)
            entry._require()
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise BadInputError(
                f"{where} is not an entry of the quarantine ({error!r}): mend only the field record "
                "(and encoding, which is utf-8 for plain text)"
            ) from error
        return entry

    def _require(self) -> None:
        """Read everything once: what is missing or of another type raises here, not midway."""
        for name in ("reason", "identity", "content", "columns"):
            getattr(self, name)

    @property
    def reason(self) -> str:
        """The reason code."""
        return str(self.value["reason"])

    @property
    def source(self) -> Mapping[str, Any]:
        """Where the record came from."""
        source: Mapping[str, Any] = self.value["source"]
        return source

    @property
    def identity(self) -> tuple[str, str, int]:
        """Key, version and line of the record in the inbox: what makes two entries the same record."""
        return str(self.source["key"]), str(self.source["versionId"]), int(self.source["line"])

    @property
    def uploaded_at(self) -> str:
        """When the record was uploaded, ISO 8601; empty when the entry is older than that field."""
        return str(self.source.get("uploadedAt") or "")

    @property
    def is_object(self) -> bool:
        """Whether it is about a whole object, which holds no single record to send again."""
        return self.identity[2] == 0

    @property
    def is_cut(self) -> bool:
        """Whether the record was cut at the door's limit: the rest is in the inbox only."""
        return self.reason == _CUT

    @property
    def format(self) -> str:
        """``jsonl`` or ``csv``."""
        return str(self.value.get("format") or JSONL)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a CSV record."""
        return tuple(str(column) for column in self.value.get("columns") or ()) if self.format == CSV else ()

    @property
    def content(self) -> bytes:
        """The record's bytes."""
        record = self.value.get("record") or ""
        if not isinstance(record, str):
            raise TypeError("record must be text")
        if self.value.get("encoding") == "base64":
            return base64.b64decode(record, validate=True)
        return record.encode("utf-8", "surrogatepass")

    def to_line(self) -> bytes:
        """Return the entry as a line of a quarantine object or of a saved file."""
        return _dump(self.value) + b"\n"

    def to_upload(self) -> bytes:
        r"""Return the line to upload, without its end: the record with the time when it was first uploaded.

        Without that time the record would count as said now, and outrank a correction made since.
        """
        return _csv_upload(self) if self.format == CSV else _json_upload(self)


def read_entries(content: bytes, where: str) -> Iterator[Entry]:
    """Read the entries of a quarantine object or of a saved file; blank lines are passed over."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield Entry.parse(line, f"line {number} of {where}")


def _json_upload(entry: Entry) -> bytes:
    try:
        record = json.loads(entry.content)
    except (ValueError, RecursionError):
        return entry.content
    if not isinstance(record, dict):
        return entry.content
    metadata = record.get("eventMetadata")
    if isinstance(metadata, dict):
        timed = metadata
    elif "source-ref" in record:
        timed = record
    else:
        return entry.content
    if not entry.uploaded_at or timed.get("eventTime") is not None:
        return entry.content  # as it came, to the byte
    timed["eventTime"] = entry.uploaded_at
    return _dump(record)


def _csv_upload(entry: Entry) -> bytes:
    columns, row = entry.columns, _row(entry.content)
    if row is None or len(row) != len(columns):
        return entry.content
    if _CSV_TIME not in columns:
        row.append(entry.uploaded_at)
    elif not row[columns.index(_CSV_TIME)]:
        row[columns.index(_CSV_TIME)] = entry.uploaded_at
    else:
        return entry.content
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow(row)
    return written.getvalue().encode("utf-8")


def csv_header(columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that CSV records are uploaded with: theirs, and the time."""
    return columns if _CSV_TIME in columns else (*columns, _CSV_TIME)


def _row(content: bytes) -> list[str] | None:
    try:
        rows = list(csv.reader([content.decode("utf-8")], strict=True))
    except (UnicodeDecodeError, csv.Error):
        return None
    return rows[0] if len(rows) == 1 else None


def stated(content: bytes, file_format: str, columns: tuple[str, ...]) -> tuple[str | None, str | None]:
    """Return the author and the label that a record states, None for what it does not."""
    if file_format == CSV:
        row = _row(content)
        named = dict(zip(columns, row, strict=False)) if row else {}
        return named.get("author") or None, named.get("label")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):
        return None, None
    if not isinstance(record, dict):
        return None, None
    metadata, data = record.get("eventMetadata"), record.get("groundTruthData")
    author = metadata.get("author") if isinstance(metadata, dict) else record.get("author")
    label = data.get("data") if isinstance(data, dict) else record.get("label")
    return _text(author), _text(label)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
