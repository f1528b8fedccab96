"""When an alarm changes its state: CloudWatch's evaluation as pure functions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

EXTRA_PERIODS = 2
"""CloudWatch looks this much further back than ``EvaluationPeriods`` for real data before it fills gaps."""

OPERATORS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
TREATMENTS = ("missing", "ignore", "breaching", "notBreaching")


@dataclass(frozen=True)
class Settings:
    """What decides the state of an alarm."""

    comparison: str
    threshold: float
    periods: int
    datapoints: int
    treat_missing: str = "missing"

    def breaches(self, value: float) -> bool:
        """Return whether one data point is beyond the threshold."""
        return OPERATORS[self.comparison][0](value, self.threshold)


def decide(settings: Settings, points: list[float | None], state: str) -> str:
    """Return the state that follows from ``points``.

    Parameters
    ----------
    settings
        The alarm.
    points
        One per period of the evaluation range, oldest first; ``None`` where there is no data.
    state
        The current state, which some rules keep.

    Notes
    -----
    As the tables in "How alarm state is evaluated when data is missing" of the CloudWatch user guide:
    with enough real data in the range the newest of it decides alone; otherwise the rest is filled as
    ``TreatMissingData`` says.
    """
    real = [(index, value) for index, value in enumerate(points) if value is not None]
    newest = real[-settings.periods :]
    breaching = sum(settings.breaches(value) for _, value in newest)
    filled = settings.periods - len(newest)
    if settings.treat_missing == "breaching":
        breaching += filled
    if breaching >= settings.datapoints:
        return "ALARM"
    if filled == 0 or settings.treat_missing in ("breaching", "notBreaching"):
        return "OK"
    if not newest:
        return state if settings.treat_missing == "ignore" else "INSUFFICIENT_DATA"
    if breaching < len(newest):
        return "OK"
    # All real data breaches, but there is too little of it. Data old enough to fill the window alarms.
    if settings.treat_missing == "missing" and len(points) - newest[0][0] >= settings.datapoints:
        return "ALARM"
    return state
