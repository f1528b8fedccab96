"""Ground truth as labels: one statement about one inference id, and which of several statements holds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from truthloop.errors import DatasetInvalid


@dataclass(frozen=True, slots=True)
class Origin:
    """The record of an upload that a statement came from, as an accepted line keeps it.

    `line` counts from 1 and `byte_offset` from 0, in the unpacked content; `uploaded_at` is the upload's time
    as text.
    """

    key: str
    version_id: str
    line: int
    byte_offset: int
    uploaded_at: str

    def to_json(self) -> dict[str, str | int]:
        """Return the ``origin`` of a line."""
        return {
            "key": self.key,
            "versionId": self.version_id,
            "line": self.line,
            "byteOffset": self.byte_offset,
            "uploadedAt": self.uploaded_at,
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """What one author said about one inference id, or about one uploaded image.

    `event_time` is UTC with microseconds, so that times compare as text; `sequencer` orders statements about
    the same instant: the object's own sequencer, left-padded, and the line. `image` is the key of a labelled
    example's image; its `inference_id` is then ``image:<key>``.
    """

    inference_id: str
    label: str
    event_time: str
    author: str | None
    source: str
    sequencer: str
    origin: Origin
    image: str | None = None

    def to_accepted_line(self) -> bytes:
        """Return the line of an accepted object, in Model Monitor's ground-truth format."""
        metadata: dict[str, str] = {
            "eventId": self.inference_id,
            "eventTime": self.event_time,
            "source": self.source,
            "sequencer": self.sequencer,
        }
        if self.author is not None:
            metadata["author"] = self.author
        if self.image is not None:
            metadata["image"] = self.image
        return _dump(
            {
                "groundTruthData": {"data": self.label, "encoding": "CSV"},
                "eventMetadata": metadata,
                "eventVersion": "0",
                "origin": self.origin.to_json(),
            }
        )


@dataclass(frozen=True, slots=True)
class Label:
    """What somebody said that the right answer for one inference is.

    `sequencer` orders statements about the same instant: the object's own sequencer, left-padded, and the
    line.
    """

    inference_id: str
    label: str
    event_time: str
    author: str | None
    source: str
    sequencer: str

    @property
    def order(self) -> tuple[str, str, str]:
        """Sort key: the newest statement is the greatest. The label breaks ties, so that order is total."""
        return self.event_time, self.sequencer, self.label

    def to_line(self) -> bytes:
        """Return the line of a dataset's ``ground-truth.jsonl``."""
        return _dump(
            {
                "inferenceId": self.inference_id,
                "label": self.label,
                "eventTime": self.event_time,
                "author": self.author,
                "source": self.source,
                "sequencer": self.sequencer,
            }
        )

    def to_accepted_line(self) -> bytes:
        """Return the line of an accepted object, in Model Monitor's ground-truth format."""
        metadata: dict[str, str] = {
            "eventId": self.inference_id,
            "eventTime": self.event_time,
            "source": self.source,
            "sequencer": self.sequencer,
        }
        if self.author is not None:
            metadata["author"] = self.author
        return _dump(
            {
                "groundTruthData": {"data": self.label, "encoding": "CSV"},
                "eventMetadata": metadata,
                "eventVersion": "0",
            }
        )


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def read_accepted(key: str, lines: Iterable[bytes]) -> Iterator[Label]:
    """Read an accepted object; only ingest writes those, so a line that cannot be read is an error.

    Raises
    ------
    DatasetInvalid
        When a line is not what ingest writes.
    """
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            metadata = record["eventMetadata"]
            yield Label(
                inference_id=metadata["eventId"],
                label=record["groundTruthData"]["data"],
                event_time=metadata["eventTime"],
                author=metadata.get("author"),
                source=metadata["source"],
                sequencer=metadata["sequencer"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetInvalid(
                f"line {number} of {key} is not an accepted label ({error!r}); only ingest may write there"
            ) from error


def read_merged(key: str, lines: Iterable[bytes]) -> Iterator[Label]:
    """Read a dataset's ``ground-truth.jsonl``.

    Raises
    ------
    DatasetInvalid
        When a line is not what a snapshot writes.
    """
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            yield Label(
                inference_id=record["inferenceId"],
                label=record["label"],
                event_time=record["eventTime"],
                author=record["author"],
                source=record["source"],
                sequencer=record["sequencer"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetInvalid(f"line {number} of {key} is not a merged label ({error!r})") from error


def merge(known: Mapping[str, Label], incoming: Iterable[Label]) -> dict[str, Label]:
    """Keep the newest statement per inference id, by (event time, sequencer).

    The result does not depend on the order of `incoming`, and merging twice changes nothing.
    """
    merged = dict(known)
    merge_into(merged, incoming)
    return merged


def merge_into(known: dict[str, Label], incoming: Iterable[Label]) -> None:
    """Merge in place: with a file per upload, a copy per file would take time with the square of them."""
    for label in incoming:
        held = known.get(label.inference_id)
        if held is None or held.order < label.order:
            known[label.inference_id] = label


def changed(before: Mapping[str, Label], after: Mapping[str, Label]) -> dict[str, int]:
    """Count inference ids whose label is new or different, per label.

    The same correction uploaded again is newer but says the same: it does not count.
    """
    counts = Counter(
        label.label
        for identifier, label in after.items()
        if identifier not in before or before[identifier].label != label.label
    )
    return dict(sorted(counts.items()))


def per_label(labels: Mapping[str, Label]) -> dict[str, int]:
    """Count labels per class."""
    return dict(sorted(Counter(label.label for label in labels.values()).items()))
