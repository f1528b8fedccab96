"""What AWS's own models say of a request beyond its types: values, lengths, ranges and patterns.

SDKs send what breaks them; the service refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.model import Shape

from local.patterns import compiled


def violations(shape: Shape, value: Any, where: str = "") -> Iterator[str]:
    """Yield what the service would refuse of a request that has the right types."""
    kind: Any = shape
    if shape.type_name == "structure":
        for name, part in value.items():
            yield from violations(kind.members[name], part, f"{where}.{name}")
        return
    if shape.type_name == "list":
        for part in value:
            yield from violations(kind.member, part, f"{where}[]")
    elif shape.type_name == "map":
        for key, part in value.items():
            yield from violations(kind.key, key, f"{where} key")
            yield from violations(kind.value, part, f"{where}.{key}")
    elif shape.type_name == "string":
        if getattr(kind, "enum", None) and value not in kind.enum:
            yield f"{where} is {value!r}, which is none of {kind.enum}"
        pattern = shape.metadata.get("pattern")
        if pattern and not compiled(pattern).fullmatch(value):
            yield f"{where} is {value!r}, which does not match {pattern}"
    if shape.type_name in ("string", "list", "map", "integer", "long", "float", "double"):
        size = value if isinstance(value, int | float) else len(value)
        if not shape.metadata.get("min", size) <= size <= shape.metadata.get("max", size):
            limits = f"{shape.metadata.get('min', '')} to {shape.metadata.get('max', '')}"
            yield f"{where} is {str(value)[:80]!r}: not {limits}"
