"""Metrics, the estimator, the gate and the recommendation: rules without any process."""

from __future__ import annotations

import numpy as np
import pytest

from dataset.records import Label, newest_corrections
from evaluation import model_quality
from evaluation.pairing import Gain, gain, mcnemar
from evaluation.recommendation import Bounds, Standing, gate, recommend
from evaluation.scoring import accuracy, confusion, macro_f1, per_class, weighted_scores, wilson
from monitoring.estimator import Observations, estimate

TRUTH = ["a", "a", "a", "b", "b", "c"]
PREDICTED = ["a", "a", "b", "b", "c", "c"]
MATRIX = confusion(TRUTH, PREDICTED, ["a", "b", "c", "never seen"])


def test_scores_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, fbeta_score, precision_recall_fscore_support

    assert accuracy(MATRIX) == accuracy_score(TRUTH, PREDICTED)
    assert macro_f1(MATRIX) == pytest.approx(f1_score(TRUTH, PREDICTED, average="macro"))
    expected = precision_recall_fscore_support(TRUTH, PREDICTED)
    for index, score in enumerate(per_class(MATRIX)[:3]):
        assert (score.precision, score.recall, score.f1, score.support) == pytest.approx(
            [column[index] for column in expected]
        )
    assert weighted_scores(MATRIX)["weighted_f2"] == pytest.approx(
        fbeta_score(TRUTH, PREDICTED, beta=2, average="weighted")
    )


def test_scores_of_nothing_are_zero_not_an_error() -> None:
    empty = confusion([], [], ["a"])
    assert (accuracy(empty), macro_f1(empty)) == (0.0, 0.0)
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I, method 3: 81/263, 15/148, 0/20, 1/29
    for right, total, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


def test_the_paired_interval_is_that_of_resampled_examples() -> None:
    rng = np.random.default_rng(1)
    champion, candidate = rng.random(400) < 0.8, rng.random(400) < 0.9
    found = gain(champion, candidate)
    gains = candidate.astype(int) - champion.astype(int)
    resampled = [gains[rng.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert found.difference == gains.mean()
    assert found.interval == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.006)


def standing(value: float, difference: float | None = None, low: float = 0.0, f1: float = 0.5) -> Standing:
    if difference is None:
        return Standing(value, f1)
    return Standing(value, f1, Gain(400, difference, (low, difference + 0.05), mcnemar(0, 0)))


@pytest.mark.parametrize(
    ("old", "new", "margin", "expected"),
    [
        (standing(0.90), standing(0.95), 0.0, "new"),
        (standing(0.95), standing(0.95), 0.0, "old"),
        (standing(0.95), standing(0.95, f1=0.6), 0.0, "new"),
        (standing(0.5), standing(0.6), 0.0, None),
        (standing(0.90, 0.05, 0.01), standing(0.95, 0.10, -0.01), 0.0, "old"),
        (standing(0.90, 0.05, 0.01), standing(0.95, 0.10, 0.02), 0.0, "new"),
        (standing(0.90, 0.05, 0.01), standing(0.95, 0.10, 0.02), 0.2, None),
        (standing(0.90, 0.0, 0.0), standing(0.90, 0.0, 0.0), 0.0, None),
        (standing(0.80, 0.30, 0.2), standing(0.79, 0.30, 0.2), 0.0, None),
    ],
)
def test_the_recommendation_follows_its_rule(
    old: Standing, new: Standing, margin: float, expected: str | None
) -> None:
    found = recommend({"old": old, "new": new}, Bounds(0.85, margin))
    assert found.candidate == expected
    assert 0 < len(found.reason) <= 256
    passed = {
        name: all(rule.passed for rule in found.rules if rule.candidate == name) for name in ("old", "new")
    }
    assert passed[expected] if expected else not any(passed.values())


def test_the_gate_looks_at_the_best_candidate() -> None:
    passed = gate({"old": standing(0.85), "new": standing(0.5)}, 0.85)
    assert (passed["passed"], passed["bestAccuracy"]) == (1, 0.85)
    failed = gate({"old": standing(0.2), "new": standing(0.5)}, 0.85)
    assert (failed["passed"], failed["reason"]) == (
        0,
        "the best candidate, new, has an accuracy of 0.5000: it is below 0.85",
    )


def test_enough_audit_labels_are_a_sample_with_an_interval() -> None:
    result = estimate(
        Observations(captured=500, labelled=150, labelled_right=70, audited=100, audited_right=70), 100
    )
    assert (result.estimator, result.accuracy, result.labels) == ("audit_sample", 0.7, 100)
    assert result.interval == pytest.approx((0.6042, 0.7811), abs=1e-4)
    # Below the threshold only when the interval's upper end is.
    assert result.violates(0.79)
    assert not result.violates(0.78)


def test_corrections_give_an_upper_bound() -> None:
    result = estimate(
        Observations(captured=200, labelled=60, labelled_right=10, audited=20, audited_right=20), 60
    )
    assert (result.estimator, result.accuracy, result.interval) == ("corrections_upper_bound", 0.75, None)
    assert result.violates(0.8)
    assert not result.violates(0.75)


def test_too_few_labels_are_no_evidence_and_never_a_violation() -> None:
    for seen in (Observations(100, 59, 0, 0, 0), Observations(0, 0, 0, 0, 0)):
        result = estimate(seen, 60)
        assert (result.estimator, result.accuracy) == ("insufficient_evidence", None)
        assert not result.violates(1.0)
    assert estimate(Observations(0, 0, 0, 0, 0), 0).accuracy is None


def test_statistics_have_the_members_that_model_monitor_writes() -> None:
    labels = ["a", "b", "c", "never seen"]
    found = model_quality.statistics(MATRIX, labels)
    assert (found["version"], found["dataset"]) == (0.0, {"item_count": 6})
    metrics = found["multiclass_classification_metrics"]
    names = [
        "accuracy",
        "weighted_recall",
        "weighted_precision",
        "weighted_f0_5",
        "weighted_f1",
        "weighted_f2",
    ]
    assert list(metrics) == [
        "confusion_matrix",
        *names,
        *(f"{name}_best_constant_classifier" for name in names),
    ]
    assert metrics["confusion_matrix"]["a"] == {"a": 2, "b": 1, "c": 0, "never seen": 0}
    assert metrics["accuracy"]["value"] == pytest.approx(4 / 6)
    assert metrics["accuracy"]["standard_deviation"] == pytest.approx((4 / 6 * 2 / 6 / 6) ** 0.5, rel=0.2)
    assert metrics["accuracy_best_constant_classifier"]["value"] == 0.5
    empty = model_quality.statistics(confusion([], [], []), [])
    assert empty == {"version": 0.0, "dataset": {"item_count": 0}, "multiclass_classification_metrics": {}}


def test_the_newest_corrections_are_as_many_as_are_new() -> None:
    labels = {
        key: Label(key, "1", time, "correction")
        for key, time in (
            ("old", "2026-11-22T10:00:00Z"),
            ("newest", "2026-11-22T10:00:00-01:00"),
            ("new", "2026-11-22T10:30:00"),
        )
    }
    assert newest_corrections(labels, 2) == {"newest", "new"}
    assert newest_corrections(labels, 0) == frozenset()
    assert newest_corrections(labels, 9) == set(labels)
