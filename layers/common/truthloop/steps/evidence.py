"""What there is to learn from: accepted labels and the base set, folded as a snapshot would hold them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from truthloop.claim import LastRun
from truthloop.dataset import ChampionModel, Dataset, dataset_version
from truthloop.labels import Label, merge, read_accepted, read_merged
from truthloop.names import dataset_prefix
from truthloop.ports import Objects, Ports
from truthloop.registry import APPROVED, ModelPackage
from truthloop.settings import ACCEPTED_PREFIX, BASE_PREFIX


@dataclass(frozen=True)
class Fold:
    """The labels before (of the last run that trained) and now, and the version that now would be."""

    before: Mapping[str, Label]
    labels: Mapping[str, Label]
    accepted_keys: tuple[str, ...]
    dataset_version: str
    previous_dataset_version: str | None


def fold_labels(objects: Objects, last_trained: LastRun | None) -> Fold:
    """Fold everything accepted since `last_trained`'s dataset onto that dataset.

    Counting from the objects themselves each time is what makes it exact: there is no counter that a
    redelivery could bump or a crash could leave behind.
    """
    before: dict[str, Label] = {}
    known: frozenset[str] = frozenset()
    previous: Dataset | None = None
    if last_trained is not None:
        prefix = dataset_prefix(last_trained.generation)
        previous = read_dataset(objects, last_trained.generation)
        known = frozenset(previous.accepted_keys)
        key = f"{prefix}ground-truth.jsonl"
        before = merge({}, read_merged(key, objects.lines(key)))
    keys = sorted(info.key for info in objects.list(ACCEPTED_PREFIX))
    labels: Mapping[str, Label] = before
    for key in keys:
        if key not in known:
            labels = merge(labels, read_accepted(key, objects.lines(key)))
    return Fold(
        before=before,
        labels=labels,
        accepted_keys=tuple(sorted(known.union(keys))),
        dataset_version=dataset_version(objects.list(BASE_PREFIX), labels),
        previous_dataset_version=previous.dataset_version if previous else None,
    )


def read_dataset(objects: Objects, generation: str) -> Dataset:
    """Read the dataset.json of `generation`."""
    key = f"{dataset_prefix(generation)}dataset.json"
    return Dataset.from_json(objects.read(key), objects.uri(key))


def find_champion(ports: Ports) -> ModelPackage | None:
    """Return the champion: what the endpoint serves, else the newest Approved package, else None."""
    state = ports.endpoint.state()
    if state is not None:
        arn = ports.endpoint.served_package_arn(state.config_name)
        if arn is not None:
            return ports.registry.describe(arn)
    return ports.registry.newest(APPROVED)


def champion_model(package: ModelPackage | None) -> ChampionModel | None:
    """Return what a dataset records of the champion."""
    if package is None:
        return None
    return ChampionModel(package.arn, package.model_data_url, package.generation, package.candidate)
