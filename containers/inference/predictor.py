"""A loaded model that answers batches of requests."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common import logs
from common.errors import BadImageError, ContainerError, DeviceFullError, NoAnswerError
from common.imaging import Pixels, to_input
from common.inputs import read_image
from inference.answers import Answer, Request, Scored
from models import artifact
from models.artifact import ModelCard
from models.device import pick_device

WARM_UP_ROUNDS = 3
EACH_SIZE_UP_TO = 32
"""Batches up to this size are warmed up one by one on a GPU; above it and on a CPU every doubling."""
DECODE_ALONE_BYTES = 32 * 1024
"""A body up to this size is decoded where the batch is computed: handing it to a thread would cost more."""

LONG_BATCH_SECONDS = 0.01
"""A largest batch that one thread computes faster than this is not worth waking a second one for."""
WORTHWHILE_GAIN = 1.3
"""So many times faster must all threads be than one: they take the cores from decoding and from HTTP."""

PROBES = 8
"""Pictures of noise that say, while warming up, whether half precision answers as single precision does."""
HALF_TOLERANCE = 0.1
"""So far may its probabilities be off there: rounding makes a few thousandths, an overflow anything."""
_NO_MEMORY = ("ALLOC_FAILED", "ALLOCATION_FAILED", "CUDA error: out of memory")
"""What the messages of cuBLAS, cuDNN and the runtime hold, whose errors are no `torch.OutOfMemoryError`."""

Precision = Literal["fp32", "fp16"]

log = logging.getLogger(__name__)


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
        ``fp16`` computes in half precision, which is for GPUs with tensor cores (a T4: sm_75). None: ``fp16``
        on a GPU as long as the model's numbers fit into it, from then on ``fp32``, which it was evaluated in.
    decoders
        Threads that decode large pictures of a batch side by side.
    threads
        Threads that compute on a CPU; 0: one, or as many as there are cores where that is clearly faster, as
        measured while warming up.

    Raises
    ------
    ArtifactError
        The artefact is missing, damaged, not the registered one or does not fit.
    DeviceFullError
        The device has no memory for one picture.
    """

    def __init__(
        self,
        directory: Path,
        digest: str = "",
        *,
        max_batch: int = 1,
        precision: Precision | None = None,
        decoders: int = 1,
        threads: int = 0,
    ) -> None:
        self.device = pick_device()
        self._load = partial(artifact.load, directory, digest)
        card, model = self._load()
        self.card: ModelCard = card
        self._normalise = card.transforms().normalise
        usual = usual_precision(self.device)
        self._may_fall_back = precision is None and usual == "fp16"
        self._decoders = ThreadPoolExecutor(decoders, thread_name_prefix="decode")
        self.most_at_once = max_batch
        """Pictures that are computed at once at most; it falls when the device has no memory for so many."""
        torch.set_num_threads(threads or 1)
        if self._may_fall_back:
            self._compute_in("fp32", model)
            exact = self._probe()
        self._compute_in(precision or usual, model)
        if self._may_fall_back:
            self._judge_half(exact)
        seconds = self._warm_up()
        if not threads and self.device.type == "cpu":
            self._use_the_cores(seconds)
        self.threads = torch.get_num_threads()

    def _compute_in(self, precision: Precision, model: nn.Module) -> None:
        self.precision: Precision = precision
        self._type = torch.float16 if precision == "fp16" else torch.float32
        # nn.Module.to takes a memory format too; its type stubs do not know.
        placed = model.to(self.device, self._type).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model: nn.Module = placed

    def _probe(self) -> NDArray[np.float64]:
        shape = (PROBES, self.card.channels, self.card.image_size, self.card.image_size)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return np.array(_all_scores(self._scores(list(noise))))

    def _judge_half(self, exact: NDArray[np.float64]) -> None:
        """Fall back where half precision's answers are not those in single precision."""
        try:
            off = np.abs(self._probe() - exact).max()
        except RuntimeError as error:  # a layer that cannot; a broken GPU fails in single precision, too
            self._fall_back(str(error).partition("\n")[0])
            return
        if not off <= HALF_TOLERANCE and np.isfinite(exact).all():
            self._fall_back(f"a probability of noise is {off:.3g} off")

    def _fall_back(self, reason: str) -> None:
        """Compute in single precision for good: slower, and right."""
        self._may_fall_back = False
        log.warning(
            "%s does not fit into half precision: it is served in single precision, which takes longer",
            self.card.version,
            extra={"fields": {"reason": reason}},
        )
        self._compute_in("fp32", self._load()[1])

    def _warm_up(self) -> float:
        """Run every size of batch up to the largest: kernels are chosen and loaded before anybody waits.

        Returns
        -------
        float
            Seconds of the largest batch, warm.
        """
        size = 1
        while True:
            seconds = self._time(size)
            if size >= self.most_at_once:
                return seconds
            # cuDNN plans each size of batch anew, on the thread that computes it: milliseconds, or many.
            one_by_one = self.device.type == "cuda" and size < EACH_SIZE_UP_TO
            size = min(size + 1 if one_by_one else size * 2, self.most_at_once)

    def _time(self, size: int) -> float:
        """Return the least seconds of a few batches of a size."""
        blank = np.zeros((self.card.channels, self.card.image_size, self.card.image_size), np.uint8)
        times = []
        for _ in range(WARM_UP_ROUNDS):
            begun = time.perf_counter()
            _all_scores(self._scores([blank] * size))
            times.append(time.perf_counter() - begun)
        return min(times)

    def _use_the_cores(self, alone: float) -> None:
        """Compute on all cores where that is clearly faster than the ``alone`` seconds of one."""
        cores = len(os.sched_getaffinity(0))
        if cores == 1 or alone < LONG_BATCH_SECONDS:
            return
        torch.set_num_threads(cores)
        if self._time(self.most_at_once) * WORTHWHILE_GAIN > alone:
            torch.set_num_threads(1)

    def _scores(self, pixels: Sequence[Pixels]) -> list[list[float] | DeviceFullError]:
        """Return each picture's probabilities, in smaller batches where the device has too little memory."""
        scores: list[list[float] | DeviceFullError] = []
        while len(scores) < len(pixels):
            part = pixels[len(scores) : len(scores) + self.most_at_once]
            try:
                scores += self._probabilities(part)
                continue
            except RuntimeError as error:
                if not _is_full(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Outside the handler: the exception holds the frames, and these hold tensors.
            torch.cuda.empty_cache()
            if len(part) == 1:
                scores.append(DeviceFullError(f"the device has no memory for one picture: {reason}"))
            else:
                self.most_at_once = len(part) // 2
                logs.event(log, "the device is full: smaller batches", most=self.most_at_once, reason=reason)
        return scores

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
        found = self._scores(good) if good else []
        if self._may_fall_back and not all(_is_number(each) for each in found):
            self._fall_back("a picture's probabilities are no numbers")
            found = self._scores(good)
        scores = iter(found)
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
            return _without_frames(error)
        except Exception as error:  # a decoder's surprise is no fault of the other pictures of the batch
            log.exception("a picture of %d bytes could not be read", len(request.body))
            return BadImageError(f"the picture cannot be read: {type(error).__name__}: {error}")

    def _named(self, scores: list[float] | DeviceFullError, top_k: int) -> Answer | Exception:
        if isinstance(scores, DeviceFullError):
            return scores
        if not _is_number(scores):
            return NoAnswerError(
                f"the model {self.card.version} computed no probabilities (NaN) in {self.precision}: "
                "with fp16, try PRECISION=fp32; else train it again"
            )
        order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        labels = self.card.labels
        best = tuple(Scored(label=labels[index], score=scores[index]) for index in order[:top_k])
        return Answer(
            labels[order[0]],
            scores[order[0]],
            best,
            dict(zip(labels, scores, strict=True)),
            self.card.version,
        )


def usual_precision(device: torch.device) -> Precision:
    """Return the precision that a device is fastest in."""
    return "fp16" if device.type == "cuda" else "fp32"


def _is_full(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in _NO_MEMORY)


def _is_number(scores: list[float] | DeviceFullError) -> bool:
    """Whether probabilities are numbers; that there was no memory for them says nothing against that."""
    return isinstance(scores, DeviceFullError) or math.isfinite(math.fsum(scores))


def _all_scores(found: list[list[float] | DeviceFullError]) -> list[list[float]]:
    """Return the probabilities of all pictures, or raise the error of one."""
    scores = []
    for each in found:
        if isinstance(each, DeviceFullError):
            raise each
        scores.append(each)
    return scores


def _without_frames(error: ContainerError) -> ContainerError:
    """Let go what the error's frames hold: decoded, a body of 6 MB is 160 MB, and a batch has many."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
