"""Model Monitor's own file formats for the quality of a multiclass model.

They are what SageMaker's registry, Studio and an existing Model Monitor schedule read and write.
Source: "Model Quality Metrics and Amazon CloudWatch Monitoring", SageMaker developer guide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.scoring import Counts, accuracy, weighted_scores

_DRAWS = 200
LESS_THAN = "LessThanThreshold"


def _scores(matrix: Any) -> dict[str, float]:
    return {"accuracy": accuracy(matrix), **weighted_scores(matrix)}


def _best_constant(matrix: Counts) -> Counts:
    """Return the matrix of the classifier that always answers the most frequent label."""
    constant = np.zeros_like(matrix)
    support = matrix.sum(1)
    constant[:, int(support.argmax())] = support
    return constant


def _with_deviation(matrix: Counts, suffix: str) -> dict[str, dict[str, float]]:
    """Return each score with its standard deviation over resampled matrices.

    Only pairs that occur are drawn, one matrix at a time: of a thousand classes all draws would take
    gigabytes.
    """
    total = int(matrix.sum())
    occurring = np.flatnonzero(matrix)
    shares = matrix.ravel()[occurring] / total
    generator = np.random.default_rng(0)
    resampled = []
    for _ in range(_DRAWS):
        draw = np.zeros(matrix.size, np.int64)
        draw[occurring] = generator.multinomial(total, shares)
        resampled.append(_scores(draw.reshape(matrix.shape)))
    return {
        name + suffix: {"value": value, "standard_deviation": float(np.std([row[name] for row in resampled]))}
        for name, value in _scores(matrix).items()
    }


def confusion_members(matrix: Counts, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return a confusion matrix as ``{true: {predicted: count}}``."""
    return {
        true: {predicted: int(count) for predicted, count in zip(labels, row, strict=True)}
        for true, row in zip(labels, matrix, strict=True)
    }


def occurring_members(matrix: Counts, labels: Sequence[str], most: int = 5000) -> dict[str, dict[str, int]]:
    """Return a confusion matrix as ``{true: {predicted: count}}`` without the pairs that never occurred.

    Of mistakes the ``most`` frequent ones are kept: of a thousand classes there may be a million.
    """
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    flat = np.flatnonzero(mistakes)
    if len(flat) > most:
        flat = flat[np.argsort(-mistakes.ravel()[flat], kind="stable")[:most]]
    right = np.flatnonzero(np.diag(matrix)) * (len(labels) + 1)
    members: dict[str, dict[str, int]] = {}
    for place in sorted([*flat.tolist(), *right.tolist()]):
        row, column = divmod(place, len(labels))
        members.setdefault(labels[row], {})[labels[column]] = int(matrix[row, column])
    return members


def statistics(matrix: Counts, labels: Sequence[str]) -> dict[str, Any]:
    """Return ``statistics.json``; without examples it has no metrics, never zeros that look measured."""
    total = int(matrix.sum())
    metrics: dict[str, Any] = {}
    if total:
        metrics = {
            "confusion_matrix": confusion_members(matrix, labels),
            **_with_deviation(matrix, ""),
            **_with_deviation(_best_constant(matrix), "_best_constant_classifier"),
        }
    return {"version": 0.0, "dataset": {"item_count": total}, "multiclass_classification_metrics": metrics}


def constraints(threshold: float) -> dict[str, Any]:
    """Return ``constraints.json`` with the one constraint that is watched: accuracy."""
    return {
        "version": 0.0,
        "multiclass_classification_constraints": {
            "accuracy": {"threshold": threshold, "comparison_operator": LESS_THAN}
        },
    }


def violations(value: float, threshold: float) -> dict[str, Any]:
    """Return ``constraint_violations.json`` for an accuracy below the threshold."""
    return {
        "violations": [
            {
                "constraint_check_type": LESS_THAN,
                "description": f"Metric accuracy with {value:.4f} was {LESS_THAN} {threshold}",
                "metric_name": "accuracy",
            }
        ]
    }
