"""Ten thousand uploads in random order, a fifth of them duplicates: one start, and no label lost.

``make soak`` plays ten thousand, which take two processors about three minutes; the suite plays a thousand.
"""

from __future__ import annotations

import base64
import json
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import urllib3

from demo.digits import Digit, images

UPLOADS = int(os.environ.get("TRUTHLOOP_UPLOADS", "1000"))
COPIES = UPLOADS // 10  # the same content under another key
REPEATS = UPLOADS // 10  # the same content under the same key: a second version
CORRECTED = UPLOADS // 20  # statements that their author corrects in another upload, earlier or later
IDS = UPLOADS - COPIES - REPEATS - CORRECTED
REDELIVERIES = UPLOADS // 20  # of S3 events, on top of the uploads
AUTHORS = ("ann", "ben", "cleo", None)
CAPTURES = 20  # capture objects that hold the predictions
MACHINES = 4
WAIT = 300.0  # seconds

# Only when the last label is there is the evidence enough, so a run that starts earlier or twice shows.
PARAMETERS = {
    "MinimumNewLabels": str(IDS),
    "Epochs": "1",
    "AccuracyThreshold": "0.05",
    "ApprovalMode": "auto",
    # The first run holds its claim while most of the uploads come: what they trigger meanwhile must wait.
    "PollIntervalSeconds": str(max(8, UPLOADS // 250)),
}


@dataclass(frozen=True)
class Upload:
    """One object that a user puts into the inbox."""

    key: str
    line: str


def statement(identifier: str, label: str, author: str | None, said: datetime) -> str:
    metadata = {"eventId": identifier, "eventTime": said.strftime("%Y-%m-%dT%H:%M:%SZ"), "author": author}
    return json.dumps(
        {
            "groundTruthData": {"data": label, "encoding": "CSV"},
            "eventMetadata": {key: value for key, value in metadata.items() if value},
            "eventVersion": "0",
        }
    )


def plan(rng: random.Random, digits: list[Digit]) -> tuple[list[Upload], dict[str, tuple[str, str | None]]]:
    """Return the uploads in random order, and what holds of each inference id in the end: label, author."""
    begun = datetime.now(UTC) - timedelta(hours=2)
    said = {f"request-{n:05d}": (digit.label, rng.choice(AUTHORS)) for n, digit in enumerate(digits)}
    uploads = [
        Upload(f"{author or 'team'}/{identifier}.jsonl", statement(identifier, label, author, begun))
        for identifier, (label, author) in said.items()
    ]
    superseded = [
        Upload(
            f"first-try/{identifier}.jsonl",
            statement(identifier, str((int(label) + 1) % 10), author, begun - timedelta(minutes=30)),
        )
        for identifier, (label, author) in rng.sample(sorted(said.items()), CORRECTED)
    ]
    copies = [Upload(f"again/{n}.jsonl", u.line) for n, u in enumerate(rng.sample(uploads, COPIES))]
    repeats = rng.sample(uploads, REPEATS)
    every = [*uploads, *superseded, *copies, *repeats]
    rng.shuffle(every)
    return every, said


def capture_line(identifier: str, digit: Digit) -> str:
    about = {"eventId": identifier, "inferenceId": identifier, "inferenceTime": "2026-11-22T10:00:00Z"}
    image = base64.b64encode(digit.png).decode()
    content = {"observedContentType": "image/png", "mode": "INPUT", "data": image, "encoding": "BASE64"}
    answer = {"observedContentType": "application/json", "mode": "OUTPUT", "encoding": "JSON"}
    answer["data"] = json.dumps({"label": digit.label, "score": 0.5})
    return json.dumps(
        {
            "captureData": {"endpointInput": content, "endpointOutput": answer},
            "eventMetadata": about,
            "eventVersion": "0",
        }
    )


def read(stack: Any, key: str) -> bytes:
    answer = stack.client("s3").get_object(Bucket=stack.outputs["DataBucketName"], Key=key)
    return bytes(answer["Body"].read())


class Uploader:
    """What uploads: plain HTTP, because signing would take more time than the server needs for the answer."""

    def __init__(self, stack: Any) -> None:
        self._pool = urllib3.PoolManager(maxsize=MACHINES)
        bucket, prefix = stack.outputs["DataBucketName"], stack.outputs["GroundTruthPrefix"]
        self._inbox = f"{stack.endpoint}/{bucket}/{prefix}"

    def put(self, upload: Upload) -> None:
        answer = self._pool.request("PUT", self._inbox + upload.key, body=upload.line, headers=_USER)
        assert answer.status == 200, answer.data


_USER = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=user/20261122/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=none",
    "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
}


class Queue:
    """A queue of the stack, or of the test."""

    def __init__(self, stack: Any, name: str) -> None:
        self.sqs = stack.client("sqs")
        self.url = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def depth(self) -> int:
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        return sum(int(value) for key, value in found.items() if key.startswith("ApproximateNumberOf"))

    def take(self, count: int) -> list[str]:
        bodies: list[str] = []
        while len(bodies) < count:
            answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=20)
            assert answer.get("Messages"), f"{len(bodies)} of {count} messages came"
            bodies += [message["Body"] for message in answer["Messages"]]
        return bodies[:count]

    def send(self, bodies: list[str]) -> None:
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[start : start + 10])
            ]
            assert not self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries).get("Failed")


def overheard(stack: Any) -> Queue:
    """Return a queue that is told of some uploads, as the ingest queue is told of all."""
    stack.client("sqs").create_queue(QueueName="overheard")
    names = [{"wildcard": f"{stack.outputs['GroundTruthPrefix']}*{digit}.jsonl"} for digit in "37"]
    bucket = {"name": [stack.outputs["DataBucketName"]]}
    pattern = {"source": ["aws.s3"], "detail": {"bucket": bucket, "object": {"key": names}}}
    events = stack.client("events")
    events.put_rule(Name="overheard", EventPattern=json.dumps(pattern))
    arn = "arn:aws:sqs:us-east-1:123456789012:overheard"
    events.put_targets(Rule="overheard", Targets=[{"Id": "1", "Arn": arn}])
    return Queue(stack, "overheard")


class Timeline:
    """When what was reached, in seconds since the stack was ready; printed for whoever runs it with -s."""

    def __init__(self) -> None:
        self._begun = self._last = time.monotonic()

    def mark(self, what: str, count: int | None = None) -> None:
        now = time.monotonic()
        rate = f" ({count / (now - self._last):.0f}/s)" if count else ""
        print(f"{now - self._begun:6.1f} s  {what}{rate}", flush=True)
        self._last = now


def print_states(stack: Any, execution: str) -> None:
    """Print how long each state of the execution that started the run took."""
    pages = (
        stack.client("stepfunctions")
        .get_paginator("get_execution_history")
        .paginate(executionArn=execution, PaginationConfig={"PageSize": 1000})
    )
    entered: dict[str, datetime] = {}
    for page in pages:
        for item in page["events"]:
            if "stateEnteredEventDetails" in item:
                entered[item["stateEnteredEventDetails"]["name"]] = item["timestamp"]
            name = item.get("stateExitedEventDetails", {}).get("name")
            if name in ("Claim", "Preflight", "SnapshotDataset", "StartPipeline", "Release"):
                print(f"  {name}: {(item['timestamp'] - entered[name]).total_seconds():.1f} s", flush=True)


def running(stack: Any) -> list[str]:
    every = [*stack.executions("Retrain"), *stack.executions("Deploy")]
    return [execution["executionArn"] for execution in every if execution["status"] == "RUNNING"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_uploads_start_one_run_that_holds_every_label(stack: Any) -> None:
    rng = random.Random(20261122)
    bucket = stack.outputs["DataBucketName"]
    s3 = stack.client("s3")
    timeline = Timeline()
    # Given: the first run trains, and the captured predictions of thousands of requests
    for key in stack.keys("smoke-test/"):
        s3.delete_object(Bucket=bucket, Key=key)  # they would turn away what learns for one epoch
    first = stack.start("Retrain", {})
    digits = [rng.choice(images()) for _ in range(IDS)]
    captured = [capture_line(f"request-{n:05d}", digit) for n, digit in enumerate(digits)]
    for n in range(CAPTURES):
        key = f"capture/{stack.outputs['EndpointName']}/AllTraffic/2026/11/22/10/{n:02d}.jsonl"
        s3.put_object(Bucket=bucket, Key=key, Body="\n".join(captured[n::CAPTURES]).encode())
    twice, ingest = overheard(stack), Queue(stack, "truthloop-ingest")
    stack.wait_for("the first run", lambda: stack.pipeline_runs() or None, WAIT)
    timeline.mark("captured, and the first run has begun")

    # When: ten thousand uploads come in random order, and some of their events twice
    uploads, said = plan(rng, digits)
    assert len(uploads) == UPLOADS
    with ThreadPoolExecutor(MACHINES) as machines:
        list(machines.map(Uploader(stack).put, uploads))
    timeline.mark("uploaded", UPLOADS)
    ingest.send(rng.sample(twice.take(REDELIVERIES), REDELIVERIES))
    timeline.mark("delivered some events again")

    # Then: everything is ingested, and the loop comes to rest
    stack.wait_for("an empty ingest queue", lambda: True if ingest.depth() == 0 else None, WAIT)
    timeline.mark("ingested", UPLOADS + REDELIVERIES)
    assert json.loads(stack.ended(first, WAIT)["output"])["outcome"] == "SUCCEEDED"
    timeline.mark("the first run has ended")
    stack.wait_for("the second run", lambda: stack.pipeline_runs()[1:] or None, WAIT)
    timeline.mark("started")
    stack.wait_for("quiescence", lambda: None if running(stack) else True, WAIT)
    timeline.mark("at rest")
    again = stack.retrain()
    assert again["outcome"] == "REFUSED", again
    timeline.mark("asked for another run")
    for name in ("truthloop-ingest-dead-letters", "truthloop-event-dead-letters"):
        assert Queue(stack, name).depth() == 0, name
    assert stack.keys("ground-truth/quarantine/") == []
    assert len(stack.keys("ground-truth/accepted/")) == UPLOADS

    # And: one run was started for all of it, and its dataset version holds every label, the newest of each
    runs = stack.pipeline_runs()
    assert len(runs) == 2, runs
    generation = runs[0]["PipelineExecutionDisplayName"]
    dataset = f"datasets/{generation}/"
    description = json.loads(read(stack, f"{dataset}dataset.json"))
    trained = [json.loads(line) for line in read(stack, f"{dataset}ground-truth.jsonl").splitlines()]
    assert {row["inferenceId"]: (row["label"], row["author"] or None) for row in trained} == said
    assert len(trained) == description["groundTruth"]["labels"] == IDS
    assert len(description["acceptedKeys"]) == UPLOADS
    assert description["captures"] == CAPTURES

    # And: every execution and every trigger is accounted for in the decision log, and none is left over
    decisions = stack.decisions()
    executions = {execution["executionArn"] for execution in stack.executions("Retrain")}
    assert executions <= {decision["execution"] for decision in decisions}
    outcomes = Counter(decision["outcome"] for decision in decisions)
    print(dict(outcomes), flush=True)
    assert outcomes["SUCCEEDED"] == 2
    assert set(outcomes) <= {"SUCCEEDED", "REFUSED", "COALESCED", "DEPLOYED", "SUPERSEDED"}
    assert decisions[-1]["reason"] == "SAME_EVIDENCE"
    record = stack.record()
    assert record["status"] == {"S": "IDLE"}
    assert not record.get("pending", {}).get("M")
    second = next(d for d in decisions if d["outcome"] == "SUCCEEDED" and d["generation"] == generation)
    print_states(stack, second["execution"])
    timeline.mark("verified")
