"""The deployed stack: its outputs, and clients with the user's own configuration.

Plain boto3: profile, region, credentials and ``AWS_ENDPOINT_URL`` come from where they always come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import (
    NoCredentialsError as BotoNoCredentialsError,
)

from cli.bucket import Bucket
from cli.errors import (
    DeniedError,
    NoCredentialsError,
    NoStackError,
    NotTruthloopError,
    UnreachableError,
)
from truthloop.errors import TruthloopError
from truthloop.settings import (
    DATA_BUCKET_NAME,
    ENDPOINT_NAME,
    LOOP_TABLE_NAME,
    MODEL_PACKAGE_GROUP_NAME,
    PIPELINE_NAME,
    POLICY,
    Settings,
)
from truthloop.wiring import Wiring

OUTPUTS = (
    "DataBucketName",
    "GroundTruthPrefix",
    "PipelineName",
    "RetrainStateMachineArn",
    "DeployStateMachineArn",
    "ModelPackageGroupName",
    "EndpointName",
    "AccuracyAlarmName",
    "NotificationTopicArn",
    "LoopTableName",
)
"""The outputs that every Truthloop stack has."""


@dataclass(frozen=True)
class Stack:
    """A Truthloop stack by name."""

    name: str

    def client(self, service: str) -> Any:
        """Return a boto3 client; one retry, so a wrong endpoint is reported soon."""
        return boto3.client(
            service,  # type: ignore[call-overload]
            config=Config(retries={"total_max_attempts": 2}, connect_timeout=5),
        )

    @cached_property
    def bucket(self) -> Bucket:
        """The data bucket."""
        return Bucket(self.client("s3"), self.outputs["DataBucketName"])

    def ports(self, environment: Mapping[str, str] | None = None) -> Wiring:
        """Return the functions' own adapters, for commands that ask the functions' own rules."""
        outputs = self.outputs
        named = {
            LOOP_TABLE_NAME: outputs["LoopTableName"],
            DATA_BUCKET_NAME: outputs["DataBucketName"],
            PIPELINE_NAME: outputs["PipelineName"],
            MODEL_PACKAGE_GROUP_NAME: outputs["ModelPackageGroupName"],
            ENDPOINT_NAME: outputs["EndpointName"],
        }
        return Wiring(Settings({**named, **(environment or {})}))

    @cached_property
    def caller(self) -> str:
        """The ARN of whoever runs the command."""
        return str(self.client("sts").get_caller_identity()["Arn"])

    @cached_property
    def status(self) -> str:
        """The stack's status, such as ``CREATE_COMPLETE``."""
        return str(self._described["StackStatus"])

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The stack's outputs.

        Raises
        ------
        NotTruthloopError
            When it lacks outputs that a Truthloop stack has.
        """
        found = {item["OutputKey"]: item["OutputValue"] for item in self._described.get("Outputs", [])}
        missing = [name for name in OUTPUTS if name not in found]
        if missing:
            raise NotTruthloopError(
                f"the stack {self.name} ({self.status}) has no output {', '.join(missing)}: either it is no "
                "Truthloop stack (name another with --stack or TRUTHLOOP_STACK) or its deployment failed"
            )
        return found

    def deciding_ports(self) -> Wiring:
        """Return the adapters with the policy that the preflight function decides by."""
        function = f"{self.name}-preflight-run"
        configured = self.client("lambda").get_function_configuration(FunctionName=function)
        return self.ports({POLICY: configured["Environment"]["Variables"][POLICY]})

    def physical_id(self, resource: str) -> str:
        """Return the physical id of a resource of the stack, by its name in the template."""
        found = self.client("cloudformation").describe_stack_resource(
            StackName=self.name, LogicalResourceId=resource
        )
        return str(found["StackResourceDetail"]["PhysicalResourceId"])

    @cached_property
    def _described(self) -> dict[str, Any]:
        client = self.client("cloudformation")
        try:
            described: dict[str, Any] = client.describe_stacks(StackName=self.name)["Stacks"][0]
        except ClientError as error:
            # CloudFormation has no code of its own for a stack that is not there.
            if error.response["Error"]["Code"] == "ValidationError":
                raise NoStackError(
                    f"there is no stack {self.name} at {client.meta.endpoint_url}: deploy it (make deploy), "
                    "name another with --stack or TRUTHLOOP_STACK, or set AWS_REGION or AWS_ENDPOINT_URL"
                ) from error
            raise
        return described


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what boto3 raises into errors that say what to do."""
    try:
        yield
    except (BotoNoCredentialsError, PartialCredentialsError) as error:
        raise NoCredentialsError(
            f"{error}: configure AWS credentials (aws configure, AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; the local AWS takes any)"
        ) from error
    except NoRegionError as error:
        raise NoCredentialsError("no region is set: set AWS_REGION or the region of your profile") from error
    except ProfileNotFound as error:
        raise NoCredentialsError(f"{error}: AWS_PROFILE names a profile that does not exist") from error
    except (EndpointConnectionError, HTTPClientError) as error:
        raise UnreachableError(
            f"{error}: is the endpoint right (AWS_ENDPOINT_URL), and does it run (make local)?"
        ) from error
    except TruthloopError as error:
        raise DeniedError(str(error)) from error
    except ClientError as error:
        said = error.response["Error"]
        raise DeniedError(
            f"{error.operation_name} failed with {said['Code']}: {said.get('Message', '')}"
        ) from error
