"""What a team fears, played on the shipped stack: two runs, lost corrections, bad models, silence.

The tests of this file tell one story in their order: each begins where the one before has ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demo.digits import drift_all, split

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_but_a_person_starts_the_first_run(stack: Any) -> None:
    # An upload comes before any model is served, and so does a sweep.
    stack.upload("early.jsonl", [stack.correction("never-captured", "7")])
    sweep = json.loads((ROOT / "events" / "scheduled_sweep.json").read_text())
    stack.ended(stack.start("Retrain", sweep))
    stack.wait_for("two decisions", lambda: True if len(stack.decisions()) >= 2 else None)
    stack.quiet()
    assert stack.pipeline_runs() == []
    assert {d["outcome"] for d in stack.decisions()} <= {"REFUSED", "COALESCED"}
    assert "NO_MODEL_YET" in {d["reason"] for d in stack.decisions()}


def follow_ups(stack: Any) -> int:
    return sum(e["name"].startswith("follow-up-") for e in stack.executions("Retrain"))


def command(stack: Any, *arguments: str) -> str:
    """Run the truthloop command as a person would; returns what it prints."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            "AWS_ENDPOINT_URL": stack.endpoint,
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": "user",
            "AWS_DEFAULT_REGION": "us-east-1",
            "COLUMNS": "200",
            "PATH": "",
        },
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def mails(stack: Any) -> Callable[[], dict[str, str]]:
    """Subscribe to the stack's notifications; answers with what was mailed since, by subject."""
    sqs, sns = stack.client("sqs"), stack.client("sns")
    url = sqs.create_queue(QueueName="mails")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=stack.outputs["NotificationTopicArn"], Protocol="sqs", Endpoint=arn)

    def read() -> dict[str, str]:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        bodies = [json.loads(message["Body"]) for message in found.get("Messages", [])]
        return {body["Subject"]: body["Message"] for body in bodies}

    return read


def test_five_starts_at_once_train_once(stack: Any, mails: Callable[[], dict[str, str]]) -> None:
    before = follow_ups(stack)
    with ThreadPoolExecutor(5) as pool:
        executions = list(pool.map(lambda _: stack.start("Retrain", {}), range(5)))
    ends = [stack.ended(execution) for execution in executions]
    outcomes = sorted(json.loads(end["output"])["outcome"] for end in ends if end["status"] == "SUCCEEDED")
    assert outcomes == ["COALESCED"] * 4 + ["SUCCEEDED"]
    stack.quiet()
    # The four are decided by one follow-up, which refuses: they are no new evidence.
    assert follow_ups(stack) == before + 1
    assert stack.decisions()[-1]["reason"] == "SAME_EVIDENCE"
    assert len(stack.pipeline_runs()) == 1
    assert stack.record()["status"]["S"] == "IDLE"
    assert len(stack.packages()) == 2
    # The mail is what the command says of that generation: word for word, and with the way to approve.
    (told,) = mails().items()
    generation = told[0].removeprefix("truthloop: retrain ").removesuffix(" SUCCEEDED")
    shown = command(stack, "decisions", generation)
    assert told[1] in shown.rstrip("\n").split("\n\n----\n\n")
    assert "--model-approval-status Approved --model-package-arn arn:" in told[1]


def test_approval_brings_the_model_into_service_and_an_edit_does_not(stack: Any) -> None:
    newest, other = stack.packages()
    sagemaker = stack.client("sagemaker")
    before = len(stack.executions("Deploy"))
    sagemaker.update_model_package(
        ModelPackageArn=newest["ModelPackageArn"], CustomerMetadataProperties={"note": "looked at it"}
    )
    stack.judge(other["ModelPackageArn"], "Approved")
    stack.wait_served(other["ModelPackageArn"])
    assert len(stack.executions("Deploy")) == before + 1


def test_a_newer_approval_wins_and_rejecting_the_live_model_rolls_back(stack: Any) -> None:
    newest, other = stack.packages()
    stack.judge(newest["ModelPackageArn"], "Approved")
    stack.wait_served(newest["ModelPackageArn"])
    stack.judge(newest["ModelPackageArn"], "Rejected")
    stack.wait_served(other["ModelPackageArn"])


def test_a_model_that_fails_the_smoke_test_is_rejected_and_the_previous_serves_on(stack: Any) -> None:
    newest, other = stack.packages()
    s3, bucket = stack.client("s3"), stack.outputs["DataBucketName"]
    bodies = {k: s3.get_object(Bucket=bucket, Key=k)["Body"].read() for k in stack.keys("smoke-test/")}
    try:
        for key, body in bodies.items():  # every known example now claims to be something else
            s3.delete_object(Bucket=bucket, Key=key)
            label = (int(key.split("/")[1]) + 1) % 10
            s3.put_object(Bucket=bucket, Key=f"smoke-test/{label}/wrong-{label}.png", Body=body)
        stack.judge(newest["ModelPackageArn"], "Approved")

        def rejected() -> dict[str, Any] | None:
            found = stack.client("sagemaker").describe_model_package(
                ModelPackageName=newest["ModelPackageArn"]
            )
            return found if found["ModelApprovalStatus"] == "Rejected" else None

        found = stack.wait_for("the rejection", rejected)
        assert "smoke test" in found["ApprovalDescription"].lower()
    finally:
        for key in stack.keys("smoke-test/"):
            s3.delete_object(Bucket=bucket, Key=key)
        for key, body in bodies.items():
            s3.put_object(Bucket=bucket, Key=key, Body=body)
    stack.wait_for("the return", lambda: True if stack.served() == other["ModelPackageArn"] else None)


def test_weights_that_were_swapped_after_the_evaluation_are_never_served(stack: Any) -> None:
    # Given: somebody puts another model's artefact, whole and valid, in the place of an evaluated one
    newest, other = stack.packages()
    stack.quiet()
    s3, sagemaker = stack.client("s3"), stack.client("sagemaker")

    def artefact(package: dict[str, Any]) -> dict[str, str]:
        described = sagemaker.describe_model_package(ModelPackageName=package["ModelPackageArn"])
        (container,) = described["InferenceSpecification"]["Containers"]
        assert len(container["Environment"]["MODEL_SHA256"]) == 64
        bucket, _, key = container["ModelDataUrl"].removeprefix("s3://").partition("/")
        return {"Bucket": bucket, "Key": key}

    evaluated = s3.get_object(**artefact(newest))["Body"].read()
    s3.put_object(**artefact(newest), Body=s3.get_object(**artefact(other))["Body"].read())
    try:
        # When
        stack.judge(newest["ModelPackageArn"], "Approved")

        def rejected() -> dict[str, Any] | None:
            found = sagemaker.describe_model_package(ModelPackageName=newest["ModelPackageArn"])
            return found if found["ModelApprovalStatus"] == "Rejected" else None

        found = stack.wait_for("the rejection", rejected)
    finally:
        s3.put_object(**artefact(newest), Body=evaluated)
    # Then: the endpoint rolled back, the package says so, and the container's log says why
    assert "health check" in found["ApprovalDescription"]
    stack.wait_for("the return", lambda: True if stack.served() == other["ModelPackageArn"] else None)
    group = f"/aws/sagemaker/Endpoints/{stack.outputs['EndpointName']}"
    events = stack.client("logs").filter_log_events(logGroupName=group)["events"]
    assert any("the artefact was changed after it was evaluated" in event["message"] for event in events)
    # The rollback was smoke-tested against the wrong labels too, or against none: put it right.
    stack.quiet()
    if stack.served() != other["ModelPackageArn"]:
        stack.judge(other["ModelPackageArn"], "Approved")
        stack.wait_served(other["ModelPackageArn"])


def test_corrections_are_counted_once_and_bad_ones_kept_with_the_reason(stack: Any) -> None:
    runtime = stack.client("sagemaker-runtime")
    digits = drift_all(split("drift"))[:230]
    for digit in digits:
        runtime.invoke_endpoint(
            EndpointName=stack.outputs["EndpointName"],
            ContentType="image/png",
            InferenceId=digit.example_id,
            Body=digit.png,
        )
    # A label counts as soon as its prediction is captured, which takes the endpoint a moment.
    stack.wait_captured([digit.example_id for digit in digits])
    lines = [stack.correction(digit.example_id, digit.label) for digit in digits]
    stack.upload("a.jsonl", lines[:150])
    stack.upload("a.jsonl", lines[:150])
    stack.upload("the-same-again.jsonl", lines[:150])
    stack.upload("bad.jsonl", ["{not json", stack.correction("x", "no such digit")])
    stack.wait_for("quarantine", lambda: True if len(stack.keys("ground-truth/quarantine/")) >= 1 else None)
    stack.wait_for("acceptance", lambda: True if len(stack.keys("ground-truth/accepted/")) >= 4 else None)

    def refusals() -> list[Any]:
        return [d for d in stack.decisions() if d["reason"] == "MINIMUM_NEW_LABELS"]

    # What is accepted starts the machine a moment later, which is no rest yet.
    stack.wait_for("a decision about them", lambda: refusals() or None)
    stack.quiet()
    # Three uploads of the same 150; the early one waits for a capture that never comes, the bad ones count
    # nowhere.
    assert refusals()[-1]["message"].startswith("150 new labels"), refusals()
    assert len(stack.pipeline_runs()) == 1


def test_a_holder_that_dies_is_taken_over_and_its_run_adopted(stack: Any) -> None:
    first = stack.start("Retrain", {"force": True, "reason": "the test stops this execution"})
    stack.wait_for(
        "the start of the pipeline", lambda: stack.record().get("pipelineExecutionArn", {}).get("S")
    )
    stack.client("stepfunctions").stop_execution(executionArn=first, error="Test", cause="killed")
    second = stack.ended(stack.start("Retrain", {}))
    assert second["status"] == "SUCCEEDED", second.get("cause")
    output = json.loads(second["output"])
    assert output["outcome"] == "SUCCEEDED"
    stack.quiet()
    assert len(stack.pipeline_runs()) == 2  # the first generation's and this one's: never a third
    assert stack.record()["status"]["S"] == "IDLE"
    # And it has been told on which side every picture of the first run lay.
    s3, bucket = stack.client("s3"), stack.outputs["DataBucketName"]
    (given,) = (key for key in stack.keys("datasets/") if key.endswith("/sides.parquet"))
    left = [key for key in stack.keys("runs/") if key.endswith("/prepared/report/sides.parquet")]
    assert len(left) == 2
    bodies = [s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in (given, min(left))]
    assert bodies[0] == bodies[1]
    assert given.split("/")[1] == max(left).split("/")[1]


def test_a_run_that_fails_says_why_and_frees_the_claim(stack: Any) -> None:
    s3, bucket = stack.client("s3"), stack.outputs["DataBucketName"]
    s3.put_object(Bucket=bucket, Key="base/broken.parquet", Body=b"no parquet")
    try:
        execution = stack.start("Retrain", {"force": True, "reason": "with a broken base set"})
        end = stack.ended(execution)
    finally:
        s3.delete_object(Bucket=bucket, Key="base/broken.parquet")
    assert end["status"] == "FAILED"
    assert "broken.parquet" in end["cause"]
    stack.quiet()
    assert stack.record()["status"]["S"] == "IDLE"
    failed = [d for d in stack.decisions() if d["outcome"] == "FAILED"]
    assert "broken.parquet" in failed[-1]["message"]


def test_input_that_is_no_trigger_is_refused_in_words(stack: Any) -> None:
    end = stack.ended(stack.start("Retrain", {"force": True}))
    assert end["status"] == "FAILED"
    assert "reason" in end["cause"]
    assert "stackTrace" not in end["cause"]
    assert stack.record()["status"]["S"] == "IDLE"


def test_people_mend_settle_and_forget_on_the_deployed_stack(stack: Any) -> None:
    def grown(prefix: str, before: list[str], by: int = 1) -> None:
        stack.wait_for(
            f"{by} more under {prefix}", lambda: True if len(stack.keys(prefix)) >= len(before) + by else None
        )

    accepted, refused = stack.keys("ground-truth/accepted/"), stack.keys("ground-truth/quarantine/")
    stack.upload("people/ann.jsonl", [stack.correction("p-1", "7", author="ann"), "{not this either"])
    stack.upload("people/bob.jsonl", [stack.correction("p-1", "3", author="bob")])
    grown("ground-truth/accepted/", accepted, 2)
    grown("ground-truth/quarantine/", refused)
    assert "p-1" in command(stack, "conflicts")
    command(stack, "settle", "p-1", "7", "--author", "cid")
    grown("ground-truth/accepted/", accepted, 3)
    assert "p-1" not in command(stack, "conflicts")

    # What the door refuses again comes back: through the queue, as any upload.
    assert "NOT_JSON" in command(stack, "requeue", "--reason", "NOT_JSON")
    grown("ground-truth/quarantine/", refused, 2)
    assert "NOT_JSON" in command(stack, "quarantine")

    told = command(stack, "forget", "--author", "ann", "--reason", "asked", "--yes", "--inbox")
    assert "1 record in 1 accepted object" in told
    assert "ground-truth/inbox/people/ann.jsonl" not in stack.keys("ground-truth/inbox/people/")
    assert "FORGOTTEN" in command(stack, "decisions", "--outcome", "FORGOTTEN")
    stack.quiet()


def test_every_decision_reads_as_a_table(stack: Any) -> None:
    shown = command(stack, "decisions", "--limit", "50")
    for outcome in ("REFUSED", "COALESCED", "SUCCEEDED", "FAILED", "DEPLOYED", "REJECTED"):
        assert outcome in shown
