"""On which side every picture has lain, as each version leaves it to the next: ``sides.parquet``.

A row per picture that is or ever was on a side, whether an example stands for it or is represented by a copy:
the first 16 bytes of the SHA-256 of its decoded pixels, as two numbers, and whether it is held back. 16 bytes
are enough: two of a thousand million pictures share them by chance once in 10²⁰ such sets, and to make two
that do takes 2⁶⁴ tries and gains that one lies where the other does. Memory and file take 17 bytes a row.

The rows are in ascending order, so the same pictures give the same bytes, and a picture that stands twice is
found by looking at its neighbour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.errors import RecordError

FILE = "sides.parquet"
KEY = ("high", "low")
SIDES = pl.Schema({"high": pl.UInt64(), "low": pl.UInt64(), "holdout": pl.Boolean()})
TRAINED_ON, HELD_BACK, NEW = 0, 1, -1
"""What is known of a picture: the side that it lies on, or that it was on none."""
ROWS_AT_ONCE = 1 << 20


def keys(digests: pl.Series) -> pl.DataFrame:
    """Return the first 128 bits of SHA-256 digests (32 bytes each), as two columns in the order given."""
    numbers = np.frombuffer(b"".join(digests.to_list()), ">u8").reshape(-1, 4).astype(np.uint64)
    return pl.DataFrame({"high": numbers[:, 0], "low": numbers[:, 1]})


def recall(remembered: pl.DataFrame, wanted: pl.DataFrame) -> NDArray[np.int8]:
    """Say for each of ``wanted``, as :func:`keys` returns them, on which side it has lain."""
    found = wanted.join(remembered, on=KEY, how="left", maintain_order="left")
    return found["holdout"].cast(pl.Int8).fill_null(NEW).to_numpy()


def extend(remembered: pl.DataFrame, placed: pl.DataFrame) -> pl.DataFrame:
    """Return what is remembered with the rows of ``placed`` that are new; both as :data:`SIDES` says."""
    return pl.concat([remembered, placed.join(remembered, on=KEY, how="anti")]).sort(KEY)


def read_sides(path: Path) -> pl.DataFrame:
    """Read what the version before remembers; no rows when there is no such file.

    Raises
    ------
    RecordError
        The file is damaged, or is another one than :func:`write_sides` writes.
    """
    if not path.exists():
        return pl.DataFrame(schema=SIDES)
    try:
        schema = pl.Schema(pl.read_parquet_schema(path))
        if schema != SIDES:
            raise RecordError(_unusable(path, f"its columns are {_told(schema)}, not {_told(SIDES)}"))
        rows = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        # Polars panics over some damage, which is no Exception: nobody would be told why the job has ended.
        raise RecordError(_unusable(path, str(error))) from error
    if rows.null_count().sum_horizontal().item():
        raise RecordError(_unusable(path, "a picture has no digest or no side"))
    high, low = rows["high"], rows["low"]
    before = (high < high.shift(-1)) | ((high == high.shift(-1)) & (low < low.shift(-1)))
    if not before.head(-1).all():
        raise RecordError(_unusable(path, "a picture stands in it twice, or its rows are in another order"))
    return rows


def write_sides(rows: pl.DataFrame, path: Path) -> None:
    """Write what the next version is to remember; digests do not compress."""
    rows.write_parquet(path, compression="uncompressed", statistics=False, row_group_size=ROWS_AT_ONCE)


def _told(schema: pl.Schema) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in schema.items())


def _unusable(path: Path, reason: str) -> str:
    return (
        f"{path.name} of the dataset cannot be used: {reason}. It says on which side every picture has lain: "
        "put back an earlier version of the object, or runs/<generation>/prepared/report/sides.parquet of "
        "the newest run that has one, and start again"
    )
