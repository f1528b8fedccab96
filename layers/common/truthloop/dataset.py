"""What a dataset version is: the digest of what training would see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from truthloop.errors import DatasetInvalid
from truthloop.labels import Label


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing."""

    key: str
    etag: str
    size: int


def dataset_version(base: Iterable[ObjectInfo], labels: Mapping[str, Label]) -> str:
    """Digest the base set's objects and each inference id's label.

    Times and authors stay out: the same corrections uploaded again are the same training data. Captures stay
    out too, or any request to the endpoint would make a new version.
    """
    whole = hashlib.sha256()
    for item in sorted(base, key=lambda info: info.key):
        whole.update(json.dumps(["base", item.key, item.etag]).encode() + b"\n")
    for identifier in sorted(labels):
        whole.update(json.dumps(["label", identifier, labels[identifier].label]).encode() + b"\n")
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
class Dataset:
    """The content of a generation's dataset.json."""

    generation: str
    created_at: str
    dataset_version: str
    previous_dataset_version: str | None
    base_uri: str
    labels: int
    new: int
    per_label: Mapping[str, int]
    accepted_keys: tuple[str, ...]
    captures: int
    champion: ChampionModel | None

    def to_json(self) -> bytes:
        """Return the file's bytes."""
        content = {
            "version": 1,
            "generation": self.generation,
            "createdAt": self.created_at,
            "datasetVersion": self.dataset_version,
            "previousDatasetVersion": self.previous_dataset_version,
            "baseUri": self.base_uri,
            "groundTruth": {"labels": self.labels, "new": self.new, "perLabel": dict(self.per_label)},
            "acceptedKeys": list(self.accepted_keys),
            "captures": self.captures,
            "champion": self.champion.to_json() if self.champion else None,
        }
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Dataset:
        """Read what `to_json` wrote.

        Raises
        ------
        DatasetInvalid
            When the file is not a dataset.json of version 1.
        """
        try:
            value: dict[str, Any] = json.loads(content)
            require_version(value)
            truth, champion = value["groundTruth"], value["champion"]
            return cls(
                generation=value["generation"],
                created_at=value["createdAt"],
                dataset_version=value["datasetVersion"],
                previous_dataset_version=value["previousDatasetVersion"],
                base_uri=value["baseUri"],
                labels=int(truth["labels"]),
                new=int(truth["new"]),
                per_label=dict(truth["perLabel"]),
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
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetInvalid(f"{where} is not a dataset.json of version 1: {error!r}") from error


def require_version(value: Mapping[str, Any]) -> None:
    """Accept version 1 of a file's format only.

    Raises
    ------
    ValueError
        When the file says that it is of another version.
    """
    if value["version"] != 1:
        raise ValueError(f"its version is {value['version']!r}")


def manifest(bucket: str, keys: Iterable[str]) -> bytes:
    """Return a SageMaker ManifestFile that lists `keys` of `bucket`."""
    return json.dumps([{"prefix": f"s3://{bucket}/"}, *keys]).encode()
