"""Ten thousand bad inputs per function, thousands of bad contents: each is answered, or refused by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, get_type_hints

import pytest

from tests.faults.clock import Clock
from tests.faults.cloud import Cloud, Fleet
from tests.faults.garbage import bad, mutated, value
from tests.faults.play import ALARMED, base, champion, clients, environment
from tests.handlers.conftest import BUCKET, ENDPOINT, POLICY
from truthloop import errors
from truthloop.aws.attributes import from_item, to_item
from truthloop.steps import (
    apply_deployment,
    claim_run,
    decide_run,
    finish_deployment,
    preflight_run,
    reconcile_endpoint,
    release_run,
    run_monitor,
    smoke_test_endpoint,
    snapshot_dataset,
    start_pipeline,
)  # fmt: skip
from truthloop.wiring import wiring

pytestmark = pytest.mark.slow

EVENTS = [json.loads(p.read_text()) for p in sorted((Path(__file__).parents[2] / "events").glob("*.json"))]
SENT = 10_000
"""To each function."""
CONTENTS = 250
"""Of each thing that a function reads."""

GENERATION = "g00000001"
HOLDER = "arn:aws:states:us-east-1:123456789012:execution:truthloop-retrain:holder"
PIPELINE_RUN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/truthloop-pipeline/execution/abc"
HELD = {"execution": HOLDER, "generation": GENERATION}
DATASET = {
    "datasetUri": f"s3://{BUCKET}/datasets/{GENERATION}/", "datasetVersion": "v", "labels": 1,
    "captureManifestUri": "s3://b/c", "examplesManifestUri": "s3://b/e", "championManifestUri": "s3://b/m",
}  # fmt: skip
PREFLIGHT = {
    "verdict": "REFUSE", "reason": "COOLDOWN", "message": "too soon", "estimatedUsd": 352.5,
    "approval": "auto", "rules": [{"rule": "COOLDOWN", "role": "BAR", "passed": False, "detail": "too soon"}],
    "evidence": {"newLabels": 0, "datasetVersion": "v", "newPerLabel": {"7": 1}, "breaches": []},
}  # fmt: skip
PACKAGE = "arn:aws:sagemaker:us-east-1:123456789012:model-package/truthloop-models/1"
DECISION = {
    "outcome": "SUCCEEDED", "message": "good", "approve": PACKAGE,
    "modelPackages": [{"arn": PACKAGE, "candidate": "new", "recommended": True, "accuracy": 0.9}],
    "costless": False, "billedUsd": 98.7, "spotSavingsPercent": 72.0,
}  # fmt: skip
RELEASE = dict.fromkeys(("preflight", "dataset", "decision", "error"))
DESIRED = {"modelPackageArn": PACKAGE, "version": 1}
PLAN = {
    "action": "UPDATE", "endpointName": ENDPOINT, "desired": DESIRED, "modelName": "m", "configName": "c",
    "message": "m",
}  # fmt: skip
WINDOW = {"start": "2026-11-22T09:00:00Z", "end": "2026-11-22T10:00:00Z"}
NOON = "2026-11-22T12:00:00.000000Z"
STARTED_AT = "2026-11-22T10:00:00.123Z"

VALID: dict[str, list[Any]] = {
    "claim_run": [
        {"execution": HOLDER, "trigger": trigger, "startedAt": STARTED_AT}
        for trigger in ({}, {"force": True, "reason": "again"}, *EVENTS)
    ],
    "preflight_run": [HELD],
    "snapshot_dataset": [HELD],
    "start_pipeline": [{**HELD, "dataset": DATASET}],
    "decide_run": [
        {**HELD, "pipelineExecutionArn": PIPELINE_RUN, "status": status, "failureReason": "r"}
        for status in ("Succeeded", "Failed", "Stopped")
    ],
    "release_run": [
        {**HELD, **RELEASE, "outcome": "REFUSED", "message": "m", "preflight": PREFLIGHT},
        {**HELD, **RELEASE, "outcome": "SUCCEEDED", "message": "m", "dataset": DATASET, "decision": DECISION},
        {**HELD, **RELEASE, "outcome": "FAILED", "message": "m", "error": {"Error": "E", "Cause": "{}"}},
    ],
    "reconcile_endpoint": [{"execution": HOLDER}],
    "apply_deployment": [PLAN, {**PLAN, "action": "CREATE"}, {**PLAN, "action": "RECREATE"}],
    "smoke_test_endpoint": [{"endpointName": ENDPOINT, "configName": "c", "desired": DESIRED}],
    "finish_deployment": [
        {"desired": DESIRED, "configName": "c", "succeeded": succeeded, "message": "m"}
        for succeeded in (True, False)
    ],
    "run_monitor": [{"scheduledTime": "2026-11-22T10:00:00Z"}, {}, WINDOW],
}
OUTPUTS = {
    "claim_run": claim_run.ClaimOutput, "preflight_run": preflight_run.PreflightOutput,
    "snapshot_dataset": snapshot_dataset.SnapshotOutput, "start_pipeline": start_pipeline.StartOutput,
    "decide_run": decide_run.DecideOutput, "release_run": release_run.ReleaseOutput,
    "reconcile_endpoint": reconcile_endpoint.ReconcileOutput,
    "apply_deployment": apply_deployment.ApplyOutput,
    "smoke_test_endpoint": smoke_test_endpoint.SmokeTestOutput,
    "finish_deployment": finish_deployment.FinishOutput, "run_monitor": run_monitor.MonitorOutput,
}  # fmt: skip


@cache
def documented() -> frozenset[str]:
    """Return the errors that docs/conventions.md says the functions raise."""
    text = (Path(__file__).parents[2] / "docs/conventions.md").read_text()
    (line,) = (one for one in text.splitlines() if one.startswith("Errors that functions raise"))
    return frozenset(name for name in vars(errors) if f"`{name}`" in line)


class Bench:
    """A loop whose table answers with one record and takes every write: ten thousand calls in seconds."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.writes: list[dict[str, Any]] = []
        self.record: dict[str, Any] | None = {
            "generation": 1, "status": "CLAIMED", "holder": HOLDER, "claimedAt": NOON,
            "triggers": {"t": {"kind": "manual", "at": NOON, "detail": ""}},
            "pending": {},
        }  # fmt: skip
        self.came: Counter[str] = Counter()
        cloud.explorer.stand_ins.update({
            ("dynamodb", "GetItem"): self._get,
            ("dynamodb", "Query"): lambda _: {"Items": []},
            ("dynamodb", "PutItem"): self._write,
            ("dynamodb", "UpdateItem"): self._write,
            ("dynamodb", "TransactWriteItems"): self._write,
        })  # fmt: skip

    def _get(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self.record if request["Key"]["pk"]["S"] == "GENERATION" else None
        return {} if found is None else {"Item": to_item(found)}

    def _write(self, request: dict[str, Any]) -> dict[str, Any]:
        json.dumps(request).encode()
        self.writes.append(request)
        return {}

    def send(self, function: str, event: Any) -> str:
        """Call a function; return what came of it: ``answered``, or the name of a documented error."""
        self.cloud.explorer.seen.clear()
        name, said = "answered", ""
        try:
            answer = self.cloud.invoke(function, event)
        except Exception as problem:
            name, said = type(problem).__name__, str(problem)
        if name == "answered":
            assert set(answer) == set(get_type_hints(OUTPUTS[function])), (function, answer)
        else:
            assert name in documented(), f"{function} raised {name}: {said[:300]} for {ascii(event)[:600]}"
            assert said, f"{name} says nothing"
        self.came[name] += 1
        return name


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for variable, given in environment().items():
        monkeypatch.setenv(variable, given)
    monkeypatch.setenv("POLICY", json.dumps({**POLICY, **ALARMED, "minimumNewLabelsPerClass": 1}))
    clock = Clock(datetime.now(UTC))
    made = clients(strict=False)
    cloud = Cloud(made, clock, monkeypatch, simulated=("s3", "sagemaker", "dynamodb", "stepfunctions"))
    monkeypatch.setattr(cloud, "later", lambda *_: None)
    found = Bench(cloud)
    base(cloud)
    champion(cloud)
    cloud.fleet = Fleet("InService", "c", None, clock.now())
    yield found
    cloud.close()
    wiring.cache_clear()


@pytest.mark.parametrize("function", VALID)
def test_no_bad_input_is_an_unhandled_exception(bench: Bench, function: str) -> None:
    # Given
    rng = Random(f"events of {function}")
    # When
    for _ in range(SENT):
        if function == "decide_run":
            bench.cloud.world.put(f"runs/{GENERATION}/evaluation/evaluation.json", EVALUATION)
        bench.send(function, bad(rng, VALID[function]))
    # Then
    assert sum(bench.came.values()) == SENT
    assert bench.came["InvalidEvent"] > SENT / 20 or function == "reconcile_endpoint"
    if function == "claim_run":
        logged = [from_item(w["Item"]) for w in bench.writes if "Item" in w]
        assert sum(1 for item in logged if item["outcome"] == "INVALID") == bench.came["InvalidTrigger"]
        assert bench.came["InvalidTrigger"] > SENT / 20
    print(f"\n{function}: {SENT} sent = " + ", ".join(f"{n} {name}" for name, n in bench.came.most_common()))


# -- what the functions read -------------------------------------------------------------------------------

EVALUATION = {
    "version": 1,
    "models": {"champion": None, "old": {"accuracy": 0.9}, "new": {"accuracy": 0.97}},
    "recommendation": {"candidate": "new", "reason": "new gains 0.07"},
}
STATEMENT = {
    "inferenceId": "a", "label": "7", "eventTime": NOON, "author": "ann",
    "source": "correction", "sequencer": "0" * 40 + ".1", "image": None,
    "captured": True, "trained": True, "expired": False, "imageETag": None,
    "origin": {"key": "k", "versionId": "1", "line": 1, "byteOffset": 0, "uploadedAt": NOON},
}  # fmt: skip
ACCEPTED = {
    "groundTruthData": {"data": "7", "encoding": "CSV"},
    "eventMetadata": {
        "eventId": "a", "eventTime": NOON, "source": "correction",
        "sequencer": "0" * 40 + ".1",
    },
    "eventVersion": "0",
    "origin": STATEMENT["origin"],
}  # fmt: skip
CAPTURED = {
    "captureData": {"endpointInput": {"data": "aQ==", "encoding": "BASE64"}},
    "eventMetadata": {"eventId": "e", "inferenceId": "a", "inferenceTime": "2026-11-22T10:00:00Z"},
    "eventVersion": "0",
}
INDEXED = {"capture": f"capture/{ENDPOINT}/AllTraffic/2026/11/22/10/x.jsonl", "ids": ["a"]}
OLD_DATASET = {
    "version": 1, "generation": "g00000000", "createdAt": NOON, "datasetVersion": "v0",
    "previousDatasetVersion": None, "baseUri": f"s3://{BUCKET}/base/",
    "groundTruth": {"labels": 1, "new": 1, "perLabel": {"7": 1}, "statements": 1, "waiting": 0, "expired": 0,
                    "conflicts": 0, "forgotten": 0, "overShare": 0},
    "acceptedKeys": ["ground-truth/accepted/2026/11/22/10/old.jsonl"], "captures": 0, "champion": None,
}  # fmt: skip
HEADER = json.dumps(OLD_DATASET).encode() + b"\n"
RUN = {
    "generation": "g00000000", "datasetVersion": "v0", "datasetUri": f"s3://{BUCKET}/datasets/g00000000/",
    "pipelineExecutionArn": PIPELINE_RUN, "startedAt": NOON, "codeVersion": "c1",
    "estimatedUsd": 1.0,
}  # fmt: skip


def content(rng: Random, valid: Any) -> bytes:
    """Return a bad file: a broken encoding, a cut text, other JSON."""
    text = json.dumps(mutated(rng, valid) if rng.random() < 0.8 else value(rng)).encode()
    match rng.randrange(10):
        case 0:
            return text[: rng.randrange(len(text) + 1)]
        case 1:
            return b"\xff\xfe" + text
        case 2:
            return b"[" * 100_000
    return text


READS: dict[str, tuple[str, Any, tuple[str, ...]]] = {
    "evaluation.json": (f"runs/{GENERATION}/evaluation/evaluation.json", EVALUATION, ("decide_run",)),
    "dataset.json": ("datasets/g00000000/dataset.json", OLD_DATASET, ("preflight_run", "snapshot_dataset")),
    "this dataset.json": (f"datasets/{GENERATION}/dataset.json", OLD_DATASET, ("snapshot_dataset",)),
    "statements.jsonl": ("datasets/g00000000/statements.jsonl", STATEMENT, ("preflight_run",)),
    "ground-truth.jsonl": ("datasets/g00000000/ground-truth.jsonl", STATEMENT, ("preflight_run",)),
    "accepted": ("ground-truth/accepted/2026/11/22/10/new.jsonl", ACCEPTED, ("preflight_run",)),
    "capture": (INDEXED["capture"], CAPTURED, ("preflight_run", "run_monitor")),
    "capture index": (f"capture-index/{ENDPOINT}/{'0' * 64}.jsonl", INDEXED, ("preflight_run",)),
    "labels.json": ("runs/g00000000/evaluation/labels.json", ["1", "7"], ("preflight_run",)),
    "forgotten": (
        f"ground-truth/forgotten/{'0' * 64}.json",
        {"version": 1, "author": "0" * 64, "before": "2026-11-22T10:00:00Z", "by": "x", "reason": "y",
         "records": 1, "objects": 1},
        ("preflight_run",),
    ),
}  # fmt: skip


@pytest.fixture
def trained(bench: Bench) -> Bench:
    """A loop that has trained once, with labels that wait for a look."""
    world = bench.cloud.world
    if bench.record is not None:
        bench.record |= {"lastRun": RUN, "lastTrained": RUN}
    world.put("datasets/g00000000/dataset.json", OLD_DATASET)
    world.put("datasets/g00000000/ground-truth.jsonl", json.dumps(STATEMENT) + "\n")
    world.put("datasets/g00000000/statements.jsonl", HEADER + json.dumps(STATEMENT).encode() + b"\n")
    world.put("ground-truth/accepted/2026/11/22/10/new.jsonl", json.dumps(ACCEPTED) + "\n")
    world.put(str(INDEXED["capture"]), json.dumps(CAPTURED) + "\n")
    return bench


def test_what_is_not_spoilt_is_read(trained: Bench) -> None:
    assert trained.send("preflight_run", HELD) == "answered"


@pytest.mark.parametrize("name", READS)
def test_what_a_function_reads_is_refused_by_name(trained: Bench, name: str) -> None:
    key, valid, functions = READS[name]
    rng = Random(f"content of {name}")
    for number in range(CONTENTS):
        trained.cloud.bucket.forget("datasets/g00000001/", "capture-index/")
        header = HEADER if name == "statements.jsonl" and number % 2 else b""
        trained.cloud.world.put(key, header + content(rng, valid))
        function = functions[number % len(functions)]
        trained.send(function, VALID[function][0])
        trained.cloud.bucket.forget(key)
    assert sum(trained.came.values()) == CONTENTS
    print(f"\n{name}: {CONTENTS} = " + ", ".join(f"{n} {what}" for what, n in trained.came.most_common()))


def test_a_record_of_the_table_is_refused_by_name(trained: Bench) -> None:
    rng = Random("records")
    valid = trained.record
    functions: list[str] = ["claim_run", "preflight_run", "snapshot_dataset", "start_pipeline", "release_run"]
    storable: Callable[[Any], bool] = lambda found: isinstance(found, dict)  # noqa: E731
    sent = 0
    while sent < CONTENTS:
        candidate = mutated(rng, valid)
        if not storable(candidate):
            continue
        trained.record = candidate
        function = functions[sent % len(functions)]
        trained.send(function, VALID[function][0])
        sent += 1
    assert sum(trained.came.values()) == CONTENTS


def test_a_package_of_the_registry_is_refused_by_name(bench: Bench) -> None:
    rng = Random("packages")
    registry = bench.cloud.registry
    valid = {
        "generation": "g00000000",
        "candidate": "new",
        "labelsUri": f"s3://{BUCKET}/l",
        "recommended": "true",
    }
    for number in range(CONTENTS):
        # SageMaker holds texts only: a value is text, whatever else it is.
        found = mutated(rng, valid)
        texts = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
        registry.rewrite(PACKAGE, CustomerMetadataProperties=texts, ModelApprovalStatus="Approved")
        function = ("preflight_run", "snapshot_dataset", "reconcile_endpoint", "finish_deployment")[
            number % 4
        ]
        bench.cloud.bucket.forget("datasets/")
        bench.send(function, VALID[function][0])
    assert sum(bench.came.values()) == CONTENTS


def test_an_answer_of_the_endpoint_is_refused_by_name(bench: Bench) -> None:
    rng = Random("answers")
    bench.cloud.world.put("smoke-test/7/a.png", b"png")
    for _ in range(CONTENTS):
        body = content(rng, {"label": "7", "score": 0.9})
        bench.cloud.serves = lambda _, body=body: body.decode("latin-1")  # type: ignore[misc]
        bench.send("smoke_test_endpoint", VALID["smoke_test_endpoint"][0])
    assert set(bench.came) == {"answered", "SmokeTestFailed"}
