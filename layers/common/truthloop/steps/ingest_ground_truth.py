"""Let ground truth in: untrusted uploads become accepted labels or quarantined records, nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from truthloop.errors import InvalidEvent, TransientAwsError, TruthloopError, UploadRejected
from truthloop.inputs import Fields
from truthloop.names import digest
from truthloop.ports import Objects, ObjectStream, Ports
from truthloop.serving.registry import APPROVED
from truthloop.settings import ACCEPTED_PREFIX, INBOX_PREFIX, QUARANTINE_PREFIX
from truthloop.steps.known_labels import read_model_labels
from truthloop.times import hour_prefix
from truthloop.uploads.door import (
    MAXIMUM_KEY_BYTES,
    UNKNOWN_LABEL,
    Judge,
    Rejection,
    SourceObject,
    label_set_name,
    rejected_whole,
)
from truthloop.uploads.lines import format_of, read_lines
from truthloop.uploads.spool import Spool, spool

MAXIMUM_NAMED_LABELS = 20
"""How many unknown labels are named: anyone who uploads can invent labels."""
_LABELS_KEPT = timedelta(minutes=5)
_ONE_OBJECT = timedelta(seconds=120)
"""Time for the largest upload there may be: 2,000,000 records at 25 µs, and 2 GiB to and from S3."""


_SEQUENCER = re.compile(r"[0-9A-Fa-f]{0,40}")


@dataclass(frozen=True)
class Upload:
    """The S3 event in one message."""

    bucket: str
    key: str
    version_id: str | None
    sequencer: str

    @classmethod
    def parse(cls, body: object, bucket: str) -> Upload:
        """Read a message's body.

        Raises
        ------
        InvalidEvent
            When it is no S3 event of the inbox of `bucket`.
        """
        try:
            event = json.loads(body) if isinstance(body, str) else body
        except (ValueError, RecursionError) as error:
            raise InvalidEvent(f"the message is not an S3 Object Created event: {error!r}") from error
        detail = Fields(event, "the message").object("detail")
        item = detail.object("object")
        upload = cls(
            bucket=detail.object("bucket").text("name"),
            key=item.text("key", MAXIMUM_KEY_BYTES),
            version_id=item.optional_text("version-id"),
            sequencer=item.optional_text("sequencer") or "",
        )
        if upload.bucket != bucket or not upload.key.startswith(INBOX_PREFIX):
            raise InvalidEvent(
                f"s3://{upload.bucket}/{upload.key} is not in the inbox s3://{bucket}/{INBOX_PREFIX}"
            )
        if _SEQUENCER.fullmatch(upload.sequencer) is None:
            raise InvalidEvent(f"the sequencer {upload.sequencer!r} of {upload.key} is no hexadecimal number")
        return upload


@dataclass(frozen=True)
class Counts:
    """What became of the records of one or more objects.

    `unknown` of the quarantined ones have a label that is new to the served model; `unknown_labels` names the
    first few.
    """

    objects: int = 0
    accepted: int = 0
    quarantined: int = 0
    unknown: int = 0
    unknown_labels: frozenset[str] = frozenset()

    def __add__(self, other: Counts) -> Counts:
        named = sorted(self.unknown_labels) + sorted(other.unknown_labels - self.unknown_labels)
        return Counts(
            self.objects + other.objects,
            self.accepted + other.accepted,
            self.quarantined + other.quarantined,
            self.unknown + other.unknown,
            frozenset(named[:MAXIMUM_NAMED_LABELS]),
        )

    def to_log(self) -> dict[str, Any]:
        """Return what the log says of a batch."""
        return {
            "objects": self.objects,
            "accepted": self.accepted,
            "quarantined": self.quarantined,
            "unknown": self.unknown,
            "unknown_labels": sorted(self.unknown_labels),
        }


@dataclass(frozen=True)
class LabelSet:
    """The labels of the served model (None: every label is welcome), and what the set is called in keys.

    `problem` says why the labels of an approved package are not known.
    """

    labels: frozenset[str] | None
    name: str
    problem: str | None = None


@dataclass(frozen=True)
class Failure:
    """A message that goes back to the queue, and why."""

    message_id: str
    error: Exception


@dataclass(frozen=True)
class IngestResult:
    """What became of a batch; `problem` says why the labels of the approved package are not known."""

    counts: Counts
    failures: tuple[Failure, ...]
    problem: str | None = None

    def to_output(self) -> dict[str, Any]:
        """Return the partial batch response."""
        return {"batchItemFailures": [{"itemIdentifier": failure.message_id} for failure in self.failures]}


class KnownLabels:
    """The served model's label set, kept for a few minutes: no look-up per record, nor per batch."""

    def __init__(self) -> None:
        self._labels = LabelSet(None, label_set_name(None))
        self._read_at: datetime | None = None

    def get(self, ports: Ports) -> LabelSet:
        """Return the labels of the newest Approved package; any when it names none that can be read."""
        now = ports.now()
        if self._read_at is None or now - self._read_at > _LABELS_KEPT:
            known = read_model_labels(ports.registry.newest(APPROVED), ports.objects)
            labels = None if known.labels is None else frozenset(known.labels)
            self._labels = LabelSet(labels, label_set_name(labels), known.problem)
            self._read_at = now
        return self._labels


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
        When AWS does not answer, the event cannot be published or is no batch: it comes again whole.
    """
    deadline = ports.now() + available - _ONE_OBJECT
    messages = [Fields(message, "a message") for message in Fields(event).objects("Records")]
    bodies = [(message.text("messageId"), message.raw("body")) for message in messages]
    labels = known.get(ports)
    counts, failures, done = Counts(), [], set[Upload]()
    for message_id, body in bodies:
        try:
            upload = Upload.parse(body, ports.objects.bucket)
            if upload in done:  # the queue delivers at least once, also into one batch
                continue
            if ports.now() > deadline:
                raise TransientAwsError("no time is left for this upload; it comes again")
            counts += _ingest_object(upload, ports.objects, labels)
            done.add(upload)
        except (TruthloopError, OSError) as error:  # OSError: what it becomes does not fit on the disk
            failures.append(Failure(message_id, error))
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
                "unknownLabels": counts.unknown,
            },
        )
    return IngestResult(counts, tuple(failures), labels.problem)


def _ingest_object(upload: Upload, objects: Objects, known: LabelSet) -> Counts:
    with (
        objects.stream(upload.bucket, upload.key, upload.version_id) as stream,
        spool() as accepted,
        spool() as quarantine,
    ):
        source = SourceObject(
            upload.bucket, upload.key, stream.version_id, upload.sequencer, stream.last_modified
        )
        identity = digest(upload.bucket, upload.key, stream.version_id)
        name = f"{hour_prefix(stream.last_modified)}/{identity}"
        # Which label set judged is part of the key: after a crash another one may judge again, and what the
        # first has not accepted must not hide what the second does not accept.
        quarantine_key = f"{QUARANTINE_PREFIX}{name}.{known.name}.jsonl"
        try:
            counts = sort_records(stream, source, known.labels, accepted, quarantine)
            good, bad = accepted.content(), quarantine.content()
        except UploadRejected as problem:
            objects.put_once(quarantine_key, rejected_whole(problem, source))
            return Counts(objects=1, quarantined=1)
        # Quarantine first: once the accepted object exists, a redelivery may judge by other labels, and
        # nobody would know any more what this one has turned away.
        if counts.quarantined:
            objects.put_once(quarantine_key, bad)
        if counts.accepted:
            objects.put_once(f"{ACCEPTED_PREFIX}{name}.jsonl", good)
    return counts


def sort_records(
    stream: ObjectStream,
    source: SourceObject,
    labels: frozenset[str] | None,
    accepted: Spool,
    quarantine: Spool,
) -> Counts:
    """Judge an upload record by record; write what becomes of each to one of two spools.

    Raises
    ------
    UploadRejected
        When none of its records may count.
    """
    upload = format_of(source.key)
    judge = Judge(source, upload.records, labels)
    taken = refused = unknown = 0
    named: set[str] = set()
    for line in read_lines(stream.chunks, upload, stream.size):
        result = judge(line)
        if isinstance(result, Rejection):
            quarantine.write(result.to_line(source))
            refused += 1
            if result.reason == UNKNOWN_LABEL and result.label is not None:
                unknown += 1
                if len(named) < MAXIMUM_NAMED_LABELS:
                    named.add(result.label)
        elif result is not None:
            accepted.write(result.to_accepted_line())
            taken += 1
    return Counts(1, taken, refused, unknown, frozenset(named))
