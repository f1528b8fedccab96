"""The training set, decoded once: a file of pixels that every process of the machine maps into its memory.

Decoding a PNG or JPEG takes longer than a V100 takes to learn from it, and every epoch would pay for it
again. So the Parquet shards are decoded once at the start into one flat file on the instance's volume; the
operating system's page cache then serves random batches at the speed of memory, to all processes alike.

One reader goes through the shards in their order, each once and from its beginning to its end: in FastFile
mode that is what streams from S3 at full speed. Processes beside it decode. Of the shards themselves only
their last few kilobytes are read before, which say how many rows there are, so that a volume that is too
small is found before any work is done.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.errors import BadImageError, RecordError, TooLittleDataError, VolumeTooSmallError
from common.imaging import Pixels, decode, to_input

ROWS_AT_ONCE = 1024
"""Encoded images that a process is given to decode."""
DECODE_HERE_BELOW = 20_000
"""With fewer images than this, starting processes to decode them costs more than it gains."""
WAITING_PER_PROCESS = 2
"""Blocks that wait for a process: they bound the memory, together with the one shard that is being read."""
_PIXELS = "train.pixels"
_INDEX = "train.parquet"


def open_shards(directory: Path) -> list[tuple[Path, int]]:
    """Return every shard below `directory`, in a fixed order, with its number of rows.

    Raises
    ------
    TooLittleDataError
        There is none, or all are empty.
    RecordError
        A shard is damaged.
    """
    paths = sorted(directory.rglob("*.parquet")) if directory.is_dir() else []
    if not paths:
        raise TooLittleDataError(f"{directory} holds no Parquet shard: did Prepare succeed?")
    found = []
    for path in paths:
        try:
            found.append((path, int(pl.scan_parquet(path).select(pl.len()).collect().item())))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RecordError(f"{path} is a damaged shard: {error}") from error
    if not sum(rows for _, rows in found):
        raise TooLittleDataError(f"{directory} holds no example")
    return found


@dataclass(frozen=True)
class Block:
    """Encoded images that follow each other, and where the first one's pixels belong."""

    start: int
    images: tuple[bytes, ...]
    origin: str
    """Shard and row of the first one, for messages."""
    first_row: int


@dataclass(frozen=True)
class Store:
    """A decoded training set.

    Parameters
    ----------
    pixels
        uint8 ``(count, channels, size, size)``, mapped.
    example_ids, labels
        Of each.
    digest
        SHA-256 of ids and labels in their order: what a run learns from.
    """

    pixels: Pixels
    example_ids: list[str]
    labels: list[str]
    digest: str

    @classmethod
    def read(cls, directory: Path, size: int, channels: int) -> Store:
        """Map what `build` has made below `directory`."""
        table = pl.read_parquet(directory / _INDEX)
        ids, labels = table["example_id"].to_list(), table["label"].to_list()
        digest = hashlib.sha256()
        for column in (ids, labels):
            digest.update("\0".join(column).encode())
        pixels = _mapped(directory / _PIXELS, len(ids), size, channels, "r")
        return cls(pixels, ids, labels, digest.hexdigest())


def build(directory: Path, channel: Path, size: int, channels: int, processes: int | None = None) -> None:
    """Decode all shards below `channel` into `directory`.

    Parameters
    ----------
    directory
        Where the pixels and their index go.
    size, channels
        Of the pixels.
    processes
        How many decode; by default one per core, and none beside this one for few images.

    Raises
    ------
    TooLittleDataError, RecordError
        As `open_shards`; or an image cannot be decoded, which Prepare lets none through.
    VolumeTooSmallError
        The pixels do not fit on the volume.
    """
    shards = open_shards(channel)
    count = sum(rows for _, rows in shards)
    if processes is None:
        processes = len(os.sched_getaffinity(0)) if count >= DECODE_HERE_BELOW else 1
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / _PIXELS
    reserve(target, count * channels * size * size)
    index: list[pl.DataFrame] = []
    blocks = _blocks(shards, index)
    if processes == 1:
        for block in blocks:
            decode_block(target, block, count, size, channels)
    else:
        # Spawned, not forked: torch and polars have threads by now, which a fork would leave half alive.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            waiting: deque[Future[None]] = deque()
            for block in blocks:
                waiting.append(pool.submit(decode_block, target, block, count, size, channels))
                if len(waiting) >= processes * WAITING_PER_PROCESS:
                    waiting.popleft().result()
            for job in waiting:
                job.result()
    pl.concat(index).write_parquet(directory / _INDEX)


def reserve(target: Path, size: int) -> None:
    """Make a file of `size` bytes whose room on the volume is certain.

    Without that a volume that fills up would end the process that writes to the mapped file by a signal,
    without a word.

    Raises
    ------
    VolumeTooSmallError
        There is no such room.
    """
    target.unlink(missing_ok=True)
    with target.open("wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            target.unlink()
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            free = os.statvfs(target.parent)
            raise VolumeTooSmallError(
                f"the decoded training images take {size} bytes in {target.parent}, and the volume has "
                f"{free.f_bavail * free.f_frsize} left: raise the job's VolumeSizeInGB, or lower image_size"
            ) from error


def _blocks(shards: list[tuple[Path, int]], index: list[pl.DataFrame]) -> Iterator[Block]:
    """Read shard after shard; yield their images, and add their ids and labels to `index`."""
    start = 0
    for path, rows in shards:
        try:
            shard = pl.read_parquet(BytesIO(path.read_bytes()), columns=["example_id", "label", "image"])
        except (pl.exceptions.PolarsError, OSError) as error:
            raise RecordError(f"{path} is a damaged shard: {error}") from error
        if shard.height != rows:
            raise RecordError(
                f"{path} had {rows} rows and now has {shard.height}: it changed while it was read"
            )
        index.append(shard.select("example_id", "label"))
        images = shard["image"]
        for first in range(0, rows, ROWS_AT_ONCE):
            part = tuple(images.slice(first, ROWS_AT_ONCE).to_list())
            yield Block(start + first, part, str(path), first)
        start += rows


def decode_block(target: Path, block: Block, count: int, size: int, channels: int) -> None:
    """Decode a block into the file at `target`.

    Raises
    ------
    RecordError
        An image cannot be decoded.
    """
    pixels = _mapped(target, count, size, channels, "r+")
    for row, image in enumerate(block.images):
        try:
            pixels[block.start + row] = to_input(decode(image), size, channels)
        except BadImageError as error:
            raise RecordError(f"row {block.first_row + row} of {block.origin}: {error}") from error


def _mapped(path: Path, count: int, size: int, channels: int, mode: str) -> Pixels:
    pixels: NDArray[np.uint8] = np.memmap(
        path,
        np.uint8,
        mode=mode,
        shape=(count, channels, size, size),  # type: ignore[call-overload]
    )
    return pixels
