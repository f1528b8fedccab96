"""Instants as text. One format everywhere, so that instants sort and compare as strings."""

from __future__ import annotations

from datetime import UTC, datetime


def to_iso(moment: datetime) -> str:
    """Return `moment` as UTC with microseconds, such as ``2026-11-22T10:00:00.000000Z``."""
    # Not strftime: it writes the year 1 as "1" on Linux, which sorts after every other.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def from_iso(text: str) -> datetime:
    """Read an ISO 8601 instant; one without a zone is UTC.

    Raises
    ------
    ValueError
        When `text` is not an ISO 8601 instant.
    """
    moment = datetime.fromisoformat(text)
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text!r} is outside the years 1 to 9999 in UTC") from error


def hour_prefix(moment: datetime) -> str:
    """Return the ``yyyy/mm/dd/hh`` part of keys that are laid out by hour."""
    return moment.astimezone(UTC).strftime("%Y/%m/%d/%H")
