"""Prepared Parquet shards as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.errors import RecordError, TooLittleDataError
from common.imaging import Pixels, decode, to_input


@dataclass(frozen=True)
class Examples:
    """A side of the dataset; ``images`` are the encoded files."""

    example_ids: list[str]
    images: list[bytes]
    labels: list[str]
    sources: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, size: int, channels: int) -> Pixels:
        """Return all images as the model's input: uint8 ``(n, channels, size, size)``."""
        out: NDArray[np.uint8] = np.empty((len(self), channels, size, size), np.uint8)
        for index, image in enumerate(self.images):
            out[index] = to_input(decode(image), size, channels)
        return out


def load(directory: Path) -> Examples:
    """Read every shard below ``directory``.

    Raises
    ------
    TooLittleDataError
        There is none, or all are empty.
    RecordError
        A shard is damaged.
    """
    shards = sorted(directory.rglob("*.parquet")) if directory.is_dir() else []
    try:
        table = pl.concat([pl.read_parquet(path) for path in shards]) if shards else pl.DataFrame()
        examples = Examples(*(table[name].to_list() for name in ("example_id", "image", "label", "source")))
    except (pl.exceptions.PolarsError, OSError) as error:
        if not shards:
            raise TooLittleDataError(f"{directory} holds no Parquet shard: did Prepare succeed?") from error
        raise RecordError(f"{directory} holds a damaged shard: {error}") from error
    if not len(examples):
        raise TooLittleDataError(f"{directory} holds no example")
    return examples
