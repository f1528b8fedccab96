"""Where an execution is: its lines of control, and the visit of a state with its evaluated fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from local.stepfunctions.errors import DATA_LIMIT, QUERY_EVALUATION, StateError, runtime_error
from local.stepfunctions.execution import Execution
from local.stepfunctions.history import compact
from local.stepfunctions.jsonata import evaluate_template, is_expression, to_jsonata
from local.stepfunctions.paths import Scope, place, select
from local.stepfunctions.templates import fill_template, resolve

PAYLOAD_LIMIT = 262_144
"""Bytes of the largest input, output or result."""

RETRYING = frozenset({"Task", "Parallel", "Map"})
_NEVER = object()


@dataclass
class Flow:
    """One line of control: the top level, a branch of a Parallel state or an iteration of a Map state.

    Attributes
    ----------
    handlers
        What runs a state, by its type. They come from above: a state that holds states needs the interpreter.
    """

    execution: Execution
    handlers: Mapping[str, Handler]
    states: Mapping[str, Any]
    language: str
    context: dict[str, Any]
    outer: Mapping[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    previous: int = 0

    def record(self, kind: str, details: dict[str, Any] | None = None) -> int:
        """Append an event to the execution's history."""
        self.previous = self.execution.history.add(kind, self.previous, details)
        return self.previous

    def visible(self) -> dict[str, Any]:
        """Return every variable that a state of this flow can read."""
        return {**self.outer, **self.variables}

    def branch(self, machine: Mapping[str, Any], extra_context: Mapping[str, Any] | None = None) -> Flow:
        """Return a flow for nested states, which read this flow's variables but never set them."""
        return Flow(
            execution=self.execution,
            handlers=self.handlers,
            states=machine["States"],
            language=machine.get("QueryLanguage", self.language),
            context={**self.context, **(extra_context or {})},
            outer=self.visible(),
            previous=self.previous,
        )


def whole_number(value: Any) -> Any:
    """Return 5.0 as 5 and anything else as it is: JSON does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Frame:
    """One visit of one state: its definition, its input, and how its fields are evaluated."""

    def __init__(self, flow: Flow, name: str, state: Mapping[str, Any], raw: Any) -> None:
        self.flow = flow
        self.name = name
        self.state = state
        self.raw = raw
        self.jsonata = state.get("QueryLanguage", flow.language) == "JSONata"
        self.context = flow.context
        self.variables = flow.visible()
        self.next: str | None = state.get("Next")
        self.assigned: dict[str, Any] = {}
        self._bound: dict[str, Any] | None = None

    @property
    def execution(self) -> Execution:
        """The execution that this visit belongs to."""
        return self.flow.execution

    def bindings(self, **extra: Any) -> dict[str, Any]:
        """Return the variables of a JSONata expression; ``extra`` adds members of ``$states``."""
        if self._bound is None:
            self._bound = {name: to_jsonata(value) for name, value in self.variables.items()}
            self._bound["states"] = {"input": to_jsonata(self.raw)}
        states = {**self._bound["states"], "context": to_jsonata(self.context)}
        states.update((name, to_jsonata(value)) for name, value in extra.items())
        return {**self._bound, "states": states}

    def scope(self, data: Any) -> Scope:
        """Return what a JSONPath can see when ``$`` is the given data."""
        return Scope(data, self.context, self.variables)

    def evaluate(self, value: Any, where: str, **extra: Any) -> Any:
        """Evaluate a JSONata field of the state."""
        return evaluate_template(value, self.bindings(**extra), where)

    def effective_input(self) -> Any:
        """Return the input after InputPath."""
        if self.jsonata or "InputPath" not in self.state:
            return self.raw
        path = self.state["InputPath"]
        return {} if path is None else select(path, self.scope(self.raw), "InputPath")

    def arguments(self, default: Any = _NEVER) -> Any:
        """Return what the state works on: Arguments or Parameters, else the effective input."""
        if self.jsonata:
            if "Arguments" in self.state:
                return self.evaluate(self.state["Arguments"], "Arguments")
            return self.raw if default is _NEVER else default
        data = self.effective_input()
        if "Parameters" in self.state:
            return fill_template(self.state["Parameters"], self.scope(data), "Parameters")
        return data if default is _NEVER else default

    def setting(self, name: str, data: Any = None) -> Any:
        """Return a scalar field that may be a literal, an expression or a ``…Path``; None if absent."""
        if self.jsonata:
            value = self.state.get(name)
            return self.evaluate(value, name) if is_expression(value) else value
        if f"{name}Path" in self.state:
            source = self.effective_input() if data is None else data
            return resolve(self.state[f"{name}Path"], self.scope(source), f"{name}Path")
        return self.state.get(name)

    def whole(self, name: str, least: int = 0) -> int | None:
        """Return a setting that must be a whole number."""
        value = whole_number(self.setting(name))
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            cause = f"The value {compact(value)} of the field '{name}' is not an integer of at least {least}"
            if self.jsonata:
                raise StateError(QUERY_EVALUATION, cause, location=name, interpreter=True)
            raise runtime_error(cause)
        return value

    def assign(self, declared: Mapping[str, Any] | None, data: Any, **extra: Any) -> None:
        """Evaluate an Assign field with the values that the variables had before the state."""
        if not declared:
            return
        if self.jsonata:
            values = self.evaluate(dict(declared), "Assign", **extra)
        else:
            values = fill_template(dict(declared), self.scope(data), "Assign")
        for name in values:
            if name in self.flow.outer:
                raise runtime_error(
                    f"The variable '{name}' belongs to an outer scope and cannot be assigned here"
                )
        self.assigned = values

    def finish(self, result: Any, default: Any = _NEVER) -> Any:
        """Turn a result into the state's output; ``default`` is that of JSONata states without Output."""
        if self.jsonata:
            extra = {"result": result} if default is _NEVER else {}
            self.assign(self.state.get("Assign"), None, **extra)
            if "Output" in self.state:
                return self.evaluate(self.state["Output"], "Output", **extra)
            return result if default is _NEVER else default
        if "ResultSelector" in self.state:
            result = fill_template(self.state["ResultSelector"], self.scope(result), "ResultSelector")
        self.assign(self.state.get("Assign"), result)
        if self.state["Type"] in RETRYING or self.state["Type"] == "Pass":
            path = self.state.get("ResultPath", "$")
            result = self.raw if path is None else place(path, self.raw, result)
        return self.output_path(result)

    def output_path(self, value: Any) -> Any:
        """Apply OutputPath."""
        path = self.state.get("OutputPath", "$")
        if path is None:
            return {}
        return value if path == "$" else select(path, self.scope(value), "OutputPath")


Handler = Callable[[Frame], Awaitable[Any]]
"""Runs the state of a frame and returns its output."""


def check_size(name: str, output: Any) -> None:
    """Raise ``States.DataLimitExceeded`` if what a state or task returned is too large."""
    if len(compact(output).encode()) > PAYLOAD_LIMIT:
        raise StateError(
            DATA_LIMIT,
            f"The state/task '{name}' returned a result with a size exceeding "
            f"the maximum number of bytes service limit.",
        )
