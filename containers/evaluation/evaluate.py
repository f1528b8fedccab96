"""Compare the candidates and the model in service on the same holdout, and say which to take.

Reads the processing inputs ``old``, ``new`` (a ``model.tar.gz`` each), ``champion`` (one or none),
``holdout`` and ``dataset``; writes ``evaluation.json``, ``labels.json`` and
``{old,new}/statistics.json`` to the output ``evaluation``. Environment: ``ACCURACY_THRESHOLD``,
``IMPROVEMENT_MARGIN`` (default 0).

*Newest corrections* are the holdout's ground-truth examples among the labels that the dataset before this
one did not have: see :func:`dataset.records.newest_corrections`.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.contract import Paths, environment, extract_model
from common.errors import ArtifactError
from common.logs import event
from dataset import shards
from dataset.prepare import GROUND_TRUTH
from dataset.records import newest_corrections, read_dataset_info, read_merged_labels
from dataset.shards import Examples
from evaluation import model_quality
from evaluation.predict import predict
from evaluation.scoring import accuracy, confusion, macro_f1, paired_difference, per_class, wilson
from models import artifact
from models.artifact import ModelCard
from models.device import use_half_the_cores

log = logging.getLogger(__name__)

CANDIDATES = ("old", "new")


@dataclass(frozen=True)
class Answers:
    """What one model said about the holdout."""

    card: ModelCard
    predicted: list[str]
    right: NDArray[np.bool_]
    digest: str


@dataclass(frozen=True)
class Comparison:
    """A candidate's gain in accuracy over the champion, with the 95 % interval of the gain."""

    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Standing:
    """What the recommendation looks at, per candidate."""

    accuracy: float
    macro_f1: float
    comparison: Comparison | None


def recommend(
    standings: dict[str, Standing], threshold: float, margin: float, has_champion: bool
) -> tuple[str | None, str]:
    """Say which candidate to put into service, if any, and why.

    A candidate qualifies when it reaches ``threshold`` on the holdout and, where there is a champion, beats
    it by at least ``margin`` with the interval of the difference above zero. Of those that qualify the more
    accurate one is taken; at equal accuracy the one with the better macro F1, then `old`, the smaller change.
    """
    order = sorted(
        standings, key=lambda name: (-standings[name].accuracy, -standings[name].macro_f1, name == "new")
    )
    reasons: list[str] = []
    for name in order:
        standing = standings[name]
        if standing.accuracy < threshold:
            reasons.append(
                f"{name} has an accuracy of {standing.accuracy:.4f}, below the threshold {threshold:g}"
            )
            continue
        if not has_champion or standing.comparison is None:
            return name, f"{name} has an accuracy of {standing.accuracy:.4f} and there is no champion"
        gain, (low, high) = standing.comparison.difference, standing.comparison.interval
        measured = f"{name} gains {gain:+.4f} on the champion (95 % interval {low:+.4f} to {high:+.4f})"
        if gain >= margin and low > 0:
            return name, measured
        wanted = "an interval above zero" if gain >= margin else f"the margin of {margin:g}"
        reasons.append(f"{measured}, short of {wanted}")
    return None, "; ".join(reasons)


def gate(standings: dict[str, Standing], threshold: float) -> dict[str, Any]:
    """Return the gate's verdict: passed when at least one candidate reaches ``threshold`` on the holdout."""
    best = max(standings, key=lambda name: standings[name].accuracy)
    value = standings[best].accuracy
    passed = value >= threshold
    relation = "reaches" if passed else "is below"
    return {
        "passed": int(passed),
        "bestAccuracy": value,
        "threshold": threshold,
        "reason": f"the best candidate, {best}, has an accuracy of {value:.4f}: it {relation} {threshold:g}",
    }


def answer(directory: Path, examples: Examples) -> Answers:
    """Load a model and let it answer the holdout.

    Raises
    ------
    ArtifactError
        The artefact is missing, damaged or does not fit.
    """
    card, model = artifact.load(directory)
    pixels = torch.from_numpy(examples.pixels(card.image_size, card.channels))
    best = predict(model, card.transforms().normalise, pixels).argmax(1).tolist()
    predicted = [card.labels[position] for position in best]
    right = np.array([guess == truth for guess, truth in zip(predicted, examples.labels, strict=True)], bool)
    return Answers(card, predicted, right, artifact.weights_digest(directory))


def _report(
    answers: Answers, examples: Examples, labels: list[str], newest: NDArray[np.bool_]
) -> dict[str, Any]:
    matrix = confusion(examples.labels, answers.predicted, labels)
    count = int(newest.sum())
    return {
        "architecture": answers.card.architecture,
        "generation": answers.card.generation,
        "weightsSha256": answers.digest,
        "accuracy": accuracy(matrix),
        "accuracyInterval": list(wilson(int(answers.right.sum()), len(examples))),
        "macroF1": macro_f1(matrix),
        "perClass": {label: asdict(score) for label, score in zip(labels, per_class(matrix), strict=True)},
        "confusionMatrix": model_quality.confusion_members(matrix, labels),
        "newestCorrections": {
            "examples": count,
            "accuracy": float(answers.right[newest].mean()) if count else None,
        },
    }


def _load_models(paths: Paths, examples: Examples) -> dict[str, Answers]:
    models: dict[str, Answers] = {}
    for name in (*CANDIDATES, "champion"):
        source = paths.processing_input(name)
        with tempfile.TemporaryDirectory() as scratch:
            directory = extract_model(source, Path(scratch))
            if directory is not None:
                models[name] = answer(directory, examples)
            elif name != "champion":
                raise ArtifactError(f"no model.tar.gz below {source}: did the training of `{name}` succeed?")
    return models


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main(paths: Paths) -> None:
    """Run the processing job."""
    settings = environment()
    threshold = settings.number("ACCURACY_THRESHOLD", None, 0.0, 1.0)
    margin = settings.number("IMPROVEMENT_MARGIN", 0.0, 0.0, 1.0)
    use_half_the_cores()
    info = read_dataset_info(paths.processing_input("dataset"))
    merged = read_merged_labels(paths.processing_input("dataset") / "ground-truth.jsonl")
    examples = shards.load(paths.processing_input("holdout"))
    models = _load_models(paths, examples)

    newest_ids = newest_corrections(merged, info.new_labels)
    newest = np.array(
        [
            source == GROUND_TRUTH and example_id in newest_ids
            for source, example_id in zip(examples.sources, examples.example_ids, strict=True)
        ],
        bool,
    )
    labels = sorted(set(examples.labels).union(*(answers.card.labels for answers in models.values())))
    reports = {name: _report(answers, examples, labels, newest) for name, answers in models.items()}
    champion = models.get("champion")
    standings = {}
    for name in CANDIDATES:
        comparison = Comparison(*paired_difference(champion.right, models[name].right)) if champion else None
        standings[name] = Standing(reports[name]["accuracy"], reports[name]["macroF1"], comparison)
    verdict = gate(standings, threshold)
    candidate, reason = recommend(standings, threshold, margin, champion is not None)

    output = paths.processing_output("evaluation")
    for name in CANDIDATES:
        matrix = confusion(examples.labels, models[name].predicted, labels)
        _write(output / name / "statistics.json", model_quality.statistics(matrix, labels))
    _write(output / "labels.json", models["new"].card.labels)
    _write(
        output / "evaluation.json",
        {
            "version": 1,
            "generation": info.generation,
            "datasetVersion": info.dataset_version,
            "holdout": {"examples": len(examples), "newestCorrections": int(newest.sum())},
            "models": {name: reports.get(name) for name in ("champion", *CANDIDATES)},
            "comparisons": {
                name: {
                    "accuracyDifference": standing.comparison.difference,
                    "interval": list(standing.comparison.interval),
                }
                for name, standing in standings.items()
                if standing.comparison
            },
            "gate": verdict,
            "recommendation": {"candidate": candidate, "reason": reason},
        },
    )
    event(log, "evaluated", gate=verdict, recommendation=candidate, reason=reason)
