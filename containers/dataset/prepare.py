"""Prepare: base set + ground truth → Parquet shards for training and a frozen holdout.

Reads the processing inputs ``base``, ``dataset``, ``capture`` (the images of corrected predictions) and
``examples`` (those of labelled examples); writes the outputs ``train``, ``holdout`` and ``report``.
Environment: ``HOLDOUT_SHARE`` (default 0.2).

The side of an example is a function of its *decoded pixels* alone (:func:`dataset.sides.is_holdout`), or of
those of the picture that it is a compressed copy of; and where a picture has once lain it stays. What it is
to remember comes with the dataset (``sides.parquet``), and leaves with the report for the next version
(:mod:`dataset.memory`). So an example does not change sides, whatever else comes or goes; two files that show
the same picture (the base set's image sent to the endpoint again, a re-encoded copy, a copy under another id)
land on the same side; and no earlier model has seen a holdout image. A hash of the example id gives only the
first of these.

Where several examples show the same picture, one stays: the newest ground truth, else the base example with
the smallest id. The output does not depend on the order or the repetition of the inputs.

Memory holds about 800 bytes per example and a bounded number of images: what is known of an example is a
row (:data:`dataset.sides.ROW`), and its image is read from where it lies when it is looked at and when it is
written.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from common.contract import Paths, environment
from common.errors import BaseSetError
from common.logs import event
from dataset import captures
from dataset.captures import CaptureCounts
from dataset.labels import read_labels
from dataset.memory import FILE, read_sides, write_sides
from dataset.near_duplicates import Features
from dataset.pictures import Looks, Place, Workers, are_same, captured_body, look_at_all, read_all
from dataset.shards import write_shards
from dataset.sides import BASE, CORRECTION, LABELLED, PLACE, ROW, Sides, divide
from dataset.tables import pieces

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
BATCH_BYTES = 2 * 1024 * 1024
"""Of images in memory at once, of what a process hands over."""
LOOK_AT_ONCE = 64
FRAME_ROWS = 4096
TOLD = 100
"""Examples that are named in the report, and in the log, as left out."""

log = logging.getLogger(__name__)


class Offer(NamedTuple):
    """One labelled image: what is said about it, and where it lies.

    ``time`` is that of the label as it was written and ``at`` the same in microseconds; ``first`` is when the
    image first came, in microseconds, as far as it is known. All are empty in the base set.
    """

    example_id: str
    label: str
    kind: int
    place: Place
    time: str = ""
    at: int = 0
    first: int = 0


class Merge:
    """The examples so far, and what was left out."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.paths: list[str] = []
        self.frames: list[pl.DataFrame] = []
        self.features: list[Features] = []
        self.offered = {BASE: 0, CORRECTION: 0, LABELLED: 0}
        self.unreadable: list[str] = []
        self.changed: list[str] = []

    def add(self, offers: Iterator[Offer]) -> None:
        """Look at every image and keep a row of those that can be trained on."""
        waiting: list[Offer] = []

        def places() -> Iterator[Place]:
            for offer in offers:
                waiting.append(offer)
                yield offer.place

        looks = self.workers.map(look_at_all, places(), LOOK_AT_ONCE)
        while some := list(islice(looks, FRAME_ROWS)):
            self._keep(waiting[: len(some)], some)
            del waiting[: len(some)]

    def _keep(self, offers: list[Offer], looks: list[Looks]) -> None:
        rows = []
        features = []
        for offer, looked in zip(offers, looks, strict=True):
            self.offered[offer.kind] += 1
            if looked.features is None:
                self._leave_out(offer, looked)
                continue
            place = offer.place
            if not self.paths or self.paths[-1] != place.path:
                self.paths.append(place.path)
            rows.append(
                (
                    *(offer.example_id, offer.label, offer.kind, offer.time, offer.at, offer.first),
                    *(len(self.paths) - 1, place.offset, place.length, place.captured),
                    *(looked.digest, looked.content, looked.size, looked.is_jpeg),
                )
            )
            features.append(looked.features)
        if rows:
            self.frames.append(pl.DataFrame(rows, schema=ROW, orient="row"))
            self.features.append(np.stack(features))

    def _leave_out(self, offer: Offer, looked: Looks) -> None:
        left_out = self.changed if looked.changed else self.unreadable
        left_out.append(offer.example_id)
        if len(left_out) <= TOLD:
            log.warning("example %s is left out: %s", offer.example_id, looked.problem)

    def place(self, path: int, offset: int, length: int, captured: bool) -> Place:
        """Return where a row's image lies."""
        return Place(self.paths[path], offset, length, captured)

    def divide(self, share: float, remembered: pl.DataFrame) -> Sides:
        """Choose one example per picture, and its side."""
        rows = pl.concat(self.frames, rechunk=True) if self.frames else pl.DataFrame(schema=ROW)
        self.frames.clear()
        features = np.concatenate(self.features) if self.features else np.empty((0, 0), np.int16)
        self.features.clear()

        def confirm(pairs: list[tuple[Place, Place]]) -> list[bool]:
            return list(self.workers.map(are_same, iter(pairs), LOOK_AT_ONCE))

        return divide(rows, features, share, remembered, self.place, confirm)


def read_base(directory: Path, scratch: Path) -> Iterator[Offer]:
    """Yield the base set: every ``*.parquet`` and every ``<label>/<example id>.png``.

    The images of a Parquet file cannot be read one by one, and they are needed again in another order: they
    are copied to a file below `scratch`.

    Raises
    ------
    BaseSetError
        A Parquet file is damaged or lacks a column.
    """
    for path in sorted(directory.rglob("*.parquet")):
        yield from _read_table(path, str(path.relative_to(directory)), scratch)
    for folder in sorted(entry.name for entry in os.scandir(directory) if entry.is_dir()):
        names = (entry.name for entry in os.scandir(directory / folder) if entry.is_file())
        for name in sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES)):
            yield Offer(Path(name).stem, folder, BASE, Place(str(directory / folder / name)))


def _read_table(path: Path, name: str, scratch: Path) -> Iterator[Offer]:
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / "base-images"
    with copy.open("ab") as file:
        offset = file.tell()
        for example_ids, images, labels in pieces(path, name):
            file.writelines(images)
            file.flush()
            for example_id, image, label in zip(example_ids, images, labels, strict=True):
                yield Offer(example_id, label, BASE, Place(str(copy), offset, len(image)))
                offset += len(image)


def join(labels: pl.DataFrame, paths: list[str], counts: CaptureCounts) -> pl.DataFrame:
    """Return the newest capture of every labelled inference id, with its label.

    Of several captures of one id and time the greatest request holds, so that order decides nothing.
    """
    found = captures.newest_questions(paths, labels.select("inference_id"), counts)
    if found["inference_id"].n_unique() < found.height:
        several = found.filter(found["inference_id"].is_duplicated())
        best: dict[str, tuple[tuple[bytes, str], int]] = {}
        for inference_id, content, file, offset, length in several.select(
            "inference_id", "content", "file", "offset", "length"
        ).iter_rows():
            with open(paths[file], "rb") as lines:
                request = captured_body(os.pread(lines.fileno(), length, offset))
            if inference_id not in best or request > best[inference_id][0]:
                best[inference_id] = request, content
        chosen = pl.DataFrame(
            [(inference_id, content) for inference_id, (_, content) in best.items()],
            schema={"inference_id": pl.String, "content": pl.UInt64},
            orient="row",
        )
        found = pl.concat(
            [
                found.filter(~found["inference_id"].is_duplicated()),
                found.join(chosen, on=["inference_id", "content"], how="semi"),
            ]
        )
    return found.rename({"at": "captured_at"}).join(labels, on="inference_id", how="inner")


def read_corrections(joined: pl.DataFrame, paths: list[str]) -> Iterator[Offer]:
    """Yield the corrected predictions; ``joined`` is what :func:`join` returns."""
    columns = joined.select(
        *("inference_id", "label", "time", "file", "offset", "length"),
        pl.col("at").dt.epoch("us"),
        pl.col("captured_at").dt.epoch("us"),
    )
    for inference_id, label, time, file, offset, length, at, captured_at in columns.iter_rows():
        place = Place(paths[file], offset, length, captured=True)
        yield Offer(inference_id, label, CORRECTION, place, time, at, captured_at)


def read_examples(labelled: pl.DataFrame, directory: Path) -> Iterator[Offer]:
    """Yield the labelled examples, whose images lie below ``directory`` at their keys.

    An image that is gone since the snapshot, or whose key leads elsewhere, counts as unreadable. One that is
    another than the snapshot saw is left out: users may write to these keys, and a dataset version is one set
    of pictures.
    """
    within = directory.resolve()
    columns = labelled.select("inference_id", "label", "time", "image", "etag", pl.col("at").dt.epoch("us"))
    for inference_id, label, time, image, etag, at in columns.iter_rows():
        path = (within / image).resolve()
        there = path if path.is_relative_to(within) else within  # a directory has no picture
        yield Offer(inference_id, label, LABELLED, Place(str(there), etag=etag), time, at, at)


def main(paths: Paths) -> None:
    """Run the processing job.

    Raises
    ------
    BaseSetError
        There is no base set.
    RecordError
        A file of the dataset cannot be read.
    TooLittleDataError
        As :meth:`dataset.sides.Sides.require`.
    """
    share = environment().number("HOLDOUT_SHARE", 0.2, 0.01, 0.9)
    remembered = read_sides(paths.processing_input("dataset") / FILE)
    scratch = paths.scratch / "prepare"
    with Workers() as workers:
        merge = Merge(workers)
        base = paths.processing_input("base")
        if base.is_dir():
            (scratch / "base-images").unlink(missing_ok=True)
            merge.add(read_base(base, scratch))
        if not merge.offered[BASE]:
            raise BaseSetError(
                "no base set: put *.parquet (columns example_id, image, label) or <label>/<example id>.png "
                "below the data bucket's base/ prefix and start again"
            )
        labels = read_labels(paths.processing_input("dataset") / "ground-truth.jsonl")
        corrections = labels.filter(pl.col("image").is_null())
        labelled = labels.filter(pl.col("image").is_not_null())
        counts = CaptureCounts()
        files = captures.files(paths.processing_input("capture"))
        joined = join(corrections, files, counts)
        waiting = corrections.height - joined.height
        merge.add(read_corrections(joined, files))
        del joined, corrections
        merge.add(read_examples(labelled, paths.processing_input("examples")))

        sides = merge.divide(share, remembered)
        _tell(sides.undecided)
        report = {
            "version": 1,
            "holdoutShare": share,
            "holdoutShareReached": round(sides.share(), 4),
            "base": merge.offered[BASE],
            "groundTruthLabels": labels.height,
            "joined": merge.offered[CORRECTION],
            "waitingForCapture": waiting,
            "labelledExamples": labelled.height,
            "unreadableImages": len(merge.unreadable),
            "unreadableExamples": sorted(merge.unreadable)[:TOLD],
            "changedImages": len(merge.changed),
            "changedExamples": sorted(merge.changed)[:TOLD],
            "duplicates": sides.duplicates,
            "nearDuplicates": sides.near_duplicates,
            "undecidedPictures": len(sides.undecided),
            "undecidedExamples": sides.undecided[:TOLD],
            "rememberedPictures": remembered.height,
            "picturesElsewhere": sides.elsewhere,
            "conflictingLabels": sides.conflicting_labels,
            "captureRecords": counts.lines,
            "malformedCaptureRecords": counts.malformed,
            **sides.counts(),
            "digest": sides.digest(),
        }
        target = paths.processing_output("report") / "report.json"
        target.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", "utf-8")
        sides.require()
        for name, examples in sides.examples.items():
            total = max(1, int(examples["size"].sum()))
            at_once = max(1, min(LOOK_AT_ONCE, BATCH_BYTES * examples.height // total))
            places = (merge.place(*row) for row in examples.select(PLACE).iter_rows())
            images = workers.map(read_all, places, at_once)
            write_shards(examples, images, paths.processing_output(name))
        write_sides(sides.remembered, paths.processing_output("report") / FILE)
    (scratch / "base-images").unlink(missing_ok=True)
    event(
        log,
        "prepared",
        **{key: report[key] for key in ("base", "joined", "waitingForCapture", "examples", "digest")},
        **{key: report[key] for key in ("rememberedPictures", "picturesElsewhere", "undecidedPictures")},
    )


def _tell(undecided: list[str]) -> None:
    """Log which examples are on neither side, and what can be done about it."""
    if undecided:
        log.warning(
            "%d pictures are on neither side, since they are copies of one another that would lie, or have "
            "lain, on different ones: %s%s. Keep one copy of each, in the base set or as ground truth, if it "
            "is to be trained on or compared with",
            len(undecided),
            ", ".join(undecided[:TOLD]),
            "" if len(undecided) <= TOLD else " and others",
        )
