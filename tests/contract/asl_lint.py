"""Find what is wrong with a state machine of this repository: broken ASL, and breaches of its house rules.

``sam validate --lint`` and cfn-lint accept dangling transitions, fields of the wrong query language and error
names that nobody raises; each of them shows first when an execution needs the broken part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.stepfunctions.definition import diagnose, strings
from local.stepfunctions.errors import RESERVED
from local.stepfunctions.jsonata import is_expression
from local.stepfunctions.resource import Resource, parse_resource
from local.stepfunctions.shapes import UnknownIntegrationError, modelled_exceptions, service_prefix
from local.stepfunctions.task import OPTIMISED_ERRORS

_SUBSTITUTION = re.compile(r"\$\{(\w+)\}")
_LAMBDA_SERVICE = frozenset(
    {
        "Lambda.ServiceException",
        "Lambda.AWSLambdaException",
        "Lambda.SdkClientException",
        "Lambda.ClientExecutionTimeoutException",
        "Lambda.Unknown",
        "Runtime.ExitError",
        "Sandbox.Timedout",
    }
)
"""Names that the integration itself gives to failures of an invocation; the API's model adds its own."""


@dataclass(frozen=True)
class Finding:
    """One finding: its kind, where it is, and what to change."""

    kind: str
    location: str
    message: str

    def __str__(self) -> str:
        return f"{self.location}: {self.message} [{self.kind}]"


def lint(
    definition: Mapping[str, Any], *, substitutions: Mapping[str, object], error_names: set[str]
) -> list[Finding]:
    """Return everything wrong with a definition.

    Parameters
    ----------
    definition
        The state machine as its file has it.
    substitutions
        ``DefinitionSubstitutions`` of its resource; the values stand in for those of a deployment.
    error_names
        Class names of the exceptions that the functions raise.
    """
    found = list(_substitutions(definition, substitutions))
    filled = _fill(definition, substitutions)
    found += [Finding(item.rule, item.location, item.message) for item in diagnose(filled)]
    found += _machine(filled, filled.get("QueryLanguage", "JSONPath"), error_names, "")
    return found


def _substitutions(definition: Any, substitutions: Mapping[str, object]) -> Iterator[Finding]:
    used: set[str] = set()
    for where, text in strings(definition, ""):
        for name in _SUBSTITUTION.findall(text):
            used.add(name)
            if name not in substitutions:
                yield Finding("substitution-missing", where, f"${{{name}}} has no DefinitionSubstitution")
    for name in substitutions:
        if name not in used:
            yield Finding("substitution-unused", "/", f"nothing uses the DefinitionSubstitution {name}")


def _fill(value: Any, substitutions: Mapping[str, object]) -> Any:
    """Return the definition as CloudFormation fills it: a number in quotes becomes a string."""
    if isinstance(value, str):
        return _SUBSTITUTION.sub(lambda match: str(substitutions.get(match[1], match[0])), value)
    if isinstance(value, dict):
        return {key: _fill(item, substitutions) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, substitutions) for item in value]
    return value


def _states(machine: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    states = machine.get("States")
    found = states.items() if isinstance(states, dict) else ()
    return {name: state for name, state in found if isinstance(state, dict)}


def _inner(state: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    branches = [(f"Branches[{index}]", branch) for index, branch in enumerate(state.get("Branches", []))]
    return branches + [(key, state[key]) for key in ("ItemProcessor", "Iterator") if key in state]


def _machine(
    machine: Mapping[str, Any], language: str, error_names: set[str], where: str
) -> Iterator[Finding]:
    for name, state in _states(machine).items():
        place = f"{where}/States/{name}"
        spoken = state.get("QueryLanguage", language)
        if spoken == "JSONPath":
            yield from _literal_expressions(state, place)
        if state.get("Type") == "Task":
            yield from _house_rules(state, place)
        known = _raised(state, error_names)
        for field in ("Retry", "Catch"):
            for index, rule in enumerate(state.get(field, [])):
                for error in rule.get("ErrorEquals", []):
                    if error not in known:
                        yield Finding(
                            "unknown-error",
                            f"{place}/{field}[{index}]/ErrorEquals",
                            f"nothing that this state calls raises {error}",
                        )
        for key, inner in _inner(state):
            yield from _machine(inner, inner.get("QueryLanguage", spoken), error_names, f"{place}/{key}")


def _literal_expressions(state: Mapping[str, Any], where: str) -> Iterator[Finding]:
    own = {key: value for key, value in state.items() if key not in ("Branches", "ItemProcessor", "Iterator")}
    for place, text in strings(own, where):
        if is_expression(text):
            yield Finding("query-language", place, "under JSONPath a {% %} expression is a plain string")


def _house_rules(state: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Yield breaches of: a timeout, retries on named errors with jitter and a cap, a Catch of everything."""
    if not {"TimeoutSeconds", "TimeoutSecondsPath"} & set(state):
        yield Finding("no-timeout", where, "the Task has no TimeoutSeconds: it may hang for a year")
    retriers = state.get("Retry", [])
    if not retriers:
        yield Finding("no-retry", where, "the Task has no Retry for what passes by itself")
    for index, retrier in enumerate(retriers):
        place = f"{where}/Retry[{index}]"
        if "States.ALL" in retrier.get("ErrorEquals", []):
            yield Finding("no-retry", place, "retry named errors: States.ALL repeats what can never succeed")
        if retrier.get("JitterStrategy") != "FULL":
            yield Finding("no-jitter", place, "the retrier needs JitterStrategy: FULL")
        if "MaxDelaySeconds" not in retrier:
            yield Finding("no-cap", place, "the retrier needs MaxDelaySeconds")
    if not any("States.ALL" in catcher.get("ErrorEquals", []) for catcher in state.get("Catch", [])):
        yield Finding(
            "no-catch", where, "the Task has no Catch of States.ALL: a failure ends the execution here"
        )


def _raised(state: Mapping[str, Any], error_names: set[str]) -> set[str]:
    """Return the error names that a state can fail with, or that match any of them."""
    known = set(RESERVED)
    for _, machine in _inner(state):
        for inner in _states(machine).values():
            if inner.get("Type") == "Fail" and isinstance(inner.get("Error"), str):
                known.add(inner["Error"])
            known |= _raised(inner, error_names)
    if state.get("Type") == "Task":
        try:
            resource = parse_resource(str(state.get("Resource")))
        except UnknownIntegrationError:
            return known
        known |= _raised_by_task(resource, error_names)
    return known


def _raised_by_task(resource: Resource, error_names: set[str]) -> set[str]:
    if resource.kind == "activity" or resource.pattern == "waitForTaskToken":
        # A worker may send any name: only those of this repository are known.
        return set(error_names)
    if resource.type_name == "lambda":
        modelled = {f"Lambda.{name}" for name in modelled_exceptions("lambda")}
        return error_names | _LAMBDA_SERVICE | modelled
    if resource.kind == "sdk":
        prefix, general = service_prefix(resource.service), f"{service_prefix(resource.service)}Exception"
    else:
        prefix, general = OPTIMISED_ERRORS[resource.type_name]
    names = {f"{prefix}.{name}" for name in (*modelled_exceptions(resource.service), general)}
    return names | {f"{prefix}.SdkClientException", "EventBridge.FailedEntry"}
