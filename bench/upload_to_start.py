"""How long from an upload to a started execution, beside the same execution started directly.

Run it with ``.venv/bin/python bench/upload_to_start.py``; it starts its own embedded AWS. Each figure is the
time from just before the first call of the user until the execution's own start date, on one machine and
one clock. The exit code is 1 when the median over the whole chain is above two seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import socket
import statistics
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[1]
ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bench"
LIMIT = 2.0
"""Seconds that the median of the whole chain may take."""
STARTER = """
import json, os, boto3
client = boto3.client("stepfunctions")
def handle(event, _):
    for record in event["Records"]:
        name = json.loads(record["body"])["detail"]["object"]["key"].replace("/", "-")
        client.start_execution(stateMachineArn=os.environ["MACHINE"], name=name, input="{}")
"""


@contextmanager
def embedded_aws() -> Iterator[Callable[[str], Any]]:
    """Run an empty embedded AWS and yield a maker of clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "local", "--no-deploy", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not any(line.strip() == "ready" for line in process.stdout):
            raise SystemExit(f"python -m local ended with {process.wait()} before it was ready")

        def client(service: str) -> Any:
            return boto3.session.Session().client(
                service,  # type: ignore[call-overload]
                region_name="us-east-1",
                endpoint_url=f"http://localhost:{port}",
                aws_access_key_id="bench",
                aws_secret_access_key="bench",
                config=Config(s3={"addressing_style": "path"}),
            )

        yield client
    finally:
        process.terminate()
        process.wait(timeout=20)


class Bench:
    """The chain under test, built with plain API calls."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self.s3, self.states, self.events = client("s3"), client("stepfunctions"), client("events")
        self.sqs, self.functions, self.iam = client("sqs"), client("lambda"), client("iam")
        self.s3.create_bucket(Bucket="bench")
        self.s3.put_bucket_notification_configuration(
            Bucket="bench", NotificationConfiguration={"EventBridgeConfiguration": {}}
        )
        self.machine = self._machine("bench")
        self.routed = self._machine("routed")

    def _machine(self, name: str) -> str:
        definition = {"StartAt": "Stop", "States": {"Stop": {"Type": "Pass", "End": True}}}
        created = self.states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
        return str(created["stateMachineArn"])

    def route_to_machine(self) -> None:
        """Upload → rule → state machine."""
        self._rule("direct/", {"Arn": self.routed, "RoleArn": ROLE})

    def route_through_function(self) -> None:
        """Upload → rule → queue → function, with no batch window → state machine."""
        self.sqs.create_queue(QueueName="bench")
        queue = f"arn:aws:sqs:us-east-1:{ACCOUNT}:bench"
        role = self.iam.create_role(RoleName="starter", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        allowed = {"Effect": "Allow", "Action": ["states:StartExecution", "sqs:*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.iam.put_role_policy(RoleName="starter", PolicyName="start", PolicyDocument=policy)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as files:
            files.writestr("app.py", STARTER)
        self.functions.create_function(
            FunctionName="starter",
            Runtime="python3.13",
            Handler="app.handle",
            Role=role,
            Code={"ZipFile": archive.getvalue()},
            Environment={"Variables": {"MACHINE": self.machine}},
            Timeout=30,
        )
        self.functions.create_event_source_mapping(
            EventSourceArn=queue, FunctionName="starter", BatchSize=1, MaximumBatchingWindowInSeconds=0
        )
        self._rule("queued/", {"Arn": queue})

    def _rule(self, prefix: str, target: dict[str, str]) -> None:
        name = prefix.strip("/")
        pattern = {"source": ["aws.s3"], "detail": {"object": {"key": [{"prefix": prefix}]}}}
        self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))
        self.events.put_targets(Rule=name, Targets=[{"Id": "1", **target}])

    def start_directly(self) -> float:
        """Return the seconds from StartExecution to the execution's start."""
        began = time.time()
        name = uuid.uuid4().hex
        self.states.start_execution(stateMachineArn=self.machine, name=name, input="{}")
        return self._started(self.machine, lambda found: found["name"] == name) - began

    def upload_to_machine(self) -> float:
        """Return the seconds from the upload to the start of the execution that the rule starts."""
        known = {found["name"] for found in self._executions(self.routed)}
        began = time.time()
        self.s3.put_object(Bucket="bench", Key=f"direct/{uuid.uuid4().hex}", Body=b"x")
        return self._started(self.routed, lambda found: found["name"] not in known) - began

    def upload_through_function(self) -> float:
        """Return the seconds from the upload to the start of the execution that the function starts."""
        key = uuid.uuid4().hex
        began = time.time()
        self.s3.put_object(Bucket="bench", Key=f"queued/{key}", Body=b"x")
        return self._started(self.machine, lambda found: found["name"] == f"queued-{key}") - began

    def _executions(self, machine: str) -> list[Any]:
        return list(self.states.list_executions(stateMachineArn=machine, maxResults=1000)["executions"])

    def _started(self, machine: str, wanted: Callable[[Any], bool]) -> float:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            for found in self._executions(machine):
                if wanted(found):
                    return float(found["startDate"].timestamp())
            time.sleep(0.01)
        raise SystemExit("no execution started within 30 seconds")


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with embedded_aws() as client:
        bench = Bench(client)
        bench.route_to_machine()
        bench.route_through_function()
        ways = {
            "StartExecution, called directly": bench.start_directly,
            "upload → rule → execution": bench.upload_to_machine,
            "upload → rule → queue → function → execution": bench.upload_through_function,
        }
        cold = {name: way() for name, way in ways.items()}
        # One of each in turn, so that a busy moment of the machine meets all of them.
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, way in ways.items():
                times[name].append(way())
    medians = {name: statistics.median(values) for name, values in times.items()}
    peer = next(iter(medians.values()))
    print(f"{'way':<46} {'first':>9} {'median':>9} {'p95':>9} {'ratio':>7}")
    for name, values in times.items():
        late = sorted(values)[max(0, round(len(values) * 0.95) - 1)]
        print(
            f"{name:<46} {cold[name] * 1000:6.0f} ms {medians[name] * 1000:6.0f} ms {late * 1000:6.0f} ms "
            f"{medians[name] / peer:6.1f}x"
        )
    slowest = medians["upload → rule → queue → function → execution"]
    print(f"upload to start: median {slowest:.3f} s, limit {LIMIT:.0f} s, {runs} runs")
    return 0 if slowest <= LIMIT else 1


if __name__ == "__main__":
    raise SystemExit(main())
