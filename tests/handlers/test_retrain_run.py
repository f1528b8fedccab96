"""Preflight to release: each step does the real thing, can be retried, and fails by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from truthloop.errors import (
    AwsRequestFailed,
    ClaimLost,
    DatasetInvalid,
    ModelPackageInvalid,
    ObjectMissing,
    PipelineNotFound,
    PipelineStillRunning,
    StartUnsettled,
    TransientAwsError,
)

BUCKET = "truthloop-data-111122223333-us-east-1"
EXECUTION = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/truthloop-pipeline/execution/abcdefghijkl"
BREACH = {
    "source": "aws.cloudwatch",
    "detail-type": "CloudWatch Alarm State Change",
    "id": "alarm-1",
    "time": "2026-11-22T10:00:00Z",
    "detail": {"alarmName": "truthloop-accuracy", "state": {"value": "ALARM", "reason": "0.7 < 0.85"}},
}


def keyed(claim: Any, **more: Any) -> dict[str, Any]:
    return {"execution": claim["holder"], "generation": claim["generation"], **more}


def release(world: Any, claim: Any, **parts: Any) -> Any:
    given = dict.fromkeys(("outcome", "message", "preflight", "dataset", "decision", "error"))
    return world.run("release_run", keyed(claim, **{**given, **parts}))


def started(world: Any, claim: Any) -> tuple[Any, Any]:
    """Snapshot and start; the pipeline is executing."""
    dataset = world.run("snapshot_dataset", keyed(claim))
    start = world.run("start_pipeline", keyed(claim, dataset=dataset))
    world.set_pipeline_status(start["pipelineExecutionArn"], "Executing")
    return dataset, start


def finished(world: Any, name: str, outcome: str = "SUCCEEDED", trigger: Any = None) -> Any:
    """Play one whole run; returns its claim."""
    claim = world.claim(name, trigger)
    _, start = started(world, claim)
    status = {"SUCCEEDED": "Succeeded", "FAILED": "Failed"}[outcome]
    world.set_pipeline_status(start["pipelineExecutionArn"], status)
    answer = release(world, claim, outcome=outcome, decision={"outcome": outcome, "message": "m"})
    assert answer["released"]
    return claim


@pytest.fixture
def base(world: Any) -> Any:
    world.put("base/digits.parquet", b"base")
    return world


# -- preflight ---------------------------------------------------------------------------------------------


def test_the_first_run_needs_no_labels(base: Any) -> None:
    verdict = base.run("preflight_run", keyed(base.claim("one")))
    assert (verdict["verdict"], verdict["reason"]) == ("START", "ALL_RULES_PASSED")
    assert verdict["estimatedUsd"] == pytest.approx(352.51)
    assert verdict["approval"] == "manual"
    assert all(rule["passed"] for rule in verdict["rules"])


def test_the_same_evidence_is_refused_and_force_is_not(base: Any) -> None:
    finished(base, "one")
    refused = base.run("preflight_run", keyed(second := base.claim("two")))
    assert (refused["verdict"], refused["reason"]) == ("REFUSE", "SAME_EVIDENCE")
    release(base, second, outcome="REFUSED", preflight=refused)
    forced = base.run("preflight_run", keyed(base.claim("three", {"force": True, "reason": "relabelled"})))
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
    verdict = base.run("preflight_run", keyed(base.claim("follow-up")))
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
    few = base.run("preflight_run", keyed(claim))
    # Then
    assert few["reason"] == "MINIMUM_NEW_LABELS"
    assert few["evidence"]["newLabels"] == 2
    assert few["evidence"]["newPerLabel"] == {"3": 1, "7": 1}
    # When: enough
    base.corrections({"i3": "1"}, key="c")
    assert base.run("preflight_run", keyed(claim))["verdict"] == "START"


def test_a_breach_needs_one_new_label(base: Any) -> None:
    base.register("g00000001", "new", "Approved")
    finished(base, "one")
    claim = base.claim("two", BREACH)
    assert base.run("preflight_run", keyed(claim))["reason"] == "SAME_EVIDENCE"
    base.corrections({"i1": "7"})
    verdict = base.run("preflight_run", keyed(claim))
    assert verdict["verdict"] == "START"
    assert verdict["evidence"]["breaches"][0]["kind"] == "alarm"


def test_a_breach_waits_for_the_candidate_that_awaits_approval(base: Any) -> None:
    base.register("g00000000", "old", "Approved")
    finished(base, "one")
    base.register("g00000001", "new", recommended="true")
    base.corrections({"i1": "7"})
    claim = base.claim("two", BREACH)
    assert base.run("preflight_run", keyed(claim))["reason"] == "CANDIDATE_PENDING"


def test_a_choice_against_the_recommendation_ends_the_wait(base: Any) -> None:
    finished(base, "one")
    base.register("g00000001", "new", recommended="true")
    base.register("g00000001", "old", "Approved")
    base.corrections({"i1": "7"})
    assert base.run("preflight_run", keyed(base.claim("two", BREACH)))["verdict"] == "START"


def test_cooldown_and_cap(base: Any) -> None:
    base.configure("POLICY", cooldownMinutes=60, monthlySpendCapUsd=500)
    base.at(datetime(2026, 11, 22, 12, tzinfo=UTC))
    finished(base, "one")
    base.put("base/more.parquet", b"more")
    base.at(datetime(2026, 11, 22, 12, 59, tzinfo=UTC))
    claim = base.claim("two")
    verdict = base.run("preflight_run", keyed(claim))
    failed = [rule["rule"] for rule in verdict["rules"] if not rule["passed"]]
    assert failed == ["COOLDOWN", "MONTHLY_SPEND_CAP"]
    assert verdict["reason"] == "COOLDOWN"
    assert verdict["evidence"]["spentThisMonthUsd"] == pytest.approx(352.51)
    base.at(datetime(2026, 12, 1, tzinfo=UTC))
    assert base.run("preflight_run", keyed(claim))["verdict"] == "START"


def test_a_failed_run_consumes_no_correction(base: Any) -> None:
    base.register("g00000000", "new", "Approved")
    finished(base, "one")
    base.corrections({"i1": "1", "i2": "2", "i3": "3"})
    finished(base, "two", outcome="FAILED")
    base.corrections({"i4": "4"}, key="later")
    verdict = base.run("preflight_run", keyed(base.claim("three")))
    assert verdict["evidence"]["newLabels"] == 4
    assert verdict["verdict"] == "START"


def test_the_champion_is_what_the_endpoint_serves(base: Any) -> None:
    served = base.register("g00000001", "new", "Approved")
    base.register("g00000002", "new", "Approved")
    deploy(base, served)
    assert base.run("preflight_run", keyed(base.claim("one")))["evidence"]["champion"] == served


def deploy(world: Any, package: str, *, config: str = "by-hand") -> None:
    world.sagemaker.create_model(
        ModelName="m",
        ExecutionRoleArn="arn:aws:iam::1:role/r",
        PrimaryContainer={"ModelPackageName": package},
    )
    world.sagemaker.create_endpoint_config(
        EndpointConfigName=config,
        ProductionVariants=[
            {
                "VariantName": "AllTraffic",
                "ModelName": "m",
                "InstanceType": "ml.g4dn.xlarge",
                "InitialInstanceCount": 1,
                "InitialVariantWeight": 1.0,
            }
        ],
    )
    world.sagemaker.create_endpoint(EndpointName="truthloop-endpoint", EndpointConfigName=config)


@pytest.mark.parametrize("function", ["preflight_run", "snapshot_dataset", "start_pipeline", "release_run"])
def test_nobody_acts_without_the_claim(base: Any, function: str) -> None:
    holder = base.claim("one")
    stranger = base.execution("stranger")
    with pytest.raises(ClaimLost):
        base.run(
            function,
            {"execution": stranger, "generation": holder["generation"], "dataset": {}, "outcome": "FAILED"},
        )


# -- snapshot ----------------------------------------------------------------------------------------------


def test_a_snapshot_holds_the_newest_label_per_id_and_is_the_same_again(base: Any) -> None:
    # Given
    base.corrections({"i1": "7", "i2": "2"}, key="a", sequencer="02")
    base.corrections({"i1": "1"}, key="b", sequencer="03")
    base.put("capture/truthloop-endpoint/AllTraffic/2026/11/22/10/x.jsonl", b"{}")
    base.put("capture/truthloop-endpoint-2/AllTraffic/2026/11/22/10/x.jsonl", b"{}")
    claim = base.claim("one")
    # When
    first = base.run("snapshot_dataset", keyed(claim))
    files = {key: base.get(key) for key in base.keys("datasets/")}
    base.corrections({"i3": "3"}, key="late", sequencer="04")
    again = base.run("snapshot_dataset", keyed(claim))
    # Then
    assert again == first
    assert {key: base.get(key) for key in base.keys("datasets/")} == files
    dataset = json.loads(files["datasets/g00000001/dataset.json"])
    assert dataset["datasetVersion"] == first["datasetVersion"]
    assert dataset["groundTruth"] == {"labels": 2, "new": 2, "perLabel": {"1": 1, "2": 1}}
    assert dataset["champion"] is None
    lines = files["datasets/g00000001/ground-truth.jsonl"].splitlines()
    assert {(x["inferenceId"], x["label"]) for x in map(json.loads, lines)} == {("i1", "1"), ("i2", "2")}
    assert json.loads(files["datasets/g00000001/capture.manifest"]) == [
        {"prefix": f"s3://{BUCKET}/"},
        "capture/truthloop-endpoint/AllTraffic/2026/11/22/10/x.jsonl",
        "datasets/g00000001/dataset.json",
    ]
    assert json.loads(files["datasets/g00000001/champion.manifest"])[1:] == [
        "datasets/g00000001/dataset.json"
    ]


def test_preflight_compares_the_version_that_the_snapshot_then_has(base: Any) -> None:
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    verdict = base.run("preflight_run", keyed(claim))
    snapshot = base.run("snapshot_dataset", keyed(claim))
    assert verdict["evidence"]["datasetVersion"] == snapshot["datasetVersion"]


def test_a_later_snapshot_reads_only_what_is_new(base: Any) -> None:
    # Given
    base.corrections({"a": "1", "b": "2"}, key="early", sequencer="01")
    finished(base, "one")
    (early,) = base.keys("ground-truth/accepted/")
    base.corrections({"b": "3", "c": "4"}, key="late", sequencer="02")
    # When
    seen: list[str] = []
    base.hook("before-call.s3.GetObject", lambda params, **_: seen.append(params["url_path"]))
    dataset = base.run("snapshot_dataset", keyed(base.claim("two")))
    # Then
    assert dataset["labels"] == 3
    read = {path for path in seen if "ground-truth/accepted/" in path}
    assert len(read) == 1
    assert not any(early in path for path in read)
    lines = base.get("datasets/g00000002/ground-truth.jsonl").decode().splitlines()
    assert {line["inferenceId"]: line["label"] for line in map(json.loads, lines)} == {
        "a": "1",
        "b": "3",
        "c": "4",
    }


def test_a_snapshot_that_crashed_halfway_is_finished(base: Any) -> None:
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    base.run("snapshot_dataset", keyed(claim))
    whole = base.get("datasets/g00000001/ground-truth.jsonl")
    for name in ("ground-truth.jsonl", "capture.manifest", "champion.manifest"):
        base.s3.delete_object(Bucket=BUCKET, Key=f"datasets/g00000001/{name}")
    base.run("snapshot_dataset", keyed(claim))
    assert base.get("datasets/g00000001/ground-truth.jsonl") == whole
    assert len(base.keys("datasets/g00000001/")) == 4


def test_the_champion_goes_into_the_snapshot(base: Any) -> None:
    arn = base.register("g00000000", "old", "Approved")
    base.run("snapshot_dataset", keyed(base.claim("one")))
    dataset = json.loads(base.get("datasets/g00000001/dataset.json"))
    assert dataset["champion"]["modelPackageArn"] == arn
    assert json.loads(base.get("datasets/g00000001/champion.manifest"))[1] == (
        "runs/g00000000/models/old/output/model.tar.gz"
    )


def test_a_champion_outside_the_bucket_is_refused_with_what_to_do(base: Any) -> None:
    base.sagemaker.create_model_package(
        ModelPackageGroupName="truthloop-models",
        ModelApprovalStatus="Approved",
        InferenceSpecification={
            "Containers": [{"Image": "i", "ModelDataUrl": "s3://elsewhere/model.tar.gz"}],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    )
    with pytest.raises(ModelPackageInvalid, match="copy it there"):
        base.run("snapshot_dataset", keyed(base.claim("one")))


def test_somebody_elses_file_among_the_accepted_is_found(base: Any) -> None:
    base.put("ground-truth/accepted/2026/11/22/10/foreign.jsonl", b"not a label\n")
    with pytest.raises(DatasetInvalid, match="line 1 of"):
        base.run("snapshot_dataset", keyed(base.claim("one")))


def test_accepted_objects_that_vanish_between_two_attempts_are_found(base: Any) -> None:
    base.corrections({"i1": "7"})
    claim = base.claim("one")
    base.run("snapshot_dataset", keyed(claim))
    (accepted,) = base.keys("ground-truth/accepted/")
    base.put(accepted, b"")
    with pytest.raises(DatasetInvalid, match="promises 1 labels"):
        base.run("snapshot_dataset", keyed(claim))
    base.s3.delete_object(Bucket=BUCKET, Key=accepted)
    with pytest.raises(ObjectMissing):
        base.run("snapshot_dataset", keyed(claim))


# -- start -------------------------------------------------------------------------------------------------


def pipelines(world: Any) -> list[Any]:
    summaries: list[Any] = world.sagemaker.list_pipeline_executions(PipelineName="truthloop-pipeline")[
        "PipelineExecutionSummaries"
    ]
    return summaries


def test_a_start_passes_the_parameters_and_is_written_down(base: Any) -> None:
    claim = base.claim("one")
    dataset, start = started(base, claim)
    assert start["found"] is False
    record = base.record()
    assert record["pipelineExecutionArn"] == start["pipelineExecutionArn"]
    assert record["lastRun"]["datasetVersion"] == dataset["datasetVersion"]
    parameters = base.sagemaker.list_pipeline_parameters_for_execution(
        PipelineExecutionArn=start["pipelineExecutionArn"]
    )["PipelineParameters"]
    given = {item["Name"]: item["Value"] for item in parameters}
    assert given["Generation"] == "g00000001"
    assert given["RunUri"] == f"s3://{BUCKET}/runs/g00000001"
    assert given["Epochs"] == "30"
    assert given["TrainingInstanceType"] == "ml.p3.8xlarge"
    assert len(given) == 13


def test_a_second_start_finds_the_first(base: Any) -> None:
    claim = base.claim("one")
    dataset, start = started(base, claim)
    again = base.run("start_pipeline", keyed(claim, dataset=dataset))
    assert again == {"pipelineExecutionArn": start["pipelineExecutionArn"], "found": True}
    assert len(pipelines(base)) == 1


def test_a_start_whose_answer_is_lost_is_found_by_its_name(base: Any) -> None:
    claim = base.claim("one")
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.lose_answer("sagemaker.StartPipelineExecution")
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    again = base.run("start_pipeline", keyed(claim, dataset=dataset))
    assert again["found"] is True
    assert len(pipelines(base)) == 1


def test_retries_send_the_same_token_of_a_legal_length(base: Any) -> None:
    claim = base.claim("one")
    dataset = base.run("snapshot_dataset", keyed(claim))
    timed_out = ReadTimeoutError(endpoint_url=base.url)
    seen = base.answer("sagemaker.StartPipelineExecution", timed_out)
    for _ in range(2):
        with pytest.raises(TransientAwsError):
            base.run("start_pipeline", keyed(claim, dataset=dataset))
    tokens = {request["ClientRequestToken"] for request in seen}
    assert len(tokens) == 1
    assert 32 <= len(tokens.pop()) <= 128


def test_a_start_that_was_asked_for_is_not_refused_by_the_taker(base: Any) -> None:
    # Given: the holder asked for a start that SageMaker never saw, and ended
    finished(base, "one")
    holder = base.claim("two", {"force": True, "reason": "again"})
    dataset = base.run("snapshot_dataset", keyed(holder))
    base.fail("sagemaker.StartPipelineExecution", "ThrottlingException", times=3)
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(holder, dataset=dataset))
    base.end(holder["holder"])
    # When
    taker = base.claim("taker")
    # Then
    assert (taker["outcome"], taker["pipelineExecutionArn"]) == ("ADOPTED", None)
    verdict = base.run("preflight_run", keyed(taker))
    assert (verdict["verdict"], verdict["reason"]) == ("START", "ALREADY_STARTED")
    assert base.run("snapshot_dataset", keyed(taker)) == dataset


def test_no_pipeline_is_said_plainly(base: Any) -> None:
    claim = base.claim("one")
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.answer("sagemaker.ListPipelineExecutions", {"Error": {"Code": "ResourceNotFound"}}, status=400)
    with pytest.raises(PipelineNotFound, match="truthloop-pipeline"):
        base.run("start_pipeline", keyed(claim, dataset=dataset))


# -- decide ------------------------------------------------------------------------------------------------


def evaluation(recommended: str | None = "new") -> dict[str, Any]:
    return {
        "version": 1,
        "models": {"champion": None, "old": {"accuracy": 0.9}, "new": {"accuracy": 0.97}},
        "recommendation": {
            "candidate": recommended,
            "reason": "new gains +0.07 (95 % interval +0.01 to +0.13)",
        },
    }


def steps(*given: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "PipelineExecutionSteps": [
            {"StepName": name, "StepStatus": status, **more} for name, status, more in given
        ]
    }


def registered(world: Any) -> tuple[str, str]:
    old, new = (world.register("g00000001", candidate) for candidate in ("old", "new"))
    world.answer(
        "sagemaker.ListPipelineExecutionSteps",
        steps(
            ("RegisterOld", "Succeeded", {"Metadata": {"RegisterModel": {"Arn": old}}}),
            ("RegisterNew", "Succeeded", {"Metadata": {"RegisterModel": {"Arn": new}}}),
            ("Evaluate", "Succeeded", {}),
        ),
    )
    return old, new


@pytest.mark.parametrize("approval", ["manual", "auto"])
def test_a_successful_run_is_decided_and_its_packages_annotated(base: Any, approval: str) -> None:
    base.configure("POLICY", approval=approval)
    old, new = registered(base)
    base.put("runs/g00000001/evaluation/evaluation.json", evaluation())
    event = {
        "execution": "e",
        "generation": "g00000001",
        "pipelineExecutionArn": EXECUTION,
        "status": "Succeeded",
        "failureReason": None,
    }
    answer = base.run("decide_run", event)
    if approval == "manual":  # moto forgets the approval status when metadata alone is updated
        assert answer == base.run("decide_run", event)
    assert answer["outcome"] == "SUCCEEDED"
    assert {(p["arn"], p["recommended"], p["accuracy"]) for p in answer["modelPackages"]} == {
        (old, False, 0.9),
        (new, True, 0.97),
    }
    assert answer["approve"] == (new if approval == "auto" else None)
    metadata = base.sagemaker.describe_model_package(ModelPackageName=new)["CustomerMetadataProperties"]
    assert metadata["recommended"] == "true"
    assert metadata["accuracy"] == "0.9700"
    assert metadata["candidate"] == "new"


def test_a_person_who_has_decided_is_not_overruled(base: Any) -> None:
    base.configure("POLICY", approval="auto")
    _, new = registered(base)
    base.sagemaker.update_model_package(
        ModelPackageArn=new,
        ModelApprovalStatus="Rejected",
        CustomerMetadataProperties={"generation": "g00000001", "candidate": "new"},
    )
    base.put("runs/g00000001/evaluation/evaluation.json", evaluation())
    answer = base.run(
        "decide_run", {"generation": "g00000001", "pipelineExecutionArn": EXECUTION, "status": "Succeeded"}
    )
    assert answer["approve"] is None


@pytest.mark.parametrize(
    ("failed", "outcome", "words"),
    [
        (
            [("FailGate", "Failed", {"Metadata": {"Fail": {"ErrorMessage": "best 0.5 is below 0.85"}}})],
            "REJECTED_BY_GATE",
            "best 0.5 is below 0.85",
        ),
        (
            [("TrainNew", "Failed", {"FailureReason": "out of memory"})],
            "FAILED",
            "TrainNew failed: out of memory",
        ),
        ([], "FAILED", "no capacity"),
    ],
)
def test_a_failed_run_says_which_step_and_why(base: Any, failed: Any, outcome: str, words: str) -> None:
    base.answer("sagemaker.ListPipelineExecutionSteps", steps(*failed))
    answer = base.run(
        "decide_run",
        {
            "generation": "g00000001",
            "pipelineExecutionArn": EXECUTION,
            "status": "Failed",
            "failureReason": "no capacity",
        },
    )
    assert answer["outcome"] == outcome
    assert words in answer["message"]


def test_a_stopped_run_is_stopped(base: Any) -> None:
    answer = base.run(
        "decide_run", {"generation": "g00000001", "pipelineExecutionArn": EXECUTION, "status": "Stopped"}
    )
    assert answer["outcome"] == "STOPPED"


def test_a_running_run_is_not_decided(base: Any) -> None:
    _, start = started(base, base.claim("one"))
    with pytest.raises(PipelineStillRunning):
        base.run("decide_run", {"generation": "g00000001", **start, "status": "Executing"})


@pytest.mark.parametrize("content", [b"not json", b'{"version": 2}', b"[]", b'{"version": 1}'])
def test_an_unreadable_evaluation_is_named(base: Any, content: bytes) -> None:
    registered(base)
    event = {"generation": "g00000001", "pipelineExecutionArn": EXECUTION, "status": "Succeeded"}
    with pytest.raises(ObjectMissing):
        base.run("decide_run", event)
    base.put("runs/g00000001/evaluation/evaluation.json", content)
    with pytest.raises(DatasetInvalid, match=r"evaluation\.json"):
        base.run("decide_run", event)


def test_success_without_a_package_is_a_failure(base: Any) -> None:
    base.put("runs/g00000001/evaluation/evaluation.json", evaluation())
    base.answer("sagemaker.ListPipelineExecutionSteps", steps())
    answer = base.run(
        "decide_run", {"generation": "g00000001", "pipelineExecutionArn": EXECUTION, "status": "Succeeded"}
    )
    assert answer["outcome"] == "FAILED"


# -- release -----------------------------------------------------------------------------------------------


def test_a_refusal_is_released_with_its_reason(base: Any) -> None:
    claim = base.claim("one", BREACH)
    preflight = {
        "verdict": "REFUSE",
        "reason": "COOLDOWN",
        "message": "too soon",
        "rules": [{"rule": "COOLDOWN", "passed": False, "detail": "too soon"}],
        "evidence": {"newLabels": 0, "datasetVersion": "v"},
        "estimatedUsd": 352.51,
    }
    answer = release(base, claim, outcome="REFUSED", preflight=preflight)
    assert answer == {
        "released": True,
        "pipelineExecutionArn": None,
        "outcome": "REFUSED",
        "message": "too soon",
        "followUp": None,
    }
    (decision,) = base.decisions()
    assert (decision["outcome"], decision["reason"]) == ("REFUSED", "COOLDOWN")
    assert decision["triggers"][0]["kind"] == "alarm"
    assert base.record()["status"] == "IDLE"
    assert "holder" not in base.record()


def test_a_retry_of_a_release_gives_the_same_answer_and_one_decision(base: Any) -> None:
    claim = base.claim("one")
    _, start = started(base, claim)
    base.set_pipeline_status(start["pipelineExecutionArn"], "Succeeded")
    base.claim("waiting", BREACH)
    base.lose_answer("dynamodb.TransactWriteItems")
    decision = {"outcome": "SUCCEEDED", "message": "good"}
    with pytest.raises(TransientAwsError):
        release(base, claim, decision=decision)
    answer = release(base, claim, decision=decision)
    assert answer == release(base, claim, decision=decision)
    assert answer["followUp"] == "g00000002"
    assert answer["pipelineExecutionArn"] == start["pipelineExecutionArn"]
    assert [d["outcome"] for d in base.decisions()].count("SUCCEEDED") == 1


def test_a_live_pipeline_keeps_the_claim(base: Any) -> None:
    claim = base.claim("one")
    _, start = started(base, claim)
    answer = release(base, claim, error={"Error": "States.Timeout", "Cause": "poll"})
    assert answer["released"] is False
    assert answer["pipelineExecutionArn"] == start["pipelineExecutionArn"]
    assert base.record()["status"] == "CLAIMED"
    assert base.decisions() == []


def test_a_live_pipeline_that_nobody_wrote_down_keeps_the_claim(base: Any) -> None:
    # Given: the start got through, its answer did not, and the machine gave up
    claim = base.claim("one")
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.lose_answer("sagemaker.StartPipelineExecution")
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    (running,) = pipelines(base)
    base.set_pipeline_status(running["PipelineExecutionArn"], "Executing")
    # When
    answer = release(base, claim, error={"Error": "TransientAwsError", "Cause": "x"})
    # Then
    assert (answer["released"], answer["pipelineExecutionArn"]) == (False, running["PipelineExecutionArn"])
    assert base.record()["lastRun"]["generation"] == "g00000001"


def test_a_start_that_nobody_can_see_yet_keeps_the_claim(base: Any) -> None:
    # Given: the start got through, its answer did not, and the list of executions does not show it yet
    claim = base.claim("one")
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.lose_answer("sagemaker.StartPipelineExecution")
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    (running,) = pipelines(base)
    base.set_pipeline_status(running["PipelineExecutionArn"], "Executing")
    base.answer("sagemaker.ListPipelineExecutions", {"PipelineExecutionSummaries": []})
    # When / Then
    with pytest.raises(StartUnsettled, match="g00000001"):
        release(base, claim, error={"Error": "Sandbox.Timedout", "Cause": "x"})
    assert base.record()["status"] == "CLAIMED"
    # and when it comes to light, the machine goes back to waiting for it
    base.unhook()
    answer = release(base, claim, error={"Error": "Sandbox.Timedout", "Cause": "x"})
    assert (answer["released"], answer["pipelineExecutionArn"]) == (False, running["PipelineExecutionArn"])


def test_a_start_that_never_came_to_light_is_released_in_the_end(base: Any) -> None:
    claim = base.claim("one")
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.fail("sagemaker.StartPipelineExecution", "ResourceLimitExceeded")
    with pytest.raises(AwsRequestFailed, match="ResourceLimitExceeded"):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    error = {"Error": "AwsRequestFailed", "Cause": "x"}
    with pytest.raises(StartUnsettled):
        release(base, claim, error=error)
    base.later(minutes=4)
    assert release(base, claim, error=error)["released"]
    assert "startAskedAt" not in base.record()


def test_a_failure_is_released_with_lambdas_words(base: Any) -> None:
    claim = base.claim("one")
    cause = json.dumps({"errorMessage": "base/ is empty", "stackTrace": ["long"]})
    answer = release(base, claim, error={"Error": "DatasetInvalid", "Cause": cause})
    assert (answer["outcome"], answer["message"]) == ("FAILED", "DatasetInvalid: base/ is empty")
    assert base.decisions()[0]["reason"] == "DatasetInvalid"


def test_a_decided_run_outlives_an_earlier_error(base: Any) -> None:
    claim = base.claim("one")
    decision = {"outcome": "SUCCEEDED", "message": "good"}
    answer = release(base, claim, outcome="SUCCEEDED", decision=decision, error={"Error": "States.Timeout"})
    assert (answer["outcome"], answer["message"]) == ("SUCCEEDED", "good")
    assert base.decisions()[0]["reason"] == "SUCCEEDED"


def test_pending_triggers_name_the_follow_up_which_takes_them(base: Any) -> None:
    claim = base.claim("one")
    base.claim("other", BREACH)
    answer = release(base, claim, outcome="FAILED", message="m")
    assert answer["followUp"] == "g00000002"
    follow_up = {
        "source": "truthloop.retrain",
        "detail-type": "Retrain Follow-Up",
        "detail": {"generation": "g00000002"},
    }
    taken = base.claim("follow-up", follow_up)
    assert taken["outcome"] == "CLAIMED"
    assert {trigger["kind"] for trigger in taken["triggers"]} == {"alarm", "follow_up"}
    assert base.record()["pending"] == {}
    # and a late retry of the release starts nobody else
    assert release(base, claim, outcome="FAILED", message="m")["followUp"] is None


def test_a_trigger_that_comes_during_the_release_is_not_lost(base: Any) -> None:
    claim = base.claim("one")
    base.fail(
        "dynamodb.TransactWriteItems",
        "TransactionCanceledException",
        CancellationReasons=[{"Code": "TransactionConflict"}, {"Code": "None"}],
    )
    with pytest.raises(TransientAwsError):
        release(base, claim, outcome="FAILED", message="m")
    base.claim("other", BREACH)
    assert release(base, claim, outcome="FAILED", message="m")["followUp"] == "g00000002"


def test_a_lost_condition_is_read_again_by_the_retry(base: Any) -> None:
    claim = base.claim("one")
    base.fail(
        "dynamodb.TransactWriteItems",
        "TransactionCanceledException",
        CancellationReasons=[{"Code": "ConditionalCheckFailed"}, {"Code": "None"}],
    )
    with pytest.raises(TransientAwsError, match="changed during its release"):
        release(base, claim, outcome="FAILED", message="m")
    assert release(base, claim, outcome="FAILED", message="m")["released"]


def test_a_deleted_pipeline_execution_does_not_hold_the_claim_for_ever(base: Any) -> None:
    claim = base.claim("one")
    started(base, claim)
    base.answer("sagemaker.DescribePipelineExecution", {"Error": {"Code": "ResourceNotFound"}}, status=400)
    assert release(base, claim, outcome="FAILED", message="m")["released"]


def test_a_refused_request_is_passed_on_by_its_code(base: Any) -> None:
    claim = base.claim("one")
    base.fail("s3.ListObjectsV2", "AccessDenied", status=403, times=9)
    with pytest.raises(AwsRequestFailed, match="AccessDenied"):
        base.run("preflight_run", keyed(claim))
