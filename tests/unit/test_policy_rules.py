"""The policy's rules, each by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from truthloop.claim import LastRun
from truthloop.policy import REFUSE, RULES, START, Evidence, judge
from truthloop.prices import USD_PER_HOUR, estimate
from truthloop.settings import PolicySettings
from truthloop.times import to_iso
from truthloop.triggers import ALARM, FOLLOW_UP, GROUND_TRUTH, MANUAL, SWEEP, VIOLATION, Trigger

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


def trigger(kind: str, **more: object) -> Trigger:
    return Trigger(kind, kind, to_iso(NOW), **more)  # type: ignore[arg-type]


EVIDENCE = Evidence(
    triggers=(trigger(GROUND_TRUTH),),
    new_labels=160,
    new_per_label={"7": 160},
    dataset_version="v2",
    last_run=LAST,
    champion="package/1",
    pending_candidate=None,
    spent_this_month_usd=352.51,
)


def failing(evidence: Evidence, policy: PolicySettings = POLICY) -> list[str]:
    return [outcome.rule for outcome in judge(evidence, policy, NOW).outcomes if not outcome.passed]


def test_enough_new_labels_start_a_run() -> None:
    verdict = judge(EVIDENCE, POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (START, "ALL_RULES_PASSED")
    assert verdict.estimated_usd == 352.51
    assert [outcome.rule for outcome in verdict.outcomes] == [name for name, _ in RULES]


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"dataset_version": "v1"}, ["SAME_EVIDENCE"]),
        (
            {"dataset_version": "v1", "new_labels": 0},
            ["SAME_EVIDENCE", "NO_NEW_LABELS", "MINIMUM_NEW_LABELS"],
        ),
        ({"new_labels": 99}, ["MINIMUM_NEW_LABELS"]),
        ({"new_labels": 1, "triggers": (trigger(ALARM),)}, []),
        ({"new_labels": 1, "triggers": (trigger(FOLLOW_UP), trigger(VIOLATION))}, []),
        ({"new_labels": 0, "triggers": (trigger(ALARM),)}, ["NO_NEW_LABELS", "MINIMUM_NEW_LABELS"]),
        (
            {"new_labels": 99, "triggers": (trigger(ALARM),), "pending_candidate": "package/2"},
            ["CANDIDATE_PENDING"],
        ),
        ({"pending_candidate": "package/2"}, []),
        ({"champion": None, "last_run": None, "new_labels": 0, "triggers": (trigger(MANUAL),)}, []),
        ({"champion": None, "last_run": None, "triggers": (trigger(SWEEP),)}, ["NO_MODEL_YET"]),
        ({"spent_this_month_usd": 647.49}, []),
        ({"spent_this_month_usd": 647.50}, ["MONTHLY_SPEND_CAP"]),
        ({"last_run": replace(LAST, started_at=to_iso(NOW - timedelta(minutes=59)))}, ["COOLDOWN"]),
        ({"last_run": replace(LAST, started_at=to_iso(NOW - timedelta(minutes=60)))}, []),
        ({"last_run": replace(LAST, code_version="c0"), "dataset_version": "v1", "new_labels": 0}, []),
    ],
)
def test_each_rule(changes: dict[str, object], rules: list[str]) -> None:
    evidence = replace(EVIDENCE, **changes)  # type: ignore[arg-type]
    assert failing(evidence) == rules
    verdict = judge(evidence, POLICY, NOW)
    assert verdict.verdict == (REFUSE if rules else START)
    if rules:
        assert verdict.reason == rules[0]
        assert verdict.message


def test_force_skips_the_policy_and_says_so() -> None:
    evidence = replace(
        EVIDENCE, dataset_version="v1", triggers=(trigger(MANUAL, force=True, detail="relabelled"),)
    )
    verdict = judge(evidence, POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (START, "FORCED")
    assert "relabelled" in verdict.message
    assert not verdict.outcomes[0].passed


FORCED_TWICE = (trigger(MANUAL, force=True, detail="relabelled", during="g00000001"), trigger(FOLLOW_UP))


def test_a_forced_start_that_came_twice_trains_once_on_the_same_evidence() -> None:
    # Given: the second came during the run of the first, which has trained on all there is
    verdict = judge(replace(EVIDENCE, dataset_version="v1", triggers=FORCED_TWICE), POLICY, NOW)
    assert (verdict.verdict, verdict.reason) == (REFUSE, "SAME_EVIDENCE")


@pytest.mark.parametrize(
    "news",
    [
        {"dataset_version": "v2"},
        {"dataset_version": "v1", "last_run_trained": False},
        {"dataset_version": "v1", "last_run": replace(LAST, generation="g00000002")},
        {"dataset_version": "v1", "last_run": replace(LAST, code_version="c0")},
    ],
)
def test_a_forced_start_that_waited_is_heard_when_its_wish_is_not_fulfilled(news: dict[str, object]) -> None:
    verdict = judge(replace(EVIDENCE, triggers=FORCED_TWICE, **news), POLICY, NOW)  # type: ignore[arg-type]
    assert (verdict.verdict, verdict.reason) == (START, "FORCED")


def test_what_the_log_keeps_of_evidence_is_bounded() -> None:
    # Before there is a model every label is welcome, and anyone who may upload can invent thousands.
    labels = {f"label {number:04d}": 1 + number % 2 for number in range(5000)}
    breaches = tuple(replace(trigger(ALARM), id=str(number)) for number in range(60))
    kept = replace(EVIDENCE, new_per_label=labels, triggers=breaches).to_map()
    assert len(kept["newPerLabel"]) == 100
    assert set(kept["newPerLabel"].values()) == {2}
    assert len(kept["breaches"]) == 20


def test_what_was_started_stays_started() -> None:
    verdict = judge(replace(EVIDENCE, dataset_version="v1"), POLICY, NOW, already_started=True)
    assert (verdict.verdict, verdict.reason) == (START, "ALREADY_STARTED")


def test_an_unknown_price_is_said_with_what_to_do() -> None:
    policy = replace(POLICY, training_instance_type="ml.x9.large")
    verdict = judge(EVIDENCE, policy, NOW)
    assert verdict.reason == "PRICE_KNOWN"
    assert "set the parameter InstancePriceUsd" in verdict.message
    assert failing(EVIDENCE, replace(policy, monthly_spend_cap_usd=0)) == []
    assert failing(EVIDENCE, replace(policy, instance_price_usd=2.0)) == []
    assert judge(EVIDENCE, replace(policy, instance_price_usd=2.0), NOW).estimated_usd == 48.0


def test_no_cap_and_no_cooldown() -> None:
    policy = replace(POLICY, monthly_spend_cap_usd=0, cooldown_minutes=0)
    recent = replace(LAST, started_at=to_iso(NOW))
    assert failing(replace(EVIDENCE, spent_this_month_usd=1e6, last_run=recent), policy) == []


def test_prices() -> None:
    assert all(price > 0 for price in USD_PER_HOUR.values())
    assert estimate("ml.p3.8xlarge", 24) == 352.51
    assert estimate("ml.unknown", 24) is None
