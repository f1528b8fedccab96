"""Which labels the model of a package knows: one answer for the door and for the policy."""

from __future__ import annotations

import json
from dataclasses import dataclass

from truthloop.errors import AwsRequestFailed, ObjectMissing
from truthloop.names import split_uri
from truthloop.ports import Objects
from truthloop.serving.registry import ModelPackage


@dataclass(frozen=True)
class ModelLabels:
    """The labels of a model; None when its package names none that can be read, and `problem` says why."""

    labels: tuple[str, ...] | None
    problem: str | None = None


def read_model_labels(package: ModelPackage | None, objects: Objects) -> ModelLabels:
    """Read the labels that a package names.

    What cannot be read is no error: a package that somebody registered by hand must not stop every upload.
    The labels are unknown then, which is what they are without a model, too.

    Raises
    ------
    TransientAwsError
        When AWS does not answer now: the next attempt may know.
    """
    uri = package.metadata.get("labelsUri") if package else None
    if package is None or not uri:
        return ModelLabels(None)
    try:
        labels = _read(uri, objects)
    except (ObjectMissing, AwsRequestFailed, ValueError, RecursionError) as error:
        return ModelLabels(
            None,
            f"the labels of {package.arn} are not known, so every label is welcome: labelsUri {uri}: "
            f"{error}; put its list of labels there, as JSON",
        )
    return ModelLabels(tuple(labels))


def _read(uri: str, objects: Objects) -> list[str]:
    bucket, key = split_uri(uri)
    if bucket != objects.bucket:
        raise ValueError(f"it is not in the data bucket {objects.bucket}")
    labels = json.loads(objects.read(key))
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("it is not a list of labels")
    return labels
