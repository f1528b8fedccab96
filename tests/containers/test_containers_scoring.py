"""Metrics, the estimator, the gate and the recommendation: rules without any process."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation import model_quality
from evaluation.calibration import adaptive_calibration_error, calibration_error, reliability
from evaluation.pairing import (
    ClassChange,
    Gain,
    class_changes,
    gain,
    is_worse,
    may_be_chance,
    mcnemar,
    paired_bootstrap,
)
from evaluation.recommendation import Bounds, Standing, gate, recommend
from evaluation.scoring import (
    accuracy,
    confusion,
    confusion_of,
    macro_f1,
    per_class,
    weighted_scores,
    wilson,
)
from monitoring.estimator import Observations, estimate
from truthloop.retraining.decision import metadata_value

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


pairs_of_labels = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None)
@given(pairs_of_labels)
def test_scores_of_any_answers_agree_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import confusion_matrix, f1_score, recall_score

    truth, predicted = (np.array(column, np.int32) for column in zip(*pairs, strict=True))
    matrix = confusion_of(truth, predicted, 6)
    assert np.array_equal(matrix, confusion_matrix(truth, predicted, labels=range(6)))
    names = [str(label) for label in range(6)]
    assert np.array_equal(matrix, confusion([str(t) for t in truth], [str(p) for p in predicted], names))
    present = sorted(set(truth.tolist()))
    assert macro_f1(matrix) == pytest.approx(
        f1_score(truth, predicted, labels=present, average="macro", zero_division=0)
    )
    recalls = recall_score(truth, predicted, labels=range(6), average=None, zero_division=0)
    assert [score.recall for score in per_class(matrix)] == pytest.approx(recalls)
    members = model_quality.occurring_members(matrix, names)
    assert sum(count for row in members.values() for count in row.values()) == len(pairs)
    assert all(count for row in members.values() for count in row.values())
    assert all(
        count == matrix[int(true), int(said)] for true, row in members.items() for said, count in row.items()
    )


def test_of_very_many_mistakes_the_most_frequent_are_kept() -> None:
    matrix = np.array([[5, 1, 3], [2, 0, 0], [1, 4, 7]])
    members = model_quality.occurring_members(matrix, ["a", "b", "c"], most=2)
    assert members == {"a": {"a": 5, "c": 3}, "c": {"b": 4, "c": 7}}


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


def test_one_model_twice_gains_nothing_but_is_not_known_for_sure_to() -> None:
    right = np.ones(200, bool)
    same = gain(right, right)
    assert (same.difference, same.mcnemar.p_value) == (0.0, 1.0)
    assert -0.03 < same.interval[0] < 0 < same.interval[1] < 0.03


@pytest.mark.parametrize(
    ("gained", "lost", "sure"), [(4, 0, False), (6, 0, True), (7, 2, False), (20, 6, True)]
)
def test_few_examples_that_differ_are_no_sure_gain(gained: int, lost: int, sure: bool) -> None:
    champion, candidate = np.ones(300, bool), np.ones(300, bool)
    champion[:gained] = False
    candidate[gained : gained + lost] = False
    assert (gain(champion, candidate).interval[0] > 0) is sure


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    runs, examples, lost, gained = 120, 250, 0.02, 0.05
    held = false_alarms = 0
    for _ in range(runs):
        fate = rng.random(examples)
        champion, candidate = fate >= gained, (fate < gained) | (fate >= gained + lost)
        low, high = np.quantile(paired_bootstrap(champion, candidate), [0.025, 0.975])
        held += low <= gained - lost <= high
        fate = rng.random(examples)  # no true gain
        low = np.quantile(paired_bootstrap(fate >= 0.03, (fate < 0.03) | (fate >= 0.06)), 0.025)
        false_alarms += low > 0
    assert held / runs > 0.92
    assert false_alarms / runs < 0.05


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_mcnemar_is_the_exact_test(gained: int, lost: int) -> None:
    total, fewest = gained + lost, min(gained, lost)
    tail = sum(Fraction(math.comb(total, k), 2**total) for k in range(fewest + 1))
    found = mcnemar(gained, lost)
    assert found.p_value == pytest.approx(float(min(1, 2 * tail)), rel=1e-9)
    assert (found.candidate_only_right, found.champion_only_right) == (gained, lost)
    assert mcnemar(lost, gained).p_value == found.p_value


def test_mcnemar_of_many_examples_is_scipys() -> None:
    from scipy.stats import binomtest

    for gained, lost in ((51_000, 50_000), (5_100, 5_000), (900, 100)):
        expected = binomtest(gained, gained + lost).pvalue
        assert mcnemar(gained, lost).p_value == pytest.approx(expected, rel=1e-6)
    assert mcnemar(500_000, 0).p_value == 0.0


answers_with_confidence = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=80)


@given(answers_with_confidence)
@settings(max_examples=40, deadline=None)
def test_calibration_errors_are_those_of_their_definition(rows: list[tuple[float, bool]]) -> None:
    confidence, right = (np.array(column) for column in zip(*rows, strict=True))
    bins = 15
    expected = 0.0
    for index in range(bins):
        within = [
            (c, r) for c, r in rows if max(0, math.ceil(c * bins) - 1) == index
        ]  # (low, high], and 0 in the first
        if within:
            sure = sum(c for c, _ in within) / len(within)
            share = sum(r for _, r in within) / len(within)
            expected += len(within) / len(rows) * abs(share - sure)
    assert calibration_error(confidence, right.astype(bool), bins) == pytest.approx(expected, abs=1e-9)
    found = reliability(confidence, right.astype(bool), bins)
    assert sum(each.examples for each in found) == len(rows)

    ordered = sorted(rows, key=lambda row: row[0])
    size, larger = divmod(len(rows), bins)
    adaptive, start = 0.0, 0
    for index in range(bins):
        group = ordered[start : start + size + (index < larger)]
        start += len(group)
        adaptive += abs(sum(r for _, r in group) - sum(c for c, _ in group)) / len(rows)
    # Equal confidences at a group's edge may fall either way.
    if len(set(confidence.tolist())) == len(rows):
        assert adaptive_calibration_error(confidence, right.astype(bool), bins) == pytest.approx(
            adaptive, abs=1e-9
        )


def test_a_confidence_at_a_bins_edge_belongs_to_the_bin_below() -> None:
    confidence = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    found = reliability(confidence, np.ones(5, bool), 4)
    assert [(each.low, each.high, each.examples) for each in found] == [
        (0.0, 0.25, 2),
        (0.25, 0.5, 1),
        (0.5, 0.75, 1),
        (0.75, 1.0, 1),
    ]


def test_calibration_of_nothing_is_zero() -> None:
    nothing = np.array([], np.float32)
    assert calibration_error(nothing, nothing.astype(bool)) == 0.0
    assert adaptive_calibration_error(nothing, nothing.astype(bool)) == 0.0


def change(lost: int, support: int, label: str = "7") -> ClassChange:
    return ClassChange(label, support, support, mcnemar(max(0, -lost), max(0, lost)))


@pytest.mark.parametrize(
    ("lost", "support", "worse"),
    [
        (1, 3, False),  # one picture never decides
        (2, 3, True),
        (1, 1, False),
        (3, 30, False),  # exactly the bound
        (4, 30, True),
        (-5, 30, False),
        (100, 1000, False),
        (101, 1000, True),
    ],
)
def test_a_class_is_worse_when_more_than_the_bound_and_more_than_one_picture_is_lost(
    lost: int, support: int, worse: bool
) -> None:
    assert is_worse(change(lost, support), 0.1) is worse


def test_exactly_the_bound_is_not_more_than_it_whatever_floating_point_makes_of_it() -> None:
    assert 0.29 * 100 < 29
    assert not is_worse(change(29, 100), 0.29)
    assert is_worse(change(30, 100), 0.29)


def test_classes_are_compared_by_recall_where_the_champion_knows_them() -> None:
    from sklearn.metrics import recall_score

    rng = np.random.default_rng(5)
    truth = rng.integers(0, 4, 300).astype(np.int32)  # the fifth label has no example
    champion, candidate = (np.where(rng.random(300) < share, truth, 4) for share in (0.9, 0.7))
    labels = ["a", "b", "c", "d", "e"]
    found = class_changes(truth, champion == truth, candidate == truth, labels, ["a", "b", "c", "e", "gone"])
    assert {each.label for each in found} == {"a", "b", "c"}
    before, after = (
        recall_score(truth, said, labels=range(4), average=None) for said in (champion, candidate)
    )
    for each in found:
        row = labels.index(each.label)
        assert each.recall_difference == pytest.approx(after[row] - before[row])
        assert each.champion_right / each.support == pytest.approx(before[row])
    assert [each.recall_difference for each in found] == sorted(each.recall_difference for each in found)


def test_a_loss_among_many_classes_may_be_chance() -> None:
    assert may_be_chance([change(4, 20)], 200)  # p = 0.125 alone
    assert not may_be_chance([change(4, 20), change(20, 20)], 200)


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
        (standing(0.90, 0.05, 0.01), standing(0.50, 0.10, 0.02), 0.05, "old"),  # exactly the margin
        (standing(0.85, 0.05, 0.01), standing(0.84, 0.10, 0.02), 0.0, "old"),  # exactly the threshold
        (standing(0.90, 0.05, 0.0), standing(0.5), 0.0, None),  # an interval that begins at zero
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


def test_a_forgotten_class_bars_a_candidate_and_is_named() -> None:
    better = Gain(400, 0.1, (0.05, 0.15), mcnemar(50, 10))
    forgets = Standing(0.97, 0.9, better, (change(8, 40, "zebra " * 20), change(1, 3)))
    keeps = Standing(0.95, 0.9, better, (change(1, 3, "ox"), change(-2, 40)))
    found = recommend({"old": keeps, "new": forgets}, Bounds(0.85))
    assert found.candidate == "old"
    assert found.reason.endswith("; the class that loses most is ox, 1 of 3")
    failed = [rule for rule in found.rules if not rule.passed]
    assert [(rule.candidate, rule.rule) for rule in failed] == [("new", "CLASSES")]
    assert failed[0].detail == "loses more than 10 % of class zebra zebra zebra zebra… (8 of 40)"
    assert recommend({"old": keeps, "new": forgets}, Bounds(0.85, class_loss=0.2)).candidate == "new"


def test_a_reason_fits_into_the_registry_whatever_the_labels_are() -> None:
    worse = tuple(change(9, 10, f"{index}" + "<ü%(" * 30) for index in range(50))
    none = Standing(0.9, 0.9, Gain(400, 0.1, (0.05, 0.15), mcnemar(50, 10)), worse)
    found = recommend({"old": none, "new": none}, Bounds(0.85))
    assert found.candidate is None
    assert "and 47 more" in found.rules[3].detail
    assert len(found.reason) == 256
    assert found.reason.endswith("…")
    value = metadata_value(found.reason)
    assert 200 < len(value) <= 256


def test_without_a_class_of_the_champion_in_the_holdout_no_class_can_be_worse() -> None:
    better = Standing(0.9, 0.9, Gain(400, 0.1, (0.05, 0.15), mcnemar(50, 10)))
    found = recommend({"old": better, "new": better}, Bounds(0.85))
    assert found.candidate == "old"
    assert found.rules[3].detail == "no class of the champion is in the holdout"


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
