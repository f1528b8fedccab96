"""Scenarios of the loop, the invariants that every one of them keeps, and the program that plays them.

``python -m tests.faults.play <scenario> …`` plays scenarios with every fault at every call and
prints JSON; ``--plain`` plays them without faults. It is a program of its own since it forks at every call.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.faults.clock import Clock, VirtualLoop
from tests.faults.cloud import ALARM, LIST_LAG_SECONDS, LIVE, RUN_SECONDS, Cloud, Play, Run
from tests.handlers.conftest import (
    BUCKET,
    DEPLOYMENT,
    ENDPOINT,
    GROUP,
    MONITOR,
    PIPELINE,
    POLICY,
    REGION,
    TABLE,
    record,
    refuse_what_aws_refuses,
)  # fmt: skip
from truthloop.aws.calls import CLIENT_CONFIG
from truthloop.names import sides_keys
from truthloop.retraining.triggers import parse_trigger
from truthloop.times import to_iso
from truthloop.versions.dataset import Dataset, GroundTruth
from truthloop.wiring import wiring

HOUR = 3600.0
SWEEP = {"source": "truthloop.sweep", "detail-type": "Retrain Sweep", "detail": {}}
BREACH = {
    "source": "aws.cloudwatch",
    "detail-type": "CloudWatch Alarm State Change",
    "id": "alarm-1",
    "time": "2026-11-22T10:00:00Z",
    "detail": {"alarmName": "truthloop-accuracy", "state": {"value": "ALARM", "reason": "0.7 < 0.85"}},
}
CHAMPION = "g00000000"
FORGOTTEN = "g00000009"
ALARMED = {"accuracyAlarmName": ALARM}


@dataclass(frozen=True)
class Scenario:
    """One stretch of the loop's life.

    Attributes
    ----------
    prepare
        What is there before; no fault happens in it.
    play
        What happens, with everything that follows from it.
    came
        What it comes to without a fault: the decisions' outcomes, newest last, and the endpoint's status.
    explores
        Whose calls get faults here, functions and states, ``name`` or ``name:Operation``; all of them when
        empty. What leads to these, and what follows, is the same in another scenario, and gets its faults
        there.
    """

    prepare: Callable[[Cloud], None]
    play: Callable[[Cloud], Coroutine[Any, Any, None]]
    came: str
    explores: tuple[str, ...] = ()


# -- what is there -----------------------------------------------------------------------------------------


def champion(cloud: Cloud, generation: str = CHAMPION, approval: str = "Approved") -> str:
    """Register a package whose labels are 1, 3 and 7."""
    labels = f"runs/{generation}/evaluation/labels.json"
    cloud.world.put(labels, ["1", "3", "7"])
    cloud.world.put(f"runs/{generation}/models/new/output/model.tar.gz", b"model")
    return cloud.world.register(generation, "new", approval, labelsUri=f"s3://{BUCKET}/{labels}")


def base(cloud: Cloud) -> None:
    """Put a base set."""
    cloud.world.put("base/digits.parquet", b"base")


def predicted(cloud: Cloud, *identifiers: str) -> None:
    """Capture predictions."""
    moment = cloud.clock.now()
    lines = [
        json.dumps({
            "captureData": {"endpointInput": {"data": "aW1hZ2U=", "encoding": "BASE64", "mode": "INPUT"}},
            "eventMetadata": {"eventId": f"e-{i}", "inferenceId": i, "inferenceTime": "2026-11-22T10:00:00Z"},
            "eventVersion": "0",
        })
        for i in identifiers
    ]  # fmt: skip
    cloud.world.put(
        f"capture/{ENDPOINT}/AllTraffic/{moment:%Y/%m/%d/%H}/{identifiers[0]}.jsonl", "\n".join(lines) + "\n"
    )


def corrections(identifiers: str, label: str = "7") -> str:
    """Return a file of corrections, one for each character."""
    return "".join(json.dumps(record(i, label)) + "\n" for i in identifiers)


def in_service(cloud: Cloud) -> str:
    """Deploy the champion."""
    arn = champion(cloud)
    plan = cloud.invoke("reconcile_endpoint", {"execution": "e"})
    cloud.invoke("apply_deployment", plan)
    if cloud.fleet is None:
        raise AssertionError("no endpoint was created")
    cloud.fleet.status = "InService"
    cloud.invoke("finish_deployment", {**plan, "succeeded": True, "message": "passed"})
    return arn


def model_in_service(cloud: Cloud) -> None:
    base(cloud)
    in_service(cloud)


# -- scenarios ---------------------------------------------------------------------------------------------


async def corrections_start_a_run(cloud: Cloud) -> None:
    predicted(cloud, *"abcd")
    cloud.upload(("one.jsonl", corrections("ab") + "not json\n"), ("two.jsonl", corrections("cd")))
    await cloud.settle()


async def corrections_of_images(cloud: Cloud) -> None:
    image = "ground-truth/images/a.png"
    cloud.world.put(image, b"png")
    predicted(cloud, *"ab")
    example = {"source-ref": f"s3://{BUCKET}/{image}", "label": "3"}
    cloud.upload(("mixed.jsonl", json.dumps(example) + "\n" + corrections("ab")))
    await cloud.settle()


async def captures_come_late(cloud: Cloud) -> None:
    cloud.upload(("one.jsonl", corrections("abc")))
    await asyncio.sleep(500)
    predicted(cloud, *"abc")
    await cloud.settle()


async def captures_never_come(cloud: Cloud) -> None:
    cloud.upload(("one.jsonl", corrections("abc")))
    await cloud.settle()
    await asyncio.sleep(26 * HOUR)
    cloud.start("retrain", SWEEP, "sweep")
    await cloud.settle()


async def breach_persists(cloud: Cloud) -> None:
    predicted(cloud, *"ab")
    cloud.upload(("one.jsonl", corrections("a")))
    await cloud.settle()
    await asyncio.sleep(2 * HOUR)
    cloud.alarm = "ALARM"
    cloud.start("retrain", SWEEP, "sweep")
    await cloud.settle()


async def too_few_corrections(cloud: Cloud) -> None:
    predicted(cloud, *"ab")
    cloud.upload(("one.jsonl", corrections("a") + corrections("b", "x")))
    await cloud.settle()


async def first_run_fails_the_gate(cloud: Cloud) -> None:
    cloud.outcomes = ["gate"]
    cloud.start("retrain", {}, "by-hand")
    await cloud.settle()


async def pipeline_fails(cloud: Cloud) -> None:
    cloud.outcomes = ["Failed"]
    cloud.start("retrain", {}, "by-hand")
    await cloud.settle()


async def failed_before(cloud: Cloud) -> None:
    cloud.outcomes = ["Failed", "Succeeded"]
    cloud.start("retrain", {"force": True, "reason": "first"}, "by-hand")
    await cloud.settle()
    await asyncio.sleep(2 * HOUR)
    cloud.start("retrain", BREACH, "alarm")
    await cloud.settle()


async def late_orphan(cloud: Cloud) -> None:
    # Given: it comes to light only when the claim is taken, while the snapshot is made
    cloud.explorer.lost.add(("snapshot_dataset", "PutObject"))
    await orphan(cloud, shows_in=10.0)


async def orphan(cloud: Cloud, shows_in: float = -HOUR, display_name: str = CHAMPION) -> None:
    arn = f"arn:aws:sagemaker:{REGION}:123456789012:pipeline/{PIPELINE}/execution/orphan"
    run = Run(arn, display_name, "token", cloud.clock.seconds + shows_in - LIST_LAG_SECONDS, "an older one")
    cloud.runs.append(run)
    cloud.later(RUN_SECONDS, lambda: setattr(run, "status", "Stopped"))
    cloud.start("retrain", {}, "by-hand")
    await cloud.settle()


def forgotten_generation(cloud: Cloud) -> None:
    """Leave the dataset of a generation that the table, restored from a backup, knows nothing of."""
    base(cloud)
    dataset = Dataset(
        generation=FORGOTTEN,
        created_at=to_iso(cloud.clock.now() - timedelta(hours=2)),
        dataset_version="0" * 64,
        previous_dataset_version=None,
        base_uri=f"s3://{BUCKET}/base/",
        ground_truth=GroundTruth(0, 0, {}, 0),
        accepted_keys=(),
        captures=0,
        champion=None,
    )
    cloud.world.put(f"datasets/{FORGOTTEN}/dataset.json", dataset.to_json())


async def forgotten_run(cloud: Cloud) -> None:
    await orphan(cloud, display_name=FORGOTTEN)


async def by_hand(cloud: Cloud) -> None:
    cloud.start("retrain", {}, "by-hand")
    await cloud.settle()


def start_forbidden(cloud: Cloud) -> None:
    base(cloud)
    cloud.forbidden.add(("sagemaker", "StartPipelineExecution"))


def answer_to_the_release_lost(cloud: Cloud) -> None:
    base(cloud)
    cloud.explorer.lost.add(("release_run", "TransactWriteItems"))


async def claim_fails_for_good(cloud: Cloud) -> None:
    cloud.forbidden.add(("dynamodb", "GetItem"))
    predicted(cloud, *"abcd")
    cloud.upload(("one.jsonl", corrections("abcd")))
    await cloud.settle()
    cloud.forbidden.clear()
    cloud.start("retrain", SWEEP, "sweep")
    await cloud.settle()


async def run_with_a_follow_up(cloud: Cloud) -> None:
    predicted(cloud, *"abcdef")
    cloud.start("retrain", {"force": True, "reason": "relabelled"}, "by-hand")
    await asyncio.sleep(700)
    cloud.upload(("one.jsonl", corrections("abc")))
    cloud.start("retrain", BREACH, "alarm")
    await cloud.settle()


async def taken_over(cloud: Cloud) -> None:
    holder = cloud.start("retrain", {}, "holder")
    await asyncio.sleep(700)
    holder.execution._stop_reason = ("Stopped", "by a person")
    if holder.execution._task is not None:
        holder.execution._task.cancel()
    await asyncio.sleep(10)
    cloud.start("retrain", SWEEP, "sweep")
    await cloud.settle()


async def deploy(cloud: Cloud) -> None:
    cloud.start("deploy", {}, "deploy")
    await cloud.settle()


def approved_update(cloud: Cloud) -> None:
    model_in_service(cloud)
    champion(cloud, "g00000001")


def update_that_rolls_back(cloud: Cloud) -> None:
    approved_update(cloud)
    cloud.rolls_back = lambda config: "-v2-" in config


def update_that_answers_wrongly(cloud: Cloud) -> None:
    approved_update(cloud)
    cloud.world.put("smoke-test/7/a.png", b"png")
    cloud.serves = lambda config: json.dumps({"label": "1" if "-v2-" in config else "7", "score": 0.9})


def forbidden_update(cloud: Cloud) -> None:
    approved_update(cloud)
    cloud.forbidden.add(("sagemaker", "ListModelPackages"))


def broken_endpoint(cloud: Cloud) -> None:
    model_in_service(cloud)
    if cloud.fleet is not None:
        cloud.fleet.status, cloud.fleet.reason = "Failed", "no capacity"


def first_approval(cloud: Cloud) -> None:
    base(cloud)
    champion(cloud)
    cloud.world.put("smoke-test/7/a.png", b"png")


def automatic(prepare: Callable[[Cloud], None]) -> Callable[[Cloud], None]:
    """Approve automatically."""

    def prepared(cloud: Cloud) -> None:
        cloud.world.configure("POLICY", approval="auto", **ALARMED)
        prepare(cloud)

    return prepared


async def monitored(cloud: Cloud) -> None:
    predicted(cloud, *"ab")
    cloud.upload(("one.jsonl", corrections("a")))
    await cloud.settle()
    await cloud.lambda_async("run_monitor", {"scheduledTime": cloud.clock.now().isoformat()})
    await cloud.settle()


SCENARIOS = {
    "corrections_start_a_run": Scenario(model_in_service, corrections_start_a_run, "SUCCEEDED"),
    "corrections_of_images": Scenario(
        model_in_service, corrections_of_images, "SUCCEEDED", ("snapshot_dataset",)
    ),
    "captures_come_late": Scenario(
        model_in_service, captures_come_late, "SUCCEEDED", ("preflight_run:GetObject",)
    ),
    "captures_never_come": Scenario(
        model_in_service, captures_never_come, "REFUSED REFUSED", ("preflight_run:PutObject",)
    ),
    "breach_persists": Scenario(
        model_in_service,
        breach_persists,
        "REFUSED SUCCEEDED",
        ("preflight_run:DescribeAlarms", "preflight_run:GetMetricStatistics"),
    ),
    "too_few_corrections": Scenario(
        model_in_service, too_few_corrections, "REFUSED", ("release_run", "retrain.Release")
    ),
    "first_run_fails_the_gate": Scenario(
        base,
        first_run_fails_the_gate,
        "REJECTED_BY_GATE",
        ("claim_run", "preflight_run", "snapshot_dataset", "decide_run", "retrain.Notify"),
    ),
    "pipeline_fails": Scenario(base, pipeline_fails, "FAILED", ("decide_run", "retrain.NotifyFailure")),
    "failed_before": Scenario(model_in_service, failed_before, "FAILED REFUSED", ("preflight_run",)),
    "orphan": Scenario(base, orphan, "WAITED SUCCEEDED", ("claim_run", "start_pipeline")),
    "late_orphan": Scenario(base, late_orphan, "WAITED SUCCEEDED", ("start_pipeline",)),
    "forgotten_run": Scenario(forgotten_generation, forgotten_run, "STOPPED REFUSED", ("claim_run",)),
    "start_forbidden": Scenario(start_forbidden, by_hand, "FAILED", ("release_run",)),
    "answer_to_the_release_lost": Scenario(
        answer_to_the_release_lost, by_hand, "SUCCEEDED", ("release_run",)
    ),
    "claim_fails_for_good": Scenario(
        model_in_service, claim_fails_for_good, "FAILED SUCCEEDED", ("retrain.RecordFailedClaim",)
    ),
    "run_with_a_follow_up": Scenario(
        automatic(model_in_service),
        run_with_a_follow_up,
        "COALESCED COALESCED SUCCEEDED SUCCEEDED",
        (
            *("claim_run", "release_run", "snapshot_dataset:GetObject"),
            *("retrain.StartFollowUp", "retrain.ApproveCandidate"),
        ),
    ),
    "taken_over": Scenario(base, taken_over, "REFUSED SUCCEEDED", ("claim_run", "retrain.Claim")),
    "deploy_first": Scenario(
        first_approval, deploy, "DEPLOYED InService", ("apply_deployment", "smoke_test_endpoint")
    ),
    "deploy_update": Scenario(approved_update, deploy, "DEPLOYED InService"),
    "deploy_rolled_back": Scenario(
        update_that_rolls_back, deploy, "REJECTED InService", ("finish_deployment",)
    ),
    "deploy_smoke_failure": Scenario(
        update_that_answers_wrongly,
        deploy,
        "REJECTED DEPLOYED InService",
        ("smoke_test_endpoint", "finish_deployment"),
    ),
    "deploy_recreate": Scenario(
        broken_endpoint, deploy, "DEPLOYED InService", ("apply_deployment", "reconcile_endpoint")
    ),
    "deploy_forbidden": Scenario(
        forbidden_update, deploy, "InService", ("deploy.NotifyFailure", "deploy.Reconcile")
    ),
    "monitor": Scenario(model_in_service, monitored, "REFUSED", ("run_monitor",)),
}


WARM = ("corrections_start_a_run", "deploy_first", "monitor")
"""Played first without faults: what is read, imported and compiled once is then there in every child."""


# -- invariants --------------------------------------------------------------------------------------------


def broken(cloud: Cloud) -> list[str]:
    """Say which invariants do not hold, now that nothing happens any more and a sweep has looked."""
    found = list(cloud.broken)
    world = cloud.world
    decisions = world.decisions()
    found += [f"{run.name} still runs and nobody waits" for run in cloud.runs if run.status in LIVE]
    datasets = [run.dataset for run in cloud.runs]
    found += [f"two runs on the evidence {one}" for one in {d for d in datasets if datasets.count(d) > 1}]
    found += _stuck(cloud)
    found += [f"decision twice: {text}" for text in _twice(decisions)]
    found += _undecided(cloud, decisions)
    found += _lost_labels(cloud)
    found += _lost_sides(cloud)
    if cloud.fleet is not None:
        package = cloud.package_of(cloud.fleet.config)
        if package["ModelApprovalStatus"] != "Approved" and cloud.registry.approved():
            found.append(f"the endpoint serves a package that is {package['ModelApprovalStatus']}")
        if cloud.fleet.status != "InService":
            found.append(f"the endpoint is {cloud.fleet.status}")
    return found


def _record(cloud: Cloud) -> dict[str, Any]:
    key = {"pk": {"S": "GENERATION"}, "sk": {"S": "CURRENT"}}
    return cloud.world.record() if "Item" in cloud.world.dynamodb.get_item(TableName=TABLE, Key=key) else {}


def _stuck(cloud: Cloud) -> list[str]:
    now = _record(cloud)
    found = [f"the claim is held by {now.get('holder')}"] if now.get("status") == "CLAIMED" else []
    found += [f"{i} waits on the record for ever" for i in now.get("pending", {})]
    return found + [f"{p.name} does not end" for p in cloud.plays.values() if p.status == "RUNNING"]


def _twice(decisions: list[dict[str, Any]]) -> list[str]:
    elsewhere = ("COALESCED", "INVALID", "FORGOTTEN")
    released = [
        d["generation"]
        for d in decisions
        if d["outcome"] not in elsewhere
        and d["reason"] != "CLAIM_FAILED"
        and not d["execution"].startswith("deploy-")
    ]
    return [one for one in set(released) if released.count(one) > 1]


def _undecided(cloud: Cloud, decisions: list[dict[str, Any]]) -> list[str]:
    passed_on = ("COALESCED", "CLAIM_FAILED")
    decided = {t["id"] for d in decisions if d["reason"] not in passed_on for t in d["triggers"]}
    coalesced = {t["id"] for d in decisions if d["outcome"] == "COALESCED" for t in d["triggers"]}
    found = [f"{one} was told to wait and never decided" for one in coalesced - decided]
    for play in (p for p in cloud.plays.values() if p.machine == "retrain"):
        trigger = parse_trigger(json.loads(play.text), execution_name=play.name, started_at="2026-11-22")
        states = _states(play)
        if "RecordFailedClaim" in states:
            if not _logged(play, decisions) and not _told(cloud, play):
                found.append(f"nobody heard of the failed claim of {play.name} ({play.status})")
        elif play.status == "ABORTED" and states == ["Claim"]:
            continue  # stopped before it had done anything: whoever stops an execution knows
        elif trigger.id not in decided:
            found.append(f"the trigger {trigger.id} of {play.name} ({play.status}) is not decided")
    return found


def _logged(play: Play, decisions: list[dict[str, Any]]) -> bool:
    return any(d["execution"] == play.arn for d in decisions)


def _told(cloud: Cloud, play: Play) -> bool:
    """Whether DynamoDB refused the machine for good and it said so, or a person stopped it first."""
    if play.status == "ABORTED":
        return True
    failures = [
        e["taskFailedEventDetails"] for e in play.execution.history.events if e["type"] == "TaskFailed"
    ]
    refused = any(f["resource"] == "putItem" for f in failures)
    return refused and "truthloop: retrain none FAILED" in cloud.notices


def _states(play: Play) -> list[str]:
    return [
        e["stateEnteredEventDetails"]["name"]
        for e in play.execution.history.events
        if "stateEnteredEventDetails" in e
    ]


def _lost_labels(cloud: Cloud) -> list[str]:
    world, accepted, quarantined = cloud.world, [], []
    where: dict[str, str] = {}
    for key in world.keys("ground-truth/accepted/"):
        for line in world.get(key).splitlines():
            identifier = json.loads(line)["eventMetadata"]["eventId"]
            accepted.append(identifier)
            where[identifier] = key
    for key in world.keys("ground-truth/quarantine/"):
        quarantined += [json.loads(line)["record"] for line in world.get(key).splitlines()]
    found = [f"{i} was accepted twice" for i in set(accepted) if accepted.count(i) > 1]
    for line in cloud.uploaded_lines:
        identifier = _identifier(line)
        if identifier not in accepted and line not in quarantined:
            found.append(f"the record {line} is neither accepted nor quarantined")
    trained = _record(cloud).get("lastTrained")
    if trained:
        place = f"datasets/{trained['generation']}/"
        keys = set(json.loads(world.get(f"{place}dataset.json"))["acceptedKeys"])
        held = b"".join(world.get(key) for key in world.keys(place) if key.endswith(".jsonl"))
        known = {json.loads(line).get("inferenceId") for line in held.splitlines()}
        found += [f"{i} is in no dataset and not pending" for i, k in where.items() if k in keys - known
                  and i not in known]  # fmt: skip
    return found


def _lost_sides(cloud: Cloud) -> list[str]:
    """Name the runs whose dataset lacks what the run before remembered; others started those without one."""
    names = [run.name for run in cloud.runs if cloud.world.keys(f"datasets/{run.name}/dataset.json")]
    found = []
    for before, name in pairwise(names):
        left, given = sides_keys(before)[0], sides_keys(name)[1]
        if not cloud.world.keys(given) or cloud.world.get(given) != cloud.world.get(left):
            found.append(f"{given} is not {left}")
    return found


def _identifier(line: str) -> str:
    """Return the inference id that an uploaded record is accepted under; empty when it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return ""
    if "source-ref" in found:
        return f"image:{found['source-ref'].removeprefix(f's3://{BUCKET}/')}"
    return str(found["eventMetadata"]["eventId"])


# -- playing -----------------------------------------------------------------------------------------------


async def whole(cloud: Cloud, scenario: Scenario, *, explore: bool) -> str:
    """Play a scenario to its end; return what it came to before the final sweeps."""
    scenario.prepare(cloud)
    before = {(d["execution"], d["at"]) for d in cloud.world.decisions() if d["outcome"] == "DEPLOYED"}
    wiring.cache_clear()
    cloud.explorer.exploring = explore
    cloud.explorer.explores = lambda who, operation: (
        not scenario.explores or bool({who, f"{who}:{operation}"} & set(scenario.explores))
    )
    await scenario.play(cloud)
    await cloud.settle()
    cloud.explorer.exploring = cloud.explorer.active = False
    outcomes = [d["outcome"] for d in cloud.world.decisions() if (d["execution"], d["at"]) not in before]
    came = " ".join(
        [*outcomes, *([cloud.fleet.status] if cloud.fleet and "deploy" in _machines(cloud) else [])]
    )
    # What is wrong is mended by now: dead letters are sent again, the sweep looks, the endpoint is compared.
    cloud.forbidden.clear()
    cloud.redrive()
    await cloud.settle()
    await asyncio.sleep(6 * HOUR)
    cloud.start("retrain", SWEEP, "final-sweep")
    await cloud.settle()
    if "deploy" in _machines(cloud):
        cloud.start("deploy", {}, "final-deploy")
        await cloud.settle()
    return came


def _machines(cloud: Cloud) -> set[str]:
    return {play.machine for play in cloud.plays.values()}


def play(name: str, *, explore: bool) -> dict[str, Any]:
    """Play a scenario, with every fault at every call if `explore`; returns what came of it."""
    began = time.process_time()
    started = time.monotonic()
    # Early in an hour: captures lie by the hour, and a scenario lasts minutes.
    clock = Clock(datetime.now(UTC).replace(minute=10))
    monkeypatch = pytest.MonkeyPatch()
    loop = VirtualLoop(clock)
    with mock_aws(), monkeypatch.context() as patches:
        for variable, value in environment().items():
            patches.setenv(variable, value)
        cloud = Cloud(clients(), clock, patches)
        try:
            came = loop.run_until_complete(whole(cloud, SCENARIOS[name], explore=explore))
            result = broken(cloud)
            told = [
                f"{d['at']} {d['execution'][-20:]} {d['outcome']} {d['reason']}: {d['message']}"
                for d in cloud.world.decisions()
            ]
        except Exception as problem:
            if not cloud.explorer.child:
                raise
            result, came, told = [f"{type(problem).__name__}: {problem}"], "", []
        if cloud.explorer.child:
            cloud.explorer.report(result)
    cloud.close()
    loop.close()
    cases = cloud.explorer.cases
    return {
        "scenario": name,
        "came": came,
        "told": told,
        "sites": cloud.explorer.sites,
        "cases": len(cases),
        "played": sum(1 for case in cases if case.played),
        "held": sum(1 for case in cases if not case.broken),
        "broken": result,
        "failures": [vars(case) for case in cases if case.broken],
        "cut": dict(cloud.explorer.cut),
        "explored": sorted(cloud.explorer.explored),
        "seconds": round(time.monotonic() - started, 1),
        "cpu": round(time.process_time() - began, 1),
    }


@cache
def clients(*, strict: bool = True) -> Callable[[str], Any]:
    """Make each client once; a strict one fails the test for a request that AWS would refuse."""
    session = boto3.session.Session("test", "test", region_name=REGION)

    @cache
    def make(name: str) -> Any:
        service: Any = name.removeprefix("function:")
        client = session.client(service, config=CLIENT_CONFIG)
        if strict and name.startswith("function:"):
            client.meta.events.register("before-parameter-build", refuse_what_aws_refuses)
        return client

    return make


def environment() -> dict[str, str]:
    """Return the functions' environment."""
    return {
        "LOOP_TABLE_NAME": TABLE,
        "DATA_BUCKET_NAME": BUCKET,
        "PIPELINE_NAME": PIPELINE,
        "MODEL_PACKAGE_GROUP_NAME": GROUP,
        "ENDPOINT_NAME": ENDPOINT,
        "POLICY": json.dumps({**POLICY, **ALARMED}),
        "DEPLOYMENT": json.dumps(DEPLOYMENT),
        "MONITOR": json.dumps(MONITOR),
        "POWERTOOLS_SERVICE_NAME": "test",
        "POWERTOOLS_METRICS_NAMESPACE": "Truthloop",
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
        "POWERTOOLS_METRICS_DISABLED": "true",
    }


def main() -> None:
    """Play the scenarios that are named, each in a process of its own."""
    explore = "--plain" not in sys.argv
    names = [name for name in sys.argv[1:] if not name.startswith("--")] or list(SCENARIOS)
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # metrics are written to the standard output
    warnings.simplefilter("ignore")  # an invocation that died has no metrics to write
    for name in WARM:
        play(name, explore=False)
    for name in names:
        process = os.fork()
        if process == 0:
            text = json.dumps(play(name, explore=explore))
            os.write(answers, text.encode() + b"\n")
            os._exit(0)
        os.waitpid(process, 0)


if __name__ == "__main__":
    main()
