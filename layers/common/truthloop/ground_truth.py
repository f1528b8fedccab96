"""Rules at the door: which lines of an untrusted upload are ground truth, and why the others are not."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from truthloop.labels import Label
from truthloop.times import from_iso, to_iso

NOT_JSON = "NOT_JSON"
NOT_UTF8 = "NOT_UTF8"
NOT_SUPPORTED = "NOT_SUPPORTED"
BAD_SCHEMA = "BAD_SCHEMA"
BAD_LABEL = "BAD_LABEL"
UNKNOWN_LABEL = "UNKNOWN_LABEL"
BAD_TIME = "BAD_TIME"
FUTURE_TIME = "FUTURE_TIME"
TOO_LARGE = "TOO_LARGE"

MAXIMUM_OBJECT_BYTES = 128 * 1024 * 1024
"""Half a minute's work for the ingest function, which has five minutes for a whole batch."""
MAXIMUM_LINE_BYTES = 64 * 1024
MAXIMUM_LABEL_CHARACTERS = 128
MAXIMUM_ID_CHARACTERS = 256
SOURCES = ("correction", "audit")
CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far a user's clock may be ahead of S3's."""

_BOM = b"\xef\xbb\xbf"
_SEQUENCER_DIGITS = 40
_LINE_DIGITS = 10


@dataclass(frozen=True, slots=True)
class SourceObject:
    """The uploaded object that records come from: one version of one key."""

    bucket: str
    key: str
    version_id: str
    sequencer: str
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an upload; `content` is cut at the limit when `complete` is false."""

    number: int
    offset: int
    content: bytes
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record that is not accepted, and why."""

    reason: str
    detail: str
    line: Line

    def to_line(self, source: SourceObject) -> bytes:
        """Return the line of the quarantine object: the record as it came, and where it came from."""
        try:
            record, encoding = self.line.content.decode("utf-8"), "utf-8"
        except UnicodeDecodeError:
            record, encoding = base64.b64encode(self.line.content).decode("ascii"), "base64"
        entry = {
            "reason": self.reason,
            "detail": self.detail,
            "source": {
                "bucket": source.bucket,
                "key": source.key,
                "versionId": source.version_id,
                "line": self.line.number,
                "byteOffset": self.line.offset,
            },
            "record": record,
            "encoding": encoding,
        }
        return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def split_lines(chunks: Iterable[bytes], limit: int = MAXIMUM_LINE_BYTES) -> Iterator[Line]:
    r"""Split a stream into its lines without ever holding more than `limit` bytes of one.

    Blank lines are passed over; ``\r\n`` ends a line as ``\n`` does; line numbers count from 1 and offsets
    are those of the line's first byte in the object.
    """
    number, offset, position = 1, 0, 0
    held = bytearray()
    length = 0
    for chunk in chunks:
        start = 0
        while True:
            end = chunk.find(b"\n", start)
            piece = chunk[start:] if end < 0 else chunk[start:end]
            held += piece[: max(0, limit + 1 - len(held))]
            length += len(piece)
            if end < 0:
                break
            if line := _finish(number, offset, held, length, limit):
                yield line
            start = end + 1
            number, offset = number + 1, position + start
            held, length = bytearray(), 0
        position += len(chunk)
    if line := _finish(number, offset, held, length, limit):
        yield line


def _finish(number: int, offset: int, held: bytearray, length: int, limit: int) -> Line | None:
    content = bytes(held)
    if offset == 0 and content.startswith(_BOM):
        content = content[len(_BOM) :]
    if length > limit:
        return Line(number, offset, content[:limit], complete=False)
    content = content.strip(b" \t\r")
    return Line(number, offset, content) if content else None


def judge(line: Line, source: SourceObject, known_labels: frozenset[str] | None) -> Label | Rejection:
    """Decide one record: the label that it states, or why it is no ground truth.

    Parameters
    ----------
    line : Line
        One line of the upload.
    source : SourceObject
        Where it comes from. Its time replaces a missing event time and bounds a given one, so the same object
        gives the same answer whenever it is judged.
    known_labels : frozenset[str] or None
        The served model's label set; None when there is no model yet, and every label is welcome.
    """
    if not line.complete:
        return Rejection(TOO_LARGE, f"the line is longer than {MAXIMUM_LINE_BYTES} bytes", line)
    try:
        text = line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        return Rejection(NOT_UTF8, f"byte {error.start} of the line is not UTF-8", line)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Rejection(NOT_JSON, f"the line is not JSON: {error}", line)
    problem = _schema_problem(record)
    if problem:
        return Rejection(BAD_SCHEMA, problem, line)
    label = record["groundTruthData"].get("data")
    if not _printable(label, MAXIMUM_LABEL_CHARACTERS):
        return Rejection(
            BAD_LABEL,
            f"groundTruthData.data must be text of 1 to {MAXIMUM_LABEL_CHARACTERS} printable characters",
            line,
        )
    if known_labels is not None and label not in known_labels:
        return Rejection(
            UNKNOWN_LABEL,
            f"label {label!r} is not one of the {len(known_labels)} labels of the served model",
            line,
        )
    return _timed(line, source, record["eventMetadata"], label)


def _timed(line: Line, source: SourceObject, metadata: dict[str, Any], label: str) -> Label | Rejection:
    moment = source.uploaded_at
    if metadata.get("eventTime") is not None:
        try:
            moment = from_iso(metadata["eventTime"])
            stated = to_iso(moment)
        except (ValueError, TypeError, OverflowError):
            return Rejection(BAD_TIME, "eventMetadata.eventTime is not an ISO 8601 time", line)
        if moment > source.uploaded_at + CLOCK_TOLERANCE:
            return Rejection(
                FUTURE_TIME, f"eventTime {stated} is after the upload at {to_iso(source.uploaded_at)}", line
            )
    return Label(
        inference_id=metadata["eventId"],
        label=label,
        event_time=to_iso(moment),
        author=metadata.get("author"),
        source=metadata.get("source") or SOURCES[0],
        sequencer=padded_sequencer(source.sequencer, line.number),
    )


def padded_sequencer(sequencer: str, line: int) -> str:
    """Return a text that orders as (sequencer, line) does.

    S3's sequencers are hexadecimal numbers of different lengths that are to be compared after left-padding:
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
    """
    return f"{sequencer.lower().rjust(_SEQUENCER_DIGITS, '0')}.{line:0{_LINE_DIGITS}d}"


def _schema_problem(record: object) -> str | None:
    if not isinstance(record, dict):
        return "the record is not an object"
    data, metadata = record.get("groundTruthData"), record.get("eventMetadata")
    if not isinstance(data, dict):
        return "groundTruthData is not an object"
    if not isinstance(metadata, dict):
        return "eventMetadata is not an object"
    if data.get("encoding", "CSV") != "CSV":
        return "groundTruthData.encoding must be CSV"
    if not _printable(metadata.get("eventId"), MAXIMUM_ID_CHARACTERS):
        return f"eventMetadata.eventId must be text of 1 to {MAXIMUM_ID_CHARACTERS} printable characters"
    author, source = metadata.get("author"), metadata.get("source")
    if author is not None and not _printable(author, MAXIMUM_LABEL_CHARACTERS):
        return f"eventMetadata.author must be text of 1 to {MAXIMUM_LABEL_CHARACTERS} printable characters"
    if source is not None and source not in SOURCES:
        return f"eventMetadata.source must be one of {', '.join(SOURCES)}"
    if record.get("eventVersion", "0") != "0":
        return 'eventVersion must be "0"'
    return None


def _printable(value: object, limit: int) -> bool:
    # isprintable also refuses lone surrogates, which JSON can write and UTF-8 cannot.
    return isinstance(value, str) and 0 < len(value) <= limit and value.isprintable() and bool(value.strip())
