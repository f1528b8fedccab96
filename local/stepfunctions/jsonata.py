"""JSONata as Step Functions evaluates it: compiled once, with its extra functions and strict results."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import random
import uuid
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from jsonata import Jsonata
from jsonata.jexception import JException
from jsonata.utils import Utils

from local.stepfunctions.errors import QUERY_EVALUATION, StateError

NULL = Utils.NULL_VALUE
_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_LONGEST_RANGE = 1000
_LONGEST_EVALUATION_MS = 5000


class _Undefined:
    """The result of an expression that selects nothing."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = _Undefined()


class UnsupportedResultError(Exception):
    """An expression returned something that JSON cannot hold, such as a function."""


def is_expression(text: object) -> bool:
    """Tell whether a value of a definition is a JSONata expression rather than a literal."""
    return isinstance(text, str) and text.startswith("{%") and text.endswith("%}") and len(text) >= 4


def source_of(text: str) -> str:
    """Return the JSONata inside ``{% … %}``."""
    return text[2:-2].strip()


def to_jsonata(value: Any) -> Any:
    """Copy a JSON value with nulls as JSONata's own null: its evaluator reads None as undefined."""
    if value is None:
        return NULL
    if isinstance(value, dict):
        return {key: to_jsonata(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_jsonata(item) for item in value]
    return value


def from_jsonata(value: Any) -> Any:
    """Copy a JSONata result into plain JSON: integral numbers are ints, sequences are lists.

    Raises
    ------
    UnsupportedResultError
        If the value is or holds a function.
    """
    if value is NULL or value is None:
        return None
    if isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, (float, Decimal)):
        number = float(value)
        if not math.isfinite(number):
            raise UnsupportedResultError(f"the number {number} has no JSON form")
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if isinstance(value, dict):
        return {str(key): from_jsonata(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [from_jsonata(item) for item in value]
    raise UnsupportedResultError("a function is not a JSON value")


def _partition(array: Any = None, size: Any = None) -> Any:
    items = array if isinstance(array, list) else [array]
    width = int(size or 0)
    if width < 1:
        raise ValueError(f"$partition needs a chunk size of at least 1, not {size}")
    return [items[start : start + width] for start in range(0, len(items), width)]


def _range(first: Any = None, last: Any = None, step: Any = None) -> Any:
    if not isinstance(step, (int, float)) or step == 0:
        raise ValueError(f"$range needs a step other than 0, not {step}")
    count = math.floor((last - first) / step) + 1
    if count > _LONGEST_RANGE:
        raise ValueError(f"$range may give at most {_LONGEST_RANGE} items, not {count}")
    return [first + index * step for index in range(max(count, 0))]


def _hash(content: Any = None, algorithm: Any = None) -> Any:
    if algorithm not in _HASHES:
        raise ValueError(f"$hash knows {', '.join(_HASHES)}, not {algorithm}")
    text = content if isinstance(content, str) else json.dumps(from_jsonata(content), separators=(",", ":"))
    return hashlib.new(_HASHES[algorithm], text.encode(), usedforsecurity=False).hexdigest()


def _random(seed: Any = None) -> float:
    return (random.Random(seed) if seed is not None else random).random()  # noqa: S311 - not for secrets


def _parse(text: Any = None) -> Any:
    return None if text is None else to_jsonata(json.loads(text))


def _no_eval(*_: Any) -> Any:
    raise ValueError("$eval is not supported in Step Functions; use $parse for JSON text")


_FUNCTIONS = {
    "partition": _partition,
    "range": _range,
    "hash": _hash,
    "random": _random,
    "uuid": lambda: str(uuid.uuid4()),
    "parse": _parse,
    "eval": _no_eval,
}


@functools.lru_cache(maxsize=4096)
def compile_expression(source: str) -> Any:
    """Parse an expression once for all executions.

    Raises
    ------
    JException
        If it is not JSONata.
    """
    compiled = Jsonata(source)
    compiled.set_validate_input(False)
    compiled.set_output_convert_nulls(False)
    for name, function in _FUNCTIONS.items():
        compiled.register_lambda(name, function)
    return compiled


def evaluate(source: str, bindings: Mapping[str, Any]) -> Any:
    """Evaluate an expression with variables that :func:`to_jsonata` made; ``UNDEFINED`` for no result."""
    compiled = compile_expression(source)
    # Native functions find their evaluator here; a cached expression must put itself back.
    Jsonata.CURRENT.jsonata = compiled
    # One expression must not stop all executions: they share a thread.
    compiled.environment.set_runtime_bounds(_LONGEST_EVALUATION_MS, None)
    result = compiled.evaluate(None, bindings)
    return UNDEFINED if result is None else from_jsonata(result)


def evaluate_field(text: str, bindings: Mapping[str, Any], field: str) -> Any:
    """Evaluate the ``{% … %}`` text of a state's field.

    Raises
    ------
    StateError
        ``States.QueryEvaluationError`` with a cause that names expression and field.
    """
    source = source_of(text)
    about = f"The JSONata expression '{source}' specified for the field '{field}'"
    try:
        result = evaluate(source, bindings)
    except UnsupportedResultError as error:
        cause = f"{about} returned an unsupported result type: {error}."
    except RecursionError:
        cause = f"{about} threw an error during evaluation. It recurses too deeply."
    except JException as error:
        cause = f"{about} threw an error during evaluation. {error.get_error()}: {error}"
    except Exception as error:
        cause = f"{about} threw an error during evaluation. {error}"
    else:
        if result is not UNDEFINED:
            return result
        cause = f"{about} returned nothing (undefined)."
    raise StateError(QUERY_EVALUATION, cause, location=field, interpreter=True)


def evaluate_template(value: Any, bindings: Mapping[str, Any], field: str) -> Any:
    """Evaluate every expression inside a JSON value; literals stay as they are."""
    if isinstance(value, str):
        return evaluate_field(value, bindings, field) if is_expression(value) else value
    if isinstance(value, dict):
        return {key: evaluate_template(item, bindings, f"{field}/{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [evaluate_template(item, bindings, f"{field}[{index}]") for index, item in enumerate(value)]
    return value
