"""moto's own server as a process, with a stack that has a Truthloop stack's outputs and some history."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.ports import free_port
from tests.handlers.conftest import POLICY, clients, moto_url, world  # noqa: F401 - fixtures

ROOT = Path(__file__).resolve().parents[2]

OUTPUTS = {
    "DataBucketName": "loop-data",
    "GroundTruthPrefix": "ground-truth/inbox/",
    "PipelineName": "truthloop-pipeline",
    "RetrainStateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:truthloop-retrain",
    "DeployStateMachineArn": "arn:aws:states:us-east-1:123456789012:stateMachine:truthloop-deploy",
    "ModelPackageGroupName": "truthloop-models",
    "EndpointName": "truthloop-endpoint",
    "AccuracyAlarmName": "truthloop-accuracy",
    "NotificationTopicArn": "arn:aws:sns:us-east-1:123456789012:truthloop-notifications",
    "LoopTableName": "truthloop-loop",
}


def template(outputs: dict[str, str]) -> str:
    return json.dumps(
        {
            "Resources": {
                "Topic": {"Type": "AWS::SNS::Topic"},
                "IngestQueue": {
                    "Type": "AWS::SQS::Queue",
                    "Properties": {"QueueName": "truthloop-ingest"},
                },
            },
            "Outputs": {name: {"Value": value} for name, value in outputs.items()},
        }
    )


def deploy_preflight(clients: Callable[[str], Any], policy: dict[str, Any]) -> None:  # noqa: F811
    """Deploy the function whose settings the commands read, or change them."""
    function = {
        "FunctionName": "truthloop-preflight-run",
        "Environment": {"Variables": {"POLICY": json.dumps(policy)}},
    }
    try:
        clients("lambda").update_function_configuration(**function)
    except clients("lambda").exceptions.ResourceNotFoundException:
        role = clients("iam").create_role(RoleName="truthloop", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            files.writestr("app.py", "")
        clients("lambda").create_function(
            Runtime="python3.13", Role=role, Handler="app.f", Code={"ZipFile": archive.getvalue()}, **function
        )


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, "moto's server ended"
        assert time.monotonic() < deadline, "moto's server did not start"
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def environment(endpoint: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **kept,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@pytest.fixture(scope="module")
def aws(endpoint: str) -> Callable[[str], Any]:
    def client(service: str) -> Any:
        return boto3.client(
            service,  # type: ignore[call-overload]
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    return client


@pytest.fixture(scope="module")
def stack(aws: Callable[[str], Any]) -> str:
    """A stack with outputs, and behind them a table, a bucket, machines, a pipeline, models, an endpoint."""
    aws("cloudformation").create_stack(StackName="truthloop", TemplateBody=template(OUTPUTS))
    aws("s3").create_bucket(Bucket=OUTPUTS["DataBucketName"])
    aws("dynamodb").create_table(
        TableName=OUTPUTS["LoopTableName"],
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    for name in ("retrain", "deploy"):
        aws("stepfunctions").create_state_machine(
            name=f"truthloop-{name}",
            definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
            roleArn="arn:aws:iam::123456789012:role/states",
        )
    sagemaker = aws("sagemaker")
    sagemaker.create_pipeline(
        PipelineName=OUTPUTS["PipelineName"],
        PipelineDefinition="{}",
        ClientRequestToken="t" * 32,
        RoleArn="arn:aws:iam::123456789012:role/pipeline",
    )
    sagemaker.create_model_package_group(
        ModelPackageGroupName=OUTPUTS["ModelPackageGroupName"], ModelPackageGroupDescription="test"
    )
    aws("cloudwatch").put_metric_alarm(
        AlarmName=OUTPUTS["AccuracyAlarmName"],
        Namespace="Truthloop",
        MetricName="Accuracy",
        ComparisonOperator="LessThanThreshold",
        EvaluationPeriods=1,
        Period=60,
        Statistic="Minimum",
        Threshold=0.85,
    )
    deploy_preflight(aws, POLICY)
    return "truthloop"


@pytest.fixture(scope="module")
def truthloop(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a person would."""

    def run(*arguments: str, **changed: str | None) -> subprocess.CompletedProcess[str]:
        variables = {**environment, **{name: value for name, value in changed.items() if value is not None}}
        for name, value in changed.items():
            if value is None:
                variables.pop(name, None)
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
