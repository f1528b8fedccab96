"""A loaded model that answers one image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import artifact
from common.architectures import normalise
from common.artifact import ModelCard
from common.imaging import decode, to_input

WARM_UP_ROUNDS = 3


@dataclass(frozen=True)
class Answer:
    """The label, its probability, those of all labels, and which model said so."""

    label: str
    score: float
    scores: dict[str, float]
    model: str


class Predictor:
    """A model in evaluation mode on the device that it serves from.

    Parameters
    ----------
    directory
        Where SageMaker has unpacked the model artefact.

    Raises
    ------
    ArtifactError
        The artefact is missing, damaged or does not fit.
    """

    def __init__(self, directory: Path) -> None:
        # One request is one small image: a second thread costs more to wake than it computes.
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        card, model = artifact.load(directory)
        self.card: ModelCard = card
        self._model: nn.Module = model.to(self.device)
        blank = np.zeros((card.channels, card.image_size, card.image_size), np.uint8)
        for _ in range(WARM_UP_ROUNDS):
            self._probabilities(blank)

    def _probabilities(self, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[float]:
        with torch.inference_mode():
            images = normalise(torch.from_numpy(pixels).unsqueeze(0).to(self.device))
            scores: list[float] = torch.softmax(self._model(images).float(), 1)[0].tolist()
        return scores

    def answer(self, data: bytes) -> Answer:
        """Classify an encoded image.

        Raises
        ------
        BadImageError
            The bytes are no image that may be decoded.
        """
        scores = self._probabilities(to_input(decode(data), self.card.image_size, self.card.channels))
        best = max(range(len(scores)), key=scores.__getitem__)
        named = dict(zip(self.card.labels, scores, strict=True))
        return Answer(self.card.labels[best], scores[best], named, self.card.version)
