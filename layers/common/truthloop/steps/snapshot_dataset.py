"""Fix the dataset version of a generation."""

from __future__ import annotations

from tempfile import SpooledTemporaryFile
from typing import TypedDict

from truthloop.errors import DatasetInvalid, ModelPackageInvalid, ObjectMissing
from truthloop.inputs import HeldInput
from truthloop.names import dataset_prefix, sides_keys, split_uri
from truthloop.ports import Objects, Ports
from truthloop.retraining.claim import GenerationRecord, require_claim
from truthloop.settings import BASE_PREFIX
from truthloop.steps.evidence import (
    champion_model,
    find_champion,
    fold_labels,
    read_statements,
    statements_key,
)
from truthloop.times import to_iso
from truthloop.versions.dataset import ChampionModel, Dataset, GroundTruth, manifest
from truthloop.versions.labels import Reader, changed, per_label

_SPOOL_BYTES = 16 * 1024 * 1024


class SnapshotOutput(TypedDict):
    """Where the dataset version is."""

    datasetUri: str
    datasetVersion: str
    captureManifestUri: str
    examplesManifestUri: str
    championManifestUri: str
    labels: int


def snapshot_dataset(event: object, ports: Ports) -> SnapshotOutput:
    """Write the generation's dataset, or finish and return the one that an earlier attempt began.

    ``statements.jsonl`` is written first, once, by a conditional write: it holds all that the version is, the
    description and every statement. The other files follow from it alone, so any number of attempts, also two
    at once, end with the same bytes, whatever is uploaded, captured, configured or forgotten between them.
    ``dataset.json`` comes last: where it is, the version is whole.

    The newest earlier ``sides.parquet``, in which Prepare remembers on which side each picture has lain, is
    copied into the version, so that it holds all that it is made of. It is no part of the version's digest:
    it is another one after every run, and the same labels would be new evidence each time.

    Raises
    ------
    ClaimLost
        When the execution does not hold the claim.
    DatasetInvalid
        When an accepted object or an earlier dataset cannot be read, or what was decided on is gone.
    InvalidEvent
        When the input is not what docs/conventions.md says.
    """
    given = HeldInput.parse(event)
    record = require_claim(ports.table.read(), given.execution, given.generation)
    objects, prefix = ports.objects, dataset_prefix(given.generation)
    key, decided = f"{prefix}dataset.json", statements_key(given.generation)

    content = objects.read_if_exists(key)
    if content is None:
        if decided not in {info.key for info in objects.list(prefix)}:
            _decide(given.generation, record, ports)
        content = _finish(prefix, objects)
    dataset = Dataset.from_json(content, objects.uri(key))
    return {
        "datasetUri": objects.uri(prefix),
        "datasetVersion": dataset.dataset_version,
        "captureManifestUri": objects.uri(f"{prefix}capture.manifest"),
        "examplesManifestUri": objects.uri(f"{prefix}examples.manifest"),
        "championManifestUri": objects.uri(f"{prefix}champion.manifest"),
        "labels": dataset.ground_truth.labels,
    }


def _decide(generation: str, record: GenerationRecord, ports: Ports) -> None:
    """Write what the version is, unless another attempt has."""
    now = ports.now()
    fold = fold_labels(ports, record, now)
    dataset = Dataset(
        generation=generation,
        created_at=to_iso(now),
        dataset_version=fold.dataset_version,
        previous_dataset_version=fold.previous_dataset_version,
        base_uri=ports.objects.uri(BASE_PREFIX),
        ground_truth=GroundTruth(
            labels=len(fold.labels),
            new=sum(changed(fold.before, fold.labels).values()),
            per_label=per_label(fold.labels),
            statements=sum(len(statements) for statements in fold.statements.values()),
            waiting=len(fold.waiting),
            expired=fold.expired,
            conflicts=len(fold.conflicts),
            over_share=sum(fold.over_share.values()),
            forgotten=fold.forgotten,
        ),
        accepted_keys=fold.accepted_keys,
        captures=len(fold.capture_keys),
        champion=champion_model(find_champion(ports)),
        capture_keys=fold.capture_keys,
        sides_key=_newest_sides(record, ports.objects),
    )
    _champion_key(dataset.champion, ports.objects.bucket)  # what cannot be finished is not begun
    with _spool() as file:
        file.write(dataset.to_line())
        for identifier in sorted(fold.statements):
            label, captured = fold.labels.get(identifier), identifier in fold.captured
            for statement in fold.statements[identifier]:
                trained = statement is label
                etag = fold.images[statement.image] if trained and statement.image is not None else None
                file.write(statement.to_statement_line(captured=captured, trained=trained, image_etag=etag))
        for statement in sorted(fold.remembered, key=lambda s: (s.inference_id, s.order, s.origin.line)):
            file.write(statement.to_statement_line(captured=False, trained=False, expired=True))
        file.seek(0)
        ports.objects.put_once(statements_key(generation), file)


def _newest_sides(record: GenerationRecord, objects: Objects) -> str | None:
    """Return the key of what remembers most: what the newest run's Prepare left, else what it was given."""
    if record.last_run is None:
        return None
    keys = sides_keys(record.last_run.generation)
    return next((key for key in keys if key in {info.key for info in objects.list(key)}), None)


def _finish(prefix: str, objects: Objects) -> bytes:
    """Write what follows from ``statements.jsonl``; return dataset.json."""
    key, source = f"{prefix}dataset.json", f"{prefix}statements.jsonl"
    dataset, lines = read_statements(objects, source)
    images: list[str] = []
    with _spool() as file:
        labels = 0
        for kept in Reader().kept(source, lines):
            if kept.trained:
                statement = kept.statement
                file.write(statement.to_label_line(kept.image_etag))
                labels += 1
                images += [statement.image] if statement.image is not None else []
        if labels != dataset.ground_truth.labels:
            raise DatasetInvalid(
                f"{objects.uri(source)} promises {dataset.ground_truth.labels} labels and holds {labels}: "
                "it was changed after it was written; restore it, or delete it to have it decided anew"
            )
        file.seek(0)
        objects.put_once(f"{prefix}ground-truth.jsonl", file)
    if dataset.sides_key is not None:
        _copy_sides(dataset.sides_key, prefix, objects)
    listed = {
        "capture": list(dataset.capture_keys),
        "examples": images,
        "champion": _champion_key(dataset.champion, objects.bucket),
    }
    for name, keys in listed.items():
        objects.put_once(f"{prefix}{name}.manifest", manifest(objects.bucket, [*keys, key]))
    content = dataset.to_json()
    objects.put_once(key, content)
    return content


def _copy_sides(source: str, prefix: str, objects: Objects) -> None:
    try:
        with objects.stream(objects.bucket, source, None) as stream, _spool() as file:
            for chunk in stream.chunks:
                file.write(chunk)
            file.seek(0)
            objects.put_once(f"{prefix}sides.parquet", file)
    except ObjectMissing as error:
        raise DatasetInvalid(
            f"{objects.uri(source)} is gone since this version was decided, and with it the sides of the "
            f"pictures: restore it, or delete {objects.uri(prefix)}statements.jsonl to have it decided anew"
        ) from error


def _spool() -> SpooledTemporaryFile[bytes]:
    # A version of a million statements takes half a gigabyte: more than what is beside it in memory leaves.
    return SpooledTemporaryFile(max_size=_SPOOL_BYTES)


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
