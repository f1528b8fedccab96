"""How good a classifier is, from its answers: pure functions of labels and predictions.

A confusion matrix here is an integer array ``(labels, labels)``, rows the truth, columns the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Codes = NDArray[np.int32]
"""Labels as positions in a list of labels."""
Z95 = 1.959963984540054


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one label; ``support`` is how many examples truly have it."""

    precision: float
    recall: float
    f1: float
    support: int


def confusion(truth: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> Counts:
    """Count the pairs of truth and prediction; all of them must be in ``labels``."""
    index = {label: position for position, label in enumerate(labels)}
    matrix: Counts = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(matrix, ([index[label] for label in truth], [index[label] for label in predicted]), 1)
    return matrix


def confusion_of(truth: Codes, predicted: Codes, classes: int) -> Counts:
    """Count the pairs of truth and prediction, both given as positions below ``classes``."""
    pairs = truth.astype(np.int64) * classes + predicted
    matrix: Counts = np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)
    return matrix


def accuracy(matrix: NDArray[np.number]) -> float:
    """Return the share of right predictions; 0 for an empty matrix."""
    total = float(matrix.sum())
    return float(np.trace(matrix)) / total if total else 0.0


def wilson(right: int, total: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a proportion (Wilson 1927); ``(0, 1)`` without observations."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, Z95 * Z95
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z95 / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, with 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def per_class(matrix: Counts) -> list[ClassScore]:
    """Return the score of each label, in the matrix's order."""
    hits = np.diag(matrix).astype(float)
    precision = _ratio(hits, matrix.sum(0).astype(float))
    recall = _ratio(hits, matrix.sum(1).astype(float))
    f1 = _ratio(2 * precision * recall, precision + recall)
    columns = (precision.tolist(), recall.tolist(), f1.tolist(), matrix.sum(1).tolist())
    return [ClassScore(*row) for row in zip(*columns, strict=True)]


def macro_f1(matrix: Counts) -> float:
    """Return the mean F1 over the labels that occur in the truth."""
    scores = [score.f1 for score in per_class(matrix) if score.support]
    return sum(scores) / len(scores) if scores else 0.0


def weighted_scores(matrix: NDArray[np.number]) -> dict[str, float]:
    """Return recall, precision and F-scores, weighted by support: Model Monitor's averages."""
    support = matrix.sum(1).astype(float)
    hits = np.diag(matrix).astype(float)
    recall, precision = _ratio(hits, support), _ratio(hits, matrix.sum(0).astype(float))
    weights = support / max(support.sum(), 1.0)
    scores = {"weighted_recall": float(weights @ recall), "weighted_precision": float(weights @ precision)}
    for name, beta in (("weighted_f0_5", 0.5), ("weighted_f1", 1.0), ("weighted_f2", 2.0)):
        fbeta = _ratio((1 + beta**2) * precision * recall, beta**2 * precision + recall)
        scores[name] = float(weights @ fbeta)
    return scores
