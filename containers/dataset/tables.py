"""Base sets that come as Parquet, read in pieces whatever their row groups are.

pandas, pyarrow and Polars write a table of up to a million rows as one row group unless they are told
otherwise. Polars holds the row group that it reads, compressed and decoded: twice the size of such a file. So
these files are read by pyarrow, which decodes a column page by page (about a megabyte each, as all of these
write them) and hands over as many rows as it is asked for:
https://arrow.apache.org/docs/python/generated/pyarrow.parquet.ParquetFile.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from common.errors import BaseSetError

TEXTS = ("example_id", "label")
IMAGE = "image"
ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 2 * 1024 * 1024
"""Of a piece, by the mean size of a row; few images are much larger than the mean, and none is large."""
BUFFER_BYTES = 256 * 1024
"""That are read at once, of each column."""


def pieces(path: Path, name: str) -> Iterator[tuple[list[str], list[bytes], list[str]]]:
    """Yield the example ids, images and labels of a Parquet file, some rows at a time.

    Parameters
    ----------
    name
        What the file is called in messages.

    Raises
    ------
    BaseSetError
        The file is damaged, lacks a column, or one of them holds nulls or what it must not.
    """
    # Imported here: it costs 0.15 s and 30 MiB, which only these files are worth.
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without pre_buffer, and with a buffer, a column is read as it is decoded, not a row group at once.
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=BUFFER_BYTES) as table:
            schema = table.schema_arrow
            lacking = [column for column in (*TEXTS, IMAGE) if schema.get_field_index(column) < 0]
            if lacking:
                raise BaseSetError(_unreadable(name, f"it has no column, or several, named {lacking[0]}"))
            kind = schema.field(IMAGE).type
            if not (
                pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
            ):
                raise BaseSetError(f"{name}: image must be binary (it is {kind})")
            groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            at_once = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE * table.metadata.num_rows // max(1, size)))
            for batch in table.iter_batches(at_once, columns=[*TEXTS, IMAGE], use_threads=False):
                if any(column.null_count for column in batch.columns):
                    raise BaseSetError(f"{name}: no column may hold nulls")
                ids, labels = (pl.Series(batch.column(column)).cast(pl.String).to_list() for column in TEXTS)
                yield ids, batch.column(IMAGE).to_pylist(), labels
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError) as error:
        raise BaseSetError(_unreadable(name, str(error))) from error


def _unreadable(name: str, reason: str) -> str:
    return (
        f"{name} cannot be read as a base set: {reason}. It needs the columns "
        "example_id (string), image (binary) and label (string)"
    )
