"""Which examples of the holdout tell what.

*All* of the holdout decides. The *newest corrections* are its ground-truth examples among the labels that the
dataset before this one did not have: no earlier run has compared models on them, and they show what comes in
today. But people correct mistakes, so the champion is wrong on corrections by selection, whatever its
quality, and any other model looks better. What is *not selected* by a mistake (base set, labelled examples,
audited predictions) therefore stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dataset.records import AUDIT
from dataset.sides import GROUND_TRUTH
from evaluation.holdout import Holdout


@dataclass(frozen=True)
class Parts:
    """Whether each example is among the newest corrections, selected by a mistake, and of ground truth."""

    newest: NDArray[np.bool_]
    selected: NDArray[np.bool_]
    ground_truth: NDArray[np.bool_]


def parts_of(holdout: Holdout, labels: pl.DataFrame, new_labels: int) -> Parts:
    """Find the newest corrections, and what is in the holdout because a model was wrong about it.

    Parameters
    ----------
    holdout
        Its ids and sources.
    labels
        As :func:`dataset.labels.read_labels` returns them.
    new_labels
        How many labels this dataset has that the one before had not. The snapshot does not mark them one by
        one, so the newest ones by the time of the statement, then by id, stand for them.
    """
    ids = pl.Series(holdout.example_ids, dtype=pl.String)
    ground_truth = np.array([source == GROUND_TRUTH for source in holdout.sources], bool)
    newest = labels.top_k(new_labels, by=["at", "inference_id"])["inference_id"]
    selected = labels.filter(pl.col("image").is_null() & (pl.col("source") != AUDIT))["inference_id"]
    return Parts(
        ids.is_in(newest.implode()).to_numpy() & ground_truth,
        ids.is_in(selected.implode()).to_numpy() & ground_truth,
        ground_truth,
    )
