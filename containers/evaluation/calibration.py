"""Whether a model's probabilities can be believed. Pure functions of what it was sure of and got right.

The calibration error is the mean distance between confidence (the probability of the answered label) and the
share of right answers, over groups of examples of similar confidence, weighted by their size: the expected
calibration error of Naeini, Cooper and Hauskrecht 2015 with the 15 bins of equal width of Guo et al. 2017
("On Calibration of Modern Neural Networks"). Where nearly all confidences are near one, most of these bins
are empty; bins of equal count (the adaptive error of Nixon et al. 2019) then see more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15

Confidences = NDArray[np.floating]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Bin:
    """Examples whose confidence lies in (``low``, ``high``]: mean confidence and share of right ones."""

    low: float
    high: float
    examples: int
    confidence: float
    accuracy: float


def reliability(confidence: Confidences, right: Flags, bins: int = BINS) -> list[Bin]:
    """Return the bins of equal width that hold examples, in order."""
    place = np.clip(np.ceil(confidence.astype(float) * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sure = np.bincount(place, confidence, bins)
    hits = np.bincount(place, right, bins)
    return [
        Bin(
            index / bins,
            (index + 1) / bins,
            int(counts[index]),
            sure[index] / counts[index],
            hits[index] / counts[index],
        )
        for index in np.flatnonzero(counts).tolist()
    ]


def calibration_error(confidence: Confidences, right: Flags, bins: int = BINS) -> float:
    """Return the expected calibration error over bins of equal width; 0 without examples."""
    found = reliability(confidence, right, bins)
    total = sum(each.examples for each in found)
    return float(sum(each.examples * abs(each.accuracy - each.confidence) for each in found) / max(total, 1))


def adaptive_calibration_error(confidence: Confidences, right: Flags, bins: int = BINS) -> float:
    """Return the calibration error over ``bins`` groups of equal count; 0 without examples."""
    order = np.argsort(confidence, kind="stable")
    groups = [group for group in np.array_split(order, bins) if len(group)]
    distances = [
        len(group) * abs(float(right[group].mean()) - float(confidence[group].mean(dtype=float)))
        for group in groups
    ]
    return float(sum(distances)) / max(len(confidence), 1)
