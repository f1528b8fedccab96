"""What a target receives."""

from __future__ import annotations

import json
from typing import Any

import pytest

from local.events.inputs import InvalidPathError, Predefined, check_path, render, resolve

EVENT: dict[str, Any] = {
    "id": "e-1",
    "source": "my.app",
    "detail-type": "Order placed",
    "resources": ["first", "second"],
    "detail": {"name": 'a "b"', "count": 3, "tags": ["x", "y"], "null": None, "inner": {"k": "v"}, "a b": 1},
}
KNOWN = Predefined("arn:aws:events:us-east-1:123456789012:rule/r", "r", "2026-11-22T10:00:00Z")


def transformed(template: str, **paths: str) -> str:
    return render({"InputTransformer": {"InputTemplate": template, "InputPathsMap": paths}}, EVENT, KNOWN)


def test_without_settings_the_event_itself() -> None:
    assert json.loads(render({}, EVENT, KNOWN)) == EVENT


def test_constant_input() -> None:
    assert render({"Input": '{"a": 1}'}, EVENT, KNOWN) == '{"a": 1}'


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", EVENT),
        ("$.detail", EVENT["detail"]),
        ("$.detail-type", "Order placed"),
        ("$.resources[1]", "second"),
        ("$.resources[7]", None),
        ("$.detail['a b']", 1),
        ('$["detail"]["count"]', 3),
        ("$.detail.absent", None),
    ],
)
def test_input_path(path: str, value: Any) -> None:
    assert resolve(path, EVENT) == value
    assert json.loads(render({"InputPath": path}, EVENT, KNOWN)) == value


@pytest.mark.parametrize("path", ["detail", "$..detail", "$.detail[*]", "$.detail[?(@.x)]"])
def test_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidPathError):
        check_path(path)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ('{"n": <count>}', {"n": 3}),
        ('{"n": "<count>"}', {"n": "3"}),
        ('{"n": "no. <count> of <name>"}', {"n": 'no. 3 of a "b"'}),
        ('{"n": <name>}', {"n": 'a "b"'}),
        ('{"t": <tags>, "i": <inner>}', {"t": ["x", "y"], "i": {"k": "v"}}),
        ('{"i": "<inner>"}', {"i": '{"k":"v"}'}),
        ('{"n": <nil>}', {"n": None}),
        ('{"n": <absent>}', {"n": ""}),
        ('{"n": "<absent>"}', {"n": ""}),
        ('{"q": "\\"<count>\\"", "n": <count>}', {"q": '"3"', "n": 3}),
        ('"<count> of <name>"', '3 of a "b"'),
        ('"got <inner>"', "got {k:v}"),
        ("<inner>", {"k": "v"}),
        ('{"lt": "1 < 2 and <unknown>"}', {"lt": "1 < 2 and <unknown>"}),
        ('{"arn": "<aws.events.rule-arn>"}', {"arn": KNOWN.rule_arn}),
        ('{"r": <aws.events.rule-name>}', {"r": "r"}),
        ('{"at": <aws.events.event.ingestion-time>}', {"at": KNOWN.ingestion_time}),
        ("<aws.events.event.json>", EVENT),
        ("<aws.events.event>", {key: value for key, value in EVENT.items() if key != "detail"}),
    ],
)
def test_input_transformer(template: str, expected: Any) -> None:
    text = transformed(
        template,
        count="$.detail.count",
        name="$.detail.name",
        tags="$.detail.tags",
        inner="$.detail.inner",
        nil="$.detail.null",
        absent="$.detail.absent",
    )
    assert json.loads(text) == expected
