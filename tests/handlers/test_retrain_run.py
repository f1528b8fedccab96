"""Preflight to release: each step does the real thing, can be retried, and fails by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError

from tests.handlers.runs import BREACH, finished, keyed, release, started, training_job, training_step
from truthloop.errors import (
    AwsRequestFailed,
    ClaimLost,
    DatasetInvalid,
    ObjectMissing,
    PipelineNotFound,
    PipelineStillRunning,
    StartUnsettled,
    TransientAwsError,
)

BUCKET = "truthloop-data-111122223333-us-east-1"
EXECUTION = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/truthloop-pipeline/execution/abcdefghijkl"


@pytest.fixture
def base(world: Any) -> Any:
    world.put("base/digits.parquet", b"base")
    return world


@pytest.fixture
def claim(base: Any) -> Any:
    return base.claim("one")


@pytest.fixture
def unanswered(base: Any, claim: Any) -> str:
    """Start a pipeline run whose answer is lost, so that the record does not have it; returns its ARN."""
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.lose_answer("sagemaker.StartPipelineExecution")
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    (running,) = pipelines(base)
    base.set_pipeline_status(running["PipelineExecutionArn"], "Executing")
    return str(running["PipelineExecutionArn"])


@pytest.mark.parametrize("function", ["preflight_run", "snapshot_dataset", "start_pipeline", "release_run"])
def test_nobody_acts_without_the_claim(base: Any, function: str) -> None:
    holder = base.claim("one")
    stranger = base.execution("stranger")
    with pytest.raises(ClaimLost):
        base.run(
            function,
            {"execution": stranger, "generation": holder["generation"], "dataset": {}, "outcome": "FAILED"},
        )


# -- start -------------------------------------------------------------------------------------------------


def pipelines(world: Any) -> list[Any]:
    summaries: list[Any] = world.sagemaker.list_pipeline_executions(PipelineName="truthloop-pipeline")[
        "PipelineExecutionSummaries"
    ]
    return summaries


def test_a_start_passes_the_parameters_and_is_written_down(base: Any, claim: Any) -> None:
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
    assert given["ExamplesManifestUri"] == dataset["examplesManifestUri"]
    assert given["CheckpointUri"] == f"s3://{BUCKET}/checkpoints/g00000001"
    assert (given["MaximumClassLoss"], given["TrainingInstanceCount"], given["VolumeSizeGb"]) == (
        "0.1",
        "1",
        "100",
    )
    assert len(given) == 18


def test_each_setting_is_given_under_its_name_and_a_spot_run_the_time_to_wait(base: Any, claim: Any) -> None:
    asked = {
        "trainingInstanceType": "ml.g5.12xlarge",
        "processingInstanceType": "ml.m5.2xlarge",
        "trainingInstanceCount": 2,
        "volumeSizeGb": 210,
        "maxRuntimeSeconds": 100_001,
        "maxWaitSeconds": 200_002,
        "accuracyThreshold": 0.81,
        "improvementMargin": 0.02,
        "maximumClassLoss": 0.13,
        "holdoutShare": 0.24,
        "epochs": 35,
    }
    base.configure("POLICY", useSpotTraining=True, **asked)
    _, start = started(base, claim)
    parameters = base.sagemaker.list_pipeline_parameters_for_execution(
        PipelineExecutionArn=start["pipelineExecutionArn"]
    )["PipelineParameters"]
    given = {item["Name"]: item["Value"] for item in parameters}
    names = {name: name[0].upper() + name[1:] for name in asked}
    assert {name: given[names[name]] for name in asked} == {name: str(value) for name, value in asked.items()}


def test_a_second_start_finds_the_first(base: Any, claim: Any) -> None:
    dataset, start = started(base, claim)
    again = base.run("start_pipeline", keyed(claim, dataset=dataset))
    assert again == {"pipelineExecutionArn": start["pipelineExecutionArn"], "found": True}
    assert len(pipelines(base)) == 1


def test_a_start_whose_answer_is_lost_is_found_by_its_name(base: Any, claim: Any) -> None:
    dataset = base.run("snapshot_dataset", keyed(claim))
    base.lose_answer("sagemaker.StartPipelineExecution")
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    again = base.run("start_pipeline", keyed(claim, dataset=dataset))
    assert again["found"] is True
    assert len(pipelines(base)) == 1


def test_retries_send_the_same_token_of_a_legal_length(base: Any, claim: Any) -> None:
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


def test_no_pipeline_is_said_plainly(base: Any, claim: Any) -> None:
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
    assert not answer["costless"]


def test_a_run_that_never_had_its_instances_says_so_to_the_end(base: Any) -> None:
    taken = "The account-level service limit 'ml.p3.8xlarge for training job usage' is 2 Instances"
    claim = base.claim("one")
    _, start = started(base, claim)
    base.set_pipeline_status(start["pipelineExecutionArn"], "Failed")
    base.answer(
        "sagemaker.ListPipelineExecutionSteps", steps(("TrainNew", "Failed", {"FailureReason": taken}))
    )
    decision = base.run(
        "decide_run", {"generation": claim["generation"], **start, "status": "Failed", "failureReason": "x"}
    )
    assert (decision["outcome"], decision["costless"]) == ("FAILED", True)
    answer = release(base, claim, decision=decision)
    assert "tries again after the cool-down" in answer["report"]


def ended(status: str = "Failed", reason: str | None = None) -> dict[str, Any]:
    given = {"generation": "g00000001", "pipelineExecutionArn": EXECUTION, "status": status}
    return {**given, "failureReason": reason}


@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_a_run_whose_spot_instances_never_came_has_failed_and_cost_nothing(base: Any, status: str) -> None:
    # Given: SageMaker stopped both jobs, and does not say what it calls the steps then
    both = [training_step(name, status) for name in ("TrainOld", "TrainNew")]
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": both})
    asked = base.answer("sagemaker.DescribeTrainingJob", training_job())
    answer = base.run("decide_run", ended(status))
    assert (answer["outcome"], answer["costless"]) == ("FAILED", True)
    assert "step TrainOld failed: no spot instance came within MaxWaitSeconds" in answer["message"]
    assert (answer["billedUsd"], answer["spotSavingsPercent"]) == (0, None)
    names = ["pipelines-x-TrainOld-y", "pipelines-x-TrainNew-y"]
    assert [each["TrainingJobName"] for each in asked] == names


@pytest.mark.parametrize(
    "job",
    [
        training_job(TrainingStartTime=1_795_000_100),
        training_job(BillableTimeInSeconds=1, TrainingTimeInSeconds=5),
        training_job(phases=["Starting", "Downloading", "Training", "Interrupted", "MaxWaitTimeExceeded"]),
        {"Error": {"Code": "ValidationException", "Message": "Requested resource not found."}},
    ],
)
def test_a_job_that_had_an_instance_or_that_nobody_can_describe_has_cost(
    base: Any, job: dict[str, Any]
) -> None:
    step = training_step("TrainNew", "Failed", "CapacityError: …")
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": [step]})
    base.answer("sagemaker.DescribeTrainingJob", job, status=400 if "Error" in job else 200)
    answer = base.run("decide_run", ended())
    assert (answer["outcome"], answer["costless"]) == ("FAILED", False)


def test_what_was_billed_is_in_the_decision_and_told(base: Any) -> None:
    # Given
    claim = base.claim("one")
    _, start = started(base, claim)
    arn = start["pipelineExecutionArn"]
    base.set_pipeline_status(arn, "Succeeded")
    new = base.register(claim["generation"], "new")
    steps_ = [
        training_step("TrainOld", "Succeeded"),
        training_step("TrainNew", "Succeeded"),
        {"StepName": "RegisterNew", "StepStatus": "Succeeded", "Metadata": {"RegisterModel": {"Arn": new}}},
    ]
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": steps_})
    times = {"TrainingTimeInSeconds": 36_000, "BillableTimeInSeconds": 9_000}
    completed = training_job(TrainingJobStatus="Completed", SecondaryStatus="Completed", **times)
    base.answer("sagemaker.DescribeTrainingJob", completed)
    base.put(f"runs/{claim['generation']}/evaluation/evaluation.json", evaluation())
    # When
    decision = base.run("decide_run", keyed(claim, pipelineExecutionArn=arn, status="Succeeded"))
    told = release(base, claim, decision=decision)["report"]
    # Then: five hours at 14.688 USD
    assert (decision["billedUsd"], decision["spotSavingsPercent"]) == (73.44, 75.0)
    (logged,) = base.decisions()
    assert (logged["billedUsd"], logged["spotSavingsPercent"]) == (73.44, 75.0)
    assert logged["estimatedUsd"] == pytest.approx(352.51)  # what the month's cap counts
    assert "- the training was billed about 73.44 USD; 352.51 were estimated" in told
    assert "- spot instances saved 75 % of the training" in told


def test_a_bill_that_cannot_be_read_for_the_moment_is_asked_for_again(base: Any) -> None:
    step = training_step("TrainNew", "Failed", "out of memory")
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": [step]})
    base.fail("sagemaker.DescribeTrainingJob", "ThrottlingException", times=9)
    with pytest.raises(TransientAwsError):
        base.run("decide_run", ended())


def test_a_stopped_run_is_stopped(base: Any) -> None:
    # Given: a person stopped it while it waited for its instances
    step = training_step("TrainNew", "Stopped")
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": [step]})
    waited = training_job(SecondaryStatus="Stopped", phases=["Starting", "Stopping", "Stopped"])
    base.answer("sagemaker.DescribeTrainingJob", waited)
    answer = base.run("decide_run", ended("Stopped"))
    # Then: that nothing was paid is no reason to start it again
    assert (answer["outcome"], answer["costless"], answer["billedUsd"]) == ("STOPPED", False, 0)


def test_a_running_run_is_not_decided(base: Any) -> None:
    _, start = started(base, base.claim("one"))
    with pytest.raises(PipelineStillRunning):
        base.run("decide_run", {"generation": "g00000001", **start, "status": "Executing"})


@pytest.mark.parametrize("content", [b"not json", b'{"version": 3}', b"[]", b'{"version": 2}'])
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
    assert answer.pop("report").startswith("g00000001: did not train (REFUSED, COOLDOWN)")
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


def test_a_retry_of_a_release_gives_the_same_answer_and_one_decision(base: Any, claim: Any) -> None:
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


def test_a_live_pipeline_keeps_the_claim(base: Any, claim: Any) -> None:
    _, start = started(base, claim)
    answer = release(base, claim, error={"Error": "States.Timeout", "Cause": "poll"})
    assert answer["released"] is False
    assert answer["pipelineExecutionArn"] == start["pipelineExecutionArn"]
    assert base.record()["status"] == "CLAIMED"
    assert base.decisions() == []


def test_a_live_pipeline_that_nobody_wrote_down_keeps_the_claim(
    base: Any, claim: Any, unanswered: str
) -> None:
    answer = release(base, claim, error={"Error": "TransientAwsError", "Cause": "x"})
    assert (answer["released"], answer["pipelineExecutionArn"]) == (False, unanswered)
    assert base.record()["lastRun"]["generation"] == "g00000001"


def test_a_start_that_nobody_can_see_yet_keeps_the_claim(base: Any, claim: Any, unanswered: str) -> None:
    # Given: the list of executions does not show it yet
    base.answer("sagemaker.ListPipelineExecutions", {"PipelineExecutionSummaries": []})
    # When / Then
    with pytest.raises(StartUnsettled, match="g00000001"):
        release(base, claim, error={"Error": "Sandbox.Timedout", "Cause": "x"})
    assert base.record()["status"] == "CLAIMED"
    # and when it comes to light, the machine goes back to waiting for it
    base.unhook()
    answer = release(base, claim, error={"Error": "Sandbox.Timedout", "Cause": "x"})
    assert (answer["released"], answer["pipelineExecutionArn"]) == (False, unanswered)


def test_a_start_that_never_came_to_light_is_released_in_the_end(base: Any, claim: Any) -> None:
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


def test_a_failure_is_released_with_lambdas_words(base: Any, claim: Any) -> None:
    cause = json.dumps({"errorMessage": "base/ is empty", "stackTrace": ["long"]})
    answer = release(base, claim, error={"Error": "DatasetInvalid", "Cause": cause})
    assert (answer["outcome"], answer["message"]) == ("FAILED", "DatasetInvalid: base/ is empty")
    assert base.decisions()[0]["reason"] == "DatasetInvalid"


def test_a_decided_run_outlives_an_earlier_error(base: Any, claim: Any) -> None:
    decision = {"outcome": "SUCCEEDED", "message": "good"}
    answer = release(base, claim, outcome="SUCCEEDED", decision=decision, error={"Error": "States.Timeout"})
    assert (answer["outcome"], answer["message"]) == ("SUCCEEDED", "good")
    assert base.decisions()[0]["reason"] == "SUCCEEDED"


def test_pending_triggers_name_the_follow_up_which_takes_them(base: Any, claim: Any) -> None:
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


def test_a_trigger_that_comes_during_the_release_is_not_lost(base: Any, claim: Any) -> None:
    base.fail(
        "dynamodb.TransactWriteItems",
        "TransactionCanceledException",
        CancellationReasons=[{"Code": "TransactionConflict"}, {"Code": "None"}],
    )
    with pytest.raises(TransientAwsError):
        release(base, claim, outcome="FAILED", message="m")
    base.claim("other", BREACH)
    assert release(base, claim, outcome="FAILED", message="m")["followUp"] == "g00000002"


def test_a_lost_condition_is_read_again_by_the_retry(base: Any, claim: Any) -> None:
    base.fail(
        "dynamodb.TransactWriteItems",
        "TransactionCanceledException",
        CancellationReasons=[{"Code": "ConditionalCheckFailed"}, {"Code": "None"}],
    )
    with pytest.raises(TransientAwsError, match="changed during its release"):
        release(base, claim, outcome="FAILED", message="m")
    assert release(base, claim, outcome="FAILED", message="m")["released"]


def test_a_deleted_pipeline_execution_does_not_hold_the_claim_for_ever(base: Any, claim: Any) -> None:
    started(base, claim)
    base.answer("sagemaker.DescribePipelineExecution", {"Error": {"Code": "ResourceNotFound"}}, status=400)
    assert release(base, claim, outcome="FAILED", message="m")["released"]


def test_a_refused_request_is_passed_on_by_its_code(base: Any, claim: Any) -> None:
    base.fail("s3.ListObjectsV2", "AccessDenied", status=403, times=9)
    with pytest.raises(AwsRequestFailed, match="AccessDenied"):
        base.run("preflight_run", keyed(claim))
