"""Ten thousand uploads in random order, a fifth of them duplicates: one start, and no label lost."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from demo.digits import Digit, images

UPLOADS = 10_000
COPIES = 1_000  # the same content under another key
REPEATS = 1_000  # the same content under the same key: a second version
REDELIVERIES = 500  # of S3 events, on top of the uploads
CORRECTED = 500  # uploads that a later statement of the same author, uploaded earlier or later, supersedes
IDS = UPLOADS - COPIES - REPEATS - CORRECTED
AUTHORS = ("ann", "ben", "cleo", None)
CAPTURES = 20  # capture objects that hold the predictions
MACHINES = 10  # as many connections as the client keeps
WAIT = 900.0  # seconds

# Only when the last label is there is the evidence enough, so a run that starts earlier or twice shows.
PARAMETERS = {
    "MinimumNewLabels": str(IDS),
    "Epochs": "1",
    "AccuracyThreshold": "0.05",
    "ApprovalMode": "auto",
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


def at_once(work: Callable[[Any], None], items: Iterable[Any]) -> None:
    with ThreadPoolExecutor(MACHINES) as pool:
        list(pool.map(work, items))


def read(stack: Any, key: str) -> bytes:
    answer = stack.client("s3").get_object(Bucket=stack.outputs["DataBucketName"], Key=key)
    return bytes(answer["Body"].read())


def depth(stack: Any, name: str) -> int:
    sqs = stack.client("sqs")
    url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return sum(int(value) for key, value in found.items() if key.startswith("ApproximateNumberOfMessages"))


def running(stack: Any) -> list[str]:
    every = [*stack.executions("Retrain"), *stack.executions("Deploy")]
    return [execution["executionArn"] for execution in every if execution["status"] == "RUNNING"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_uploads_start_one_run_that_holds_every_label(stack: Any) -> None:
    rng = random.Random(20261122)
    bucket, inbox = stack.outputs["DataBucketName"], stack.outputs["GroundTruthPrefix"]
    s3 = stack.client("s3")
    # Given: a model in service, and the captured predictions of thousands of requests
    first = stack.retrain()
    assert first["outcome"] == "SUCCEEDED", first
    model = stack.packages()[0]["ModelPackageArn"]
    stack.judge(model, "Approved")
    stack.wait_served(model)
    digits = [rng.choice(images()) for _ in range(IDS)]
    captured = [capture_line(f"request-{n:05d}", digit) for n, digit in enumerate(digits)]
    for n in range(CAPTURES):
        key = f"capture/{stack.outputs['EndpointName']}/AllTraffic/2026/11/22/10/{n:02d}.jsonl"
        s3.put_object(Bucket=bucket, Key=key, Body="\n".join(captured[n::CAPTURES]).encode())

    # When: ten thousand uploads come in random order, and some of their events twice
    uploads, said = plan(rng, digits)
    assert len(uploads) == UPLOADS
    versions: list[tuple[str, str, str]] = []

    def put(upload: Upload) -> None:
        answer = s3.put_object(Bucket=bucket, Key=inbox + upload.key, Body=upload.line.encode())
        versions.append((inbox + upload.key, answer["VersionId"], answer["ETag"].strip('"')))

    redelivered = rng.sample(range(UPLOADS), REDELIVERIES)
    at_once(put, uploads)
    sqs = stack.client("sqs")
    queue = sqs.get_queue_url(QueueName="truthloop-ingest")["QueueUrl"]
    for start in range(0, REDELIVERIES, 10):
        batch = [versions[n] for n in redelivered[start : start + 10]]
        entries = [{"Id": str(n), "MessageBody": event(bucket, *found)} for n, found in enumerate(batch)]
        assert not sqs.send_message_batch(QueueUrl=queue, Entries=entries).get("Failed")

    # Then: everything is ingested, and the loop comes to rest
    stack.wait_for(
        "an empty ingest queue", lambda: True if depth(stack, "truthloop-ingest") == 0 else None, WAIT
    )
    stack.wait_for("the second run", lambda: stack.pipeline_runs()[1:] or None, WAIT)
    stack.wait_for("quiescence", lambda: None if running(stack) else True, WAIT)
    for name in ("truthloop-ingest-dead-letters", "truthloop-event-dead-letters"):
        assert depth(stack, name) == 0, name
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

    # And: every execution's trigger is accounted for in the decision log
    decisions = stack.decisions()
    executions = {execution["executionArn"] for execution in stack.executions("Retrain")}
    assert executions <= {decision["execution"] for decision in decisions}
    outcomes = Counter(decision["outcome"] for decision in decisions)
    assert outcomes["SUCCEEDED"] == 2
    assert set(outcomes) <= {"SUCCEEDED", "REFUSED", "COALESCED", "DEPLOYED"}


def event(bucket: str, key: str, version: str, etag: str) -> str:
    """Return the event of one version of an object, as EventBridge may deliver it once more."""
    return json.dumps(
        {
            "version": "0",
            "id": "11111111-2222-3333-4444-555555555555",
            "detail-type": "Object Created",
            "source": "aws.s3",
            "detail": {
                "version": "0",
                "bucket": {"name": bucket},
                "object": {
                    "key": key,
                    "version-id": version,
                    "etag": etag,
                    "sequencer": "0062E99A88DC407460",
                },
                "reason": "PutObject",
            },
        }
    )
