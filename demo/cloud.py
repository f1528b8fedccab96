"""The demo's only way to the system: boto3 clients with an endpoint URL, and the stack's outputs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from demo.errors import TookTooLongError

T = TypeVar("T")

REGION = "us-east-1"


class Cloud:
    """Clients for one endpoint, and the few reads that the story repeats.

    Parameters
    ----------
    endpoint
        URL of the embedded AWS.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client = cache(self._client)

    def _client(self, service: str) -> Any:
        return boto3.session.Session().client(
            service,  # type: ignore[call-overload]
            region_name=REGION,
            endpoint_url=self.endpoint,
            aws_access_key_id="demo",
            aws_secret_access_key="demo",  # noqa: S106 - the embedded AWS takes any
            config=Config(
                s3={"addressing_style": "path"},
                # A retry would hide a failed request, and failed requests are counted.
                retries={"total_max_attempts": 1 if service == "sagemaker-runtime" else 3},
                max_pool_connections=16,
                read_timeout=120,
            ),
        )

    def outputs(self, stack: str) -> Outputs:
        """Read the stack's outputs."""
        found = self.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        values = {item["OutputKey"]: item["OutputValue"] for item in found.get("Outputs", [])}
        return Outputs(
            stack=stack,
            bucket=values["DataBucketName"],
            inbox=values["GroundTruthPrefix"],
            pipeline=values["PipelineName"],
            retrain_machine=values["RetrainStateMachineArn"],
            deploy_machine=values["DeployStateMachineArn"],
            package_group=values["ModelPackageGroupName"],
            endpoint=values["EndpointName"],
            alarm=values["AccuracyAlarmName"],
            table=values["LoopTableName"],
            monitor_function=values["RunMonitorFunctionName"],
        )

    def read_json(self, uri: str) -> Any:
        """Read a JSON object from ``s3://bucket/key``."""
        parts = urlsplit(uri)
        answer = self.client("s3").get_object(Bucket=parts.netloc, Key=parts.path.lstrip("/"))
        return json.loads(answer["Body"].read())

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """List the keys under a prefix."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def lines(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield every JSON line of every object under a prefix."""
        for key in self.keys(bucket, prefix):
            body = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
            yield from (json.loads(line) for line in body.splitlines() if line.strip())

    def executions(self, machine: str) -> list[dict[str, Any]]:
        """Return all executions of a state machine, oldest first."""
        pages = (
            self.client("stepfunctions").get_paginator("list_executions").paginate(stateMachineArn=machine)
        )
        found = [item for page in pages for item in page["executions"]]
        return sorted(found, key=lambda item: item["startDate"])

    def pipeline_runs(self, pipeline: str) -> list[dict[str, Any]]:
        """Return all runs of the SageMaker pipeline, oldest first."""
        found = self.client("sagemaker").list_pipeline_executions(PipelineName=pipeline, MaxResults=100)
        return sorted(found["PipelineExecutionSummaries"], key=lambda item: item["StartTime"])

    def pipeline_steps(self, run: str) -> list[dict[str, Any]]:
        """Return the steps of a pipeline run in the order in which they started."""
        found = self.client("sagemaker").list_pipeline_execution_steps(
            PipelineExecutionArn=run, MaxResults=100, SortOrder="Ascending"
        )
        return sorted(found["PipelineExecutionSteps"], key=lambda item: str(item.get("StartTime", "~")))

    def packages(self, group: str) -> list[dict[str, Any]]:
        """Describe all packages of the model package group, oldest first."""
        sagemaker = self.client("sagemaker")
        found = sagemaker.list_model_packages(ModelPackageGroupName=group, MaxResults=100)
        described = [
            sagemaker.describe_model_package(ModelPackageName=item["ModelPackageArn"])
            for item in found["ModelPackageSummaryList"]
        ]
        return sorted(described, key=lambda item: int(item["ModelPackageVersion"]))

    def endpoint_status(self, name: str) -> str | None:
        """Return the endpoint's status, or None if there is none."""
        try:
            return str(self.client("sagemaker").describe_endpoint(EndpointName=name)["EndpointStatus"])
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationException":
                return None
            raise

    def decisions(self, table: str) -> list[dict[str, Any]]:
        """Return the decision log, oldest first."""
        resource = self.client("dynamodb")
        pages = resource.get_paginator("query").paginate(
            TableName=table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": "DECISION"}},
            ConsistentRead=True,
        )
        return [plain(item) for page in pages for item in page["Items"]]


@dataclass(frozen=True)
class Outputs:
    """The names that the deployed stack gives to whoever uses it."""

    stack: str
    bucket: str
    inbox: str
    pipeline: str
    retrain_machine: str
    deploy_machine: str
    package_group: str
    endpoint: str
    alarm: str
    table: str
    monitor_function: str


def plain(item: dict[str, Any]) -> dict[str, Any]:
    """Turn a DynamoDB item into plain JSON values."""
    from boto3.dynamodb.types import TypeDeserializer

    decode = TypeDeserializer().deserialize

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: number(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set):
            return [number(inner) for inner in value]
        if type(value).__name__ == "Decimal":
            return int(value) if value == value.to_integral_value() else float(value)
        return value

    return {key: number(decode(value)) for key, value in item.items()}


def wait_for(what: str, look: Callable[[], T | None], seconds: float, interval: float = 0.25) -> T:
    """Return the first value of ``look()`` that is not None.

    Raises
    ------
    TookTooLongError
        After ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise TookTooLongError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(interval)
