"""Schedule expressions: when they are due, and which are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from local.events.cron import InvalidScheduleError, parse

ANCHOR = datetime(2026, 1, 1, tzinfo=UTC)


def following(expression: str, after: str, count: int = 1, timezone: str = "UTC") -> list[str]:
    schedule = parse(expression, timezone)
    moment: datetime | None = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        assert moment is not None
        moment = schedule.next_after(moment, ANCHOR)
        found.append(moment.strftime("%Y-%m-%dT%H:%M") if moment else "never")
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("rate(1 minute)", "2026-01-01T00:00:30", ["2026-01-01T00:01", "2026-01-01T00:02"]),
        ("rate(12 hours)", "2026-01-01T11:59", ["2026-01-01T12:00", "2026-01-02T00:00"]),
        ("rate(7 days)", "2026-01-01", ["2026-01-08T00:00"]),
        ("at(2026-03-01T10:00:00)", "2026-02-01", ["2026-03-01T10:00", "never"]),
        ("cron(0 10 * * ? *)", "2026-11-22T10:00", ["2026-11-23T10:00"]),
        ("cron(15 12 * * ? *)", "2026-11-22T10:00", ["2026-11-22T12:15"]),
        (
            "cron(0/15 * * * ? *)",
            "2026-11-22T10:20",
            ["2026-11-22T10:30", "2026-11-22T10:45", "2026-11-22T11:00"],
        ),
        ("cron(5,35 14 * * ? *)", "2026-11-22T14:05", ["2026-11-22T14:35", "2026-11-23T14:05"]),
        ("cron(0 18 ? * MON-FRI *)", "2026-11-20T18:00", ["2026-11-23T18:00"]),
        ("cron(0 8 ? * 1 *)", "2026-11-23", ["2026-11-29T08:00"]),  # 1 is Sunday
        (
            "cron(0 8 ? * FRI-MON *)",
            "2026-11-20T09:00",
            ["2026-11-21T08:00", "2026-11-22T08:00", "2026-11-23T08:00"],
        ),
        ("cron(0 8 1 * ? *)", "2026-11-22", ["2026-12-01T08:00"]),
        ("cron(0 0 31 * ? *)", "2026-11-22", ["2026-12-31T00:00", "2027-01-31T00:00", "2027-03-31T00:00"]),
        ("cron(0 0 L * ? *)", "2028-02-01", ["2028-02-29T00:00", "2028-03-31T00:00"]),
        ("cron(0 0 L-3 * ? *)", "2026-02-01", ["2026-02-25T00:00"]),
        ("cron(0 0 LW * ? *)", "2026-05-01", ["2026-05-29T00:00"]),
        ("cron(0 0 15W * ? *)", "2026-11-01", ["2026-11-16T00:00"]),  # the 15th is a Sunday
        ("cron(0 0 1W * ? *)", "2026-07-31", ["2026-08-03T00:00"]),  # the 1st is a Saturday
        ("cron(0 0 ? * 6L *)", "2026-11-01", ["2026-11-27T00:00", "2026-12-25T00:00"]),
        ("cron(0 0 ? * L *)", "2026-11-22", ["2026-11-28T00:00"]),
        ("cron(0 0 ? * TUE#2 *)", "2026-11-01", ["2026-11-10T00:00", "2026-12-08T00:00"]),
        ("cron(0 0 ? * 2#5 *)", "2026-11-01", ["2026-11-30T00:00", "2027-03-29T00:00"]),
        ("cron(0 0 1 JAN,jul ? *)", "2026-02-01", ["2026-07-01T00:00", "2027-01-01T00:00"]),
        ("cron(0 0 29 2 ? *)", "2026-01-01", ["2028-02-29T00:00"]),
        ("cron(0 0 1 1 ? 2028/2)", "2026-01-01", ["2028-01-01T00:00", "2030-01-01T00:00"]),
        ("cron(0 0 1 1 ? 2020)", "2026-01-01", ["never"]),
    ],
)
def test_occurrences(expression: str, after: str, expected: list[str]) -> None:
    assert following(expression, after, len(expected)) == expected


def test_cron_follows_the_wall_clock_of_its_time_zone() -> None:
    # Berlin leaves summer time on 2026-10-25.
    found = following("cron(0 8 * * ? *)", "2026-10-24T00:00", 2, "Europe/Berlin")
    assert found == ["2026-10-24T06:00", "2026-10-25T07:00"]


def test_wall_clock_time_that_a_clock_change_skips_does_not_occur() -> None:
    # New York jumps from 02:00 to 03:00 on 2026-03-08.
    found = following("cron(30 2 * * ? *)", "2026-03-07T12:00", 1, "America/New_York")
    assert found == ["2026-03-09T06:30"]


def test_at_is_read_in_its_time_zone() -> None:
    assert following("at(2026-03-01T10:00:00)", "2026-02-01", 1, "Asia/Tokyo") == ["2026-03-01T01:00"]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("rate(0 minutes)", "rate(1 minute)"),
        ("rate(1 minutes)", "rate(1 minute)"),
        ("rate(5 minute)", "rate(1 minute)"),
        ("rate(5 weeks)", "rate(1 minute)"),
        ("every day", "Use at(...), rate(...) or cron(...)"),
        ("at(tomorrow)", "at(yyyy-mm-ddThh:mm:ss)"),
        ("cron(0 10 * * ?)", "six fields"),
        ("cron(0 10 * * * *)", "must be '?'"),
        ("cron(0 10 ? * ? *)", "must be '?'"),
        ("cron(60 10 * * ? *)", "60 is not between 0 and 59"),
        ("cron(0 10 * 13 ? *)", "13 is not between 1 and 12"),
        ("cron(0 10 ? * 0 *)", "0 is not between 1 and 7"),
        ("cron(0 10 ? * MOO *)", "'MOO' is no value"),
        ("cron(0 10 ? * 2#6 *)", "6 is not between 1 and 5"),
        ("cron(0 10 32W * ? *)", "32 is not between 1 and 31"),
        ("cron(0 10 * * ? 1969)", "1969 is not between"),
    ],
)
def test_invalid_expression_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(InvalidScheduleError, match=r"Invalid Schedule Expression") as refusal:
        parse(expression)
    assert reason in str(refusal.value)


def test_scheduler_takes_a_rate_in_any_number() -> None:
    assert parse("rate(1 days)", any_unit=True) == parse("rate(1 day)")
    with pytest.raises(InvalidScheduleError, match="Invalid Schedule Expression"):
        parse("rate(0 days)", any_unit=True)


def test_unknown_time_zone_is_refused() -> None:
    with pytest.raises(InvalidScheduleError, match="time zone Mars/Olympus is not valid"):
        parse("rate(1 minute)", "Mars/Olympus")
