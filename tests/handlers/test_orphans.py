"""No pipeline run beside another: runs that nobody waits for are waited for, and what waited is decided."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.handlers.conftest import BUCKET, PIPELINE, TABLE, World
from tests.handlers.conftest import _canned as canned
from truthloop.errors import AwsRequestFailed, InvalidTrigger, StartUnsettled, TransientAwsError

CURRENT = {"pk": {"S": "GENERATION"}, "sk": {"S": "CURRENT"}}
FORCED = {"force": True, "reason": "relabelled"}
SWEEP = {"source": "truthloop.sweep", "detail-type": "Retrain Sweep", "id": "sweep-1", "detail": {}}


def by_hand(world: World, name: str = "from the console") -> str:
    """Start the pipeline as a person does in the console; it goes on until it is told to end."""
    arn: str = world.sagemaker.start_pipeline_execution(
        PipelineName=PIPELINE, PipelineExecutionDisplayName=name, ClientRequestToken=name.ljust(32, "x")
    )["PipelineExecutionArn"]
    world.set_pipeline_status(arn, "Executing")
    return arn


def runs(world: World) -> list[Any]:
    found: list[Any] = world.sagemaker.list_pipeline_executions(PipelineName=PIPELINE)[
        "PipelineExecutionSummaries"
    ]
    return found


def keyed(claim: Any, **more: Any) -> dict[str, Any]:
    return {"execution": claim["holder"], "generation": claim["generation"], **more}


def decide(world: World, claim: Any, arn: str, status: str = "Succeeded", reason: str | None = None) -> Any:
    """End a pipeline run and decide it, as the machine does."""
    world.set_pipeline_status(arn, status, reason)
    if status == "Stopped":  # before its first step: moto knows of no steps
        world.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": []})
    more = {"pipelineExecutionArn": arn, "status": status, "failureReason": reason}
    return world.run("decide_run", keyed(claim, **more))


def release(world: World, claim: Any, decision: Any = None, **parts: Any) -> Any:
    given = dict.fromkeys(("outcome", "message", "preflight", "dataset", "error"))
    return world.run("release_run", keyed(claim, **{**given, "decision": decision, **parts}))


def stored(world: World, generation: str) -> None:
    """Make the dataset of a generation, and lose the table that knows of it."""
    arn = "arn:aws:states:us-east-1:123456789012:execution:truthloop-retrain:lost"
    event = {"execution": arn, "trigger": {}, "startedAt": "2026-11-22T08:00:00Z"}
    claim = world.run("claim_run", event)
    world.run("snapshot_dataset", keyed(claim))
    dataset = json.loads(world.get(f"datasets/{claim['generation']}/dataset.json"))
    for key in world.keys(f"datasets/{claim['generation']}/"):
        world.s3.delete_object(Bucket=BUCKET, Key=key)
    world.put(f"datasets/{generation}/dataset.json", {**dataset, "generation": generation})
    world.dynamodb.delete_item(TableName=TABLE, Key=CURRENT)


@pytest.fixture
def base(world: World) -> World:
    world.put("base/digits.parquet", b"base")
    return world


@pytest.mark.parametrize("trigger", [{}, FORCED, SWEEP])
def test_whoever_claims_waits_for_a_run_that_was_started_by_hand(base: World, trigger: Any) -> None:
    # Given
    arn = by_hand(base)
    # When
    claim = base.claim("one", trigger)
    # Then: nothing but waiting, and the trigger waits too
    assert (claim["outcome"], claim["generation"]) == ("ADOPTED", "g00000001")
    assert (claim["pipelineExecutionArn"], claim["triggers"]) == (arn, [])
    record = base.record()
    assert record["waitsFor"]["displayName"] == "from the console"
    assert (record["triggers"], len(record["pending"])) == ({}, 1)
    assert base.run("claim_run", {**keyed(claim), "trigger": trigger, "startedAt": "2026-11-22T10:00Z"}) == (
        claim
    )
    # When: it ends
    decision = decide(base, claim, arn, "Failed", "out of memory")
    assert decision["outcome"] == "WAITED"
    assert "from the console" in decision["message"]
    assert "ended Failed: out of memory. 1 trigger waits" in decision["message"]
    answer = release(base, claim, decision)
    assert (answer["released"], answer["followUp"]) == (True, "g00000002")
    (logged,) = base.decisions()
    assert (logged["outcome"], logged["pipelineExecutionArn"]) == ("WAITED", arn)
    assert float(logged["estimatedUsd"]) == pytest.approx(352.51)
    assert logged["datasetVersion"] is None
    # Then: the follow-up decides what waited
    follow_up = base.claim("follow-up", SWEEP)
    assert (follow_up["outcome"], follow_up["generation"]) == ("CLAIMED", "g00000002")
    assert "waitsFor" not in base.record()
    kinds = {trigger["kind"] for trigger in follow_up["triggers"]}
    assert ("sweep" if trigger is SWEEP else "manual") in kinds
    verdict = base.run("preflight_run", keyed(follow_up))
    assert verdict["reason"] == {0: "ALL_RULES_PASSED", 2: "FORCED"}.get(len(trigger), "NO_MODEL_YET")
    assert len(runs(base)) == 1


def test_a_generation_that_a_lost_table_has_forgotten_is_decided_as_usual(base: World) -> None:
    # Given
    stored(base, "g00000020")
    arn = by_hand(base, "g00000020")
    # When
    claim = base.claim("one", FORCED)
    # Then: under its own number, so that its results are found
    assert (claim["outcome"], claim["generation"]) == ("ADOPTED", "g00000020")
    assert claim["pipelineExecutionArn"] == arn
    run = base.record()["lastRun"]
    assert (run["generation"], run["codeVersion"]) == ("g00000020", "c1")
    assert run["datasetVersion"] == json.loads(base.get("datasets/g00000020/dataset.json"))["datasetVersion"]
    assert run["datasetUri"].endswith("/datasets/g00000020/")
    # When
    gate = {"StepName": "FailGate", "StepStatus": "Failed", "FailureReason": "0.5 is below 0.85"}
    base.answer("sagemaker.ListPipelineExecutionSteps", {"PipelineExecutionSteps": [gate]})
    decision = decide(base, claim, arn, "Failed")
    assert decision["outcome"] == "REJECTED_BY_GATE"
    assert release(base, claim, decision)["followUp"] == "g00000021"
    # Then
    assert base.record()["lastTrained"]["generation"] == "g00000020"
    assert base.decisions()[0]["datasetVersion"] == run["datasetVersion"]
    assert base.claim("follow-up")["generation"] == "g00000021"


@pytest.mark.parametrize("dataset", [None, b"not a dataset"])
def test_a_run_that_only_has_the_name_of_a_generation_is_waited_for(
    base: World, dataset: bytes | None
) -> None:
    by_hand(base, "g00000020")
    if dataset:
        base.put("datasets/g00000020/dataset.json", dataset)
    claim = base.claim("one")
    assert (claim["outcome"], claim["generation"]) == ("ADOPTED", "g00000001")
    assert base.record()["waitsFor"]["displayName"] == "g00000020"


def test_forgotten_generations_are_decided_in_their_order(base: World) -> None:
    arns = {}
    for generation in ("g00000005", "g00000004"):
        stored(base, generation)
        arns[generation] = by_hand(base, generation)
    by_hand(base)
    for number in (4, 5):
        claim = base.claim(f"claim-{number}")
        assert claim["generation"] == f"g0000000{number}"
        decision = decide(base, claim, arns[claim["generation"]], "Stopped")
        assert release(base, claim, decision)["released"]
    assert base.claim("last")["generation"] == "g00000006"
    assert base.record()["waitsFor"]["displayName"] == "from the console"


def test_a_list_that_lags_behind_keeps_nobody_waiting(base: World) -> None:
    # Given: the list still shows as running what has ended, and one that is gone
    missing = {"Error": {"Code": "ResourceNotFound", "Message": "gone"}}
    arn = by_hand(base)
    base.set_pipeline_status(arn, "Stopped")
    summary = {"PipelineExecutionStatus": "Executing", "PipelineExecutionDisplayName": "x"}
    gone = arn.replace(arn[-12:], "gone00000000")
    base.answer(
        "sagemaker.ListPipelineExecutions",
        {"PipelineExecutionSummaries": [{**summary, "PipelineExecutionArn": a} for a in (arn, gone)]},
    )
    base.hook(
        "before-call.sagemaker.DescribePipelineExecution",
        lambda params, **_: canned(400, missing) if "gone00000000" in str(params["body"]) else None,
    )
    # When / Then
    assert base.claim("one")["outcome"] == "CLAIMED"


def test_a_list_that_cannot_be_had_stops_the_claim(base: World) -> None:
    base.fail("sagemaker.ListPipelineExecutions", "AccessDeniedException", times=9)
    with pytest.raises(AwsRequestFailed, match="AccessDenied"):
        base.claim("one")
    base.unhook()
    base.fail("sagemaker.ListPipelineExecutions", "ThrottlingException", times=9)
    with pytest.raises(TransientAwsError):
        base.claim("two")


def test_without_a_pipeline_there_is_nobody_to_wait_for(base: World) -> None:
    base.answer("sagemaker.ListPipelineExecutions", {"Error": {"Code": "ResourceNotFound"}}, status=400)
    assert base.claim("one")["outcome"] == "CLAIMED"


# -- a run that appears after the claim --------------------------------------------------------------------


def begun(base: World, trigger: Any = None) -> tuple[Any, Any]:
    claim = base.claim("one", trigger)
    return claim, base.run("snapshot_dataset", keyed(claim))


def test_nothing_is_started_beside_a_run_that_came_after_the_claim(base: World) -> None:
    # Given
    claim, dataset = begun(base, FORCED)
    base.claim("other", SWEEP)
    arn = by_hand(base)
    # When
    start = base.run("start_pipeline", keyed(claim, dataset=dataset))
    # Then: the claim waits for it, and both triggers for the next decision
    assert start == {"pipelineExecutionArn": arn, "found": True}
    assert base.run("start_pipeline", keyed(claim, dataset=dataset)) == start
    assert len(runs(base)) == 1
    record = base.record()
    assert (record["triggers"], set(record["pending"])) == ({}, {"one", "sweep-1"})
    assert "starting" not in record
    assert "lastRun" not in record
    # When
    assert release(base, claim, error={"Error": "States.Timeout"})["released"] is False
    decision = decide(base, claim, arn)
    answer = release(
        base, claim, decision, preflight={"verdict": "START", "evidence": {"datasetVersion": "v"}}
    )
    # Then
    assert (answer["outcome"], answer["followUp"]) == ("WAITED", "g00000002")
    assert release(base, claim, decision)["followUp"] == "g00000002"
    assert "lastRun" not in base.record()
    assert base.decisions()[-1]["datasetVersion"] is None
    follow_up = base.claim("follow-up")
    assert base.run("preflight_run", keyed(follow_up))["reason"] == "FORCED"


def test_ones_own_run_that_may_yet_come_to_light_is_not_given_up_for_another(base: World) -> None:
    # Given: the own start got through, its answer did not, and the list does not show it yet
    claim, dataset = begun(base)
    base.lose_answer("sagemaker.StartPipelineExecution")
    with pytest.raises(TransientAwsError):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    (own,) = runs(base)
    base.set_pipeline_status(own["PipelineExecutionArn"], "Executing")
    other = by_hand(base)
    shown = [run for run in runs(base) if run["PipelineExecutionArn"] == other]
    base.answer("sagemaker.ListPipelineExecutions", {"PipelineExecutionSummaries": shown})
    # When / Then
    with pytest.raises(StartUnsettled, match="may yet come to light"):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    base.unhook()
    start = base.run("start_pipeline", keyed(claim, dataset=dataset))
    assert start == {"pipelineExecutionArn": own["PipelineExecutionArn"], "found": True}


@pytest.mark.parametrize("status", ["Executing", "Succeeded"])
def test_a_run_that_a_person_has_named_after_the_generation_is_not_its_own(base: World, status: str) -> None:
    # Given
    claim, dataset = begun(base)
    arn = by_hand(base, claim["generation"])
    base.set_pipeline_status(arn, status)
    # When
    start = base.run("start_pipeline", keyed(claim, dataset=dataset))
    # Then: waited for while it lives, and never taken for what this generation has trained
    assert start["found"] == (start["pipelineExecutionArn"] == arn) == (status == "Executing")
    assert base.record().get("waitsFor", {}).get("pipelineExecutionArn") == (arn if start["found"] else None)


def test_an_own_start_that_never_came_to_light_gives_way_in_the_end(base: World) -> None:
    claim, dataset = begun(base)
    base.fail("sagemaker.StartPipelineExecution", "ResourceLimitExceeded")
    with pytest.raises(AwsRequestFailed):
        base.run("start_pipeline", keyed(claim, dataset=dataset))
    arn = by_hand(base)
    base.later(minutes=4)
    assert base.run("start_pipeline", keyed(claim, dataset=dataset))["pipelineExecutionArn"] == arn


# -- what came too late ------------------------------------------------------------------------------------


def test_a_forced_start_that_takes_a_live_run_over_is_decided_after_it(base: World) -> None:
    # Given: the holder died while its run went on
    claim, dataset = begun(base)
    arn = base.run("start_pipeline", keyed(claim, dataset=dataset))["pipelineExecutionArn"]
    base.set_pipeline_status(arn, "Executing")
    base.end(claim["holder"])
    # When
    taker = base.claim("two", FORCED)
    # Then
    assert (taker["outcome"], taker["pipelineExecutionArn"]) == ("ADOPTED", arn)
    assert [trigger["id"] for trigger in taker["triggers"]] == ["one"]
    assert list(base.record()["pending"]) == ["two"]
    assert release(base, taker, decide(base, taker, arn, "Stopped"))["followUp"] == "g00000002"
    follow_up = base.claim("follow-up")
    assert base.run("preflight_run", keyed(follow_up))["reason"] == "FORCED"


@pytest.mark.parametrize("status", ["Executing", "Succeeded", "Failed"])
def test_a_claim_from_a_backup_finds_the_run_that_it_has_forgotten(base: World, status: str) -> None:
    # Given: the backup was made between the dataset and the start
    claim, dataset = begun(base)
    backup = base.dynamodb.get_item(TableName=TABLE, Key=CURRENT)["Item"]
    arn = base.run("start_pipeline", keyed(claim, dataset=dataset))["pipelineExecutionArn"]
    base.set_pipeline_status(arn, status)
    base.end(claim["holder"])
    base.dynamodb.put_item(TableName=TABLE, Item=backup)
    # When
    taker = base.claim("two", FORCED)
    # Then: it is decided under its own number, and what came after it waits
    assert (taker["outcome"], taker["generation"]) == ("ADOPTED", claim["generation"])
    assert taker["pipelineExecutionArn"] == arn
    assert [trigger["id"] for trigger in taker["triggers"]] == ["one"]
    record = base.record()
    assert list(record["pending"]) == ["two"]
    assert record["lastRun"]["datasetVersion"] == dataset["datasetVersion"]
    assert release(base, taker, decide(base, taker, arn, "Stopped"))["followUp"] == "g00000002"
    assert len(runs(base)) == 1


def spoil(world: World, generation: str) -> None:
    key = f"datasets/{generation}/dataset.json"
    world.put(key, {**json.loads(world.get(key)), "createdAt": "yesterday"})


@pytest.mark.parametrize("why", ["begun before the dataset", "a dataset without a date", "no pipeline"])
def test_a_claim_from_a_backup_takes_no_other_run_for_its_own(base: World, why: str) -> None:
    # Given: a run of this name, which the generation cannot have asked for
    early = by_hand(base, "g00000001")
    base.set_pipeline_status(early, "Succeeded")
    claim, _ = begun(base)
    base.end(claim["holder"])
    if why == "a dataset without a date":
        spoil(base, claim["generation"])
    if why == "no pipeline":
        base.answer("sagemaker.ListPipelineExecutions", {"Error": {"Code": "ResourceNotFound"}}, status=400)
    # When
    taker = base.claim("two")
    # Then
    assert (taker["outcome"], taker["pipelineExecutionArn"]) == ("ADOPTED", None)
    assert {trigger["id"] for trigger in taker["triggers"]} == {"one", "two"}


def test_a_taker_looks_again_when_the_dead_holders_function_starts_a_run_after_all(base: World) -> None:
    # Given: the execution has ended, and the function that it called last does not know
    claim, dataset = begun(base)
    base.end(claim["holder"])
    started: list[Any] = []

    def start_first(**_: Any) -> None:
        if not started:
            started.append(None)
            started.append(base.run("start_pipeline", keyed(claim, dataset=dataset)))
            base.set_pipeline_status(started[1]["pipelineExecutionArn"], "Executing")

    base.hook("before-call.dynamodb.UpdateItem", start_first)
    # When
    taker = base.claim("two", FORCED)
    # Then: its trigger came too late for that run
    assert (taker["outcome"], taker["pipelineExecutionArn"]) == (
        "ADOPTED",
        started[1]["pipelineExecutionArn"],
    )
    assert list(base.record()["pending"]) == ["two"]


def test_an_execution_that_was_coalesced_stays_so_however_late_its_retry_comes(base: World) -> None:
    # Given: the trigger was recorded, the answer lost, and the follow-up has decided
    claim = base.claim("one")
    base.lose_answer("dynamodb.TransactWriteItems")
    arn = base.execution("forced")
    event = {"execution": arn, "trigger": FORCED, "startedAt": "2026-11-22T10:00:00.123Z"}
    with pytest.raises(TransientAwsError):
        base.run("claim_run", event)
    assert release(base, claim, outcome="FAILED", message="m")["followUp"] == "g00000002"
    follow_up = base.claim("follow-up")
    assert {trigger["id"] for trigger in follow_up["triggers"]} == {"forced", "follow-up"}
    release(base, follow_up, outcome="FAILED", message="m")
    record = base.record()
    # When / Then
    assert base.run("claim_run", event)["outcome"] == "COALESCED"
    assert base.record() == record


def test_a_sweep_decides_what_a_follow_up_did_not_live_to_decide(base: World) -> None:
    # Given: a trigger waits on an idle record, and nobody has started the follow-up
    claim = base.claim("one")
    base.claim("other", FORCED)
    assert release(base, claim, outcome="FAILED", message="m")["followUp"] == "g00000002"
    assert base.record()["status"] == "IDLE"
    # When
    sweep = base.claim("sweep", SWEEP)
    # Then
    assert {trigger["kind"] for trigger in sweep["triggers"]} == {"manual", "sweep"}
    assert base.run("preflight_run", keyed(sweep))["reason"] == "FORCED"


def test_a_sweep_that_finds_nothing_to_do_is_refused(base: World) -> None:
    sweep = base.claim("sweep", SWEEP)
    assert sweep["outcome"] == "CLAIMED"
    preflight = base.run("preflight_run", keyed(sweep))
    assert preflight["verdict"] == "REFUSE"
    answer = release(base, sweep, preflight=preflight)
    assert (answer["outcome"], answer["followUp"]) == ("REFUSED", None)


# -- input that is no trigger ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trigger", [[], {"forse": True}, {"force": True}, {"source": "x", "detail": {}}, {"x": "y" * 5000}]
)
def test_input_that_is_no_trigger_claims_nothing_and_is_in_the_log(base: World, trigger: Any) -> None:
    for _ in range(2):
        arn = "arn:aws:states:us-east-1:123456789012:execution:truthloop-retrain:bad"
        event = {"execution": arn, "trigger": trigger, "startedAt": "2026-11-22T10:00:00.123Z"}
        with pytest.raises(InvalidTrigger):
            base.run("claim_run", event)
    (logged,) = base.decisions()
    assert (logged["outcome"], logged["reason"], logged["generation"]) == (
        "INVALID",
        "INVALID_TRIGGER",
        "none",
    )
    assert logged["sk"] == "2026-11-22T10:00:00.123000Z#bad"
    assert json.dumps(trigger)[:20] in logged["message"]
    assert len(logged["message"]) < 1200


def test_an_invalid_input_is_logged_by_the_retry_when_the_first_attempt_could_not(base: World) -> None:
    base.fail("dynamodb.PutItem", "ThrottlingException", times=3)
    with pytest.raises(TransientAwsError):
        base.claim("one", {"forse": True})
    base.unhook()
    arn = base.execution("again")
    with pytest.raises(InvalidTrigger):
        base.run("claim_run", {"execution": arn, "trigger": 7, "startedAt": "2026-11-22T10:00Z"})
    assert [logged["outcome"] for logged in base.decisions()] == ["INVALID"]
