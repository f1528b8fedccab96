"""The accuracy alarm, and whether it speaks of the model in service.

An alarm's state outlives the model that it was measured on: missing data leaves it as it is, so after a good
deployment it stays in ALARM until the monitor has measured again. And its event comes on the transition only:
a breach that persists is found by looking.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from truthloop.times import to_iso

IN_ALARM = "ALARM"

_WRONG_SIDE: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "LessThanThreshold": ("below", operator.lt),
    "LessThanOrEqualToThreshold": ("at or below", operator.le),
    "GreaterThanThreshold": ("above", operator.gt),
    "GreaterThanOrEqualToThreshold": ("at or above", operator.ge),
}
"""CloudWatch's comparison operators: the values on an alarm's wrong side."""


@dataclass(frozen=True)
class Measurement:
    """One data point of the alarm's metric."""

    value: float
    at: datetime


@dataclass(frozen=True)
class AlarmReading:
    """What CloudWatch says of an alarm.

    Parameters
    ----------
    name : str
        The alarm's name.
    state : str
        ``OK``, ``ALARM`` or ``INSUFFICIENT_DATA``.
    comparison : str
        CloudWatch's comparison operator.
    threshold : float
        The alarm's threshold.
    since : datetime
        When the model in service was put into service.
    newest : Measurement or None
        The newest data point since then; read only while the alarm is in ALARM.
    """

    name: str
    state: str
    comparison: str
    threshold: float
    since: datetime
    newest: Measurement | None = None

    @property
    def breaching(self) -> bool:
        """Whether the alarm is in ALARM because of the model in service."""
        known = _WRONG_SIDE.get(self.comparison)
        if self.state != IN_ALARM or self.newest is None or known is None:
            return False
        return known[1](self.newest.value, self.threshold)

    def describe(self) -> str:
        """Say what was found, in words."""
        if self.state != IN_ALARM:
            return f"the alarm {self.name} is {self.state}"
        if self.newest is None:
            return (
                f"the alarm {self.name} is in ALARM, but nothing has been measured since the model in "
                f"service was deployed at {to_iso(self.since)}: it speaks of the model before"
            )
        measured = f"{self.newest.value:.4g}, measured at {to_iso(self.newest.at)},"
        if not self.breaching:
            return f"the alarm {self.name} is in ALARM, but {measured} is not on its wrong side"
        side = _WRONG_SIDE[self.comparison][0]
        return f"the alarm {self.name} is in ALARM: {measured} is {side} the threshold of {self.threshold:g}"
