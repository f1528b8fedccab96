"""Fix the dataset version of a generation."""

from __future__ import annotations

from typing import TypedDict

from truthloop.claim import GenerationRecord, require_claim
from truthloop.dataset import ChampionModel, Dataset, manifest
from truthloop.errors import DatasetInvalid, ModelPackageInvalid
from truthloop.inputs import HeldInput
from truthloop.labels import changed, per_label
from truthloop.names import dataset_prefix, split_uri
from truthloop.ports import Ports
from truthloop.settings import BASE_PREFIX
from truthloop.steps.evidence import champion_model, find_champion, fold, fold_labels, read_trained
from truthloop.times import to_iso


class SnapshotOutput(TypedDict):
    """Where the dataset version is."""

    datasetUri: str
    datasetVersion: str
    captureManifestUri: str
    championManifestUri: str
    labels: int


def snapshot_dataset(event: object, ports: Ports) -> SnapshotOutput:
    """Write the generation's dataset, or finish and return the one that an earlier attempt began.

    dataset.json is written first, once, by a conditional write: it decides which accepted objects and which
    champion belong to the generation. The other files follow from it, so any number of attempts, also two at
    once, end with the same bytes.

    Raises
    ------
    ClaimLost
        When the execution does not hold the claim.
    DatasetInvalid
        When an accepted object or an earlier dataset cannot be read.
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = HeldInput.parse(event)
    generation = given.generation
    record = require_claim(ports.table.read(), given.execution, generation)
    objects, prefix = ports.objects, dataset_prefix(generation)
    key = f"{prefix}dataset.json"

    content = objects.read_if_exists(key)
    if content is None:
        captures = sorted(info.key for info in objects.list(f"capture/{ports.endpoint.name}/"))
        dataset = _new_dataset(generation, record, len(captures), ports)
        objects.put_once(key, dataset.to_json())
        content = objects.read(key)
    dataset = Dataset.from_json(content, objects.uri(key))

    objects.put_once(f"{prefix}ground-truth.jsonl", b"".join(_label_lines(dataset, record, ports)))
    captures = sorted(info.key for info in objects.list(f"capture/{ports.endpoint.name}/"))
    objects.put_once(f"{prefix}capture.manifest", manifest(objects.bucket, [*captures, key]))
    champion = _champion_key(dataset.champion, objects.bucket)
    objects.put_once(f"{prefix}champion.manifest", manifest(objects.bucket, [*champion, key]))
    return {
        "datasetUri": objects.uri(prefix),
        "datasetVersion": dataset.dataset_version,
        "captureManifestUri": objects.uri(f"{prefix}capture.manifest"),
        "championManifestUri": objects.uri(f"{prefix}champion.manifest"),
        "labels": dataset.labels,
    }


def _new_dataset(generation: str, record: GenerationRecord, captures: int, ports: Ports) -> Dataset:
    fold = fold_labels(ports.objects, record.last_trained)
    return Dataset(
        generation=generation,
        created_at=to_iso(ports.now()),
        dataset_version=fold.dataset_version,
        previous_dataset_version=fold.previous_dataset_version,
        base_uri=ports.objects.uri(BASE_PREFIX),
        labels=len(fold.labels),
        new=sum(changed(fold.before, fold.labels).values()),
        per_label=per_label(fold.labels),
        accepted_keys=fold.accepted_keys,
        captures=captures,
        champion=champion_model(find_champion(ports)),
    )


def _label_lines(dataset: Dataset, record: GenerationRecord, ports: Ports) -> list[bytes]:
    # What was trained on last does not change while the claim is held: any attempt folds the same.
    labels = fold(read_trained(ports.objects, record.last_trained), dataset.accepted_keys, ports.objects)
    if len(labels) != dataset.labels:
        raise DatasetInvalid(
            f"{dataset.generation} promises {dataset.labels} labels and its accepted objects hold "
            f"{len(labels)}: accepted objects were changed or deleted"
        )
    return [labels[identifier].to_line() for identifier in sorted(labels)]


def _champion_key(champion: ChampionModel | None, bucket: str) -> list[str]:
    if champion is None:
        return []
    found_in, key = split_uri(champion.model_data_url)
    if found_in != bucket:
        raise ModelPackageInvalid(
            f"the champion's model data {champion.model_data_url} is not in the data bucket {bucket}; "
            "copy it there and register it again"
        )
    return [key]
