"""The intrinsic functions of JSONPath states: ``States.Format`` and its kin."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import uuid
from collections.abc import Callable
from typing import Any

from local.stepfunctions.errors import INTRINSIC, StateError
from local.stepfunctions.paths import Scope, select

_NAME = re.compile(r"\s*States\.(\w+)\s*\(")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}
_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


class IntrinsicSyntaxError(ValueError):
    """The text is no call of an intrinsic function."""


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _format(template: str, *values: Any) -> str:
    pieces = re.split(r"(\\[{}\\']|\{\})", template)
    rest = list(values)
    if pieces.count("{}") != len(rest):
        raise ValueError(f"the template has {pieces.count('{}')} placeholders for {len(rest)} values")
    out = []
    for piece in pieces:
        if piece == "{}":
            value = rest.pop(0)
            out.append(value if isinstance(value, str) else _compact(value))
        else:
            out.append(piece[1:] if len(piece) == 2 and piece[0] == "\\" else piece)
    return "".join(out)


def _unique(array: list[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for item in array:
        seen.setdefault(_compact(item), item)
    return list(seen.values())


def _range(first: float, last: float, step: float) -> list[int]:
    start, stop, stride = round(first), round(last), round(step)
    if stride == 0:
        raise ValueError("the step is 0")
    numbers = list(range(start, stop + (1 if stride > 0 else -1), stride))
    if len(numbers) > 1000:
        raise ValueError(f"the range has {len(numbers)} items, more than 1000")
    return numbers


def _partition(array: list[Any], size: float) -> list[list[Any]]:
    width = round(size)
    if width < 1:
        raise ValueError(f"the chunk size {size} is not positive")
    return [array[start : start + width] for start in range(0, len(array), width)]


def _merge(first: dict[str, Any], second: dict[str, Any], deep: bool) -> dict[str, Any]:
    if deep is not False:
        raise ValueError("only a shallow merge (false) is supported")
    return {**first, **second}


def _random(start: float, end: float, seed: Any = None) -> int:
    source = random.Random(seed) if seed is not None else random  # noqa: S311 - not for secrets
    return source.randrange(round(start), round(end))


def _split(text: str, separators: str) -> list[str]:
    return [part for part in re.split("[" + re.escape(separators) + "]", text) if part]


def _item(array: list[Any], index: int) -> Any:
    if not 0 <= index < len(array):
        raise ValueError(f"the index {index} is outside the array of {len(array)} items")
    return array[index]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Array": lambda *values: list(values),
    "ArrayPartition": _partition,
    "ArrayContains": lambda array, value: value in array,
    "ArrayRange": _range,
    "ArrayGetItem": _item,
    "ArrayLength": lambda array: len(array),
    "ArrayUnique": _unique,
    "Base64Encode": lambda text: base64.b64encode(text.encode()).decode(),
    "Base64Decode": lambda text: base64.b64decode(text).decode(),
    "Hash": lambda data, algorithm: hashlib.new(
        _HASHES[algorithm],
        (data if isinstance(data, str) else _compact(data)).encode(),
        usedforsecurity=False,
    ).hexdigest(),
    "JsonMerge": _merge,
    "StringToJson": json.loads,
    "JsonToString": _compact,
    "MathRandom": _random,
    "MathAdd": lambda first, second: round(first) + round(second),
    "StringSplit": _split,
    "UUID": lambda: str(uuid.uuid4()),
    "Format": _format,
}


class _Reader:
    """A recursive descent reader of one call; without a scope it only checks the syntax."""

    def __init__(self, text: str, scope: Scope | None) -> None:
        self.text = text
        self.scope = scope
        self.at = 0

    def read(self) -> Any:
        value = self._call()
        if self.text[self.at :].strip():
            raise self._wrong("nothing more")
        return value

    def _wrong(self, wanted: str) -> IntrinsicSyntaxError:
        return IntrinsicSyntaxError(f"expected {wanted} at position {self.at} of {self.text!r}")

    def _blank(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _call(self) -> Any:
        match = _NAME.match(self.text, self.at)
        if match is None or match[1] not in FUNCTIONS:
            raise self._wrong("an intrinsic function")
        self.at = match.end()
        values: list[Any] = []
        if self._blank() == ")":
            self.at += 1
        else:
            while True:
                values.append(self._argument())
                mark = self._blank()
                self.at += 1
                if mark == ")":
                    break
                if mark != ",":
                    raise self._wrong("',' or ')'")
        return FUNCTIONS[match[1]](*values) if self.scope is not None else None

    def _argument(self) -> Any:
        mark = self._blank()
        if mark == "'":
            return self._string()
        if mark == "$":
            return self._path()
        if _NAME.match(self.text, self.at):
            return self._call()
        if number := _NUMBER.match(self.text, self.at):
            self.at = number.end()
            return json.loads(number[0])
        for word, value in _WORDS.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return value
        raise self._wrong("an argument")

    def _string(self) -> str:
        out: list[str] = []
        self.at += 1
        while self.at < len(self.text):
            mark = self.text[self.at]
            if mark == "'":
                self.at += 1
                return "".join(out)
            if mark == "\\" and self.at + 1 < len(self.text):
                following = self.text[self.at + 1]
                # Format reads its own escapes of braces later.
                out.append(mark + following if following in "{}" else following)
                self.at += 2
                continue
            out.append(mark)
            self.at += 1
        raise self._wrong("a closing quote")

    def _path(self) -> Any:
        start, depth, quote = self.at, 0, ""
        while self.at < len(self.text):
            mark = self.text[self.at]
            if quote:
                quote = "" if mark == quote else quote
            elif mark in "'\"":
                quote = mark
            elif mark in "[(":
                depth += 1
            elif mark in "])":
                if depth == 0:
                    break
                depth -= 1
            elif mark == "," and depth == 0:
                break
            self.at += 1
        path = self.text[start : self.at].strip()
        return select(path, self.scope, path) if self.scope is not None else None


def check_text(text: str) -> None:
    """Raise :class:`IntrinsicSyntaxError` unless the text is a call of known functions."""
    _Reader(text, None).read()


def call_text(text: str, scope: Scope) -> Any:
    """Evaluate a call such as ``States.Format('{}', $.name)``."""
    try:
        return _Reader(text, scope).read()
    except StateError:
        raise
    except Exception as error:
        raise StateError(
            INTRINSIC, f"The intrinsic function '{text}' failed: {error}", interpreter=True
        ) from error
