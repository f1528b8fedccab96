"""The generation record's transitions."""

from __future__ import annotations

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from truthloop.errors import ClaimLost
from truthloop.retraining.claim import (
    CLAIMED,
    IDLE,
    MAXIMUM_PENDING,
    START_SETTLES_AFTER,
    Coalesce,
    GenerationRecord,
    Held,
    HolderState,
    LastRun,
    Orphan,
    Take,
    TakeOver,
    follow_up,
    forgotten_first,
    left_waiting,
    plan_claim,
    require_claim,
    start_is_unsettled,
    was_released,
)
from truthloop.retraining.triggers import Trigger
from truthloop.times import to_iso

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
MINE = Trigger("mine", "manual", to_iso(NOW))
OTHER = Trigger("other", "alarm", to_iso(NOW))
RUN = LastRun("g00000007", "v", "uri", "", to_iso(NOW), "c")


def claimed(holder: str = "holder", **more: Any) -> GenerationRecord:
    values: dict[str, Any] = {"claimed_at": to_iso(NOW), "triggers": {"other": OTHER}, **more}
    return GenerationRecord(7, CLAIMED, holder, **values)


def test_unit_tests_have_no_network() -> None:
    with pytest.raises(AssertionError, match="rules are pure"):
        socket.create_connection(("127.0.0.1", 9))


def test_nothing_yet_is_generation_1() -> None:
    assert plan_claim(None, "me", MINE, None, NOW) == Take(1, None, {"mine": MINE})


def test_idle_is_taken_with_what_waits() -> None:
    record = GenerationRecord(7, IDLE, pending={"other": OTHER})
    waited = replace(OTHER, during="g00000007")
    assert plan_claim(record, "me", MINE, None, NOW) == Take(8, 7, {"other": waited, "mine": MINE})


def test_the_holder_is_told_that_it_holds() -> None:
    record = claimed("me")
    assert plan_claim(record, "me", MINE, None, NOW) == Held(record)


def test_a_live_holder_keeps_its_claim_for_ever() -> None:
    plan = plan_claim(claimed(), "me", MINE, HolderState.LIVE, NOW + timedelta(days=1000))
    assert plan == Coalesce(7, "holder", waiting=MINE)


@pytest.mark.parametrize("where", ["triggers", "pending"])
def test_a_trigger_is_recorded_once(where: str) -> None:
    waiting: dict[str, Any] = {where: {"mine": MINE}}
    record = claimed(**waiting)
    assert plan_claim(record, "me", MINE, HolderState.LIVE, NOW) == Coalesce(7, "holder", waiting=None)


@pytest.mark.parametrize(
    ("trigger", "place"),
    [(MINE, "more-manual"), (OTHER, "more-alarm"), (replace(MINE, force=True), "more-manual-forced")],
)
def test_however_many_triggers_come_the_record_stays_small(trigger: Trigger, place: str) -> None:
    many = {str(number): replace(OTHER, id=str(number)) for number in range(MAXIMUM_PENDING)}
    record = claimed(pending=many, triggers={})
    plan = plan_claim(record, "me", trigger, HolderState.LIVE, NOW)
    assert plan == Coalesce(7, "holder", waiting=replace(trigger, id=place))


def test_a_start_is_settled_some_minutes_after_it_was_last_asked_for() -> None:
    asked = claimed(start_asked_at=to_iso(NOW))
    assert start_is_unsettled(asked, NOW + START_SETTLES_AFTER)
    assert not start_is_unsettled(asked, NOW + START_SETTLES_AFTER + timedelta(seconds=1))
    assert not start_is_unsettled(claimed(), NOW)


def test_an_ended_holder_is_taken_over_in_its_generation() -> None:
    plan = plan_claim(claimed(), "me", MINE, HolderState.ENDED, NOW)
    assert plan == TakeOver(7, "holder", {"other": OTHER, "mine": MINE})


@pytest.mark.parametrize("run", [{"starting": RUN}, {"pipeline_execution_arn": "arn"}])
def test_a_taker_comes_too_late_for_a_run_that_was_asked_for(run: dict[str, Any]) -> None:
    assert claimed(**run).has_run
    assert plan_claim(claimed(**run), "me", MINE, HolderState.ENDED, NOW) == TakeOver(
        7, "holder", {"other": OTHER}, waiting=MINE, has_run=True
    )
    assert plan_claim(claimed(**run), "me", OTHER, HolderState.ENDED, NOW) == TakeOver(
        7, "holder", {"other": OTHER}, waiting=None, has_run=True
    )


def test_a_trigger_that_waited_twice_has_waited_for_the_first() -> None:
    record = GenerationRecord(8, IDLE, pending={"other": replace(OTHER, during="g00000007")})
    plan = plan_claim(record, "me", MINE, None, NOW)
    assert isinstance(plan, Take)
    assert plan.triggers["other"].during == "g00000007"


BY_HAND = Orphan("arn:hand", "from the console", "2026-11-22T09:00:00Z")
FORGOTTEN = Orphan("arn:20", "g00000020", "2026-11-22T09:30:00Z", 352.51)


def test_a_claim_beside_an_orphan_begins_with_it_and_its_triggers_wait() -> None:
    take = Take(8, 7, {"mine": MINE})
    waiting = take.waiting_for(BY_HAND, 9)
    assert (waiting.generation, waiting.expected_generation) == (9, 7)
    assert (waiting.triggers, waiting.pending) == ({}, {"mine": MINE})
    assert (waiting.pipeline_execution_arn, waiting.waits_for, waiting.run) == ("arn:hand", BY_HAND, None)
    run = replace(RUN, generation="g00000020", pipeline_execution_arn="arn:20")
    adopting = take.adopting(run)
    assert (adopting.generation, adopting.expected_generation) == (20, 7)
    assert (adopting.triggers, adopting.pending) == ({}, {"mine": MINE})
    assert (adopting.pipeline_execution_arn, adopting.run, adopting.waits_for) == ("arn:20", run, None)


def test_forgotten_generations_come_first_in_their_order_then_the_oldest() -> None:
    eight, old = replace(FORGOTTEN, display_name="g00000008"), replace(FORGOTTEN, display_name="g00000007")
    assert [orphan.generation for orphan in (BY_HAND, old, eight)] == [0, 7, 8]
    assert forgotten_first([old, FORGOTTEN, BY_HAND, eight], 7) == [eight, FORGOTTEN, BY_HAND, old]


def test_an_orphan_is_read_as_it_was_written() -> None:
    assert Orphan.from_map(FORGOTTEN.to_map()) == FORGOTTEN


@pytest.mark.parametrize(
    ("waiting", "words"), [(1, "1 trigger waits for"), (0, "0 triggers wait"), (2, "2 triggers wait for")]
)
def test_the_end_of_an_orphan_is_told_in_words(waiting: int, words: str) -> None:
    told = BY_HAND.ended("Failed", "out of memory", waiting)
    assert "from the console" in told
    assert "ended Failed: out of memory. " + words in told
    assert "ended Stopped. " in replace(BY_HAND, display_name="").ended("Stopped", "", waiting)


def test_what_is_left_waiting_keeps_the_record_small() -> None:
    many = {str(number): replace(OTHER, id=str(number)) for number in range(MAXIMUM_PENDING - 1)}
    record = claimed(triggers={"mine": MINE, "other": OTHER}, pending=many)
    assert left_waiting(record) == {"mine": MINE, "more-alarm": replace(OTHER, id="more-alarm")}


@pytest.mark.parametrize(("age", "kind"), [(299, Coalesce), (301, TakeOver)])
def test_an_unknown_holder_needs_an_old_claim(age: int, kind: type) -> None:
    plan = plan_claim(claimed(), "me", MINE, HolderState.UNKNOWN, NOW + timedelta(seconds=age))
    assert isinstance(plan, kind)


@pytest.mark.parametrize(
    "record",
    [None, GenerationRecord(7, IDLE), claimed("somebody"), GenerationRecord(8, CLAIMED, "me")],
)
def test_only_the_holder_of_the_generation_may_act(record: GenerationRecord | None) -> None:
    with pytest.raises(ClaimLost):
        require_claim(record, "me", "g00000007")


def test_the_holder_may_act() -> None:
    assert require_claim(claimed("me"), "me", "g00000007").holder == "me"


def test_released_means_idle_at_it_or_past_it() -> None:
    assert was_released(GenerationRecord(7, IDLE), 7)
    assert was_released(GenerationRecord(8, CLAIMED, "x"), 7)
    assert not was_released(claimed(), 7)
    assert not was_released(None, 7)


def test_only_what_still_waits_is_followed_up() -> None:
    assert follow_up(GenerationRecord(7, IDLE, pending={"other": OTHER}), 7) == "g00000008"
    assert follow_up(GenerationRecord(7, IDLE), 7) is None
    assert follow_up(GenerationRecord(8, CLAIMED, "x", pending={"other": OTHER}), 7) is None
    assert follow_up(None, 7) is None


def test_a_generations_run_is_its_own() -> None:
    run = LastRun("g00000007", "v", "uri", "", "t", "c")
    assert claimed(starting=run).run_of("arn") == LastRun("g00000007", "v", "uri", "arn", "t", "c")
    assert claimed(last_run=LastRun("g00000006", "v", "uri", "x", "t", "c")).run_of("arn") is None
    assert claimed().run_of("arn") is None
