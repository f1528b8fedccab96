"""Which examples stay, and on which side: training or the frozen holdout.

*One example per picture.* Of the examples that show the same pixels, and of those whose pictures are copies
of one another (:mod:`dataset.near_duplicates`), one stays: ground truth before the base set, then the newest
label, then the smallest example id, label and digest of the bytes.

*The side* is that of the picture by itself (:func:`is_holdout`). Copies are one picture, and lie where the
one lies that came first: the base set comes before all ground truth, and of corrected predictions the one
that the endpoint was asked first. Nothing else is known for certain about what came first: the base set has
no times, and a labelled image has that of its label, which moves when somebody labels it anew. So where
copies would lie on different sides by themselves, and it cannot be told which came first, the picture is
left out of both. A later upload thus never moves a picture from one side to the other, and no copy of a
holdout image is trained on.

What goes can move one, though: when the example that came first is no longer in the dataset (its label is
withdrawn, its base image removed), a compressed copy of it lies where its own pixels say, and an earlier
model may have seen it on the other side. Prepare knows one dataset only, so it cannot remember.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from common.errors import TooLittleDataError
from dataset.near_duplicates import Features, Pairs, first_of, links
from dataset.pictures import Place

BASE, CORRECTION, LABELLED = 0, 1, 2
"""Kinds of examples: of the base set, a corrected prediction, a labelled image."""
BASE_SOURCE, GROUND_TRUTH = "base", "ground-truth"
TRAIN, HOLDOUT = "train", "holdout"
ROW = pl.Schema(
    {
        "example_id": pl.String(),
        "label": pl.String(),
        "kind": pl.UInt8(),
        "time": pl.String(),
        "at": pl.Int64(),
        "first": pl.Int64(),
        "path": pl.UInt32(),
        "offset": pl.Int64(),
        "length": pl.Int64(),
        "captured": pl.Boolean(),
        "digest": pl.Binary(),
        "content": pl.UInt64(),
        "size": pl.UInt32(),
        "is_jpeg": pl.Boolean(),
    }
)
"""What is known of an example whose image could be decoded."""
PLACE = ("path", "offset", "length", "captured")
_DIGEST_ROWS = 50_000
_RANK = ("ground", "at", "example_id", "label", "content")
_RANK_DESCENDING = (True, True, False, False, False)


def is_holdout(digest: str, share: float) -> bool:
    """Say whether the picture with this SHA-256 (hexadecimal) belongs to the holdout.

    The digest's first 64 bits, as a fraction of their range, are below ``share``: growing the share only
    ever adds to the holdout.
    """
    return int(digest[:16], 16) / 2**64 < share


def _own_sides(digests: pl.Series, share: float) -> NDArray[np.bool_]:
    """Say the same of many digests, as bytes."""
    numbers = np.frombuffer(b"".join(digests.to_list()), ">u8").reshape(-1, 4)[:, 0]
    return numbers.astype(np.float64) / 2.0**64 < share


@dataclass(frozen=True)
class Sides:
    """The examples that stay, sorted by id, and what became of the others.

    ``duplicates`` are examples of pictures that another example shows, ``near_duplicates`` pictures that are
    copies of others, ``undecided`` pictures that are on neither side; ``conflicting_labels`` counts those of
    the former two whose label is another than that of the example that stayed.
    """

    examples: dict[str, pl.DataFrame]
    duplicates: int
    near_duplicates: int
    undecided: int
    conflicting_labels: int

    def counts(self) -> dict[str, Any]:
        """Count the examples of each side, by label and by source."""
        return {
            "examples": {side: rows.height for side, rows in self.examples.items()},
            "perLabel": {side: _count(rows["label"]) for side, rows in self.examples.items()},
            "perSource": {side: _count(rows["source"]) for side, rows in self.examples.items()},
        }

    def digest(self) -> str:
        """Return a SHA-256 over both sides: equal where the examples, their order and their bytes are."""
        whole = hashlib.sha256()
        for side, rows in self.examples.items():
            whole.update(f"{side} {rows.height}\n".encode())
            for part in rows.iter_slices(_DIGEST_ROWS):
                columns = part.select(
                    *("example_id", "label", "source", "time", "content"), pl.col("digest").bin.encode("hex")
                )
                whole.update(columns.write_ndjson().encode())
        return whole.hexdigest()

    def require(self) -> None:
        """Check that there is enough to train on and to compare with.

        Raises
        ------
        TooLittleDataError
            One side has no example, or training has only one label.
        """
        train, holdout = self.examples[TRAIN], self.examples[HOLDOUT]
        labels = train["label"].n_unique()
        if labels < 2 or not holdout.height:
            raise TooLittleDataError(
                f"too little data: {train.height} training examples with {labels} labels "
                f"and {holdout.height} holdout examples; two labels and one holdout example are needed"
            )


def _count(values: pl.Series) -> dict[str, int]:
    return dict(sorted(values.value_counts().iter_rows()))


def divide(
    rows: pl.DataFrame,
    features: Features,
    share: float,
    place: Callable[[int, int, int, bool], Place],
    confirm: Callable[[list[tuple[Place, Place]]], list[bool]],
) -> Sides:
    """Choose the examples that stay, and their sides.

    Parameters
    ----------
    rows
        As :data:`ROW` says, one per example.
    features
        What :func:`dataset.near_duplicates.describe` says of each one's image, in the same order.
    share
        Of all pictures that are to be held back.
    place
        Says where a row's image lies, by the columns :data:`PLACE`.
    confirm
        Compares the images at pairs of places.
    """
    rows = rows.with_row_index("row").with_columns(ground=pl.col("kind") != BASE)
    ranked = rows.sort(_RANK, descending=_RANK_DESCENDING)
    pictures = (
        ranked.group_by("digest", maintain_order=True)
        .agg(
            pl.col("row").first(),
            pl.coalesce(pl.col("row").filter("is_jpeg").first(), pl.col("row").first()).alias("evidence"),
            pl.len().alias("shown"),
            (pl.col("label") != pl.col("label").first()).sum().alias("conflicts"),
            pl.when(pl.col("kind").min() == BASE).then(BASE).otherwise(pl.col("kind").max()).alias("kind"),
            pl.when(pl.col("kind").min() == BASE).then(0).otherwise(pl.col("first").min()).alias("first"),
        )
        .sort("kind", "first", "digest")
    )
    del ranked
    own = _own_sides(pictures["digest"], share)
    evidence = pictures["evidence"].to_numpy()
    where = rows.select(PLACE)

    def compare(pairs: Pairs) -> NDArray[np.bool_]:
        places = [[place(*where.row(int(evidence[number]))) for number in pair] for pair in pairs]
        return np.array(confirm([(one, other) for one, other in places]), np.bool_)

    pairs = links(features[evidence] if len(evidence) else features, compare)
    firsts, left_out = first_of(len(own), pairs, own.tolist())
    left_out |= _undecided(pictures, own, firsts)
    pictures = pictures.with_columns(
        pl.Series("cluster", firsts), pl.Series("held_back", own[firsts]), pl.Series("left_out", left_out)
    )
    chosen = (
        pictures.filter(~pl.col("left_out"))
        .select("row", "cluster", "held_back")
        .join(rows, on="row", how="left", maintain_order="left")
        .sort(_RANK, descending=_RANK_DESCENDING)
        .with_columns(pl.col("label").first().over("cluster").alias("kept_label"))
    )
    near = chosen.height - chosen["cluster"].n_unique()
    conflicts = int((chosen["label"] != chosen["kept_label"]).sum()) + int(pictures["conflicts"].sum())
    chosen = (
        chosen.unique("cluster", keep="first", maintain_order=True)
        .with_columns(
            source=pl.when("ground").then(pl.lit(GROUND_TRUTH)).otherwise(pl.lit(BASE_SOURCE)),
        )
        .sort("example_id", "content")
    )
    return Sides(
        {TRAIN: chosen.filter(~pl.col("held_back")), HOLDOUT: chosen.filter("held_back")},
        duplicates=int(pictures["shown"].sum()) - pictures.height,
        near_duplicates=near,
        undecided=int(left_out.sum()),
        conflicting_labels=conflicts,
    )


def _undecided(
    pictures: pl.DataFrame, own: NDArray[np.bool_], firsts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say which pictures belong to one whose side cannot be told."""
    kinds, times = pictures["kind"].to_numpy(), pictures["first"].to_numpy()
    both_asked = (kinds[firsts] == CORRECTION) & (kinds == CORRECTION)
    known = ((kinds[firsts] == BASE) & (kinds != BASE)) | (both_asked & (times[firsts] < times))
    disputed = np.zeros(len(own), np.bool_)
    disputed[firsts[(own != own[firsts]) & ~known]] = True
    return disputed[firsts]
