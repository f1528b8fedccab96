"""The real SAM CLI drives the empty embedded AWS: build, deploy, update, delete."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.deploy import deploy

ROOT = Path(__file__).resolve().parents[2]
SAM = ROOT / ".venv-sam" / "bin" / "sam"
APPLICATION = Path(__file__).parent / "fixtures" / "sam_app"


class SamCli:
    """Runs ``sam`` in a folder against the server."""

    def __init__(self, server: Any, home: Path, folder: Path) -> None:
        self.server, self.home, self.folder = server, home, folder

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(SAM), *arguments],
            cwd=self.folder,
            env={
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": self.server.endpoint,
                "HOME": str(self.home),
                # The layer's Makefile looks for Lambda's Python among those of pyenv.
                "PYENV_ROOT": os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")),
                "PATH": os.environ["PATH"],
                "SAM_CLI_TELEMETRY": "0",
                "SAM_CLI_POLL_DELAY": "1",
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"sam {' '.join(arguments)} ended with {done.returncode}:\n{output}"
        return output


def _deployment(stack: str) -> tuple[str, ...]:
    return (
        "deploy",
        "--stack-name",
        stack,
        "--resolve-s3",
        "--capabilities",
        "CAPABILITY_IAM",
        "CAPABILITY_AUTO_EXPAND",
        "--no-confirm-changeset",
        "--no-progressbar",
    )


def outputs_of(server: Any, stack: str) -> dict[str, str]:
    (described,) = server.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    assert described["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    return {item["OutputKey"]: item["OutputValue"] for item in described["Outputs"]}


def run_machine(server: Any, arn: str, given: dict[str, Any]) -> Any:
    states = server.client("stepfunctions")
    execution = states.start_execution(stateMachineArn=arn, input=json.dumps(given))["executionArn"]
    deadline = time.monotonic() + 60
    while (found := states.describe_execution(executionArn=execution))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found["status"] == "SUCCEEDED", found
    return json.loads(found["output"])


def artefacts(server: Any, stack: str) -> dict[str, dict[str, tuple[str, bytes]]]:
    """Return, of every function and layer of the stack, its files with their modes and contents."""
    template = server.client("cloudformation").get_template(StackName=stack, TemplateStage="Processed")
    found = {}
    for name, resource in template["TemplateBody"]["Resources"].items():
        if resource["Type"] == "AWS::Lambda::Function":
            code = resource["Properties"]["Code"]
        elif resource["Type"] == "AWS::Lambda::LayerVersion":
            # SAM ends a layer's logical id with a digest of where its content lies.
            name, code = name[:-10], resource["Properties"]["Content"]
        else:
            continue
        uploaded = server.client("s3").get_object(Bucket=code["S3Bucket"], Key=code["S3Key"])["Body"].read()
        with zipfile.ZipFile(io.BytesIO(uploaded)) as archive:
            found[name] = {
                info.filename: (oct(info.external_attr >> 16), archive.read(info))
                for info in archive.infolist()
            }
        assert found[name]
    return found


def physical_ids(server: Any, stack: str) -> dict[str, str]:
    """Return what the logical ids of the stack stand for."""
    pages = server.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    return {
        item["LogicalResourceId"]: item["PhysicalResourceId"]
        for page in pages
        for item in page["StackResourceSummaries"]
    }


def subscriptions(server: Any, outputs: dict[str, str]) -> list[dict[str, str]]:
    topic = outputs["NotificationTopicArn"]
    found = server.client("sns").list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    return [item for item in found if item["Protocol"] == "email"]


def delete_what_is_retained(server: Any, outputs: dict[str, str]) -> None:
    server.client("dynamodb").delete_table(TableName=outputs["LoopTableName"])
    server.client("s3").delete_bucket(Bucket=outputs["DataBucketName"])
    group = outputs["ModelPackageGroupName"]
    server.client("sagemaker").delete_model_package_group(ModelPackageGroupName=group)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_sam_cli_deploys_updates_and_deletes(server: Any, tmp_path: Path) -> None:
    # Given a copy of the application (sam build writes beside it)
    folder = tmp_path / "app"
    shutil.copytree(APPLICATION, folder)
    sam = SamCli(server, tmp_path, folder)
    stack = f"sam-{uuid.uuid4().hex[:8]}"

    # When
    sam("build")
    output = sam(*_deployment(stack))

    # Then
    assert "Successfully created/updated stack" in output
    outputs = outputs_of(server, stack)
    assert run_machine(server, outputs["MachineArn"], {"name": "Ann"}) == {"said": "hello, Ann!"}

    # When a parameter changes
    sam(*_deployment(stack), "--parameter-overrides", "Greeting=servus")

    # Then the same function says it
    assert outputs_of(server, stack)["FunctionName"] == outputs["FunctionName"]
    assert run_machine(server, outputs["MachineArn"], {"name": "Bob"}) == {"said": "servus, Bob!"}

    # and deploying the same again changes nothing
    output = sam(
        *_deployment(stack), "--parameter-overrides", "Greeting=servus", "--no-fail-on-empty-changeset"
    )
    assert "No changes to deploy" in output

    # When
    deployed = artefacts(server, stack)
    sam("delete", "--stack-name", stack, "--no-prompts")

    # Then
    functions = server.client("lambda")
    with pytest.raises(ClientError, match="does not exist"):
        server.client("cloudformation").describe_stacks(StackName=stack)
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.get_function(FunctionName=outputs["FunctionName"])

    # When we deploy it without the SAM CLI
    deploy(server, APPLICATION / "template.yaml", stack, cache=tmp_path / "cache")

    # Then the artefacts are the same files with the same modes and contents
    assert artefacts(server, stack) == deployed
    server.client("cloudformation").delete_stack(StackName=stack)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_sam_cli_deploys_the_real_template(server: Any, tmp_path: Path) -> None:
    # Given a copy of all that the template names
    folder = tmp_path / "app"
    folder.mkdir()
    shutil.copy(ROOT / "template.yaml", folder)
    for name in ("functions", "layers", "statemachines", "containers/pipeline"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    sam = SamCli(server, tmp_path, folder)
    stack = f"loop-{uuid.uuid4().hex[:8]}"

    # When
    sam("build")
    sam(*_deployment(stack))

    # Then
    outputs = outputs_of(server, stack)
    assert outputs["LoopTableName"] == f"{stack}-loop"
    pipeline = server.client("sagemaker").describe_pipeline(PipelineName=outputs["PipelineName"])
    assert "TrainNew" in pipeline["PipelineDefinition"]

    before = physical_ids(server, stack)

    # When
    changes = (
        "PollIntervalSeconds=7",
        "MonitorFrequency=weekly",
        "NotificationEmail=ann@b.example",
        "EndpointInstanceCount=2",
    )
    sam(*_deployment(stack), "--parameter-overrides", *changes)

    # Then the resources are the same ones, and a subscription
    after = physical_ids(server, stack)
    assert {name: after[name] for name in before} == before
    assert [item["Endpoint"] for item in subscriptions(server, outputs)] == ["ann@b.example"]
    # and each has what changed
    schedule = server.client("scheduler").get_schedule(Name=f"{stack}-monitor")["ScheduleExpression"]
    assert re.fullmatch(r"cron\(\d+ \d+ \? \* [A-Z]{3} \*\)", schedule), schedule
    function = server.client("lambda").get_function_configuration(FunctionName=f"{stack}-apply-deployment")
    assert json.loads(function["Environment"]["Variables"]["DEPLOYMENT"])["instanceCount"] == 2
    arn = outputs["RetrainStateMachineArn"]
    definition = server.client("stepfunctions").describe_state_machine(stateMachineArn=arn)["definition"]
    assert "7" in json.dumps([state.get("Seconds") for state in json.loads(definition)["States"].values()])

    # When
    deployed = artefacts(server, stack)
    sam("delete", "--stack-name", stack, "--no-prompts")
    delete_what_is_retained(server, outputs)

    # Then our own deployment ships the same bytes
    deploy(server, folder / "template.yaml", stack, cache=tmp_path / "cache")
    assert artefacts(server, stack) == deployed
    server.client("cloudformation").delete_stack(StackName=stack)
    delete_what_is_retained(server, outputs)
