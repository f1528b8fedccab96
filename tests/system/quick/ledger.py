"""What a test has said to the loop, and what must come of it: a second, simpler telling of the label rules.

It shares nothing with ``truthloop.versions.standing``; docs/conventions.md, "Which label holds", is what both
follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Said:
    """One good record of one upload."""

    inference_id: str
    label: str
    author: str | None
    decides: bool
    minute: int
    order: tuple[int, int]
    """Upload and line: what orders statements about the same instant."""


@dataclass(frozen=True)
class Expected:
    """Where each inference id must be."""

    trained: dict[str, str]
    waiting: frozenset[str]
    conflicts: frozenset[str]


@dataclass
class Ledger:
    """Everything said in one example, and what was captured."""

    said: list[Said] = field(default_factory=list)
    captured: set[str] = field(default_factory=set)

    def expected(self) -> Expected:
        """Settle what was said."""
        trained: dict[str, str] = {}
        waiting, conflicts = set(), set()
        for inference_id in {one.inference_id for one in self.said}:
            newest: dict[str | None, Said] = {}
            for one in self.said:
                held = newest.get(one.author)
                if one.inference_id == inference_id and (held is None or _time(one) > _time(held)):
                    newest[one.author] = one
            deciding = [one for one in newest.values() if one.decides]
            counting = [max(deciding, key=_time)] if deciding else list(newest.values())
            if len({one.label for one in counting}) > 1:
                conflicts.add(inference_id)
            elif inference_id in self.captured:
                trained[inference_id] = counting[0].label
            else:
                waiting.add(inference_id)
        return Expected(trained, frozenset(waiting), frozenset(conflicts))


def _time(one: Said) -> tuple[int, tuple[int, int]]:
    return one.minute, one.order
