"""Let ground truth in: untrusted uploads become accepted labels or quarantined records, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from truthloop.errors import DatasetInvalid, InvalidEvent, TransientAwsError, TruthloopError
from truthloop.ground_truth import (
    MAXIMUM_OBJECT_BYTES,
    NOT_SUPPORTED,
    TOO_LARGE,
    Line,
    Rejection,
    SourceObject,
    judge,
    split_lines,
)
from truthloop.names import digest, split_uri
from truthloop.ports import Objects, ObjectStream, Ports
from truthloop.registry import APPROVED
from truthloop.settings import ACCEPTED_PREFIX, INBOX_PREFIX, QUARANTINE_PREFIX
from truthloop.times import hour_prefix

_SPOOL_BYTES = 4 * 1024 * 1024
_LABELS_KEPT = timedelta(minutes=5)
_ONE_OBJECT = timedelta(seconds=90)
"""Time for the largest upload there may be, with a margin."""


@dataclass(frozen=True)
class Upload:
    """The S3 event in one message."""

    bucket: str
    key: str
    version_id: str | None
    sequencer: str


@dataclass(frozen=True)
class Counts:
    """What became of the records of one or more objects."""

    objects: int = 0
    accepted: int = 0
    quarantined: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.objects + other.objects,
            self.accepted + other.accepted,
            self.quarantined + other.quarantined,
        )


@dataclass(frozen=True)
class Failure:
    """A message that goes back to the queue, and why."""

    message_id: str
    error: Exception


@dataclass(frozen=True)
class IngestResult:
    """What became of a batch."""

    counts: Counts
    failures: tuple[Failure, ...]

    def to_output(self) -> dict[str, Any]:
        """Return the partial batch response."""
        return {"batchItemFailures": [{"itemIdentifier": failure.message_id} for failure in self.failures]}


class KnownLabels:
    """The served model's label set, kept for a few minutes: no look-up per record, nor per batch."""

    def __init__(self) -> None:
        self._labels: frozenset[str] | None = None
        self._read_at: datetime | None = None

    def get(self, ports: Ports) -> frozenset[str] | None:
        """Return the labels of the newest Approved package; None when there is none or it names none."""
        now = ports.now()
        if self._read_at is None or now - self._read_at > _LABELS_KEPT:
            self._labels = _read_labels(ports)
            self._read_at = now
        return self._labels


def _read_labels(ports: Ports) -> frozenset[str] | None:
    package = ports.registry.newest(APPROVED)
    uri = package.metadata.get("labelsUri") if package else None
    if not uri:
        return None
    bucket, key = split_uri(uri)
    with ports.objects.stream(bucket, key, None) as stream:
        labels = json.loads(b"".join(stream.chunks))
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise DatasetInvalid(f"{uri} is not a list of labels")
    return frozenset(labels)


def ingest_ground_truth(
    event: Mapping[str, Any], ports: Ports, known: KnownLabels, available: timedelta
) -> IngestResult:
    """Ingest a batch of S3 events; a message that fails goes back alone.

    So does one that there is no time left for: a function that is cut off returns the whole batch, and a few
    huge uploads would carry the others along into the dead-letter queue.

    Keys derive from bucket, key and version of the source object and are written once, so a message that
    comes twice, or again after a crash, changes nothing.

    Parameters
    ----------
    event : Mapping
        Lambda's SQS event.
    ports : Ports
        The outside world.
    known : KnownLabels
        This process's memory of the label set.
    available : timedelta
        How long this invocation may still take.

    Raises
    ------
    TruthloopError
        When the label set cannot be read or the event cannot be published: the whole batch comes again.
    """
    deadline = ports.now() + available - _ONE_OBJECT
    labels = known.get(ports)
    counts, failures = Counts(), []
    for message in event["Records"]:
        try:
            if ports.now() > deadline:
                raise TransientAwsError("no time is left for this upload; it comes again")
            counts += _ingest_object(
                _parse(str(message["body"]), ports.objects.bucket), ports.objects, labels
            )
        except (TruthloopError, OSError) as error:  # OSError: what it becomes does not fit on the disk
            failures.append(Failure(str(message["messageId"]), error))
    if counts.accepted:
        ports.events.publish(
            "truthloop.ingest",
            "Ground Truth Accepted",
            {
                # Two stacks of one account share the bus: the rule tells them apart by their bucket.
                "bucket": ports.objects.bucket,
                "objects": counts.objects,
                "accepted": counts.accepted,
                "quarantined": counts.quarantined,
            },
        )
    return IngestResult(counts, tuple(failures))


def _parse(body: str, bucket: str) -> Upload:
    try:
        detail = json.loads(body)["detail"]
        item = detail["object"]
        upload = Upload(
            bucket=str(detail["bucket"]["name"]),
            key=str(item["key"]),
            version_id=str(item["version-id"]) if item.get("version-id") else None,
            sequencer=str(item.get("sequencer") or ""),
        )
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise InvalidEvent(f"the message is not an S3 Object Created event: {error!r}") from error
    if upload.bucket != bucket or not upload.key.startswith(INBOX_PREFIX):
        raise InvalidEvent(
            f"s3://{upload.bucket}/{upload.key} is not in the inbox s3://{bucket}/{INBOX_PREFIX}"
        )
    return upload


def _ingest_object(upload: Upload, objects: Objects, labels: frozenset[str] | None) -> Counts:
    with objects.stream(upload.bucket, upload.key, upload.version_id) as stream, ExitStack() as files:
        source = SourceObject(
            upload.bucket, upload.key, stream.version_id, upload.sequencer, stream.last_modified
        )
        accepted, quarantine = (files.enter_context(_spool()) for _ in range(2))
        problem = _problem_with(stream, upload.key)
        if problem is None:
            counts = _sort_records(stream.chunks, source, labels, accepted, quarantine)
        else:
            quarantine.write(problem.to_line(source))
            counts = Counts(objects=1, quarantined=1)
        identity = digest(upload.bucket, upload.key, stream.version_id)
        name = f"{hour_prefix(stream.last_modified)}/{identity}.jsonl"
        if counts.accepted:
            accepted.seek(0)
            objects.put_once(f"{ACCEPTED_PREFIX}{name}", accepted)
        if counts.quarantined:
            quarantine.seek(0)
            objects.put_once(f"{QUARANTINE_PREFIX}{name}", quarantine)
    return counts


def _problem_with(stream: ObjectStream, key: str) -> Rejection | None:
    """Say why no record of an object is read, if so; it stays in the inbox."""
    nowhere = Line(0, 0, b"")
    if not key.endswith(".jsonl"):
        return Rejection(NOT_SUPPORTED, "only *.jsonl is read here; the object stays in the inbox", nowhere)
    if stream.size > MAXIMUM_OBJECT_BYTES:
        detail = f"the object has {stream.size} bytes; split it into files of at most {MAXIMUM_OBJECT_BYTES}"
        return Rejection(TOO_LARGE, detail, nowhere)
    return None


def _spool() -> SpooledTemporaryFile[bytes]:
    # Small uploads stay in memory; a large one goes to disk, so memory does not grow with the upload.
    return SpooledTemporaryFile(max_size=_SPOOL_BYTES)


def _sort_records(
    chunks: Iterable[bytes],
    source: SourceObject,
    labels: frozenset[str] | None,
    accepted: IO[bytes],
    quarantine: IO[bytes],
) -> Counts:
    taken = refused = 0
    for line in split_lines(chunks):
        result = judge(line, source, labels)
        if isinstance(result, Rejection):
            quarantine.write(result.to_line(source))
            refused += 1
        else:
            accepted.write(result.to_accepted_line())
            taken += 1
    return Counts(objects=1, accepted=taken, quarantined=refused)
