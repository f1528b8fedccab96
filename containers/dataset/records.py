"""What the loop keeps about predictions: ground truth and the dataset's description.

Formats: ``docs/conventions.md``. Our own functions wrote these files and they must be whole, so a bad line
is an error. Data capture, which the endpoint writes, is read in :mod:`dataset.captures`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from common.errors import RecordError

_Key = TypeVar("_Key")

AUDIT = "audit"
CORRECTION = "correction"
DECISION = "decision"


@dataclass(frozen=True)
class Label:
    """One ground-truth statement about one inference id, or about one uploaded image.

    ``time`` is ISO 8601, as written; ``sequencer`` orders the uploads of one S3 key. ``image`` is the key of
    a labelled example's image, whose inference id is then ``image:<key>``, and ``image_etag`` that image's
    ETag when the snapshot was made.
    """

    inference_id: str
    label: str
    time: str
    source: str
    sequencer: str = ""
    author: str | None = None
    image: str | None = None
    image_etag: str | None = None


def instant(text: str) -> datetime:
    """Parse an ISO 8601 time; one without a zone is UTC, as in SageMaker's records.

    Raises
    ------
    ValueError
        The text is no time.
    """
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def newest(labels: dict[_Key, Label], key: _Key, label: Label) -> None:
    """Put ``label`` into ``labels`` unless a newer statement is there.

    Equal times are decided by the sequencer, then by what is said and who says it, so that the order of the
    files decides nothing: the rule by which the snapshot merges.
    """
    known = labels.get(key)
    if known is None or _rank(label) > _rank(known):
        labels[key] = label


@dataclass(frozen=True)
class AcceptedLabels:
    """What people say of predictions: the labels that hold, and the ids that nobody can rely on.

    ``disputed`` are inference ids about which authors disagree and nobody has decided.
    """

    labels: dict[str, Label]
    disputed: frozenset[str]


def settled(statements: Iterable[Label]) -> AcceptedLabels:
    """Say which label holds for each inference id.

    Of each author the newest statement counts. The newest decision settles an id; else all authors must
    agree, and the newest of them stands for the label: the rule by which the snapshot sets labels aside,
    without the majority that a team may allow there, and without shares and expiry, which say what to train
    on and not what is true.
    """
    held: dict[tuple[str, str | None], Label] = {}
    for statement in statements:
        newest(held, (statement.inference_id, statement.author), statement)
    about: dict[str, list[Label]] = {}
    for statement in held.values():
        about.setdefault(statement.inference_id, []).append(statement)
    labels: dict[str, Label] = {}
    disputed: set[str] = set()
    for inference_id, said in about.items():
        deciding = [label for label in said if label.source == DECISION] or said
        if len(said) > 1 and deciding is said and len({label.label for label in said}) > 1:
            disputed.add(inference_id)
        else:
            labels[inference_id] = max(deciding, key=_rank)
    return AcceptedLabels(labels, frozenset(disputed))


def _label(inference_id: Any, label: Any, time: Any, about: dict[str, Any]) -> Label:
    """Build a label from what a record holds, or raise ``TypeError`` or ``ValueError``."""
    found = Label(
        inference_id,
        label,
        time,
        about.get("source") or CORRECTION,
        about.get("sequencer") or "",
        about.get("author"),
        about.get("image"),
        about.get("imageETag"),
    )
    for name, value in vars(found).items():
        if value is None and name in ("author", "image", "image_etag"):
            continue
        if not isinstance(value, str) or not (value or name == "sequencer"):
            raise TypeError(f"{name} is {value!r}: it must be a text that is not empty")
    instant(found.time)
    return found


def _rank(label: Label) -> tuple[datetime, str, str, str, str]:
    return instant(label.time), label.sequencer, label.label, label.source, label.author or ""


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except ValueError as error:
                    raise RecordError(f"{path} line {number} is not JSON: {error}") from error


def read_merged_labels(path: Path) -> dict[str, Label]:
    """Read a snapshot's ``ground-truth.jsonl``; a missing file means no labels.

    Raises
    ------
    RecordError
        A line is not what the snapshot writes.
    """
    labels: dict[str, Label] = {}
    if not path.exists():
        return labels
    for number, record in _lines(path):
        try:
            label = _label(record["inferenceId"], record["label"], record["eventTime"], record)
            newest(labels, label.inference_id, label)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RecordError(f"{path} line {number}: {type(error).__name__} {error}") from error
    return labels


def read_accepted_labels(directory: Path) -> AcceptedLabels:
    """Merge the accepted ground-truth files below ``directory`` into one label per inference id.

    Labelled examples, which were never predicted, are passed over.

    Raises
    ------
    RecordError
        A line is not in the ground-truth format that the ingest function writes.
    """
    return settled(label for label in _accepted(directory) if label.image is None)


def _accepted(directory: Path) -> Iterator[Label]:
    for path in sorted(directory.rglob("*.jsonl")) if directory.is_dir() else []:
        for number, record in _lines(path):
            try:
                metadata = record["eventMetadata"]
                label = _label(
                    metadata["eventId"],
                    record["groundTruthData"]["data"],
                    metadata["eventTime"],
                    metadata,
                )
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise RecordError(f"{path} line {number}: {type(error).__name__} {error}") from error
            yield label


@dataclass(frozen=True)
class DatasetInfo:
    """What ``dataset.json`` says, as far as the containers need it."""

    generation: str
    dataset_version: str
    new_labels: int


def read_dataset_info(directory: Path) -> DatasetInfo:
    """Read the snapshot's ``dataset.json``.

    Raises
    ------
    RecordError
        It is missing or incomplete.
    """
    path = directory / "dataset.json"
    try:
        raw = json.loads(path.read_text("utf-8"))
        return DatasetInfo(str(raw["generation"]), str(raw["datasetVersion"]), int(raw["groundTruth"]["new"]))
    except OSError as error:
        raise RecordError(f"the dataset's description cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"{path} is no dataset description: {type(error).__name__} {error}") from error
