"""The shipped stack on the embedded AWS, as ``make local`` gives it, driven by plain AWS clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import boto3
import pytest
from botocore.config import Config

from local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 180) -> T:
    """Return the first answer of ``look`` that is not None."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.2)
    pytest.fail(f"{what} did not happen within {seconds:g} s")


class Stack:
    """The deployed stack: its outputs, clients, and the few questions that the tests ask of it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        # Making a client reads its service's model, up to half a second of CPU time: once, not per question.
        self.client = cache(self._client)
        stacks = self.client("cloudformation").describe_stacks(StackName="truthloop")["Stacks"]
        self.outputs = {o["OutputKey"]: o["OutputValue"] for o in stacks[0]["Outputs"]}

    def _client(self, service: str) -> Any:
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id="user",
            aws_secret_access_key="user",
            config=Config(s3={"addressing_style": "path"}),
        )

    def start(self, machine: str, given: Any, name: str | None = None) -> str:
        """Start an execution of ``Retrain`` or ``Deploy``; return its ARN."""
        answer = self.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs[f"{machine}StateMachineArn"],
            input=json.dumps(given),
            name=name or uuid.uuid4().hex,
        )
        return str(answer["executionArn"])

    def ended(self, execution: str, seconds: float = 240) -> dict[str, Any]:
        """Wait for an execution's end and return its description."""

        def look() -> dict[str, Any] | None:
            found = self.client("stepfunctions").describe_execution(executionArn=execution)
            return found if found["status"] != "RUNNING" else None

        return wait_for(f"the end of {execution}", look, seconds)

    def retrain(self, **given: Any) -> dict[str, Any]:
        """Start the retrain machine by hand, wait for its end and return its output."""
        found = self.ended(self.start("Retrain", given))
        assert found["status"] == "SUCCEEDED", found.get("cause")
        return dict(json.loads(found["output"]))

    def executions(self, machine: str) -> list[dict[str, Any]]:
        arn = self.outputs[f"{machine}StateMachineArn"]
        pages = self.client("stepfunctions").get_paginator("list_executions").paginate(stateMachineArn=arn)
        return [execution for page in pages for execution in page["executions"]]

    def quiet(self) -> None:
        """Wait until no execution of either machine runs."""

        def look() -> bool | None:
            every = self.executions("Retrain") + self.executions("Deploy")
            return True if all(e["status"] != "RUNNING" for e in every) else None

        wait_for("quiescence", look, 180)

    def pipeline_runs(self) -> list[dict[str, Any]]:
        """Return the pipeline's runs, newest first."""
        answer = self.client("sagemaker").list_pipeline_executions(
            PipelineName=self.outputs["PipelineName"], SortBy="CreationTime", SortOrder="Descending"
        )
        return list(answer["PipelineExecutionSummaries"])

    def decisions(self) -> list[dict[str, Any]]:
        """Return the decision log, oldest first, with plain strings and numbers."""
        pages = (
            self.client("dynamodb")
            .get_paginator("query")
            .paginate(
                TableName=self.outputs["LoopTableName"],
                KeyConditionExpression="pk = :p",
                ExpressionAttributeValues={":p": {"S": "DECISION"}},
            )
        )
        items = [item for page in pages for item in page["Items"]]
        return [{k: next(iter(v.values())) for k, v in item.items()} for item in items]

    def record(self) -> dict[str, Any]:
        """Return the generation record, as DynamoDB gives it."""
        answer = self.client("dynamodb").get_item(
            TableName=self.outputs["LoopTableName"],
            Key={"pk": {"S": "GENERATION"}, "sk": {"S": "CURRENT"}},
            ConsistentRead=True,
        )
        return dict(answer["Item"])

    def packages(self) -> list[dict[str, Any]]:
        """Return the registered packages, newest first."""
        answer = self.client("sagemaker").list_model_packages(
            ModelPackageGroupName=self.outputs["ModelPackageGroupName"],
            SortBy="CreationTime",
            SortOrder="Descending",
        )
        return list(answer["ModelPackageSummaryList"])

    def judge(self, package: str, status: str) -> None:
        """Approve or reject a package, as a person does."""
        self.client("sagemaker").update_model_package(ModelPackageArn=package, ModelApprovalStatus=status)

    def served(self) -> str | None:
        """Return the package that the endpoint serves when it is in service."""
        sagemaker = self.client("sagemaker")
        try:
            endpoint = sagemaker.describe_endpoint(EndpointName=self.outputs["EndpointName"])
        except sagemaker.exceptions.ClientError:
            return None
        if endpoint["EndpointStatus"] != "InService":
            return None
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        model = sagemaker.describe_model(ModelName=config["ProductionVariants"][0]["ModelName"])
        containers = [model.get("PrimaryContainer") or {}, *(model.get("Containers") or [])]
        return str(next(c["ModelPackageName"] for c in containers if c.get("ModelPackageName")))

    def wait_served(self, package: str) -> None:
        """Wait until the endpoint serves a package and the deploy machine has ended."""
        wait_for(f"the endpoint serving {package}", lambda: True if self.served() == package else None, 180)
        self.quiet()

    @staticmethod
    def wait_for(what: str, look: Callable[[], T | None], seconds: float = 180) -> T:
        """Return the first answer of ``look`` that is not None."""
        return wait_for(what, look, seconds)

    @staticmethod
    def correction(inference_id: str, label: str, **metadata: str) -> str:
        """Return one line of ground truth."""
        record = {
            "groundTruthData": {"data": label, "encoding": "CSV"},
            "eventMetadata": {"eventId": inference_id, **metadata},
            "eventVersion": "0",
        }
        return json.dumps(record)

    def upload(self, name: str, lines: list[str]) -> None:
        """Upload corrections to the inbox."""
        self.client("s3").put_object(
            Bucket=self.outputs["DataBucketName"],
            Key=self.outputs["GroundTruthPrefix"] + name,
            Body="\n".join(lines).encode() + b"\n",
        )

    def capture(self, inference_ids: list[str]) -> None:
        """Write captured predictions for invented ids, as the endpoint writes those of real ones."""
        image = {"observedContentType": "image/png", "mode": "INPUT", "encoding": "BASE64"}
        answer = {"observedContentType": "application/json", "mode": "OUTPUT", "encoding": "JSON"}
        records = [
            {
                "captureData": {
                    "endpointInput": {**image, "data": "iVBORw=="},
                    "endpointOutput": {**answer, "data": "{}"},
                },
                "eventMetadata": {
                    "eventId": str(uuid.uuid4()),
                    "inferenceId": inference_id,
                    "inferenceTime": "2026-11-22T10:00:00Z",
                },
                "eventVersion": "0",
            }
            for inference_id in inference_ids
        ]
        self.client("s3").put_object(
            Bucket=self.outputs["DataBucketName"],
            Key=f"capture/{self.outputs['EndpointName']}/AllTraffic/2026/11/22/10/{uuid.uuid4()}.jsonl",
            Body="".join(json.dumps(record) + "\n" for record in records).encode(),
        )

    def wait_captured(self, inference_ids: list[str]) -> None:
        """Wait until the endpoint has written the captures of these requests."""
        s3, bucket = self.client("s3"), self.outputs["DataBucketName"]

        def look() -> bool | None:
            held = set()
            for key in self.keys(f"capture/{self.outputs['EndpointName']}/"):
                for line in s3.get_object(Bucket=bucket, Key=key)["Body"].iter_lines():
                    held.add(json.loads(line)["eventMetadata"].get("inferenceId"))
            return True if held >= set(inference_ids) else None

        wait_for("the capture of the requests", look)

    def keys(self, prefix: str) -> list[str]:
        pages = (
            self.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(Bucket=self.outputs["DataBucketName"], Prefix=prefix)
        )
        return [item["Key"] for page in pages for item in page.get("Contents", [])]


def serve_empty(port: int, environment: dict[str, str], parameters: dict[str, str]) -> subprocess.Popen[str]:
    """Deploy the stack without the demo's base set and parameters."""
    return serve(port, environment, *_named(parameters), module="local")


def _named(parameters: dict[str, str]) -> list[str]:
    return [f"--parameter={name}={value}" for name, value in parameters.items()]


def serve(
    port: int, environment: dict[str, str], *arguments: str, module: str = "demo.serve"
) -> subprocess.Popen[str]:
    """Start ``make local``'s process, or another one that says so, and wait until it is ready."""
    process = subprocess.Popen(
        # A test run that is killed takes its server with it.
        [sys.executable, "-m", module, "--end-with-stdin", "--port", str(port), *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "ready":
            return process
    pytest.fail(f"the stack's process ended with {process.wait()} before it was ready")


@pytest.fixture(scope="module")
def calls_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the embedded AWS writes which role made which call, when it stops."""
    return tmp_path_factory.mktemp("calls") / "calls.json"


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, calls_file: Path) -> Iterator[Stack]:
    """Deploy the stack with the demo's base set and parameters; take it down after the module.

    A module that wants other values for some parameters names them in its ``PARAMETERS``, and settings of the
    embedded AWS in its ``ENVIRONMENT``.
    """
    port = free_port()
    changes: dict[str, str] = getattr(request.module, "PARAMETERS", {})
    more: dict[str, str] = getattr(request.module, "ENVIRONMENT", {})
    process = serve(port, {"TRUTHLOOP_LOCAL_CALLS": str(calls_file), **more}, *_named(changes))
    yield Stack(f"http://localhost:{port}")
    if process.poll() is None:
        process.terminate()
        assert process.wait(timeout=60) == 0
