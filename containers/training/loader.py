"""Batches from the store to the device, ahead of the model, and how long the model waited for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from common.imaging import Pixels
from training.sampler import Batch

PREFETCH = 3
"""Batches that are ready before they are asked for."""


@dataclass(frozen=True)
class Part:
    """What a rank computes at once: uint8 ``(n, channels, size, size)``, int64 ``(n,)``, float32 noise."""

    images: Tensor
    targets: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Loaded:
    """One step's share of a rank, on the device, and the targets of the whole batch, on the CPU."""

    step: int
    parts: tuple[Part, ...]
    whole_targets: Tensor


class Loader:
    """Reads batches on a thread of its own.

    Parameters
    ----------
    pixels
        The store, uint8 ``(count, channels, size, size)``.
    targets
        int64 ``(count,)``, on the CPU.
    device
        Where batches go: from pinned memory, so that the copy runs beside the computation.

    Attributes
    ----------
    waited
        Seconds that the consumer has spent waiting for data since `reset`.
    """

    def __init__(self, pixels: Pixels, targets: Tensor, device: torch.device) -> None:
        self._pixels = pixels
        self._targets = targets
        self._device = device
        self.waited = 0.0

    def reset(self) -> None:
        """Begin to count anew."""
        self.waited = 0.0

    def load(self, batches: Iterable[Batch]) -> Iterator[Loaded]:
        """Yield the batches, loaded; an error of the reading thread is raised here."""
        ready: queue.Queue[Loaded | BaseException | None] = queue.Queue(PREFETCH)
        gone = threading.Event()

        def hand_over(item: Loaded | BaseException | None) -> bool:
            while not gone.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return True
            return False

        def read() -> None:
            try:
                for batch in batches:
                    if not hand_over(self._read(batch)):
                        return
            except BaseException as error:  # raised where somebody can handle it
                hand_over(error)
            else:
                hand_over(None)

        reader = threading.Thread(target=read, name="loader", daemon=True)
        reader.start()
        try:
            while True:
                began = time.perf_counter()
                item = ready.get()
                self.waited += time.perf_counter() - began
                if item is None:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            gone.set()
            reader.join()

    def _read(self, batch: Batch) -> Loaded:
        parts = tuple(
            Part(self._images(indices), self._to_device(self._targets[indices]), self._to_device(noise))
            for indices, noise in batch.parts
        )
        return Loaded(batch.step, parts, self._targets[batch.whole])

    def _images(self, indices: Tensor) -> Tensor:
        # Sorted reads follow the file; what order a batch has does not matter to it, so it is restored.
        order = torch.argsort(indices)
        images = torch.empty((len(indices), *self._pixels.shape[1:]), dtype=torch.uint8)
        images[order] = torch.from_numpy(self._pixels[indices[order].numpy()])
        return self._to_device(images)

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self._device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)
