"""What must hold whatever happens: Hypothesis lets users and AWS do as they may to the deployed stack.

The functions, the state machines, the pipeline, the rules and queues are the real ones on the embedded AWS;
only the images are quick (`tests.system.quick.images`): they train nothing, and a test holds them back or
lets them fail. After every step there is at most one live pipeline run; when all has come to rest, every
uploaded line is accounted for, every trigger is decided, no evidence was paid for twice, and the labels are
where the test's own ledger says.

    make soak SECONDS=600     # or: TRUTHLOOP_SOAK=600 pytest tests/system/test_loop_rules.py

searches with new examples for ten minutes. Without it the examples are the same each time. The stack is
concurrent, so an example that fails may need a few repetitions to fail again.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from local.ports import free_port
from tests.system.conftest import Stack, serve_empty
from tests.system.quick import images
from tests.system.quick.images import Control, Fate
from tests.system.quick.world import World

SOAK_SECONDS = float(os.environ.get("TRUTHLOOP_SOAK", "0"))
EXAMPLES, STEPS_PER_EXAMPLE = 6, 12
PARAMETERS = {
    "MinimumNewLabels": "2",
    "CooldownMinutes": "0",
    "MonthlySpendCapUsd": "0",
    # Longer than a poll: the machine waits for a capture, and is refused when none comes.
    "CaptureWaitMinutes": "0.03",
    "PollIntervalSeconds": "1",
    "IngestBatchWindowSeconds": "1",
    "BakeSeconds": "0",
    "SweepHours": "12",
}
NUMBERS = st.integers(0, 5)
STATEMENT = st.tuples(
    NUMBERS, st.sampled_from("123"), st.sampled_from([None, "ann", "bob"]), st.booleans(), st.integers(0, 3)
)
WHICH = st.integers(0, 9)
STEPS: Counter[str] = Counter()


class BrokenError(Exception):
    """Something that must hold did not."""


def told(test: Callable[..., None]) -> Callable[..., None]:
    """Keep the first failure with the steps that led to it.

    Hypothesis plays a failing example again and reports what came of that, and the stack is concurrent: the
    second time may end otherwise. So the first one counts, and what is played after it fails at once.
    """

    @wraps(test)
    def guarded(self: Loop, *args: Any, **kwargs: Any) -> None:
        if Loop.failure is not None:
            raise Loop.failure
        if kwargs or test.__name__ not in ("never_two_live_runs", "teardown"):
            given = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            self.trail.append(f"{time.monotonic() - self.began:6.2f} s  {test.__name__}({given})")
        try:
            test(self, *args, **kwargs)
        except Exception as error:
            trail = "\n".join(self.trail)
            Loop.failure = BrokenError(f"{test.__name__}, after\n{trail}\n{error!r}")
            Loop.failure.__cause__ = error
            raise Loop.failure from error

    return guarded


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    control = Control(tmp_path_factory.mktemp("control"))
    root = tmp_path_factory.mktemp("images")
    images.write(root, control.folder)
    port = free_port()
    process = serve_empty(port, {"TRUTHLOOP_IMAGES": str(root)}, PARAMETERS)
    yield World(Stack(f"http://localhost:{port}"), control)
    process.terminate()
    assert process.wait(timeout=60) == 0


class Loop(RuleBasedStateMachine):
    """The steps; which may come depends on nothing that is concurrent, so that an example can be repeated."""

    world: World
    failure: BrokenError | None = None

    def __init__(self) -> None:
        super().__init__()
        if Loop.failure is not None:
            raise Loop.failure
        self.began, self.trail = time.monotonic(), list[str]()
        self.uploads = 0

    def step(self, name: str) -> World:
        STEPS[name] += 1
        return self.world

    @initialize(starts=st.sampled_from([0, 1, 5]), corrections=st.lists(STATEMENT, max_size=4))
    @told
    def begins(self, starts: int, corrections: list[Any]) -> None:
        self.world.begin()
        if corrections:
            self.uploads_corrections(corrections, 0)
        if starts:
            world = self.step(f"first model, starts: {starts}")
            for _ in range(starts):
                world.start({})
            world.settle()
            world.judge(0, "Approved")
            world.settle()

    @rule(said=st.lists(STATEMENT, min_size=1, max_size=5), bad_lines=st.integers(0, 1))
    @told
    def uploads_corrections(self, said: list[Any], bad_lines: int) -> None:
        self.step("upload").upload(said, bad_lines)
        self.uploads += 1

    @precondition(lambda self: self.uploads)
    @rule(which=WHICH, same_key=st.booleans())
    @told
    def uploads_again(self, which: int, same_key: bool) -> None:
        self.step("upload again").upload_again(which, same_key=same_key)
        self.uploads += 1

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=4, unique=True))
    @told
    def capture_arrives(self, numbers: list[int]) -> None:
        self.step("capture").capture(numbers)

    @rule(which=WHICH)
    @told
    def delivers_again(self, which: int) -> None:
        self.step("deliver again").deliver_again(which)

    @rule(how=st.sampled_from(["sweep", "start", "force", "five starts", "five forced starts"]))
    @told
    def starts(self, how: str) -> None:
        world = self.step(how)
        if how == "sweep":
            world.sweep()
            return
        for _ in range(5 if "five" in how else 1):
            world.start({"force": True, "reason": how} if "force" in how else {})

    @rule()
    @told
    def sweeps_deployments(self) -> None:
        self.step("deploy sweep").sweep_deployments()

    @rule(alarm=st.booleans())
    @told
    def model_becomes_worse(self, alarm: bool) -> None:
        world = self.step("alarm" if alarm else "violation")
        if alarm:
            world.alarm("OK")
            world.alarm("ALARM")
        else:
            world.violate()

    @rule(which=WHICH, pause=st.sampled_from([0.0, 0.05, 0.2, 0.6]))
    @told
    def kills_an_execution(self, which: int, pause: float) -> None:
        world = self.step("kill")
        time.sleep(pause)
        world.kill(which)

    @rule()
    @told
    def stops_the_pipeline_run(self) -> None:
        self.step("stop").stop_run()

    @rule(fate=st.sampled_from(Fate), held=st.booleans())
    @told
    def says_what_becomes_of_trainings(self, fate: Fate, held: bool) -> None:
        control = self.step(f"{'held' if held else 'running'} trainings: {fate}").control
        control.say(fate)
        if held:
            control.hold()
        else:
            control.let_go()

    @rule(which=WHICH, status=st.sampled_from(["Approved", "Rejected"]))
    @told
    def judges_a_package(self, which: int, status: str) -> None:
        self.step(status).judge(which, status)

    @rule(seconds=st.sampled_from([0.2, 0.5, 1.0]))
    @told
    def time_passes(self, seconds: float) -> None:
        self.step("pause")
        time.sleep(seconds)

    @rule()
    @told
    def trains_on_everything(self) -> None:
        """Force a run when all is at rest: it must hold exactly what the ledger says."""
        world = self.step("compare")
        world.settle()
        world.control.say(Fate.SUCCEEDS)
        execution = world.start({"force": True, "reason": "to compare"})
        world.settle()
        end = world.states.describe_execution(executionArn=execution)
        assert end["status"] == "SUCCEEDED", end
        generation = json.loads(end["output"])["generation"]
        dataset = json.loads(world.read(f"datasets/{generation}/dataset.json"))["groundTruth"]
        lines = world.read(f"datasets/{generation}/ground-truth.jsonl").splitlines()
        trained = {line["inferenceId"]: line["label"] for line in map(json.loads, lines)}
        expected = world.ledger.expected()
        assert trained == expected.trained
        assert dataset["waiting"] == len(expected.waiting)
        assert dataset["conflicts"] == len(expected.conflicts)

    @invariant()
    @told
    def never_two_live_runs(self) -> None:
        live = self.world.live()
        assert len(live) <= 1, live

    @told
    def teardown(self) -> None:
        world = self.world
        world.settle()
        world.sweep()  # takes over what a killed execution has left
        world.sweep_deployments()
        world.settle()
        world.sweep()  # finds nothing to do
        world.settle()
        check_decided(world)
        check_paid_once(world)
        check_nothing_lost(world)
        check_served(world)
        spent = time.monotonic() - self.began
        print(f"example {world.examples}: {len(self.trail)} steps, {spent:.1f} s", flush=True)


def check_decided(world: World) -> None:
    """Every trigger that was ever recorded is decided, and nothing is owed."""
    record = world.stack.record()
    assert record["status"]["S"] == "IDLE", record
    assert not record.get("pending", {"M": {}})["M"], record
    decisions = world.items("DECISION")
    logged = {decision["execution"] for decision in decisions}
    for execution in world.executions("Retrain"):
        arn = execution["executionArn"]
        decided = execution["status"] == "ABORTED" or arn in logged
        assert decided, world.states.describe_execution(executionArn=arn)
    # No step takes a permission away or AWS down: a claim that fails for good would be a bug.
    unclaimed = [decision for decision in decisions if decision["reason"] == "CLAIM_FAILED"]
    assert not unclaimed, unclaimed
    parked = {t["id"] for d in decisions if d["outcome"] == "COALESCED" for t in d["triggers"]}
    answered = {t["id"] for d in decisions if d["outcome"] != "COALESCED" for t in d["triggers"]}
    assert parked <= answered, parked - answered


def check_paid_once(world: World) -> None:
    """No two runs at a time, none twice for a generation; for the same evidence one per forced start."""
    runs = [world.described(run) for run in world.runs()]
    for before, after in pairwise(runs):
        assert before["LastModifiedTime"] <= after["CreationTime"], (before, after)
    generations = [run["PipelineExecutionDisplayName"] for run in runs]
    assert len(set(generations)) == len(generations), generations
    decided = world.items("DECISION")
    started: dict[str, str] = {}
    paid: set[str] = set()
    for run, generation in zip(runs, generations, strict=True):
        about = [d for d in decided if d.get("pipelineExecutionArn") == run["PipelineExecutionArn"]]
        assert len(about) == 1, (run, about)
        forced = {trigger["id"] for trigger in about[0]["triggers"]} & world.forced
        version = json.loads(world.read(f"datasets/{generation}/dataset.json"))["datasetVersion"]
        # Also after a run that failed: no run of this test fails for want of instances.
        assert version not in started or forced - paid, (generation, started[version], about)
        paid |= forced
        started[version] = generation


def check_nothing_lost(world: World) -> None:
    """Every statement that counts is kept in the last dataset that trained, or accepted after it."""
    record = world.stack.record()
    kept, known = set(), set()
    if "lastTrained" in record:
        generation = record["lastTrained"]["M"]["generation"]["S"]
        known = set(json.loads(world.read(f"datasets/{generation}/dataset.json"))["acceptedKeys"])
        _, *lines = world.read(f"datasets/{generation}/statements.jsonl").splitlines()
        kept = {(line["inferenceId"], line["label"]) for line in map(json.loads, lines)}
    pending = {
        (line["eventMetadata"]["eventId"], line["groundTruthData"]["data"])
        for key in world.stack.keys("ground-truth/accepted/")
        if key not in known
        for line in map(json.loads, world.read(key).splitlines())
    }
    expected = world.ledger.expected()
    assert set(expected.trained.items()) <= kept | pending
    assert expected.waiting | expected.conflicts <= {identifier for identifier, _ in kept | pending}


def check_served(world: World) -> None:
    """What is served is the newest Approved package, if there is one."""
    approved = [p for p in world.stack.packages() if p["ModelApprovalStatus"] == "Approved"]
    served = world.stack.served()
    if approved:
        newest = max(approved, key=lambda package: package["ModelPackageVersion"])
        assert served == newest["ModelPackageArn"], (served, approved)


@pytest.mark.slow
@pytest.mark.timeout(max(600, 3 * SOAK_SECONDS))
def test_whatever_happens(world: World) -> None:
    Loop.world = world
    soaking = SOAK_SECONDS > 0
    started, rounds = time.monotonic(), 0
    try:
        while not rounds or time.monotonic() < started + SOAK_SECONDS:
            run_state_machine_as_test(
                Loop,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS_PER_EXAMPLE,
                    derandomize=not soaking,
                    database=None,
                    deadline=None,
                    # Shrinking repeats slow examples; the steps are few enough to be read.
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                ),
            )
            rounds += 1
    except Exception:
        if Loop.failure is not None:
            raise Loop.failure from Loop.failure.__cause__
        raise
    finally:
        print(f"{sum(STEPS.values())} steps in {world.examples} examples: {dict(STEPS.most_common())}")
    assert len(STEPS) >= 14, STEPS  # of 25 kinds: the search has not become narrow
