"""Instants as text. One format everywhere, so that instants sort and compare as strings."""

from __future__ import annotations

from datetime import UTC, datetime

SORTABLE = "%Y-%m-%dT%H:%M:%S.%fZ"


def to_iso(moment: datetime) -> str:
    """Return `moment` as UTC with microseconds, such as ``2026-11-22T10:00:00.000000Z``."""
    return moment.astimezone(UTC).strftime(SORTABLE)


def from_iso(text: str) -> datetime:
    """Read an ISO 8601 instant; one without a zone is UTC.

    Raises
    ------
    ValueError
        When `text` is not an ISO 8601 instant.
    """
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def hour_prefix(moment: datetime) -> str:
    """Return the ``yyyy/mm/dd/hh`` part of keys that are laid out by hour."""
    return moment.astimezone(UTC).strftime("%Y/%m/%d/%H")
