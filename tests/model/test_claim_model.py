"""Every interleaving of claim, start, crash, take-over and release, and the bad designs that it finds.

The largest has three triggers, one of them delivered twice, and any two executions crash; the others add what
else may happen to fewer of them. ``pytest -s tests/model`` prints how many states were visited, and the
traces that convict the bad designs.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.model import designs
from tests.model.explore import explore
from tests.model.real import Ran, Reason, Rec, Run
from tests.model.world import (
    ALL_DECIDED,
    FRESH,
    ONE_FOLLOW_UP,
    PREFLIGHT,
    SAME_EVIDENCE,
    TWO_LIVE,
    Design,
    Proc,
    State,
)


class Surprises(NamedTuple):
    """How often each may happen, at any moment."""

    crashes: int = 0
    lost_answers: int = 0
    failures: int = 0
    labels: int = 0
    runs_by_hand: int = 0
    lost_tables: int = 0


def first(*kinds: str, **surprises: int) -> State:
    """Return the state before any of these triggers has arrived."""
    procs = tuple(Proc(f"{kind}-{number}", kind) for number, kind in enumerate(kinds, 1))
    return State(None, procs, to_come=tuple(Surprises(**surprises)))


def trained(*kinds: str, **surprises: int) -> State:
    """Return the state in which a first run has trained on what there is."""
    ran = Ran(1, 1, 0)
    return first(*kinds, **surprises)._replace(
        rec=Rec(1, None, last=ran, trained=ran),
        runs=(Run(1, 1, "Succeeded", listed=True),),
        data=((1, 1),),
        why=((1, frozenset()),),
    )


def claimed(*kinds: str, **surprises: int) -> State:
    """Return the state in which the first trigger has claimed the first generation."""
    state = first(*kinds, **surprises)
    holder, *others = state.procs
    rec = Rec(1, holder.name, frozenset({Reason(holder.trigger, holder.kind)}))
    return state._replace(rec=rec, procs=(holder._replace(todo=PREFLIGHT, generation=1), *others))


# "labels" twice is the same event, delivered twice. Sweeps and follow-ups come by themselves.
SHIPPED = {
    "three triggers, two crashes": first("labels", "force", "alarm", crashes=2),
    "three triggers, one of them twice, two crashes": first("labels", "labels", "force", "alarm", crashes=2),
    "two forced starts beside the same labels twice": first("labels", "labels", "force", "force"),
    "an answer is lost, and an execution crashes": first("labels", "force", crashes=1, lost_answers=2),
    "starts are refused, runs fail, labels come": first("labels", "force", crashes=1, failures=1, labels=1),
    "a person starts a run": first("labels", "force", crashes=1, runs_by_hand=1),
    "the table is lost": first("labels", "labels", "force", lost_tables=1),
    "the table is lost, and an execution crashes": first("labels", "force", crashes=1, lost_tables=1),
    "a backup of the table is restored": trained("labels", "force", crashes=1, labels=1, lost_tables=1),
    "a backup of a claim is restored": claimed("labels", "force", labels=1, lost_tables=1),
    "a backup of a claim is restored, and its run fails": claimed("labels", failures=1, lost_tables=1),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_design_keeps_its_promises_whatever_happens(name: str) -> None:
    design = Design()
    design.backup = SHIPPED[name].rec
    found = explore(SHIPPED[name], design)
    print(f"{name}: {found}")
    assert found.violation is None, f"\n{found}"


MUTANTS: list[tuple[type[Design], State, str]] = [
    (designs.ListThenStart, first("labels", "labels"), TWO_LIVE),
    (designs.RandomTokenLease, first("labels", "force"), TWO_LIVE),
    (designs.FiniteTokenMemory, first("labels", "force", crashes=1), TWO_LIVE),
    (designs.ReleaseOverALiveRun, first("labels", "force", lost_answers=2), TWO_LIVE),
    (designs.ReleaseOnAnEmptyList, first("labels", "force", lost_answers=1), TWO_LIVE),
    (designs.TakeOverWithoutAdoption, first("labels", "force", crashes=1), TWO_LIVE),
    (designs.TakeOverByAge, first("labels", "force"), TWO_LIVE),
    (designs.MindsNoOrphans, first("labels", runs_by_hand=1), TWO_LIVE),
    (designs.ForgetsThatItCoalesced, trained("labels", "force", lost_answers=1), SAME_EVIDENCE),
    (designs.TrustsABackup, claimed("labels", lost_tables=1), SAME_EVIDENCE),
    (designs.DropsTriggersOnRelease, first("labels", "force"), ALL_DECIDED),
    (designs.LateTriggerJoins, first("labels", "force", crashes=1), FRESH),
    (designs.TakerDoesNotCheckForARun, first("labels", "force", crashes=1), FRESH),
    (designs.UnnamedFollowUp, first("labels", "force", lost_answers=1), ONE_FOLLOW_UP),
]


@pytest.mark.parametrize(
    ("design", "state", "invariant"), MUTANTS, ids=[design.__name__ for design, _, _ in MUTANTS]
)
def test_a_bad_design_is_found_out(design: type[Design], state: State, invariant: str) -> None:
    built = design()
    built.backup = state.rec
    found = explore(state, built)
    print(f"{design.__doc__}\n{found}")
    assert found.violation is not None
    assert found.violation.invariant == invariant, f"\n{found}"
