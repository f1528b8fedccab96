"""What there is to learn from: accepted labels and the base set, folded as a snapshot would hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from truthloop.claim import LastRun
from truthloop.dataset import ChampionModel, Dataset, dataset_version
from truthloop.labels import Label, merge, merge_into, read_accepted, read_merged
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


@dataclass(frozen=True)
class Trained:
    """What the last run that trained has seen; nothing before the first."""

    dataset: Dataset | None
    labels: Mapping[str, Label]

    @property
    def accepted_keys(self) -> tuple[str, ...]:
        """The accepted objects whose labels are in `labels`."""
        return self.dataset.accepted_keys if self.dataset else ()


def read_trained(objects: Objects, last_trained: LastRun | None) -> Trained:
    """Read the dataset of `last_trained`."""
    if last_trained is None:
        return Trained(None, {})
    key = f"{dataset_prefix(last_trained.generation)}ground-truth.jsonl"
    labels = merge({}, read_merged(key, objects.lines(key)))
    return Trained(read_dataset(objects, last_trained.generation), labels)


def fold(before: Trained, accepted_keys: Iterable[str], objects: Objects) -> Mapping[str, Label]:
    """Fold accepted objects onto what was trained on, reading only those that it does not hold.

    Each upload is an object of its own: reading all of them again for each run would outgrow a function.
    """
    known = frozenset(before.accepted_keys)
    labels: dict[str, Label] = dict(before.labels)
    for key in sorted(set(accepted_keys) - known):
        merge_into(labels, read_accepted(key, objects.lines(key)))
    return labels


def fold_labels(objects: Objects, last_trained: LastRun | None) -> Fold:
    """Fold everything accepted since `last_trained`'s dataset onto that dataset.

    Counting from the objects themselves each time is what makes it exact: there is no counter that a
    redelivery could bump or a crash could leave behind.
    """
    before = read_trained(objects, last_trained)
    keys = [info.key for info in objects.list(ACCEPTED_PREFIX)]
    accepted_keys = tuple(sorted({*before.accepted_keys, *keys}))
    labels = fold(before, accepted_keys, objects)
    previous = before.dataset
    return Fold(
        before=before.labels,
        labels=labels,
        accepted_keys=accepted_keys,
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
