"""Which label holds: the one place where statements of several uploads and authors meet.

The rules, in their order, are those of docs/conventions.md, "Which label holds". All of it is pure and
independent of the order and repetition of the input: statements are gathered first (`Gathered`), then
settled at one instant (`settle`). What `Gathered` keeps is enough to go on from later: gathering what was
kept and what has come since gives what gathering everything from the beginning would give.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from truthloop.settings import MAJORITY, SET_ASIDE
from truthloop.versions.labels import Record, Statement
from truthloop.versions.shares import allowances

DECISION = "decision"
"""The source of a statement that has the last word."""


@cache
def author_digest(author: str) -> str:
    """Return the name that a forgotten author goes by."""
    return hashlib.sha256(author.encode()).hexdigest()


class Gathered:
    """Statements by inference id, less the forgotten and those that can never count again.

    Parameters
    ----------
    forgotten : Mapping[str, str]
        Per forgotten author (SHA-256) the time before which their uploads do not exist.
    """

    def __init__(self, forgotten: Mapping[str, str]) -> None:
        self._forgotten = forgotten
        self._held: dict[str, tuple[Statement, ...]] = {}
        self.forgotten = 0

    def add(self, statements: Iterable[Statement]) -> None:
        """Take statements in.

        One is dropped when the same author's newer statement about the same id was not uploaded earlier
        either: whatever later becomes of that one by its upload's time (expired, forgotten) has then become
        of the older one as well, so the older can never hold again.
        """
        for new in statements:
            if self._is_forgotten(new):
                self.forgotten += 1
                continue
            held = self._held.get(new.inference_id, ())
            if any(old.author == new.author and _outlives(old, new) for old in held):
                continue
            rest = (old for old in held if old.author != new.author or not _outlives(new, old))
            self._held[new.inference_id] = (*rest, new)

    def _is_forgotten(self, statement: Statement) -> bool:
        if statement.author is None or not self._forgotten:
            return False
        before = self._forgotten.get(author_digest(statement.author))
        return before is not None and statement.origin.uploaded_at < before

    def about(self, inference_id: str) -> tuple[Statement, ...]:
        """Return the statements about an id."""
        return self._held[inference_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def statements(self) -> Iterator[Statement]:
        """Return every statement held."""
        for held in self._held.values():
            yield from held


def _outlives(one: Statement, other: Statement) -> bool:
    return one.order >= other.order and one.origin.uploaded_at >= other.origin.uploaded_at


@dataclass(frozen=True)
class Terms:
    """What is settled by: the policy's settings and the instant.

    `expired_before` is the time of upload from which on a label may still wait for its capture.
    """

    expired_before: str
    conflict_resolution: str = SET_ASIDE
    maximum_author_share: float = 1.0


@dataclass
class Standing:
    """What holds of all statements.

    Attributes
    ----------
    labels : dict[str, Statement]
        By inference id the statement that stands for the label that is trained on.
    waiting : dict[str, Statement]
        The same of labels that would be trained on if they were captured.
    conflicts : dict[str, tuple[Statement, ...]]
        By inference id what its authors say, where they disagree and nobody has decided.
    over_share : dict[str, int]
        Labels set aside per author; ``""`` stands for records without an author.
    set_aside : dict[str, Statement]
        By inference id the statements beyond their author's share.
    expired : list[Statement]
        What has waited too long. It has to be remembered: what its author said before it does not count
        either, whenever that is uploaded.
    kept : dict[str, tuple[Statement, ...]]
        By inference id every statement that may still come to count; the rest is superseded or expired.
    """

    labels: dict[str, Statement] = field(default_factory=dict)
    waiting: dict[str, Statement] = field(default_factory=dict)
    conflicts: dict[str, tuple[Statement, ...]] = field(default_factory=dict)
    over_share: dict[str, int] = field(default_factory=dict)
    set_aside: dict[str, Statement] = field(default_factory=dict)
    expired: list[Statement] = field(default_factory=list)
    kept: dict[str, tuple[Statement, ...]] = field(default_factory=dict)


def settle(
    gathered: Gathered, present: Callable[[Statement], bool], lapsed: Collection[Record], terms: Terms
) -> Standing:
    """Say which label holds for each inference id.

    Parameters
    ----------
    gathered : Gathered
        The statements.
    present : Callable[[Statement], bool]
        Whether the statement's prediction is captured, or its image uploaded.
    lapsed : Collection[Record]
        The records that were quarantined as expired before: a capture that comes later does not bring them
        back, or a record could count and lie in quarantine at once.
    terms : Terms
        Settings and the instant.
    """
    standing = Standing()
    for identifier in gathered:
        about = gathered.about(identifier)
        kept = alive = tuple(s for s in about if not _has_expired(s, present, lapsed, terms))
        if len(kept) < len(about):
            expired = [s for s in about if s not in kept]
            standing.expired += expired
            alive = tuple(_not_taken_back(kept, expired))
        if kept:
            standing.kept[identifier] = kept
        if not alive:
            continue
        holding = alive if len(alive) == 1 else _newest_per_author(alive)
        label = resolve(holding, terms.conflict_resolution)
        if label is None:
            standing.conflicts[identifier] = holding
        elif present(label):
            standing.labels[identifier] = label
        else:
            standing.waiting[identifier] = label
    _limit_shares(standing, terms.maximum_author_share)
    return standing


def _has_expired(
    statement: Statement,
    present: Callable[[Statement], bool],
    lapsed: Collection[Record],
    terms: Terms,
) -> bool:
    origin = statement.origin
    if lapsed and origin.record in lapsed:
        return True
    return origin.uploaded_at < terms.expired_before and not present(statement)


def _not_taken_back(statements: Iterable[Statement], expired: Iterable[Statement]) -> Iterator[Statement]:
    """Yield what its author has not superseded by something that has expired.

    Compared by the time of the event only: an expired record that is sent back is another upload of the same
    statement, and must hold again whatever its sequencer.
    """
    last: dict[str | None, str] = {}
    for statement in expired:
        last[statement.author] = max(statement.event_time, last.get(statement.author, ""))
    for statement in statements:
        if statement.event_time >= last.get(statement.author, ""):
            yield statement


def _newest_per_author(statements: Iterable[Statement]) -> tuple[Statement, ...]:
    newest: dict[str | None, Statement] = {}
    for statement in statements:
        held = newest.get(statement.author)
        if held is None or held.order < statement.order:
            newest[statement.author] = statement
    return tuple(sorted(newest.values(), key=lambda statement: statement.order))


def resolve(holding: tuple[Statement, ...], conflict_resolution: str) -> Statement | None:
    """Return the statement that stands for an id's label; None where its authors disagree undecided.

    The newest decision settles it. Else all must agree, or, with ``majority``, more than half; of those that
    agree the newest stands for the label.

    Parameters
    ----------
    holding : tuple of Statement
        The newest statement of each author, oldest first; at least one.
    conflict_resolution : str
        ``set-aside`` or ``majority``.
    """
    if len(holding) == 1:
        return holding[0]
    decisions = [statement for statement in holding if statement.source == DECISION]
    if decisions:
        return decisions[-1]
    ((label, votes),) = Counter(statement.label for statement in holding).most_common(1)
    agreed = votes == len(holding) or (conflict_resolution == MAJORITY and 2 * votes > len(holding))
    return next(s for s in reversed(holding) if s.label == label) if agreed else None


def _limit_shares(standing: Standing, share: float) -> None:
    if share >= 1:
        return
    counts = Counter(statement.author or "" for statement in standing.labels.values())
    allowed = allowances(counts, share)
    standing.over_share = {a: n - allowed[a] for a, n in sorted(counts.items()) if n > allowed[a]}
    if not standing.over_share:
        return
    taken: Counter[str] = Counter()
    for identifier, statement in sorted(standing.labels.items(), key=lambda item: (item[1].order, item[0])):
        author = statement.author or ""
        taken[author] += 1
        if taken[author] > allowed[author]:
            standing.set_aside[identifier] = standing.labels.pop(identifier)
