"""Prepared Parquet shards, written piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

SHARD_BYTES = 128 * 1024 * 1024
"""Of images per file."""
ROW_GROUP_BYTES = 2 * 1024 * 1024
"""Of images per row group: what a reader must hold at once."""
ROW_GROUP_ROWS = 4096
SCHEMA = pl.Schema(
    {
        "example_id": pl.String(),
        "image": pl.Binary(),
        "label": pl.String(),
        "source": pl.String(),
        "time": pl.String(),
    }
)
COMPRESSION_LEVEL = 1
"""Of Zstandard. PNG and JPEG hardly shrink, and pass quickly; small ones share their headers."""


def write_shards(examples: pl.DataFrame, images: Iterator[bytes], directory: Path) -> None:
    """Write examples as Parquet files of about :data:`SHARD_BYTES` of images each.

    A row group is in memory at a time, and a few more that Polars is writing.

    Parameters
    ----------
    examples
        ``example_id``, ``label``, ``source``, ``time`` and the image's ``size`` in bytes, in the order in
        which they are written.
    images
        The images, in the same order.
    """
    sizes = examples["size"].to_list()
    start = filled = shard = 0
    for end, size in enumerate(sizes, 1):
        filled += size
        if filled >= SHARD_BYTES or end == len(sizes):
            rows = examples.slice(start, end - start).select("example_id", "label", "source", "time")
            group = max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES * rows.height // max(1, filled)))
            _write(rows, images, group, directory / f"part-{shard:05d}.parquet")
            start, filled, shard = end, 0, shard + 1


def _write(rows: pl.DataFrame, images: Iterator[bytes], group: int, path: Path) -> None:
    def groups(
        _columns: list[str] | None, _predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        for part in rows.iter_slices(group):
            content = pl.Series("image", list(islice(images, part.height)), pl.Binary)
            yield part.with_columns(content).select(list(SCHEMA))

    register_io_source(groups, schema=SCHEMA).sink_parquet(
        path, compression="zstd", compression_level=COMPRESSION_LEVEL, row_group_size=group, statistics=False
    )
