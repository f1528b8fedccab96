"""The training set, decoded once: a file of pixels that every process of the machine maps into its memory.

Decoding a PNG or JPEG takes longer than a V100 takes to learn from it, and every epoch would pay for it
again. So the Parquet shards are decoded once at the start, side by side, into one flat file on the volume;
the operating system's page cache then serves random batches at the speed of memory, to all ranks alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.errors import BadImageError, RecordError, TooLittleDataError
from common.imaging import Pixels, decode, to_input

ROWS_AT_ONCE = 4096
"""Encoded images of a shard in memory at the same time, per process."""
DECODE_HERE_BELOW = 20_000
"""With fewer images than this, starting processes to decode them costs more than it gains."""


@dataclass(frozen=True)
class Shards:
    """The Parquet files of one side of a dataset, in a fixed order, and where each one's rows begin."""

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    starts: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of examples."""
        return len(self.labels)

    @classmethod
    def open(cls, directory: Path) -> Shards:
        """Read the labels of every shard below `directory`.

        Raises
        ------
        TooLittleDataError
            There is none, or all are empty.
        RecordError
            A shard is damaged.
        """
        paths = tuple(sorted(directory.rglob("*.parquet"))) if directory.is_dir() else ()
        if not paths:
            raise TooLittleDataError(f"{directory} holds no Parquet shard: did Prepare succeed?")
        labels: list[str] = []
        lengths = []
        for path in paths:
            try:
                found = pl.read_parquet(path, columns=["label"])["label"].to_list()
            except (pl.exceptions.PolarsError, OSError) as error:
                raise RecordError(f"{path} is a damaged shard: {error}") from error
            labels += found
            lengths.append(len(found))
        if not labels:
            raise TooLittleDataError(f"{directory} holds no example")
        return cls(paths, tuple(labels), (0, *accumulate(lengths)))


def decode_into(target: Path, shards: Shards, size: int, channels: int, share: int, shares: int) -> None:
    """Decode every `shares`-th block of rows, from the `share`-th on, into the file at `target`.

    Raises
    ------
    RecordError
        A shard is damaged, or holds an image that cannot be decoded: Prepare lets none through.
    """
    pixels = _mapped(target, shards.count, size, channels, "r+")
    for number, (path, first, rows, start) in enumerate(_blocks(shards)):
        if number % shares != share:
            continue
        try:
            images = pl.scan_parquet(path).slice(first, rows).select("image").collect()["image"].to_list()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RecordError(f"{path} is a damaged shard: {error}") from error
        for row, image in enumerate(images):
            try:
                pixels[start + row] = to_input(decode(image), size, channels)
            except BadImageError as error:
                raise RecordError(f"row {first + row} of {path}: {error}") from error


def _blocks(shards: Shards) -> Iterator[tuple[Path, int, int, int]]:
    """Yield shard, first row in it, number of rows, and the first row's place in the whole."""
    for path, begin, end in zip(shards.paths, shards.starts, shards.starts[1:], strict=False):
        for first in range(0, end - begin, ROWS_AT_ONCE):
            yield path, first, min(ROWS_AT_ONCE, end - begin - first), begin + first


def _mapped(path: Path, count: int, size: int, channels: int, mode: str) -> Pixels:
    pixels: NDArray[np.uint8] = np.memmap(
        path,
        np.uint8,
        mode=mode,
        shape=(count, channels, size, size),  # type: ignore[call-overload]
    )
    return pixels


def build(target: Path, shards: Shards, size: int, channels: int, processes: int | None = None) -> None:
    """Decode all of `shards` into `target`, whole or not at all.

    Parameters
    ----------
    target
        The file to make: uint8 ``(count, channels, size, size)``.
    processes
        How many decode side by side; by default one per core, and none beside this one for few images.

    Raises
    ------
    RecordError
        As `decode_into`.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".part")
    with unfinished.open("wb") as file:
        file.truncate(shards.count * channels * size * size)
    if processes is None:
        cores = len(os.sched_getaffinity(0))
        processes = cores if shards.count >= DECODE_HERE_BELOW else 1
    if processes == 1:
        decode_into(unfinished, shards, size, channels, 0, 1)
    else:
        # Spawned, not forked: torch and polars have threads by now, which a fork would leave half alive.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            jobs = [
                pool.submit(decode_into, unfinished, shards, size, channels, share, processes)
                for share in range(processes)
            ]
            for job in jobs:
                job.result()
    unfinished.rename(target)


def read(target: Path, shards: Shards, size: int, channels: int) -> Pixels:
    """Map what `build` has made, uint8 ``(count, channels, size, size)``, read-only."""
    return _mapped(target, shards.count, size, channels, "r")
