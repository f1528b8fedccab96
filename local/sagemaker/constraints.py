"""The constraints of SageMaker's own model: what the service refuses before it looks at anything.

SDKs check types and required members only; lengths, patterns, ranges and enumerations are the
service's. Walking botocore's model finds all of them, in the words that the service uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

from local.patterns import compiled
from local.sagemaker.errors import ValidationError
from local.sagemaker.state import Params

_MODEL = botocore.session.get_session().get_service_model("sagemaker")
_LONGEST_MATCHED = 4096
"""Longer texts (whole definitions) have patterns that allow everything, at a high price."""

_LONGEST_LIST = 24
"""Of hundreds of instance types a few say enough."""
_SHORTENED = frozenset({"MaximumExecutionTimeoutInSeconds"})
"""Members whose minimum is no use here: AWS wants ten minutes where a whole update takes seconds."""


def check(operation: str, params: Params) -> None:
    """Refuse a request that breaks a constraint of the operation's model.

    Raises
    ------
    ValidationError
        Naming every member and its constraint.
    """
    found = list(violations(operation, params))
    if found:
        plural = "s" if len(found) > 1 else ""
        raise ValidationError(f"{len(found)} validation error{plural} detected: {'; '.join(found)}")


def violations(operation: str, params: Params) -> list[str]:
    """Return what is wrong with a request, one sentence for each member."""
    shape: Any = _MODEL.operation_model(operation).input_shape
    return [] if shape is None else list(_walk(shape, params, ""))


def _walk(shape: Shape, value: Any, where: str) -> Iterator[str]:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, member in shape.members.items():
            path = f"{where}.{name[:1].lower()}{name[1:]}".lstrip(".")
            if name in _SHORTENED:
                continue
            if value.get(name) is not None:
                yield from _walk(member, value[name], path)
            elif name in shape.required_members:
                yield f"Value null at '{path}' failed to satisfy constraint: Member must not be null"
    elif isinstance(shape, ListShape) and isinstance(value, list):
        yield from _broken(where, value, _size(shape, len(value)))
        for number, item in enumerate(value, 1):
            yield from _walk(shape.member, item, f"{where}.{number}.member")
    elif isinstance(shape, MapShape) and isinstance(value, dict):
        yield from _broken(where, value, _size(shape, len(value)))
        for kind, inner, items in (("key", shape.key, value), ("value", shape.value, value.values())):
            for rule in dict.fromkeys(rule for item in items for rule in _scalar(inner, item)):
                yield from _broken(where, value, [f"Map {kind} must satisfy constraint: [{rule}]"])
    else:
        yield from _broken(where, value, _scalar(shape, value))


def _broken(where: str, value: Any, rules: list[str]) -> Iterator[str]:
    shown = str(value) if len(str(value)) <= 256 else f"{str(value)[:253]}..."
    for rule in rules:
        yield f"Value '{shown}' at '{where}' failed to satisfy constraint: {rule}"


def _scalar(shape: Shape, value: Any) -> list[str]:
    if isinstance(value, str):
        return [*_size(shape, len(value)), *_text(shape, value)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _bounds(shape, value, "have value")
    return []


def _text(shape: Shape, value: str) -> list[str]:
    allowed = shape.metadata.get("enum")
    if allowed and value not in allowed:
        rest = [f"and {len(allowed) - _LONGEST_LIST} more"] if len(allowed) > _LONGEST_LIST else []
        shown = ", ".join([*allowed[:_LONGEST_LIST], *rest])
        return [f"Member must satisfy enum value set: [{shown}]"]
    pattern = shape.metadata.get("pattern")
    if pattern and len(value) <= _LONGEST_MATCHED and not compiled(pattern).fullmatch(value):
        return [f"Member must satisfy regular expression pattern: {pattern}"]
    return []


def _size(shape: Shape, size: int) -> list[str]:
    return _bounds(shape, size, "have length")


def _bounds(shape: Shape, value: float, what: str) -> list[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        return [f"Member must {what} greater than or equal to {least}"]
    if most is not None and value > most:
        return [f"Member must {what} less than or equal to {most}"]
    return []
