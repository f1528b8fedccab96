"""Fit CloudFormation's property values to an API's input shape; anything the API does not know fails.

CloudFormation hands numbers and booleans over as strings where they came from a parameter; the API
wants them typed. Walking botocore's own model does that, and makes every nested property that the
API lacks an error instead of a silent loss.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape

from local.cloudformation.errors import ResourceError

_NUMBERS = {"integer": int, "long": int, "float": float, "double": float}
_JSON_TEXTS = {"AssumeRolePolicyDocument", "EventPattern", "Policy", "PolicyDocument", "ResourcePolicy"}
"""Members that are objects in a template and JSON text in the API."""


def fit(shape: Shape, value: Any, where: str) -> Any:
    """Return ``value`` typed as ``shape`` demands.

    Raises
    ------
    ResourceError
        For a member that the shape does not have, or a value that cannot take the type.
    """
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            raise ResourceError(f"{where} must be an object, not {_named(value)}")
        if getattr(shape, "is_document_type", False):
            return value
        unknown = sorted(set(value) - set(shape.members))
        if unknown:
            raise ResourceError(f"Encountered unsupported property {where}.{unknown[0]}")
        return {name: fit(shape.members[name], item, f"{where}.{name}") for name, item in value.items()}
    if isinstance(shape, ListShape):
        if not isinstance(value, list):
            raise ResourceError(f"{where} must be a list, not {_named(value)}")
        return [fit(shape.member, item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(shape, MapShape):
        if not isinstance(value, dict):
            raise ResourceError(f"{where} must be an object, not {_named(value)}")
        return {str(key): fit(shape.value, item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(shape, value, where)


def _scalar(shape: Shape, value: Any, where: str) -> Any:
    kind = shape.type_name
    if kind in _NUMBERS:
        try:
            return _NUMBERS[kind](value)
        except (TypeError, ValueError) as error:
            raise ResourceError(f"{where} must be a number, not {_named(value)}") from error
    if kind == "boolean":
        text = str(value).lower()
        if text not in ("true", "false"):
            raise ResourceError(f"{where} must be true or false, not {_named(value)}")
        return text == "true"
    if kind == "string":
        if isinstance(value, dict | list):
            if where.rpartition(".")[2] not in _JSON_TEXTS:
                raise ResourceError(f"{where} must be a string, not {_named(value)}")
            return json.dumps(value)
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def _named(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:80]!r}"
