"""Schedule expressions of EventBridge: ``at(...)``, ``rate(...)`` and the six-field ``cron(...)``.

A parser of our own: the fields' order, the ``?``, ``L``, ``W`` and ``#`` signs, Sunday as 1 and the year
are AWS's, and no crontab library reads them so.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_MONTHS = {
    "JAN": 1, "FEB": 2, "MAR": 3, "APR": 4, "MAY": 5, "JUN": 6,
    "JUL": 7, "AUG": 8, "SEP": 9, "OCT": 10, "NOV": 11, "DEC": 12,
}  # fmt: skip
_DAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_UNITS = {"minute": 60, "hour": 3600, "day": 86_400}
FIRST_YEAR, LAST_YEAR = 1970, 2199


class InvalidScheduleError(ValueError):
    """A schedule expression that AWS refuses."""


class Schedule(Protocol):
    """When something happens."""

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the first occurrence later than ``moment``; ``None`` when there is none.

        Parameters
        ----------
        moment
            An aware time.
        anchor
            The occurrence that a rate counts from.
        """
        ...


@dataclass(frozen=True)
class At:
    """Once."""

    when: datetime

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the time itself while it lies ahead."""
        return self.when if self.when > moment else None


@dataclass(frozen=True)
class Rate:
    """Every ``seconds`` from the anchor on."""

    seconds: int

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the next multiple of the rate after ``moment``; the anchor itself when it lies ahead."""
        if anchor > moment:
            return anchor
        elapsed = (moment - anchor).total_seconds()
        return anchor + timedelta(seconds=(elapsed // self.seconds + 1) * self.seconds)


@dataclass(frozen=True)
class Cron:
    """At the wall-clock times of a time zone that six fields describe."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: str
    months: frozenset[int]
    weekdays: str
    years: frozenset[int]
    zone: ZoneInfo

    def next_after(self, moment: datetime, anchor: datetime) -> datetime | None:
        """Return the next matching minute; one that a clock change skips does not occur."""
        local = moment.astimezone(self.zone)
        for day in self._days_from(local.date()):
            for hour in self.hours:
                for minute in self.minutes:
                    wall = datetime(day.year, day.month, day.day, hour, minute, tzinfo=self.zone)
                    instant = wall.astimezone(UTC)
                    exists = instant.astimezone(self.zone).replace(tzinfo=None) == wall.replace(tzinfo=None)
                    if instant > moment and exists:
                        return instant
        return None

    def _days_from(self, first: date) -> Iterator[date]:
        for year in sorted(year for year in self.years if year >= first.year):
            for month in sorted(self.months):
                if (year, month) < (first.year, first.month):
                    continue
                for number in sorted(self._days_of(year, month)):
                    day = date(year, month, number)
                    if day >= first:
                        yield day

    def _days_of(self, year: int, month: int) -> set[int]:
        last = calendar.monthrange(year, month)[1]
        found = _month_days(self.days, year, month, last) if self.weekdays == "?" else None
        return found if found is not None else _week_days(self.weekdays, year, month, last)


def parse(expression: str, timezone: str = "UTC", *, any_unit: bool = False) -> Schedule:
    """Read a schedule expression.

    Parameters
    ----------
    timezone
        Where ``at`` and ``cron`` read the clock.
    any_unit
        Whether ``rate(1 hours)`` is as good as ``rate(1 hour)``: to Scheduler it is, to rules it is not.

    Raises
    ------
    InvalidScheduleError
        With the reason.
    """
    match = re.fullmatch(r"(at|rate|cron)\((.*)\)", expression.strip())
    if not match:
        raise InvalidScheduleError(
            f"Invalid Schedule Expression {expression}. Use at(...), rate(...) or cron(...)."
        )
    kind, inner = match.groups()
    zone = _zone(timezone)
    if kind == "rate":
        return _parse_rate(expression, inner, any_unit=any_unit)
    if kind == "cron":
        return _parse_cron(expression, inner, zone)
    try:
        when = datetime.strptime(inner, "%Y-%m-%dT%H:%M:%S")
    except ValueError as error:
        raise InvalidScheduleError(
            f"Invalid Schedule Expression {expression}. Write at(yyyy-mm-ddThh:mm:ss)."
        ) from error
    return At(when.replace(tzinfo=zone).astimezone(UTC))


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidScheduleError(f"The provided time zone {timezone} is not valid.") from error


def _parse_rate(expression: str, inner: str, *, any_unit: bool) -> Rate:
    match = re.fullmatch(r"(\d+)\s+(minute|hour|day)(s?)", inner.strip())
    if not match or int(match[1]) < 1 or (not any_unit and (int(match[1]) == 1) == bool(match[3])):
        raise InvalidScheduleError(
            f"Invalid Schedule Expression {expression}. "
            "Write rate(1 minute) or rate(5 minutes), with minute, hour or day."
        )
    return Rate(int(match[1]) * _UNITS[match[2]])


def _parse_cron(expression: str, inner: str, zone: ZoneInfo) -> Cron:
    fields = inner.upper().split()
    if len(fields) != 6:
        raise InvalidScheduleError(
            f"Invalid Schedule Expression {expression}. A cron expression has six fields: "
            "minutes hours day-of-month month day-of-week year."
        )
    minutes, hours, days, months, weekdays, years = fields
    if (days == "?") == (weekdays == "?"):
        raise InvalidScheduleError(
            f"Invalid Schedule Expression {expression}. "
            "Exactly one of day-of-month and day-of-week must be '?'."
        )
    try:
        cron = Cron(
            tuple(sorted(_numbers(minutes, 0, 59, {}))),
            tuple(sorted(_numbers(hours, 0, 23, {}))),
            days,
            frozenset(_numbers(months, 1, 12, _MONTHS)),
            weekdays,
            frozenset(_numbers(years, FIRST_YEAR, LAST_YEAR, {})),
            zone,
        )
        # Reading the days of one month checks the fields whose meaning depends on the month.
        cron._days_of(2024, 1)
    except ValueError as error:
        raise InvalidScheduleError(f"Invalid Schedule Expression {expression}. {error}") from error
    return cron


def _numbers(field: str, low: int, high: int, names: dict[str, int]) -> set[int]:
    """Return the values of a field made of ``*``, numbers or names, ranges, steps and lists."""
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, 1, high, {}) if slash else 1
        if span == "*":
            first, last = low, high
        elif "-" in span:
            start, _, end = span.partition("-")
            first, last = _number(start, low, high, names), _number(end, low, high, names)
        else:
            first = _number(span, low, high, names)
            last = high if slash else first
        if first <= last:
            found.update(range(first, last + 1, step))
        else:
            # FRI-MON and NOV-FEB go round the end.
            found.update(range(first, high + 1, step), range(low, last + 1, step))
    return found


def _number(text: str, low: int, high: int, names: dict[str, int]) -> int:
    value = names.get(text)
    if value is None:
        if not text.isdecimal():
            raise InvalidScheduleError(f"{text!r} is no value between {low} and {high}.")
        value = int(text)
    if not low <= value <= high:
        raise InvalidScheduleError(f"{value} is not between {low} and {high}.")
    return value


def _month_days(field: str, year: int, month: int, last: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        if part == "L":
            found.add(last)
        elif part == "LW":
            found.add(_nearest_weekday(year, month, last, last))
        elif re.fullmatch(r"L-\d+", part):
            found.add(max(1, last - _number(part[2:], 0, 30, {})))
        elif re.fullmatch(r"\d+W", part):
            day = _number(part[:-1], 1, 31, {})
            if day <= last:
                found.add(_nearest_weekday(year, month, day, last))
        else:
            found |= {day for day in _numbers(part, 1, 31, {}) if day <= last}
    return found


def _nearest_weekday(year: int, month: int, day: int, last: int) -> int:
    weekday = date(year, month, day).weekday()
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < last else day - 2
    return day


def _week_days(field: str, year: int, month: int, last: int) -> set[int]:
    # The column of each day, with Sunday as 1.
    column = {day: date(year, month, day).isoweekday() % 7 + 1 for day in range(1, last + 1)}
    found: set[int] = set()
    for part in field.split(","):
        nth = re.fullmatch(r"(\w+)#(\d)", part)
        final = re.fullmatch(r"(\w+)L", part)
        if nth:
            wanted, number = _number(nth[1], 1, 7, _DAYS), _number(nth[2], 1, 5, {})
            matching = [day for day in column if column[day] == wanted]
            found.update(matching[number - 1 : number])
        elif part == "L":
            found |= {day for day in column if column[day] == 7}
        elif final:
            wanted = _number(final[1], 1, 7, _DAYS)
            found.add(max(day for day in column if column[day] == wanted))
        else:
            wanted_days = _numbers(part, 1, 7, _DAYS)
            found |= {day for day in column if column[day] in wanted_days}
    return found
