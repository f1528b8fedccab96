"""Train one candidate: a SageMaker training job.

Channels: ``train`` (Parquet shards) and, optionally, ``champion`` (a ``model.tar.gz`` somewhere below it).
Hyperparameters: ``candidate`` (``old``: the champion's architecture, fine-tuned from its weights; ``new``:
the next architecture of the table, from scratch), ``generation``, ``epochs``, ``batch_size``,
``learning_rate``, ``seed``, and for models without a champion ``image_size`` and ``channels``.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common import artifact
from common.architectures import DEFAULT_ARCHITECTURE, ModelShape, build, challenger_of, transfer
from common.artifact import ModelCard
from common.contract import Paths, extract_model, hyperparameters, resources
from common.errors import ContractError, TooLittleDataError
from common.logs import event
from training import dataset
from training.trainer import Settings, fit, pick_device, use_half_the_cores

log = logging.getLogger(__name__)

SCRATCH_RATE = 3e-3
FINE_TUNING_RATE = 1e-3


@dataclass(frozen=True)
class Start:
    """Where training starts from."""

    card: ModelCard
    model: nn.Module
    fine_tuned: bool


def start_point(
    candidate: str, generation: str, labels: list[str], shape: ModelShape, champion: Path | None
) -> Start:
    """Build the candidate's model.

    Both candidates take the champion's input size, so that their comparison is one of models only.

    Raises
    ------
    ArtifactError
        The champion's artefact is damaged.
    """
    before = artifact.load_card(champion) if champion else None
    if before:
        shape = ModelShape(shape.classes, before.image_size, before.channels)
    own = before.architecture if before else DEFAULT_ARCHITECTURE
    architecture = own if candidate == "old" else challenger_of(own)
    card = ModelCard(architecture, labels, shape.image_size, shape.channels, generation, candidate)
    model = build(architecture, shape)
    fine_tuned = candidate == "old" and before is not None
    if champion and before and fine_tuned:
        transfer(model, labels, artifact.load_weights(champion), before.labels)
    return Start(card, model, fine_tuned)


def main(paths: Paths) -> None:
    """Run the training job."""
    parameters = hyperparameters(paths)
    candidate = parameters.choice("candidate", ("old", "new"))
    generation = parameters.text("generation", "g00000000")
    epochs = parameters.integer("epochs", 30, 1, 10_000)
    batch_size = parameters.integer("batch_size", 64, 2, 65_536)
    rate = parameters.number("learning_rate", 0.0, 0.0, 10.0)  # 0: the default of the start point
    seed = parameters.integer("seed", 0, 0, 2**31)
    shape = ModelShape(
        0, parameters.integer("image_size", 16, 8, 1024), parameters.integer("channels", 1, 1, 3)
    )
    parameters.refuse_unknown()
    if shape.channels == 2:
        raise ContractError("hyperparameter channels is 2: it must be 1 (grey) or 3 (RGB)")
    hosts = resources(paths).hosts
    if len(hosts) > 1:
        raise ContractError(
            f"this image trains on one instance, not on {len(hosts)}: set the instance count to 1"
        )

    use_half_the_cores()
    examples = dataset.load(paths.channel("train"))
    labels = sorted(set(examples.labels))
    if len(labels) < 2:
        raise TooLittleDataError(
            f"all {len(examples)} training examples are labelled {labels[0]!r}: two labels needed"
        )
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        champion = extract_model(paths.channel("champion"), Path(scratch))
        start = start_point(
            candidate, generation, labels, ModelShape(len(labels), shape.image_size, shape.channels), champion
        )
    rate = rate or (FINE_TUNING_RATE if start.fine_tuned else SCRATCH_RATE)
    event(
        log,
        "training",
        candidate=candidate,
        architecture=start.card.architecture,
        fine_tuned=start.fine_tuned,
        examples=len(examples),
        labels=len(labels),
        device=str(pick_device()),
        threads=torch.get_num_threads(),
    )
    pixels = torch.from_numpy(examples.pixels(start.card.image_size, start.card.channels))
    index = {label: position for position, label in enumerate(labels)}
    targets = torch.tensor([index[label] for label in examples.labels])
    model = fit(start.model, pixels, targets, Settings(epochs, batch_size, rate, seed))
    artifact.save(paths.model, start.card, model)
    event(log, "saved", directory=str(paths.model), model=start.card.version)
