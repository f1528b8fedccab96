"""JSONPath as Step Functions reads it: paths and reference paths."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonpath_ng.ext import parse

from local.stepfunctions.errors import PARAMETER_PATH, RESULT_PATH, RUNTIME, StateError, runtime_error

_STEP = re.compile(r"""\.([\w\-]+)|\.?\[(-?\d+)\]|\.?\['((?:[^'\\]|\\.)*)'\]|\.?\["((?:[^"\\]|\\.)*)"\]""")
_VARIABLE = re.compile(r"\$([A-Za-z_]\w*)")
_LENGTH = ".length()"

Step = str | int


class PathNotFoundError(Exception):
    """A path selected nothing in its data."""


@dataclass(frozen=True)
class Scope:
    """What a path can see: the data that ``$`` names, the context object, the variables."""

    data: Any
    context: Mapping[str, Any]
    variables: Mapping[str, Any]


@functools.lru_cache(maxsize=4096)
def reference_steps(path: str) -> tuple[Step, ...] | None:
    """Return the steps of a path that names at most one node, None for any other path."""
    if not path.startswith("$"):
        return None
    steps: list[Step] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            return None
        name, index, single, double = match.groups()
        if index is not None:
            steps.append(int(index))
        else:
            steps.append(name if name is not None else re.sub(r"\\(.)", r"\1", single or double or ""))
        position = match.end()
    return tuple(steps)


@functools.lru_cache(maxsize=4096)
def _compiled(path: str) -> Any:
    # AWS's reader takes "$.[…]" for "$[…]".
    return parse(re.sub(r"(?<!\.)\.\[", "[", path).replace("&&", "&"))


def check_path(path: str) -> None:
    """Raise ValueError unless the text is a path that can be evaluated."""
    bare = path[1:] if path.startswith("$$") else _VARIABLE.sub("$", path, count=1)
    if not bare.startswith("$"):
        raise ValueError("a path starts with '$'")
    bare = bare.removesuffix(_LENGTH)
    if reference_steps(bare) is None:
        try:
            _compiled(bare)
        except Exception as error:
            raise ValueError(str(error)) from error


def _walk(steps: tuple[Step, ...], data: Any) -> Any:
    for step in steps:
        if isinstance(step, int):
            if not isinstance(data, list) or not -len(data) <= step < len(data):
                raise PathNotFoundError
            data = data[step]
        else:
            if not isinstance(data, dict) or step not in data:
                raise PathNotFoundError
            data = data[step]
    return data


def _find(path: str, data: Any) -> Any:
    if path.endswith(_LENGTH):
        return len(_find(path.removesuffix(_LENGTH), data))
    steps = reference_steps(path)
    if steps is not None:
        return _walk(steps, data)
    return [match.value for match in _compiled(path).find(data)]


def find(path: str, scope: Scope) -> Any:
    """Select what a path names; values are shared and never changed in place.

    Raises
    ------
    PathNotFoundError
        If it names nothing. A path with wildcards, slices or filters selects a list, perhaps an empty one.
    """
    if path.startswith("$$"):
        data, path = scope.context, path[1:]
    elif (variable := _VARIABLE.match(path)) is not None:
        if variable[1] not in scope.variables:
            raise PathNotFoundError
        data, path = scope.variables[variable[1]], "$" + path[variable.end() :]
    else:
        data = scope.data
    return _find(path, data)


def select(path: str, scope: Scope, field: str) -> Any:
    """Select what a path of a state's field names, or fail the state."""
    try:
        return find(path, scope)
    except PathNotFoundError:
        shown = json.dumps(scope.data, default=str)
        about = f"The JSONPath '{path}' specified for the field '{field}'"
        cause = f"{about} could not be found in the input '{shown}'"
        # AWS documents ParameterPathFailure for templates and reports Runtime: both names catch it.
        aliases = (PARAMETER_PATH,) if field.endswith(".$") else ()
        raise StateError(RUNTIME, cause, aliases=aliases, interpreter=True) from None


def place(path: str, raw: Any, value: Any) -> Any:
    """Put a result into the raw input at a reference path and return the combination."""
    steps = reference_steps(path)
    if steps is None:
        raise runtime_error(f"The ResultPath '{path}' is not a reference path")
    if not steps:
        return value
    mismatch = StateError(
        RESULT_PATH,
        f"Unable to apply ReferencePath {path} to input {json.dumps(raw, default=str)}",
        interpreter=True,
    )
    root = copy.deepcopy(raw)
    node = root
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if isinstance(step, int):
            if not isinstance(node, list) or not 0 <= step < len(node):
                raise mismatch
            if last:
                node[step] = value
            node = node[step]
        else:
            if not isinstance(node, dict):
                raise mismatch
            if last:
                node[step] = value
            node = node.setdefault(step, {})
    return root
