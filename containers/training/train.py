"""Train one candidate: a SageMaker training job on every GPU of one instance or several.

Channels: ``train`` (Parquet shards, in File or FastFile mode) and, optionally, ``champion`` (a
``model.tar.gz`` somewhere below it). Hyperparameters: ``candidate`` (``old``: the champion's architecture,
fine-tuned from its weights; ``new``: the next architecture of the table, from scratch), ``generation``,
those of `training.settings.Settings`, ``validation_share`` for early stopping, ``processes_per_host`` (0: one
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from common.contract import Parameters, Paths, extract_model, hyperparameters, resources
from common.errors import ContractError, TooLittleDataError
from common.logs import event
from models import artifact
from models.artifact import ModelCard
from models.catalogue import (
    DEFAULT_ORDER,
    Architecture,
    challenger_of,
    find,
    order_of,
    require_known,
    transfer,
)
from models.interface import ModelShape, Value
from training import store, world
from training.checkpoints import Checkpoints
from training.settings import PRECISIONS, Settings
from training.store import Store
from training.trainer import Examples, Training
from training.world import World

log = logging.getLogger(__name__)

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
class Plan:
    """Which model is trained, on which input.

    `known_labels` are those of the champion whose weights it starts from; empty: it starts from its own.
    """

    architecture: Architecture
    shape: ModelShape
    values: dict[str, Value]
    known_labels: list[str] = field(default_factory=list)


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
            clip_norm=parameters.number("clip_norm", default.clip_norm, 0.0, 1e6),
            ema_decay=parameters.number("ema_decay", default.ema_decay, 0.0, 0.99999),
            patience=parameters.integer("patience", default.patience, 0, 10_000),
            checkpoint_seconds=parameters.number(
                "checkpoint_seconds", default.checkpoint_seconds, 0.0, 86_400
            ),
            precision=parameters.choice("precision", PRECISIONS, default.precision),
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


def plan_of(job: Job, champion: Path | None) -> Plan:
    """Decide which model is trained.

    Both candidates take the champion's input size, so that their comparison is one of models only; an
    architecture that is made for one input takes that.

    Raises
    ------
    ArtifactError
        The champion's artefact is damaged, or an architecture refuses its hyperparameters.
    """
    before = artifact.load_card(champion) if champion else None
    shape = ModelShape(0, before.image_size, before.channels) if before else job.shape
    if before and job.candidate == "old":
        # The champion's weights fit the module that they were trained in, and no other.
        architecture, values = before.definition()
        return Plan(architecture, shape, values, before.labels)
    own = before.architecture if before else job.architectures[0]
    architecture = find(own if job.candidate == "old" else challenger_of(own, job.architectures))
    values = architecture.values(architecture.own(job.values))
    return Plan(architecture, architecture.shape(shape), values)


def start_point(job: Job, plan: Plan, labels: list[str], champion: Path | None) -> Start:
    """Build the candidate's model.

    Raises
    ------
    ArtifactError
        The champion's artefact, or what an architecture starts from, is damaged or does not fit.
    """
    name, preferences = plan.architecture.name, plan.architecture.preferences
    size, channels = plan.shape.image_size, plan.shape.channels
    card = ModelCard(name, labels, size, channels, job.generation, job.candidate, plan.values)
    model = card.build()
    if champion and plan.known_labels:
        transfer(model, labels, artifact.load_weights(champion), plan.known_labels)
        return Start(card, model, True, preferences.fine_tuning_rate)
    plan.architecture.begin(model)
    return Start(card, model, False, preferences.learning_rate)


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


def validation_of(example_ids: list[str], share: float) -> list[int]:
    """Return the places of the examples that are measured on: chosen by the hash of their id, as always."""
    limit = share * 2**64
    return [
        place
        for place, identifier in enumerate(example_ids)
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
    try:
        with _champion(paths) as champion:
            shape = plan_of(job, champion).shape
        store.build(paths.scratch, paths.channel("train"), shape.image_size, shape.channels)
        if len(machines.hosts) * processes == 1:
            rank(paths)
        else:
            world.launch(machines, processes)
    finally:
        shutil.rmtree(paths.scratch, ignore_errors=True)


def rank(paths: Paths) -> None:
    """Train, as one of the processes that train together; the first one writes the model."""
    job = read_job(hyperparameters(paths))
    with world.join() as here, _champion(paths) as champion:
        plan = plan_of(job, champion)
        examples = Store.read(paths.scratch, plan.shape.image_size, plan.shape.channels)
        labels = sorted(set(examples.labels))
        if len(labels) < 2:
            raise TooLittleDataError(
                f"all {len(examples.labels)} training examples are labelled {labels[0]!r}: two labels needed"
            )
        torch.manual_seed(job.settings.seed)
        start = start_point(job, plan, labels, champion)
        _train(paths, job, examples, start, here)


def _train(paths: Paths, job: Job, store: Store, start: Start, here: World) -> None:
    card = start.card
    settings = replace(
        job.settings,
        learning_rate=job.settings.learning_rate or start.learning_rate,
        class_weights=weights_of(job.class_weights, card.labels, Counter(store.labels)),
    )
    measured = validation_of(store.example_ids, job.validation_share) if settings.patience else []
    if settings.patience and not measured:
        raise TooLittleDataError(
            f"none of {len(store.labels)} examples is chosen for validation: raise validation_share or set "
            "patience to 0"
        )
    index = {label: position for position, label in enumerate(card.labels)}
    learnt = torch.ones(len(store.labels), dtype=torch.bool)
    learnt[measured] = False
    examples = Examples(
        store.pixels,
        torch.tensor([index[label] for label in store.labels]),
        learnt.nonzero()[:, 0],
        torch.tensor(measured, dtype=torch.int64),
    )
    run = hashlib.sha256(
        json.dumps([card.to_json(), asdict(settings), job.validation_share, store.digest]).encode()
    ).hexdigest()
    training = Training(
        start.model,
        card.transforms(),
        examples,
        settings,
        here,
        Checkpoints(paths.checkpoints, run) if here.leads else None,
        run=run,
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
            half=training.half,
            threads=torch.get_num_threads(),
        )
    model = training.run()
    if here.leads:
        artifact.save(paths.model, card, model)
        event(log, "saved", directory=str(paths.model), model=card.version)


@contextmanager
def _champion(paths: Paths) -> Iterator[Path | None]:
    """Unpack the champion's artefact, if there is one."""
    with tempfile.TemporaryDirectory() as scratch:
        yield extract_model(paths.channel("champion"), Path(scratch))
