"""The policy's rules, each by itself, and what they come to together."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truthloop.instances.capacity import QuotaReading
from truthloop.instances.prices import USD_PER_HOUR, estimate
from truthloop.retraining.alarm import AlarmReading, Measurement
from truthloop.retraining.claim import LastRun
from truthloop.retraining.evidence import Evidence, Failure
from truthloop.retraining.policy import (
    BAR,
    GROUND,
    REFUSE,
    RULES,
    START,
    WAIT,
    RuleOutcome,
    Verdict,
    judge,
)
from truthloop.retraining.triggers import (
    ALARM,
    CODE,
    FOLLOW_UP,
    GROUND_TRUTH,
    MANUAL,
    SWEEP,
    VIOLATION,
    Trigger,
)
from truthloop.settings import PolicySettings
from truthloop.times import to_iso

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
POLICY = PolicySettings(
    minimum_new_labels=100,
    cooldown_minutes=60,
    monthly_spend_cap_usd=1000,
    expected_instance_hours=24,
    training_instance_type="ml.p3.8xlarge",
    processing_instance_type="ml.m5.xlarge",
    max_runtime_seconds=172800,
    accuracy_threshold=0.85,
    improvement_margin=0.0,
    holdout_share=0.2,
    epochs=30,
    approval="manual",
    code_version="c1",
)
LAST = LastRun("g00000001", "v1", "uri", "arn", to_iso(NOW - timedelta(days=2)), "c1")
IN_SERVICE = NOW - timedelta(days=1)


def trigger(kind: str, **more: object) -> Trigger:
    return Trigger(**{"id": kind, "kind": kind, "at": to_iso(NOW), **more})  # type: ignore[arg-type]


def alarm(state: str = "ALARM", value: float | None = 0.7) -> AlarmReading:
    newest = None if value is None else Measurement(value, NOW - timedelta(hours=1))
    return AlarmReading("truthloop-accuracy", state, "LessThanThreshold", 0.85, IN_SERVICE, newest)


EVIDENCE = Evidence(
    triggers=(trigger(GROUND_TRUTH),),
    new_labels=160,
    new_per_label={"7": 100, "3": 60},
    dataset_version="v2",
    last_run=LAST,
    champion="package/1",
    pending_candidate=None,
    spent_this_month_usd=352.51,
    champion_registered_at=NOW - timedelta(days=30),
    served_since=IN_SERVICE,
    claimed_at=NOW - timedelta(minutes=1),
)
FEW = replace(EVIDENCE, new_labels=40, new_per_label={"7": 40})
SAME = replace(EVIDENCE, dataset_version="v1")
FIRST = replace(EVIDENCE, champion=None, last_run=None, new_labels=0, new_per_label={})


def outcome(rule: str, verdict: Verdict) -> RuleOutcome:
    (found,) = (each for each in verdict.outcomes if each.rule == rule)
    return found


def holding(verdict: Verdict) -> list[str]:
    return [each.rule for each in verdict.outcomes if each.role == GROUND and each.passed]


def failing(verdict: Verdict) -> list[str]:
    return [each.rule for each in verdict.outcomes if each.role == BAR and not each.passed]


def test_enough_new_labels_start_a_run() -> None:
    verdict = judge(EVIDENCE, POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (START, "ALL_RULES_PASSED")
    assert verdict.estimated_usd == 352.51
    assert "160 new labels; 100 are wanted" in verdict.message
    assert [each.rule for each in verdict.outcomes] == [entry.name for entry in RULES]


# -- grounds: each starts a run alone, and without any there is none ----------------------------------------

OLD_CODE = replace(LAST, code_version="c0")
AGED = replace(POLICY, maximum_model_age_days=29)


@pytest.mark.parametrize(
    ("evidence", "policy", "grounds"),
    [
        (EVIDENCE, POLICY, ["ENOUGH_NEW_LABELS"]),
        (FEW, POLICY, []),
        (replace(FEW, triggers=(trigger(ALARM),)), POLICY, ["ACCURACY_BREACH"]),
        (replace(FEW, triggers=(trigger(FOLLOW_UP), trigger(VIOLATION))), POLICY, ["ACCURACY_BREACH"]),
        (replace(FEW, triggers=(trigger(SWEEP),), alarm=alarm()), POLICY, ["ACCURACY_BREACH"]),
        (replace(FEW, triggers=(trigger(SWEEP),), alarm=alarm("OK")), POLICY, []),
        (replace(FEW, triggers=(trigger(SWEEP),), alarm=alarm(value=None)), POLICY, []),
        (replace(FEW, triggers=(trigger(SWEEP),), alarm=alarm(value=0.9)), POLICY, []),
        (replace(FEW, last_run=OLD_CODE, triggers=(trigger(CODE),)), POLICY, ["CODE_CHANGE"]),
        (replace(FEW, last_run=OLD_CODE, new_labels=0, new_per_label={}), POLICY, ["CODE_CHANGE"]),
        (replace(FEW, triggers=(trigger(CODE),)), POLICY, []),
        (FEW, AGED, ["MODEL_AGE"]),
        (FEW, replace(POLICY, maximum_model_age_days=30), []),
        (replace(FEW, champion_registered_at=None), AGED, []),
        (replace(FEW, last_trained_at=NOW - timedelta(days=29, minutes=1)), AGED, ["MODEL_AGE"]),
        (replace(FEW, last_trained_at=NOW - timedelta(days=29)), AGED, []),
        (replace(FEW, last_trained_at=NOW - timedelta(days=40)), AGED, ["MODEL_AGE"]),
        (replace(FIRST, triggers=(trigger(MANUAL),)), POLICY, ["FIRST_MODEL"]),
        (replace(FEW, triggers=(trigger(MANUAL),)), POLICY, []),
    ],
)
def test_a_ground_is_enough_and_one_is_needed(
    evidence: Evidence, policy: PolicySettings, grounds: list[str]
) -> None:
    verdict = judge(evidence, policy, NOW)
    assert holding(verdict) == grounds
    assert failing(verdict) == []
    assert verdict.verdict == (START if grounds else REFUSE)
    if not grounds:
        assert verdict.reason == "MINIMUM_NEW_LABELS"
        assert "40 new labels; 100 are wanted, and nothing else asks for a run" in verdict.message
        assert "lower the parameter MinimumNewLabels" in verdict.message


# -- each class --------------------------------------------------------------------------------------------

PER_CLASS = replace(POLICY, minimum_new_labels_per_class=50)


def test_each_class_of_the_served_model_has_its_minimum() -> None:
    assert judge(replace(EVIDENCE, classes=("3", "7")), PER_CLASS, NOW).verdict == START
    verdict = judge(replace(EVIDENCE, classes=("1", "3", "7")), PER_CLASS, NOW)
    assert (verdict.verdict, verdict.reason) == (REFUSE, "MINIMUM_PER_CLASS")
    assert "1 of 3 classes have fewer: 1 (0)" in verdict.message
    assert "lower the parameter MinimumNewLabelsPerClass" in verdict.message
    both = judge(replace(FEW, classes=("1", "7")), PER_CLASS, NOW)
    assert both.reason == "MINIMUM_NEW_LABELS"


def test_a_breach_needs_no_label_of_each_class() -> None:
    evidence = replace(FEW, classes=("1", "7"), alarm=alarm())
    assert judge(evidence, PER_CLASS, NOW).verdict == START


def test_classes_that_are_not_known_are_said_and_the_total_is_judged() -> None:
    verdict = judge(EVIDENCE, PER_CLASS, NOW)
    assert verdict.verdict == START
    assert "names no labels: only the total was judged" in outcome("ENOUGH_NEW_LABELS", verdict).detail


def test_a_thousand_classes_are_named_briefly() -> None:
    classes = tuple(f"class {n:04d} {'x' * 200}" for n in range(1000))
    detail = outcome("ENOUGH_NEW_LABELS", judge(replace(EVIDENCE, classes=classes), PER_CLASS, NOW)).detail
    assert "1000 of 1000 classes have fewer" in detail
    assert len(detail) < 2000


# -- bars: each holds whatever speaks for a run -------------------------------------------------------------

JUST_NOW = replace(LAST, started_at=to_iso(NOW - timedelta(minutes=59)))


@pytest.mark.parametrize(
    ("changes", "policy", "bars"),
    [
        ({"dataset_version": "v1"}, {}, ["SAME_EVIDENCE"]),
        ({"dataset_version": "v1", "last_run": OLD_CODE}, {}, []),
        ({"dataset_version": "v1", "last_run": None}, {}, []),
        ({"dataset_version": "v1", "new_labels": 0}, {}, ["SAME_EVIDENCE", "NO_NEW_LABELS"]),
        ({"new_labels": 0}, {}, ["NO_NEW_LABELS"]),
        ({"new_labels": 0, "champion_registered_at": NOW - timedelta(900)}, {}, ["NO_NEW_LABELS"]),
        ({"new_labels": 0, "last_run": OLD_CODE}, {}, []),
        ({"new_labels": 99, "pending_candidate": "package/2"}, {}, ["CANDIDATE_PENDING"]),
        ({"new_labels": 100, "pending_candidate": "package/2"}, {}, []),
        ({"new_labels": 1, "pending_candidate": "package/2", "last_run": OLD_CODE}, {}, []),
        ({"champion": None, "last_run": None}, {}, ["NO_MODEL_YET"]),
        ({"champion": None, "last_run": None, "triggers": (trigger(MANUAL),)}, {}, []),
        ({"last_run": JUST_NOW}, {}, ["COOLDOWN"]),
        ({"last_run": replace(LAST, started_at=to_iso(NOW - timedelta(minutes=60)))}, {}, []),
        ({"last_run": replace(LAST, started_at=to_iso(NOW))}, {"cooldown_minutes": 0}, []),
        ({"spent_this_month_usd": 647.49}, {}, []),
        ({"spent_this_month_usd": 647.50}, {}, ["MONTHLY_SPEND_CAP"]),
        ({"spent_this_month_usd": 1e6}, {"monthly_spend_cap_usd": 0}, []),
        ({}, {"training_instance_type": "ml.p4d.24xlarge"}, ["PRICE_KNOWN"]),
        ({}, {"training_instance_type": "ml.p4d.24xlarge", "instance_price_usd": 2}, []),
        ({}, {"training_instance_type": "ml.p4d.24xlarge", "monthly_spend_cap_usd": 0}, []),
        ({}, {"training_image_architectures": ("sm_75", "sm_80")}, ["IMAGE_GPU"]),
        ({}, {"training_image_architectures": ("compute_60",)}, []),
        ({"quota": QuotaReading(2, 0)}, {}, []),
        ({"quota": QuotaReading(2, 1)}, {}, ["QUOTA"]),
        ({"quota": QuotaReading(0, 0)}, {}, ["QUOTA"]),
        ({"quota": QuotaReading(None, 0)}, {}, ["QUOTA"]),
        ({"quota": QuotaReading(None, None, "AccessDenied")}, {}, []),
        ({"quota": QuotaReading(2, None, "AccessDenied")}, {}, []),
        ({"quota": QuotaReading(1, None, "AccessDenied")}, {}, ["QUOTA"]),
    ],
)
def test_a_bar_holds_though_every_ground_speaks_for_a_run(
    changes: dict[str, Any], policy: dict[str, Any], bars: list[str]
) -> None:
    evidence = replace(EVIDENCE, triggers=(trigger(ALARM),), alarm=alarm())
    verdict = judge(replace(evidence, **changes), replace(AGED, **policy), NOW)
    assert failing(verdict) == bars
    assert holding(verdict) or bars
    assert verdict.verdict == (REFUSE if bars else START)
    if bars:
        assert verdict.reason == bars[0]
        assert verdict.message == outcome(bars[0], verdict).detail


def test_bars_are_named_in_the_order_of_the_table() -> None:
    everything = replace(
        SAME,
        new_labels=0,
        new_per_label={},
        pending_candidate="package/2",
        last_run=JUST_NOW,
        spent_this_month_usd=1e6,
        quota=QuotaReading(0, 0),
    )
    verdict = judge(everything, replace(POLICY, training_image_architectures=("sm_90",)), NOW)
    assert failing(verdict) == [
        "SAME_EVIDENCE", "CANDIDATE_PENDING", "NO_NEW_LABELS", "COOLDOWN", "MONTHLY_SPEND_CAP", "IMAGE_GPU",
        "QUOTA",
    ]  # fmt: skip


# -- the quota ---------------------------------------------------------------------------------------------


def test_what_the_quota_lacks_is_said_with_both_ways_out() -> None:
    for reading, found in (
        (QuotaReading(None, 0), "ml.p3.8xlarge is not offered for training in this region"),
        (QuotaReading(0, 0), "the account's quota for ml.p3.8xlarge in training jobs is 0"),
        (QuotaReading(1, 0), "the quota is 1 ml.p3.8xlarge in training jobs, 0 of them in use, and 2 are"),
    ):
        message = judge(replace(EVIDENCE, quota=reading), POLICY, NOW).message
        assert found in message
        assert '"ml.p3.8xlarge for training job usage"' in message
        assert "TrainingInstanceType" in message
        for successor in ("ml.g4dn.12xlarge", "ml.g5.12xlarge", "ml.g6.12xlarge", "ml.g6e.12xlarge"):
            assert successor in message
        assert "wait until other training jobs have ended" not in message
    busy = judge(replace(EVIDENCE, quota=QuotaReading(3, 2)), POLICY, NOW).message
    assert "wait until other training jobs have ended" in busy


def test_several_instances_and_spot_training_ask_for_their_own_quota() -> None:
    policy = replace(POLICY, training_instance_count=3, use_spot_training=True)
    few = judge(replace(EVIDENCE, quota=QuotaReading(5, 0)), policy, NOW)
    assert few.reason == "QUOTA"
    assert "and 6 are needed at the same time" in few.message
    assert '"ml.p3.8xlarge for spot training job usage"' in few.message
    assert "set UseSpotTraining to false" in few.message
    enough = judge(replace(EVIDENCE, quota=QuotaReading(6, 0)), policy, NOW)
    assert enough.verdict == START


def test_the_estimate_of_a_spot_run_is_the_upper_bound_and_says_so() -> None:
    spot = judge(EVIDENCE, replace(POLICY, use_spot_training=True), NOW)
    assert spot.estimated_usd == judge(EVIDENCE, POLICY, NOW).estimated_usd
    assert "at the price on demand; spot training costs less" in spot.message


def test_a_quota_that_nobody_may_read_does_not_keep_a_team_from_training() -> None:
    verdict = judge(replace(EVIDENCE, quota=QuotaReading(None, None, "AccessDeniedException")), POLICY, NOW)
    assert verdict.verdict == START
    assert "could not be read (AccessDeniedException)" in outcome("QUOTA", verdict).detail


def test_a_quota_that_was_not_asked_for_is_said() -> None:
    assert "not asked for" in outcome("QUOTA", judge(FEW, POLICY, NOW)).detail


def test_a_run_that_failed_for_lack_of_capacity_is_remembered() -> None:
    reason = "ClientError: CapacityError: Unable to provision requested ML compute capacity"
    evidence = replace(
        EVIDENCE,
        quota=QuotaReading(8, 0),
        last_run_trained=False,
        last_failure=Failure("Failed", reason, costless=True),
    )
    verdict = judge(evidence, POLICY, NOW)
    assert verdict.verdict == START
    assert "g00000001 got no ml.p3.8xlarge" in outcome("QUOTA", verdict).detail
    early = judge(replace(evidence, last_run=JUST_NOW), POLICY, NOW)
    assert early.reason == "COOLDOWN"


# -- a breach that persists --------------------------------------------------------------------------------


def test_a_sweep_alone_starts_a_run_for_a_breach_that_persists() -> None:
    verdict = judge(replace(FEW, triggers=(trigger(SWEEP),), alarm=alarm()), POLICY, NOW)
    assert verdict.verdict == START
    assert "is in ALARM: 0.7, measured at 2026-11-22T09:00:00.000000Z, is below the threshold of 0.85" in (
        verdict.message
    )


def test_an_alarm_of_the_model_before_is_no_ground() -> None:
    verdict = judge(replace(FEW, triggers=(trigger(SWEEP),), alarm=alarm(value=None)), POLICY, NOW)
    assert verdict.reason == "MINIMUM_NEW_LABELS"
    assert "it speaks of the model before" in outcome("ACCURACY_BREACH", verdict).detail


@pytest.mark.parametrize("during", ["g00000001", ""])
def test_a_breach_of_the_model_before_is_over_whether_it_waited_or_came_late(during: str) -> None:
    waited = trigger(ALARM, at=to_iso(IN_SERVICE - timedelta(minutes=1)), during=during)
    over = judge(replace(FEW, triggers=(waited,)), POLICY, NOW)
    assert over.verdict == REFUSE
    assert "what is older speaks of the model before" in outcome("ACCURACY_BREACH", over).detail
    assert judge(replace(FEW, triggers=(waited,), served_since=None), POLICY, NOW).verdict == START
    since = replace(waited, at=to_iso(IN_SERVICE + timedelta(minutes=1)))
    assert judge(replace(FEW, triggers=(since,)), POLICY, NOW).verdict == START


# -- a run that failed -------------------------------------------------------------------------------------

NO_INSTANCES = "step TrainNew failed: CapacityError: Unable to provision requested ML compute capacity"
FAILED_ONCE = replace(
    SAME, last_run_trained=False, last_failure=Failure("Failed", NO_INSTANCES, costless=True)
)


def test_a_run_that_found_no_instances_is_tried_again_after_the_cool_down() -> None:
    verdict = judge(FAILED_ONCE, POLICY, NOW)
    assert verdict.verdict == START
    assert "failed for lack of instances (step TrainNew" in outcome("SAME_EVIDENCE", verdict).detail
    early = judge(replace(FAILED_ONCE, last_run=JUST_NOW), POLICY, NOW)
    assert early.reason == "SAME_EVIDENCE"
    assert "it is tried again from 2026-11-22T10:01:00.000000Z on" in early.message


def test_without_a_cool_down_a_failed_run_rests_an_hour() -> None:
    policy = replace(POLICY, cooldown_minutes=0)
    assert judge(replace(FAILED_ONCE, last_run=JUST_NOW), policy, NOW).reason == "SAME_EVIDENCE"
    hour_ago = replace(LAST, started_at=to_iso(NOW - timedelta(minutes=60)))
    assert judge(replace(FAILED_ONCE, last_run=hour_ago), policy, NOW).verdict == START


@pytest.mark.parametrize(
    "failure",
    [
        None,
        Failure("Unknown", "gone"),
        Failure("Failed", "out of memory"),
        Failure("Failed", f"{NO_INSTANCES}; step TrainOld failed: out of memory"),
    ],
)
def test_a_run_that_failed_otherwise_is_not_paid_twice(failure: Failure | None) -> None:
    evidence = replace(FAILED_ONCE, last_failure=failure, alarm=alarm())
    verdict = judge(evidence, POLICY, NOW)
    assert verdict.reason == "SAME_EVIDENCE"
    assert "mend the cause, then start by hand with force and a reason" in verdict.message
    by_hand = replace(evidence, triggers=(trigger(MANUAL, force=True),))
    assert judge(by_hand, POLICY, NOW).reason == "FORCED"
    few = judge(replace(evidence, dataset_version="v2", news_since_failure=99), POLICY, NOW)
    assert few.reason == "SAME_EVIDENCE"
    assert "on all but 99 new labels of 100 wanted and failed" in few.message
    enough = replace(evidence, dataset_version="v2", news_since_failure=100)
    assert judge(enough, POLICY, NOW).verdict == START
    assert judge(replace(evidence, last_run=OLD_CODE), POLICY, NOW).verdict == START
    gone = judge(replace(evidence, dataset_version="v2"), POLICY, NOW)
    assert "on a dataset that is not there any more and failed" in gone.message


def test_a_run_that_found_no_instances_is_tried_on_any_other_data() -> None:
    assert judge(replace(FAILED_ONCE, dataset_version="v2"), POLICY, NOW).verdict == START


def test_labels_that_wait_count_for_a_run_after_one_that_failed() -> None:
    out_of_memory = Failure("Failed", "out of memory")
    evidence = replace(
        FAILED_ONCE, last_failure=out_of_memory, news_since_failure=40, waiting_per_label={"7": 60}
    )
    assert judge(replace(evidence, waiting_since_failure=60), POLICY, NOW).verdict == WAIT
    assert judge(replace(evidence, waiting_since_failure=59), POLICY, NOW).reason == "SAME_EVIDENCE"


def test_a_run_that_was_stopped_does_not_start_by_itself() -> None:
    stopped = replace(FAILED_ONCE, last_failure=Failure("Stopped", ""))
    verdict = judge(stopped, POLICY, NOW)
    assert verdict.reason == "SAME_EVIDENCE"
    assert "was stopped" in verdict.message


# -- waiting -----------------------------------------------------------------------------------------------

WAITING = replace(FEW, waiting_per_label={"7": 60})


def test_labels_whose_predictions_are_on_the_way_are_waited_for() -> None:
    verdict = judge(WAITING, POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (WAIT, "WAITING_FOR_CAPTURE")
    assert "60 labels wait" in verdict.message
    assert "looking again until 2026-11-22T10:29:00.000000Z" in verdict.message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"waiting_per_label": {"7": 59}}, "MINIMUM_NEW_LABELS"),
        ({"claimed_at": NOW - timedelta(minutes=30)}, "MINIMUM_NEW_LABELS"),
        ({"claimed_at": None}, "MINIMUM_NEW_LABELS"),
        ({"last_run": JUST_NOW}, "COOLDOWN"),
        ({"quota": QuotaReading(0, 0)}, "QUOTA"),
    ],
)
def test_nobody_waits_in_vain(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(replace(WAITING, **changes), POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (REFUSE, reason)


def test_a_breach_without_one_label_waits_for_its_labels() -> None:
    nothing_yet = replace(
        SAME, new_labels=0, new_per_label={}, waiting_per_label={"7": 1}, triggers=(trigger(ALARM),)
    )
    assert judge(nothing_yet, POLICY, NOW).verdict == WAIT


def test_the_minimum_per_class_waits_too() -> None:
    evidence = replace(EVIDENCE, classes=("1", "3", "7"), waiting_per_label={"1": 50})
    assert judge(evidence, PER_CLASS, NOW).verdict == WAIT
    assert judge(replace(evidence, waiting_per_label={"1": 49}), PER_CLASS, NOW).reason == "MINIMUM_PER_CLASS"


def test_a_forced_start_ends_the_wait() -> None:
    verdict = judge(replace(WAITING, forced_start_waits=True), POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (REFUSE, "MINIMUM_NEW_LABELS")
    assert "A forced start waits: it is decided about at once" in verdict.message


def test_what_would_start_is_not_waited_for() -> None:
    assert judge(replace(EVIDENCE, waiting_per_label={"7": 60}), POLICY, NOW).verdict == START


# -- force, and what was started ---------------------------------------------------------------------------


def test_force_skips_the_policy_and_says_what_it_overrules() -> None:
    verdict = judge(replace(SAME, triggers=(trigger(MANUAL, force=True, detail="relabelled"),)), POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (START, "FORCED")
    assert verdict.message == "forced by hand: relabelled; overruled: SAME_EVIDENCE"
    assert not outcome("SAME_EVIDENCE", verdict).passed


FORCED_TWICE = (trigger(MANUAL, force=True, detail="relabelled", during="g00000001"), trigger(FOLLOW_UP))


def test_a_forced_start_that_came_twice_trains_once_on_the_same_evidence() -> None:
    # Given: the second came during the run of the first, which has trained on all there is
    verdict = judge(replace(SAME, triggers=FORCED_TWICE), POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (REFUSE, "SAME_EVIDENCE")


@pytest.mark.parametrize(
    "news",
    [
        {"dataset_version": "v2"},
        {"dataset_version": "v1", "last_run_trained": False},
        {"dataset_version": "v1", "last_run": replace(LAST, generation="g00000002")},
        {"dataset_version": "v1", "last_run": OLD_CODE},
    ],
)
def test_a_forced_start_that_waited_is_heard_when_its_wish_is_not_fulfilled(news: dict[str, Any]) -> None:
    verdict = judge(replace(EVIDENCE, triggers=FORCED_TWICE, **news), POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (START, "FORCED")


def test_what_was_started_stays_started() -> None:
    verdict = judge(SAME, POLICY, NOW, already_started=True)
    assert (verdict.verdict, verdict.reason) == (START, "ALREADY_STARTED")


# -- what the log keeps ------------------------------------------------------------------------------------


def test_what_the_log_keeps_of_evidence_is_bounded() -> None:
    # Before there is a model every label is welcome, and anyone who may upload can invent thousands.
    labels = {f"{number:04d}{'🦆' * 124}": 1 + number % 2 for number in range(5000)}
    breaches = tuple(replace(trigger(ALARM), id=str(number), detail="x" * 512) for number in range(60))
    evidence = replace(
        EVIDENCE,
        new_per_label=labels,
        waiting_per_label=labels,
        classes=tuple(labels),
        conflicts=tuple(f"{number}{'y' * 60_000}" for number in range(30)),
        conflict_count=30,
        triggers=breaches,
        last_run_trained=False,
        last_failure=Failure("Failed", "z" * 100_000),
        alarm=alarm(),
        quota=QuotaReading(2, 1),
    )
    kept = evidence.to_map()
    assert len(kept["newPerLabel"]) == 100
    assert set(kept["newPerLabel"].values()) == {2}
    assert len(kept["breaches"]) == 20
    assert (kept["conflicts"], len(kept["conflictingIds"])) == (30, 20)
    verdict = judge(evidence, PER_CLASS, NOW)
    shown = [each.to_map() for each in verdict.outcomes]
    assert len(json.dumps([kept, shown, verdict.message], ensure_ascii=False).encode()) < 150_000


def test_what_is_not_known_is_kept_as_null() -> None:
    kept = Evidence((), 0, {}, "v1", None, None, None, 0.0).to_map()
    nothing = ("alarm", "quota", "champion", "championRegisteredAt", "servedSince", "lastFailure")
    assert [kept[name] for name in nothing] == [None] * len(nothing)


# -- prices ------------------------------------------------------------------------------------------------


def test_an_unknown_price_is_said_with_what_to_do() -> None:
    policy = replace(POLICY, training_instance_type="ml.p5.48xlarge")
    verdict = judge(EVIDENCE, policy, NOW)
    assert verdict.reason == "PRICE_KNOWN"
    assert "set the parameter InstancePriceUsd" in verdict.message
    assert judge(EVIDENCE, replace(policy, instance_price_usd=2.0), NOW).estimated_usd == 48.0


def test_prices() -> None:
    assert all(price > 0 for price in USD_PER_HOUR.values())
    assert estimate("ml.p3.8xlarge", 24) == 352.51
    assert estimate("ml.unknown", 24) is None


# -- all together ------------------------------------------------------------------------------------------

MOMENTS = st.integers(0, 5000).map(lambda minutes: NOW - timedelta(minutes=minutes))
COUNTS = st.dictionaries(st.sampled_from("0123456789"), st.integers(1, 80), max_size=10)
TRIGGERS = st.lists(
    st.builds(
        trigger,
        st.sampled_from([ALARM, CODE, FOLLOW_UP, GROUND_TRUTH, MANUAL, SWEEP, VIOLATION]),
        at=MOMENTS.map(to_iso),
        during=st.sampled_from(["", "g00000001"]),
    ),
    min_size=1,
    max_size=3,
)
RUNS = st.one_of(
    st.none(),
    st.builds(
        lambda version, code, at: replace(LAST, dataset_version=version, code_version=code, started_at=at),
        st.sampled_from(["v1", "v2"]),
        st.sampled_from(["c0", "c1"]),
        MOMENTS.map(to_iso),
    ),
)
EVIDENCES = st.builds(
    lambda counts, waits, **rest: Evidence(
        new_labels=sum(counts.values()), new_per_label=counts, waiting_per_label=waits, **rest
    ),
    counts=COUNTS,
    waits=COUNTS,
    triggers=TRIGGERS.map(tuple),
    dataset_version=st.sampled_from(["v1", "v2"]),
    last_run=RUNS,
    champion=st.sampled_from([None, "package/1"]),
    pending_candidate=st.sampled_from([None, None, "package/2"]),
    spent_this_month_usd=st.sampled_from([0.0, 900.0]),
    last_run_trained=st.booleans(),
    news_since_failure=st.sampled_from([None, 0, 99, 100]),
    waiting_since_failure=st.sampled_from([0, 1, 100]),
    last_failure=st.sampled_from(
        [None, Failure("Failed", ""), Failure("Failed", "", costless=True), Failure("Stopped", "")]
    ),
    classes=st.sampled_from([None, tuple("0123456789"), ("7",)]),
    champion_registered_at=st.none() | MOMENTS,
    last_trained_at=st.none() | MOMENTS,
    served_since=st.none() | MOMENTS,
    alarm=st.sampled_from([None, alarm(), alarm("OK"), alarm(value=None), alarm(value=0.9)]),
    quota=st.sampled_from([None, QuotaReading(8, 0), QuotaReading(0, 0), QuotaReading(None, None, "denied")]),
    claimed_at=st.none() | MOMENTS,
    forced_start_waits=st.booleans(),
)
POLICIES = st.builds(
    lambda **changes: replace(POLICY, **changes),
    minimum_new_labels=st.sampled_from([1, 100]),
    minimum_new_labels_per_class=st.sampled_from([0, 10]),
    maximum_model_age_days=st.sampled_from([0, 2]),
    cooldown_minutes=st.sampled_from([0, 600]),
)


@given(EVIDENCES, POLICIES)
def test_a_run_starts_if_and_only_if_there_is_a_ground_and_no_bar(
    evidence: Evidence, policy: PolicySettings
) -> None:
    verdict = judge(evidence, policy, NOW)
    assert (verdict.verdict == START) == (bool(holding(verdict)) and not failing(verdict))
    assert verdict.verdict in (START, REFUSE, WAIT)
    assert all(each.detail for each in verdict.outcomes)
    assert verdict.message
    if verdict.verdict == REFUSE:
        expected = [*failing(verdict), "MINIMUM_NEW_LABELS", "MINIMUM_PER_CLASS"]
        assert verdict.reason in (expected[:1] if failing(verdict) else expected)


@given(EVIDENCES, POLICIES, st.sampled_from("0123456789"), st.integers(1, 200))
def test_more_labels_never_undo_a_start(
    evidence: Evidence, policy: PolicySettings, label: str, more: int
) -> None:
    # A label changes the dataset version as well; without that, "more labels" would be no evidence.
    richer = replace(
        evidence,
        new_labels=evidence.new_labels + more,
        new_per_label={**evidence.new_per_label, label: evidence.new_per_label.get(label, 0) + more},
        dataset_version="v3",
    )
    if judge(evidence, policy, NOW).verdict == START:
        assert judge(richer, policy, NOW).verdict == START


@given(EVIDENCES, POLICIES)
def test_a_wait_ends_in_a_start_when_everything_is_captured_and_in_a_refusal_when_nothing_is(
    evidence: Evidence, policy: PolicySettings
) -> None:
    if judge(evidence, policy, NOW).verdict != WAIT:
        return
    assert judge(evidence.when_captured(), policy, NOW).verdict == START
    claimed = evidence.claimed_at
    assert claimed is not None
    late = claimed + timedelta(minutes=policy.capture_wait_minutes)
    assert judge(evidence, policy, late).verdict != WAIT


@given(EVIDENCES, POLICIES)
def test_a_forced_start_always_starts_when_it_did_not_wait(
    evidence: Evidence, policy: PolicySettings
) -> None:
    forced = replace(evidence, triggers=(trigger(MANUAL, force=True, detail="why"),))
    assert judge(forced, policy, NOW).reason == "FORCED"
