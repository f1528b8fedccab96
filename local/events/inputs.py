"""What a target receives: the event, a constant, one part of the event, or a template filled from it.

Follows EventBridge's rules for ``Input``, ``InputPath`` and ``InputTransformer``: pure functions.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z0-9_\-:@/ $]+)"""
    r"""|\[(?P<index>\d+)\]|\['(?P<single>[^']*)'\]|\["(?P<double>[^"]*)"\]"""
)
_VARIABLE = re.compile(r"<\s*([A-Za-z0-9_.\-]+)\s*>")
_ABSENT: Any = object()


class InvalidPathError(ValueError):
    """A JSON path is none that EventBridge accepts."""


@dataclass(frozen=True)
class Predefined:
    """What the variables ``<aws.events.*>`` stand for."""

    rule_arn: str
    rule_name: str
    ingestion_time: str


def check_path(path: str) -> None:
    """Raise :class:`InvalidPathError` unless ``path`` is a JSON path with dots, names and indices."""
    _steps(path)


def resolve(path: str, event: Any) -> Any:
    """Return the value at ``path`` in ``event``; ``None`` when there is none."""
    value = _find(path, event)
    return None if value is _ABSENT else value


def _find(path: str, event: Any) -> Any:
    value = event
    for step in _steps(path):
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else _ABSENT
        else:
            value = value.get(step, _ABSENT) if isinstance(value, dict) else _ABSENT
    return value


def _steps(path: str) -> list[str | int]:
    if not path.startswith("$"):
        raise InvalidPathError(f"Invalid JSON path {path}: it must start with $")
    steps: list[str | int] = []
    position = 1
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise InvalidPathError(f"Invalid JSON path {path} at position {position}")
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(
                next(part for part in (match["name"], match["single"], match["double"]) if part is not None)
            )
        position = match.end()
    return steps


def render(target: dict[str, Any], event: dict[str, Any], predefined: Predefined) -> str:
    """Return the text that ``target`` receives for ``event``."""
    if target.get("Input") is not None:
        return str(target["Input"])
    if target.get("InputPath"):
        return _dumps(resolve(target["InputPath"], event))
    if target.get("InputTransformer"):
        transformer = target["InputTransformer"]
        return transform(
            transformer["InputTemplate"], transformer.get("InputPathsMap") or {}, event, predefined
        )
    return _dumps(event)


def transform(template: str, paths: dict[str, str], event: dict[str, Any], predefined: Predefined) -> str:
    """Fill ``template``: a variable inside a JSON string becomes its text, one outside becomes JSON.

    In a template that is one quoted string, objects and lists lose their quotation marks, as on AWS.
    In a JSON template a variable between the quotes of a string is interpolated with quotes and
    backslashes escaped, so that the result stays valid JSON. A path that finds nothing gives an empty
    string.
    """
    sentence = template.lstrip().startswith('"')
    values: dict[str, Any] = {name: _find(path, event) for name, path in paths.items()}
    values["aws.events.rule-arn"] = predefined.rule_arn
    values["aws.events.rule-name"] = predefined.rule_name
    values["aws.events.event.ingestion-time"] = predefined.ingestion_time
    values["aws.events.event"] = {key: value for key, value in event.items() if key != "detail"}
    values["aws.events.event.json"] = event
    output: list[str] = []
    quoted = False
    position = 0
    while position < len(template):
        match = _VARIABLE.match(template, position)
        if match and match[1] in values:
            value = values[match[1]]
            output.append(_inside(value, sentence) if quoted else _outside(value))
            position = match.end()
            continue
        if template[position] == "\\" and quoted:
            output.append(template[position : position + 2])
            position += 2
            continue
        if template[position] == '"':
            quoted = not quoted
        output.append(template[position])
        position += 1
    return "".join(output)


def variables(template: str) -> set[str]:
    """Return the names between ``<`` and ``>`` in ``template``."""
    return set(_VARIABLE.findall(template))


def _inside(value: Any, sentence: bool) -> str:
    if value is _ABSENT:
        return ""
    if isinstance(value, str):
        return _escape(value)
    text = _dumps(value)
    return text.replace('"', "") if sentence else _escape(text)


def _escape(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _outside(value: Any) -> str:
    return '""' if value is _ABSENT else _dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
