"""Which examples stay, and on which side: training or the frozen holdout.

*One example per picture.* Of the examples that show the same pixels, and of those whose pictures are copies
of one another (:mod:`dataset.near_duplicates`), one stays: ground truth before the base set, then the newest
label, then the smallest example id, label and digest of the bytes.

*The side* is for ever: a picture lies where it has lain in an earlier version (:mod:`dataset.memory`). Copies
are one picture, and lie where any of them has lain. Where none of them has, they lie where the one lies by
itself (:func:`is_holdout`) that came first: the base set comes before all ground truth, and of corrected
predictions the one that the endpoint was asked first. Nothing else is known for certain about what came
first: the base set has no times, and a labelled image has that of its label, which moves when somebody labels
it anew. So copies that would lie on different sides by themselves, where it cannot be told which came first,
are left out of both; and so are copies that have lain on different sides before they were known to be copies,
as no side is right for these any more, and what is new and a copy of pictures on different sides. What is
left out of a version keeps the side that it had.

A later upload thus never moves a picture from one side to the other, whatever else comes or goes, and no copy
of a holdout image is trained on. What no memory helps with is a compressed copy that first comes when its
original is gone: only the digest of the original is left, and nothing to compare the copy with.
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
from dataset import memory
from dataset.memory import HELD_BACK, NEW, TRAINED_ON
from dataset.near_duplicates import Features, Pairs, between, first_of, links
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

    That is, by itself: when no version remembers it, and it is no copy. The digest's first 64 bits, as a
    fraction of their range, are below ``share``: growing the share only ever adds to the holdout.
    """
    return int(digest[:16], 16) / 2**64 < share


def _own_sides(keys: pl.DataFrame, share: float) -> NDArray[np.bool_]:
    """Say the same of many pictures, by what :func:`dataset.memory.keys` returns."""
    return keys["high"].to_numpy().astype(np.float64) / 2.0**64 < share


@dataclass(frozen=True)
class Sides:
    """The examples that stay, sorted by id, and what became of the others.

    ``duplicates`` are examples of pictures that another example shows, ``near_duplicates`` pictures that are
    copies of others, ``undecided`` pictures that are on neither side, with the ids of their newest examples;
    ``conflicting_labels`` counts those of the former two whose label is another than that of the example that
    stayed. ``elsewhere`` counts the pictures on another side than their own pixels say. ``remembered`` is
    what the next version is to know, as :data:`dataset.memory.SIDES` says.
    """

    examples: dict[str, pl.DataFrame]
    duplicates: int
    near_duplicates: int
    undecided: list[str]
    conflicting_labels: int
    elsewhere: int
    remembered: pl.DataFrame

    def counts(self) -> dict[str, Any]:
        """Count the examples of each side, by label and by source."""
        return {
            "examples": {side: rows.height for side, rows in self.examples.items()},
            "perLabel": {side: _count(rows["label"]) for side, rows in self.examples.items()},
            "perSource": {side: _count(rows["source"]) for side, rows in self.examples.items()},
        }

    def share(self) -> float:
        """Return the share of all examples that is held back."""
        held_back = self.examples[HOLDOUT].height
        return held_back / max(1, held_back + self.examples[TRAIN].height)

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
    remembered: pl.DataFrame,
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
        Of the pictures that no version remembers, how many are to be held back.
    remembered
        The sides of all pictures of earlier versions, as :func:`dataset.memory.read_sides` returns them.
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
    keys = memory.keys(pictures["digest"])
    own, known = _own_sides(keys, share), memory.recall(remembered, keys)
    evidence = pictures["evidence"].to_numpy()
    where = rows.select(PLACE)

    def compare(pairs: Pairs) -> NDArray[np.bool_]:
        places = [[place(*where.row(int(evidence[number]))) for number in pair] for pair in pairs]
        return np.array(confirm([(one, other) for one, other in places]), np.bool_)

    pairs = links(features[evidence] if len(evidence) else features, compare)
    firsts = first_of(len(own), pairs)
    sides, left_out = _settle(pictures, own, known, firsts, pairs)
    pictures = pictures.with_columns(
        pl.Series("cluster", firsts), pl.Series("held_back", sides), pl.Series("left_out", left_out)
    )
    undecided = pictures.filter("left_out").select("row").join(rows, on="row", how="left")["example_id"]
    placed = keys.with_columns(pl.Series("holdout", sides)).filter(~pictures["left_out"])
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
        undecided=sorted(undecided),
        conflicting_labels=conflicts,
        elsewhere=int((~left_out & (sides != own)).sum()),
        remembered=memory.extend(remembered, placed),
    )


def _settle(
    pictures: pl.DataFrame,
    own: NDArray[np.bool_],
    known: NDArray[np.int8],
    firsts: NDArray[np.int64],
    pairs: Pairs,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say for each picture whether it is held back, and whether it is on neither side.

    It follows from this version and its memory alone, and is the same again with what it adds to the memory:
    which pictures are one (``firsts``) does not depend on any side, all of these that are on a side are on
    one, and those that are on none add nothing.
    """
    trained_on, held_back = np.zeros(len(own), np.bool_), np.zeros(len(own), np.bool_)
    trained_on[firsts[known == TRAINED_ON]] = True
    held_back[firsts[known == HELD_BACK]] = True
    both = trained_on & held_back
    new = ~(trained_on | held_back)
    sides = np.where(new, own, held_back)
    left_out = between(pairs[~both[firsts[pairs]].any(axis=1)], firsts, sides.tolist())
    left_out |= (both | (new & _disputed(pictures, own, firsts)))[firsts]
    sides = sides[firsts]
    # A copy that counts as another picture may have lain on the other side than what is new beside it.
    for one, other in (pairs.T, pairs.T[::-1]):
        against = (known[one] == NEW) & (known[other] != NEW) & (sides[one] != (known[other] == HELD_BACK))
        left_out[one[against]] = True
    return sides, left_out


def _disputed(pictures: pl.DataFrame, own: NDArray[np.bool_], firsts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of which pictures there are copies whose side cannot be told from this version alone."""
    kinds, times = pictures["kind"].to_numpy(), pictures["first"].to_numpy()
    both_asked = (kinds[firsts] == CORRECTION) & (kinds == CORRECTION)
    first_known = ((kinds[firsts] == BASE) & (kinds != BASE)) | (both_asked & (times[firsts] < times))
    disputed = np.zeros(len(own), np.bool_)
    disputed[firsts[(own != own[firsts]) & ~first_known]] = True
    return disputed
