"""A decision in plain words."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.unit.test_policy_rules import EVIDENCE, LAST, NOW, POLICY
from truthloop.retraining import decision as outcomes
from truthloop.retraining import policy
from truthloop.retraining.evidence import Failure
from truthloop.retraining.policy import START, judge
from truthloop.retraining.report import ADVICE, HEADLINES, report
from truthloop.times import to_iso

PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/truthloop-models/8"
APPROVE = f"aws sagemaker update-model-package --model-approval-status Approved --model-package-arn {PACKAGE}"


def decided(outcome: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason or outcome, "generation": "g00000007", **more}


def candidate(**more: Any) -> dict[str, Any]:
    return {"arn": PACKAGE, "candidate": "new", "recommended": True, "accuracy": Decimal("0.9412"), **more}


def test_a_trained_run_reads_like_a_letter() -> None:
    text = report(
        decided(
            "SUCCEEDED",
            at="2026-11-22T12:00:00.000000Z",
            message="the new model beats the champion by 0.2",
            triggers=[
                {"id": "a", "kind": "alarm", "at": "2026-11-22T10:00:00.000000Z", "detail": "0.7 < 0.85"},
                {
                    "id": "b",
                    "kind": "ground_truth",
                    "at": "2026-11-22T10:01:00.000000Z",
                    "detail": "5 records",
                },
                {
                    "id": "c",
                    "kind": "ground_truth",
                    "at": "2026-11-22T10:02:00.000000Z",
                    "detail": "9 records",
                },
            ],
            evidence={
                "newLabels": Decimal(160),
                "newPerLabel": {"7": Decimal(150), "3": Decimal(10)},
                "waiting": 3,
                "conflicts": Decimal(5),
                "conflictingIds": ["x", "y", "z", "v", "w"],
                "alarm": {"name": "truthloop-accuracy", "breaching": True, "value": Decimal("0.71")},
                "lastFailure": {"status": "Failed", "reason": "no capacity"},
                "breaches": [{"kind": "alarm", "at": "…", "detail": "0.7 < 0.85"}],
                "spentThisMonthUsd": Decimal("352.51"),
            },
            rules=[
                {"rule": "ENOUGH_NEW_LABELS", "role": "GROUND", "passed": True, "detail": "160 of 100"},
                {"rule": "MODEL_AGE", "role": "GROUND", "passed": False, "detail": "no limit"},
                {"rule": "COOLDOWN", "role": "BAR", "passed": True, "detail": "it ended"},
            ],
            estimatedUsd=Decimal("352.51"),
            execution="arn:run",
            pipelineExecutionArn="arn:pipeline",
            modelPackages=[candidate()],
        )
    )
    assert text.splitlines() == [
        "g00000007: trained; both candidates are registered (SUCCEEDED)",
        "the new model beats the champion by 0.2",
        "",
        "Why it looked",
        "- alarm at 2026-11-22 10:00 UTC: 0.7 < 0.85",
        "- ground_truth × 2, the last at 2026-11-22 10:02 UTC: 9 records",
        "",
        "Evidence",
        "- 160 new labels: 7 × 150, 3 × 10",
        "- 3 waiting: the prediction is not captured yet, or the image is not uploaded",
        "- 5 set aside: authors disagree",
        "- breach (alarm): 0.7 < 0.85",
        "- the alarm truthloop-accuracy still breaches: 0.71 was measured",
        "- the last run failed: no capacity",
        "",
        "Rules",
        "- for: ENOUGH_NEW_LABELS: 160 of 100",
        "- 1 of 1 bars passed",
        "",
        "Cost",
        "- about 352.51 USD",
        "- 352.51 USD were estimated for earlier runs of this month",
        "",
        "Candidates",
        "- new: accuracy 94.1%, recommended",
        "",
        "What to do",
        "- Approve it (or reject it: Rejected):",
        f"  {APPROVE}",
        "- Settle where authors disagree (x, y, z, …): truthloop conflicts, then truthloop settle ID LABEL",
        "",
        "Where",
        "- execution: arn:run",
        "- pipeline: arn:pipeline",
        "- decided: 2026-11-22 12:00 UTC",
    ]


def costs(**said: Any) -> list[str]:
    """Return the part of the report about money."""
    decision = decided("SUCCEEDED", estimatedUsd=Decimal("352.51"), pipelineExecutionArn="arn", **said)
    lines = report(decision).splitlines()
    begin = lines.index("Cost") + 1
    return lines[begin : lines.index("", begin)]


def test_what_the_training_was_billed_stands_beside_what_was_estimated() -> None:
    billed = "- the training was billed about 1,098.70 USD; 352.51 were estimated"
    spot = "- spot instances saved 72 % of the training"
    assert costs(billedUsd=Decimal("1098.7")) == [billed]
    assert costs(billedUsd=Decimal("1098.7"), spotSavingsPercent=Decimal("71.8")) == [billed, spot]
    assert costs(spotSavingsPercent=Decimal("71.8")) == ["- about 352.51 USD", spot]
    nothing = "- the training was billed about 0.00 USD; 352.51 were estimated"
    assert costs(billedUsd=Decimal(0)) == [nothing]


def test_nobody_is_asked_to_approve_what_is_approved() -> None:
    text = report(decided("SUCCEEDED", modelPackages=[candidate(approved=True)]))
    assert APPROVE not in text
    assert "approved automatically" in text


def test_a_run_without_a_recommendation_offers_every_candidate() -> None:
    text = report(decided("SUCCEEDED", modelPackages=[candidate(recommended=False)]))
    assert "No candidate is recommended" in text
    assert APPROVE in text


def test_a_refusal_names_grounds_bars_and_the_way_out() -> None:
    text = report(
        decided(
            "REFUSED",
            "CANDIDATE_PENDING",
            estimatedUsd=352.51,
            evidence={"newLabels": 1, "pendingCandidate": PACKAGE},
            rules=[
                {"rule": "ENOUGH_NEW_LABELS", "role": "GROUND", "passed": False, "detail": "1 of 100"},
                {"rule": "CANDIDATE_PENDING", "role": "BAR", "passed": False, "detail": "version 8 waits"},
                {"rule": "COOLDOWN", "role": "BAR", "passed": True, "detail": "it ended"},
            ],
        )
    )
    assert "- not met: ENOUGH_NEW_LABELS: 1 of 100" in text
    assert "- against: CANDIDATE_PENDING: version 8 waits" in text
    assert "- 1 of 2 bars passed" in text
    assert "- a run would cost about 352.51 USD" in text
    assert "- 1 new label\n" in text
    assert APPROVE in text


def test_every_reason_of_the_policy_has_advice() -> None:
    bars = {entry.name for entry in policy.RULES if entry.role == policy.BAR}
    others = {policy.MINIMUM_NEW_LABELS, policy.MINIMUM_PER_CLASS, policy.WAITING_FOR_CAPTURE}
    assert set(ADVICE) == bars | others | {"INVALID_TRIGGER", "CLAIM_FAILED"}


@pytest.mark.parametrize("reason", sorted(ADVICE))
def test_every_refusal_says_what_to_do(reason: str) -> None:
    assert ADVICE[reason] in report(decided("REFUSED", reason))


def test_a_claim_that_failed_says_what_becomes_of_its_trigger() -> None:
    text = report(decided("FAILED", "CLAIM_FAILED", generation="none"))
    assert f"What to do\n- {ADVICE['CLAIM_FAILED']}" in text
    assert "cool-down" not in text


def test_every_outcome_has_words() -> None:
    named = {value for name, value in vars(outcomes).items() if name == value}
    assert named <= set(HEADLINES)
    for outcome in named:
        assert HEADLINES[outcome] in report(decided(outcome))


@pytest.mark.parametrize("outcome", ["FAILED", "STOPPED", "REJECTED_BY_GATE", "COALESCED", "REJECTED"])
def test_what_went_wrong_says_what_to_do(outcome: str) -> None:
    assert "What to do" in report(decided(outcome))


@pytest.mark.parametrize(
    ("outcome", "failure", "days", "code", "news", "starts"),
    [
        ("FAILED", Failure("Failed", "no instance", costless=True), 2, "c1", 0, True),
        ("FAILED", Failure("Failed", "no instance", costless=True), 0.01, "c1", 0, False),
        ("FAILED", Failure("Failed", "out of memory"), 2, "c1", 0, False),
        ("FAILED", Failure("Failed", "out of memory"), 2, "c1", 99, False),
        ("FAILED", Failure("Failed", "out of memory"), 2, "c1", 100, True),
        ("FAILED", Failure("Failed", "out of memory"), 2, "c2", 0, True),
        ("STOPPED", Failure("Stopped", ""), 2, "c1", 0, False),
        ("STOPPED", Failure("Stopped", ""), 2, "c1", 100, True),
    ],
)
def test_the_mail_about_a_failure_says_what_the_policy_does_next(
    outcome: str, failure: Failure, days: float, code: str, news: int, starts: bool
) -> None:
    # Given: what the policy will be asked about the same failure
    last = replace(LAST, started_at=to_iso(NOW - timedelta(days=days)))
    evidence = replace(
        EVIDENCE, last_run=last, last_run_trained=False, last_failure=failure, news_since_failure=news,
        dataset_version="v2" if news else last.dataset_version,
    )  # fmt: skip
    verdict = judge(evidence, replace(POLICY, code_version=code), NOW)
    text = report(decided(outcome, pipelineExecutionArn="arn", costless=failure.costless))
    # Then
    assert (verdict.verdict == START) == starts
    assert ("tries again after the cool-down, at the earliest an hour" in text) == failure.costless
    by_itself = "unless other code is named in TrainingImageUri or MinimumNewLabels labels are new" in text
    assert by_itself == (not failure.costless)
    if not starts:
        assert "start by hand with force" in verdict.message
    assert ('start by hand with {"force": true, "reason": "why"}' in text) == (not failure.costless)


def test_a_run_whose_result_could_not_be_read_is_not_called_new() -> None:
    text = report(decided("FAILED", "DatasetInvalid", pipelineExecutionArn="arn", trained=True))
    assert "Both models were trained; only the result could not be read" in text
    assert "unless other code" not in text


def test_what_never_started_is_looked_at_again() -> None:
    text = report(decided("FAILED", "DatasetInvalid"))
    assert "Nothing was trained: the next trigger, or the sweep, looks at the evidence again" in text


def test_what_a_forced_start_skipped_is_said() -> None:
    trigger = {"id": "a", "kind": "manual", "at": "2026-11-22T10:00:00Z", "detail": "why", "force": True}
    assert "- manual, forced at 2026-11-22 10:00 UTC: why" in report(decided("REFUSED", triggers=[trigger]))


def test_long_things_are_cut_so_that_it_stays_a_mail() -> None:
    text = report(
        decided(
            "REFUSED",
            triggers=[{"id": "a", "kind": "alarm", "at": "2026", "detail": "x" * 512}],
            evidence={
                "newLabels": 900,
                "newPerLabel": {f"class {i}": 9 for i in range(100)},
                "breaches": [{"kind": "alarm", "detail": "y" * 512}] * 20,
                "expired": 2,
            },
        )
    )
    assert "and 88 more classes" in text
    assert "- and 17 more breaches" in text
    assert "truthloop quarantine --reason NO_CAPTURE" in text
    assert max(map(len, text.splitlines())) < 400


def test_an_old_item_that_lacks_everything_is_still_told() -> None:
    assert report({}) == "truthloop: ? (?)"
