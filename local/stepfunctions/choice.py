"""The comparisons of JSONPath Choice rules."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from local.stepfunctions.errors import runtime_error
from local.stepfunctions.paths import PathNotFoundError, Scope, find
from local.stepfunctions.waiting import parse_timestamp

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "Equals": operator.eq,
    "LessThan": operator.lt,
    "GreaterThan": operator.gt,
    "LessThanEquals": operator.le,
    "GreaterThanEquals": operator.ge,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_READERS: dict[str, Callable[[Any], Any]] = {
    "String": lambda value: value if isinstance(value, str) else None,
    "Numeric": lambda value: value if _is_number(value) else None,
    "Boolean": lambda value: value if isinstance(value, bool) else None,
    "Timestamp": parse_timestamp,
}
_TESTS: dict[str, Callable[[Any], bool]] = {
    "IsNull": lambda value: value is None,
    "IsString": lambda value: isinstance(value, str),
    "IsNumeric": _is_number,
    "IsBoolean": lambda value: isinstance(value, bool),
    "IsTimestamp": lambda value: parse_timestamp(value) is not None,
}
_COMPARISON = re.compile(
    r"(String|Numeric|Timestamp)(Equals|LessThan|GreaterThan|LessThanEquals|GreaterThanEquals)(Path)?"
    r"|(Boolean)(Equals)(Path)?"
)


def is_operator(name: str) -> bool:
    """Tell whether a field of a rule is a comparison."""
    return name in _TESTS or name in ("IsPresent", "StringMatches") or bool(_COMPARISON.fullmatch(name))


def takes(name: str, wanted: Any) -> bool:
    """Tell whether a value has the type that a comparison needs."""
    if name in _TESTS or name == "IsPresent":
        return isinstance(wanted, bool)
    match = _COMPARISON.fullmatch(name)
    kind = (match[1] or match[4]) if match else "String"
    return _READERS[kind](wanted) is not None


def string_matches(pattern: str, text: str) -> bool:
    r"""Tell whether a text matches a pattern whose ``*`` is any run of characters and ``\*`` a star."""
    pieces = re.split(r"(\\.|\*)", pattern)
    expression = "".join(
        ".*" if piece == "*" else re.escape(piece[1:] if piece[:1] == "\\" and len(piece) == 2 else piece)
        for piece in pieces
    )
    return re.fullmatch(expression, text, re.DOTALL) is not None


def holds(rule: Mapping[str, Any], scope: Scope) -> bool:
    """Evaluate a rule.

    Raises
    ------
    StateError
        ``States.Runtime`` if its Variable is missing, except for IsPresent.
    """
    if "And" in rule:
        return all(holds(inner, scope) for inner in rule["And"])
    if "Or" in rule:
        return any(holds(inner, scope) for inner in rule["Or"])
    if "Not" in rule:
        return not holds(rule["Not"], scope)
    name = next(key for key in rule if is_operator(key))
    wanted = rule[name]
    try:
        value = find(rule["Variable"], scope)
    except PathNotFoundError:
        if name == "IsPresent":
            return not wanted
        raise runtime_error(
            f"Invalid path '{rule['Variable']}': The choice state's condition path references "
            "an invalid value."
        ) from None
    if name == "IsPresent":
        return bool(wanted)
    if name in _TESTS:
        return bool(_TESTS[name](value) == wanted)
    if name == "StringMatches":
        return isinstance(value, str) and string_matches(wanted, value)
    match = _COMPARISON.fullmatch(name)
    assert match is not None  # noqa: S101 - the definition was validated
    kind, relation, is_path = (part for part in match.groups()[:3]) if match[1] else match.groups()[3:]
    if is_path:
        try:
            wanted = find(wanted, scope)
        except PathNotFoundError:
            raise runtime_error(f"The path '{wanted}' of {name} could not be found in the input") from None
    left, right = _READERS[kind](value), _READERS[kind](wanted)
    return left is not None and right is not None and _ORDER[relation](left, right)
