"""The shipped state machine definitions, and which of their paths an execution has taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
Json = dict[str, Any]


class Edge(NamedTuple):
    """One way out of a state: ``how`` is ``Next``, ``Choice n``, ``Default`` or ``Catch n``."""

    state: str
    how: str
    target: str


class Retrier(NamedTuple):
    """One entry of a state's ``Retry``, by its place."""

    state: str
    place: int


@cache
def functions(machine: str) -> dict[str, str]:
    """Return the substitutions of a machine that are functions: name of the substitution → function."""
    names = _declared(machine)
    stems = {name: re.sub(r"FunctionArn$", "", name) for name in names if name.endswith("FunctionArn")}
    return {name: re.sub(r"(?<!^)(?=[A-Z])", "_", stem).lower() for name, stem in stems.items()}


@cache
def _declared(machine: str) -> list[str]:
    """Return the names of the substitutions that template.yaml fills for a machine."""
    for resource in yaml_parse((ROOT / "template.yaml").read_text())["Resources"].values():
        properties = resource.get("Properties", {})
        if str(properties.get("DefinitionUri", "")).endswith(f"{machine}.asl.yaml"):
            return list(properties["DefinitionSubstitutions"])
    raise AssertionError(f"template.yaml has no state machine of the definition {machine}.asl.yaml")


@cache
def shipped(machine: str) -> Json:
    """Return a definition as it is in the file, with its substitutions still to be filled."""
    definition: Json = yaml.safe_load((ROOT / "statemachines" / f"{machine}.asl.yaml").read_text())
    return definition


def load(machine: str, values: Mapping[str, str]) -> Json:
    """Return a shipped definition with its substitutions filled, as a deployment fills them.

    One thing is not as shipped: of every retrier ``IntervalSeconds`` becomes 1, ``MaxDelaySeconds`` and
    ``MaxAttempts`` become 2, since nobody wants to wait minutes for a test. Which errors are tried again, and
    everything else, stays untouched.
    """
    assert set(values) == set(_declared(machine))
    text = json.dumps(shipped(machine))
    definition: Json = json.loads(re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text))
    for state in definition["States"].values():
        for retrier in state.get("Retry", []):
            retrier.update(IntervalSeconds=1, MaxDelaySeconds=2, MaxAttempts=2)
    return definition


def edges(definition: Json) -> Iterator[Edge]:
    """Give every way out of every state."""
    for name, state in definition["States"].items():
        for key in ("Next", "Default"):
            if key in state:
                yield Edge(name, key, state[key])
        for key, entries in (("Choice", state.get("Choices", [])), ("Catch", state.get("Catch", []))):
            for place, entry in enumerate(entries):
                yield Edge(name, f"{key} {place}", entry["Next"])


def retriers(definition: Json) -> set[Retrier]:
    return {
        Retrier(name, place)
        for name, state in definition["States"].items()
        for place, _ in enumerate(state.get("Retry", []))
    }


def _matches(entry: Json, error: str) -> bool:
    names = entry["ErrorEquals"]
    general = "States.ALL" in names or ("States.TaskFailed" in names and error != "States.Timeout")
    return error in names or general


def _first(entries: list[Json], error: str) -> int:
    return next(place for place, entry in enumerate(entries) if _matches(entry, error))


def taken(definition: Json, events: list[Json]) -> tuple[set[str], set[Edge], set[Retrier]]:
    """Return what an execution's history shows: the states entered, the ways out taken, the retriers used.

    The history says how an attempt ended and which state came next; which catcher or retrier that was follows
    from the error's name, as the service picks it: the first that matches. Choices of one state that lead to
    the same state cannot be told apart and count together.
    """
    states: set[str] = set()
    ways: set[Edge] = set()
    used: set[Retrier] = set()
    current, error = "", None
    for event in events:
        kind = event["type"]
        if kind.endswith("StateEntered"):
            entered = event["stateEnteredEventDetails"]["name"]
            states.add(entered)
            if current:
                state = definition["States"][current]
                how = f"Catch {_first(state['Catch'], error)}" if error else None
                found = [
                    edge
                    for edge in edges(definition)
                    if edge.state == current
                    and edge.target == entered
                    and (edge.how == how if how else not edge.how.startswith("Catch"))
                ]
                assert found, f"no way leads from {current} to {entered}"
                ways.update(found)
            current, error = entered, None
        elif kind in ("TaskScheduled", "TaskSucceeded"):
            if kind == "TaskScheduled" and error:
                used.add(Retrier(current, _first(definition["States"][current]["Retry"], error)))
            error = None
        elif kind in ("TaskFailed", "TaskTimedOut"):
            error = next(v for k, v in event.items() if k.endswith("EventDetails"))["error"]
    return states, ways, used


Paths = tuple[set[str], set[Edge], set[Retrier]]


def missing(definition: Json, played: Iterable[Paths]) -> list[object]:
    """Return the states, ways out and retriers that no execution has taken."""
    runs = list(played)
    states = set(definition["States"]).difference(*(run[0] for run in runs))
    ways = set(edges(definition)).difference(*(run[1] for run in runs))
    unused = retriers(definition).difference(*(run[2] for run in runs))
    return [*sorted(states), *sorted(ways), *sorted(unused)]
