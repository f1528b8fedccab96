"""What the story says: rows, sentences and figures made from what the loop wrote."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from demo.result import Example
from demo.traffic import Reply


def evaluation_rows(evaluation: dict[str, Any]) -> list[list[str]]:
    """Return one row per model of an evaluation.json, the champion first."""
    rows = []
    for name in ("champion", "old", "new"):
        model = evaluation["models"].get(name)
        if not model:
            continue
        low, high = model["accuracyInterval"]
        newest = model.get("newestCorrections") or {}
        against = evaluation["comparisons"].get(name)
        rows.append(
            [
                name,
                model["architecture"],
                f"{model['accuracy']:.1%}",
                f"{low:.1%}–{high:.1%}",
                f"{model['macroF1']:.3f}",
                f"{newest['accuracy']:.1%} of {newest['examples']}" if newest.get("examples") else "",
                _against(against) if against else "",
            ]
        )
    return rows


def _against(comparison: dict[str, Any]) -> str:
    low, high = comparison["interval"]
    return f"{comparison['accuracyDifference'] * 100:+.1f} points ({low * 100:+.1f} to {high * 100:+.1f})"


def estimate(report: dict[str, Any]) -> str:
    """Say how the monitor arrived at its figure; a report without an estimate says that instead."""
    said = report["statistics"]["truthloop"]
    captured = said["observations"]["captured"]
    if said["accuracy"] is None:
        return (
            f"insufficient evidence: {said['labels']} labels among {captured} captured predictions, "
            f"{said['minimumLabels']} are wanted"
        )
    limit = "at most " if said["estimator"] == "corrections_upper_bound" else ""
    return (
        f"{limit}{said['accuracy']:.1%} right by {said['labels']} labels among {captured} captured "
        f"predictions (estimator {said['estimator']}, threshold {said['threshold']:.0%})"
    )


def examples(before: Sequence[Reply], after: Sequence[Reply]) -> list[Example]:
    """Return the first exam images of each label, two of each, whether the answers are right or not."""
    chosen: Counter[str] = Counter()
    found = []
    for old, new in zip(before, after, strict=True):
        if chosen[old.digit.label] < 2:
            chosen[old.digit.label] += 1
            png = base64.b64encode(old.digit.png).decode()
            found.append(Example(png, old.digit.label, old.label, new.label))
    return sorted(found, key=lambda example: example.label)


def iso(moment: datetime) -> str:
    """Write a moment as the APIs read it."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(replies: Sequence[Reply]) -> str:
    """Write the median time of the replies."""
    return f"{sorted(reply.seconds for reply in replies)[len(replies) // 2] * 1000:.0f} ms"
