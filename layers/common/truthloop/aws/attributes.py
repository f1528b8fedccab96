"""DynamoDB's attribute values from and to plain Python; numbers come back as int or float."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_attribute(value: Any) -> dict[str, Any]:
    """Return the attribute value of text, a number, a boolean, None, a list or a map.

    Raises
    ------
    TypeError
        For anything else: a record's shape is decided by the code that writes it.
    """
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    if isinstance(value, Mapping):
        return {"M": {str(key): to_attribute(part) for key, part in value.items()}}
    if isinstance(value, list | tuple):
        return {"L": [to_attribute(part) for part in value]}
    raise TypeError(f"{type(value).__name__} cannot be stored in the loop table")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """Read what `to_attribute` made.

    Raises
    ------
    TypeError
        For an attribute type that this table does not hold.
    """
    ((kind, value),) = attribute.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "NULL":
            return None
        case "N":
            return int(value) if value.lstrip("-").isdigit() else float(value)
        case "M":
            return {key: from_attribute(part) for key, part in value.items()}
        case "L":
            return [from_attribute(part) for part in value]
    raise TypeError(f"the loop table holds no attributes of type {kind}")


def to_item(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole item."""
    return {key: to_attribute(part) for key, part in value.items()}


def from_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Read a whole item."""
    return {key: from_attribute(part) for key, part in item.items()}
