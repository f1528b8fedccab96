"""A seeded generator of what nobody should send: garbage, and valid inputs with something wrong in them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from random import Random
from typing import Any

TEXTS = (
    "", " ", "\x00", "\ud800", "a\udfffb", "é" * 300, "🦄" * 1000, "‮abc", "x" * 300_000, "null", "{}", "[]",
    "g1", "g00000007", "g٠٠٠٠٠٠٠٧", "g0000000x", "G00000007", "g-0000001", "g" + "9" * 40, "../..", "$.x",
    "{% $x %}", "s3://", "s3://bucket", "https://x/y", "arn:aws:states:us-east-1:1:execution:x", "arn:::::::",
    "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/" + "é",
    "2026-11-22T10:00:00Z", "2026-13-45T99:99:99Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59",
    "2026-11-22", "20261122T100000", "2026-W47-7", "now", "1763805600", "2026-11-22T10:00:00.123456789Z",
    "START", "REFUSE", "WAIT", "CREATE", "UPDATE", "RECREATE", "NONE", "SUCCEEDED", "FAILED", "Succeeded",
    "Failed", "Stopped", "Executing", "aws.s3", "Object Created", "truthloop.sweep", "Retrain Sweep",
)  # fmt: skip
NUMBERS = (
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**64),
    10**400,
    0.0,
    -0.0,
    1e308,
    1e-320,
    1.5,
    float("inf"),
    float("nan"),
)
DEPTH = 150
"""Of nested lists: what a parser takes and no reader expects."""


def value(rng: Random, depth: int = 0) -> Any:
    """Return some JSON value."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 3:
        return rng.choice(TEXTS)
    if kind == 3:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False, [], {}))
    if kind == 5:
        return deep(rng) if rng.random() < 0.1 else "".join(chr(rng.randrange(0x20, 0x2FF)) for _ in range(8))
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(rng.choice(TEXTS))[:40]: value(rng, depth + 1) for _ in range(rng.randrange(4))}


def deep(rng: Random) -> Any:
    """Return something deeply nested."""
    found: Any = rng.choice(TEXTS[:4])
    for _ in range(DEPTH):
        found = [found] if rng.random() < 0.5 else {"a": found}
    return found


def paths(found: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the place of every member below a value."""
    members = (
        found.items() if isinstance(found, dict) else enumerate(found) if isinstance(found, list) else ()
    )
    for key, member in members:
        yield (*at, key)
        yield from paths(member, (*at, key))


def mutated(rng: Random, valid: Any) -> Any:
    """Return a valid value with one to three things wrong in it."""
    found = copy.deepcopy(valid)
    for _ in range(rng.randrange(1, 4)):
        places = list(paths(found))
        if not places:
            return value(rng)
        *above, last = rng.choice(places)
        holder = found
        for key in above:
            holder = holder[key]
        match rng.randrange(8):
            case 0:
                del holder[last]
            case 1:
                holder[last] = [holder[last]]
            case 2:
                holder[last] = json.dumps(holder[last])
            case 3 if isinstance(holder, dict):
                holder[str(last).upper()] = holder.pop(last)
            case 4:
                holder[last] = None
            case _:
                holder[last] = value(rng)
    return found


def bad(rng: Random, valid: Any) -> Any:
    """Return garbage, or one of the valid values with something wrong in it."""
    return value(rng) if rng.random() < 0.2 else mutated(rng, rng.choice(valid))
