"""Which examples a rank sees at which step: a pure function of seed, epoch, step, rank and world size.

A *batch* is what one step of the optimiser learns from, over all ranks. Its composition depends on seed and
epoch alone, so one rank and many train on the same batches, and a run that goes on from a checkpoint skips
exactly what it has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from models.interface import NOISE

MINIMUM_PER_RANK = 2
"""Batch normalisation has no variance over a single example."""


def mixed(*numbers: int) -> int:
    """Return a seed that is a function of all `numbers`, and not of the Python that runs."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=7)
    return int.from_bytes(digest.digest(), "big")


@dataclass(frozen=True)
class Sampler:
    """The batches of a training run.

    Parameters
    ----------
    count
        Number of examples.
    batch_size
        Examples of one step, over all ranks.
    seed
        Of the order.
    world_size
        Number of ranks.
    accumulation
        Parts in which each rank computes its share of a batch.
    noise
        Random numbers per example and step, for the augmentation.
    """

    count: int
    batch_size: int
    seed: int
    world_size: int = 1
    accumulation: int = 1
    noise: int = NOISE

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """Start and end of each batch within an epoch's order.

        No example is left out: a last batch of less than half the size joins the one before. That rule asks
        for no more than the batch size, so that any number of ranks trains on the same batches.
        """
        least = self.smallest_batch
        starts = list(range(0, self.count, self.batch_size))
        if len(starts) > 1 and self.count - starts[-1] < least:
            starts.pop()
        return list(zip(starts, [*starts[1:], self.count], strict=True))

    @property
    def smallest_batch(self) -> int:
        """The fewest examples that a batch of many may have."""
        return max(MINIMUM_PER_RANK, (self.batch_size + 1) // 2)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return len(self.bounds)

    def order(self, epoch: int) -> Tensor:
        """Return the epoch's order: a permutation of ``range(count)``, int64."""
        generator = torch.Generator().manual_seed(mixed(self.seed, epoch))
        return torch.randperm(self.count, generator=generator)

    def batches(self, epoch: int, rank: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the epoch's batches from `first_step` on, as `rank` sees them."""
        order = self.order(epoch)
        for step, (start, end) in enumerate(self.bounds):
            if step < first_step:
                continue
            generator = torch.Generator().manual_seed(mixed(self.seed, epoch, step))
            noise = torch.rand(end - start, self.noise, generator=generator) * 2 - 1
            whole = order[start:end]
            stride = self.world_size * self.accumulation
            shares = [slice(part * self.world_size + rank, None, stride) for part in range(self.accumulation)]
            yield Batch(step, whole, tuple((whole[share], noise[share]) for share in shares))


@dataclass(frozen=True)
class Batch:
    """One step's batch.

    Parameters
    ----------
    step
        Its place in the epoch.
    whole
        Indices of its examples over all ranks.
    parts
        This rank's share, in the parts in which it is computed: indices and noise, float32
        ``(n, noise)`` in [-1, 1).
    """

    step: int
    whole: Tensor
    parts: tuple[tuple[Tensor, Tensor], ...]
