"""Pipeline definitions: parsed and checked before anything runs.

Every error names the place in the definition, in the notation ``Steps[2].Arguments.Conditions[0]``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

VERSION = "2020-12-01"
SUPPORTED_STEPS = ("Processing", "Training", "Condition", "RegisterModel", "Model", "Fail")
COMPARISONS = ("Equals", "GreaterThan", "GreaterThanOrEqualTo", "LessThan", "LessThanOrEqualTo")
EXECUTION_VARIABLES = (
    "CurrentDateTime",
    "PipelineArn",
    "PipelineExecutionArn",
    "PipelineExecutionId",
    "PipelineName",
    "StartDateTime",
)
PARAMETER_TYPES = {"String": (str,), "Integer": (int,), "Float": (float, int), "Boolean": (bool,)}
_STEP_NAME = re.compile(r"[A-Za-z0-9\-_]{1,64}")
_GET = re.compile(r"(Parameters|Execution|Steps)\.(.+)", re.DOTALL)


class DefinitionError(Exception):
    """A pipeline definition is malformed; the message says what and where."""


@dataclass(frozen=True)
class Parameter:
    """A declared pipeline parameter."""

    name: str
    type: str
    default: Any = None
    has_default: bool = False
    allowed: tuple[Any, ...] = ()

    def convert(self, text: Any) -> Any:
        """Return a value given at the start as this parameter's type.

        Raises
        ------
        ValueError
            It is not of the type, or not one of the enumerated values.
        """
        if self.type == "Integer":
            value: Any = int(text)
        elif self.type == "Float":
            value = float(text)
        elif self.type == "Boolean":
            if str(text).lower() not in ("true", "false"):
                raise ValueError(f"{text!r} is neither true nor false")
            value = str(text).lower() == "true"
        else:
            value = str(text)
        if self.allowed and value not in self.allowed:
            raise ValueError(f"{text!r} is not one of {list(self.allowed)}")
        return value


@dataclass(frozen=True)
class Step:
    """A step of the flattened definition.

    Attributes
    ----------
    parent, branch
        For a step inside a Condition: that step's name and the outcome that runs this one.
    needs
        Names of the steps that must have succeeded before.
    """

    name: str
    type: str
    arguments: Any
    body: dict[str, Any]
    where: str
    parent: str | None = None
    branch: bool = True
    needs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Definition:
    """A checked pipeline definition."""

    parameters: dict[str, Parameter]
    steps: dict[str, Step] = field(default_factory=dict)
    custom_job_prefix: bool = False


def parse(text: str) -> Definition:
    """Parse and check a definition.

    Raises
    ------
    DefinitionError
        With what is wrong and where.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise DefinitionError(f"PipelineDefinition is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise DefinitionError("PipelineDefinition must be a JSON object.")
    if document.get("Version") != VERSION:
        raise DefinitionError(f"Version must be {VERSION!r}, not {document.get('Version')!r}.")
    parameters = _parameters(document.get("Parameters") or [])
    flat: dict[str, Step] = {}
    _steps(document.get("Steps"), "Steps", None, True, flat)
    files = {
        (step.name, _text(item, "PropertyFileName", f"{step.where}.PropertyFiles[{index}]"))
        for step in flat.values()
        for index, item in enumerate(_list(step.body, "PropertyFiles", step.where))
    }
    checked: dict[str, Step] = {}
    for step in flat.values():
        needs = _check_step(step, flat, parameters, files)
        checked[step.name] = Step(
            step.name, step.type, step.arguments, step.body, step.where, step.parent, step.branch, needs
        )
    _check_cycles(checked)
    config = document.get("PipelineDefinitionConfig") or {}
    if not isinstance(config, dict):
        raise DefinitionError("PipelineDefinitionConfig must be an object.")
    return Definition(parameters, checked, bool(config.get("UseCustomJobPrefix")))


def _parameters(items: Any) -> dict[str, Parameter]:
    if not isinstance(items, list):
        raise DefinitionError("Parameters must be an array.")
    result: dict[str, Parameter] = {}
    for index, item in enumerate(items):
        where = f"Parameters[{index}]"
        name, kind = _text(item, "Name", where), _text(item, "Type", where)
        if kind not in PARAMETER_TYPES:
            raise DefinitionError(f"{where}.Type must be one of {list(PARAMETER_TYPES)}, not {kind!r}.")
        if name in result:
            raise DefinitionError(f"{where}.Name {name!r} is declared twice.")
        default = item.get("DefaultValue")
        if default is not None and (
            not isinstance(default, PARAMETER_TYPES[kind])
            or (isinstance(default, bool) and kind != "Boolean")
        ):
            raise DefinitionError(f"{where}.DefaultValue {default!r} is not of type {kind}.")
        allowed = tuple(_list(item, "EnumValues", where))
        if default is not None and allowed and default not in allowed:
            raise DefinitionError(
                f"{where}.DefaultValue {default!r} is not one of its EnumValues {list(allowed)}."
            )
        result[name] = Parameter(name, kind, default, default is not None, allowed)
    return result


def _steps(items: Any, where: str, parent: str | None, branch: bool, flat: dict[str, Step]) -> None:
    if not isinstance(items, list):
        raise DefinitionError(f"{where} must be an array of steps.")
    if not items and parent is None:
        raise DefinitionError(f"{where} must not be empty.")
    for index, item in enumerate(items):
        here = f"{where}[{index}]"
        name, kind = _text(item, "Name", here), _text(item, "Type", here)
        if not _STEP_NAME.fullmatch(name):
            raise DefinitionError(f"{here}.Name {name!r} must match {_STEP_NAME.pattern}.")
        if name in flat:
            raise DefinitionError(f"{here}.Name {name!r} is used by {flat[name].where} as well.")
        if kind not in SUPPORTED_STEPS:
            raise DefinitionError(
                f"{here} ({name}) has the Type {kind!r}; the embedded AWS runs {', '.join(SUPPORTED_STEPS)}."
            )
        arguments = item.get("Arguments")
        if not isinstance(arguments, dict):
            raise DefinitionError(f"{here} ({name}) must have an object as Arguments.")
        flat[name] = Step(name, kind, arguments, item, here, parent, branch)
        if kind == "Condition":
            if not isinstance(arguments.get("Conditions"), list) or not arguments["Conditions"]:
                raise DefinitionError(f"{here}.Arguments.Conditions must be an array that is not empty.")
            for key, outcome in (("IfSteps", True), ("ElseSteps", False)):
                _steps(arguments.get(key) or [], f"{here}.Arguments.{key}", name, outcome, flat)
        elif kind == "Fail" and "ErrorMessage" not in arguments:
            raise DefinitionError(f"{here}.Arguments.ErrorMessage is missing.")


def _check_step(
    step: Step,
    flat: dict[str, Step],
    parameters: dict[str, Parameter],
    files: set[tuple[str, Any]],
) -> frozenset[str]:
    """Check references and return the names of the steps that this one needs."""
    needs: set[str] = set()
    for index, item in enumerate(_list(step.body, "DependsOn", step.where)):
        name = item.get("Name") if isinstance(item, dict) else item
        if not isinstance(name, str) or name not in flat:
            raise DefinitionError(f"{step.where}.DependsOn[{index}] names {name!r}, which is no step.")
        needs.add(name)
    arguments, where = step.arguments, f"{step.where}.Arguments"
    if step.type == "Condition":
        arguments, where = arguments["Conditions"], f"{where}.Conditions"
        for index, condition in enumerate(arguments):
            _check_condition(condition, f"{where}[{index}]")
    for place, reference in _references(arguments, where):
        needs |= _check_reference(reference, place, flat, parameters, files)
    for index, item in enumerate(_list(step.body, "PropertyFiles", step.where)):
        here = f"{step.where}.PropertyFiles[{index}]"
        for key in ("PropertyFileName", "OutputName", "FilePath"):
            _text(item, key, here)
    needs.discard("")
    if step.name in needs:
        raise DefinitionError(f"{step.where} ({step.name}) depends on itself.")
    return frozenset(needs | ({step.parent} if step.parent else set()))


def _references(value: Any, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        if set(value) == {"Get"}:
            yield where, value["Get"]
            return
        if set(value) == {"Std:Join"}:
            join = value["Std:Join"]
            if not isinstance(join, dict) or not isinstance(join.get("Values"), list):
                raise DefinitionError(f"{where}.Std:Join needs On (a string) and Values (an array).")
        if set(value) == {"Std:JsonGet"}:
            get = value["Std:JsonGet"]
            if not isinstance(get, dict) or "Path" not in get or not ({"PropertyFile", "S3Uri"} & set(get)):
                raise DefinitionError(f"{where}.Std:JsonGet needs Path and PropertyFile (or S3Uri).")
        unknown = [key for key in value if key.startswith("Std:") and key not in ("Std:Join", "Std:JsonGet")]
        if unknown:
            raise DefinitionError(f"{where} uses the unknown function {unknown[0]!r}.")
        for key, item in value.items():
            yield from _references(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _references(item, f"{where}[{index}]")


def _check_reference(
    reference: Any,
    where: str,
    flat: dict[str, Step],
    parameters: dict[str, Parameter],
    files: set[tuple[str, Any]],
) -> set[str]:
    match = _GET.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise DefinitionError(
            f"{where}.Get is {reference!r}; it must begin with Parameters., Execution. or Steps."
        )
    kind, rest = match[1], match[2]
    if kind == "Parameters" and rest not in parameters:
        raise DefinitionError(f"{where}.Get refers to the parameter {rest!r}, which is not declared.")
    if kind == "Execution" and rest not in EXECUTION_VARIABLES:
        raise DefinitionError(
            f"{where}.Get refers to Execution.{rest}; there are {', '.join(EXECUTION_VARIABLES)}."
        )
    if kind != "Steps":
        return set()
    name, _, path = rest.partition(".")
    if name not in flat:
        raise DefinitionError(f"{where}.Get refers to the step {name!r}, which does not exist.")
    if not path:
        raise DefinitionError(f"{where}.Get is {reference!r}: a property of the step is missing.")
    if path.startswith("PropertyFiles.") and (name, path.partition(".")[2]) not in files:
        raise DefinitionError(f"{where}.Get refers to {reference!r}, which no PropertyFiles declares.")
    return {name}


def _check_condition(condition: Any, where: str) -> None:
    kind = condition.get("Type") if isinstance(condition, dict) else None
    needed: tuple[str, ...]
    if kind in COMPARISONS:
        needed = ("LeftValue", "RightValue")
    elif kind == "In":
        needed = ("QueryValue", "Values")
    elif kind == "Not":
        needed = ("Expression",)
    elif kind in ("And", "Or"):
        needed = ("Conditions",)
    else:
        raise DefinitionError(
            f"{where}.Type is {kind!r}; it must be one of "
            f"{', '.join((*COMPARISONS, 'In', 'Not', 'And', 'Or'))}."
        )
    for key in needed:
        if key not in condition:
            raise DefinitionError(f"{where} ({kind}) must have {key}.")
    if kind == "Not":
        _check_condition(condition["Expression"], f"{where}.Expression")
    for index, item in enumerate(_list(condition, "Conditions", where)):
        _check_condition(item, f"{where}.Conditions[{index}]")


def _check_cycles(steps: dict[str, Step]) -> None:
    left = {name: set(step.needs) for name, step in steps.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & set(left)]
        if not free:
            raise DefinitionError(f"The steps {', '.join(sorted(left))} depend on each other in a circle.")
        for name in free:
            del left[name]


def _list(item: dict[str, Any], key: str, where: str) -> list[Any]:
    value = item.get(key)
    if value is not None and not isinstance(value, list):
        raise DefinitionError(f"{where}.{key} must be an array.")
    return value or []


def _text(item: Any, key: str, where: str) -> str:
    if not isinstance(item, dict):
        raise DefinitionError(f"{where} must be an object.")
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"{where}.{key} must be a string that is not empty.")
    return value
