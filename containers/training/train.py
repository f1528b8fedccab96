"""Train one candidate: a SageMaker training job on every GPU of one instance or several.

Channels: ``train`` (Parquet shards, in File or FastFile mode) and, optionally, ``champion`` (a
``model.tar.gz`` somewhere below it). Hyperparameters: ``candidate`` (``old``: the champion's architecture,
fine-tuned from its weights; ``new``: the next architecture of the table, from scratch), ``generation``,
those of `training.trainer.Settings`, ``validation_share`` for early stopping, ``processes_per_host`` (0: one
per GPU), and for models without a champion ``image_size`` and ``channels``.

SageMaker starts ``train`` once per instance. It decodes the images, then trains, or starts one ``rank`` per
GPU which does.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from torch import nn

from common.contract import Parameters, Paths, extract_model, hyperparameters, resources
from common.errors import ContractError, TooLittleDataError
from common.logs import event
from models import artifact
from models.artifact import ModelCard
from models.catalogue import DEFAULT_ORDER, challenger_of, find, order_of, require_known, transfer
from models.device import use_half_the_cores
from models.interface import ModelShape, Value
from training import store, world
from training.checkpoints import Checkpoints
from training.store import Shards
from training.trainer import Examples, Settings, Training
from training.world import World

log = logging.getLogger(__name__)

PIXELS = "train.pixels"
MODEL_PREFIX = "model_"
"""Of hyperparameters that are the architecture's own."""


@dataclass(frozen=True)
class Job:
    """What the hyperparameters ask for."""

    candidate: str
    generation: str
    settings: Settings
    validation_share: float
    processes: int
    shape: ModelShape
    class_weights: str
    architectures: tuple[str, ...]
    values: dict[str, str]


@dataclass(frozen=True)
class Start:
    """Where training starts from."""

    card: ModelCard
    model: nn.Module
    fine_tuned: bool
    learning_rate: float


def read_job(parameters: Parameters) -> Job:
    """Read the hyperparameters.

    Raises
    ------
    ContractError
        One is missing, unknown or out of its range.
    ArtifactError
        One of an architecture's own is out of its range.
    """
    default = Settings(30, 64, 0.0)
    job = Job(
        candidate=parameters.choice("candidate", ("old", "new")),
        generation=parameters.text("generation", "g00000000"),
        settings=Settings(
            epochs=parameters.integer("epochs", default.epochs, 1, 10_000),
            batch_size=parameters.integer("batch_size", default.batch_size, 2, 65_536),
            learning_rate=parameters.number("learning_rate", 0.0, 0.0, 10.0),  # 0: by the start point
            seed=parameters.integer("seed", default.seed, 0, 2**31),
            weight_decay=parameters.number("weight_decay", default.weight_decay, 0.0, 1.0),
            warm_up_share=parameters.number("warm_up_share", default.warm_up_share, 0.0, 1.0),
            accumulation=parameters.integer("accumulation", default.accumulation, 1, 1024),
            label_smoothing=parameters.number("label_smoothing", default.label_smoothing, 0.0, 0.9),
            ema_decay=parameters.number("ema_decay", default.ema_decay, 0.0, 0.99999),
            patience=parameters.integer("patience", default.patience, 0, 10_000),
            checkpoint_seconds=parameters.number(
                "checkpoint_seconds", default.checkpoint_seconds, 0.0, 86_400
            ),
            deterministic=parameters.choice("deterministic", ("true", "false"), "false") == "true",
        ),
        validation_share=parameters.number("validation_share", 0.1, 0.001, 0.5),
        processes=parameters.integer("processes_per_host", 0, 0, 64),
        shape=ModelShape(
            0, parameters.integer("image_size", 16, 8, 1024), parameters.integer("channels", 1, 1, 3)
        ),
        class_weights=parameters.text("class_weights", "none"),
        architectures=order_of(parameters.text("architectures", ",".join(DEFAULT_ORDER))),
        values=parameters.texts(MODEL_PREFIX),
    )
    parameters.refuse_unknown()
    require_known(job.values, job.architectures, MODEL_PREFIX)
    if job.shape.channels == 2:
        raise ContractError("hyperparameter channels is 2: it must be 1 (grey) or 3 (RGB)")
    return job


def start_point(job: Job, labels: list[str], shape: ModelShape, champion: Path | None) -> Start:
    """Build the candidate's model.

    Both candidates take the champion's input size, so that their comparison is one of models only; an
    architecture that is made for one input takes that.

    Raises
    ------
    ArtifactError
        The champion's artefact, or what an architecture starts from, is damaged or does not fit.
    """
    before = artifact.load_card(champion) if champion else None
    if before:
        shape = ModelShape(shape.classes, before.image_size, before.channels)
    own = before.architecture if before else job.architectures[0]
    name = own if job.candidate == "old" else challenger_of(own, job.architectures)
    if champion and before and job.candidate == "old":
        # The champion's weights fit the module that they were trained in, and no other.
        card = _card(job, name, labels, shape, before.values)
        model = card.build()
        transfer(model, labels, artifact.load_weights(champion), before.labels)
        return Start(card, model, True, find(name).preferences.fine_tuning_rate)
    architecture = find(name)
    values = architecture.values(architecture.own(job.values))
    card = _card(job, name, labels, architecture.shape(shape), values)
    model = card.build()
    architecture.begin(model)
    return Start(card, model, False, architecture.preferences.learning_rate)


def _card(
    job: Job, architecture: str, labels: list[str], shape: ModelShape, values: dict[str, Value]
) -> ModelCard:
    return ModelCard(
        architecture, labels, shape.image_size, shape.channels, job.generation, job.candidate, values
    )


def weights_of(asked: str, labels: list[str], counts: Counter[str]) -> tuple[float, ...]:
    """Return each class's weight in the loss.

    Parameters
    ----------
    asked
        ``none``; ``balanced`` (every class weighs the same in all, however many examples it has); or a JSON
        object from label to weight, 1 for labels that it does not name.

    Raises
    ------
    ContractError
        `asked` is none of these.
    """
    if asked == "none":
        return ()
    if asked == "balanced":
        total = sum(counts.values())
        return tuple(total / (len(labels) * counts[label]) for label in labels)
    try:
        given = {str(label): float(weight) for label, weight in json.loads(asked).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ContractError(
            f"hyperparameter class_weights is {asked!r}: none, balanced or a JSON object of label and weight"
        ) from error
    unknown = sorted(set(given) - set(labels))
    if unknown or any(not 0 < weight < float("inf") for weight in given.values()):
        raise ContractError(
            f"hyperparameter class_weights: weights must be above 0, and no example is labelled {unknown}"
            if unknown
            else f"hyperparameter class_weights is {asked!r}: every weight must be above 0"
        )
    return tuple(given.get(label, 1.0) for label in labels)


def validation_of(shards: Shards, share: float) -> list[int]:
    """Return the places of the examples that are measured on: chosen by the hash of their id, as always."""
    ids = [
        identifier
        for path in shards.paths
        for identifier in pl.read_parquet(path, columns=["example_id"])["example_id"].to_list()
    ]
    limit = share * 2**64
    return [
        place
        for place, identifier in enumerate(ids)
        if int.from_bytes(hashlib.sha256(f"validation:{identifier}".encode()).digest()[:8], "big") < limit
    ]


def main(paths: Paths) -> None:
    """Run the training job on this instance.

    Raises
    ------
    ContainerError
        The job cannot be run as it was asked for, or a process of it failed.
    """
    job, machines = read_job(hyperparameters(paths)), resources(paths)
    processes = world.processes_here(job.processes)
    shards = _shards(paths)
    start = _start(paths, job, shards)
    store.build(paths.scratch / PIXELS, shards, start.card.image_size, start.card.channels)
    try:
        if len(machines.hosts) * processes == 1:
            rank(paths)
        else:
            world.launch(machines, processes)
    finally:
        shutil.rmtree(paths.scratch, ignore_errors=True)


def rank(paths: Paths) -> None:
    """Train, as one of the processes that train together; the first one writes the model."""
    use_half_the_cores()
    job = read_job(hyperparameters(paths))
    shards = _shards(paths)
    start = _start(paths, job, shards)
    with world.join() as here:
        _train(paths, job, shards, start, here)


def _train(paths: Paths, job: Job, shards: Shards, start: Start, here: World) -> None:
    card = start.card
    settings = vars(job.settings) | {
        "learning_rate": job.settings.learning_rate or start.learning_rate,
        "class_weights": weights_of(job.class_weights, card.labels, Counter(shards.labels)),
    }
    index = {label: position for position, label in enumerate(card.labels)}
    measured = set(validation_of(shards, job.validation_share)) if job.settings.patience else set()
    if job.settings.patience and not measured:
        raise TooLittleDataError(
            f"none of {shards.count} examples is chosen for validation: raise validation_share or set "
            "patience to 0"
        )
    examples = Examples(
        store.read(paths.scratch / PIXELS, shards, card.image_size, card.channels),
        torch.tensor([index[label] for label in shards.labels]),
        torch.tensor([place for place in range(shards.count) if place not in measured]),
        torch.tensor(sorted(measured), dtype=torch.int64),
    )
    if here.leads:
        event(
            log,
            "training",
            candidate=job.candidate,
            architecture=card.architecture,
            fine_tuned=start.fine_tuned,
            examples=len(examples.training),
            validation=len(examples.validation),
            labels=len(card.labels),
            processes=here.size,
            device=str(here.device),
            threads=torch.get_num_threads(),
        )
    run = hashlib.sha256(
        json.dumps([card.to_json(), settings, shards.count, [path.name for path in shards.paths]]).encode()
    ).hexdigest()
    training = Training(
        start.model,
        card.transforms(),
        examples,
        Settings(**settings),
        here,
        Checkpoints(paths.checkpoints, run) if here.leads or paths.checkpoints.is_dir() else None,
        run=run,
    )
    model = training.run()
    if here.leads:
        artifact.save(paths.model, card, model)
        event(log, "saved", directory=str(paths.model), model=card.version)


def _shards(paths: Paths) -> Shards:
    shards = Shards.open(paths.channel("train"))
    labels = set(shards.labels)
    if len(labels) < 2:
        raise TooLittleDataError(
            f"all {shards.count} training examples are labelled {shards.labels[0]!r}: two labels needed"
        )
    return shards


def _start(paths: Paths, job: Job, shards: Shards) -> Start:
    labels = sorted(set(shards.labels))
    torch.manual_seed(job.settings.seed)
    with tempfile.TemporaryDirectory() as scratch:
        champion = extract_model(paths.channel("champion"), Path(scratch))
        shape = ModelShape(len(labels), job.shape.image_size, job.shape.channels)
        return start_point(job, labels, shape, champion)
