"""The holdout, read shard by shard: what is known of its examples, and their pictures a batch at a time.

A fifth of a million images does not fit into the memory of a processing instance. Labels and ids do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from common.errors import BadImageError, RecordError, TooLittleDataError
from common.imaging import Pixels, decode, to_input

BATCH = 256
"""Pictures that the models answer at once."""
_COLUMNS = ("example_id", "label", "source")

Form = tuple[int, int]
"""Edge length and channels of a model's input."""


@dataclass(frozen=True)
class Holdout:
    """The holdout's shards in a fixed order and, for each example, its id, label and source."""

    shards: tuple[Path, ...]
    example_ids: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def open(cls, directory: Path) -> Holdout:
        """Read all but the pictures of every shard below ``directory``.

        Raises
        ------
        TooLittleDataError
            There is none, or all are empty.
        RecordError
            A shard is damaged.
        """
        shards = tuple(sorted(directory.rglob("*.parquet"))) if directory.is_dir() else ()
        if not shards:
            raise TooLittleDataError(f"{directory} holds no Parquet shard: did Prepare succeed?")
        columns: dict[str, list[str]] = {name: [] for name in _COLUMNS}
        for path in shards:
            table = _read(path, _COLUMNS)
            for name, values in columns.items():
                values += table[name].to_list()
        if not columns["label"]:
            raise TooLittleDataError(f"{directory} holds no example")
        return cls(shards, *(tuple(columns[name]) for name in _COLUMNS))

    def images(self, size: int = BATCH) -> Iterator[list[bytes]]:
        """Yield the encoded pictures in order, at most ``size`` at once; one shard is in memory.

        Raises
        ------
        RecordError
            A shard is damaged.
        """
        for path in self.shards:
            for part in _read(path, ("image",)).iter_slices(size):
                yield part["image"].to_list()

    def batches(self, forms: Sequence[Form]) -> Iterator[dict[Form, Pixels]]:
        """Yield the pictures in order as uint8 ``(n, channels, size, size)`` for each of ``forms``.

        Each picture is decoded once, whatever the number of forms, and the next batch is decoded while the
        models answer this one.

        Raises
        ------
        RecordError
            A shard is damaged, or holds an image that cannot be decoded: Prepare lets none through.
        """
        workers = len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
            waiting: list[Future[dict[Form, Pixels]]] = []
            for images in self.images():
                share = -(-len(images) // workers)
                parts = [
                    pool.submit(_decode, images[start : start + share], forms)
                    for start in range(0, len(images), share)
                ]
                if waiting:
                    yield _joined(waiting)
                waiting = parts
            if waiting:
                yield _joined(waiting)


def _read(path: Path, columns: Sequence[str]) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise RecordError(f"{path} is a damaged shard: {error}") from error


def _decode(images: Sequence[bytes], forms: Sequence[Form]) -> dict[Form, Pixels]:
    found = {
        form: np.empty((len(images), form[1], form[0], form[0]), np.uint8) for form in dict.fromkeys(forms)
    }
    for row, content in enumerate(images):
        try:
            image = decode(content)
        except BadImageError as error:
            raise RecordError(
                f"the holdout holds an image that cannot be decoded: {error}. Prepare leaves such images "
                "out: was the shard changed since?"
            ) from error
        for (size, channels), pixels in found.items():
            pixels[row] = to_input(image, size, channels)
    return found


def _joined(parts: Sequence[Future[dict[Form, Pixels]]]) -> dict[Form, Pixels]:
    done = [part.result() for part in parts]
    return {form: np.concatenate([part[form] for part in done]) for form in done[0]}
