"""Values of a running pipeline: Get, Std:Join, Std:JsonGet and conditions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from local.sagemaker.errors import JobError

_TOKEN = re.compile(r"\[\s*(?:'([^']*)'|\"([^\"]*)\"|(-?\d+))\s*\]|\.?([^.\[\]]+)")
_NAMING_MEMBERS = ("OutputName", "InputName", "ChannelName", "MetricName", "Name")


class EvaluationError(JobError):
    """An expression of a step has no value; the message names it."""


class Scope:
    """Everything that expressions of one execution can refer to.

    Parameters
    ----------
    parameters
        Values by parameter name.
    execution
        Values of ``Execution.*``; callables are called at each use.
    properties
        Descriptions of the steps that ran, by step name.
    property_files
        (step, property file) to the S3 URI of the file.
    read
        Returns the bytes behind an S3 URI, or None.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        execution: Mapping[str, Any],
        properties: Mapping[str, Any],
        property_files: Mapping[tuple[str, str], str],
        read: Callable[[str], bytes | None],
    ) -> None:
        self._parameters = parameters
        self._execution = execution
        self._properties = properties
        self._property_files = property_files
        self._read = read

    def value(self, expression: Any) -> Any:
        """Return what an argument stands for.

        Raises
        ------
        EvaluationError
            A reference leads nowhere.
        """
        if isinstance(expression, list):
            return [self.value(item) for item in expression]
        if not isinstance(expression, dict):
            return expression
        keys = set(expression)
        if keys == {"Get"}:
            return self._get(expression["Get"])
        if keys == {"Std:Join"}:
            join = expression["Std:Join"]
            return str(join.get("On", "")).join(_text(self.value(item)) for item in join["Values"])
        if keys == {"Std:JsonGet"}:
            return self._json_get(expression["Std:JsonGet"])
        return {key: self.value(item) for key, item in expression.items()}

    def holds(self, condition: dict[str, Any]) -> bool:
        """Return whether a condition is true.

        Raises
        ------
        EvaluationError
            Its values cannot be compared, or a reference leads nowhere.
        """
        kind = condition["Type"]
        if kind == "Not":
            return not self.holds(condition["Expression"])
        if kind == "And":
            return all(self.holds(item) for item in condition["Conditions"])
        if kind == "Or":
            return any(self.holds(item) for item in condition["Conditions"])
        if kind == "In":
            return self.value(condition["QueryValue"]) in self.value(condition["Values"])
        left, right = self.value(condition["LeftValue"]), self.value(condition["RightValue"])
        if kind == "Equals":
            return bool(left == right)
        try:
            return bool(
                {
                    "GreaterThan": lambda: left > right,
                    "GreaterThanOrEqualTo": lambda: left >= right,
                    "LessThan": lambda: left < right,
                    "LessThanOrEqualTo": lambda: left <= right,
                }[kind]()
            )
        except TypeError as error:
            raise EvaluationError(
                f"ClientError: the condition {kind} cannot compare {left!r} with {right!r}."
            ) from error

    def _get(self, reference: str) -> Any:
        kind, _, rest = reference.partition(".")
        if kind == "Parameters":
            return self._parameters[rest]
        if kind == "Execution":
            value = self._execution[rest]
            return value() if callable(value) else value
        name, _, path = rest.partition(".")
        if name not in self._properties:
            raise EvaluationError(f"ClientError: {reference!r}: the step {name} has not run.")
        return dig(self._properties[name], path, reference)

    def _json_get(self, get: dict[str, Any]) -> Any:
        if "S3Uri" in get:
            uri = str(self.value(get["S3Uri"]))
        else:
            file = get["PropertyFile"]
            reference = (
                file["Get"] if isinstance(file, dict) else f"Steps.{get.get('Step')}.PropertyFiles.{file}"
            )
            _, step, _, name = reference.split(".", 3)
            if (step, name) not in self._property_files:
                raise EvaluationError(f"ClientError: the property file {reference!r} is not there yet.")
            uri = self._property_files[(step, name)]
        body = self._read(uri)
        if body is None:
            raise EvaluationError(f"ClientError: Failed to read the property file {uri}: it does not exist.")
        try:
            document = json.loads(body)
        except ValueError as error:
            raise EvaluationError(
                f"ClientError: the property file {uri} is not valid JSON: {error}"
            ) from error
        return dig(document, str(self.value(get["Path"])), f"{get['Path']} of {uri}")


def dig(value: Any, path: str, what: str) -> Any:
    """Follow a path such as ``Outputs['train'].S3Output.S3Uri`` or ``a.b[0].c``.

    A name in brackets selects from a list the element that carries it as OutputName, InputName,
    ChannelName or MetricName, as the property maps of SageMaker Pipelines do.

    Raises
    ------
    EvaluationError
        The path leads nowhere; ``what`` is named in the message.
    """
    for match in _TOKEN.finditer(path.removeprefix("$").removeprefix(".")):
        key = next(group for group in match.groups() if group is not None)
        if isinstance(value, list):
            found = [item for item in value if isinstance(item, dict) and key in _names(item)]
            if found:
                value = found[0]
                continue
            if match[3] is not None or key.lstrip("-").isdigit():
                index = int(key)
                if -len(value) <= index < len(value):
                    value = value[index]
                    continue
        elif isinstance(value, dict) and key in value:
            value = value[key]
            continue
        raise EvaluationError(f"ClientError: {what}: there is no {key!r} on the path {path!r}.")
    return value


def _names(item: dict[str, Any]) -> list[Any]:
    return [item[member] for member in _NAMING_MEMBERS if member in item]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value)
