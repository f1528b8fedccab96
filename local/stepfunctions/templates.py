"""Payload templates of JSONPath states: paths and intrinsic functions among plain values."""

from __future__ import annotations

from typing import Any

from local.stepfunctions.intrinsics import call_text
from local.stepfunctions.paths import Scope, select


def fill_template(template: Any, scope: Scope, field: str) -> Any:
    """Evaluate a payload template: keys that end in ``.$`` hold paths or intrinsic functions."""
    if isinstance(template, list):
        return [fill_template(item, scope, field) for item in template]
    if not isinstance(template, dict):
        return template
    filled: dict[str, Any] = {}
    for key, value in template.items():
        if key.endswith(".$"):
            filled[key[:-2]] = resolve(value, scope, key)
        else:
            filled[key] = fill_template(value, scope, field)
    return filled


def resolve(text: str, scope: Scope, field: str) -> Any:
    """Evaluate a path or an intrinsic function."""
    if text.startswith("States."):
        return call_text(text, scope)
    return select(text, scope, field)
