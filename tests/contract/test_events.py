"""The payloads in events/ are what the code reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from truthloop.errors import InvalidTrigger
from truthloop.retraining.triggers import Trigger, parse_trigger

EVENTS = Path(__file__).resolve().parents[2] / "events"
STARTED = "2026-11-22T12:00:00.5Z"


def read(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def parse(given: Any) -> Trigger:
    return parse_trigger(given, execution_name="run-1", started_at=STARTED)


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        ("s3_constraint_violations", "violation", "monitoring/truthloop-endpoint/"),
        ("alarm_accuracy_breached", "alarm", "truthloop-accuracy: Threshold Crossed"),
        ("codebuild_succeeded", "code", "truthloop-training-image"),
        ("scheduled_sweep", "sweep", "scheduled"),
        ("ground_truth_accepted", "ground_truth", "160 records"),
        ("retrain_follow_up", "follow_up", "g00000008"),
    ],
)
def test_events_are_triggers(name: str, kind: str, detail: str) -> None:
    event = read(name)
    trigger = parse(event)
    assert (trigger.id, trigger.kind) == (event["id"], kind)
    assert trigger.detail.startswith(detail)
    assert trigger.at == event["time"].replace("Z", ".000000Z")
    assert not trigger.force
    assert Trigger.from_map(trigger.id, trigger.to_map()) == trigger


def test_starts_by_hand_are_triggers() -> None:
    plain, forced = parse(read("manual_retrain")), parse(read("manual_retrain_forced"))
    assert (plain.id, plain.kind, plain.at) == ("run-1", "manual", "2026-11-22T12:00:00.500000Z")
    assert (plain.force, forced.force, forced.detail) == (False, True, "the base set was relabelled")


@pytest.mark.parametrize(
    "name",
    [
        "alarm_accuracy_ok",
        "registry_approved",
        "registry_rejected",
        "registry_edited",
        "s3_ground_truth_uploaded",
        "scheduler_monitor",
        "sqs_ground_truth_batch",
    ],
)
def test_events_for_others_are_no_triggers(name: str) -> None:
    with pytest.raises(InvalidTrigger):
        parse(read(name))


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        "x",
        {"force": "yes", "reason": "x"},
        {"force": True, "reason": " "},
        {"force": True, "reason": 5},
        {"source": "aws.s3"},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": []},
        {"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": "x"}},
        {"source": [], "detail-type": {}, "detail": {}},
    ],
)
def test_anything_else_is_refused_by_name(given: Any) -> None:
    with pytest.raises(InvalidTrigger):
        parse(given)


def test_a_failed_build_is_no_reason() -> None:
    event = read("codebuild_succeeded")
    event["detail"]["build-status"] = "FAILED"
    with pytest.raises(InvalidTrigger, match="FAILED"):
        parse(event)


def test_an_event_without_a_readable_time_is_refused() -> None:
    with pytest.raises(InvalidTrigger, match="not an ISO 8601 time"):
        parse({**read("scheduled_sweep"), "time": "noon"})


@pytest.mark.parametrize("path", sorted(EVENTS.glob("*.json")), ids=lambda p: p.stem)
def test_payloads_are_plain(path: Path) -> None:
    assert "_source" not in json.loads(path.read_text())
