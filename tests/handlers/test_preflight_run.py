"""Preflight: what it gathers, what it asks AWS for, and what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.handlers.conftest import BUCKET, ENDPOINT
from tests.handlers.runs import (
    BREACH,
    deploy,
    finished,
    keyed,
    release,
    started,
    training_job,
    training_step,
)
from truthloop.errors import AwsRequestFailed, DatasetInvalid, InvalidEvent, TransientAwsError
from truthloop.times import to_iso

ALARM = "truthloop-accuracy"
NO_INSTANCES = "ClientError: CapacityError: Unable to provision requested ML compute capacity"
SWEEP = {
    "id": "sweep-1",
    "source": "truthloop.sweep",
    "detail-type": "Retrain Sweep",
    "time": "2026-11-22T12:17:00Z",
    "detail": {},
}


@pytest.fixture
def base(world: Any) -> Any:
    world.put("base/digits.parquet", b"base")
    return world


def failing(verdict: Any) -> list[str]:
    return [rule["rule"] for rule in verdict["rules"] if rule["role"] == "BAR" and not rule["passed"]]


def detail(verdict: Any, rule: str) -> str:
    (found,) = (each["detail"] for each in verdict["rules"] if each["rule"] == rule)
    return str(found)


def preflight(world: Any, claim: Any) -> Any:
    return world.run("preflight_run", keyed(claim))


def test_the_first_run_needs_no_labels(base: Any) -> None:
    verdict = preflight(base, base.claim("one"))
    assert (verdict["verdict"], verdict["reason"]) == ("START", "ALL_RULES_PASSED")
    assert verdict["estimatedUsd"] == pytest.approx(352.51)
    assert verdict["approval"] == "manual"
    assert failing(verdict) == []
    assert [rule["rule"] for rule in verdict["rules"] if rule["role"] == "GROUND" and rule["passed"]] == [
        "FIRST_MODEL"
    ]


def test_the_same_evidence_is_refused_and_force_is_not(base: Any) -> None:
    finished(base, "one")
    refused = preflight(base, second := base.claim("two"))
    assert (refused["verdict"], refused["reason"]) == ("REFUSE", "SAME_EVIDENCE")
    release(base, second, outcome="REFUSED", preflight=refused)
    forced = preflight(base, base.claim("three", {"force": True, "reason": "relabelled"}))
    assert (forced["verdict"], forced["reason"]) == ("START", "FORCED")
    assert not all(rule["passed"] for rule in forced["rules"])


def test_a_forced_start_that_was_sent_twice_trains_once(base: Any) -> None:
    # Given: the second came while the first was under way
    forced = {"force": True, "reason": "relabelled"}
    claim = base.claim("one", forced)
    _, start = started(base, claim)
    assert base.claim("two", forced)["outcome"] == "COALESCED"
    base.set_pipeline_status(start["pipelineExecutionArn"], "Succeeded")
    decision = {"outcome": "SUCCEEDED", "message": "m"}
    assert release(base, claim, decision=decision)["followUp"] == "g00000002"
    # When
    verdict = preflight(base, base.claim("follow-up"))
    # Then
    assert (verdict["verdict"], verdict["reason"]) == ("REFUSE", "SAME_EVIDENCE")


def test_labels_count_once_however_often_they_are_uploaded(base: Any) -> None:
    # Given: a model in service
    base.register("g00000001", "new", "Approved")
    finished(base, "one")
    for key in ("a", "b"):
        base.corrections({"i1": "7", "i2": "3"}, key=key)
    # When
    claim = base.claim("two")
    few = preflight(base, claim)
    # Then
    assert few["reason"] == "MINIMUM_NEW_LABELS"
    assert few["evidence"]["newLabels"] == 2
    assert few["evidence"]["newPerLabel"] == {"3": 1, "7": 1}
    # When: enough
    base.corrections({"i3": "1"}, key="c")
    assert preflight(base, claim)["verdict"] == "START"


def test_a_breach_needs_one_new_label(base: Any) -> None:
    base.register("g00000001", "new", "Approved")
    finished(base, "one")
    claim = base.claim("two", BREACH)
    assert preflight(base, claim)["reason"] == "SAME_EVIDENCE"
    base.corrections({"i1": "7"})
    verdict = preflight(base, claim)
    assert verdict["verdict"] == "START"
    assert verdict["evidence"]["breaches"][0]["kind"] == "alarm"


def test_a_breach_waits_for_the_candidate_that_awaits_approval(base: Any) -> None:
    base.register("g00000000", "old", "Approved")
    finished(base, "one")
    base.register("g00000001", "new", recommended="true")
    base.corrections({"i1": "7"})
    claim = base.claim("two", BREACH)
    assert preflight(base, claim)["reason"] == "CANDIDATE_PENDING"


def test_a_choice_against_the_recommendation_ends_the_wait(base: Any) -> None:
    finished(base, "one")
    base.register("g00000001", "new", recommended="true")
    base.register("g00000001", "old", "Approved")
    base.corrections({"i1": "7"})
    assert preflight(base, base.claim("two", BREACH))["verdict"] == "START"


def test_cooldown_and_cap(base: Any) -> None:
    base.configure("POLICY", cooldownMinutes=60, monthlySpendCapUsd=500)
    base.at(datetime(2026, 11, 22, 12, tzinfo=UTC))
    finished(base, "one")
    base.put("base/more.parquet", b"more")
    base.at(datetime(2026, 11, 22, 12, 59, tzinfo=UTC))
    claim = base.claim("two")
    verdict = preflight(base, claim)
    assert failing(verdict) == ["COOLDOWN", "MONTHLY_SPEND_CAP"]
    assert verdict["reason"] == "COOLDOWN"
    assert verdict["evidence"]["spentThisMonthUsd"] == pytest.approx(352.51)
    base.at(datetime(2026, 12, 1, tzinfo=UTC))
    assert preflight(base, claim)["verdict"] == "START"


def test_a_failed_run_consumes_no_correction(base: Any) -> None:
    base.register("g00000000", "new", "Approved")
    finished(base, "one")
    base.corrections({"i1": "1", "i2": "2", "i3": "3"})
    finished(base, "two", outcome="FAILED")
    base.corrections({"i4": "4", "i1": "9", "i2": "2"}, key="later")
    claim = base.claim("three", BREACH)
    few = preflight(base, claim)
    assert few["evidence"]["newLabels"] == 4
    # But one or two of them do not buy again what has failed: i2 says the same as before.
    assert (few["reason"], few["evidence"]["lastFailure"]["newLabelsSince"]) == ("SAME_EVIDENCE", 2)
    assert "on all but 2 new labels of 3 wanted and failed (out of memory)" in few["message"]
    base.corrections({"i5": "5"}, key="last")
    enough = preflight(base, claim)
    assert (enough["verdict"], enough["evidence"]["newLabels"]) == ("START", 5)


def test_a_failed_runs_dataset_may_be_gone_or_spoilt(base: Any) -> None:
    base.register("g00000000", "new", "Approved")
    base.corrections({"i1": "1"})
    finished(base, "one", outcome="FAILED")
    base.corrections({"i2": "2"}, key="later")
    claim = base.claim("two", BREACH)
    key = "datasets/g00000001/ground-truth.jsonl"
    base.put(key, b"no label")
    with pytest.raises(DatasetInvalid, match=r"line 1 of s3://.*ground-truth.jsonl is no label"):
        preflight(base, claim)
    base.s3.delete_object(Bucket=BUCKET, Key=key)
    gone = preflight(base, claim)
    assert (gone["reason"], gone["evidence"]["lastFailure"]["newLabelsSince"]) == ("SAME_EVIDENCE", None)
    assert "a dataset that is not there any more" in gone["message"]


@pytest.mark.parametrize(("reason", "code"), [(NO_INSTANCES, {}), ("broken", {"codeVersion": "another"})])
def test_a_failed_runs_dataset_is_read_only_when_it_decides(
    base: Any, reason: str, code: dict[str, str]
) -> None:
    finished(base, "one", outcome="FAILED", reason=reason)
    base.corrections({"i1": "1"})
    base.configure("POLICY", **code)
    base.later(hours=2)
    # With or without its dataset: what it was does not matter.
    base.s3.delete_object(Bucket=BUCKET, Key="datasets/g00000001/ground-truth.jsonl")
    verdict = preflight(base, base.claim("two"))
    assert (verdict["verdict"], verdict["evidence"]["lastFailure"]["newLabelsSince"]) == ("START", None)


def test_the_champion_is_what_the_endpoint_serves(base: Any) -> None:
    served = base.register("g00000001", "new", "Approved")
    base.register("g00000002", "new", "Approved")
    deploy(base, served)
    assert preflight(base, base.claim("one"))["evidence"]["champion"] == served


# -- a breach that persists --------------------------------------------------------------------------------


def watched(world: Any) -> Any:
    """Put a model into service, with an accuracy alarm over it."""
    world.configure("POLICY", accuracyAlarmName=ALARM, cooldownMinutes=120)
    deploy(world, world.register("g00000000", "new", "Approved"))
    cloudwatch = world.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName=ALARM,
        Namespace="Truthloop",
        MetricName="Accuracy",
        Dimensions=[{"Name": "EndpointName", "Value": ENDPOINT}],
        Statistic="Minimum",
        Period=3600,
        EvaluationPeriods=1,
        Threshold=0.85,
        ComparisonOperator="LessThanThreshold",
        TreatMissingData="ignore",
    )
    return cloudwatch


def measured(world: Any, cloudwatch: Any, accuracy: float, state: str = "ALARM", **ago: float) -> None:
    """Let the monitor measure, and the alarm go where it goes."""
    cloudwatch.put_metric_data(
        Namespace="Truthloop",
        MetricData=[
            {
                "MetricName": "Accuracy",
                "Dimensions": [{"Name": "EndpointName", "Value": ENDPOINT}],
                "Timestamp": datetime.now(UTC) + timedelta(**ago),
                "Value": accuracy,
            }
        ],
    )
    cloudwatch.set_alarm_state(AlarmName=ALARM, StateValue=state, StateReason="measured")


def test_a_breach_that_persists_starts_again_after_a_run_that_failed(base: Any) -> None:
    # Given: one transition of the alarm, and a run that failed
    cloudwatch = watched(base)
    base.corrections({"i1": "7"})
    measured(base, cloudwatch, 0.7, minutes=1)
    base.later(minutes=5)
    reported = {**BREACH, "time": to_iso(datetime.now(UTC) + timedelta(minutes=2))}
    claim = base.claim("one", reported)
    first = preflight(base, claim)
    assert first["verdict"] == "START"
    assert detail(first, "ACCURACY_BREACH").startswith(f"a breach was reported at {reported['time']}")
    release(base, claim, outcome="REFUSED", preflight=first)
    finished(base, "two", "FAILED", reported, reason=NO_INSTANCES)
    # When: a sweep comes during the cool-down
    base.later(minutes=60)
    early = preflight(base, claim := base.claim("three", SWEEP))
    # Then
    assert failing(early) == ["SAME_EVIDENCE", "COOLDOWN"]
    assert "failed for lack of instances" in early["message"]
    assert "it is tried again from" in early["message"]
    release(base, claim, outcome="REFUSED", preflight=early)
    # When: a sweep comes after it
    base.later(minutes=126)
    again = preflight(base, base.claim("four", SWEEP))
    # Then: the alarm is asked, since its event never comes again
    assert again["verdict"] == "START"
    assert "the alarm truthloop-accuracy is in ALARM: 0.7" in again["message"]
    assert again["evidence"]["alarm"]["breaching"]


def test_an_alarm_that_was_measured_on_the_model_before_starts_nothing(base: Any) -> None:
    # Given: the alarm stays in ALARM after a deployment until the monitor has measured again
    cloudwatch = watched(base)
    base.corrections({"i1": "7"})
    measured(base, cloudwatch, 0.7, minutes=-5)
    base.later(minutes=5)
    # When
    claim = base.claim("one", SWEEP)
    stale = preflight(base, claim)
    # Then
    assert stale["reason"] == "MINIMUM_NEW_LABELS"
    assert "it speaks of the model before" in detail(stale, "ACCURACY_BREACH")
    # When: the monitor has measured the model in service, and it is no better
    measured(base, cloudwatch, 0.6, minutes=2)
    assert preflight(base, claim)["verdict"] == "START"
    # When: it is good after all
    measured(base, cloudwatch, 0.95, minutes=3)
    assert preflight(base, claim)["reason"] == "MINIMUM_NEW_LABELS"
    measured(base, cloudwatch, 0.95, "OK", minutes=4)
    assert "is OK" in detail(preflight(base, claim), "ACCURACY_BREACH")


def test_a_measurement_from_just_before_the_deployment_is_left_out(base: Any) -> None:
    # Given: CloudWatch rounds the start of the span down to a whole period, and answers from there
    cloudwatch = watched(base)
    base.corrections({"i1": "7"})
    measured(base, cloudwatch, 0.7)
    base.later(minutes=5)
    served = base.sagemaker.describe_endpoint(EndpointName=ENDPOINT)["LastModifiedTime"]
    before = {"Timestamp": served - timedelta(seconds=30), "Minimum": 0.7, "Unit": "None"}
    after = {"Timestamp": served + timedelta(seconds=30), "Minimum": 0.6, "Unit": "None"}
    base.answer("cloudwatch.GetMetricStatistics", {"Datapoints": [before]}, {"Datapoints": [after, before]})
    # When
    claim = base.claim("one", SWEEP)
    stale = preflight(base, claim)
    # Then
    assert stale["reason"] == "MINIMUM_NEW_LABELS"
    assert "it speaks of the model before" in detail(stale, "ACCURACY_BREACH")
    assert preflight(base, claim)["evidence"]["alarm"]["value"] == 0.6


def test_without_an_endpoint_or_an_alarm_none_is_asked(base: Any) -> None:
    base.configure("POLICY", accuracyAlarmName=ALARM)
    base.register("g00000000", "new", "Approved")
    asked = base.watch("cloudwatch.DescribeAlarms")
    claim = base.claim("one", SWEEP)
    assert preflight(base, claim)["evidence"]["alarm"] is None
    assert asked == []
    deploy(base, base.register("g00000000", "old", "Approved"))
    assert preflight(base, claim)["evidence"]["alarm"] is None
    assert len(asked) == 1


def test_an_alarm_that_may_not_be_read_is_an_error(base: Any) -> None:
    watched(base)
    base.fail("cloudwatch.DescribeAlarms", "AccessDenied", status=403)
    claim = base.claim("one", SWEEP)
    with pytest.raises(AwsRequestFailed, match="AccessDenied"):
        preflight(base, claim)


def test_a_run_that_was_stopped_is_not_started_again(base: Any) -> None:
    watched(base)
    base.corrections({"i1": "7", "i2": "7", "i3": "7"})
    finished(base, "one", "STOPPED")
    base.later(days=2)
    verdict = preflight(base, base.claim("two", SWEEP))
    assert (verdict["reason"], verdict["evidence"]["lastFailure"]["status"]) == ("SAME_EVIDENCE", "Stopped")
    assert "was stopped" in verdict["message"]


# -- the model's age ---------------------------------------------------------------------------------------


def test_a_model_that_is_too_old_is_not_trained_in_vain_every_day(base: Any) -> None:
    # Given: a model in service that is older than it may become, and a run that brought no better one
    base.configure("POLICY", maximumModelAgeDays=30)
    base.register("g00000000", "new", "Approved")
    base.later(days=31)
    base.corrections({"i1": "7"})
    first = preflight(base, claim := base.claim("one", SWEEP))
    assert (first["verdict"], first["message"][:50]) == (
        "START",
        "started by sweep: the model in service was registe",
    )
    release(base, claim, outcome="REFUSED", preflight=first)
    finished(base, "two", "SUCCEEDED", SWEEP)
    base.corrections({"i2": "7"}, key="later")
    # When: another day, another correction
    base.later(days=33)
    verdict = preflight(base, base.claim("three", SWEEP))
    # Then
    assert verdict["reason"] == "MINIMUM_NEW_LABELS"
    assert "a run that trained was started 2.0 days ago" in detail(verdict, "MODEL_AGE")


# -- the quota ---------------------------------------------------------------------------------------------


def job(name: str, **resources: Any) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "ResourceConfig": {
            "VolumeSizeInGB": 1,
            **(resources or {"InstanceType": "ml.p3.8xlarge", "InstanceCount": 1}),
        },
    }


def training(world: Any, *jobs: dict[str, Any]) -> list[Any]:
    """Let jobs be in progress; returns the requests that describe them."""
    world.answer(
        "sagemaker.ListTrainingJobs",
        {"TrainingJobSummaries": [{"TrainingJobName": each["TrainingJobName"]} for each in jobs]},
    )
    described: list[Any] = world.answer("sagemaker.DescribeTrainingJob", *jobs)
    return described


def quota(world: Any, *pages: dict[str, float], default: dict[str, float] | None = None) -> None:
    """Let Service Quotas list these quotas of training jobs."""

    def page(values: dict[str, float], more: bool = False) -> dict[str, Any]:
        named = [{"QuotaName": f"{kind} for training job usage", "Value": v} for kind, v in values.items()]
        return {"Quotas": named, **({"NextToken": "more"} if more else {})}

    last = len(pages) - 1
    world.answer("service-quotas.ListServiceQuotas", *(page(p, n < last) for n, p in enumerate(pages)))
    world.answer("service-quotas.ListAWSDefaultServiceQuotas", page(default or {}))


def test_the_quota_less_what_trains_now_must_hold_both_jobs(base: Any) -> None:
    quota(base, {"ml.g5.xlarge": 1}, {"ml.p3.8xlarge": 3})
    training(
        base,
        job("cpu", InstanceType="ml.m5.xlarge", InstanceCount=4),
        job("mixed", InstanceGroups=[{"InstanceType": "ml.p3.8xlarge", "InstanceCount": 1}]),
    )
    claim = base.claim("one")
    fits = preflight(base, claim)
    assert fits["verdict"] == "START"
    assert fits["evidence"]["quota"] == {"limit": 3, "inUse": 1, "problem": ""}
    base.unhook()
    quota(base, {"ml.p3.8xlarge": 3})
    training(base, job("a"), job("b"), job("c"))
    full = preflight(base, claim)
    assert (full["verdict"], full["reason"]) == ("REFUSE", "QUOTA")
    assert "the quota is 3 ml.p3.8xlarge in training jobs, 2 of them in use" in full["message"]


def test_what_has_only_a_default_is_found_and_what_is_nowhere_is_not_offered(base: Any) -> None:
    quota(base, {"ml.g5.xlarge": 1}, default={"ml.p3.8xlarge": 0})
    claim = base.claim("one")
    zero = preflight(base, claim)
    assert (zero["reason"], zero["evidence"]["quota"]["limit"]) == ("QUOTA", 0)
    assert "in training jobs is 0" in zero["message"]
    base.new_process()
    base.unhook()
    quota(base, {"ml.g5.xlarge": 1})
    assert "is not offered for training in this region" in preflight(base, claim)["message"]


def test_the_quota_is_asked_for_only_when_a_run_is_wanted_and_its_limit_once(base: Any) -> None:
    asked = base.watch("service-quotas.ListServiceQuotas")
    claim = base.claim("one", SWEEP)
    assert preflight(base, claim)["reason"] == "NO_MODEL_YET"
    assert asked == []
    release(base, claim, outcome="REFUSED")
    claim = base.claim("two")
    for _ in range(3):
        verdict = preflight(base, claim)
        assert verdict["verdict"] == "START"
        assert verdict["evidence"]["quota"] == {"limit": 16, "inUse": 0, "problem": ""}
    assert 1 <= len(asked) <= 4  # pages


@pytest.mark.parametrize(
    ("operation", "limit"),
    [("service-quotas.ListServiceQuotas", None), ("sagemaker.ListTrainingJobs", 16)],
)
def test_what_cannot_be_read_of_the_quota_is_said_and_keeps_nobody_from_training(
    base: Any, operation: str, limit: float | None
) -> None:
    base.fail(operation, "AccessDeniedException", times=9)
    verdict = preflight(base, base.claim("one"))
    assert verdict["verdict"] == "START"
    assert verdict["evidence"]["quota"]["limit"] == limit
    assert "could not be read" in detail(verdict, "QUOTA")
    assert "AccessDeniedException" in detail(verdict, "QUOTA")


def test_a_service_that_does_not_answer_keeps_nobody_from_training(base: Any) -> None:
    base.fail("service-quotas.ListServiceQuotas", "ServiceException", status=503, times=9)
    assert preflight(base, base.claim("one"))["verdict"] == "START"


def test_a_run_that_failed_for_lack_of_capacity_is_tried_again_and_said(base: Any) -> None:
    finished(base, "one", "FAILED", reason=NO_INSTANCES)
    base.later(hours=2)
    verdict = preflight(base, base.claim("two"))
    assert verdict["verdict"] == "START"
    assert "g00000001 got no ml.p3.8xlarge" in detail(verdict, "QUOTA")


def test_a_run_that_trained_one_model_is_not_tried_again_for_the_other_ones_instance(base: Any) -> None:
    # Given: TrainNew ran for a day, and TrainOld never began
    finished(base, "one", "FAILED", reason=NO_INSTANCES)
    base.unhook()
    steps = [
        {"StepName": "TrainOld", "StepStatus": "Failed", "FailureReason": NO_INSTANCES},
        {"StepName": "TrainNew", "StepStatus": "Succeeded"},
    ]
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": steps})
    base.later(days=2)
    # When
    verdict = preflight(base, base.claim("two"))
    # Then
    assert verdict["reason"] == "SAME_EVIDENCE"
    assert verdict["evidence"]["lastFailure"] == {
        "status": "Failed",
        "reason": NO_INSTANCES,
        "costless": False,
        "newLabelsSince": 0,
    }


@pytest.mark.parametrize("outcome", ["FAILED", "STOPPED"])
def test_a_run_whose_spot_instances_never_came_is_tried_again_after_the_cool_down(
    base: Any, outcome: str
) -> None:
    # Given: both jobs ended Stopped, by MaxWaitTimeExceeded; nobody wrote down what the pipeline says then
    base.configure("POLICY", useSpotTraining=True, cooldownMinutes=1440)
    finished(base, "one", outcome)
    base.unhook()
    status = "Failed" if outcome == "FAILED" else "Stopped"
    both = [training_step(name, status) for name in ("TrainOld", "TrainNew")]
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": both})
    base.answer("sagemaker.DescribeTrainingJob", training_job())
    # When / Then
    base.later(hours=23)
    claim = base.claim("two")
    early = preflight(base, claim)
    assert early["reason"] == "SAME_EVIDENCE"
    assert "failed for lack of instances (no spot instance came within MaxWaitSeconds" in early["message"]
    assert early["evidence"]["lastFailure"]["costless"]
    base.later(hours=25)
    assert preflight(base, claim)["verdict"] == "START"


def test_a_spot_run_that_trained_until_its_time_was_over_is_left_to_a_person(base: Any) -> None:
    finished(base, "one", "FAILED", reason="MaxWaitTimeExceeded")
    base.unhook()
    steps = [training_step(name, "Failed", "MaxWaitTimeExceeded") for name in ("TrainOld", "TrainNew")]
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": steps})
    seconds = {"TrainingTimeInSeconds": 90_000, "BillableTimeInSeconds": 30_000}
    base.answer("sagemaker.DescribeTrainingJob", training_job(), training_job(**seconds))
    base.later(days=9)
    verdict = preflight(base, base.claim("two"))
    assert (verdict["verdict"], verdict["reason"]) == ("REFUSE", "SAME_EVIDENCE")
    assert not verdict["evidence"]["lastFailure"]["costless"]


def test_why_a_run_failed_may_stay_unknown(base: Any) -> None:
    finished(base, "one", "FAILED")
    base.later(hours=2)
    claim = base.claim("two")
    base.fail("sagemaker.DescribePipelineExecution", "ResourceNotFound")
    assert preflight(base, claim)["evidence"]["lastFailure"]["status"] == "Unknown"
    base.unhook()
    base.fail("sagemaker.ListPipelineExecutionSteps", "AccessDeniedException", times=9)
    verdict = preflight(base, claim)
    assert verdict["reason"] == "SAME_EVIDENCE"  # what may have cost a day is not paid for again unseen
    assert "AccessDeniedException" in verdict["evidence"]["lastFailure"]["reason"]
    base.fail("sagemaker.DescribePipelineExecution", "ThrottlingException", times=9)
    with pytest.raises(TransientAwsError):
        preflight(base, claim)


# -- image and classes -------------------------------------------------------------------------------------


def test_an_image_without_kernels_for_the_gpu_is_refused(base: Any) -> None:
    base.configure("POLICY", trainingImageArchitectures=["sm_75", "sm_90"])
    verdict = preflight(base, base.claim("one"))
    assert verdict["reason"] == "IMAGE_GPU"
    assert "4 × V100 (sm_70), and the training image has no kernels for it" in verdict["message"]


def test_each_class_of_the_served_model_is_counted(base: Any) -> None:
    base.configure("POLICY", minimumNewLabels=2, minimumNewLabelsPerClass=1)
    key = "runs/g00000000/evaluation/labels.json"
    base.register("g00000000", "new", "Approved", labelsUri=f"s3://{BUCKET}/{key}")
    base.put(key, ["1", "3", "7"])
    base.corrections({"i1": "7", "i2": "3"})
    claim = base.claim("one", SWEEP)
    few = preflight(base, claim)
    assert few["reason"] == "MINIMUM_PER_CLASS"
    assert "1 of 3 classes have fewer: 1 (0)" in few["message"]
    base.corrections({"i3": "1"}, key="more")
    assert preflight(base, claim)["verdict"] == "START"


@pytest.mark.parametrize(
    "uri", ["", "s3://another-bucket/labels.json", "s3://{bucket}/runs/none/labels.json"]
)
def test_a_package_whose_labels_are_not_known_is_judged_by_the_total(base: Any, uri: str) -> None:
    base.configure("POLICY", minimumNewLabels=1, minimumNewLabelsPerClass=1)
    metadata = {"labelsUri": uri.format(bucket=BUCKET)} if uri else {}
    base.corrections({"i1": "7"})
    base.register("g00000000", "new", "Approved", **metadata)
    verdict = preflight(base, base.claim("one", SWEEP))
    assert verdict["verdict"] == "START"
    assert "only the total was judged" in detail(verdict, "ENOUGH_NEW_LABELS")


@pytest.mark.parametrize("content", [b"{", b"{}", b"[1]"])
def test_labels_that_cannot_be_read_are_not_known_either(base: Any, content: bytes) -> None:
    base.configure("POLICY", minimumNewLabels=1, minimumNewLabelsPerClass=1)
    base.corrections({"i1": "7"})
    base.register("g00000000", "new", "Approved", labelsUri=f"s3://{BUCKET}/runs/g/labels.json")
    base.put("runs/g/labels.json", content)
    verdict = preflight(base, base.claim("one", SWEEP))
    assert verdict["verdict"] == "START"
    assert "only the total was judged" in detail(verdict, "ENOUGH_NEW_LABELS")


# -- waiting -----------------------------------------------------------------------------------------------


def test_labels_are_waited_for_until_their_predictions_are_captured(base: Any) -> None:
    base.register("g00000000", "new", "Approved")
    base.corrections({"i1": "7", "i2": "3"})
    base.corrections({"i3": "1"}, key="late", capture=False)
    claim = base.claim("one", SWEEP)
    waits = preflight(base, claim)
    assert (waits["verdict"], waits["reason"]) == ("WAIT", "WAITING_FOR_CAPTURE")
    assert waits["evidence"]["waitingPerLabel"] == {"1": 1}
    base.captures("i3")
    assert preflight(base, claim)["verdict"] == "START"


def test_a_wait_ends_half_an_hour_after_the_claim(base: Any) -> None:
    base.register("g00000000", "new", "Approved")
    base.corrections({"i1": "7", "i2": "3", "i3": "1"}, capture=False)
    claim = base.claim("one", SWEEP)
    base.later(minutes=29)
    assert preflight(base, claim)["verdict"] == "WAIT"
    base.later(minutes=31)
    assert preflight(base, claim)["reason"] == "NO_NEW_LABELS"


def test_a_forced_start_does_not_wait_for_somebody_elses_captures(base: Any) -> None:
    # Given
    base.register("g00000000", "new", "Approved")
    base.corrections({"i1": "7", "i2": "3", "i3": "1"}, capture=False)
    claim = base.claim("one", SWEEP)
    assert preflight(base, claim)["verdict"] == "WAIT"
    # When: a person starts it, by force
    assert base.claim("two", {"force": True, "reason": "now"})["outcome"] == "COALESCED"
    # Then: this claim ends at its next look, and the next decides at once
    ends = preflight(base, claim)
    assert ends["verdict"] == "REFUSE"
    assert "A forced start waits" in ends["message"]
    assert release(base, claim, outcome="REFUSED", preflight=ends)["followUp"] == "g00000002"
    forced = preflight(base, base.claim("follow-up"))
    assert (forced["verdict"], forced["reason"]) == ("START", "FORCED")


def test_a_claim_that_was_taken_over_after_a_start_is_not_judged_again(base: Any) -> None:
    claim = base.claim("one")
    started(base, claim)
    base.later(minutes=1)
    assert preflight(base, claim)["reason"] == "ALREADY_STARTED"


def test_what_is_no_claim_is_named(base: Any) -> None:
    with pytest.raises(InvalidEvent, match="generation"):
        base.run("preflight_run", {"execution": "arn", "generation": 7})
