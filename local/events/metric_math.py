"""The part of CloudWatch's metric math that alarms need: arithmetic, comparisons, IF, FILL, ABS, MIN, MAX."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Values = Mapping[str, float | None]
_Node = Callable[[Values], float | None]


class InvalidExpressionError(ValueError):
    """A metric math expression that is wrong, or beyond what the embedded AWS computes."""


@dataclass(frozen=True)
class Expression:
    """A compiled expression.

    Attributes
    ----------
    names
        The metric ids that it uses.
    """

    text: str
    names: frozenset[str]
    _root: _Node

    def value(self, values: Values) -> float | None:
        """Return the value for one period; ``None`` when a metric it needs has no data then."""
        try:
            return self._root(values)
        except (ZeroDivisionError, OverflowError):
            # CloudWatch has no data point where the result is not a number.
            return None


_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def compile_expression(text: str) -> Expression:
    """Compile ``text``.

    Raises
    ------
    InvalidExpressionError
        With what was not understood.
    """
    source = text.replace("^", "**").replace("&&", " and ").replace("||", " or ")
    source = re.sub(r"\b(AND|OR)\b", lambda match: match[0].lower(), source).strip()
    try:
        tree = ast.parse(source, mode="eval")
    except SyntaxError as error:
        raise InvalidExpressionError(f"Error in expression '{text}': invalid syntax") from error
    names: set[str] = set()
    root = _compile(tree.body, text, names)
    return Expression(text, frozenset(names), root)


def _compile(node: ast.expr, text: str, names: set[str]) -> _Node:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        number = float(str(node.value))
        return lambda _: number
    if isinstance(node, ast.Name):
        name = node.id
        names.add(name)
        return lambda values: values[name]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _compile(node.operand, text, names)
        return _strict(lambda value: -value, inner)
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = _compile(node.left, text, names), _compile(node.right, text, names)
        return _strict(_BINARY[type(node.op)], left, right)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
        left, right = _compile(node.left, text, names), _compile(node.comparators[0], text, names)
        return _strict(_COMPARE[type(node.ops[0])], left, right)
    if isinstance(node, ast.BoolOp):
        parts = [_compile(value, text, names) for value in node.values]
        combine = all if isinstance(node.op, ast.And) else any
        return _strict(lambda *values: float(combine(values)), *parts)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _compile_call(node.func.id, node.args, text, names)
    raise InvalidExpressionError(
        f"Error in expression '{text}': the embedded AWS does not compute {ast.unparse(node)!r}; it knows "
        "+ - * / ^, comparisons, AND, OR, IF, FILL, ABS, MIN, MAX, SUM and AVG of a list"
    )


def _compile_call(name: str, arguments: list[ast.expr], text: str, names: set[str]) -> _Node:
    if name == "IF" and len(arguments) == 3:
        condition, yes, no = (_compile(argument, text, names) for argument in arguments)

        def choose(values: Values) -> float | None:
            chosen = condition(values)
            return None if chosen is None else (yes if chosen else no)(values)

        return choose
    if name == "FILL" and len(arguments) == 2:
        metric, default = (_compile(argument, text, names) for argument in arguments)

        def fill(values: Values) -> float | None:
            value = metric(values)
            return default(values) if value is None else value

        return fill
    if name == "ABS" and len(arguments) == 1:
        return _strict(abs, _compile(arguments[0], text, names))
    if (
        name in _OVER_LISTS
        and len(arguments) == 1
        and isinstance(arguments[0], ast.List)
        and arguments[0].elts
    ):
        parts = [_compile(argument, text, names) for argument in arguments[0].elts]
        combine = _OVER_LISTS[name]

        def over(values: Values) -> float | None:
            # Across several metrics CloudWatch leaves out those without data.
            present = [value for part in parts if (value := part(values)) is not None]
            return combine(present) if present else None

        return over
    raise InvalidExpressionError(
        f"Error in expression '{text}': the embedded AWS does not compute {name}() so used"
    )


_OVER_LISTS: dict[str, Callable[[list[float]], float]] = {
    "MIN": min,
    "MAX": max,
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
}


def _strict(function: Callable[..., float], *parts: _Node) -> _Node:
    def node(values: Values) -> float | None:
        arguments = [part(values) for part in parts]
        return None if any(argument is None for argument in arguments) else float(function(*arguments))

    return node
