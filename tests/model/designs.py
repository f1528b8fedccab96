"""Designs that are known to be bad: the model must find out, and by which invariant is said in the tests."""

from __future__ import annotations

from tests.model import real
from tests.model.real import Rec, View, Write
from tests.model.world import ASK, Design, Proc, State, done, put
from truthloop.ports import PipelineExecution
from truthloop.retraining.claim import HolderState


class _NoLookUp(real._Pipeline):
    """Sees no pipeline run by its name."""

    def find(self, display_name: str) -> PipelineExecution | None:
        return None


class _NoLiveRuns(real._Pipeline):
    """Does not ask which runs are live."""

    def live(self) -> tuple[PipelineExecution, ...]:
        return ()


class _Blind(_NoLookUp, _NoLiveRuns):
    """Looks for no run at all."""


class ListThenStart(Design):
    """Start when the list shows no live run; no claim, and a token that is new each time."""

    finds_tokens = False

    def begins(self, state: State, place: int, proc: Proc) -> State | None:
        """Look at the list, and go straight to SageMaker."""
        if any(run.listed and run.live for run in state.runs):
            return put(state, place, done(proc))
        number = place + 1
        data = (*state.data, (number, state.accepted))
        return put(state._replace(data=data), place, proc._replace(todo=ASK, generation=number))


class RandomTokenLease(Design):
    """A lease that expires by time; whoever takes it over starts with a token of its own."""

    sees = _Blind
    finds_tokens = False

    def holder_state(self, state: State) -> HolderState | None:
        """The lease may have expired at any moment."""
        return HolderState.ENDED if state.rec and state.rec.holder else None

    def taken_over(self, rec: Rec, write: Write) -> Rec:
        """Forget what the old holder has begun."""
        return super().taken_over(rec, write)._replace(run=None, starting=None, asked="")


class FiniteTokenMemory(Design):
    """Rely on the request token alone: no run is looked up by its name."""

    sees = _NoLookUp


class ReleaseOverALiveRun(Design):
    """Release after any error, whatever the run does."""

    def release(self, state: State, proc: Proc) -> Write:
        """See every run as ended, and every start as settled."""
        rec = state.rec._replace(asked="") if state.rec else None
        own = None if rec is None or rec.run is None else (rec.run, state.runs[rec.run])
        ended = None if own is None else (own[0], own[1]._replace(status="Failed"))
        view = View(rec, None, (), ended, state.data)
        return real.release(view, proc.name, proc.generation, proc.outcome)


class ReleaseOnAnEmptyList(Design):
    """Take a list without the run for the proof that there is none."""

    def release(self, state: State, proc: Proc) -> Write:
        """See every start as settled."""
        rec = state.rec._replace(asked="") if state.rec else None
        changed = state._replace(rec=rec)
        return super().release(changed, proc)


class TakeOverWithoutAdoption(Design):
    """Take a dead holder's claim as a new generation, and leave its run alone."""

    def taken_over(self, rec: Rec, write: Write) -> Rec:
        """Go on under another number."""
        after = super().taken_over(rec, write)
        return after._replace(generation=rec.generation + 1, run=None, starting=None, asked="")


class TakeOverByAge(Design):
    """Take a claim over because it is old, as a new generation; the token derives from it."""

    def holder_state(self, state: State) -> HolderState | None:
        """Every claim may be old."""
        return HolderState.ENDED if state.rec and state.rec.holder else None

    def taken_over(self, rec: Rec, write: Write) -> Rec:
        """Go on under another number."""
        after = super().taken_over(rec, write)
        return after._replace(generation=rec.generation + 1, run=None, starting=None, asked="")


class DropsTriggersOnRelease(Design):
    """Clear what waits together with the claim."""

    def released(self, rec: Rec) -> Rec:
        """Forget what waits."""
        return super().released(rec)._replace(pending=frozenset())


class UnnamedFollowUp(Design):
    """Start the follow-up without a name to find it by."""

    names_follow_ups = False


class LateTriggerJoins(Design):
    """Count a taker's trigger as decided by the run that it has taken over."""

    def taken_over(self, rec: Rec, write: Write) -> Rec:
        """Let it join the claim."""
        return rec._replace(
            holder=super().taken_over(rec, write).holder,
            triggers=rec.triggers | write.waiting,
            run=rec.run if write.run is None else write.run,
            last=write.ran or rec.last,
        )


class TakerDoesNotCheckForARun(Design):
    """Make the take-over conditional on the holder alone."""

    def claim(self, state: State, proc: Proc) -> Write:
        """Leave one condition out."""
        return super().claim(state, proc)._replace(needs_no_run=False)


class ForgetsThatItCoalesced(Design):
    """Do not look into the log before a claim."""

    def view(self, state: State, proc: Proc, own: int | None = None) -> View:
        """Read nothing of it."""
        return super().view(state, proc, own)._replace(logged=False)


class TrustsABackup(Design):
    """Believe a record that asks for no start, however old it is."""

    def claim(self, state: State, proc: Proc) -> Write:
        """Look for a run only when the record says that one was asked for."""
        asked = state.rec is not None and state.rec.starting is not None
        return real.claim(
            self.view(state, proc), proc.name, proc.kind, real._Pipeline if asked else _NoLookUp
        )


class MindsNoOrphans(Design):
    """Look for the own run only."""

    sees = _NoLiveRuns
