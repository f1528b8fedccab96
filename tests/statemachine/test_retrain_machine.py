"""Every path of the retrain machine, taken by the shipped definition on the embedded Step Functions."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from local.stepfunctions.jsonata import evaluate_template, to_jsonata
from tests.statemachine import machines
from tests.statemachine.stage import (
    CANDIDATE,
    DIES,
    EXECUTION,
    FAILED_RUN,
    HANGS,
    LONG_RUN,
    SCENARIO,
    TRAINED_RUN,
    Played,
    Plays,
    Scene,
    Script,
    breaches,
    raises,
    registrar,
)
from truthloop.aws.attributes import from_attribute, to_item
from truthloop.retraining.decision import Decision
from truthloop.retraining.report import ADVICE, report
from truthloop.retraining.triggers import parse_trigger
from truthloop.times import from_iso, to_iso

MACHINE = "retrain"
SCENARIOS: dict[str, Script] = {}
scenario = registrar(SCENARIOS)

EVENTS = machines.ROOT / "events"
GENERATION = "g00000007"
CALL = {"execution": EXECUTION, "generation": GENERATION}
HOLDER = f"arn:aws:states:us-east-1:123456789012:execution:{SCENARIO}:another"
NO_RUN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/gone/execution/aaaaaaaaaaaa"
NO_PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/gone/1"
DATASET = {
    "datasetUri": "s3://bucket/datasets/g00000007/",
    "datasetVersion": "ab" * 32,
    "captureManifestUri": "s3://bucket/datasets/g00000007/capture.manifest",
    "examplesManifestUri": "s3://bucket/datasets/g00000007/examples.manifest",
    "championManifestUri": "s3://bucket/datasets/g00000007/champion.manifest",
    "labels": 160,
}
THROTTLED = raises("TransientAwsError", "DynamoDB throttled the request.")
LOST = raises("ClaimLost", "Another execution holds generation g00000007.")
LINE = [
    "claim_run",
    "preflight_run",
    "snapshot_dataset",
    "start_pipeline",
    "decide_run",
    "release_run",
]


def event(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def logged(given: Any) -> Any:
    """Return the trigger that the machine logs of an input whose claim has failed."""
    arguments = machines.shipped(MACHINE)["States"]["RecordFailedClaim"]["Arguments"]
    (trigger,) = arguments["Item"]["triggers"]["L"]
    execution = {"Name": "run", "StartTime": "2026-11-22T10:00:00.123Z"}
    states = to_jsonata({"input": given, "context": {"Execution": execution}})
    return from_attribute(evaluate_template(trigger, {"states": states}, "triggers"))


def claimed(outcome: str = "CLAIMED", run: str | None = None) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "generation": GENERATION,
        "holder": HOLDER,
        "pipelineExecutionArn": run,
        "triggers": [{"id": "run", "kind": "manual", "at": "2026-11-22T10:00:00.000000Z"}],
    }


def preflight(verdict: str = "START", approval: str = "manual") -> dict[str, Any]:
    start = verdict == "START"
    return {
        "verdict": verdict,
        "reason": {"START": "ALL_RULES_PASSED", "WAIT": "WAITING_FOR_CAPTURE"}.get(verdict, "COOLDOWN"),
        "message": "160 new labels." if start else "The last run began an hour ago.",
        "rules": [{"rule": "COOLDOWN", "role": "BAR", "passed": start, "detail": "one hour"}],
        "evidence": {"newLabels": 160},
        "estimatedUsd": 352.5,
        "approval": approval,
    }


def decided(outcome: str = "SUCCEEDED", approve: str | None = None) -> dict[str, Any]:
    good = outcome == "SUCCEEDED"
    package = {"arn": approve, "candidate": "new", "recommended": True, "accuracy": 0.97}
    return {
        "outcome": outcome,
        "message": "The new model is better." if good else f"The run is {outcome}.",
        "modelPackages": [package] if approve else [],
        "approve": approve,
        "costless": False,
        "billedUsd": 98.7,
        "spotSavingsPercent": None,
    }


def released(
    outcome: str = "SUCCEEDED",
    message: str = "The new model is better.",
    follow_up: str | None = None,
    run: str | None = TRAINED_RUN,
) -> dict[str, Any]:
    return {
        "released": True,
        "pipelineExecutionArn": run,
        "outcome": outcome,
        "message": message,
        "report": report_of(message),
        "followUp": follow_up,
    }


def report_of(message: str) -> str:
    """What release_run says of a decision in plain words; the mail is this, not the message."""
    return f"g00000007: {message}\n\nEvidence\n- 160 new labels"


def still_live(run: str = TRAINED_RUN) -> dict[str, Any]:
    return {**released("FAILED", "The run is still live.", run=run), "released": False}


BEGIN: dict[str, list[Any]] = {
    "claim_run": [claimed()],
    "preflight_run": [preflight()],
    "snapshot_dataset": [DATASET],
    "start_pipeline": [{"pipelineExecutionArn": TRAINED_RUN, "found": False}],
}
COALESCED = claimed("COALESCED")


def release_of(run: Played) -> dict[str, Any]:
    """Return what release_run was told, once."""
    (given,) = run.inputs("release_run")
    assert set(given) == {
        "execution",
        "generation",
        "outcome",
        "message",
        "preflight",
        "dataset",
        "decision",
        "error",
    }
    assert (given["execution"], given["generation"]) == (EXECUTION, GENERATION)
    return dict(given)


def failed(run: Played, outcome: str, message: str, *, released: bool = True) -> None:
    """The execution failed visibly under its outcome's name, and said so."""
    assert (run.status, run.error, run.cause) == ("FAILED", f"Retrain.{outcome}", message)
    told_in_mail = report_of(message) if released else message
    assert run.notices == [(f"truthloop: retrain {GENERATION} {outcome}", told_in_mail)]


def ended(run: Played, outcome: str, message: str, pipeline_run: str | None = TRAINED_RUN) -> None:
    assert run.status == "SUCCEEDED", run.cause
    assert run.output == {
        "generation": GENERATION,
        "outcome": outcome,
        "message": message,
        "pipelineExecutionArn": pipeline_run,
    }


def told(outcome: str, message: str) -> list[tuple[str, str]]:
    return [(f"truthloop: retrain {GENERATION} {outcome}", report_of(message))]


# --- Claim -----------------------------------------------------------------------------------------------


@scenario(given={"force": True, "reason": "by hand"}, claim_run=[COALESCED])
def test_a_trigger_during_a_run_is_handed_to_it(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.output == COALESCED
    ((_, given),) = run.calls
    assert set(given) == {"execution", "trigger", "startedAt"}
    assert given["execution"] == EXECUTION
    assert given["trigger"] == {"force": True, "reason": "by hand"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", given["startedAt"])
    assert run.notices == []


@scenario(claim_run=[claimed("ADOPTED", TRAINED_RUN)], decide_run=[decided()], release_run=[released()])
def test_an_adopted_pipeline_run_is_waited_for_and_none_is_started(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.called == ["claim_run", "decide_run", "release_run"]
    given = release_of(run)
    assert (given["preflight"], given["dataset"]) == (None, None)


@scenario(
    claim_run=[claimed("ADOPTED")], preflight_run=[preflight("REFUSE")], release_run=[released("REFUSED")]
)
def test_an_adopted_claim_without_a_pipeline_run_begins_anew(run: Played) -> None:
    assert run.called == ["claim_run", "preflight_run", "release_run"]


@scenario(claim_run=[raises("InvalidTrigger", "The input is neither an event nor a manual start.")])
def test_a_claim_that_fails_releases_nothing_and_is_told(run: Played) -> None:
    message = "The claim failed: InvalidTrigger: The input is neither an event nor a manual start."
    assert (run.status, run.error, run.cause) == ("FAILED", "Retrain.FAILED", message)
    assert run.called == ["claim_run"]
    assert run.notices == [("truthloop: retrain none FAILED", message)]
    assert run.decisions == []  # claim_run has written it


CLAIM_FAILED = "The claim failed: TransientAwsError: DynamoDB throttled the request."


def claim_failed(run: Played) -> None:
    assert (run.status, run.error, run.cause) == ("FAILED", "Retrain.FAILED", CLAIM_FAILED)
    assert run.called == ["claim_run"] * 3
    assert run.states == ["Claim", "RecordFailedClaim", "NotifyFailure", "FailRun"]


@scenario(given=event("alarm_accuracy_breached"), claim_run=[THROTTLED] * 3)
def test_a_trigger_whose_claim_fails_for_good_is_in_the_decision_log(run: Played) -> None:
    claim_failed(run)
    (item,) = run.decisions
    at = item["at"]
    trigger = parse_trigger(event("alarm_accuracy_breached"), execution_name="run", started_at=at)
    decision = Decision(
        at=at,
        execution=EXECUTION,
        generation="none",
        outcome="FAILED",
        reason="CLAIM_FAILED",
        message=CLAIM_FAILED,
        triggers=({"id": trigger.id, **trigger.to_map()},),
    )
    assert item == {"pk": "DECISION", "sk": f"{at}#run", **decision.to_map()}
    assert to_iso(from_iso(at)) == at == to_iso(from_iso(run.inputs("claim_run")[0]["startedAt"]))
    # The mail and the log say the same of what to do.
    assert run.notices == [("truthloop: retrain none FAILED", f"{CLAIM_FAILED}\n\n{ADVICE['CLAIM_FAILED']}")]
    assert ADVICE["CLAIM_FAILED"] in report(item)


def coalesce(scene: Scene) -> None:
    """Write what an attempt has written whose answer was lost."""
    found = scene.machines.client.describe_execution(executionArn=scene.execution)
    decision = Decision(to_iso(found["startDate"]), scene.execution, GENERATION, "COALESCED", "COALESCED")
    item = to_item({"pk": "DECISION", "sk": decision.sort_key, **decision.to_map()})
    scene.stage.client("dynamodb").put_item(TableName=scene.stage.log, Item=item)


@scenario(during=coalesce, claim_run=[HANGS, THROTTLED, THROTTLED])
def test_a_decision_that_an_earlier_attempt_has_written_stays(run: Played) -> None:
    claim_failed(run)
    assert [item["outcome"] for item in run.decisions] == ["COALESCED"]
    ((_, mail),) = run.notices
    assert (
        mail == f"{CLAIM_FAILED}\n\nThe decision log has an entry of this start already: truthloop decisions"
    )


@scenario(log=False, claim_run=[THROTTLED] * 3)
def test_a_claim_that_fails_and_cannot_be_logged_is_mailed(run: Played) -> None:
    claim_failed(run)
    ((_, mail),) = run.notices
    assert mail.startswith(f"{CLAIM_FAILED}\n\n{ADVICE['CLAIM_FAILED']}\n\n")
    assert "The decision log could not be written: DynamoDB.ResourceNotFoundException: " in mail


@pytest.mark.parametrize(
    "name",
    [
        "ground_truth_accepted", "retrain_follow_up", "scheduled_sweep", "s3_constraint_violations",
        "alarm_accuracy_breached", "codebuild_succeeded", "manual_retrain", "manual_retrain_forced",
    ],
)  # fmt: skip
def test_the_machine_reads_a_trigger_as_claim_run_does(name: str) -> None:
    at = "2026-11-22T10:00:00.123000Z"
    expected = parse_trigger(event(name), execution_name="run", started_at=at)
    assert logged(event(name)) == {"id": expected.id, **expected.to_map()}


@pytest.mark.parametrize(
    "given",
    [
        None, 5, "text", [], [{"source": "aws.s3", "id": 5}], {"source": None},
        {"source": ["aws.s3"], "id": {}},
        {"source": "aws.s3", "detail": "text", "time": 5}, {"source": "somebody", "id": "x" * 900},
        {"source": "aws.cloudwatch", "detail": {"alarmName": {"a": 1}, "state": []}, "time": "noon"},
        {"reason": "x" * 9000, "force": "yes", "detail-type": ["x" * 900]},
    ],
)  # fmt: skip
def test_the_machine_logs_any_input(given: Any) -> None:
    found = logged(given)
    assert [type(found[name]) for name in ("id", "kind", "at", "detail", "force")] == [str] * 4 + [bool]
    assert 1 <= len(found["id"]) <= 128
    assert len(found["kind"]) <= 128
    assert found["at"] == "2026-11-22T10:00:00.123000Z"
    assert len(found["detail"]) <= 512


@scenario(topic=False, claim_run=[THROTTLED] * 3)
def test_the_run_fails_with_its_reason_also_when_no_notice_can_be_sent(run: Played) -> None:
    assert (run.status, run.error) == ("FAILED", "Retrain.FAILED")
    assert run.cause == "The claim failed: TransientAwsError: DynamoDB throttled the request."
    assert run.called == ["claim_run"] * 3
    assert run.notices == []


# --- Preflight to StartPipeline --------------------------------------------------------------------------


@scenario(
    claim_run=[claimed()],
    preflight_run=[preflight("REFUSE")],
    release_run=[released("REFUSED", "The last run began an hour ago.", run=None)],
)
def test_a_refusal_is_released_and_mailed_to_nobody(run: Played) -> None:
    ended(run, "REFUSED", "The last run began an hour ago.", None)
    assert run.calls[1:] == [
        ("preflight_run", CALL),
        (
            "release_run",
            {
                **CALL,
                "outcome": "REFUSED",
                "message": "The last run began an hour ago.",
                "preflight": preflight("REFUSE"),
                "dataset": None,
                "decision": None,
                "error": None,
            },
        ),
    ]
    assert run.notices == []


@scenario(
    **{**BEGIN, "preflight_run": [preflight("WAIT"), preflight("WAIT"), preflight()]},
    decide_run=[decided()],
    release_run=[released()],
)
def test_captures_that_are_on_their_way_are_waited_for_under_the_claim(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.called == ["claim_run", *["preflight_run"] * 3, *LINE[2:]]
    assert run.inputs("preflight_run") == [CALL] * 3
    assert release_of(run)["preflight"] == preflight()


@scenario(
    claim_run=[claimed()],
    preflight_run=[preflight("WAIT"), preflight("REFUSE")],
    release_run=[released("REFUSED", "The last run began an hour ago.", run=None)],
)
def test_a_wait_that_ends_in_a_refusal_is_a_refusal(run: Played) -> None:
    ended(run, "REFUSED", "The last run began an hour ago.", None)
    assert release_of(run)["outcome"] == "REFUSED"
    assert release_of(run)["preflight"] == preflight("REFUSE")


@scenario(
    claim_run=[claimed()],
    preflight_run=[LOST],
    release_run=[released("FAILED", "Preflight failed.", run=None)],
)
def test_a_preflight_that_fails_is_released_as_failed(run: Played) -> None:
    failed(run, "FAILED", "Preflight failed.")
    given = release_of(run)
    assert given["outcome"] == "FAILED"
    assert given["message"] == "Preflight failed: ClaimLost: Another execution holds generation g00000007."
    assert given["error"]["Error"] == "ClaimLost"
    assert given["preflight"] is None


@scenario(
    claim_run=[claimed()],
    preflight_run=[preflight()],
    snapshot_dataset=[raises("DatasetInvalid", "base/ holds nothing.")],
    release_run=[released("FAILED", "The snapshot failed.", run=None)],
)
def test_a_snapshot_that_fails_is_released_as_failed(run: Played) -> None:
    failed(run, "FAILED", "The snapshot failed.")
    given = release_of(run)
    assert given["outcome"] == "FAILED"
    assert given["message"] == "The snapshot of the dataset failed: DatasetInvalid: base/ holds nothing."
    assert given["error"]["Error"] == "DatasetInvalid"
    assert (given["preflight"], given["dataset"]) == (preflight(), None)


@scenario(
    **{**BEGIN, "start_pipeline": [raises("PipelineNotFound", "There is no pipeline truthloop-pipeline.")]},
    release_run=[released("FAILED", "It did not start.", run=None)],
)
def test_a_start_that_fails_is_released_as_failed(run: Played) -> None:
    failed(run, "FAILED", "It did not start.")
    given = release_of(run)
    assert given["outcome"] == "FAILED"
    assert given["message"] == (
        "The pipeline did not start: PipelineNotFound: There is no pipeline truthloop-pipeline."
    )
    assert given["error"]["Error"] == "PipelineNotFound"
    assert given["dataset"] == DATASET


@scenario(
    **{
        **BEGIN,
        "start_pipeline": [
            raises("StartUnsettled", "Another run is live, and a start may yet come to light."),
            {"pipelineExecutionArn": TRAINED_RUN, "found": True},
        ],
    },
    decide_run=[decided("WAITED")],
    release_run=[released("WAITED", "No run was started beside another.")],
)
def test_a_run_that_is_somebody_elses_is_waited_for_and_told(run: Played) -> None:
    ended(run, "WAITED", "No run was started beside another.")
    assert run.called == [*LINE[:4], *LINE[3:]]
    assert run.inputs("decide_run")[0]["pipelineExecutionArn"] == TRAINED_RUN
    assert len(run.notices) == 1


# --- The pipeline run ------------------------------------------------------------------------------------


@scenario(**BEGIN, decide_run=[decided(approve=None)], release_run=[released()])
def test_a_run_that_succeeds_waits_for_a_persons_approval(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.calls[1:] == [
        ("preflight_run", CALL),
        ("snapshot_dataset", CALL),
        ("start_pipeline", {**CALL, "dataset": DATASET}),
        (
            "decide_run",
            {**CALL, "pipelineExecutionArn": TRAINED_RUN, "status": "Succeeded", "failureReason": None},
        ),
        (
            "release_run",
            {
                **CALL,
                "outcome": "SUCCEEDED",
                "message": "The new model is better.",
                "preflight": preflight(),
                "dataset": DATASET,
                "decision": decided(),
                "error": None,
            },
        ),
    ]
    assert run.notices == told("SUCCEEDED", "The new model is better.")


@scenario(**BEGIN, decide_run=[decided(approve=CANDIDATE)], release_run=[released()])
def test_automatic_approval_approves_the_recommended_package(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.candidate["ModelApprovalStatus"] == "Approved"
    assert run.candidate["ApprovalDescription"] == (
        "Approved automatically by generation g00000007: The new model is better."
    )
    given = release_of(run)
    assert (given["outcome"], given["error"]) == ("SUCCEEDED", None)


@scenario(
    **BEGIN,
    decide_run=[decided(approve=NO_PACKAGE)],
    release_run=[released(message="The new model is better, and nobody approved it.")],
)
def test_an_approval_that_fails_leaves_the_run_a_success_and_says_so(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better, and nobody approved it.")
    given = release_of(run)
    assert given["outcome"] == "SUCCEEDED"
    assert given["message"].startswith("The new model is better. The automatic approval failed: SageMaker.")
    assert given["error"]["Error"].startswith("SageMaker.")
    assert run.notices == told("SUCCEEDED", "The new model is better, and nobody approved it.")


@scenario(
    **{**BEGIN, "start_pipeline": [{"pipelineExecutionArn": FAILED_RUN, "found": True}]},
    decide_run=[decided("FAILED")],
    release_run=[released("FAILED", "The base set is broken.", run=FAILED_RUN)],
)
def test_a_pipeline_run_that_fails_hands_its_reason_on(run: Played) -> None:
    failed(run, "FAILED", "The base set is broken.")
    (given,) = run.inputs("decide_run")
    assert (given["status"], given["pipelineExecutionArn"]) == ("Failed", FAILED_RUN)
    assert "FailGate" in given["failureReason"] or "the base set is broken" in given["failureReason"]
    assert release_of(run)["decision"] == decided("FAILED")


@scenario(
    **{**BEGIN, "start_pipeline": [{"pipelineExecutionArn": FAILED_RUN, "found": False}]},
    decide_run=[decided("REJECTED_BY_GATE")],
    release_run=[released("REJECTED_BY_GATE", "No candidate is good enough.", run=FAILED_RUN)],
)
def test_a_run_that_the_gate_rejects_is_no_failure(run: Played) -> None:
    ended(run, "REJECTED_BY_GATE", "No candidate is good enough.", FAILED_RUN)
    assert run.notices == told("REJECTED_BY_GATE", "No candidate is good enough.")


def stop_the_long_run(scene: Scene) -> None:
    """Do what a person does who stops the pipeline while the machine waits for it."""
    scene.wait_for_state("CheckPipeline")
    scene.stage.aws.sagemaker.stop_pipeline_execution(
        PipelineExecutionArn=scene.names[LONG_RUN], ClientRequestToken=scene.key * 3
    )


@scenario(
    during=stop_the_long_run,
    **{**BEGIN, "start_pipeline": [{"pipelineExecutionArn": LONG_RUN, "found": False}]},
    decide_run=[decided("STOPPED")],
    release_run=[released("STOPPED", "A person stopped it.", run=LONG_RUN)],
)
def test_a_pipeline_run_that_a_person_stops(run: Played) -> None:
    failed(run, "STOPPED", "A person stopped it.")
    assert run.states.count("DescribePipeline") >= 2
    (given,) = run.inputs("decide_run")
    assert given["status"] == "Stopped"


@scenario(
    **{**BEGIN, "start_pipeline": [{"pipelineExecutionArn": NO_RUN, "found": False}]},
    decide_run=[decided()],
    release_run=[still_live(), released()],
)
def test_a_run_that_is_still_live_is_not_released_but_waited_for(run: Played) -> None:
    # The machine lost sight of the run; release_run has found it by its name.
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.called == [*LINE[:4], "release_run", "decide_run", "release_run"]
    first, second = run.inputs("release_run")
    assert first["outcome"] == "FAILED"
    assert first["message"].startswith("The pipeline run could not be described: SageMaker.")
    assert first["decision"] is None
    assert (second["outcome"], second["decision"]) == ("SUCCEEDED", decided())
    assert run.inputs("decide_run")[0]["pipelineExecutionArn"] == TRAINED_RUN


@scenario(
    **BEGIN,
    decide_run=[raises("DatasetInvalid", "evaluation.json has no gate.")],
    release_run=[released("FAILED", "The result could not be read.")],
)
def test_a_result_that_cannot_be_read_is_released_as_failed(run: Played) -> None:
    failed(run, "FAILED", "The result could not be read.")
    given = release_of(run)
    assert given["outcome"] == "FAILED"
    assert given["message"] == (
        "The result of the pipeline run could not be read: DatasetInvalid: evaluation.json has no gate."
    )
    assert (given["dataset"], given["decision"]) == (DATASET, None)


# --- Release and after -----------------------------------------------------------------------------------


@scenario(**BEGIN, decide_run=[decided()], release_run=[raises("AwsRequestFailed", "DynamoDB says no.")])
def test_a_release_that_fails_ends_the_execution_so_that_its_claim_is_taken_over(run: Played) -> None:
    failed(
        run,
        "FAILED",
        "The claim could not be released: AwsRequestFailed: DynamoDB says no. "
        "(before that: The new model is better.)",
        released=False,
    )
    assert run.called == LINE


@scenario(
    claim_run=[claimed(), COALESCED],
    **{name: answers for name, answers in BEGIN.items() if name != "claim_run"},
    decide_run=[decided()],
    release_run=[released(follow_up="g00000008")],
)
def test_what_came_during_the_run_is_decided_by_one_follow_up(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.executions == ["follow-up-g00000008", "run"]
    assert run.inputs("claim_run")[1]["trigger"] == {
        "id": "follow-up-g00000008",
        "source": "truthloop.retrain",
        "detail-type": "Retrain Follow-Up",
        "detail": {"generation": "g00000008"},
    }


@scenario(
    claim_run=[claimed(), COALESCED],
    preflight_run=[preflight("REFUSE")],
    release_run=[released("REFUSED", "Too soon.", follow_up="g00000008", run=None)],
)
def test_a_refused_run_starts_its_follow_up_too(run: Played) -> None:
    ended(run, "REFUSED", "Too soon.", None)
    assert run.executions == ["follow-up-g00000008", "run"]
    assert run.notices == []


def start_the_follow_up(scene: Scene) -> None:
    """Do what an earlier holder of the claim did before it died."""
    scene.start({"id": "earlier"}, "follow-up-g00000008")
    scene.ended()


@scenario(
    before=start_the_follow_up,
    claim_run=[COALESCED, claimed()],
    **{name: answers for name, answers in BEGIN.items() if name != "claim_run"},
    decide_run=[decided()],
    release_run=[released(follow_up="g00000008")],
)
def test_a_follow_up_that_was_started_before_is_not_started_again(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.executions == ["follow-up-g00000008", "run"]
    assert len(run.inputs("claim_run")) == 2
    assert run.notices == told("SUCCEEDED", "The new model is better.")


@scenario(**BEGIN, decide_run=[decided()], release_run=[released(follow_up="no name <*>")])
def test_a_follow_up_that_does_not_start_is_told(run: Played) -> None:
    assert run.status == "SUCCEEDED"
    assert run.output["outcome"] == "SUCCEEDED"
    assert run.output["message"].startswith(
        "The new model is better. The follow-up did not start: StepFunctions.InvalidNameException: "
    )
    ((subject, told_in_mail),) = run.notices
    assert subject == f"truthloop: retrain {GENERATION} SUCCEEDED"
    assert told_in_mail.startswith(
        f"{report_of('The new model is better.')}\n\n"
        "The follow-up did not start: StepFunctions.InvalidNameException: "
    )
    assert run.executions == ["run"]


@scenario(topic=False, **BEGIN, decide_run=[decided()], release_run=[released()])
def test_a_notice_that_cannot_be_sent_does_not_undo_a_run(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.notices == []


# --- Retries ---------------------------------------------------------------------------------------------


@scenario(
    claim_run=[THROTTLED, claimed()],
    preflight_run=[THROTTLED, preflight()],
    snapshot_dataset=[THROTTLED, DATASET],
    start_pipeline=[THROTTLED, {"pipelineExecutionArn": TRAINED_RUN, "found": True}],
    decide_run=[THROTTLED, decided()],
    release_run=[THROTTLED, raises("StartUnsettled", "A start may yet come to light."), released()],
)
def test_what_fails_for_a_moment_is_tried_again(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.called == [name for name in LINE for _ in range(2)] + ["release_run"]
    for name in LINE:
        first, *again = run.inputs(name)
        assert all(given == first for given in again)


@scenario(
    claim_run=[DIES, claimed()],
    preflight_run=[DIES, preflight()],
    snapshot_dataset=[DIES, DATASET],
    start_pipeline=[DIES, {"pipelineExecutionArn": TRAINED_RUN, "found": True}],
    decide_run=[DIES, decided()],
    release_run=[DIES, released()],
)
def test_a_function_that_dies_is_called_again(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert run.called == [name for name in LINE for _ in range(2)]


@scenario(
    **{**BEGIN, "snapshot_dataset": [HANGS, DATASET]},
    decide_run=[decided()],
    release_run=[released()],
)
def test_a_function_that_runs_out_of_time_is_called_again(run: Played) -> None:
    ended(run, "SUCCEEDED", "The new model is better.")
    assert [run.called.count(name) for name in LINE] == [1, 1, 2, 1, 1, 1]


@scenario(
    claim_run=[claimed()],
    preflight_run=[DIES] * 3,
    release_run=[released("FAILED", "Preflight failed.", run=None)],
)
def test_a_function_that_dies_again_and_again_is_given_up_in_words(run: Played) -> None:
    failed(run, "FAILED", "Preflight failed.")
    message = release_of(run)["message"]
    assert message.startswith("Preflight failed: Runtime.ExitError: ")
    assert message.endswith("Runtime exited with error: exit status 1")


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_message_is_readable(played: Plays, name: str) -> None:
    run = played[name].result()
    told = [run.cause, (run.output or {}).get("message", "")]
    told += [text for notice in run.notices for text in notice]
    told += [given["message"] for given in run.inputs("release_run")]
    assert [
        text for text in told if re.search(r"Traceback|stackTrace|errorMessage|errorType|[{}]", text)
    ] == []
    assert run.status == "SUCCEEDED" or run.error.startswith("Retrain.")


def test_the_scripted_functions_answer_as_the_real_ones_do() -> None:
    assert breaches(SCENARIOS) == []


def test_every_path_of_the_machine_is_taken(played: Plays) -> None:
    definition = machines.shipped(MACHINE)
    # States.Timeout, the only error that this one retries, takes a minute of silence of the service itself.
    beyond = machines.Retrier("StartFollowUp", 0)
    missing = machines.missing(definition, [run.result().paths for run in played.values()])
    assert missing == [beyond]
