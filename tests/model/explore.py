"""Breadth-first search through every state of the model, and a trace that a person can read."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.model.world import Design, State, Violation, at_rest, settle, steps, surprises


@dataclass(frozen=True)
class Explored:
    """What the search has found; `trace` leads to `violation`, or is empty."""

    states: int
    steps: int
    depth: int
    violation: Violation | None
    trace: tuple[str, ...]

    def __str__(self) -> str:
        size = f"{self.states} states, {self.steps} steps, depth {self.depth}"
        if self.violation is None:
            return size
        told = "\n".join(f"{number:3}. {line}" for number, line in enumerate(self.trace, 1))
        return f"{self.violation.invariant}: {self.violation.detail}\n{told}\n({size})"


def explore(first: State, design: Design, limit: int = 2_000_000) -> Explored:
    """Visit every state that can be reached, nearest first, until an invariant breaks.

    A cycle would be an execution that goes on for ever without anything happening; the search says so.
    """
    with _without_collections():
        return _explore(first, design, limit)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep the collector from walking through all states, again and again: none of them is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _explore(first: State, design: Design, limit: int) -> Explored:
    found: dict[State, int] = {first: 0}
    states, parents, words = [first], array("l", [-1]), [""]
    depths = array("l", [0])
    edges: list[array[int]] = []
    taken = 0
    for place, state in enumerate(states):  # grows while it is walked
        onward = array("l")
        regular = list(steps(state, design))
        if not regular:
            rest = at_rest(state, design)
            if rest is not None:
                regular = [("a sweep comes", rest)]
        for said, after in (*regular, *surprises(state, design)):
            taken += 1
            if isinstance(after, Violation):
                trace = (*_trace(place, parents, words), said)
                return Explored(len(states), taken, depths[place] + 1, after, trace)
            after = settle(after)
            known = found.get(after)
            if known is None:
                known = found[after] = len(states)
                states.append(after)
                parents.append(place)
                words.append(said)
                depths.append(depths[place] + 1)
                if known > limit:
                    raise AssertionError(f"more than {limit} states")
            onward.append(known)
        edges.append(onward)
    loop = _on_a_cycle(edges)
    if loop is not None:
        endless = Violation("something happens in the end", "an execution goes on for ever")
        return Explored(len(states), taken, max(depths), endless, _trace(loop, parents, words))
    return Explored(len(states), taken, max(depths), None, ())


def _trace(place: int, parents: array[int], words: list[str]) -> tuple[str, ...]:
    told: list[str] = []
    while parents[place] >= 0:
        told.append(words[place])
        place = parents[place]
    return tuple(reversed(told))


def _on_a_cycle(edges: list[array[int]]) -> int | None:
    """Return a state that can be reached from itself (Kahn, Topological sorting of large networks, 1962)."""
    incoming = array("l", [0]) * len(edges)
    for onward in edges:
        for after in onward:
            incoming[after] += 1
    ahead = [place for place, count in enumerate(incoming) if not count]
    passed = 0
    while ahead:
        place = ahead.pop()
        passed += 1
        for after in edges[place]:
            incoming[after] -= 1
            if not incoming[after]:
                ahead.append(after)
    if passed == len(edges):
        return None
    return next(place for place, count in enumerate(incoming) if count)
