"""Event patterns as EventBridge understands them: pure functions that check a pattern and match events.

The rules follow the documentation of EventBridge and the behaviour of its open-source matcher
(github.com/aws/event-ruler): an event is seen as the set of its leaf values, an array matches when any
of its elements does, and conditions below one array must hold for one and the same element.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeGuard

NUMBER_LIMIT = 5e9
"""Numbers in ``numeric`` conditions lie between -5e9 and 5e9."""

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
    "=": lambda value, bound: value == bound,
    ">=": lambda value, bound: value >= bound,
    ">": lambda value, bound: value > bound,
}
_RESERVED_IN_OR = {
    "exactly", "prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "cidr",
    "exists", "anything-but-prefix", "anything-but-suffix", "anything-but-equals-ignore-case",
    "anything-but-wildcard",
}  # fmt: skip


class InvalidPatternError(ValueError):
    """The event pattern breaks the grammar; the message is the reason that AWS gives."""


def parse(text: str) -> dict[str, Any]:
    """Decode and validate a pattern given as JSON.

    Raises
    ------
    InvalidPatternError
        When the text is no JSON or no valid pattern.
    """
    try:
        pattern = json.loads(text)
    except ValueError as error:
        raise InvalidPatternError("Invalid JSON") from error
    validate(pattern)
    return dict(pattern)


def validate(pattern: Any) -> None:
    """Check that ``pattern`` (decoded JSON) is a valid event pattern.

    Raises
    ------
    InvalidPatternError
        With the reason.
    """
    if not isinstance(pattern, dict):
        raise InvalidPatternError("Filter is not an object")
    _validate_object(pattern, inside_or=False)


def matches(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    """Return whether ``event`` satisfies the valid ``pattern``."""
    return _match_object(pattern, event, event, ())


# -- grammar ---------------------------------------------------------------------------------------


def _validate_object(pattern: dict[str, Any], *, inside_or: bool) -> None:
    if not pattern:
        raise InvalidPatternError("Empty objects are not allowed")
    for key, value in pattern.items():
        if key == "$or":
            _validate_or(value)
        elif inside_or and key in _RESERVED_IN_OR:
            raise InvalidPatternError(f"{key} is Ruler reserved fieldName which cannot be used inside $or.")
        elif isinstance(value, dict):
            _validate_object(value, inside_or=inside_or)
        elif isinstance(value, list):
            if not value:
                raise InvalidPatternError("Empty arrays are not allowed")
            for condition in value:
                _validate_condition(condition)
        else:
            raise InvalidPatternError(f'"{key}" must be an object or an array')


def _validate_or(branches: Any) -> None:
    if not isinstance(branches, list):
        raise InvalidPatternError("It must be an Array followed with $or.")
    for branch in branches:
        if not isinstance(branch, dict):
            raise InvalidPatternError("Only JSON object is allowed in array of $or relationship.")
        _validate_object(branch, inside_or=True)
    if len(branches) < 2:
        raise InvalidPatternError("There must have at least 2 Objects in $or relationship.")


def _validate_condition(condition: Any) -> None:
    if isinstance(condition, list):
        raise InvalidPatternError("Match value must be String, number, true, false, or null")
    if not isinstance(condition, dict):
        return
    if not condition:
        raise InvalidPatternError("Match expression name not found")
    if len(condition) > 1:
        raise InvalidPatternError("Only one key allowed in match expression")
    name, argument = next(iter(condition.items()))
    check = _CHECKS.get(name)
    if check is None:
        raise InvalidPatternError(f"Unrecognized match type {name}")
    check(name, argument)


def _check_affix(name: str, argument: Any) -> None:
    if isinstance(argument, dict):
        if list(argument) != ["equals-ignore-case"] or not isinstance(argument["equals-ignore-case"], str):
            raise InvalidPatternError(
                f"{name} match pattern must be a string or an equals-ignore-case object"
            )
    elif not isinstance(argument, str):
        raise InvalidPatternError(f"{name} match pattern must be a string")


def _check_string(name: str, argument: Any) -> None:
    if not isinstance(argument, str):
        raise InvalidPatternError(f"{name} match pattern must be a string")


def _check_wildcard(name: str, argument: Any) -> None:
    _check_string(name, argument)
    _wildcard(argument)


def _check_exists(name: str, argument: Any) -> None:
    if not isinstance(argument, bool):
        raise InvalidPatternError("exists match pattern must be either true or false.")


def _check_cidr(name: str, argument: Any) -> None:
    if not isinstance(argument, str):
        raise InvalidPatternError("prefix match pattern must be a string")
    if argument.count("/") != 1:
        raise InvalidPatternError("Malformed CIDR, one '/' required")
    try:
        ipaddress.ip_network(argument, strict=False)
    except ValueError as error:
        raise InvalidPatternError(f"Malformed CIDR, {error}") from error


def _check_numeric(name: str, argument: Any) -> None:
    if not isinstance(argument, list):
        raise InvalidPatternError("Value of numeric must be an array.")
    if not argument:
        raise InvalidPatternError("Invalid member in numeric match: ]")
    operator = argument[0]
    if not isinstance(operator, str):
        raise InvalidPatternError(f"Invalid member in numeric match: {operator}")
    if operator not in _OPERATORS:
        raise InvalidPatternError(f"Unrecognized numeric range operator: {operator}")
    bottom = _bound(argument, 1, operator)
    if len(argument) == 2:
        return
    if operator not in (">", ">="):
        raise InvalidPatternError("Too many elements in numeric expression")
    second = argument[2]
    if second not in ("<", "<="):
        raise InvalidPatternError(f"Bad numeric range operator: {second}")
    top = _bound(argument, 3, second)
    if len(argument) > 4:
        raise InvalidPatternError("Too many terms in numeric range expression")
    if bottom >= top:
        raise InvalidPatternError("Bottom must be less than top")


def _bound(argument: list[Any], index: int, operator: str) -> float:
    value = argument[index] if len(argument) > index else None
    if not _is_number(value):
        raise InvalidPatternError(f"Value of {operator} must be numeric")
    if abs(value) > NUMBER_LIMIT:
        raise InvalidPatternError(
            f"Value must be between {-NUMBER_LIMIT:.0f} and {NUMBER_LIMIT:.0f}, inclusive"
        )
    return float(value)


def _check_anything_but(name: str, argument: Any) -> None:
    if isinstance(argument, dict):
        if len(argument) != 1:
            raise InvalidPatternError("Only one key allowed in match expression")
        inner, value = next(iter(argument.items()))
        if inner not in ("prefix", "suffix", "equals-ignore-case", "wildcard"):
            raise InvalidPatternError(f"Unsupported anything-but pattern: {inner}")
        for item in _non_empty(value):
            if not isinstance(item, str):
                raise InvalidPatternError(f"Inside anything-but/{inner} list, values must be strings")
            if not item and inner != "equals-ignore-case":
                raise InvalidPatternError("Null prefix/suffix not allowed")
            if inner == "wildcard":
                _wildcard(item)
        return
    values = _non_empty(argument)
    if not (all(isinstance(item, str) for item in values) or all(_is_number(item) for item in values)):
        raise InvalidPatternError(
            "Inside anything but list, either all values are number or string, mixed type is not supported"
        )


def _non_empty(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InvalidPatternError("Empty arrays are not allowed")
    return values


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "exactly": _check_string,
    "prefix": _check_affix,
    "suffix": _check_affix,
    "equals-ignore-case": _check_string,
    "wildcard": _check_wildcard,
    "exists": _check_exists,
    "cidr": _check_cidr,
    "numeric": _check_numeric,
    "anything-but": _check_anything_but,
}


@lru_cache(maxsize=1024)
def _wildcard(pattern: str) -> re.Pattern[str]:
    r"""Translate a wildcard: ``*`` is any run of characters, ``\*`` and ``\\`` stand for themselves."""
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        if character == "\\":
            following = pattern[index + 1 : index + 2]
            if following not in ("*", "\\"):
                raise InvalidPatternError(f"Invalid escape character at pos {index}")
            parts.append(re.escape(following))
            index += 2
            continue
        if character == "*":
            if pattern[index + 1 : index + 2] == "*":
                raise InvalidPatternError(f"Consecutive wildcard characters at pos {index}")
            parts.append(".*")
        else:
            parts.append(re.escape(character))
        index += 1
    return re.compile("".join(parts), re.DOTALL)


# -- matching --------------------------------------------------------------------------------------

_Path = tuple[str, ...]


def _match_object(pattern: dict[str, Any], node: Any, event: Any, path: _Path) -> bool:
    """Match one pattern object against a node; an array is any of its elements."""
    if isinstance(node, list):
        return any(_match_object(pattern, item, event, path) for item in node) or (
            not node and _match_object(pattern, {}, event, path)
        )
    fields = node if isinstance(node, dict) else {}
    for key, wanted in pattern.items():
        if key == "$or":
            if not any(_match_object(branch, node, event, path) for branch in wanted):
                return False
        elif isinstance(wanted, dict):
            if not _match_object(wanted, fields.get(key, {}), event, (*path, key)):
                return False
        elif not _match_field(wanted, fields.get(key, _ABSENT), event, (*path, key)):
            return False
    return True


_ABSENT: Any = object()


def _match_field(conditions: list[Any], value: Any, event: Any, path: _Path) -> bool:
    leaves = list(_leaves(value))
    for condition in conditions:
        if isinstance(condition, dict) and "exists" in condition:
            # "exists": false asks about the whole event, not about this element of an array.
            present = bool(leaves) if condition["exists"] else _present(event, path)
            if present is condition["exists"]:
                return True
        elif any(_match_leaf(condition, leaf) for leaf in leaves):
            return True
    return False


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not _ABSENT and not isinstance(value, dict):
        yield value


def _present(node: Any, path: _Path) -> bool:
    if isinstance(node, list):
        return any(_present(item, path) for item in node)
    if not path:
        return not isinstance(node, dict)
    return isinstance(node, dict) and path[0] in node and _present(node[path[0]], path[1:])


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _equal(wanted: Any, leaf: Any) -> bool:
    if isinstance(wanted, str) and isinstance(leaf, str):
        return wanted == leaf or _same_address(wanted, leaf)
    if _is_number(wanted) and _is_number(leaf):
        return bool(wanted == leaf)
    return type(wanted) is type(leaf) and bool(wanted == leaf)


def _same_address(wanted: str, leaf: str) -> bool:
    # Two spellings of one IPv6 address are one value to EventBridge; IPv4 has a single spelling.
    if ":" not in wanted or ":" not in leaf:
        return False
    try:
        return ipaddress.ip_address(wanted) == ipaddress.ip_address(leaf)
    except ValueError:
        return False


def _match_leaf(condition: Any, leaf: Any) -> bool:
    if not isinstance(condition, dict):
        return _equal(condition, leaf)
    name, argument = next(iter(condition.items()))
    if name == "anything-but":
        return _anything_but(argument, leaf)
    if name == "numeric":
        return _is_number(leaf) and all(
            _OPERATORS[operator](leaf, bound)
            for operator, bound in zip(argument[::2], argument[1::2], strict=True)
        )
    return isinstance(leaf, str) and _match_string(name, argument, leaf)


def _match_string(name: str, argument: Any, leaf: str) -> bool:
    if isinstance(argument, dict):
        argument, leaf = argument["equals-ignore-case"].lower(), leaf.lower()
    if name == "exactly":
        return bool(leaf == argument)
    if name == "prefix":
        return leaf.startswith(argument)
    if name == "suffix":
        return leaf.endswith(argument)
    if name == "equals-ignore-case":
        return bool(leaf.lower() == argument.lower())
    if name == "wildcard":
        return _wildcard(argument).fullmatch(leaf) is not None
    try:
        return ipaddress.ip_address(leaf) in ipaddress.ip_network(argument, strict=False)
    except ValueError:
        return False


def _anything_but(argument: Any, leaf: Any) -> bool:
    if isinstance(argument, dict):
        name, unwanted = next(iter(argument.items()))
        values = unwanted if isinstance(unwanted, list) else [unwanted]
        return not (isinstance(leaf, str) and any(_match_string(name, value, leaf) for value in values))
    values = argument if isinstance(argument, list) else [argument]
    return not any(_equal(value, leaf) for value in values)
