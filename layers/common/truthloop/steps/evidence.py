"""What there is to learn from: all accepted statements and the base set, as a snapshot would hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from truthloop.errors import DatasetInvalid
from truthloop.names import dataset_prefix, digest
from truthloop.ports import Objects, Ports
from truthloop.retraining.claim import GenerationRecord
from truthloop.serving.deployment import EndpointState
from truthloop.serving.registry import APPROVED, ModelPackage
from truthloop.settings import (
    ACCEPTED_PREFIX,
    BASE_PREFIX,
    EXPIRED_PREFIX,
    FORGOTTEN_PREFIX,
    IMAGES_PREFIX,
    NO_CAPTURE_PREFIX,
)
from truthloop.steps.capture_index import find_captures
from truthloop.times import from_iso, to_iso
from truthloop.versions.dataset import ChampionModel, Dataset, dataset_version
from truthloop.versions.labels import Reader, Record, Statement
from truthloop.versions.standing import Gathered, Standing, Terms, settle

NO_CAPTURE = "NO_CAPTURE"


@dataclass(frozen=True)
class Fold:
    """What is known now of all that was ever accepted.

    Attributes
    ----------
    before : Mapping[str, str]
        The labels of the last run that trained, by inference id.
    labels, waiting : Mapping[str, Statement]
        By inference id the statement that stands for the label: what would be trained on now, and what would
        be if it was captured.
    conflicts : Mapping[str, tuple[Statement, ...]]
        What is set aside because authors disagree, by inference id.
    over_share : Mapping[str, int]
        Labels set aside per author; ``""`` stands for records without an author.
    expired, forgotten : int
        Statements that have waited too long since the last run that trained, and those of forgotten authors.
    statements : Mapping[str, tuple[Statement, ...]]
        By inference id all statements that go on counting: the next fold starts from them.
    remembered : tuple[Statement, ...]
        All statements that have ever expired: the next fold has to know what they supersede.
    captured : frozenset[str]
        The ids of `statements` whose prediction is captured, or whose image is uploaded.
    capture_keys : tuple[str, ...]
        The capture objects that hold the predictions of `labels`.
    images : Mapping[str, str]
        The ETags of the images of labelled examples, by key.
    """

    before: Mapping[str, str]
    labels: Mapping[str, Statement]
    waiting: Mapping[str, Statement]
    conflicts: Mapping[str, tuple[Statement, ...]]
    over_share: Mapping[str, int]
    expired: int
    forgotten: int
    statements: Mapping[str, tuple[Statement, ...]]
    remembered: tuple[Statement, ...]
    captured: frozenset[str]
    capture_keys: tuple[str, ...]
    accepted_keys: tuple[str, ...]
    dataset_version: str
    previous_dataset_version: str | None
    images: Mapping[str, str]


def fold_labels(ports: Ports, record: GenerationRecord, now: datetime) -> Fold:
    """Fold everything accepted since the last run that trained onto what that run knew.

    Counting from the objects themselves each time is what makes it exact: there is no counter that a
    redelivery could bump or a crash could leave behind. Statements that have expired are quarantined on the
    way, once.

    Parameters
    ----------
    ports : Ports
        The outside world.
    record : GenerationRecord
        Says which run trained last.
    now : datetime
        The instant that a label's waiting is measured at.

    Raises
    ------
    DatasetInvalid
        When an accepted object, an earlier dataset, a tombstone or the capture index cannot be read.
    """
    objects, policy = ports.objects, ports.settings.policy
    reader, gathered = Reader(), Gathered(read_forgotten(objects))
    before: dict[str, str] = {}
    unsettled: set[tuple[str, str]] = set()  # uploads with records that may have expired since the last run
    remembered: set[Record] = set()
    trained = _read_trained(objects, record, reader, gathered, before, unsettled, remembered)

    known = frozenset(trained.accepted_keys) if trained else frozenset[str]()
    accepted = [info for info in objects.list(ACCEPTED_PREFIX) if info.key not in known]
    for key, lines in objects.lines_of_each(accepted):
        for statement in reader.accepted(key, lines):
            unsettled.add(statement.origin.upload)
            gathered.add((statement,))

    captures = find_captures(objects, ports.endpoint.name, _captured_ids(gathered))
    images = _image_tags(objects, gathered)

    def present(statement: Statement) -> bool:
        if statement.image is None:
            return statement.inference_id in captures
        return statement.image in images

    lapsed = _read_lapsed(objects, unsettled) | remembered
    terms = Terms(
        expired_before=to_iso(now - timedelta(hours=policy.capture_horizon_hours)),
        conflict_resolution=policy.conflict_resolution,
        maximum_author_share=policy.maximum_author_share,
    )
    standing = settle(gathered, present, lapsed, terms)
    _quarantine_expired(objects, standing, lapsed, policy.capture_horizon_hours)
    return Fold(
        before=before,
        labels=standing.labels,
        waiting=standing.waiting,
        conflicts=standing.conflicts,
        over_share=standing.over_share,
        expired=sum(statement.origin.record not in remembered for statement in standing.expired),
        forgotten=gathered.forgotten,
        statements=standing.kept,
        remembered=tuple(standing.expired),
        captured=frozenset(i for i, statements in standing.kept.items() if present(statements[0])),
        capture_keys=captures.captures_of(standing.labels),
        accepted_keys=tuple(sorted({*known, *(info.key for info in accepted)})),
        dataset_version=dataset_version(objects.list(BASE_PREFIX), standing.labels, images),
        previous_dataset_version=trained.dataset_version if trained else None,
        images=images,
    )


def _read_trained(
    objects: Objects,
    record: GenerationRecord,
    reader: Reader,
    gathered: Gathered,
    before: dict[str, str],
    unsettled: set[tuple[str, str]],
    remembered: set[Record],
) -> Dataset | None:
    """Gather what the last run that trained has left, and the labels that it trained on."""
    if record.last_trained is None:
        return None
    key = statements_key(record.last_trained.generation)
    dataset, lines = read_statements(objects, key)
    for kept in reader.kept(key, lines):
        statement = kept.statement
        if kept.trained:
            before[statement.inference_id] = statement.label
        if kept.expired:
            remembered.add(statement.origin.record)
        elif not kept.captured:
            unsettled.add(statement.origin.upload)
        gathered.add((statement,))
    return dataset


def statements_key(generation: str) -> str:
    """Return the key of a generation's ``statements.jsonl``."""
    return f"{dataset_prefix(generation)}statements.jsonl"


def read_statements(objects: Objects, key: str) -> tuple[Dataset, Iterator[bytes]]:
    """Read a ``statements.jsonl``: what its first line says of the version, and the other lines.

    Raises
    ------
    DatasetInvalid
        When the first line does not describe a version.
    """
    lines = objects.lines(key)
    return Dataset.from_json(next(lines, b""), f"the first line of {objects.uri(key)}"), lines


def read_forgotten(objects: Objects) -> dict[str, str]:
    """Return, per forgotten author (SHA-256), the time before which their uploads do not exist.

    Raises
    ------
    DatasetInvalid
        When a tombstone cannot be read: to pass over it would bring back what a person had deleted.
    """
    forgotten: dict[str, str] = {}
    for info in objects.list(FORGOTTEN_PREFIX):
        try:
            tombstone = json.loads(objects.read(info.key))
            author, before = str(tombstone["author"]), to_iso(from_iso(tombstone["before"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetInvalid(
                f"{objects.uri(info.key)} says of no author that they are forgotten: {error!r}"
            ) from error
        forgotten[author] = max(before, forgotten.get(author, ""))
    return forgotten


def _captured_ids(gathered: Gathered) -> Iterable[str]:
    return (identifier for identifier in gathered if gathered.about(identifier)[0].image is None)


def _image_tags(objects: Objects, gathered: Gathered) -> dict[str, str]:
    wanted = {s.image for identifier in gathered if (s := gathered.about(identifier)[0]).image is not None}
    if not wanted:
        return {}
    return {info.key: info.etag for info in objects.list(IMAGES_PREFIX) if info.key in wanted}


def _read_lapsed(objects: Objects, uploads: Iterable[tuple[str, str]]) -> frozenset[Record]:
    """Return the records of `uploads` that expired before.

    What says so stands apart from the quarantine: there people take out what they put back.
    """
    found = list(objects.list(EXPIRED_PREFIX))
    if not found:
        return frozenset()
    wanted = {digest(objects.bucket, *upload): upload for upload in uploads}
    chosen = [info for info in found if _upload_digest(info.key) in wanted]
    lapsed: set[Record] = set()
    for key, lines in objects.lines_of_each(chosen):
        upload = wanted[_upload_digest(key)]
        try:
            lapsed.update((*upload, int(line)) for line in json.loads(b"".join(lines))["lines"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DatasetInvalid(
                f"{objects.uri(key)} does not say which records expired: {error!r}"
            ) from error
    return frozenset(lapsed)


def _upload_digest(key: str) -> str:
    return key.removeprefix(EXPIRED_PREFIX).split(".")[0]


def _quarantine_expired(
    objects: Objects, standing: Standing, lapsed: frozenset[Record], horizon_hours: float
) -> None:
    """Write what has expired since the last look, an object per upload and set of records.

    First into the quarantine, then down that it expired: a crash in between repeats the same two writes.
    """
    entries: dict[tuple[str, str], dict[int, bytes]] = {}
    for statement in sorted(standing.expired, key=lambda s: s.origin.line):
        origin = statement.origin
        if origin.record in lapsed:
            continue
        missing = (
            f"no prediction {statement.inference_id!r} was captured"
            if statement.image is None
            else f"there is no image {statement.image}"
        )
        entry = {
            "reason": NO_CAPTURE,
            "detail": f"{missing} within {horizon_hours:g} h after the upload",
            "source": {"bucket": objects.bucket, **origin.to_json()},
            "record": statement.to_record(),
            "encoding": "utf-8",
            "format": "jsonl",
        }
        line = json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        entries.setdefault(origin.upload, {})[origin.line] = line
    for upload, lines in entries.items():
        content = b"".join(lines.values())
        # The content is part of the name: what expires later of the same upload is written beside it.
        name = f"{digest(objects.bucket, *upload)}.{digest(content.decode())[:12]}"
        objects.put_once(f"{NO_CAPTURE_PREFIX}{name}.jsonl", content)
        objects.put_once(f"{EXPIRED_PREFIX}{name}.json", json.dumps({"lines": sorted(lines)}).encode())


def read_dataset(objects: Objects, generation: str) -> Dataset:
    """Read the dataset.json of `generation`."""
    key = f"{dataset_prefix(generation)}dataset.json"
    return Dataset.from_json(objects.read(key), objects.uri(key))


def find_champion(ports: Ports) -> ModelPackage | None:
    """Return the champion: what the endpoint serves, else the newest Approved package, else None."""
    return champion_of(ports.endpoint.state(), ports)


def champion_of(endpoint: EndpointState | None, ports: Ports) -> ModelPackage | None:
    """Return the champion of an endpoint that was looked at."""
    if endpoint is not None:
        arn = ports.endpoint.served_package_arn(endpoint.config_name)
        if arn is not None:
            return ports.registry.describe(arn)
    return ports.registry.newest(APPROVED)


def champion_model(package: ModelPackage | None) -> ChampionModel | None:
    """Return what a dataset records of the champion."""
    if package is None:
        return None
    return ChampionModel(package.arn, package.model_data_url, package.generation, package.candidate)
