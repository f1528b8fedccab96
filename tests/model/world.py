"""An explicit-state model of claim, start, crash, take-over and release.

A state holds the generation record, the executions with what each is about to do, the pipeline runs, the
dataset versions and the accepted labels. Every AWS call that changes something, and every look before one, is
an atomic step; between any two of them every other execution may act, any execution may crash, a run may end,
a label may be accepted and the list of pipeline runs may catch up.

What is real: the steps between looking and writing (``real.py`` calls the shipped functions), hence also the
rules of the claim, and the policy.

What is abstracted:

* Time. The one duration that matters, how long a start may stay unseen, is over as soon as what it waits for
  is: no request to start under way, every run listed. That is the meaning of ``START_SETTLES_AFTER``; until
  then a function that finds nothing only fails and is called again. SageMaker is taken to remember a token
  for at least as long; once a run is listed, its token counts as forgotten at the next look.
* ListPipelineExecutions leaves new runs out until "the list shows"; DescribePipelineExecution tells the
  truth, and DescribeExecution, for an execution that it knows. (One that it does not know yet counts as alive
  for five minutes: that rule has unit tests.)
* A person's start of the pipeline is nobody's fault beside a run that is live already, nor when the list does
  not show it yet. A lost table forgets for good what was trained on, unless its run is still live when the
  next claim looks. A backup that names a claim is restored when its execution has been stopped, as the
  runbook says, and keeps what its own generation was for.
* A run fails for another reason than a lack of instances.
* A crash ends the execution; a function that was about to write may still write, since Lambda does not know.
  Functions that fail are called again by the machine's Retry: an answer that is lost after acceptance, and
  every lost condition, is that.
* Labels are a number, and a dataset version is the number of labels in it.
* The machine's order of steps is that of statemachines/retrain.asl.yaml. Preflight and snapshot are one step
  each; deciding a run changes nothing that others see.

What is not visited, because it can break nothing that is not broken elsewhere: states that nobody can tell
from a visited one (`settle`), also those that differ only in which of two executions of the same event does
what; other orders of a step that is nobody else's affair (`_is_its_own_affair`); the crash of an execution
that has looked and decided on nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.model import real
from tests.model.real import Ran, Reason, Rec, Run, View, Write
from truthloop.retraining.claim import HolderState

# What an execution does next. Those in WRITES are inside a function, with the write decided on.
NEW, CLAIM, PREFLIGHT, SNAPSHOT, START, REQUEST, ASK, NOTE, YIELD = (
    "claim: look", "claim: write", "preflight", "snapshot", "start: look", "start: write request",
    "start: ask SageMaker", "start: write run", "start: write that it waits",
)  # fmt: skip
WAIT, RELEASE, RENOTE, WRITE, AFTER, FOLLOW, DONE = (
    "wait for the run", "release: look", "release: write run", "release: write", "release: look again",
    "start follow-up", "done",
)  # fmt: skip
WRITES = frozenset({CLAIM, REQUEST, ASK, NOTE, YIELD, RENOTE, WRITE})
BEGUN = frozenset({REQUEST, ASK})
"""Between deciding to start and having asked for it."""

TRAINED, FAILED, REFUSED = "SUCCEEDED", "FAILED", "REFUSED"


class Proc(NamedTuple):
    """An execution of the machine."""

    name: str
    kind: str
    todo: str = NEW
    generation: int = 0
    run: int | None = None
    write: Write | None = None
    outcome: str = FAILED
    seen: frozenset[int] = frozenset()
    ended: bool = False

    @property
    def trigger(self) -> str:
        """The id of its trigger: that of the event, or its own name when it was started by hand."""
        return str(real.INPUTS[self.kind].get("id", self.name))


class State(NamedTuple):
    """Everything that can differ."""

    rec: Rec | None
    procs: tuple[Proc, ...]
    runs: tuple[Run, ...] = ()
    data: tuple[tuple[int, int], ...] = ()
    accepted: int = 1
    decided: frozenset[str] = frozenset()
    judged: frozenset[str] = frozenset()
    """Ids of the triggers that the last preflight of the claim has looked at."""
    why: tuple[tuple[int, frozenset[str]], ...] = ()
    """For which generation a run was wanted, and by which forced triggers (or none)."""
    to_come: tuple[int, ...] = (0, 0, 0, 0, 0, 0)
    """How many crashes, lost answers, refused starts, labels, runs by hand and lost tables may yet come."""
    sweeps: int = 0
    excused: frozenset[str] = frozenset()
    """Ids of triggers whose execution ended before it could record them, or whose record was lost."""


FORGOTTEN = "forgotten"
"""In place of why a run was wanted that a lost table has known."""

LOGGED = -1
"""Among what an execution has `seen`: the log has its coalescence, whose answer was lost."""

CRASHES, LOST, REFUSALS, LABELS, BY_HAND, TABLES = range(6)


class Violation(NamedTuple):
    """What must never be."""

    invariant: str
    detail: str


TWO_LIVE = "never two live pipeline runs"
SAME_EVIDENCE = "never two runs for one evidence"
LABELS_KEPT = "every accepted label is in a dataset version or pending"
ALL_DECIDED = "every trigger is decided at quiescence"
FRESH = "a decision rests on a look at its triggers' evidence"
ONE_FOLLOW_UP = "one follow-up per generation"


class Design:
    """The shipped design; a mutant overrides what it does differently."""

    sees: Any = real._Pipeline
    finds_tokens = True
    names_follow_ups = True
    backup: Rec | None = None
    """What the table holds after it was lost."""

    def holder_state(self, state: State) -> HolderState | None:
        """Return what DescribeExecution says of the record's holder."""
        if state.rec is None or state.rec.holder is None:
            return None
        holder = next(proc for proc in state.procs if proc.name == state.rec.holder)
        return HolderState.ENDED if holder.ended or holder.todo == DONE else HolderState.LIVE

    def view(self, state: State, proc: Proc, own: int | None = None) -> View:
        """Return what a function sees now."""
        rec = state.rec
        mine = rec is not None and rec.holder == proc.name
        return View(
            rec,
            None if mine else self.holder_state(state),
            tuple((number, run) for number, run in enumerate(state.runs) if run.listed),
            None if own is None else (own, state.runs[own]),
            state.data,
            LOGGED in proc.seen,
        )

    def begins(self, state: State, place: int, proc: Proc) -> State | None:
        """Return the state after an execution's first step; None when that is the claim."""
        return None

    def claim(self, state: State, proc: Proc) -> Write:
        """Return what claim_run writes."""
        return real.claim(self.view(state, proc), proc.name, proc.kind, self.sees)

    def start(self, state: State, proc: Proc) -> Write:
        """Return what start_pipeline writes."""
        return real.start(self.view(state, proc), proc.name, proc.generation, self.sees)

    def release(self, state: State, proc: Proc) -> Write:
        """Return what release_run writes."""
        own = state.rec.run if state.rec else None
        return real.release(self.view(state, proc, own), proc.name, proc.generation, proc.outcome, self.sees)

    def taken_over(self, rec: Rec, write: Write) -> Rec:
        """Return the record as a take-over's write leaves it."""
        assert write.rec is not None
        return rec._replace(
            holder=write.rec.holder,
            triggers=write.rec.triggers,
            pending=_joined(rec.pending, write.waiting),
            run=rec.run if write.run is None else write.run,
            last=write.ran or rec.last,
        )

    def released(self, rec: Rec) -> Rec:
        """Return the record as the release's transaction leaves it; ``last`` and ``trained`` aside."""
        return Rec(rec.generation, None, pending=rec.pending, last=rec.last, trained=rec.trained)


Step = tuple[str, State | Violation]


def steps(state: State, design: Design) -> Iterator[Step]:
    """Yield every step that can be taken, in words, and the state after it."""
    alone = next((place for place, proc in enumerate(state.procs) if _is_its_own_affair(state, proc)), None)
    if alone is not None:
        yield from _told(state, alone, design)
        return
    for place, proc in enumerate(state.procs):
        if proc.todo == DONE or _is_a_twin(state, place):
            continue
        yield from _told(state, place, design)
        if state.to_come[CRASHES] and not proc.ended and not _has_not_begun(state, proc):
            yield from _crash(state, place, proc)
    yield from _environment(state, design)


def _told(state: State, place: int, design: Design) -> Iterator[Step]:
    proc = state.procs[place]
    for words, after in _proceed(state, place, proc, design):
        if isinstance(after, State) and proc.ended:
            after = _end_at_the_functions_end(after, place)
        yield f"{proc.name}{' (ended)' if proc.ended else ''}: {words}", after


def _is_a_twin(state: State, place: int) -> bool:
    """Whether an execution of the same event stands where this one does: one of them looks first."""
    proc = state.procs[place]
    return _has_not_begun(state, proc) and any(
        other.kind == proc.kind and other.trigger == proc.trigger and _has_not_begun(state, other)
        for other in state.procs[:place]
    )


def _has_not_begun(state: State, proc: Proc) -> bool:
    """Whether an execution has left no trace; one that has looked may crash in its place."""
    held = state.rec is not None and state.rec.holder == proc.name
    return proc.todo == NEW and not proc.seen and not held


def _is_its_own_affair(state: State, proc: Proc) -> bool:
    """Whether the next step of an execution changes nothing but what it does next, whatever others do first.

    Nobody can tell when it is taken, and a crash before it leaves what a crash after it does: it is taken at
    once, and nothing else is tried (Peled, All from one, one for all, 1993).
    """
    if proc.todo == WAIT:
        return proc.run is not None and _holds(state.rec, proc) and not state.runs[proc.run].live
    if proc.todo == SNAPSHOT:
        return any(generation == proc.generation for generation, _ in state.data)
    if proc.todo == PREFLIGHT:
        return state.rec is not None and state.rec.starting is not None and _holds(state.rec, proc)
    return False


def _proceed(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    match proc.todo:
        case "claim: look":
            if (begun := design.begins(state, place, proc)) is not None:
                yield "looks", begun
                return
            write = design.claim(state, proc)
            if write.what == "return":  # an earlier attempt got through
                yield "holds the claim", _go_on(state, place, proc, _rec(state))
            elif write.what == "coalesced":
                yield "finds that it was coalesced", put(state, place, done(proc))
            else:
                yield (
                    f"looks, and is to {write.what}",
                    put(state, place, proc._replace(todo=CLAIM, write=write)),
                )
        case "claim: write":
            yield from _write_claim(state, place, proc, design)
        case "preflight":
            yield _preflight(state, place, proc, design)
        case "snapshot":
            data = state.data
            if all(generation != proc.generation for generation, _ in data):
                data = (*data, (proc.generation, state.accepted))
            yield "snapshot", put(state._replace(data=data), place, proc._replace(todo=START))
        case "start: look":
            yield from _look_to_start(state, place, proc, design)
        case "start: write request" | "start: write run" | "start: write that it waits":
            yield from _write_start(state, place, proc, design)
        case "start: ask SageMaker":
            yield from _ask(state, place, proc, design)
        case "wait for the run":
            assert proc.run is not None
            run = state.runs[proc.run]
            if run.live and state.to_come[LOST]:
                lost = proc._replace(todo=RELEASE, run=None)
                yield "cannot describe its run", put(_less(state, LOST), place, lost)
            if not run.live:
                waited = state.rec is not None and state.rec.waits == proc.run
                trained = run.status == "Succeeded" and not waited
                outcome = TRAINED if trained else "WAITED" if waited else FAILED
                yield (
                    "sees that the run has ended",
                    put(state, place, proc._replace(todo=RELEASE, outcome=outcome)),
                )
        case "release: look":
            yield from _look_to_release(state, place, proc, design)
        case "release: write run" | "release: write":
            yield from _write_release(state, place, proc, design)
        case "release: look again":
            rec = state.rec
            follow = real.follow_up(rec, proc.generation) if rec else None
            todo = FOLLOW if follow else DONE
            yield (
                "looks for what waits",
                put(state, place, proc._replace(todo=todo, generation=follow or proc.generation)),
            )
        case "start follow-up":
            name = f"follow-up-{proc.generation}"
            known = [other for other in state.procs if other.name.split("'")[0] == name]
            after = put(state, place, done(proc))
            if known and design.names_follow_ups:
                yield "finds the follow-up started", after
            elif known:
                yield "starts the follow-up", Violation(ONE_FOLLOW_UP, name)
            else:
                yield "starts the follow-up", after._replace(procs=(*after.procs, Proc(name, "follow-up")))
            if state.to_come[LOST]:
                started = after if known else after._replace(procs=(*after.procs, Proc(name, "follow-up")))
                again = put(_less(started, LOST), place, proc)
                yield "starts the follow-up, and its answer is lost", again


def _write_claim(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    write, rec = proc.write, state.rec
    assert write is not None
    looked = proc._replace(todo=NEW, write=None)
    if not _condition(write, rec):
        yield f"cannot {write.what}: the record has moved on", put(state, place, looked)
        return
    if write.what == "coalesce":
        after = state
        if write.waiting:
            assert rec is not None
            after = state._replace(rec=rec._replace(pending=_joined(rec.pending, write.waiting)))
            after = after._replace(excused=after.excused - {proc.trigger})
        yield "coalesces", put(after, place, done(proc))
    else:
        assert write.rec is not None
        new, judged = write.rec, frozenset[str]()
        if write.what == "take over":
            assert rec is not None
            # Only what the expression sets: the record may have gained something meanwhile.
            new, judged = design.taken_over(rec, write), state.judged
        after = state._replace(rec=new, judged=judged, excused=state.excused - {proc.trigger})
        if new.run is not None and new.last and new.last.generation == new.generation:
            why = {**dict(state.why), new.generation: dict(state.why)[new.generation] - {FORGOTTEN}}
            after = after._replace(why=tuple(sorted(why.items())))
        yield f"{write.what}s generation {new.generation}", _go_on(after, place, proc, new)
    if state.to_come[LOST]:
        if write.what == "coalesce":
            looked = looked._replace(seen=looked.seen | {LOGGED})
        yield f"{write.what}s, and the answer is lost", put(_less(after, LOST), place, looked)


def _condition(write: Write, rec: Rec | None) -> bool:
    """Whether the record is still as the look has found it, as far as the write's condition says."""
    expected = write.expected
    if write.what == "coalesce" and not write.waiting:
        return True
    if expected is None or rec is None:
        return expected is None and rec is None
    if write.needs_no_run and (rec.starting is not None or rec.run is not None):
        return False
    return (rec.generation, rec.holder) == expected


def _go_on(state: State, place: int, proc: Proc, rec: Rec) -> State:
    todo = PREFLIGHT if rec.run is None else WAIT
    return put(
        state,
        place,
        proc._replace(todo=todo, generation=rec.generation, run=rec.run, write=None, seen=frozenset()),
    )


def _preflight(state: State, place: int, proc: Proc, design: Design) -> Step:
    rec = state.rec
    if not _holds(rec, proc):
        return "preflight: the claim is lost", put(state, place, proc._replace(todo=RELEASE))
    assert rec is not None
    verdict, reason = real.judge(rec, state.accepted)
    judged = frozenset(trigger.id for trigger in rec.triggers)
    if verdict != "START":
        after = proc._replace(todo=RELEASE, outcome=REFUSED)
        return f"preflight: {reason}", put(state._replace(judged=judged), place, after)
    why = state.why
    if reason == "ALREADY_STARTED":
        judged = state.judged  # nobody has looked at anything
    else:
        forced = frozenset(t.id for t in rec.triggers if t.kind == "force" and reason == "FORCED")
        why = tuple(sorted({**dict(why), rec.generation: forced}.items()))
    return f"preflight: {reason}", put(
        state._replace(judged=judged, why=why), place, proc._replace(todo=SNAPSHOT)
    )


def _look_to_start(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    write = design.start(state, proc)
    seen = frozenset(number for number, run in enumerate(state.runs) if run.listed)
    match write.what:
        case "unsettled":
            return  # the same again, later
        case "claim lost":
            yield "the claim is lost", put(state, place, proc._replace(todo=RELEASE))
        case "return":
            yield "finds its run", put(state, place, proc._replace(todo=WAIT, run=write.run))
        case "wait for":
            yield "finds somebody else's run", put(state, place, proc._replace(todo=YIELD, write=write))
        case _:
            after = proc._replace(todo=REQUEST, run=write.run, seen=seen)
            yield "looks, and is to start", put(state, place, after)


def _write_start(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    rec = state.rec
    if not _holds(rec, proc):
        yield (
            "cannot write: the claim is lost",
            put(state, place, proc._replace(todo=RELEASE, write=None, seen=frozenset())),
        )
        return
    assert rec is not None
    if proc.todo == REQUEST:
        starting = dict(state.data)[proc.generation] if rec.starting is None else rec.starting
        after = state._replace(rec=rec._replace(starting=starting, asked="now"))
        todo = ASK if proc.run is None else NOTE
        yield "writes that it starts", put(after, place, proc._replace(todo=todo))
        if state.to_come[LOST]:
            again = proc._replace(todo=START, run=None, seen=frozenset())
            yield "writes that it starts, and the answer is lost", put(_less(after, LOST), place, again)
        return
    if proc.todo == YIELD:
        assert proc.write is not None
        new = rec._replace(
            triggers=frozenset(),
            pending=_joined(rec.pending, proc.write.waiting),
            starting=None,
            asked="",
            run=proc.write.run,
            waits=proc.write.run,
        )
        run = proc.write.run
        words = "writes that it waits"
    else:
        assert proc.run is not None
        assert rec.starting is not None
        run = proc.run
        new = rec._replace(run=run, last=Ran(rec.generation, rec.starting, run))
        words = "writes its run down"
    after = state._replace(rec=new)
    waiting = proc._replace(todo=WAIT, run=run, write=None, seen=frozenset())
    yield words, put(after, place, waiting)
    if state.to_come[LOST]:
        again = proc._replace(todo=START, run=None, write=None, seen=frozenset())
        yield f"{words}, and the answer is lost", put(_less(after, LOST), place, again)


def _ask(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    own = [
        number
        for number, run in enumerate(state.runs)
        if run.generation == proc.generation and number not in proc.seen and design.finds_tokens
    ]
    again = proc._replace(todo=START, run=None, seen=frozenset())
    if own:
        number, after = own[0], state
        words = "asks SageMaker, which knows the token"
    else:
        number = len(state.runs)
        beside = [n for n, run in enumerate(state.runs) if run.live and (run.generation or n in proc.seen)]
        version = dict(state.data)[proc.generation]
        after = state._replace(runs=(*state.runs, Run(proc.generation, version, "Executing", False)))
        words = f"starts run {number} on {version} labels"
        if beside:
            yield words, Violation(TWO_LIVE, f"run {number} beside run {beside[0]}")
            return
        if wrong := _bought_twice(state, proc, version):
            yield words, wrong
            return
    yield words, put(after, place, proc._replace(todo=NOTE, run=number))
    if state.to_come[LOST]:
        yield f"{words}, and the answer is lost", put(_less(after, LOST), place, again)
        given_up = again._replace(todo=RELEASE, outcome=FAILED)
        yield f"{words}, hears nothing and gives up", put(_less(after, LOST), place, given_up)
    if state.to_come[REFUSALS] and not own:
        refused = again._replace(todo=RELEASE, outcome=FAILED)
        yield "asks SageMaker, which refuses for good", put(_less(state, REFUSALS), place, refused)


def _bought_twice(state: State, proc: Proc, version: int) -> Violation | None:
    """A version is paid for once, unless a person has forced it anew; a force is good for one run.

    Also one whose run has failed: the policy starts by itself only what never had its instances, and no run
    fails for that here.
    """
    why = dict(state.why)
    forced = why.get(proc.generation, frozenset())
    for number, run in enumerate(state.runs):
        before = why.get(run.generation, frozenset())
        if not run.generation or run.version != version or FORGOTTEN in before:
            continue
        if forced <= before:
            return Violation(SAME_EVIDENCE, f"run {number} has been started on {version} labels as well")
    return None


def _look_to_release(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    write = design.release(state, proc)
    match write.what:
        case "unsettled":
            return
        case "claim lost":
            yield "release: the claim is lost", put(state, place, done(proc))
        case "still live":
            yield "release: the run is live", put(state, place, proc._replace(todo=WAIT, run=write.run))
        case "return":
            follow = write.follow_up
            after = proc._replace(todo=FOLLOW, generation=follow) if follow else done(proc)
            yield "release: it was released", put(state, place, after)
        case "record start":
            yield (
                "release: finds a live run",
                put(state, place, proc._replace(todo=RENOTE, run=write.run, write=write)),
            )
        case _:
            yield "looks, and is to release", put(state, place, proc._replace(todo=WRITE, write=write))


def _write_release(state: State, place: int, proc: Proc, design: Design) -> Iterator[Step]:
    rec = state.rec
    if not _holds(rec, proc):
        yield (
            "cannot write: the record has moved on",
            put(state, place, proc._replace(todo=RELEASE, write=None)),
        )
        return
    assert rec is not None
    if proc.todo == RENOTE:
        assert proc.run is not None
        assert proc.write is not None
        new = rec._replace(run=proc.run, last=proc.write.ran or rec.last)
        waiting = proc._replace(todo=WAIT, write=None)
        yield "writes its run down", put(state._replace(rec=new), place, waiting)
        return
    write = proc.write
    assert write is not None
    new = design.released(rec)
    if (ran := write.ran) is not None:
        new = new._replace(last=ran, trained=ran if write.trained else rec.trained)
        if (version := state.runs[ran.run].version) != ran.version:
            yield (
                "releases",
                Violation(
                    LABELS_KEPT, f"run {ran.run} has trained on {version} labels, not on {ran.version}"
                ),
            )
            return
    ids = frozenset(trigger.id for trigger in rec.triggers)
    if proc.outcome != FAILED and not ids <= state.judged:
        yield "releases", Violation(FRESH, f"{sorted(ids - state.judged)} came after the look")
        return
    after = state._replace(rec=new, decided=state.decided | ids, judged=frozenset())
    yield "releases", put(after, place, proc._replace(todo=AFTER, write=None))
    if state.to_come[LOST]:
        yield (
            "releases, and the answer is lost",
            put(_less(after, LOST), place, proc._replace(todo=RELEASE, write=None)),
        )


def _crash(state: State, place: int, proc: Proc) -> Iterator[Step]:
    yield f"{proc.name}: crashes", _gone(_less(state, CRASHES), place)
    if proc.todo in WRITES:
        # The execution is over, and its function does not know.
        yield (
            f"{proc.name}: ends, before its function does",
            put(_less(state, CRASHES), place, proc._replace(ended=True)),
        )


def _end_at_the_functions_end(state: State, place: int) -> State:
    return state if state.procs[place].todo in WRITES else _gone(state, place)


def _gone(state: State, place: int) -> State:
    """End an execution; one that has not passed the gate has recorded nothing."""
    proc = state.procs[place]
    if proc.todo in (NEW, CLAIM):
        state = state._replace(excused=state.excused | {proc.trigger})
    return put(state, place, done(proc))


def _environment(state: State, design: Design) -> Iterator[Step]:
    for number, run in enumerate(state.runs):
        if not run.listed:
            yield f"the list shows run {number}", _run(state, number, run._replace(listed=True))
        if run.live:
            yield f"run {number} succeeds", _run(state, number, run._replace(status="Succeeded"))
            if state.to_come[REFUSALS]:
                failed = _run(state, number, run._replace(status="Failed"))
                yield f"run {number} fails", _less(failed, REFUSALS)


def surprises(state: State, design: Design) -> Iterator[Step]:
    """Yield what may come and need not."""
    if state.to_come[LABELS]:
        yield "a label is accepted", _less(state._replace(accepted=state.accepted + 1), LABELS)
    if state.to_come[BY_HAND]:
        runs = (*state.runs, Run(0, 0, "Executing", False))
        yield f"a person starts run {len(state.runs)}", _less(state._replace(runs=runs), BY_HAND)
    if state.to_come[TABLES] and state.rec is not None and _settled(state):
        lost = state.excused | {t.id for t in state.rec.triggers | state.rec.pending}
        backup = design.backup
        known = backup.generation if backup else 0
        # A run was started on a look at the triggers of its generation, whenever the backup was made.
        ran = any(run.generation == known for run in state.runs)
        judged = frozenset(t.id for t in backup.triggers) if backup and ran else frozenset[str]()
        # Whoever restores a table stops the executions first, as the runbook says: one would go on with a
        # claim that has forgotten what it did.
        procs = tuple(done(proc) if backup and proc.name == backup.holder else proc for proc in state.procs)
        why = tuple(
            (generation, forced if generation <= known else frozenset({FORGOTTEN}))
            for generation, forced in state.why
        )
        after = state._replace(rec=backup, judged=judged, excused=lost, why=why, procs=procs)
        yield "the table is restored" if known else "the table is lost", _less(after, TABLES)


def _settled(state: State) -> bool:
    begun = any(proc.todo in BEGUN for proc in state.procs)
    return not begun and all(run.listed for run in state.runs)


def at_rest(state: State, design: Design) -> State | Violation | None:
    """Judge a state in which nothing more happens by itself; a sweep is what may still come.

    Returns the state in which a sweep starts, None when all is well, or what is wrong.
    """
    rec = state.rec
    undecided = sorted({proc.trigger for proc in state.procs} - state.decided - state.excused)
    if (rec is None or (rec.holder is None and not rec.pending)) and not undecided:
        return None
    if state.sweeps >= 3:
        held = f"; {rec.holder} holds generation {rec.generation}" if rec and rec.holder else ""
        return Violation(ALL_DECIDED, f"{undecided} are not decided, after 3 sweeps{held}")
    sweep = Proc(f"sweep-{state.sweeps + 1}", "sweep")
    return state._replace(procs=(*state.procs, sweep), sweeps=state.sweeps + 1)


def _holds(rec: Rec | None, proc: Proc) -> bool:
    return rec is not None and rec.holder == proc.name and rec.generation == proc.generation


def _rec(state: State) -> Rec:
    assert state.rec is not None
    return state.rec


def _joined(pending: frozenset[Reason], more: frozenset[Reason]) -> frozenset[Reason]:
    """Return a map of triggers after others were set by their ids."""
    ids = {reason.id for reason in more}
    return frozenset(reason for reason in pending if reason.id not in ids) | more


def done(proc: Proc) -> Proc:
    return Proc(proc.name, proc.kind, DONE)


def _less(state: State, what: int) -> State:
    left = list(state.to_come)
    left[what] -= 1
    return state._replace(to_come=tuple(left))


def put(state: State, place: int, proc: Proc) -> State:
    procs = state.procs
    return state._replace(procs=(*procs[:place], proc, *procs[place + 1 :]))


def _run(state: State, number: int, run: Run) -> State:
    runs = state.runs
    return state._replace(runs=(*runs[:number], run, *runs[number + 1 :]))


def settle(state: State) -> State:
    """Return the state that nobody can tell from this one, so that fewer are looked at.

    A write whose condition names a claim that is over can never hold again, since no execution claims a
    generation twice: it counts as having failed. Whoever has lost its claim can do nothing any more, except
    ask SageMaker for what it has decided to start. When a generation is over, nobody looks for its run.
    """
    rec = state.rec
    for place, proc in enumerate(state.procs):
        if proc.todo in HOLDING:
            if not _holds(rec, proc):
                state = put(state, place, done(proc))
        elif proc.todo == CLAIM and proc.write and not _condition(proc.write, rec):
            again = proc._replace(todo=NEW, write=None)
            state = _gone(state, place) if proc.ended else put(state, place, again)
    if rec is not None:
        for number, run in enumerate(state.runs):
            if not run.listed and _is_over(run, rec):
                state = _run(state, number, run._replace(listed=True))
        if rec.asked and _settled(state):
            # Until minutes have passed a function only fails and is called again; after them it goes on.
            state = state._replace(rec=rec._replace(asked=""))
    if not state.excused.isdisjoint(state.decided):
        state = state._replace(excused=state.excused - state.decided)
    for place, proc in enumerate(state.procs):
        for other in range(place + 1, len(state.procs)):
            twin = state.procs[other]
            if twin.kind == proc.kind and twin.trigger == proc.trigger:
                state = _further_one_first(state, place, other)
    return state


def _further_one_first(state: State, place: int, other: int) -> State:
    """Exchange two executions of the same event by a rule: which of them does what makes no difference.

    A trace may thus call one of them by the name of the other from here on.
    """
    one, two = state.procs[place], state.procs[other]
    holder = state.rec.holder if state.rec else None

    def order(proc: Proc) -> tuple[bool, str, bool, bool, int]:
        return proc.name == holder, proc.todo, proc.ended, LOGGED in proc.seen, proc.generation

    if order(one) >= order(two):
        return state
    renamed = {one.name: two.name, two.name: one.name}
    procs = [_renamed(proc, renamed) for proc in state.procs]
    procs[place], procs[other] = procs[other], procs[place]
    return state._replace(rec=_renamed_holder(state.rec, renamed), procs=tuple(procs))


def _renamed(proc: Proc, renamed: dict[str, str]) -> Proc:
    proc = proc._replace(name=renamed.get(proc.name, proc.name))
    write = proc.write
    if write is None:
        return proc
    expected = write.expected
    if expected is not None and expected[1] in renamed:
        expected = (expected[0], renamed[expected[1]])
    return proc._replace(write=write._replace(rec=_renamed_holder(write.rec, renamed), expected=expected))


def _renamed_holder(rec: Rec | None, renamed: dict[str, str]) -> Rec | None:
    return rec._replace(holder=renamed[rec.holder]) if rec and rec.holder in renamed else rec


HOLDING = frozenset({PREFLIGHT, SNAPSHOT, START, REQUEST, NOTE, YIELD, WAIT, RENOTE, WRITE})


def _is_over(run: Run, rec: Rec) -> bool:
    over = rec.generation > run.generation or (rec.generation == run.generation and rec.holder is None)
    return over and not run.live
