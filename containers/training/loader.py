"""Batches from the store to the device, ahead of the model, and how long the model waited for them.

A thread reads *blocks* of several steps and then sleeps for as many. Each of its calls into numpy or torch
hands the interpreter's lock over, and the training thread wants that lock dozens of times in a step: where
both run in every step they hold each other up.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.imaging import Pixels
from training.sampler import Batch

BLOCK_STEPS = 16
"""Steps that are read at once, at most."""
BLOCK_BYTES = 32 * 2**20
"""Bytes of pixels that are read at once, at most; a step of more is read alone."""
LEAST_READY = 2
"""Steps that are still ready when the next block is begun, at least: of large ones a block holds but one."""


@dataclass(frozen=True)
class Part:
    """What a rank computes at once: uint8 ``(n, channels, size, size)``, int64 ``(n,)``, float32 noise."""

    images: Tensor
    targets: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Loaded:
    """One step's share of a rank, on the device, and the targets of the whole batch, on the CPU.

    The tensors are views of those of a block, whose memory is free when none of its steps is held any more.
    """

    step: int
    parts: tuple[Part, ...]
    whole_targets: Tensor


@dataclass(frozen=True)
class Block:
    """Steps that were read at once, and the tensors that theirs are views of.

    `copied` is when the copies to a GPU are done; None on a CPU.
    """

    steps: list[Loaded]
    tensors: tuple[Tensor, Tensor, Tensor]
    copied: torch.cuda.Event | None = None


class Loader:
    """Reads batches on a thread of its own.

    Three blocks are in memory at most: one in use, one ready, one that is being read. With the sizes above
    that is 96 MiB of pixels, or four steps of a rank where one has more than 16 MiB. On a GPU that is pinned
    memory of the host (which torch rounds up to powers of two, and keeps) and as much of the GPU's, where
    the blocks of steps that were issued and not yet computed are held too.

    Parameters
    ----------
    pixels
        The store, uint8 ``(count, channels, size, size)``.
    targets
        int64 ``(count,)``, on the CPU.
    device
        Where batches go: from pinned memory and on a stream of their own, so that the copy runs beside the
        computation.
    chosen
        Places in the store, int64: what the batches' indices count through. None: all of it.

    Attributes
    ----------
    waited
        Seconds that the consumer has spent waiting for data since `reset`, for the first batch too.
    """

    def __init__(
        self, pixels: Pixels, targets: Tensor, device: torch.device, chosen: Tensor | None = None
    ) -> None:
        self._pixels = pixels
        self._targets = targets.numpy()
        self._chosen = None if chosen is None else chosen.numpy()
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.waited = 0.0

    def reset(self) -> None:
        """Begin to count anew."""
        self.waited = 0.0

    def load(self, batches: Iterable[Batch]) -> Iterator[Loaded]:
        """Yield the batches, loaded; an error of the reading thread is raised here.

        Whoever stops early waits for the block that is being read, no more.
        """
        ahead = _Ahead()

        def read() -> None:
            try:
                if self._stream is not None:
                    # A thread begins on the first GPU, and goes back there each time it leaves the stream:
                    # that would make every process a context there, hundreds of megabytes of another's GPU.
                    torch.cuda.set_device(self._stream.device)
                for block in self._blocks(batches, ahead):
                    ahead.put(self._read(block))
            except BaseException as error:  # raised where somebody can handle it
                ahead.put(error)
            else:
                ahead.put(None)

        reader = threading.Thread(target=read, name="loader", daemon=True)
        reader.start()
        try:
            while True:
                began = time.perf_counter()
                block = ahead.take()
                self.waited += time.perf_counter() - began
                if block is None:
                    return
                self._receive(block)
                for step in block.steps:
                    yield step
                    ahead.done()
        finally:
            ahead.leave()
            reader.join()

    def _blocks(self, batches: Iterable[Batch], ahead: _Ahead) -> Iterator[list[Batch]]:
        """Yield batches that are to be read at once, when it is time to read them."""
        block: list[Batch] = []
        wanted = size = 0
        for batch in batches:
            added = sum(len(indices) for indices, _ in batch.parts) * self._pixels[:1].nbytes
            if block and size + added > BLOCK_BYTES:
                yield block
                block = []
            if not block:
                most = max(1, min(BLOCK_STEPS, BLOCK_BYTES // max(1, added)))
                wanted = min(most, ahead.wanted(max(most, LEAST_READY)))
                size = 0
                if not wanted:
                    return
            block.append(batch)
            size += added
            if len(block) == wanted:
                yield block
                block = []
        if block:
            yield block

    def _read(self, batches: list[Batch]) -> Block:
        parts = [part for batch in batches for part in batch.parts]
        counts = [len(indices) for indices, _ in parts]
        places = self._places([indices for indices, _ in parts])
        # Each part in the file's order; what order a part has does not matter to it.
        order = np.argsort(places + np.repeat(np.arange(len(parts)) * len(self._pixels), counts))
        places = places[order]
        noise = np.concatenate([noise.numpy() for _, noise in parts])
        whole_places = self._places([batch.whole for batch in batches])
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            tensors = (
                self._taken(self._pixels, places, torch.uint8),
                self._taken(self._targets, places, torch.int64),
                self._taken(noise, order, torch.float32),
            )
            copied = None
            if self._stream is not None:
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(self._stream)
        loaded = map(Part, *(torch.split(tensor, counts) for tensor in tensors))
        whole = torch.from_numpy(self._targets[whole_places])
        wholes = torch.split(whole, [len(batch.whole) for batch in batches])
        steps = [
            Loaded(batch.step, tuple(next(loaded) for _ in batch.parts), whole)
            for batch, whole in zip(batches, wholes, strict=True)
        ]
        return Block(steps, tensors, copied)

    def _places(self, indices: list[Tensor]) -> NDArray[np.int64]:
        """Return where in the store all of these examples are."""
        together: NDArray[np.int64] = np.concatenate([each.numpy() for each in indices])
        places = together if self._chosen is None else self._chosen[together]
        if len(places) and places.max() >= len(self._pixels):
            raise IndexError(
                f"index {places.max()} is out of bounds: the store has {len(self._pixels)} images"
            )
        return places

    def _taken(self, source: NDArray[Any], places: NDArray[np.int64], dtype: torch.dtype) -> Tensor:
        """Return ``source[places]`` on the device."""
        pinned = self._stream is not None
        found = torch.empty((len(places), *source.shape[1:]), dtype=dtype, pin_memory=pinned)
        # Checked before, because numpy's own check would read into a buffer and copy that.
        np.take(source, places, axis=0, out=found.numpy(), mode="clip")
        return found.to(self._device, non_blocking=True) if pinned else found

    def _receive(self, block: Block) -> None:
        """Let the device, not this thread, wait for the copies: once for all steps of the block."""
        if block.copied is None:
            return
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(block.copied)
        for tensor in block.tensors:
            tensor.record_stream(stream)  # else their memory could be given to a later block too soon


class _Ahead:
    """The blocks between the reading thread and the model."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._blocks: deque[Block | BaseException | None] = deque()
        self._ready = 0
        self._low = 0
        self._gone = False

    def wanted(self, low: int) -> int:
        """Wait until no more than `low` steps are ready; return how many to read at once, 0 when it is over.

        As many as are ready: so the first step does not wait for a second one to be read, and blocks grow as
        long as reading is quicker than computing. Where it is not, steps come one by one.
        """
        with self._changed:
            self._low = low
            self._changed.wait_for(lambda: self._gone or self._ready <= low)
            return 0 if self._gone else max(1, self._ready)

    def put(self, block: Block | BaseException | None) -> None:
        """Hand a block over, or an error, or None after the last one."""
        with self._changed:
            self._blocks.append(block)
            self._ready += len(block.steps) if isinstance(block, Block) else 0
            self._changed.notify()

    def take(self) -> Block | None:
        """Wait for what was put next, and return it; an error is raised."""
        with self._changed:
            self._changed.wait_for(lambda: self._blocks)
            found = self._blocks.popleft()
        if isinstance(found, BaseException):
            raise found
        return found

    def done(self) -> None:
        """Say that a step is done with. The reading thread is woken when it is time, and not before."""
        with self._changed:
            self._ready -= 1
            if self._ready <= self._low:
                self._changed.notify()

    def leave(self) -> None:
        """Say that nobody takes any more."""
        with self._changed:
            self._gone = True
            self._changed.notify()
