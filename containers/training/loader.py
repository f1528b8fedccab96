"""Batches from the store to the device, ahead of the model, and how long the model waited for them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
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
    """One step's share of a rank, on the device, and the targets of the whole batch, on the CPU.

    `copied` is when the copies to a GPU are done; None on a CPU.
    """

    step: int
    parts: tuple[Part, ...]
    whole_targets: Tensor
    copied: torch.cuda.Event | None = None


class Loader:
    """Reads batches on a thread of its own.

    Parameters
    ----------
    pixels
        The store, uint8 ``(count, channels, size, size)``.
    targets
        int64 ``(count,)``, on the CPU.
    device
        Where batches go: from pinned memory and on a stream of their own, so that the copy runs beside the
        computation.

    Attributes
    ----------
    waited
        Seconds that the consumer has spent waiting for data since `reset`, for the first batch too.
    """

    def __init__(self, pixels: Pixels, targets: Tensor, device: torch.device) -> None:
        self._pixels = pixels
        self._targets = targets
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
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
                if self._stream is not None:
                    # A thread begins on the first GPU, and goes back there each time it leaves the stream:
                    # that would make every process a context there, hundreds of megabytes of another's GPU.
                    torch.cuda.set_device(self._stream.device)
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
                self._receive(item)
                yield item
        finally:
            gone.set()
            reader.join()

    def _read(self, batch: Batch) -> Loaded:
        whole = self._targets[batch.whole]
        if self._stream is None:
            return Loaded(batch.step, tuple(self._part(*part) for part in batch.parts), whole)
        with torch.cuda.stream(self._stream):
            parts = tuple(self._part(*part) for part in batch.parts)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        return Loaded(batch.step, parts, whole, copied)

    def _part(self, indices: Tensor, noise: Tensor) -> Part:
        # Reads in the file's order; what order a batch has does not matter to it.
        indices, order = indices.sort()
        pinned = self._stream is not None
        images = torch.empty((len(indices), *self._pixels.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        if len(indices) and indices[-1] >= len(self._pixels):
            raise IndexError(f"example {indices[-1]} of {len(self._pixels)}")
        # Checked above, because numpy's own check would read into a buffer and copy that.
        np.take(self._pixels, indices.numpy(), axis=0, out=images.numpy(), mode="clip")
        return Part(
            self._to_device(images), self._to_device(self._targets[indices]), self._to_device(noise[order])
        )

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self._stream is None:
            return tensor
        return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(self._device, non_blocking=True)

    def _receive(self, item: Loaded) -> None:
        """Let the device, not this thread, wait for the copies."""
        if item.copied is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(item.copied)
        for part in item.parts:
            for tensor in (part.images, part.targets, part.noise):
                tensor.record_stream(stream)  # else their memory could be given to the next batch too soon
