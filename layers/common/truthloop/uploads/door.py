"""Rules at the door: which lines of an untrusted upload are ground truth, and why the others are not."""

from __future__ import annotations

import base64
import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, TypeAlias

from truthloop.errors import UploadRejected
from truthloop.names import digest
from truthloop.settings import IMAGES_PREFIX
from truthloop.times import from_iso, to_iso
from truthloop.uploads.lines import CSV, MAXIMUM_LINE_BYTES, TOO_LARGE, Line
from truthloop.versions.labels import Origin, Statement

NOT_JSON = "NOT_JSON"
NOT_CSV = "NOT_CSV"
NOT_UTF8 = "NOT_UTF8"
BAD_SCHEMA = "BAD_SCHEMA"
BAD_LABEL = "BAD_LABEL"
UNKNOWN_LABEL = "UNKNOWN_LABEL"
BAD_IMAGE_REFERENCE = "BAD_IMAGE_REFERENCE"
BAD_TIME = "BAD_TIME"
FUTURE_TIME = "FUTURE_TIME"

MAXIMUM_LABEL_CHARACTERS = 128
MAXIMUM_ID_CHARACTERS = 256
MAXIMUM_KEY_BYTES = 1024
SOURCES = ("correction", "audit", "decision")
CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far a user's clock may be ahead of S3's."""
IMAGE_ID = "image:"
"""What the id of a labelled example begins with, and no inference id may."""
COLUMNS = ("inference_id", "label")
"""The columns of a CSV file without a header."""

_HEADER = frozenset({*COLUMNS, "author", "event_time", "source"})
_SEQUENCER_DIGITS = 40
_LINE_DIGITS = 10
_SOURCES = frozenset(SOURCES)
_NO_TIME = "the event time is not an ISO 8601 time such as 2026-11-22T10:00:00Z"
_in_seconds = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}Z").fullmatch
_quoted = json.encoder.encode_basestring_ascii
_raw_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True)
class SourceObject:
    """The uploaded object that records come from: one version of one key."""

    bucket: str
    key: str
    version_id: str
    sequencer: str
    uploaded_at: datetime

    @cached_property
    def uploaded(self) -> str:
        """The upload's time as text."""
        return to_iso(self.uploaded_at)

    @cached_property
    def _object(self) -> str:
        return (
            f'{{"bucket":{_quoted(self.bucket)},"key":{_quoted(self.key)},'
            f'"versionId":{_quoted(self.version_id)}'
        )

    def at(self, line: Line) -> str:
        """Return where `line` stands, as the JSON of a quarantine line's ``source``."""
        return (
            f'{self._object},"line":{line.number},"byteOffset":{line.offset},"uploadedAt":"{self.uploaded}"}}'
        )


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that is not accepted, and why.

    `columns` are those of a CSV record, else None; `label` is the one that the served model does not know.
    """

    reason: str
    detail: str
    line: Line
    columns: tuple[str, ...] | None = None
    label: str | None = None

    def to_line(self, source: SourceObject) -> bytes:
        """Return the line of the quarantine object: the record as it came, and where it came from."""
        try:
            record, encoding = self.line.content.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            record, encoding = base64.b64encode(self.line.content).decode("ascii"), "base64"
        told = '"jsonl"'
        if self.columns is not None:
            told = f'"csv","columns":[{",".join(map(_quoted, self.columns))}]'
        # Written out for the same reason as accepted lines: an upload may be bad from end to end.
        return (
            f'{{"reason":"{self.reason}","detail":{_quoted(self.detail)},"source":{source.at(self.line)},'
            f'"record":{_quoted(record)},"encoding":"{encoding}","format":{told}}}\n'
        ).encode()


def rejected_whole(problem: UploadRejected, source: SourceObject) -> bytes:
    """Return the quarantine line of an object of which no record is read."""
    where = source.at(Line(0, 0, b""))
    return f'{{"reason":"{problem.reason}","detail":{_quoted(problem.detail)},"source":{where}}}\n'.encode()


def label_set_name(known_labels: frozenset[str] | None) -> str:
    """Return what a label set is called in keys: 12 hex digits, or ``any`` where every label is welcome."""
    if known_labels is None:
        return "any"
    return digest(json.dumps(sorted(known_labels)))[:12]


class _RefusedError(Exception):
    """A record is no ground truth."""

    def __init__(self, reason: str, detail: str, label: str | None = None) -> None:
        super().__init__(reason, detail, label)


_Stated: TypeAlias = tuple[Any, str | None, Any, Any, Any, Any]
"""Inference id, image, label, event time, author and source as a record says them, none of it checked yet.

A plain tuple: to make an object with names takes longer than to check one of them.
"""


class Judge:
    """Decides the records of one upload, line by line.

    Parameters
    ----------
    source : SourceObject
        Where the records come from. Its time replaces a missing event time and bounds a given one, so the
        same object gives the same answer whenever it is judged.
    records : str
        ``jsonl`` or ``csv``.
    known_labels : frozenset[str] or None
        The served model's label set; None when there is no model yet, and every label is welcome.
    """

    def __init__(self, source: SourceObject, records: str, known_labels: frozenset[str] | None) -> None:
        self._source = source
        self._known = known_labels
        self._columns: tuple[str, ...] | None = COLUMNS if records == CSV else None
        self._read: Callable[[str], _Stated | None] = self._read_csv if records == CSV else self._read_json
        self._uploaded = source.uploaded
        self._latest = to_iso(source.uploaded_at + CLOCK_TOLERANCE)
        self._sequencer = padded_sequencer(source.sequencer)
        self._own_bucket = f"s3://{source.bucket}/"

    def __call__(self, line: Line) -> Statement | Rejection | None:
        """Decide one record: what it states, or why it is no ground truth; None for a header."""
        try:
            stated = self._read(_text(line))
            return None if stated is None else self._checked(stated, line)
        except _RefusedError as refused:
            reason, detail, label = refused.args
            return Rejection(reason, detail, line, self._columns, label)

    # -- formats -------------------------------------------------------------------------------------------

    def _read_csv(self, text: str) -> _Stated | None:
        try:
            (cells,) = csv.reader((text,), strict=True)
        except csv.Error as error:
            raise _RefusedError(NOT_CSV, f"the line is not CSV: {error}") from error
        # Anywhere, not only at the start: files that are joined bring their headers along.
        if COLUMNS[0] in text and (header := _header(cells)):
            self._columns = header
            return None
        columns = self._columns or COLUMNS
        if len(cells) != len(columns):
            raise _RefusedError(
                NOT_CSV, f"the line has {len(cells)} fields where {','.join(columns)} are expected"
            )
        row = dict(zip(columns, cells, strict=True))
        return (
            row["inference_id"],
            None,
            row["label"],
            row.get("event_time") or None,
            row.get("author") or None,
            row.get("source") or None,
        )

    def _read_json(self, text: str) -> _Stated:
        record = _parsed(text)
        if not isinstance(record, dict):
            raise _RefusedError(BAD_SCHEMA, "the record is not an object")
        if "source-ref" in record:
            return self._example(record)
        data, metadata = record.get("groundTruthData"), record.get("eventMetadata")
        if not isinstance(data, dict):
            raise _RefusedError(BAD_SCHEMA, "groundTruthData is not an object")
        if not isinstance(metadata, dict):
            raise _RefusedError(BAD_SCHEMA, "eventMetadata is not an object")
        if data.get("encoding", "CSV") != "CSV":
            raise _RefusedError(BAD_SCHEMA, "groundTruthData.encoding must be CSV")
        if record.get("eventVersion", "0") != "0":
            raise _RefusedError(BAD_SCHEMA, 'eventVersion must be "0"')
        return (
            metadata.get("eventId"),
            None,
            data.get("data"),
            metadata.get("eventTime"),
            metadata.get("author"),
            metadata.get("source"),
        )

    def _example(self, record: dict[str, Any]) -> _Stated:
        if "groundTruthData" in record or "eventMetadata" in record:
            raise _RefusedError(BAD_SCHEMA, "a record is a correction or has a source-ref, not both")
        key = self._image_key(record["source-ref"])
        return (
            IMAGE_ID + key,
            key,
            record.get("label"),
            record.get("eventTime"),
            record.get("author"),
            record.get("source"),
        )

    def _image_key(self, reference: object) -> str:
        key = reference.removeprefix(self._own_bucket) if isinstance(reference, str) else ""
        # A manifest's keys become paths where a job reads them, so none may lead out of the job's directory.
        if (
            not key.startswith(IMAGES_PREFIX)
            or not key.isprintable()
            or len(key.encode()) > MAXIMUM_KEY_BYTES
            or not {"", ".", ".."}.isdisjoint(key.split("/"))
        ):
            raise _RefusedError(
                BAD_IMAGE_REFERENCE,
                f"source-ref must name an object under {self._own_bucket}{IMAGES_PREFIX}, as URI or as key",
            )
        return key

    # -- content -------------------------------------------------------------------------------------------

    def _checked(self, stated: _Stated, line: Line) -> Statement:
        inference_id, image, label, event_time, author, source = stated
        if image is None and (
            not _printable(inference_id, MAXIMUM_ID_CHARACTERS) or inference_id[:6] == IMAGE_ID
        ):
            raise _RefusedError(
                BAD_SCHEMA,
                f"the inference id must be text of 1 to {MAXIMUM_ID_CHARACTERS} printable characters "
                f"that does not begin with {IMAGE_ID}",
            )
        if author is not None and not _printable(author, MAXIMUM_LABEL_CHARACTERS):
            raise _RefusedError(
                BAD_SCHEMA, f"author must be text of 1 to {MAXIMUM_LABEL_CHARACTERS} printable characters"
            )
        if source is None:
            source = SOURCES[0]
        elif not isinstance(source, str) or source not in _SOURCES:
            raise _RefusedError(BAD_SCHEMA, f"source must be one of {', '.join(SOURCES)}")
        if not _printable(label, MAXIMUM_LABEL_CHARACTERS):
            raise _RefusedError(
                BAD_LABEL, f"the label must be text of 1 to {MAXIMUM_LABEL_CHARACTERS} printable characters"
            )
        if self._known is not None and label not in self._known:
            raise _RefusedError(
                UNKNOWN_LABEL,
                f"label {label!r} is not one of the {len(self._known)} labels of the served model",
                label,
            )
        number, offset = line.number, line.offset
        return Statement(
            inference_id,
            label,
            self._uploaded if event_time is None else self._moment(event_time),
            author,
            source,
            f"{self._sequencer}.{number:0{_LINE_DIGITS}d}",
            Origin(self._source.key, self._source.version_id, number, offset, self._uploaded),
            image,
        )

    def _moment(self, event_time: object) -> str:
        if not isinstance(event_time, str):
            raise _RefusedError(BAD_TIME, _NO_TIME)
        try:
            moment = from_iso(event_time)
            # The usual spelling needs no formatting, which takes longer than reading it.
            stated = f"{event_time[:-1]}.000000Z" if _in_seconds(event_time) else to_iso(moment)
        except (ValueError, OverflowError) as error:
            raise _RefusedError(BAD_TIME, _NO_TIME) from error
        if stated > self._latest:
            raise _RefusedError(FUTURE_TIME, f"event time {stated} is after the upload at {self._uploaded}")
        return stated


def _text(line: Line) -> str:
    if not line.complete:
        raise _RefusedError(TOO_LARGE, f"the line is longer than {MAXIMUM_LINE_BYTES} bytes")
    try:
        return line.content.decode()
    except UnicodeDecodeError as error:
        raise _RefusedError(NOT_UTF8, f"byte {error.start} of the line is not UTF-8") from error


def _parsed(text: str) -> Any:
    # json.loads looks for white space around the record, which takes a third of its time. It is asked where
    # there is some, and what is wrong.
    try:
        record, end = _raw_decode(text)
    except (ValueError, RecursionError):
        end = -1
    if end != len(text):
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _RefusedError(NOT_JSON, f"the line is not JSON: {error}") from error
    return record


def _header(cells: list[str]) -> tuple[str, ...] | None:
    names = tuple(cell.strip(" \t\ufeff") for cell in cells)
    known = set(names)
    return names if len(known) == len(names) and known.issuperset(COLUMNS) and known <= _HEADER else None


def padded_sequencer(sequencer: str) -> str:
    """Return a text that orders as the sequencers of one key do.

    S3's sequencers are hexadecimal numbers of different lengths that are to be compared after left-padding:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    return sequencer.lower().rjust(_SEQUENCER_DIGITS, "0")


def _printable(value: object, limit: int) -> bool:
    # isprintable also refuses lone surrogates, which JSON can write and UTF-8 cannot.
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable() and not value.isspace()
