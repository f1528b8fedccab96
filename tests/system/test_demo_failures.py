"""When the loop fails, the demo says why: driven by real failures on a running embedded AWS."""

from __future__ import annotations

import io
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from demo import inbox, watching
from demo.cloud import Cloud, Outputs, wait_for
from demo.display import Display
from demo.errors import LocalAwsError, StoryError, TookTooLongError
from demo.process import LocalAwsProcess
from demo.result import Result
from demo.story import Story
from local.ports import free_port

ACCOUNT = "123456789012"
IMAGE = f"{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com/truthloop-training:latest"
TRUST = {"Version": "2012-10-17", "Statement": []}
ANYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAwsProcess]:
    with LocalAwsProcess(free_port(), tmp_path_factory.mktemp("aws") / "local.log") as running:
        yield running


@pytest.fixture(scope="module")
def cloud(process: LocalAwsProcess) -> Cloud:
    return Cloud(process.endpoint)


@pytest.fixture(scope="module")
def role(cloud: Cloud) -> str:
    iam = cloud.client("iam")
    made = iam.create_role(RoleName="anything", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.put_role_policy(RoleName="anything", PolicyName="anything", PolicyDocument=json.dumps(ANYTHING))
    return str(made["Role"]["Arn"])


@pytest.fixture(scope="module")
def outputs(cloud: Cloud, role: str) -> Outputs:
    """The names of a loop whose machines fail, whose group is empty and whose endpoint is not there."""
    machine = cloud.client("stepfunctions").create_state_machine(
        name="failing",
        roleArn=role,
        definition=json.dumps(
            {
                "StartAt": "Break",
                "States": {"Break": {"Type": "Fail", "Error": "Snapshot.Broken", "Cause": "no base set"}},
            }
        ),
    )["stateMachineArn"]
    cloud.client("sagemaker").create_model_package_group(
        ModelPackageGroupName="empty", ModelPackageGroupDescription="none"
    )
    cloud.client("s3").create_bucket(Bucket="loop-data")
    cloud.client("dynamodb").create_table(
        TableName="loop",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    return Outputs(
        stack="none",
        bucket="loop-data",
        inbox="ground-truth/inbox/",
        pipeline=_pipeline(cloud, role, "nothing-to-do", "prepare"),
        retrain_machine=machine,
        deploy_machine=machine,
        package_group="empty",
        endpoint="nobody",
        alarm="none",
        table="loop",
        monitor_function="nobody",
    )


def _pipeline(cloud: Cloud, role: str, name: str, argument: str) -> str:
    """Create a pipeline of one processing step."""
    step = {
        "Name": "Prepare",
        "Type": "Processing",
        "Arguments": {
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
            },
            "AppSpecification": {"ImageUri": IMAGE, "ContainerArguments": [argument]},
            "RoleArn": role,
        },
    }
    cloud.client("sagemaker").create_pipeline(
        PipelineName=name,
        PipelineDefinition=json.dumps({"Version": "2020-12-01", "Parameters": [], "Steps": [step]}),
        ClientRequestToken=uuid.uuid4().hex,
        RoleArn=role,
    )
    return name


@pytest.fixture
def story(cloud: Cloud, outputs: Outputs) -> Story:
    display = Display(Console(file=io.StringIO(), width=120))
    return Story(cloud, outputs, display, Result())


def start(cloud: Cloud, outputs: Outputs) -> str:
    arn = outputs.retrain_machine
    return str(cloud.client("stepfunctions").start_execution(stateMachineArn=arn)["executionArn"])


def test_a_start_that_fails_shows_the_cause(story: Story) -> None:
    execution = start(story.cloud, story.outputs)

    with pytest.raises(StoryError, match="ended without starting the pipeline") as failed:
        story.watcher.wait_for_run(set(), execution)

    assert any("FAILED Snapshot.Broken" in line for line in failed.value.evidence)
    assert "no base set" in failed.value.evidence


def test_a_failed_execution_shows_the_cause(story: Story) -> None:
    start(story.cloud, story.outputs)

    with pytest.raises(StoryError, match="an execution of failing ended FAILED") as failed:
        story.watcher.wait_until_quiet(story.outputs.retrain_machine)

    assert "no base set" in failed.value.evidence


def test_a_run_that_never_starts_shows_the_last_executions(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "START_SECONDS", 0.3)
    states, execution = story.cloud.client("stepfunctions"), start(story.cloud, story.outputs)
    wait_for("its end", lambda: states.describe_execution(executionArn=execution).get("cause"), 60)
    story.cloud.client("dynamodb").put_item(
        TableName="loop",
        Item={
            "pk": {"S": "DECISION"},
            "sk": {"S": "2026"},
            "outcome": {"S": "REFUSED"},
            "reason": {"S": "COOLDOWN"},
        },
    )

    with pytest.raises(TookTooLongError) as late:
        story.watcher.wait_for_run(set())

    assert "no base set" in late.value.evidence
    assert "last decision: REFUSED: COOLDOWN" in late.value.evidence


def test_a_job_that_crashes_shows_the_end_of_its_log(story: Story, cloud: Cloud, role: str) -> None:
    name = _pipeline(cloud, role, "crashing", "no-such-command")
    run = cloud.client("sagemaker").start_pipeline_execution(
        PipelineName=name, ClientRequestToken=uuid.uuid4().hex
    )["PipelineExecutionArn"]

    with pytest.raises(StoryError, match="the pipeline run failed") as failed:
        story.watcher.follow_run(run)

    evidence = "\n".join(failed.value.evidence)
    assert "step Prepare:" in evidence
    assert "/aws/sagemaker/ProcessingJobs" in evidence
    assert "no-such-command" in evidence, "the job's own last words"


def test_a_monitor_job_that_fails_shows_the_end_of_its_log(story: Story, cloud: Cloud, role: str) -> None:
    cloud.client("sagemaker").create_processing_job(
        ProcessingJobName="blind-monitor",
        ProcessingResources={
            "ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30}
        },
        AppSpecification={"ImageUri": IMAGE, "ContainerArguments": ["monitor"]},
        RoleArn=role,
    )

    with pytest.raises(StoryError, match="the monitor job blind-monitor failed") as failed:
        story.watcher.follow_job("blind-monitor")

    evidence = "\n".join(failed.value.evidence)
    assert "job blind-monitor: Failed" in evidence
    assert "ENDPOINT_NAME" in evidence


def test_a_deployment_that_fails_shows_the_cause(story: Story, cloud: Cloud) -> None:
    known = {item["executionArn"] for item in cloud.executions(story.outputs.deploy_machine)}
    start(cloud, story.outputs)

    with pytest.raises(StoryError, match="the deploy state machine ended FAILED") as failed:
        story.watcher.follow_deployment(known)

    assert "no base set" in failed.value.evidence


def test_a_deployment_that_never_comes_is_given_up(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "DEPLOY_SECONDS", 0.3)
    known = {item["executionArn"] for item in story.cloud.executions(story.outputs.deploy_machine)}

    with pytest.raises(TookTooLongError, match="not in service 0 s after the approval"):
        story.watcher.follow_deployment(known)


def test_without_a_recommendation_nothing_is_approved(story: Story) -> None:
    story.generation = "g00000009"

    with pytest.raises(StoryError, match="no package of g00000009 is recommended"):
        story.approve("never")


def test_an_endpoint_that_is_not_there_ends_the_story(story: Story) -> None:
    with pytest.raises(StoryError, match="every request to the endpoint failed"):
        story.everyday_traffic()

    assert all(reply.error for reply in story.client.replies)


def test_labels_that_are_not_accepted_are_named(story: Story, cloud: Cloud) -> None:
    line = json.dumps({"eventMetadata": {"eventId": "request-1"}}).encode()
    key = "ground-truth/accepted/2026/11/22/10/a.jsonl"
    cloud.client("s3").put_object(Bucket="loop-data", Key=key, Body=line + b"\n" + line)

    with pytest.raises(StoryError, match="labels for 1 requests instead of 2"):
        story.inbox.wait_until_accepted(2)


def test_ingestion_that_never_comes_shows_the_functions_log(
    story: Story, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SECONDS", 0.2)
    logs, group = cloud.client("logs"), "/aws/lambda/none-ingest-ground-truth"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="one")
    event = {"timestamp": int(time.time() * 1000), "message": "the queue is stuck"}
    logs.put_log_events(logGroupName=group, logStreamName="one", logEvents=[event])

    with pytest.raises(TookTooLongError, match="the quarantine of 3 bad records") as late:
        story.inbox.wait_until_quarantined(3)

    assert late.value.evidence[-1] == "the queue is stuck"


def test_a_function_that_fails_is_quoted(story: Story, cloud: Cloud, role: str, tmp_path: Path) -> None:
    import zipfile

    code = tmp_path / "code.zip"
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", "def lambda_handler(event, context):\n    raise ValueError('no window')\n")
    cloud.client("lambda").create_function(
        FunctionName="broken-monitor",
        Runtime="python3.13",
        Role=role,
        Handler="app.lambda_handler",
        Code={"ZipFile": code.read_bytes()},
        Timeout=20,
    )
    story.watcher.outputs = replace(story.outputs, monitor_function="broken-monitor")

    def monitor() -> Any:
        from datetime import UTC, datetime

        return story.monitor.run(datetime.now(UTC))

    with pytest.raises(StoryError, match="the run-monitor function failed") as failed:
        monitor()

    assert any("no window" in line for line in failed.value.evidence)


def test_the_end_of_the_embedded_aws_is_noticed(tmp_path: Path) -> None:
    with LocalAwsProcess(free_port(), tmp_path / "local.log") as running:
        running.require_alive()
        assert running._process is not None
        running._process.kill()
        running._process.wait()

        def look() -> str | None:
            try:
                running.require_alive()
            except LocalAwsError as error:
                return str(error)
            return None

        assert "ended by itself with exit code -9" in wait_for("the end", look, 60)
