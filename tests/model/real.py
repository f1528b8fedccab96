"""The shipped steps, asked by the model what they would write in a given situation.

`claim_run`, `start_pipeline` and `release_run` run as they are, with ports that answer from the model's
state; the first write ends them and is the answer. So the model cannot drift from what the functions do
between reading and writing, nor from the pure rules below them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from truthloop.errors import ClaimLost, StartUnsettled
from truthloop.names import generation_name, generation_number
from truthloop.ports import PipelineExecution, Ports
from truthloop.retraining import claim as claims
from truthloop.retraining import policy
from truthloop.retraining.claim import (
    CLAIMED,
    IDLE,
    GenerationRecord,
    HolderState,
    LastRun,
    Orphan,
    Take,
    TakeOver,
)
from truthloop.retraining.decision import TRAINED, Decision
from truthloop.retraining.evidence import Evidence
from truthloop.retraining.triggers import Trigger
from truthloop.settings import PolicySettings
from truthloop.steps.claim_run import claim_run
from truthloop.steps.release_run import release_run
from truthloop.steps.start_pipeline import start_pipeline
from truthloop.times import to_iso
from truthloop.versions.dataset import Dataset, GroundTruth, ObjectInfo

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EARLIER = to_iso(NOW - timedelta(minutes=10))
LONG_AGO = to_iso(NOW - timedelta(days=1))
"""When datasets were written: before any run that has trained on one."""
EXECUTION = "arn:aws:states:eu-west-1:1:execution:retrain:"
INPUTS: dict[str, Any] = {
    "labels": {
        "source": "truthloop.ingest", "detail-type": "Ground Truth Accepted", "id": "labels",
        "detail": {"accepted": 1},
    },
    "sweep": {"source": "truthloop.sweep", "detail-type": "Retrain Sweep", "detail": {}},
    "alarm": {
        "source": "aws.cloudwatch", "detail-type": "CloudWatch Alarm State Change", "id": "alarm",
        "detail": {"alarmName": "accuracy", "state": {"value": "ALARM", "reason": "0.7"}},
    },
    "force": {"force": True, "reason": "a person wants it"},
    "follow-up": {"source": "truthloop.retrain", "detail-type": "Retrain Follow-Up", "detail": {}},
}  # fmt: skip
POLICY = PolicySettings(
    minimum_new_labels=1,
    cooldown_minutes=0,
    monthly_spend_cap_usd=0,
    expected_instance_hours=24,
    training_instance_type="ml.p3.8xlarge",
    processing_instance_type="ml.m5.xlarge",
    max_runtime_seconds=1,
    accuracy_threshold=0.5,
    improvement_margin=0,
    holdout_share=0.2,
    epochs=1,
    approval="manual",
    code_version="c1",
)


class Reason(NamedTuple):
    """A trigger on the record: its id, its kind, and the generation that it waited for (0: none)."""

    id: str
    kind: str
    during: int = 0


class Ran(NamedTuple):
    """What the record says of a run."""

    generation: int
    version: int
    run: int


class Rec(NamedTuple):
    """The generation record. ``asked`` is ``now`` while a start may yet come to light."""

    generation: int
    holder: str | None
    triggers: frozenset[Reason] = frozenset()
    pending: frozenset[Reason] = frozenset()
    run: int | None = None
    starting: int | None = None
    asked: str = ""
    last: Ran | None = None
    trained: Ran | None = None
    waits: int | None = None


class Run(NamedTuple):
    """A pipeline execution: the generation that it is named after (0: started by hand) and its state."""

    generation: int
    version: int
    status: str
    listed: bool

    @property
    def live(self) -> bool:
        return self.status == "Executing"


class View(NamedTuple):
    """What a function sees when it looks: the record, the holder, the listed runs, the datasets."""

    rec: Rec | None
    holder: HolderState | None
    listed: tuple[tuple[int, Run], ...]
    own: tuple[int, Run] | None
    data: tuple[tuple[int, int], ...]
    logged: bool = False
    """Whether the decision log has this execution's coalescence."""


class Write(NamedTuple):
    """What a function was about to write, or what it answers without writing (``return``)."""

    what: str
    rec: Rec | None = None
    run: int | None = None
    ran: Ran | None = None
    trained: bool = False
    waiting: frozenset[Reason] = frozenset()
    follow_up: int | None = None
    expected: tuple[int, str | None] | None = None
    """Generation and holder that the write's condition names; None: that there is no record."""
    needs_no_run: bool = False


class _WroteError(Exception):
    def __init__(self, write: Write) -> None:
        super().__init__(write.what)
        self.write = write


def _trigger(reason: Reason) -> Trigger:
    during = generation_name(reason.during) if reason.during else ""
    kind = "manual" if reason.kind == "force" else reason.kind
    return Trigger(reason.id, kind, to_iso(NOW), force=reason.kind == "force", during=during)


def _reason(trigger: Trigger) -> Reason:
    during = generation_number(trigger.during) if trigger.during else 0
    return Reason(trigger.id, "force" if trigger.force else trigger.kind, during)


def _reasons(triggers: Iterable[Trigger]) -> frozenset[Reason]:
    return frozenset(map(_reason, triggers))


def _last(ran: Ran | None) -> LastRun | None:
    if ran is None:
        return None
    name = generation_name(ran.generation)
    return LastRun(name, f"v{ran.version}", "uri", f"run-{ran.run}", EARLIER, "c1")


def _ran(run: LastRun | None) -> Ran | None:
    if run is None:
        return None
    number = _number(run.pipeline_execution_arn) if run.pipeline_execution_arn else -1
    return Ran(generation_number(run.generation), int(run.dataset_version[1:]), number)


def _arn(run: int | None) -> str | None:
    return None if run is None else f"run-{run}"


def _number(arn: str) -> int:
    return int(arn.removeprefix("run-"))


@cache
def record(rec: Rec) -> GenerationRecord:
    """Return the record as the functions read it."""
    name = generation_name(rec.generation)
    return GenerationRecord(
        generation=rec.generation,
        status=IDLE if rec.holder is None else CLAIMED,
        holder=None if rec.holder is None else EXECUTION + rec.holder,
        claimed_at=EARLIER,
        triggers={reason.id: _trigger(reason) for reason in sorted(rec.triggers)},
        pending={reason.id: _trigger(reason) for reason in sorted(rec.pending)},
        pipeline_execution_arn=_arn(rec.run),
        starting=None
        if rec.starting is None
        else LastRun(name, f"v{rec.starting}", "uri", "", EARLIER, "c1"),
        start_asked_at=to_iso(NOW) if rec.asked == "now" else None,
        last_run=_last(rec.last),
        last_trained=_last(rec.trained),
        waits_for=None if rec.waits is None else Orphan(f"run-{rec.waits}", "", EARLIER),
    )


class _Table:
    """Reads from the view; the first write is the function's answer."""

    def __init__(self, view: View) -> None:
        self._rec, self._logged = view.rec, view.logged

    def has_decision(self, at: str, execution: str) -> bool:
        return self._logged

    def read(self) -> GenerationRecord | None:
        return None if self._rec is None else record(self._rec)

    def take(self, plan: Take, execution: str, at: str) -> None:
        old = self._rec
        run = None if plan.pipeline_execution_arn is None else _number(plan.pipeline_execution_arn)
        raise _WroteError(
            Write(
                "take",
                Rec(
                    plan.generation,
                    execution.removeprefix(EXECUTION),
                    _reasons(plan.triggers.values()),
                    _reasons(plan.pending.values()),
                    run,
                    last=_ran(plan.run) or (old.last if old else None),
                    trained=old.trained if old else None,
                    waits=run if plan.waits_for else None,
                ),
                expected=None if plan.expected_generation is None else (plan.expected_generation, None),
            )
        )

    def take_over(
        self, plan: TakeOver, execution: str, at: str, arn: str | None, run: LastRun | None
    ) -> None:
        holder = execution.removeprefix(EXECUTION)
        raise _WroteError(
            Write(
                "take over",
                Rec(plan.generation, holder, _reasons(plan.triggers.values())),
                run=_number(arn) if arn else None,
                ran=_ran(run),
                needs_no_run=not plan.has_run,
                waiting=_reasons([plan.waiting] if plan.waiting else []),
                expected=(plan.generation, plan.expected_holder.removeprefix(EXECUTION)),
            )
        )

    def coalesce(self, generation: int, holder: str, trigger: Trigger, decision: Decision) -> None:
        expected = (generation, holder.removeprefix(EXECUTION))
        raise _WroteError(Write("coalesce", waiting=_reasons([trigger]), expected=expected))

    def put_decision(self, decision: Decision) -> None:
        raise _WroteError(Write("coalesce"))

    def request_start(self, generation: int, execution: str, run: LastRun, at: str) -> None:
        raise _WroteError(Write("request start"))

    def wait_for(self, generation: int, execution: str, orphan: Orphan, waiting: Any) -> None:
        run = _number(orphan.pipeline_execution_arn)
        raise _WroteError(Write("wait for", run=run, waiting=_reasons(waiting.values())))

    def record_start(self, generation: int, execution: str, arn: str, run: LastRun | None) -> None:
        raise _WroteError(Write("record start", run=_number(arn), ran=_ran(run)))

    def release(
        self, rec: GenerationRecord, decision: Decision, run: LastRun | None, *, trained: bool
    ) -> None:
        raise _WroteError(Write("release", ran=_ran(run), trained=trained))

    def find_decision(self, execution: str, generation: str) -> None:
        return None


class _Pipeline:
    """Lists what the view lists; asked for one execution, SageMaker knows the truth.

    `found` is the run that the function has looked up by its name: None when it has found none, or not asked.
    """

    name = "pipeline"

    def __init__(self, view: View) -> None:
        self._view = view
        self.found: int | None = None

    def find(self, display_name: str) -> PipelineExecution | None:
        every = reversed(self._view.listed)
        found = next((run for run in every if _named(run[1]) == display_name), None)
        self.found = None if found is None else found[0]
        return None if found is None else _execution(*found)

    def live(self) -> tuple[PipelineExecution, ...]:
        return tuple(_execution(*run) for run in reversed(self._view.listed) if run[1].live)

    def describe(self, arn: str) -> PipelineExecution:
        assert self._view.own is not None
        return _execution(*self._view.own)


def _named(run: Run) -> str:
    return generation_name(run.generation) if run.generation else "by hand"


def _execution(number: int, run: Run) -> PipelineExecution:
    return PipelineExecution(f"run-{number}", run.status, "", _named(run), f"2026-11-22T0{number}:00:00Z")


class _Objects:
    def __init__(self, data: tuple[tuple[int, int], ...]) -> None:
        self._data = {f"datasets/{generation_name(g)}/dataset.json": (g, v) for g, v in data}

    def uri(self, key: str) -> str:
        return f"s3://bucket/{key}"

    def list(self, prefix: str) -> list[ObjectInfo]:
        return [ObjectInfo(key, "", 0) for key in self._data if key.startswith(prefix)]

    def read_if_exists(self, key: str) -> bytes | None:
        return _dataset(*self._data[key]) if key in self._data else None


@cache
def _dataset(generation: int, version: int) -> bytes:
    truth = GroundTruth(labels=version, new=1, per_label={}, statements=version)
    name = generation_name(generation)
    return Dataset(name, LONG_AGO, f"v{version}", None, "s3://b/base/", truth, (), 0, None).to_json()


def _ports(view: View, pipeline: Any) -> Ports:
    ports = SimpleNamespace(
        settings=SimpleNamespace(policy=POLICY),
        table=_Table(view),
        objects=_Objects(view.data),
        executions=SimpleNamespace(state=lambda _: view.holder),
        pipeline=pipeline,
        now=lambda: NOW,
    )
    return cast(Ports, ports)


PipelineSeen = Callable[[View], Any]


@cache
def claim(view: View, execution: str, kind: str, seen: PipelineSeen = _Pipeline) -> Write:
    """Return what claim_run writes."""
    event = {"execution": EXECUTION + execution, "trigger": INPUTS[kind], "startedAt": to_iso(NOW)}
    try:
        answer = claim_run(event, _ports(view, seen(view)))
    except _WroteError as wrote:
        return wrote.write
    if answer["outcome"] == "COALESCED":
        return Write("coalesced")
    arn = answer["pipelineExecutionArn"]  # the execution is the holder already
    return Write("return", run=_number(arn) if arn else None)


@cache
def start(view: View, execution: str, generation: int, seen: PipelineSeen = _Pipeline) -> Write:
    """Return what start_pipeline writes; ``run`` of a request is the run that was found."""
    dataset = {"datasetUri": "uri", "datasetVersion": "v1", "championManifestUri": "uri"}
    dataset |= {"captureManifestUri": "uri", "examplesManifestUri": "uri"}
    name = generation_name(generation)
    event = {"execution": EXECUTION + execution, "generation": name, "dataset": dataset}
    pipeline = seen(view)
    try:
        answer = start_pipeline(event, _ports(view, pipeline))
    except _WroteError as wrote:
        if wrote.write.what == "request start":
            return wrote.write._replace(run=pipeline.found)
        return wrote.write
    except ClaimLost:
        return Write("claim lost")
    except StartUnsettled:
        return Write("unsettled")
    return Write("return", run=_number(answer["pipelineExecutionArn"]))


@cache
def release(
    view: View, execution: str, generation: int, outcome: str, seen: PipelineSeen = _Pipeline
) -> Write:
    """Return what release_run writes."""
    trained = {"outcome": outcome, "message": "m", "modelPackages": []}
    event = {
        **dict.fromkeys(("preflight", "dataset", "decision", "error", "outcome", "message")),
        "execution": EXECUTION + execution,
        "generation": generation_name(generation),
        "outcome": outcome,
        "decision": trained if outcome in TRAINED else None,
    }
    try:
        answer = release_run(event, _ports(view, seen(view)))
    except _WroteError as wrote:
        return wrote.write
    except ClaimLost:
        return Write("claim lost")
    except StartUnsettled:
        return Write("unsettled")
    if not answer["released"]:
        return Write("still live", run=_number(str(answer["pipelineExecutionArn"])))
    return Write("return", follow_up=generation_number(answer["followUp"]) if answer["followUp"] else None)


@cache
def follow_up(rec: Rec, generation: int) -> int | None:
    """Return the generation that is to look at what waits after a release."""
    name = claims.follow_up(record(rec), generation)
    return generation_number(name) if name else None


@cache
def judge(rec: Rec, accepted: int) -> tuple[str, str]:
    """Return the policy's verdict and reason on the labels that are accepted."""
    found = record(rec)
    new = accepted - (rec.trained.version if rec.trained else 0)
    evidence = Evidence(
        triggers=tuple(found.triggers.values()),
        new_labels=new,
        new_per_label={"7": new},
        dataset_version=f"v{accepted}",
        last_run=found.last_run,
        champion="package/1",
        pending_candidate=None,
        spent_this_month_usd=0.0,
        last_run_trained=rec.last == rec.trained,
    )
    verdict = policy.judge(evidence, POLICY, NOW, already_started=found.starting is not None)
    return verdict.verdict, verdict.reason
