"""What each model says about the holdout, kept as a number or two per example."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.contract import Paths, extract_model
from common.errors import ArtifactError, ModelDivergedError
from evaluation import latency
from evaluation.holdout import Form, Holdout
from evaluation.predict import predict
from evaluation.scoring import Codes
from models import artifact
from models.artifact import ModelCard

CANDIDATES = ("old", "new")
CHAMPION = "champion"
MODELS = (CHAMPION, *CANDIDATES)


@dataclass(frozen=True)
class Contestant:
    """A model that is evaluated."""

    card: ModelCard
    model: nn.Module
    weights_sha256: str

    @property
    def form(self) -> Form:
        """Return the input that it takes."""
        return self.card.image_size, self.card.channels

    @property
    def parameters(self) -> int:
        """Return how many numbers were learnt."""
        return sum(parameter.numel() for parameter in self.model.parameters())


@dataclass(frozen=True)
class Answers:
    """What one model said about each example of the holdout.

    ``predicted`` are positions in the labels of the evaluation, ``confidence`` the probabilities of these
    answers.
    """

    predicted: Codes
    confidence: NDArray[np.float32]
    right: NDArray[np.bool_]


def load_models(paths: Paths, has_champion: bool) -> dict[str, Contestant]:
    """Load the champion, where there is one, and both candidates.

    Parameters
    ----------
    paths
        With the processing inputs ``old``, ``new`` and ``champion``.
    has_champion
        Whether the dataset's description names a champion: then its artefact must be there.

    Raises
    ------
    ArtifactError
        An artefact is missing, damaged, does not fit, or is of an architecture that this image does not have.
        A champion that cannot be loaded is never taken for none: any model would then be good enough.
    """
    found = {}
    for name in MODELS:
        source = paths.processing_input(name)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                directory = extract_model(source, Path(scratch))
                if directory is not None:
                    card, model = artifact.load(directory)
                    found[name] = Contestant(card, model, artifact.weights_digest(directory))
        except ArtifactError as error:
            raise ArtifactError(f"{_named(name)} cannot be loaded: {error}{_way_out(name)}") from error
        if name in found:
            continue
        if name != CHAMPION:
            raise ArtifactError(f"no model.tar.gz below {source}: did the training of `{name}` succeed?")
        if has_champion:
            raise ArtifactError(
                f"no model.tar.gz below {source}, though the dataset names a champion{_way_out(name)}"
            )
    return found


def _named(name: str) -> str:
    return "the model in service (champion)" if name == CHAMPION else f"the candidate `{name}`"


def _way_out(name: str) -> str:
    if name != CHAMPION:
        return ""
    return (
        ". Without it nothing says whether a candidate is better: restore its artefact, deploy a training "
        "image that has its architecture, or reject its package, so that the one before it serves again"
    )


def answer(
    contestants: Mapping[str, Contestant], holdout: Holdout, truth: Codes, labels: Sequence[str]
) -> dict[str, Answers]:
    """Let every model answer the holdout, all of them batch by batch.

    Parameters
    ----------
    contestants
        By name.
    holdout
        The pictures.
    truth
        Their labels, as positions in ``labels``.
    labels
        Every label that a model or an example has.

    Raises
    ------
    ModelDivergedError
        A model answers with what is no number.
    RecordError
        A shard is damaged.
    """
    place = {label: position for position, label in enumerate(labels)}
    codes = {
        name: np.array([place[label] for label in each.card.labels], np.int32)
        for name, each in contestants.items()
    }
    predicted = {name: np.empty(len(holdout), np.int32) for name in contestants}
    confidence = {name: np.empty(len(holdout), np.float32) for name in contestants}
    end = 0
    for batch in holdout.batches([each.form for each in contestants.values()]):
        start, end = end, end + len(next(iter(batch.values())))
        for name, each in contestants.items():
            pixels = torch.from_numpy(batch[each.form])
            probabilities = predict(each.model, each.card.transforms().normalise, pixels)
            sure, best = probabilities.max(1)
            if not bool(torch.isfinite(probabilities).all()):
                raise ModelDivergedError(
                    f"{_named(name)} answers with what is no number for at least one of the holdout examples "
                    f"{start} to {end - 1}: "
                    + (
                        "reject its package, so that the one before it serves again"
                        if name == CHAMPION
                        else "its training has diverged; lower learning_rate and start again"
                    )
                )
            predicted[name][start:end] = codes[name][best.numpy()]
            confidence[name][start:end] = sure.numpy()
    return {
        name: Answers(predicted[name], confidence[name], predicted[name] == truth) for name in contestants
    }


def latencies(contestants: Mapping[str, Contestant], holdout: Holdout) -> dict[str, dict[str, Any]]:
    """Measure how long each model takes to answer; afterwards they compute as the server does."""
    images = next(holdout.images(latency.BATCH))
    return {name: latency.measure(each.card, each.model, images) for name, each in contestants.items()}
