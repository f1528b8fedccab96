"""Functions to deploy, servers with short times, and waiting: shared by the tests of the embedded Lambda."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]

ECHO = """
def lambda_handler(event, context):
    return event
"""


class Server:
    """A running server of a test's own, with its process."""

    def __init__(self, port: int, process: subprocess.Popen[str]) -> None:
        self.port = port
        self.process = process

    def client(self, service: str) -> Any:
        return client(self.port, service)


def client(port: int, service: str) -> Any:
    return boto3.session.Session().client(
        service,  # type: ignore[call-overload]
        region_name="us-east-1",
        endpoint_url=f"http://localhost:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, max_pool_connections=32),
    )


@contextmanager
def running_server(port: int, **settings: str) -> Iterator[Server]:
    """Run ``python -m local --no-deploy`` with settings of the embedded Lambda."""
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "--no-deploy", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    try:
        yield Server(port, process)
    finally:
        process.terminate()
        process.wait(timeout=60)
        process.stdout.close()


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
    return buffer.getvalue()


class Functions:
    """Creates functions through the API of a server and invokes them."""

    def __init__(self, make_client: Callable[[str], Any]) -> None:
        self.client = make_client
        self.api = make_client("lambda")

    def role(self, name: str = "role-of-tests") -> str:
        """Return the ARN of a role that may do everything, made when it is missing."""
        iam = self.client("iam")
        try:
            role = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]
        except iam.exceptions.EntityAlreadyExistsException:
            return str(iam.get_role(RoleName=name)["Role"]["Arn"])
        statement = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName=name, PolicyName="everything", PolicyDocument=document)
        return str(role["Arn"])

    def create(self, source: str = ECHO, files: dict[str, str] | None = None, **properties: Any) -> str:
        name = f"f-{uuid.uuid4().hex[:12]}"
        defaults = {
            "Runtime": "python3.13",
            "Handler": "app.lambda_handler",
            "Role": self.role(),
            "Timeout": 10,
            "Code": {"ZipFile": archive({"app.py": source} | (files or {}))},
        }
        self.api.create_function(FunctionName=name, **(defaults | properties))
        return name

    def invoke(self, name: str, event: Any = None, **options: Any) -> Any:
        """Return the decoded payload; a function error is raised as AssertionError."""
        answer = self.api.invoke(FunctionName=name, Payload=json.dumps(event), **options)
        payload = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, payload
        return payload

    def fail(self, name: str, event: Any = None, **options: Any) -> dict[str, Any]:
        """Return the decoded error document of an invocation that must fail."""
        answer = self.api.invoke(FunctionName=name, Payload=json.dumps(event), **options)
        payload = json.loads(answer["Payload"].read())
        assert answer["FunctionError"] == "Unhandled", payload
        return dict(payload)

    def queue(self, **attributes: str) -> tuple[str, str]:
        """Create a queue; return URL and ARN."""
        sqs = self.client("sqs")
        suffix = ".fifo" if attributes.get("FifoQueue") == "true" else ""
        url = sqs.create_queue(QueueName=f"q-{uuid.uuid4().hex[:12]}{suffix}", Attributes=attributes)[
            "QueueUrl"
        ]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return url, arn

    def messages(self, url: str, count: int, seconds: float = 90) -> list[dict[str, Any]]:
        """Receive and delete until ``count`` messages have come."""
        sqs = self.client("sqs")
        found: list[dict[str, Any]] = []
        end = time.monotonic() + seconds
        while len(found) < count and time.monotonic() < end:
            answer = sqs.receive_message(
                QueueUrl=url,
                WaitTimeSeconds=1,
                MaxNumberOfMessages=10,
                MessageAttributeNames=["All"],
                AttributeNames=["All"],
            )
            for message in answer.get("Messages", []):
                found.append(message)
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        assert len(found) >= count, f"{len(found)} of {count} messages came in {seconds} s"
        return found

    def log(self, name: str) -> list[str]:
        """Return the messages of a function's log; none before it has run."""
        logs = self.client("logs")
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return []
        return [event["message"] for event in events]


def eventually(check: Callable[[], Any], seconds: float = 90) -> Any:
    """Return the first true value of ``check``."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value or time.monotonic() > end:
            assert value
            return value
        time.sleep(0.02)


def workers_of(process_id: int) -> list[int]:
    """Return the process ids of the workers below a server."""
    import psutil

    found = []
    for child in psutil.Process(process_id).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ends while we look (a zombie is one too)
            if "awslambdaric" in child.cmdline():
                found.append(child.pid)
    return found


def forwarder(server: Any, name: str, queue: str, url: str) -> str:
    """Create a function that sends its event to a queue, and return its ARN."""
    code = """
import json, os, boto3
def handle(event, _):
    boto3.client("sqs").send_message(QueueUrl=os.environ["URL"], MessageBody=json.dumps(event))
"""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("app.py", code)
    iam = server.client("iam")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    allowed = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": queue}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    iam.put_role_policy(RoleName=name, PolicyName="send", PolicyDocument=json.dumps(policy))
    function = server.client("lambda").create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="app.handle",
        Role=role,
        Code={"ZipFile": archive.getvalue()},
        Environment={"Variables": {"URL": url}},
        Timeout=20,
    )
    return str(function["FunctionArn"])
