"""A loaded model that answers batches of requests."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from common.errors import ContainerError
from common.imaging import Pixels, to_input
from common.inputs import read_image
from models import artifact
from models.artifact import ModelCard

WARM_UP_ROUNDS = 3
DECODE_ALONE_BYTES = 32 * 1024
"""A body up to this size is decoded where the batch is computed: handing it to a thread would cost more."""

Precision = Literal["fp32", "fp16"]


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to classify: the body as it came, its content type, how many labels are wanted."""

    body: bytes
    kind: str
    top_k: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A label and its probability."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The label, its probability, the best ones, the probabilities of all, and which model said so."""

    label: str
    score: float
    top_k: tuple[Scored, ...]
    scores: dict[str, float]
    model: str


class Predictor:
    """A model in evaluation mode on the device that it serves from.

    Parameters
    ----------
    directory
        Where SageMaker has unpacked the model artefact.
    digest
        SHA-256 that the weights must have, as the registry names it; empty: not known.
    max_batch
        The largest batch that it will be given; it is warmed up for it.
    precision
        ``fp16`` computes in half precision, which is for GPUs with tensor cores (a T4: sm_75).
    decoders
        Threads that decode large pictures of a batch side by side.

    Raises
    ------
    ArtifactError
        The artefact is missing, damaged, not the registered one or does not fit.
    """

    def __init__(
        self,
        directory: Path,
        digest: str = "",
        *,
        max_batch: int = 1,
        precision: Precision | None = None,
        decoders: int = 1,
    ) -> None:
        # A batch of small images: a second thread costs more to wake than it computes.
        torch.set_num_threads(1)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision: Precision = precision or ("fp16" if self.device.type == "cuda" else "fp32")
        self._type = torch.float16 if self.precision == "fp16" else torch.float32
        card, model = artifact.load(directory, digest)
        self.card: ModelCard = card
        model = model.to(self.device, self._type)
        self._normalise = card.transforms().normalise
        # nn.Module.to takes a memory format too; its type stubs do not know.
        self._model: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self._warm_up(max_batch)

    def _warm_up(self, max_batch: int) -> None:
        """Run every size of batch up to the largest: kernels are chosen and loaded before anybody waits."""
        blank = np.zeros((self.card.channels, self.card.image_size, self.card.image_size), np.uint8)
        size = 1
        while True:
            for _ in range(WARM_UP_ROUNDS):
                self._probabilities([blank] * size)
            if size == max_batch:
                return
            size = min(size * 2, max_batch)

    def _probabilities(self, pixels: Sequence[Pixels]) -> list[list[float]]:
        with torch.inference_mode():
            images = torch.from_numpy(np.stack(pixels))
            if self.device.type == "cuda":
                images = images.pin_memory().to(self.device, non_blocking=True)
            inputs = self._normalise(images).to(self._type, memory_format=torch.channels_last)
            scores: list[list[float]] = torch.softmax(self._model(inputs).float(), 1).tolist()
        return scores

    def answer(self, requests: Sequence[Request]) -> list[Answer | Exception]:
        """Classify a batch; a picture that cannot be read is an error for its request alone."""
        pictures = self._decode(requests)
        good = [picture for picture in pictures if not isinstance(picture, Exception)]
        scores = iter(self._probabilities(good) if good else [])
        return [
            picture if isinstance(picture, Exception) else self._named(next(scores), request.top_k)
            for request, picture in zip(requests, pictures, strict=True)
        ]

    def _decode(self, requests: Sequence[Request]) -> list[Pixels | Exception]:
        if len(requests) > 1 and any(len(request.body) > DECODE_ALONE_BYTES for request in requests):
            return list(self._decoders.map(self._pixels, requests))
        return [self._pixels(request) for request in requests]

    def _pixels(self, request: Request) -> Pixels | Exception:
        try:
            return to_input(read_image(request.body, request.kind), self.card.image_size, self.card.channels)
        except ContainerError as error:
            return error

    def _named(self, scores: list[float], top_k: int) -> Answer:
        order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        labels = self.card.labels
        best = tuple(Scored(labels[index], scores[index]) for index in order[:top_k])
        return Answer(
            best[0].label, best[0].score, best, dict(zip(labels, scores, strict=True)), self.card.version
        )
