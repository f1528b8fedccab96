"""Which candidate to put into service, if any, and why: rules, without any file or model.

A candidate is recommended when it passes every rule:

- ``THRESHOLD``: its accuracy on the holdout is at least the threshold;

and, where there is a champion,

- ``MARGIN``: it gains at least the margin on it;
- ``INTERVAL``: the 95 % interval of the gain lies above zero;
- ``CLASSES``: no class that the champion knows has become worse than the bound
  (:func:`evaluation.pairing.is_worse`).

Two candidates are two chances to be better by luck alone. ``INTERVAL`` looks at the lower end only, which is
above zero by luck in 2.5 % of comparisons, so with two candidates in at most 5 % of runs (Boole's
inequality): no further correction. What luck does is to make the better one's gain look larger than it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.pairing import ClassChange, Gain, is_worse, may_be_chance

LABEL_CHARACTERS = 24
"""Of a label in a sentence; labels have up to 128."""
REASON_CHARACTERS = 256
"""What a model package's metadata holds."""
NAMED_CLASSES = 3


@dataclass(frozen=True)
class Bounds:
    """What must be reached: the team's parameters. All are shares."""

    threshold: float
    margin: float = 0.0
    class_loss: float = 0.1


@dataclass(frozen=True)
class Standing:
    """What the rules look at, per candidate; without a champion ``gain`` is ``None``."""

    accuracy: float
    macro_f1: float
    gain: Gain | None = None
    classes: Sequence[ClassChange] = ()


@dataclass(frozen=True)
class Rule:
    """How a candidate stands to one rule; ``detail`` is a sentence without its full stop."""

    candidate: str
    rule: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        """Return the member of ``recommendation.rules``."""
        return {
            "candidate": self.candidate,
            "rule": self.rule,
            "passed": self.passed,
            "detail": self.detail,
        }


@dataclass(frozen=True)
class Recommendation:
    """The candidate to put into service or ``None``, why in at most 256 characters, and every rule."""

    candidate: str | None
    reason: str
    rules: tuple[Rule, ...]


def shorten(text: str, limit: int) -> str:
    """Cut ``text`` to ``limit`` characters, visibly."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def percent(share: float) -> str:
    """Write a share as people do."""
    return f"{100 * share:g} %"


def rules_of(candidate: str, standing: Standing, bounds: Bounds) -> tuple[Rule, ...]:
    """Return how a candidate stands to each rule, in the order in which the rules are looked at."""
    reached = standing.accuracy >= bounds.threshold
    said = f"accuracy {standing.accuracy:.4f}, {'at least' if reached else 'below'} the threshold"
    found = [Rule(candidate, "THRESHOLD", reached, f"{said} {bounds.threshold:g}")]
    gain = standing.gain
    if gain is None:
        return tuple(found)
    low, high = gain.interval
    enough = gain.difference >= bounds.margin
    measured = f"gains {gain.difference:+.4f} on the champion"
    relation = "at least" if enough else "short of"
    found.append(Rule(candidate, "MARGIN", enough, f"{measured}, {relation} the margin of {bounds.margin:g}"))
    sure = low > 0
    interval = f"{measured} (95 % interval {low:+.4f} to {high:+.4f})"
    found.append(
        Rule(
            candidate, "INTERVAL", sure, interval + (", above zero" if sure else ", short of one above zero")
        )
    )
    worse = [change for change in standing.classes if is_worse(change, bounds.class_loss)]
    found.append(Rule(candidate, "CLASSES", not worse, _about_classes(standing.classes, worse, bounds)))
    return tuple(found)


def _about_classes(classes: Sequence[ClassChange], worse: Sequence[ClassChange], bounds: Bounds) -> str:
    if worse:
        named = ", ".join(
            f"{shorten(change.label, LABEL_CHARACTERS)} ({change.lost} of {change.support})"
            for change in worse[:NAMED_CLASSES]
        )
        more = f" and {len(worse) - NAMED_CLASSES} more" if len(worse) > NAMED_CLASSES else ""
        chance = (
            f"; with {len(classes)} classes it may be chance" if may_be_chance(worse, len(classes)) else ""
        )
        return f"loses more than {percent(bounds.class_loss)} of class {named}{more}{chance}"
    if not classes:
        return "no class of the champion is in the holdout"
    return f"none of {len(classes)} classes loses more than {percent(bounds.class_loss)} of its examples"


def recommend(standings: Mapping[str, Standing], bounds: Bounds) -> Recommendation:
    """Say which candidate to put into service, if any, and why.

    Of those that pass every rule the more accurate one is taken; at equal accuracy the one with the better
    macro F1, then `old`, the smaller change.
    """
    order = sorted(
        standings, key=lambda name: (-standings[name].accuracy, -standings[name].macro_f1, name == "new")
    )
    rules = {name: rules_of(name, standings[name], bounds) for name in order}
    every = tuple(rule for name in standings for rule in rules[name])
    for name in order:
        if all(rule.passed for rule in rules[name]):
            return Recommendation(name, shorten(_praise(name, standings[name]), REASON_CHARACTERS), every)
    refused = "; ".join(
        f"{name} {next(rule.detail for rule in rules[name] if not rule.passed)}" for name in order
    )
    return Recommendation(None, shorten(refused, REASON_CHARACTERS), every)


def _praise(name: str, standing: Standing) -> str:
    if standing.gain is None:
        return f"{name} has an accuracy of {standing.accuracy:.4f} and there is no champion"
    low, high = standing.gain.interval
    gained = f"{name} gains {standing.gain.difference:+.4f} on the champion"
    said = f"{gained} (95 % interval {low:+.4f} to {high:+.4f})"
    if not standing.classes:
        return said
    worst = standing.classes[0]
    if worst.lost <= 0:
        return f"{said}; no class is worse"
    return (
        f"{said}; the class that loses most is {shorten(worst.label, LABEL_CHARACTERS)}, "
        f"{worst.lost} of {worst.support}"
    )


def gate(standings: Mapping[str, Standing], threshold: float) -> dict[str, Any]:
    """Return the gate's verdict: passed when at least one candidate reaches ``threshold`` on the holdout."""
    best = max(standings, key=lambda name: standings[name].accuracy)
    value = standings[best].accuracy
    passed = value >= threshold
    relation = "reaches" if passed else "is below"
    return {
        "passed": int(passed),
        "bestAccuracy": value,
        "threshold": threshold,
        "reason": f"the best candidate, {best}, has an accuracy of {value:.4f}: it {relation} {threshold:g}",
    }
