"""Compare the candidates and the model in service on the same holdout, and say which to take.

Reads the processing inputs ``old``, ``new`` (a ``model.tar.gz`` each), ``champion`` (one or none),
``holdout`` and ``dataset``; writes to the output ``evaluation``: ``evaluation.json``, ``labels.json`` and,
per candidate, ``{old,new}/statistics.json`` (the registry's format), ``report.html`` and its plots as PNG.
Environment: ``ACCURACY_THRESHOLD``, ``IMPROVEMENT_MARGIN`` (default 0), ``MAXIMUM_CLASS_LOSS`` (default 0.1).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.contract import Paths, environment
from common.logs import event
from dataset.labels import read_labels
from dataset.records import read_dataset_info
from evaluation import model_quality, report
from evaluation.answers import (
    CANDIDATES,
    CHAMPION,
    MODELS,
    Answers,
    Contestant,
    answer,
    latencies,
    load_models,
)
from evaluation.calibration import BINS, adaptive_calibration_error, calibration_error, reliability
from evaluation.holdout import Holdout
from evaluation.pairing import ClassChange, Gain, McNemar, class_changes, gain
from evaluation.parts import Parts, parts_of
from evaluation.recommendation import Bounds, Standing, gate, recommend
from evaluation.scoring import Codes, Counts, accuracy, confusion_of, macro_f1, per_class, wilson
from models.device import use_half_the_cores

log = logging.getLogger(__name__)

VERSION = 2
SPACED_LABELS = 100


@dataclass(frozen=True)
class Exam:
    """What every model is asked; ``truth`` are positions in ``labels``: all that examples or models have."""

    labels: list[str]
    truth: Codes
    parts: Parts


def names_champion(directory: Path) -> bool:
    """Say whether the snapshot's ``dataset.json``, which has been read before, names a champion."""
    return json.loads((directory / "dataset.json").read_text("utf-8")).get("champion") is not None


def _scores(matrix: Counts, labels: Sequence[str]) -> dict[str, Any]:
    """Return accuracy with its interval, macro F1, and each class that occurs."""
    total, right = int(matrix.sum()), int(np.trace(matrix))
    return {
        "accuracy": accuracy(matrix) if total else None,
        "accuracyInterval": list(wilson(right, total)) if total else None,
        "macroF1": macro_f1(matrix) if total else None,
        "perClass": {label: asdict(score) for label, score in zip(labels, per_class(matrix), strict=True)},
    }


def _model(contestant: Contestant, said: Answers, exam: Exam) -> dict[str, Any]:
    """Return a model's member of ``models``, without its latency."""
    truth, labels, newest = exam.truth, exam.labels, exam.parts.newest
    matrix = confusion_of(truth, said.predicted, len(labels))
    of_newest = _scores(confusion_of(truth[newest], said.predicted[newest], len(labels)), labels)
    of_newest["perClass"] = {
        label: score for label, score in of_newest["perClass"].items() if score["support"]
    }
    return {
        "architecture": contestant.card.architecture,
        "generation": contestant.card.generation,
        "weightsSha256": contestant.weights_sha256,
        "parameters": contestant.parameters,
        **_scores(matrix, labels),
        "confusionMatrix": model_quality.occurring_members(matrix, labels),
        "calibrationError": calibration_error(said.confidence, said.right),
        "calibration": {
            "bins": BINS,
            "equalWidth": calibration_error(said.confidence, said.right),
            "equalCount": adaptive_calibration_error(said.confidence, said.right),
            "reliability": [asdict(each) for each in reliability(said.confidence, said.right)],
        },
        "newestCorrections": {"examples": int(newest.sum()), **of_newest},
    }


def _gain(champion: Answers, candidate: Answers, among: NDArray[np.bool_]) -> Gain | None:
    return gain(champion.right[among], candidate.right[among]) if among.any() else None


def _gain_members(found: Gain | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "examples": found.examples,
        "accuracyDifference": found.difference,
        "interval": list(found.interval),
        "mcnemar": _mcnemar_members(found.mcnemar),
    }


def _mcnemar_members(test: McNemar) -> dict[str, Any]:
    return {
        "candidateOnlyRight": test.candidate_only_right,
        "championOnlyRight": test.champion_only_right,
        "pValue": test.p_value,
    }


def _class_members(change: ClassChange) -> dict[str, Any]:
    return {
        "label": change.label,
        "recallDifference": change.recall_difference,
        "lost": change.lost,
        "support": change.support,
        "mcnemar": _mcnemar_members(change.mcnemar),
    }


def _comparison(standing: Standing, champion: Answers, candidate: Answers, parts: Parts) -> dict[str, Any]:
    """Return a candidate's member of ``comparisons``."""
    members = _gain_members(standing.gain) or {}
    return {
        **members,
        "worstClass": _class_members(standing.classes[0]) if standing.classes else None,
        "classes": [_class_members(change) for change in standing.classes],
        "newestCorrections": _gain_members(_gain(champion, candidate, parts.newest)),
        "notSelected": _gain_members(_gain(champion, candidate, ~parts.selected)),
    }


def evaluate(
    contestants: Mapping[str, Contestant],
    exam: Exam,
    said: Mapping[str, Answers],
    taken: Mapping[str, Any],
    bounds: Bounds,
) -> tuple[dict[str, Any], dict[str, Counts]]:
    """Return ``evaluation.json``, but for which run it is about, and each model's confusion matrix.

    Parameters
    ----------
    contestants
        ``old``, ``new`` and, where there is one, ``champion``.
    exam
        What they were asked.
    said, taken
        By name: what they answered, and the member ``latency``.
    bounds
        What must be reached.
    """
    matrices = {
        name: confusion_of(exam.truth, each.predicted, len(exam.labels)) for name, each in said.items()
    }
    models = {
        name: {**_model(contestants[name], each, exam), "latency": taken[name]} for name, each in said.items()
    }
    standings = {name: Standing(accuracy(matrices[name]), macro_f1(matrices[name])) for name in CANDIDATES}
    champion = contestants.get(CHAMPION)
    if champion:
        for name, standing in standings.items():
            both = said[CHAMPION].right, said[name].right
            changes = class_changes(exam.truth, *both, exam.labels, champion.card.labels)
            standings[name] = replace(standing, gain=gain(*both), classes=tuple(changes))
    verdict = recommend(standings, bounds)
    parts = exam.parts
    evaluation = {
        "holdout": {
            "examples": len(exam.truth),
            "base": int((~parts.ground_truth).sum()),
            "groundTruth": int(parts.ground_truth.sum()),
            "corrections": int(parts.selected.sum()),
            "newestCorrections": int(parts.newest.sum()),
            "labels": len(np.unique(exam.truth)),
        },
        "bounds": {
            "accuracyThreshold": bounds.threshold,
            "improvementMargin": bounds.margin,
            "maximumClassLoss": bounds.class_loss,
        },
        "models": {name: models.get(name) for name in MODELS},
        "comparisons": {
            name: _comparison(standing, said[CHAMPION], said[name], parts)
            for name, standing in standings.items()
            if champion
        },
        "gate": gate(standings, bounds.threshold),
        "recommendation": {
            "candidate": verdict.candidate,
            "reason": verdict.reason,
            "rules": [rule.to_json() for rule in verdict.rules],
        },
    }
    return evaluation, matrices


def _write(path: Path, content: Any, labels: int) -> None:
    """Write JSON, without blanks where many labels would make a file of megabytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    spaced: dict[str, Any] = {"indent": 2} if labels <= SPACED_LABELS else {"separators": (",", ":")}
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False, **spaced) + "\n", "utf-8")


def main(paths: Paths) -> None:
    """Run the processing job."""
    settings = environment()
    bounds = Bounds(
        settings.number("ACCURACY_THRESHOLD", None, 0.0, 1.0),
        settings.number("IMPROVEMENT_MARGIN", 0.0, 0.0, 1.0),
        settings.number("MAXIMUM_CLASS_LOSS", 0.1, 0.0, 1.0),
    )
    use_half_the_cores()
    dataset = paths.processing_input("dataset")
    info = read_dataset_info(dataset)
    holdout = Holdout.open(paths.processing_input("holdout"))
    contestants = load_models(paths, names_champion(dataset))
    parts = parts_of(holdout, read_labels(dataset / "ground-truth.jsonl"), info.new_labels)
    known = {label for each in contestants.values() for label in each.card.labels}
    labels = sorted(known.union(holdout.labels))
    place = {label: position for position, label in enumerate(labels)}
    exam = Exam(labels, np.array([place[label] for label in holdout.labels], np.int32), parts)
    said = answer(contestants, holdout, exam.truth, labels)
    found, matrices = evaluate(contestants, exam, said, latencies(contestants, holdout), bounds)
    evaluation = {
        "version": VERSION,
        "generation": info.generation,
        "datasetVersion": info.dataset_version,
        **found,
    }

    output = paths.processing_output("evaluation")
    _write(output / "evaluation.json", evaluation, len(labels))
    _write(output / "labels.json", contestants["new"].card.labels, len(labels))
    for name in CANDIDATES:
        _write(
            output / name / "statistics.json", model_quality.statistics(matrices[name], labels), len(labels)
        )
        report.write(output / name, name, evaluation)
    event(
        log,
        "evaluated",
        gate=evaluation["gate"],
        recommendation=evaluation["recommendation"]["candidate"],
        reason=evaluation["recommendation"]["reason"],
    )
