"""What the SageMaker tests share: requests, waits, S3 short cuts, a queue that sees the events."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from local.ports import free_port

T = TypeVar("T")

ROLE = "arn:aws:iam::123456789012:role/sagemaker-test"
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
PROBE = f"{REGISTRY}/truthloop-probe:latest"
RESOURCES = {"InstanceType": "ml.p3.8xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10}


def unique(stem: str) -> str:
    return f"{stem}-{uuid.uuid4().hex[:8]}"


def wait_until(
    check: Callable[[], T | None], seconds: float = 45.0, what: str = "the condition", pause: float = 0.05
) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = check()
        if value:
            return value
        time.sleep(pause)
    raise AssertionError(f"{what} did not come true in {seconds} s")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children_of(pid: int) -> list[int]:
    """Return all descendants of a process."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
    found: list[int] = []
    wanted = [pid]
    while wanted:
        parent = wanted.pop()
        mine = [child for child, its in parents.items() if its == parent]
        found += mine
        wanted += mine
    return found


@contextmanager
def own_server(**environment: str) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """Start a server with an environment of its own."""
    from tests.local.conftest import LocalServer

    root = Path(__file__).resolve().parents[2]
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "--no-deploy", "--port", str(port)],
        cwd=root,
        env={**os.environ, "TRUTHLOOP_IMAGES": str(root / "tests/local/fixtures/images"), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "ready"
        yield LocalServer(port), process
    finally:
        process.terminate()
        process.wait(timeout=60)


def channel(name: str, uri: str, kind: str = "S3Prefix", **more: str) -> dict[str, Any]:
    source = {"S3DataType": kind, "S3Uri": uri, **more}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}}


class Driver:
    """Clients and short cuts for one server."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.sagemaker = server.client("sagemaker")
        self.runtime = server.client("sagemaker-runtime", retries={"total_max_attempts": 1})
        self.s3 = server.client("s3")
        self.logs = server.client("logs")
        self.cloudwatch = server.client("cloudwatch")
        self.sqs = server.client("sqs")
        self.events = server.client("events")
        self.bucket = unique("sm-test")
        self.s3.create_bucket(Bucket=self.bucket)

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes | str) -> str:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def get(self, uri: str) -> bytes:
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return bytes(self.s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [item["Key"] for item in found.get("Contents", [])]

    def tar_member(self, uri: str, name: str) -> Any:
        with tarfile.open(fileobj=io.BytesIO(self.get(uri))) as tar:
            member = tar.extractfile(name)
            assert member is not None
            return json.loads(member.read())

    def model_data(self, member: str = "weights.json", **content: Any) -> str:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            body = json.dumps(content).encode()
            info = tarfile.TarInfo(member)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
        return self.put(f"models/{uuid.uuid4().hex}/model.tar.gz", buffer.getvalue())

    def training_request(self, name: str, **changes: Any) -> dict[str, Any]:
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {"TrainingImage": PROBE, "TrainingInputMode": "File"},
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": self.uri("output")},
            "ResourceConfig": RESOURCES,
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **changes,
        }

    def processing_request(self, name: str, *arguments: str, **changes: Any) -> dict[str, Any]:
        return {
            "ProcessingJobName": name,
            "AppSpecification": {"ImageUri": PROBE, "ContainerArguments": ["process", *arguments]},
            "RoleArn": ROLE,
            "ProcessingResources": {
                "ClusterConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10}
            },
            "ProcessingOutputConfig": {
                "Outputs": [
                    {
                        "OutputName": "report",
                        "S3Output": {
                            "S3Uri": self.uri(f"processing/{name}"),
                            "LocalPath": "/opt/ml/processing/output",
                            "S3UploadMode": "EndOfJob",
                        },
                    }
                ]
            },
            **changes,
        }

    def train(self, wait: bool = True, **changes: Any) -> dict[str, Any]:
        name = unique("train")
        self.sagemaker.create_training_job(**self.training_request(name, **changes))
        return self.trained(name) if wait else {"TrainingJobName": name}

    def trained(self, name: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job = self.sagemaker.describe_training_job(TrainingJobName=name)
            return job if job["TrainingJobStatus"] in ("Completed", "Failed", "Stopped") else None

        return wait_until(ended, what=f"the end of {name}")

    def process(self, *arguments: str, wait: bool = True, **changes: Any) -> dict[str, Any]:
        name = unique("process")
        self.sagemaker.create_processing_job(**self.processing_request(name, *arguments, **changes))
        return self.processed(name) if wait else {"ProcessingJobName": name}

    def processed(self, name: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            job = self.sagemaker.describe_processing_job(ProcessingJobName=name)
            return job if job["ProcessingJobStatus"] in ("Completed", "Failed", "Stopped") else None

        return wait_until(ended, what=f"the end of {name}")

    def streams(self, group: str, prefix: str) -> list[str]:
        found = self.logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)
        return [stream["logStreamName"] for stream in found["logStreams"]]

    def messages(self, group: str, prefix: str) -> list[str]:
        """Return the lines of the first stream whose name begins so."""
        names = self.streams(group, prefix)
        if not names:
            return []
        found = self.logs.get_log_events(logGroupName=group, logStreamName=names[0], startFromHead=True)
        return [event["message"] for event in found["events"]]

    def watch(self, detail_type: str) -> Callable[[], list[dict[str, Any]]]:
        """Return a function that gives all events of a type that have come so far."""
        name = unique("watch")
        # What was received stays invisible for longer than any test: nothing needs to be deleted.
        queue = self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "3600"})["QueueUrl"]
        arn = self.sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        pattern = {"source": ["aws.sagemaker"], "detail-type": [detail_type]}
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        target = {"Id": "queue", "Arn": arn["Attributes"]["QueueArn"]}
        self.sqs.set_queue_attributes(
            QueueUrl=queue,
            Attributes={
                "Policy": json.dumps(
                    {
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Principal": {"Service": "events.amazonaws.com"},
                                "Action": "sqs:SendMessage",
                                "Resource": target["Arn"],
                            }
                        ]
                    }
                )
            },
        )
        self.events.put_targets(Rule=name, Targets=[target])
        seen: list[dict[str, Any]] = []

        def collect() -> list[dict[str, Any]]:
            while True:
                batch = self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
                seen.extend(json.loads(message["Body"]) for message in batch)
                if not batch:
                    return seen

        return collect


def role(aws: Driver, *actions: str) -> str:
    """A role that IAM knows, with these rights on everything."""
    iam = aws.server.client("iam")
    name = unique("job-role")
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=policy)
    return str(arn)
