"""Reasons to look: the input of a retrain execution, read into a typed trigger."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from truthloop.errors import InvalidTrigger
from truthloop.times import from_iso, to_iso

MANUAL = "manual"
GROUND_TRUTH = "ground_truth"
VIOLATION = "violation"
ALARM = "alarm"
SWEEP = "sweep"
CODE = "code"
FOLLOW_UP = "follow_up"

BREACHES = frozenset({VIOLATION, ALARM})
"""Kinds that say that the model in service has become worse."""

_MAXIMUM_ID = 128
_MAXIMUM_DETAIL = 512
"""Characters of a trigger's detail: the record holds many triggers and an item is at most 400 KB."""


@dataclass(frozen=True)
class Trigger:
    """One reason to look.

    Parameters
    ----------
    id : str
        The event's id, or the execution's name for a start by hand; the same id is the same trigger.
    kind : str
        One of this module's kinds.
    at : str
        When it happened, as sortable ISO 8601.
    detail : str
        What it is about, in a few words.
    force : bool
        A person has decided: the policy is not asked.
    during : str
        The generation that it came during, and waited for; empty for one that did not wait.
    """

    id: str
    kind: str
    at: str
    detail: str = ""
    force: bool = False
    during: str = ""

    def to_map(self) -> dict[str, Any]:
        """Return what the generation record holds under this trigger's id."""
        waited = {"during": self.during} if self.during else {}
        return {"kind": self.kind, "at": self.at, "detail": self.detail, "force": self.force, **waited}

    @classmethod
    def from_map(cls, identifier: str, value: Mapping[str, Any]) -> Trigger:
        """Read what `to_map` wrote."""
        return cls(
            id=identifier,
            kind=str(value["kind"]),
            at=str(value["at"]),
            detail=str(value.get("detail", "")),
            force=bool(value.get("force", False)),
            during=str(value.get("during", "")),
        )


def parse_trigger(given: object, *, execution_name: str, started_at: str) -> Trigger:
    """Read the raw input of a retrain execution.

    An event is recognised by its source and detail-type. An object without a source is a start by hand and
    may hold only ``force`` and ``reason``; a forced start must say why, since it sets the policy aside.

    Parameters
    ----------
    given : object
        The execution's input.
    execution_name : str
        The id of a start by hand.
    started_at : str
        The time of a start by hand, ISO 8601.

    Raises
    ------
    InvalidTrigger
        When the input is neither.
    """
    if not isinstance(given, Mapping):
        raise InvalidTrigger(
            f"the input is a {type(given).__name__}; it must be an event, {{}} or "
            '{"force": true, "reason": "…"}'
        )
    if "source" in given or "detail-type" in given:
        return _from_event(given, execution_name, started_at)
    return _by_hand(given, execution_name, started_at)


def _by_hand(given: Mapping[str, Any], execution_name: str, started_at: str) -> Trigger:
    unknown = sorted(set(given) - {"force", "reason"})
    if unknown:
        raise InvalidTrigger(f"a start by hand may hold force and reason; it does not know {unknown}")
    force, reason = given.get("force", False), given.get("reason", "")
    if not isinstance(force, bool) or not isinstance(reason, str):
        raise InvalidTrigger("force must be true or false, and reason must be text")
    if force and not reason.strip():
        raise InvalidTrigger(
            'a forced start skips the policy, so it must say why: {"force": true, "reason": "…"}'
        )
    return Trigger(execution_name, MANUAL, _instant(started_at), reason.strip()[:_MAXIMUM_DETAIL], force)


def _from_event(event: Mapping[str, Any], execution_name: str, started_at: str) -> Trigger:
    source, detail_type = event.get("source"), event.get("detail-type")
    detail = event.get("detail")
    if not isinstance(detail, Mapping):
        raise InvalidTrigger(f"the event {detail_type!r} of {source!r} has no detail object")
    known = _EVENTS.get((str(source), str(detail_type)))
    if known is None:
        raise InvalidTrigger(f"the event {detail_type!r} of {source!r} does not start a retrain")
    kind, describe = known
    return Trigger(
        id=str(event.get("id") or execution_name)[:_MAXIMUM_ID],
        kind=kind,
        at=_instant(str(event.get("time") or started_at)),
        detail=describe(detail)[:_MAXIMUM_DETAIL],
    )


def _instant(text: str) -> str:
    try:
        return to_iso(from_iso(text))
    except ValueError as error:
        raise InvalidTrigger(f"{text!r} is not an ISO 8601 time") from error


def _violation(detail: Mapping[str, Any]) -> str:
    key = _path(detail, "object", "key")
    if not key.endswith("constraint_violations.json"):
        raise InvalidTrigger(f"the new object {key!r} is not a constraint_violations.json")
    return key


def _alarm(detail: Mapping[str, Any]) -> str:
    state = _path(detail, "state", "value")
    if state != "ALARM":
        raise InvalidTrigger(f"the alarm went to {state!r}; only ALARM starts a retrain")
    return f"{_path(detail, 'alarmName')}: {_path(detail, 'state', 'reason')}"


def _code(detail: Mapping[str, Any]) -> str:
    status = _path(detail, "build-status")
    if status != "SUCCEEDED":
        raise InvalidTrigger(f"the build ended {status!r}; only SUCCEEDED starts a retrain")
    return _path(detail, "project-name")


def _path(detail: Mapping[str, Any], *keys: str) -> str:
    value: Any = detail
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return "" if value is None else str(value)


_EVENTS: dict[tuple[str, str], tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    ("truthloop.ingest", "Ground Truth Accepted"): (
        GROUND_TRUTH,
        lambda d: f"{_path(d, 'accepted')} records",
    ),
    ("truthloop.retrain", "Retrain Follow-Up"): (FOLLOW_UP, lambda d: _path(d, "generation")),
    ("aws.s3", "Object Created"): (VIOLATION, _violation),
    ("aws.cloudwatch", "CloudWatch Alarm State Change"): (ALARM, _alarm),
    ("aws.codebuild", "CodeBuild Build State Change"): (CODE, _code),
    ("truthloop.sweep", "Retrain Sweep"): (SWEEP, lambda _: "scheduled"),
    ("aws.events", "Scheduled Event"): (SWEEP, lambda _: "scheduled"),
    ("aws.scheduler", "Scheduled Event"): (SWEEP, lambda _: "scheduled"),
}
