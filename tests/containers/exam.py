"""Invented answers of invented models, evaluated by the real code: for tests of what is said about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from evaluation.answers import Answers, Contestant
from evaluation.evaluate import Exam, evaluate
from evaluation.parts import Parts
from evaluation.recommendation import Bounds
from models.artifact import ModelCard

LATENCY = {
    "device": "cpu",
    "batch1": {"medianMs": 1.25, "p99Ms": 2.5, "repetitions": 200},
    "batch32": {"medianMs": 10.0, "imagesPerSecond": 3200.0, "repetitions": 25},
}


def contestant(name: str, labels: Sequence[str]) -> Contestant:
    card = ModelCard("convnet", list(labels), 16, 1, "g00000001", name)
    return Contestant(card, nn.Linear(3, len(labels)), "0" * 64)


def imagined(
    labels: Sequence[str],
    examples: int,
    accuracy: dict[str, float],
    *,
    newest: float = 0.0,
    seed: int = 0,
    class_loss: float = 0.1,
) -> dict[str, Any]:
    """Return the evaluation of models that are right at random, as often as ``accuracy`` says.

    A share of ``newest`` of the examples are corrections: there the champion is always wrong.
    """
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(labels), examples).astype(np.int32)
    corrections = rng.random(examples) < newest
    said = {}
    for name, share in accuracy.items():
        right = rng.random(examples) < share
        if name == "champion":
            right &= ~corrections
        wrong = (truth + rng.integers(1, max(len(labels), 2), examples)) % len(labels)
        predicted = np.where(right, truth, wrong).astype(np.int32)
        confidence = np.clip(rng.normal(np.where(right, 0.9, 0.6), 0.1), 1 / len(labels), 1)
        said[name] = Answers(predicted, confidence.astype(np.float32), predicted == truth)
    found, _ = evaluate(
        {name: contestant(name, labels) for name in accuracy},
        Exam(list(labels), truth, Parts(corrections, corrections, corrections)),
        said,
        dict.fromkeys(accuracy, LATENCY),
        Bounds(0.85, class_loss=class_loss),
    )
    return {"version": 2, "generation": "g00000002", "datasetVersion": "0" * 64, **found}
