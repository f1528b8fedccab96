"""What the reading thread gives to the model, how far ahead it reads, and how it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
import torch

from common.imaging import Pixels
from training import loader as module
from training.loader import BLOCK_STEPS, Loader
from training.sampler import Batch, Sampler

COUNT = 400
PATIENCE = 30.0
"""Seconds until a thread that should have done something has failed; none are spent where it has."""


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 1, 3, 5), np.uint8)


TARGETS = torch.arange(COUNT) % 10
STEP_BYTES = 4 * 3 * 5
"""Of four images."""


class Pulled:
    """Batches, and how many of them have been asked for; whoever asks for `gate` waits until it is opened."""

    def __init__(self, batches: Iterable[Batch], gate: int = -1) -> None:
        self._batches = batches
        self._gate = gate
        self.open = threading.Event()
        self.count = 0
        self.changed = threading.Condition()

    def __iter__(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._batches):
            if number == self._gate and not self.open.wait(PATIENCE):
                raise TimeoutError(f"batch {number} is needed for what was asked for before")
            with self.changed:
                self.count += 1
                self.changed.notify()
            yield batch

    def reaches(self, count: int) -> bool:
        """Wait until so many have been asked for."""
        with self.changed:
            return self.changed.wait_for(lambda: self.count >= count, PATIENCE)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "loader"]


@pytest.mark.parametrize(
    ("world_size", "accumulation", "first", "limit"),
    [(1, 1, 0, 1 << 20), (2, 3, 5, 1 << 20), (1, 2, 0, 500), (3, 1, 1, 1)],
    ids=["one process", "parts of a rank, in the middle of an epoch", "small blocks", "each step alone"],
)
def test_blocks_hold_what_the_batches_ask_for(
    pixels: Pixels,
    monkeypatch: pytest.MonkeyPatch,
    world_size: int,
    accumulation: int,
    first: int,
    limit: int,
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", limit)
    chosen = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))[:387]
    sampler = Sampler(len(chosen), 7, 0, world_size, accumulation)
    rank = world_size - 1
    loader = Loader(pixels, TARGETS, torch.device("cpu"), chosen)
    expected = list(sampler.batches(2, rank, first))
    found = list(loader.load(sampler.batches(2, rank, first)))
    assert len(found) == sampler.steps_per_epoch - first > 3 * BLOCK_STEPS - 5
    for batch, loaded in zip(expected, found, strict=True):
        assert loaded.step == batch.step
        assert loaded.whole_targets.equal(TARGETS[chosen[batch.whole]])
        for (indices, noise), part in zip(batch.parts, loaded.parts, strict=True):
            places, order = chosen[indices].sort()  # of each part by itself: the order of sums depends on it
            assert part.images.equal(torch.from_numpy(pixels[places.numpy()]))
            assert part.targets.equal(TARGETS[places])
            assert part.noise.equal(noise[order])
            assert all(each.is_contiguous() for each in (part.images, part.targets, part.noise))


def test_the_first_step_waits_for_no_other(pixels: Pixels) -> None:
    batches = Pulled(Sampler(COUNT, 4, 0).batches(1, 0), gate=1)
    loading = Loader(pixels, TARGETS, torch.device("cpu")).load(batches)
    assert next(loading).step == 0
    batches.open.set()
    assert [loaded.step for loaded in loading] == list(range(1, 100))


@pytest.mark.parametrize(
    ("limit", "low", "most"),
    [(1 << 20, BLOCK_STEPS, 2 * BLOCK_STEPS), (2 * STEP_BYTES, 2, 4), (1, 2, 3)],
    ids=["many steps at once", "two at once", "each alone"],
)
def test_it_reads_two_blocks_ahead_and_no_more(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch, limit: int, low: int, most: int
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", limit)
    batches = Pulled(Sampler(COUNT, 4, 0).batches(1, 0))
    blocks: set[int] = set()
    for loaded in Loader(pixels, TARGETS, torch.device("cpu")).load(batches):
        # It asks for one batch more than it reads: only then is it known how large that one is.
        if loaded.step < 3 * BLOCK_STEPS:
            assert batches.reaches(loaded.step + low + 2)
        assert batches.count <= loaded.step + most + 1
        blocks.add(loaded.parts[0].images.untyped_storage().nbytes())
    assert max(blocks) == min(max(limit, STEP_BYTES), BLOCK_STEPS * STEP_BYTES)


def test_no_block_is_larger_than_the_limit_whatever_its_steps_are(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * STEP_BYTES)
    sizes = [4, 5] * 20  # two of the first fit, and neither with the other
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    shares = [torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    batches = Pulled(
        Batch(step, each, ((each, torch.zeros(len(each), 8)),)) for step, each in enumerate(shares)
    )
    for loaded in Loader(pixels, TARGETS, torch.device("cpu")).load(batches):
        assert batches.reaches(min(loaded.step + 4, len(sizes)))
        assert loaded.parts[0].images.untyped_storage().nbytes() <= 2 * STEP_BYTES


def test_a_step_that_was_read_is_not_kept_back_for_others(pixels: Pixels) -> None:
    """Where reading takes as long as computing, a block of several would be waited for."""
    asked = threading.Semaphore(0)

    def slowly() -> Iterator[Batch]:
        for batch in Sampler(COUNT, 4, 0).batches(1, 0):
            if not asked.acquire(timeout=PATIENCE):
                raise TimeoutError(f"batch {batch.step} is needed for the one before")
            yield batch

    loading = Loader(pixels, TARGETS, torch.device("cpu")).load(slowly())
    for step in range(100):
        asked.release()
        assert next(loading).step == step
    assert next(loading, None) is None


def test_an_error_comes_after_what_was_read_before_it(pixels: Pixels) -> None:
    def breaking() -> Iterator[Batch]:
        yield from Sampler(8, 4, 0).batches(1, 0)
        raise OSError(5, "the volume cannot be read")

    loading = Loader(pixels, TARGETS, torch.device("cpu")).load(breaking())
    assert next(loading).step == 0
    with pytest.raises(OSError, match="the volume cannot be read"):
        list(loading)
    assert not readers()


def test_whoever_stops_early_leaves_no_thread_behind(pixels: Pixels) -> None:
    batches = Pulled(Sampler(COUNT, 4, 0).batches(1, 0))
    loading = Loader(pixels, TARGETS, torch.device("cpu")).load(batches)
    next(loading)
    assert batches.reaches(BLOCK_STEPS)
    assert len(readers()) == 1
    loading.close()  # type: ignore[attr-defined]
    assert not readers()
    assert batches.count <= 2 * BLOCK_STEPS + 1
