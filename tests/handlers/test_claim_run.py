"""The one gate: take, join, take over, adopt; and that it survives races, retries and a moody AWS."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectTimeoutError

from truthloop.errors import AwsRequestFailed, TransientAwsError

EVENTS = Path(__file__).resolve().parents[2] / "events"


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def again(world: Any, claim: Any, execution: str, trigger: Any = None) -> Any:
    return world.run(
        "claim_run",
        {
            "execution": execution,
            "trigger": trigger if trigger is not None else {},
            "startedAt": "2026-11-22T10:00:00.123Z",
        },
    )


def test_first_claim_is_generation_1(world: Any) -> None:
    # When
    claim = world.claim("first")
    # Then
    assert claim["outcome"] == "CLAIMED"
    assert claim["generation"] == "g00000001"
    assert claim["holder"].endswith(":first")
    assert claim["pipelineExecutionArn"] is None
    assert [trigger["kind"] for trigger in claim["triggers"]] == ["manual"]
    record = world.record()
    assert (record["generation"], record["status"], record["holder"]) == (1, "CLAIMED", claim["holder"])


def test_a_retry_gives_the_same_answer(world: Any) -> None:
    first = world.claim("first")
    before = world.record()
    assert again(world, first, first["holder"]) == first
    assert world.record() == before


def test_an_answer_lost_after_acceptance_is_found_by_the_retry(world: Any) -> None:
    world.lose_answer("dynamodb.UpdateItem")
    arn = world.execution("first")
    with pytest.raises(TransientAwsError):
        again(world, None, arn)
    assert again(world, None, arn)["outcome"] == "CLAIMED"
    assert world.record()["generation"] == 1


@pytest.mark.parametrize(
    "name",
    [
        "s3_constraint_violations",
        "alarm_accuracy_breached",
        "scheduled_sweep",
        "codebuild_succeeded",
        "ground_truth_accepted",
        "retrain_follow_up",
        "manual_retrain_forced",
    ],
)
def test_every_trigger_is_recorded_with_a_live_holder(world: Any, name: str) -> None:
    # Given
    holder = world.claim("holder")
    # When
    other = world.claim("other", event(name))
    # Then
    assert other["outcome"] == "COALESCED"
    assert other["holder"] == holder["holder"]
    assert list(world.record()["pending"]) == [other["triggers"][0]["id"]]
    (decision,) = world.decisions()
    assert decision["outcome"] == "COALESCED"
    assert decision["triggers"][0]["id"] == other["triggers"][0]["id"]
    assert decision["sk"] == "2026-11-22T10:00:00.123000Z#other"


def test_the_same_event_twice_is_one_pending_trigger_and_two_decided_executions(world: Any) -> None:
    world.claim("holder")
    world.claim("one", event("alarm_accuracy_breached"))
    world.claim("two", event("alarm_accuracy_breached"))
    assert len(world.record()["pending"]) == 1
    assert {d["execution"].rsplit(":", 1)[1] for d in world.decisions()} == {"one", "two"}


def test_a_retried_coalesced_claim_changes_nothing(world: Any) -> None:
    world.claim("holder")
    first = world.claim("other", event("scheduled_sweep"))
    record, decisions = world.record(), world.decisions()
    arn = decisions[0]["execution"]
    assert again(world, first, arn, event("scheduled_sweep")) == first
    assert (world.record(), world.decisions()) == (record, decisions)


@pytest.mark.parametrize("generation", [0, 7])
def test_claims_at_the_same_time_have_one_winner(world: Any, generation: int) -> None:
    # Given
    if generation:
        world.dynamodb.put_item(
            TableName="truthloop-loop",
            Item={
                "pk": {"S": "GENERATION"},
                "sk": {"S": "CURRENT"},
                "generation": {"N": str(generation)},
                "status": {"S": "IDLE"},
                "triggers": {"M": {}},
                "pending": {"M": {}},
            },
        )
    # When
    with ThreadPoolExecutor(6) as pool:
        claims = list(pool.map(lambda i: world.claim(f"racer-{i}"), range(6)))
    # Then
    outcomes = sorted(claim["outcome"] for claim in claims)
    assert outcomes == ["CLAIMED"] + ["COALESCED"] * 5
    record = world.record()
    assert record["generation"] == generation + 1
    ids = {trigger["id"] for claim in claims for trigger in claim["triggers"]}
    assert ids == {f"racer-{i}" for i in range(6)} == set(record["triggers"]) | set(record["pending"])


def test_a_generation_whose_dataset_exists_is_never_claimed_again(world: Any) -> None:
    # Given: the bucket was kept, and the table restored from a backup or made anew
    for generation in ("g00000001", "g00000002", "g00000004"):
        world.put(f"datasets/{generation}/dataset.json", b"{}")
    # When / Then
    first = world.claim("first")
    assert (first["outcome"], first["generation"]) == ("CLAIMED", "g00000003")
    assert again(world, first, first["holder"]) == first


def test_hundreds_of_triggers_during_a_run_fit_into_the_record(world: Any) -> None:
    # Given
    world.claim("holder")
    for number in range(60):
        event_ = {**event("ground_truth_accepted"), "id": f"event-{number}"}
        world.run(
            "claim_run", {"execution": f"a:{number}", "trigger": event_, "startedAt": "2026-11-22T10:00Z"}
        )
    # Then: each is in the log, and the record names what there was
    assert len(world.decisions()) == 60
    pending = world.record()["pending"]
    assert len(pending) == 51
    assert pending["more-ground_truth"]["kind"] == "ground_truth"


def test_a_claim_does_not_expire_by_time(world: Any) -> None:
    world.claim("holder")
    world.later(days=300)
    assert world.claim("other")["outcome"] == "COALESCED"


def test_an_ended_holder_is_taken_over_in_the_same_generation(world: Any) -> None:
    # Given
    holder = world.claim("holder", event("alarm_accuracy_breached"))
    world.claim("waiting", event("scheduled_sweep"))
    world.end(holder["holder"])
    # When
    taker = world.claim("taker")
    # Then
    assert taker["outcome"] == "ADOPTED"
    assert taker["generation"] == holder["generation"]
    assert {t["kind"] for t in taker["triggers"]} == {"alarm", "manual"}
    assert [t["kind"] for t in world.record()["pending"].values()] == ["sweep"]
    assert again(world, taker, taker["holder"]) == taker


def test_a_taker_adopts_the_pipeline_that_the_record_names(world: Any) -> None:
    holder = world.claim("holder")
    arn = start(world, holder)
    world.end(holder["holder"])
    assert world.claim("taker")["pipelineExecutionArn"] == arn


def test_a_taker_finds_a_pipeline_that_the_holder_did_not_live_to_write_down(world: Any) -> None:
    # Given: the holder died between StartPipelineExecution and its note of it
    holder = world.claim("holder")
    with pytest.raises(TransientAwsError):
        start(world, holder, lose="dynamodb.UpdateItem")
    world.end(holder["holder"])
    # When
    taker = world.claim("taker")
    # Then
    assert taker["pipelineExecutionArn"] is not None
    assert world.record()["lastRun"]["pipelineExecutionArn"] == taker["pipelineExecutionArn"]
    assert world.record()["lastRun"]["datasetVersion"] == "v1"


def start(world: Any, claim: Any, lose: str | None = None) -> str:
    dataset = {
        "datasetUri": "s3://b/datasets/g/",
        "datasetVersion": "v1",
        "captureManifestUri": "s3://b/c",
        "examplesManifestUri": "s3://b/e",
        "championManifestUri": "s3://b/m",
    }
    if lose:
        # the note of the intent gets through; the note of the pipeline execution does not
        seen = [0]

        def second(**_: Any) -> None:
            seen[0] += 1
            if seen[0] == 2:
                raise ConnectTimeoutError(endpoint_url=world.url)

        world.hook(f"before-call.{lose}", second)
    answer = world.run(
        "start_pipeline",
        {"execution": claim["holder"], "generation": claim["generation"], "dataset": dataset},
    )
    arn: str = answer["pipelineExecutionArn"]
    return arn


def test_a_claim_passes_on_although_the_pipeline_is_gone(world: Any) -> None:
    holder = world.claim("holder")
    world.end(holder["holder"])
    world.answer("sagemaker.ListPipelineExecutions", {"Error": {"Code": "ResourceNotFound"}}, status=400)
    taker = world.claim("taker")
    assert (taker["outcome"], taker["pipelineExecutionArn"]) == ("ADOPTED", None)


def test_two_takers_have_one_winner(world: Any) -> None:
    holder = world.claim("holder")
    world.end(holder["holder"])
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(lambda i: world.claim(f"taker-{i}"), range(4)))
    assert sorted(claim["outcome"] for claim in claims) == ["ADOPTED"] + ["COALESCED"] * 3
    assert world.record()["generation"] == 1


def test_an_unknown_holder_is_only_taken_over_when_its_claim_is_not_fresh(world: Any) -> None:
    # Given: DescribeExecution is eventually consistent
    ghost = world.machine.replace(":stateMachine:", ":execution:") + ":ghost"
    again(world, None, ghost)
    # Then
    assert world.claim("soon")["outcome"] == "COALESCED"
    world.later(minutes=6)
    assert world.claim("late")["outcome"] == "ADOPTED"


@pytest.mark.parametrize(
    ("operation", "code", "status"),
    [
        ("dynamodb.GetItem", "ThrottlingException", 400),
        ("dynamodb.UpdateItem", "ProvisionedThroughputExceededException", 400),
        ("dynamodb.UpdateItem", "InternalServerError", 500),
    ],
)
def test_throttling_is_named_once_for_the_state_machine(
    world: Any, operation: str, code: str, status: int
) -> None:
    injected = world.fail(operation, code, status=status, times=50)
    with pytest.raises(TransientAwsError):
        world.claim("first")
    assert injected() >= 1


def test_a_storm_of_lost_races_ends_as_transient(world: Any) -> None:
    world.fail("dynamodb.UpdateItem", "ConditionalCheckFailedException", times=100)
    with pytest.raises(TransientAwsError, match="lost the race"):
        world.claim("first")


def test_a_lost_race_is_looked_at_again(world: Any) -> None:
    world.fail("dynamodb.UpdateItem", "ConditionalCheckFailedException", times=2)
    assert world.claim("first")["outcome"] == "CLAIMED"


def test_a_holder_that_cannot_be_asked_about_is_not_taken_over(world: Any) -> None:
    world.claim("holder")
    world.fail("sfn.DescribeExecution", "AccessDeniedException", times=50)
    with pytest.raises(AwsRequestFailed, match="AccessDenied"):
        world.claim("other")
