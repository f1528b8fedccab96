"""A snapshot's labels as a table: a million of them in a few dozen bytes each, and joined at once."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dataset.records import Label, instant, read_merged_labels

CHUNK_BYTES = 16 * 1024 * 1024
_TIME = "%Y-%m-%dT%H:%M:%S%.f%#z"
_TEXTS = ("inferenceId", "label", "eventTime")
_OTHERS = ("source", "sequencer", "author", "image", "imageETag")
_LINE = pl.Schema(dict.fromkeys((*_TEXTS, *_OTHERS), pl.String))
TABLE = pl.Schema(
    {
        "inference_id": pl.String(),
        "label": pl.String(),
        "time": pl.String(),
        "at": pl.Datetime("us", "UTC"),
        "source": pl.String(),
        "image": pl.String(),
        "etag": pl.String(),
    }
)


def read_labels(path: Path) -> pl.DataFrame:
    """Read a snapshot's ``ground-truth.jsonl``: one row per inference id; none without a file.

    The rules are those of :func:`dataset.records.read_merged_labels`, which reads a file that is not written
    as the snapshot writes it, and says what is wrong.

    Returns
    -------
    polars.DataFrame
        ``inference_id``, ``label``, ``time`` (as written), ``at`` (the same, in UTC), ``source``, and for
        a labelled example ``image`` (its key) and ``etag``.

    Raises
    ------
    RecordError
        A line is not what the snapshot writes.
    """
    if not path.exists():
        return pl.DataFrame(schema=TABLE)
    tables = []
    with path.open("rb") as file:
        while lines := file.read(CHUNK_BYTES):
            table = _parse(lines + file.readline())
            if table is None:
                return _from_labels(read_merged_labels(path))
            tables.append(table)
    if not tables:
        return pl.DataFrame(schema=TABLE)
    table = pl.concat(tables, rechunk=False)
    if table["inference_id"].n_unique() < table.height:
        order = ("at", "sequencer", "label", "source", "author")
        table = table.sort(order, descending=True, nulls_last=True)
        table = table.unique("inference_id", keep="first", maintain_order=True)
    return table.select(*TABLE)


def _parse(lines: bytes) -> pl.DataFrame | None:
    """Return the table, or ``None`` when a line may not be what the snapshot writes."""
    # Polars takes a number for a text. A key before an opening quote cannot stand within a JSON text, where
    # quotes are escaped: as many of them as there are lines prove that all these values are texts.
    count = lines.count(b"\n")
    keys = [b'"%s":' % name.encode() for name in _TEXTS]
    if any(lines.count(key + b'"') + lines.count(key + b' "') != count for key in keys):
        return None
    try:
        table = pl.read_ndjson(lines, schema=_LINE)
    except pl.exceptions.PolarsError:
        return None
    table = table.with_columns(
        pl.col("eventTime").str.to_datetime(_TIME, time_unit="us", strict=False).alias("at"),
        pl.col("source").fill_null("correction"),
        pl.col("sequencer", "author").fill_null(""),
    )
    lacking = table.select(pl.col(*_TEXTS, "at").null_count()).sum_horizontal().item()
    empty = table.select(pl.any_horizontal(pl.col(_TEXTS) == "", pl.col("image") == "").any()).item()
    if table.height != count or lacking or empty:
        return None
    return table.rename({"inferenceId": "inference_id", "eventTime": "time", "imageETag": "etag"})


def _from_labels(labels: dict[str, Label]) -> pl.DataFrame:
    rows = [
        (
            *(label.inference_id, label.label, label.time, instant(label.time)),
            *(label.source, label.image, label.image_etag),
        )
        for _, label in sorted(labels.items())
    ]
    return pl.DataFrame(rows, schema=TABLE, orient="row")
