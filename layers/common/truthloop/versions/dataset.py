"""What a dataset version is: the digest of what training would see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from truthloop.errors import DatasetInvalid
from truthloop.versions.labels import Statement


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    etag: str
    size: int


def dataset_version(
    base: Iterable[ObjectInfo], labels: Mapping[str, Statement], images: Mapping[str, str]
) -> str:
    """Digest the base set's objects, each inference id's label and each labelled example's image.

    Times and authors stay out: the same corrections uploaded again are the same training data. Captures stay
    out too, or any request to the endpoint would make a new version.

    Parameters
    ----------
    base : Iterable[ObjectInfo]
        The objects of the base set.
    labels : Mapping[str, Statement]
        What is trained on, by inference id.
    images : Mapping[str, str]
        The ETags of the labelled examples' images, by key.
    """
    whole = hashlib.sha256()
    for item in sorted(base, key=lambda info: info.key):
        whole.update(json.dumps(["base", item.key, item.etag]).encode() + b"\n")
    for identifier in sorted(labels):
        statement = labels[identifier]
        about = ["label", identifier, statement.label]
        if statement.image is not None:
            about.append(images[statement.image])
        whole.update(json.dumps(about).encode() + b"\n")
    return whole.hexdigest()


@dataclass(frozen=True)
class ChampionModel:
    """The model in service, as the pipeline's fine-tuning and comparison need it."""

    model_package_arn: str
    model_data_url: str
    generation: str
    candidate: str

    def to_json(self) -> dict[str, str]:
        """Return the ``champion`` of dataset.json."""
        return {
            "modelPackageArn": self.model_package_arn,
            "modelDataUrl": self.model_data_url,
            "generation": self.generation,
            "candidate": self.candidate,
        }


@dataclass(frozen=True)
class GroundTruth:
    """What became of all statements, in numbers.

    Attributes
    ----------
    labels, new : int
        Labels that the version trains on, and how many of them the version before had not, or otherwise.
    per_label : Mapping[str, int]
        Labels per class.
    statements : int
        Statements that go on counting.
    waiting, expired, conflicts, over_share, forgotten : int
        Labels that wait for their capture; statements that have waited too long, found this time; labels that
        authors disagree about; labels beyond an author's share; statements of forgotten authors, found this
        time.
    """

    labels: int
    new: int
    per_label: Mapping[str, int]
    statements: int
    waiting: int = 0
    expired: int = 0
    conflicts: int = 0
    over_share: int = 0
    forgotten: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the ``groundTruth`` of dataset.json."""
        return {
            "labels": self.labels,
            "new": self.new,
            "perLabel": dict(self.per_label),
            "statements": self.statements,
            "waiting": self.waiting,
            "expired": self.expired,
            "conflicts": self.conflicts,
            "overShare": self.over_share,
            "forgotten": self.forgotten,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> GroundTruth:
        """Read what `to_json` wrote."""
        return cls(
            labels=int(value["labels"]),
            new=int(value["new"]),
            per_label=dict(value["perLabel"]),
            statements=int(value["statements"]),
            waiting=int(value["waiting"]),
            expired=int(value["expired"]),
            conflicts=int(value["conflicts"]),
            over_share=int(value["overShare"]),
            forgotten=int(value["forgotten"]),
        )


@dataclass(frozen=True)
class Dataset:
    """The content of a generation's dataset.json.

    `capture_keys`, the capture objects that hold the labels' predictions, and `sides_key`, the object that
    remembers on which side every picture has lain, stand in ``statements.jsonl`` only; dataset.json has the
    captures' number.
    """

    generation: str
    created_at: str
    dataset_version: str
    previous_dataset_version: str | None
    base_uri: str
    ground_truth: GroundTruth
    accepted_keys: tuple[str, ...]
    captures: int
    champion: ChampionModel | None
    capture_keys: tuple[str, ...] = field(default=(), compare=False)
    sides_key: str | None = field(default=None, compare=False)

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(self._content(), indent=1).encode() + b"\n"

    def to_line(self) -> bytes:
        """Return the first line of ``statements.jsonl``."""
        content = {
            **self._content(),
            "captureKeys": list(self.capture_keys),
            "sidesKey": self.sides_key,
        }
        return json.dumps(content, separators=(",", ":")).encode() + b"\n"

    def _content(self) -> dict[str, Any]:
        return {
            "version": 1,
            "generation": self.generation,
            "createdAt": self.created_at,
            "datasetVersion": self.dataset_version,
            "previousDatasetVersion": self.previous_dataset_version,
            "baseUri": self.base_uri,
            "groundTruth": self.ground_truth.to_json(),
            "acceptedKeys": list(self.accepted_keys),
            "captures": self.captures,
            "champion": self.champion.to_json() if self.champion else None,
        }

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Dataset:
        """Read what `to_json` or `to_line` wrote.

        Raises
        ------
        DatasetInvalid
            When the file is not a dataset.json of version 1.
        """
        try:
            value: dict[str, Any] = json.loads(content)
            require_version(value)
            champion = value["champion"]
            return cls(
                generation=value["generation"],
                created_at=value["createdAt"],
                dataset_version=value["datasetVersion"],
                previous_dataset_version=value["previousDatasetVersion"],
                base_uri=value["baseUri"],
                ground_truth=GroundTruth.from_json(value["groundTruth"]),
                accepted_keys=tuple(value["acceptedKeys"]),
                captures=int(value["captures"]),
                champion=ChampionModel(
                    champion["modelPackageArn"],
                    champion["modelDataUrl"],
                    champion["generation"],
                    champion["candidate"],
                )
                if champion
                else None,
                capture_keys=tuple(value.get("captureKeys", ())),
                sides_key=value.get("sidesKey"),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetInvalid(f"{where} is not a dataset.json of version 1: {error!r}") from error


def require_version(value: Mapping[str, Any], known: Sequence[int] = (1,)) -> None:
    """Accept the known versions of a file's format only.

    Raises
    ------
    ValueError
        When the file says that it is of another version.
    """
    if value["version"] not in known:
        raise ValueError(f"its version is {value['version']!r}")


def manifest(bucket: str, keys: Iterable[str]) -> bytes:
    """Return a SageMaker ManifestFile that lists `keys` of `bucket`."""
    return json.dumps([{"prefix": f"s3://{bucket}/"}, *keys]).encode()
