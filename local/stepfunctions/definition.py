"""Find what is wrong with a state machine definition before it runs, as CreateStateMachine does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.stepfunctions import choice, intrinsics, jsonata
from local.stepfunctions.errors import RESERVED
from local.stepfunctions.paths import check_path, reference_steps
from local.stepfunctions.resource import parse_resource
from local.stepfunctions.shapes import UnknownIntegrationError
from local.stepfunctions.waiting import parse_timestamp

TERMINAL = frozenset({"Succeed", "Fail"})
_LANGUAGES = ("JSONPath", "JSONata")
_COMMON = {"Type", "Comment", "QueryLanguage"}
_FLOW = {"Next", "End"}
_JSONPATH_IO = {"InputPath", "OutputPath"}
_FAILING = {"Retry", "Catch"}

_BOTH: dict[str, set[str]] = {
    "Pass": {"Assign"} | _FLOW,
    "Task": {"Resource", "TimeoutSeconds", "HeartbeatSeconds", "Credentials", "Assign"} | _FLOW | _FAILING,
    "Choice": {"Choices", "Default", "Assign"},
    "Wait": {"Seconds", "Timestamp", "Assign"} | _FLOW,
    "Succeed": set(),
    "Fail": {"Error", "Cause"},
    "Parallel": {"Branches", "Assign"} | _FLOW | _FAILING,
    "Map": {
        "ItemProcessor",
        "Iterator",
        "ItemReader",
        "ItemSelector",
        "ItemBatcher",
        "ResultWriter",
        "MaxConcurrency",
        "ToleratedFailureCount",
        "ToleratedFailurePercentage",
        "Label",
        "Assign",
    }
    | _FLOW
    | _FAILING,
}
_RESULT = {"Parameters", "ResultSelector", "ResultPath"}
_JSONPATH: dict[str, set[str]] = {
    "Pass": {"Result", "ResultPath", "Parameters"} | _JSONPATH_IO,
    "Task": {"TimeoutSecondsPath", "HeartbeatSecondsPath"} | _RESULT | _JSONPATH_IO,
    "Choice": _JSONPATH_IO,
    "Wait": {"SecondsPath", "TimestampPath"} | _JSONPATH_IO,
    "Succeed": _JSONPATH_IO,
    "Fail": {"ErrorPath", "CausePath", "InputPath"},
    "Parallel": _RESULT | _JSONPATH_IO,
    "Map": {
        "ItemsPath",
        "MaxConcurrencyPath",
        "ToleratedFailureCountPath",
        "ToleratedFailurePercentagePath",
    }
    | _RESULT
    | _JSONPATH_IO,
}
_JSONATA: dict[str, set[str]] = {
    "Pass": {"Output"},
    "Task": {"Arguments", "Output"},
    "Choice": {"Output"},
    "Wait": {"Output"},
    "Succeed": {"Output"},
    "Fail": set(),
    "Parallel": {"Arguments", "Output"},
    "Map": {"Items", "Output"},
}
_LONGEST_NAME = 80
_LONGEST_LABEL = 40
_TEMPLATES = ("Parameters", "ResultSelector", "ItemSelector", "Assign")


@dataclass(frozen=True)
class Diagnostic:
    """One thing that is wrong, in the form of ValidateStateMachineDefinition.

    ``rule`` tells apart what AWS reports under one code.
    """

    code: str
    message: str
    location: str
    rule: str = "structure"

    def __str__(self) -> str:
        return f"{self.code}: {self.message} at {self.location}"


def diagnose_text(text: str, kind: str = "STANDARD") -> list[Diagnostic]:
    """Return everything wrong with a definition as JSON text for a type of state machine."""
    try:
        definition = json.loads(text)
    except ValueError as error:
        return [Diagnostic("INVALID_JSON_DESCRIPTION", f"The definition is not JSON: {error}", "/")]
    if not isinstance(definition, dict):
        return [Diagnostic("INVALID_JSON_DESCRIPTION", "The definition must be a JSON object", "/")]
    found = diagnose(definition)
    return found if found or kind != "EXPRESS" else list(_express(definition, ""))


def _express(machine: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    """Yield the tasks that an Express machine cannot run: it never waits for an answer from outside."""
    for name, state in machine["States"].items():
        place = f"{where}/States/{name}"
        if state["Type"] == "Task":
            resource = parse_resource(state["Resource"])
            if resource.pattern or resource.kind == "activity":
                yield _schema(
                    "Express state machines support neither activities nor the service integration patterns "
                    f".sync and .waitForTaskToken: {resource.arn}",
                    f"{place}/Resource",
                )
        for key, inner in _nested(state):
            if inner.get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED":
                yield _schema("Express state machines support no distributed Map", f"{place}/{key}")
            yield from _express(inner, f"{place}/{key}")


def diagnose(definition: Mapping[str, Any]) -> list[Diagnostic]:
    """Return everything wrong with a definition; an empty list means that it can run."""
    language = definition.get("QueryLanguage", "JSONPath")
    found = list(_machine(definition, language, "", top=True))
    names: dict[str, str] = {}
    for where, name in _state_names(definition, ""):
        if name in names:
            found.append(Diagnostic("DUPLICATE_STATE_NAME", f"Duplicate state name: {name}", where))
        names[name] = where
    return found


def diagnose_state(state: Mapping[str, Any]) -> list[Diagnostic]:
    """Return what is wrong with a single state, as TestState takes it."""
    return list(_state(state, state.get("QueryLanguage", "JSONPath"), {}, ""))


def _schema(message: str, where: str, rule: str = "structure") -> Diagnostic:
    return Diagnostic("SCHEMA_VALIDATION_FAILED", message, where or "/", rule)


def _nested(state: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the machines inside a state with their place."""
    branches = state.get("Branches")
    for index, branch in enumerate(branches if isinstance(branches, list) else ()):
        if isinstance(branch, dict):
            yield f"Branches[{index}]", branch
    for key in ("ItemProcessor", "Iterator"):
        if isinstance(state.get(key), dict):
            yield key, state[key]


def _state_names(machine: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    states = machine.get("States")
    for name, state in states.items() if isinstance(states, dict) else ():
        yield f"{where}/States/{name}", name
        if isinstance(state, dict):
            for place, inner in _nested(state):
                yield from _state_names(inner, f"{where}/States/{name}/{place}")


def _machine(
    machine: Mapping[str, Any], language: Any, where: str, *, top: bool = False
) -> Iterator[Diagnostic]:
    if language not in _LANGUAGES:
        yield _schema(
            f"QueryLanguage must be JSONPath or JSONata, not {language!r}", f"{where}/QueryLanguage"
        )
        return
    known = {"Comment", "StartAt", "States", "QueryLanguage"} | (
        {"TimeoutSeconds", "Version"} if top else {"ProcessorConfig"}
    )
    for key in machine:
        if key not in known:
            yield _schema(f"Field '{key}' is not supported", f"{where}/{key}")
    missing = [key for key in ("States", "StartAt") if key not in machine]
    if missing:
        yield _schema(f"These fields are required: [{', '.join(missing)}]", where)
    states = machine.get("States", missing)
    if states is missing:
        return
    if not isinstance(states, dict) or not states:
        yield _schema("The field 'States' must be an object with at least one state", f"{where}/States")
        return
    if machine.get("Version", "1.0") != "1.0":
        yield _schema("The field 'Version' must be 1.0", f"{where}/Version")
    limit = machine.get("TimeoutSeconds")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        yield _schema("The field 'TimeoutSeconds' must be a positive integer", f"{where}/TimeoutSeconds")
    start = machine.get("StartAt")
    if start not in states and "StartAt" in machine:
        yield Diagnostic(
            "MISSING_TRANSITION_TARGET", f"Missing 'StartAt' target: {start}", f"{where}/StartAt", "dangling"
        )
    for name, state in states.items():
        place = f"{where}/States/{name}"
        if not isinstance(state, dict):
            yield _schema("A state must be an object", place)
        elif len(name) > 80:
            yield _schema("A state name has at most 80 characters", place)
        else:
            yield from _state(state, language, states, place)
    yield from _reachability(machine, where)


def targets(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names of the states that may follow, each with the field that names it."""
    for key in ("Next", "Default"):
        if key in state:
            yield key, state[key]
    for key in ("Choices", "Catch"):
        rules = state.get(key)
        for index, rule in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(rule, dict) and "Next" in rule:
                yield f"{key}[{index}]/Next", rule["Next"]


def _reachability(machine: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    states = machine["States"]
    seen: set[str] = set()
    ahead = [machine.get("StartAt")]
    while ahead:
        name = ahead.pop()
        if isinstance(name, str) and name in states and name not in seen and isinstance(states[name], dict):
            seen.add(name)
            ahead.extend(target for _, target in targets(states[name]))
    if not seen:
        return
    for name in states:
        if name not in seen:
            yield Diagnostic(
                "MISSING_TRANSITION_TARGET",
                f'State "{name}" is not reachable.',
                f"{where}/States/{name}",
                "unreachable",
            )
    if not any(states[name].get("End") is True or states[name].get("Type") in TERMINAL for name in seen):
        yield Diagnostic(
            "NO_TERMINAL_STATE", "No state ends the state machine", f"{where}/States", "no-terminal"
        )


def _state(state: Mapping[str, Any], machine_language: str, states: Any, where: str) -> Iterator[Diagnostic]:
    kind = state.get("Type")
    if kind not in _BOTH:
        yield _schema(f"The state type {kind!r} is not one of {', '.join(_BOTH)}", f"{where}/Type")
        return
    language = state.get("QueryLanguage", machine_language)
    if language not in _LANGUAGES or (machine_language == "JSONata" and language == "JSONPath"):
        reason = (
            "'QueryLanguage' can not be 'JSONPath' if set to 'JSONata' for whole state machine"
            if language in _LANGUAGES
            else f"QueryLanguage must be JSONPath or JSONata, not {language!r}"
        )
        yield _schema(reason, f"{where}/QueryLanguage")
        return
    own, other = (_JSONATA, _JSONPATH) if language == "JSONata" else (_JSONPATH, _JSONATA)
    known = _COMMON | _BOTH[kind] | own[kind]
    for key in state:
        if key not in known:
            wrong = key in other[kind]
            reason = f" under QueryLanguage {language}" if wrong else ""
            yield _schema(
                f"Field '{key}' is not supported for state type '{kind}'{reason}",
                f"{where}/{key}",
                "query-language" if wrong else "structure",
            )
    if kind not in TERMINAL | {"Choice"} and ("Next" in state) == (state.get("End") is True):
        yield _schema("These fields are required: exactly one of 'Next' and 'End: true'", where)
    for key, target in targets(state):
        if not isinstance(target, str) or target not in states:
            yield Diagnostic(
                "MISSING_TRANSITION_TARGET", f"Missing '{key}' target: {target}", f"{where}/{key}", "dangling"
            )
    for key, path in ((key, f"{key}Path") for key in _BOTH[kind] if key in state):
        # A Wait state has a finding of its own for all four of its fields.
        if path in state and path in own[kind] and kind != "Wait":
            yield _schema(f"Use either '{key}' or '{path}'", f"{where}/{path}")
    if kind in _CHECKS:
        yield from _CHECKS[kind](state, language, where)
    yield from _failing(state, language, where)
    yield from _assignments(state, where)
    if language == "JSONata":
        yield from _expressions(state, where)
    else:
        yield from _paths(state, where)
    for place, inner in _nested(state):
        yield from _machine(inner, inner.get("QueryLanguage", machine_language), f"{where}/{place}")


def _assignments(state: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    """Yield the variables that cannot be assigned under their names."""
    declared = [("Assign", state.get("Assign"))]
    for field in ("Choices", "Catch"):
        rules = state.get(field)
        for index, rule in enumerate(rules if isinstance(rules, list) else ()):
            if isinstance(rule, dict):
                declared.append((f"{field}[{index}]/Assign", rule.get("Assign")))
    for place, names in declared:
        if names is None:
            continue
        if not isinstance(names, dict):
            yield _schema("'Assign' must be an object of variables", f"{where}/{place}")
            continue
        for key in names:
            name = key.removesuffix(".$")
            if not name.isidentifier() or len(name) > _LONGEST_NAME or name == "states":
                yield _schema(
                    f"'{name}' cannot name a variable: use letters, digits and underscores, at most "
                    f"{_LONGEST_NAME}, no digit first, and not 'states'",
                    f"{where}/{place}/{key}",
                )


def _failing(state: Mapping[str, Any], language: str, where: str) -> Iterator[Diagnostic]:
    for field in ("Retry", "Catch"):
        rules = state.get(field, [])
        if not isinstance(rules, list):
            yield _schema(f"The field '{field}' must be an array", f"{where}/{field}")
            continue
        for index, rule in enumerate(rules):
            place = f"{where}/{field}[{index}]"
            names = rule.get("ErrorEquals") if isinstance(rule, dict) else None
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                yield _schema(
                    "'ErrorEquals' must be a non-empty array of error names", f"{place}/ErrorEquals"
                )
                continue
            for name in names:
                if name.startswith("States.") and name not in RESERVED:
                    yield Diagnostic(
                        "RESERVED_ERROR_NAME",
                        f"'{name}' begins like a name of Step Functions, which raises no such error",
                        f"{place}/ErrorEquals",
                        "error-name",
                    )
            if "States.ALL" in names and (len(names) > 1 or index < len(rules) - 1):
                yield _schema("'States.ALL' must appear alone and in the last rule", f"{place}/ErrorEquals")
            allowed = (
                {
                    "ErrorEquals",
                    "IntervalSeconds",
                    "MaxAttempts",
                    "BackoffRate",
                    "MaxDelaySeconds",
                    "JitterStrategy",
                    "Comment",
                }
                if field == "Retry"
                else {"ErrorEquals", "Next", "Assign", "Comment"}
                | ({"Output"} if language == "JSONata" else {"ResultPath"})
            )
            for key in rule:
                if key not in allowed:
                    yield _schema(
                        f"Field '{key}' is not supported in {field} under {language}",
                        f"{place}/{key}",
                        "query-language",
                    )
            if field == "Catch" and "Next" not in rule:
                yield _schema("These fields are required: [Next]", place)
            if field == "Retry":
                yield from _retrier(rule, place)


def _retrier(rule: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    for key, least, kinds in (
        ("IntervalSeconds", 1, (int,)),
        ("MaxAttempts", 0, (int,)),
        ("MaxDelaySeconds", 1, (int,)),
        ("BackoffRate", 1, (int, float)),
    ):
        value = rule.get(key, least)
        if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
            yield _schema(f"'{key}' must be a number of at least {least}, not {value!r}", f"{where}/{key}")
    if rule.get("JitterStrategy", "NONE") not in ("NONE", "FULL"):
        yield _schema("'JitterStrategy' must be NONE or FULL", f"{where}/JitterStrategy")
    interval = rule.get("IntervalSeconds", 1)
    if isinstance(interval, int) and rule.get("MaxDelaySeconds", interval + 1) <= interval:
        yield _schema("'MaxDelaySeconds' must be greater than 'IntervalSeconds'", f"{where}/MaxDelaySeconds")


def _check_task(state: Mapping[str, Any], language: str, where: str) -> Iterator[Diagnostic]:
    resource = state.get("Resource")
    if not isinstance(resource, str):
        yield _schema("These fields are required: [Resource]", where)
        return
    try:
        parse_resource(resource)
    except UnknownIntegrationError as error:
        yield _schema(str(error), f"{where}/Resource")
    for name in ("TimeoutSeconds", "HeartbeatSeconds"):
        value = state.get(name)
        if value is None or (language == "JSONata" and jsonata.is_expression(value)):
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield _schema(f"The field '{name}' must be a positive integer, not {value!r}", f"{where}/{name}")
    beat, limit = state.get("HeartbeatSeconds"), state.get("TimeoutSeconds")
    if isinstance(beat, int) and isinstance(limit, int) and beat >= limit:
        yield _schema("'HeartbeatSeconds' must be less than 'TimeoutSeconds'", f"{where}/HeartbeatSeconds")


def _check_wait(state: Mapping[str, Any], language: str, where: str) -> Iterator[Diagnostic]:
    given = [key for key in ("Seconds", "SecondsPath", "Timestamp", "TimestampPath") if key in state]
    if len(given) != 1:
        yield _schema(
            "A Wait state needs exactly one of Seconds, SecondsPath, Timestamp, TimestampPath", where
        )
        return
    name, value = given[0], state[given[0]]
    if language == "JSONata" and jsonata.is_expression(value):
        return
    if name == "Seconds" and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 99_999_999
    ):
        yield _schema(
            f"'Seconds' must be an integer from 0 to 99999999, not {value!r}", f"{where}/Seconds", "seconds"
        )
    if name == "Timestamp" and parse_timestamp(value) is None:
        yield _schema(f"'Timestamp' must be an RFC 3339 timestamp, not {value!r}", f"{where}/Timestamp")


def _check_choice(state: Mapping[str, Any], language: str, where: str) -> Iterator[Diagnostic]:
    rules = state.get("Choices")
    if not isinstance(rules, list) or not rules:
        yield _schema("These fields are required: [Choices]", where)
        return
    for index, rule in enumerate(rules):
        place = f"{where}/Choices[{index}]"
        if not isinstance(rule, dict):
            yield _schema("A choice rule must be an object", place)
            continue
        if "Next" not in rule:
            yield _schema("These fields are required: [Next]", place)
        if language == "JSONata":
            condition = rule.get("Condition")
            if not isinstance(condition, bool) and not jsonata.is_expression(condition):
                yield _schema("'Condition' must be a JSONata expression or a boolean", f"{place}/Condition")
            unknown = set(rule) - {"Condition", "Next", "Assign", "Output", "Comment"}
        else:
            yield from _rule(rule, place)
            unknown = {"Condition", "Output"} & set(rule)
        for key in sorted(unknown):
            yield _schema(
                f"Field '{key}' is not supported in a rule under {language}",
                f"{place}/{key}",
                "query-language",
            )


def _rule(rule: Any, where: str, *, nested: bool = False) -> Iterator[Diagnostic]:
    if not isinstance(rule, dict):
        yield _schema("A choice rule must be an object", where)
        return
    if nested and "Next" in rule:
        yield _schema("'Next' belongs to the outermost rule only", f"{where}/Next")
    for key in ("And", "Or"):
        if key in rule:
            parts = rule[key]
            if not isinstance(parts, list) or not parts:
                yield _schema(f"'{key}' must be a non-empty array of rules", f"{where}/{key}")
                return
            for index, inner in enumerate(parts):
                yield from _rule(inner, f"{where}/{key}[{index}]", nested=True)
            return
    if "Not" in rule:
        yield from _rule(rule["Not"], f"{where}/Not", nested=True)
        return
    operators = [key for key in rule if choice.is_operator(key)]
    if len(operators) != 1:
        yield _schema("A rule needs exactly one comparison operator", where)
    variable = rule.get("Variable")
    yield from _path(variable, f"{where}/Variable")
    if operators and operators[0].endswith("Path"):
        yield from _path(rule[operators[0]], f"{where}/{operators[0]}")
    elif operators and not choice.takes(operators[0], rule[operators[0]]):
        yield _schema(
            f"'{operators[0]}' cannot compare with {json.dumps(rule[operators[0]])}",
            f"{where}/{operators[0]}",
        )


def _check_parallel(state: Mapping[str, Any], _language: str, where: str) -> Iterator[Diagnostic]:
    if not isinstance(state.get("Branches"), list) or not state["Branches"]:
        yield _schema("These fields are required: [Branches]", where)


def _check_map(state: Mapping[str, Any], language: str, where: str) -> Iterator[Diagnostic]:
    processor = state.get("ItemProcessor", state.get("Iterator"))
    if not isinstance(processor, dict):
        yield _schema("These fields are required: [ItemProcessor]", where)
        return
    if "ItemProcessor" in state and "Iterator" in state:
        yield _schema("Use either 'ItemProcessor' or 'Iterator'", f"{where}/Iterator")
    label = state.get("Label", "")
    if not isinstance(label, str) or len(label) > _LONGEST_LABEL:
        yield _schema(f"'Label' must be a text of at most {_LONGEST_LABEL} characters", f"{where}/Label")
    mode = processor.get("ProcessorConfig", {}).get("Mode", "INLINE")
    if mode not in ("INLINE", "DISTRIBUTED"):
        yield _schema(
            f"'Mode' must be INLINE or DISTRIBUTED, not {mode!r}", f"{where}/ItemProcessor/ProcessorConfig"
        )
    if mode == "DISTRIBUTED":
        kind = processor["ProcessorConfig"].get("ExecutionType")
        if kind not in ("STANDARD", "EXPRESS"):
            yield _schema(
                f"'ExecutionType' of a Map with Mode DISTRIBUTED must be STANDARD or EXPRESS, not {kind!r}",
                f"{where}/ItemProcessor/ProcessorConfig",
            )
    if mode == "INLINE":
        for key in (
            "ItemReader",
            "ItemBatcher",
            "ResultWriter",
            "ToleratedFailureCount",
            "Label",
            "ToleratedFailurePercentage",
        ):
            if key in state:
                yield _schema(f"Field '{key}' needs a Map with Mode DISTRIBUTED", f"{where}/{key}")
    items = state.get("Items", [])
    if language == "JSONata" and not isinstance(items, (list, dict)) and not jsonata.is_expression(items):
        yield _schema("'Items' must be an array, an object or a JSONata expression", f"{where}/Items")
    if "ItemReader" in state and ("Items" in state or "ItemsPath" in state) and language == "JSONata":
        yield _schema("Use either ItemReader or Items", f"{where}/Items")


_CHECKS = {
    "Task": _check_task,
    "Wait": _check_wait,
    "Choice": _check_choice,
    "Parallel": _check_parallel,
    "Map": _check_map,
}


def _inside(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a state that are its own, not those of machines inside it."""
    for key, value in state.items():
        if key not in ("Branches", "ItemProcessor", "Iterator"):
            yield key, value


def _expressions(state: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    for key, value in _inside(state):
        for place, text in strings(value, f"{where}/{key}"):
            if jsonata.is_expression(text):
                try:
                    jsonata.compile_expression(jsonata.source_of(text))
                except Exception as error:
                    yield _schema(
                        f"The JSONata expression '{jsonata.source_of(text)}' does not parse: {error}",
                        place,
                        "expression",
                    )


def strings(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Yield every string inside a JSON value with its place."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, f"{where}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from strings(item, f"{where}[{index}]")


def _paths(state: Mapping[str, Any], where: str) -> Iterator[Diagnostic]:
    for key, value in _inside(state):
        if key == "ResultPath" and value is not None:
            if not isinstance(value, str) or reference_steps(value) is None:
                yield _schema(f"'{value}' is not a reference path", f"{where}/{key}")
        elif key.endswith("Path") and value is not None:
            yield from _path_or_intrinsic(value, f"{where}/{key}")
        elif key in _TEMPLATES:
            yield from _template(value, f"{where}/{key}")


def _template(value: Any, where: str) -> Iterator[Diagnostic]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key.endswith(".$"):
                yield from _path_or_intrinsic(item, f"{where}/{key}")
            else:
                yield from _template(item, f"{where}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _template(item, f"{where}[{index}]")


def _path_or_intrinsic(value: Any, where: str) -> Iterator[Diagnostic]:
    if isinstance(value, str) and value.startswith("States."):
        try:
            intrinsics.check_text(value)
        except intrinsics.IntrinsicSyntaxError as error:
            yield _schema(f"The value is not a valid intrinsic function: {error}", where)
    else:
        yield from _path(value, where)


def _path(value: Any, where: str) -> Iterator[Diagnostic]:
    if not isinstance(value, str):
        yield _schema(f"The value must be a JSONPath, not {value!r}", where)
        return
    try:
        check_path(value)
    except ValueError as error:
        yield _schema(f"The value '{value}' is not a valid JSONPath: {error}", where)
