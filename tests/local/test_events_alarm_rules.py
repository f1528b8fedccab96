"""The alarm's decision, metric math and statistics: the tables of the CloudWatch user guide and more."""

from __future__ import annotations

import pytest

from local.events.alarm_rules import Settings, decide
from local.events.metric_math import InvalidExpressionError, compile_expression
from local.events.metrics import MetricStore, Sample, UnsupportedStatisticError, aggregate, check_statistic

TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")
STATE = "kept"


def points(drawn: str) -> list[float | None]:
    """Read ``0`` as fine, ``X`` as breaching and ``-`` as missing."""
    return [{"0": 0.0, "X": 9.0, "-": None}[sign] for sign in drawn]


@pytest.mark.parametrize(
    ("drawn", "needed", "expected"),
    [
        # three of three, and a range of five
        ("0-X-X", 3, ("OK", "OK", "OK", "OK")),
        ("0----", 3, ("OK", "OK", "OK", "OK")),
        ("-----", 3, ("INSUFFICIENT_DATA", STATE, "ALARM", "OK")),
        ("0XX-X", 3, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("--X--", 3, ("ALARM", STATE, "ALARM", "OK")),
        ("----X", 3, (STATE, STATE, "ALARM", "OK")),
        # two of three
        ("0-X-X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("00X0X", 2, ("ALARM", "ALARM", "ALARM", "ALARM")),
        ("0-X--", 2, ("OK", "OK", "ALARM", "OK")),
        ("----0", 2, ("OK", "OK", "ALARM", "OK")),
        ("---X-", 2, ("ALARM", STATE, "ALARM", "OK")),
    ],
)
def test_tables_of_the_user_guide(drawn: str, needed: int, expected: tuple[str, ...]) -> None:
    for treatment, state in zip(TREATMENTS, expected, strict=True):
        settings = Settings("GreaterThanThreshold", 1.0, 3, needed, treatment)
        assert decide(settings, points(drawn), STATE) == state, treatment


@pytest.mark.parametrize(
    ("comparison", "value", "breaching"),
    [
        ("GreaterThanThreshold", 1.0, False),
        ("GreaterThanThreshold", 1.1, True),
        ("GreaterThanOrEqualToThreshold", 1.0, True),
        ("LessThanThreshold", 1.0, False),
        ("LessThanThreshold", 0.9, True),
        ("LessThanOrEqualToThreshold", 1.0, True),
    ],
)
def test_comparison_operators(comparison: str, value: float, breaching: bool) -> None:
    state = decide(Settings(comparison, 1.0, 1, 1), [value], "OK")
    assert state == ("ALARM" if breaching else "OK")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m1/m2", 2.0),
        ("100*(m1-m2)/m1", 50.0),
        ("m2^3", 8.0),
        ("-m1+1", -3.0),
        ("IF(m1>m2, 1, 0)", 1.0),
        ("IF(m1>m2 AND m2>5, 1, 0)", 0.0),
        ("IF(m1<m2 || m2==2, 7, 0)", 7.0),
        ("FILL(gone, 5)", 5.0),
        ("m1+gone", None),
        ("m1/(m2-2)", None),
        ("ABS(m2-m1)", 2.0),
        ("SUM([m1,m2,gone])", 6.0),
        ("MAX([m1,m2])", 4.0),
        ("AVG([m1,m2])", 3.0),
        ("MIN([gone])", None),
        ("IF(gone>1, 1, 0)", None),
    ],
)
def test_metric_math(text: str, expected: float | None) -> None:
    assert compile_expression(text).value({"m1": 4.0, "m2": 2.0, "gone": None}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m1 +",
        "SEARCH('x', 'Sum')",
        "ANOMALY_DETECTION_BAND(m1)",
        "m1[0]",
        "'text'",
        "SUM(m1)",
        "__import__('os')",
    ],
)
def test_metric_math_beyond_reach_is_refused(text: str) -> None:
    with pytest.raises(InvalidExpressionError, match="Error in expression"):
        compile_expression(text)


def single(value: float, time: float = 0.0, unit: str = "None") -> Sample:
    return Sample(time, value, value, value, 1.0, unit)


@pytest.mark.parametrize(
    ("statistic", "expected"),
    [
        ("SampleCount", 4.0),
        ("Sum", 10.0),
        ("Average", 2.5),
        ("Minimum", 1.0),
        ("Maximum", 4.0),
        ("p50", 2.0),
        ("p99", 4.0),
    ],
)
def test_statistics(statistic: str, expected: float) -> None:
    assert aggregate([single(value) for value in (3.0, 1.0, 4.0, 2.0)], statistic) == expected


def test_statistic_sets_have_no_percentiles() -> None:
    values = Sample(0.0, 1.0, 5.0, 9.0, 3.0, "None")
    assert aggregate([values], "Average") == 3.0
    assert aggregate([values], "p90") is None
    assert aggregate([], "Sum") is None


def test_unknown_statistic_is_refused() -> None:
    with pytest.raises(UnsupportedStatisticError, match="tm90"):
        check_statistic("tm90")


def test_late_samples_land_in_their_period_and_units_can_be_chosen() -> None:
    store, key = MetricStore(), ("N", "m", ())
    store.add([(key, single(1.0, 100.0)), (key, single(2.0, 30.0, "Count"))])
    assert store.add([(key, single(3.0, 70.0))]) == {key}
    assert [sample.maximum for sample in store.bucket(key, 60.0, 60.0, None)] == [3.0, 1.0]
    assert [sample.maximum for sample in store.bucket(key, 0.0, 60.0, "Count")] == [2.0]
    assert store.bucket(key, 0.0, 60.0, "None") == []
