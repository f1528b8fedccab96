"""Prepare: base set + ground truth → Parquet shards for training and a frozen holdout.

Reads the processing inputs ``base``, ``dataset``, ``capture`` (the images of corrected predictions) and
``examples`` (those of labelled examples); writes the outputs ``train``, ``holdout`` and ``report``.
Environment: ``HOLDOUT_SHARE`` (default 0.2).

The side of an example is a function of its *decoded pixels* alone (:func:`is_holdout`). So an example never
changes sides, whatever else is in the dataset; two files that show the same picture (the base set's image
sent to the endpoint again, a re-encoded copy, a copy under another id) always land on the same side; and no
earlier model has seen a holdout image either. A hash of the example id gives only the first of these.

Where several examples show the same picture, one stays: the newest ground truth, else the base example with
the smallest id. The output does not depend on the order or the repetition of the inputs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from common.contract import Paths, environment
from common.errors import BadImageError, BaseSetError, TooLittleDataError
from common.imaging import decode, pixel_digest
from common.logs import event
from dataset.records import Capture, CaptureCounts, Label, instant, read_captures, read_merged_labels

BASE = "base"
GROUND_TRUTH = "ground-truth"
SHARD_BYTES = 128 * 1024 * 1024
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_MD5 = re.compile("[0-9a-f]{32}")
SCHEMA = {
    "example_id": pl.String,
    "image": pl.Binary,
    "label": pl.String,
    "source": pl.String,
    "time": pl.String,
}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Example:
    """One labelled image; ``time`` is that of the label, empty in the base set."""

    example_id: str
    image: bytes
    label: str
    source: str
    time: str

    def outranks(self, other: Example) -> bool:
        """Say whether this example stays where both show the same picture."""
        if self.source != other.source:
            return self.source == GROUND_TRUTH
        if self.time != other.time:
            return instant(self.time) > instant(other.time)
        return (self.example_id, self.label, self.image) < (other.example_id, other.label, other.image)


@dataclass
class Merge:
    """The examples so far, one per picture, and what was met on the way."""

    examples: dict[str, Example] = field(default_factory=dict)
    offered: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    duplicates: int = 0
    conflicting_labels: int = 0

    def add(self, example: Example) -> None:
        """Take an example in, unless its image cannot be decoded or a better one shows the same."""
        self.offered[example.source] += 1
        try:
            digest = pixel_digest(decode(example.image))
        except BadImageError as error:
            self.unreadable.append(example.example_id)
            log.warning("%s example %s is left out: %s", example.source, example.example_id, error)
            return
        known = self.examples.get(digest)
        if known is None:
            self.examples[digest] = example
            return
        self.duplicates += 1
        self.conflicting_labels += known.label != example.label
        if example.outranks(known):
            self.examples[digest] = example


def is_holdout(digest: str, share: float) -> bool:
    """Say whether the picture with this SHA-256 (hexadecimal) belongs to the holdout.

    The digest's first 64 bits, as a fraction of their range, are below ``share``: growing the share only
    ever adds to the holdout.
    """
    return int(digest[:16], 16) / 2**64 < share


def read_base(directory: Path) -> Iterator[Example]:
    """Yield the base set: every ``*.parquet`` and every ``<label>/<example id>.png``.

    Raises
    ------
    BaseSetError
        A Parquet file is damaged or lacks a column.
    """
    for path in sorted(directory.rglob("*.parquet")):
        try:
            table = pl.read_parquet(path, columns=["example_id", "image", "label"])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BaseSetError(
                f"{path.relative_to(directory)} cannot be read as a base set: {error}. It needs the columns "
                "example_id (string), image (binary) and label (string)"
            ) from error
        if table.schema["image"] != pl.Binary or any(table[name].null_count() for name in table.columns):
            raise BaseSetError(
                f"{path.relative_to(directory)}: image must be binary (it is {table.schema['image']}) and no "
                "column may hold nulls"
            )
        for example_id, image, label in table.iter_rows():
            yield Example(str(example_id), image, str(label), BASE, "")
    for path in sorted(directory.glob("*/*")):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield Example(path.stem, path.read_bytes(), path.parent.name, BASE, "")


def join(labels: dict[str, Label], captures: Iterator[Capture]) -> dict[str, Capture]:
    """Return the capture of every labelled inference id; the newest where an id was used again."""
    found: dict[str, Capture] = {}
    for capture in captures:
        if capture.inference_id not in labels:
            continue
        known = found.get(capture.inference_id)
        if known is None or (instant(capture.time), capture.request) > (instant(known.time), known.request):
            found[capture.inference_id] = capture
    return found


def read_examples(labels: dict[str, Label], directory: Path, changed: list[str]) -> Iterator[Example]:
    """Yield the labelled examples, whose images lie below ``directory`` at their keys.

    An image that is gone since the snapshot, or whose key leads elsewhere, is handed on empty: it counts as
    unreadable, as a captured one does that holds no image. One that is another than the snapshot saw is left
    out, and its id is added to ``changed``: users may write to these keys, and a dataset version is one set
    of pictures.
    """
    within = directory.resolve()
    for inference_id, label in sorted(labels.items()):
        if label.image is not None:
            path = (within / label.image).resolve()
            there = path.is_relative_to(within) and path.is_file()
            content = path.read_bytes() if there else b""
            if there and is_another(content, label.image_etag):
                changed.append(inference_id)
                log.warning("the image of %s was changed after the snapshot: it is left out", inference_id)
                continue
            yield Example(inference_id, content, label.label, GROUND_TRUTH, label.time)


def is_another(content: bytes, etag: str | None) -> bool:
    """Say whether ``content`` cannot be the object that had this ETag.

    The ETag of an object that was uploaded in one part, unencrypted or with SSE-S3, is the MD5 of its bytes;
    that of a multipart upload has a ``-`` and says nothing that could be checked:
    https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    if etag is None or _MD5.fullmatch(etag) is None:
        return False
    return hashlib.md5(content, usedforsecurity=False).hexdigest() != etag


def write_shards(examples: list[Example], directory: Path) -> None:
    """Write ``examples`` as Parquet files of about :data:`SHARD_BYTES` of images each."""
    start = size = shard = 0
    for index, example in enumerate(examples):
        size += len(example.image)
        if size >= SHARD_BYTES or index == len(examples) - 1:
            rows = examples[start : index + 1]
            columns = {name: [getattr(row, name) for row in rows] for name in SCHEMA}
            pl.DataFrame(columns, schema=SCHEMA).write_parquet(directory / f"part-{shard:05d}.parquet")
            start, size, shard = index + 1, 0, shard + 1


def _digest(sides: dict[str, list[Example]]) -> str:
    digest = hashlib.sha256()
    for side, examples in sides.items():
        for row in examples:
            image = hashlib.sha256(row.image).hexdigest()
            digest.update(json.dumps([side, row.example_id, row.label, row.source, row.time, image]).encode())
    return digest.hexdigest()


def main(paths: Paths) -> None:
    """Run the processing job.

    Raises
    ------
    BaseSetError
        There is no base set.
    TooLittleDataError
        One side has no example, or training has only one label.
    """
    share = environment().number("HOLDOUT_SHARE", 0.2, 0.01, 0.9)
    merge = Merge()
    for example in read_base(paths.processing_input("base")):
        merge.add(example)
    if not merge.offered[BASE]:
        raise BaseSetError(
            "no base set: put *.parquet (columns example_id, image, label) or <label>/<example id>.png below "
            "the data bucket's base/ prefix and start again"
        )

    labels = read_merged_labels(paths.processing_input("dataset") / "ground-truth.jsonl")
    counts = CaptureCounts()
    corrections = {key: label for key, label in labels.items() if label.image is None}
    captured = join(corrections, read_captures(paths.processing_input("capture"), counts))
    for inference_id, capture in sorted(captured.items()):
        label = corrections[inference_id]
        merge.add(Example(inference_id, capture.request, label.label, GROUND_TRUTH, label.time))
    changed: list[str] = []
    for example in read_examples(labels, paths.processing_input("examples"), changed):
        merge.add(example)

    sides: dict[str, list[Example]] = {"train": [], "holdout": []}
    for digest, example in merge.examples.items():
        sides["holdout" if is_holdout(digest, share) else "train"].append(example)
    for examples in sides.values():
        examples.sort(key=lambda row: (row.example_id, row.image))
    per_label = {side: Counter(row.label for row in examples) for side, examples in sides.items()}
    report = {
        "version": 1,
        "holdoutShare": share,
        "base": merge.offered[BASE],
        "groundTruthLabels": len(labels),
        "joined": len(captured),
        "waitingForCapture": len(corrections) - len(captured),
        "labelledExamples": len(labels) - len(corrections),
        "unreadableImages": len(merge.unreadable),
        "unreadableExamples": sorted(merge.unreadable)[:100],
        "changedImages": len(changed),
        "changedExamples": sorted(changed)[:100],
        "duplicates": merge.duplicates,
        "conflictingLabels": merge.conflicting_labels,
        "captureRecords": counts.lines,
        "malformedCaptureRecords": counts.malformed,
        "examples": {side: len(examples) for side, examples in sides.items()},
        "perLabel": {side: dict(sorted(counter.items())) for side, counter in per_label.items()},
        "perSource": {
            side: dict(sorted(Counter(row.source for row in examples).items()))
            for side, examples in sides.items()
        },
        "digest": _digest(sides),
    }
    target = paths.processing_output("report") / "report.json"
    target.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
    if len(per_label["train"]) < 2 or not sides["holdout"]:
        raise TooLittleDataError(
            f"too little data: {len(sides['train'])} training examples with {len(per_label['train'])} labels "
            f"and {len(sides['holdout'])} holdout examples; two labels and one holdout example are needed"
        )
    for side, examples in sides.items():
        write_shards(examples, paths.processing_output(side))
    event(
        log,
        "prepared",
        **{key: report[key] for key in ("base", "joined", "waitingForCapture", "examples", "digest")},
    )
