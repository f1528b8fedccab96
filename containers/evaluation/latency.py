"""How long a model takes to answer, from the encoded picture to the probabilities.

Measured on the instance that evaluates, the way the endpoint's server computes: one thread, channels last,
half precision on a GPU. So it compares the models with each other; the endpoint's own figure is CloudWatch's
``ModelLatency``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import nn

from common.imaging import decode, to_input
from models.artifact import ModelCard
from models.device import pick_device

BATCH = 32
SECONDS = 0.7
"""At most this long for each of the two sizes, so that a large model does not hold the job up."""
REPETITIONS = {1: 200, BATCH: 25}
WARM_UP = 3


def measure(card: ModelCard, model: nn.Module, images: Sequence[bytes]) -> dict[str, Any]:
    """Return the member ``latency`` of a model; ``model`` is left as it is measured, in the server's form.

    Parameters
    ----------
    card, model
        As :func:`models.artifact.load` returns them.
    images
        Encoded pictures, at least one; they are repeated where there are fewer than a batch.
    """
    device = pick_device()
    kind = torch.float16 if device.type == "cuda" else torch.float32
    normalise = card.transforms().normalise
    # nn.Module.to takes a memory format too; its type stubs do not know.
    served = model.to(device, kind).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def answer(pictures: Sequence[bytes]) -> None:
        pixels = np.stack([to_input(decode(each), card.image_size, card.channels) for each in pictures])
        with torch.inference_mode():
            inputs = normalise(torch.from_numpy(pixels).to(device))
            logits = served(inputs.to(kind, memory_format=torch.channels_last))
            torch.softmax(logits.float(), 1).tolist()  # the copy to the CPU waits for the GPU

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = _times(answer, images, 1)
        together = _times(answer, images, BATCH)
    finally:
        torch.set_num_threads(threads)
    median = float(np.median(together))
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "batch1": {
            "medianMs": float(np.median(alone)) * 1000,
            "p99Ms": float(np.quantile(alone, 0.99)) * 1000,
            "repetitions": len(alone),
        },
        f"batch{BATCH}": {
            "medianMs": median * 1000,
            "imagesPerSecond": BATCH / median,
            "repetitions": len(together),
        },
    }


def _times(answer: Callable[[Sequence[bytes]], None], images: Sequence[bytes], size: int) -> list[float]:
    """Return the seconds of each repetition, another batch each time."""
    stream = cycle(images)
    for _ in range(WARM_UP):
        answer(list(islice(stream, size)))
    taken: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(taken) < REPETITIONS[size] and (time.perf_counter() < end or not taken):
        batch = list(islice(stream, size))
        start = time.perf_counter()
        answer(batch)
        taken.append(time.perf_counter() - start)
    return taken
