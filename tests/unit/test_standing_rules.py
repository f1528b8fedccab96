"""Which label holds: every rule by example, and the whole under random histories."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truthloop.settings import MAJORITY
from truthloop.times import to_iso
from truthloop.versions.labels import Origin, Statement
from truthloop.versions.shares import allowances
from truthloop.versions.standing import Gathered, Standing, Terms, author_digest, settle

START = datetime(2026, 11, 22, tzinfo=UTC)
HORIZON = 24


def hour(at: float) -> str:
    return to_iso(START + timedelta(hours=at))


def said(
    identifier: str,
    label: str,
    author: str | None = None,
    *,
    at: float = 0,
    uploaded: float = 0,
    source: str = "correction",
    upload: str = "u",
    line: int = 1,
) -> Statement:
    origin = Origin(f"ground-truth/inbox/{upload}.jsonl", "v", line, 0, hour(uploaded))
    return Statement(identifier, label, hour(at), author, source, f"{uploaded:09.3f}.{line}", origin)


def holding(
    statements: Iterable[Statement],
    *,
    captured: Iterable[str] | None = None,
    now: float = 1,
    forgotten: dict[str, str] | None = None,
    lapsed: Any = (),
    **terms: Any,
) -> Standing:
    gathered = Gathered(forgotten or {})
    gathered.add(statements)
    there = None if captured is None else set(captured)
    return settle(
        gathered,
        lambda s: there is None or s.inference_id in there,
        lapsed,
        Terms(hour(now - HORIZON), **terms),
    )


def labels(standing: Standing) -> dict[str, str]:
    return {identifier: statement.label for identifier, statement in standing.labels.items()}


# -- rule by rule ------------------------------------------------------------------------------------------


def test_per_author_the_newest_holds_by_time_then_sequencer() -> None:
    old = said("i", "old", at=1, uploaded=9)
    new = said("i", "new", at=2, uploaded=1)
    assert labels(holding([new, old])) == {"i": "new"}
    assert labels(holding([said("i", "a", uploaded=1), said("i", "b", uploaded=2)])) == {"i": "b"}


def test_authors_who_disagree_set_the_label_aside_until_somebody_decides() -> None:
    ann, bob = said("i", "1", "ann"), said("i", "2", "bob", at=1)
    standing = holding([ann, bob])
    assert standing.conflicts == {"i": (ann, bob)}
    assert standing.labels == {}
    decision = said("i", "3", "cem", at=0.5, source="decision")
    assert labels(holding([ann, bob, decision])) == {"i": "3"}
    newer = said("i", "1", "dee", at=0.7, source="decision")
    assert labels(holding([newer, ann, bob, decision])) == {"i": "1"}


def test_authors_who_agree_are_one_label_of_the_newest_of_them() -> None:
    standing = holding([said("i", "1", "ann"), said("i", "1", "bob", at=1)])
    assert standing.labels["i"].author == "bob"
    assert standing.conflicts == {}


def test_records_without_an_author_are_one_author() -> None:
    assert labels(holding([said("i", "1", at=0), said("i", "2", at=1)])) == {"i": "2"}


@pytest.mark.parametrize(
    ("votes", "expected"),
    [("112", "1"), ("12", None), ("1122", None), ("1123", None), ("11123", "1"), ("123", None)],
)
def test_a_majority_is_more_than_half(votes: str, expected: str | None) -> None:
    statements = [said("i", label, f"author-{n}") for n, label in enumerate(votes)]
    standing = holding(statements, conflict_resolution=MAJORITY)
    assert labels(standing) == ({"i": expected} if expected else {})
    assert bool(standing.conflicts) == (expected is None)


def test_a_label_without_a_capture_waits_and_then_expires() -> None:
    statement = said("i", "1")
    assert holding([statement], captured=[], now=HORIZON).waiting == {"i": statement}
    expired = holding([statement], captured=[], now=HORIZON + 0.1)
    assert expired.expired == [statement]
    assert (expired.waiting, expired.kept) == ({}, {})
    assert labels(holding([statement], captured=["i"], now=1000)) == {"i": "1"}


def test_what_was_quarantined_does_not_come_back_and_a_new_record_does() -> None:
    statement = said("i", "1", upload="a")
    lapsed = {("ground-truth/inbox/a.jsonl", "v", 1)}
    standing = holding([statement], captured=["i"], now=30, lapsed=lapsed)
    assert standing.expired == [statement]
    again = said("i", "1", upload="b", uploaded=29)
    assert holding([statement, again], captured=["i"], now=30, lapsed=lapsed).labels == {"i": again}


def test_what_its_author_has_taken_back_does_not_hold_when_the_newer_word_expires() -> None:
    newer = said("i", "7", "ann", at=10, uploaded=10, upload="newer")
    older = said("i", "3", "ann", at=9, uploaded=20)
    other = said("i", "5", "bob", at=9, uploaded=20)
    standing = holding([newer, older, other], captured=[], now=10 + HORIZON + 0.1)
    assert standing.expired == [newer]
    assert standing.waiting == {"i": other}
    lapsed = {newer.origin.record}
    assert labels(holding([newer, older], now=36, lapsed=lapsed)) == {}
    # Sent back, the newer word holds, whatever the sequencer of the other upload.
    back = replace(said("i", "7", "ann", at=10, uploaded=29, upload="back"), sequencer="0")
    assert labels(holding([newer, older, back], now=30, lapsed=lapsed)) == {"i": "7"}
    # Forgotten up to between the two, the newer word does not exist and the older one holds.
    forgotten = {author_digest("ann"): hour(15)}
    assert labels(holding([newer, older], now=30, lapsed=lapsed, forgotten=forgotten)) == {"i": "3"}


def test_what_a_forgotten_author_said_before_does_not_exist() -> None:
    forgotten = {author_digest("ann"): hour(2)}
    before, after = said("i", "1", "ann", uploaded=1), said("j", "2", "ann", uploaded=2)
    gathered = Gathered(forgotten)
    gathered.add([before, after, said("i", "3", "bob")])
    assert gathered.forgotten == 1
    assert labels(holding([before, after, said("i", "3", "bob")], forgotten=forgotten)) == {
        "i": "3",
        "j": "2",
    }


def test_an_author_contributes_no_more_than_their_share_and_the_oldest_stay() -> None:
    ann = [said(f"a{n}", "1", "ann", at=n) for n in range(6)]
    bob = [said(f"b{n}", "2", "bob") for n in range(2)]
    cem = [said(f"c{n}", "3", None) for n in range(2)]
    standing = holding([*ann, *bob, *cem], maximum_author_share=0.5)
    assert standing.over_share == {"ann": 2}
    assert set(standing.labels) == {"a0", "a1", "a2", "a3", "b0", "b1", "c0", "c1"}
    assert set(standing.kept) == {s.inference_id for s in (*ann, *bob, *cem)}


# -- the share ---------------------------------------------------------------------------------------------


def brute_force(counts: dict[str, int], share_percent: int) -> int:
    ranges = (range(count + 1) for count in counts.values())
    totals = (n for n in product(*ranges) if all(100 * each <= share_percent * sum(n) for each in n))
    return max(sum(n) for n in totals)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6)), st.integers(1, 100))
@settings(max_examples=300, deadline=None)
def test_the_share_is_the_greatest_fixed_point(counts: dict[str, int], percent: int) -> None:
    allowed = allowances(counts, percent / 100)
    total = sum(allowed.values())
    assert all(0 <= allowed[author] <= counts[author] for author in counts)
    assert all(100 * n <= percent * total for n in allowed.values())
    assert total == brute_force(counts, percent)


def test_the_share_is_exact_where_doubles_are_not() -> None:
    assert allowances({"a": 29, "b": 29, "c": 29, "d": 13}, 0.29)["a"] == 29


def test_the_share_of_many_is_found_at_once() -> None:
    counts = {f"a{n}": 250_000 for n in range(4)}
    assert sum(allowances(counts, 0.2499).values()) == 0
    assert allowances(counts | {"b": 1}, 0.25)["a0"] == 250_000


# -- random histories --------------------------------------------------------------------------------------


class History(NamedTuple):
    """Uploads in the order in which they are ingested, when each id is captured, who is forgotten."""

    statements: list[Statement]
    captured_at: dict[str, float]
    forgotten: dict[str, str]
    terms: dict[str, Any]

    def at(self, now: float) -> dict[str, Any]:
        captured = [identifier for identifier, at in self.captured_at.items() if at <= now]
        return {"captured": captured, "now": now, "forgotten": self.forgotten, **self.terms}


IDS, AUTHORS = ("i", "j", "k"), (None, "ann", "bob", "cem")
SAYING = st.tuples(
    st.sampled_from(IDS),
    st.sampled_from("12"),
    st.sampled_from(AUTHORS),
    st.integers(0, 4),
    st.integers(0, 40),
    st.sampled_from(["correction", "correction", "audit", "decision"]),
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    sayings = draw(st.lists(SAYING, max_size=12))
    statements = [
        said(identifier, label, author, at=at, uploaded=uploaded, source=source, upload=f"u{number}")
        for number, (identifier, label, author, at, uploaded, source) in enumerate(sayings)
    ]
    captured_at = draw(st.dictionaries(st.sampled_from(IDS), st.sampled_from([0.0, 20.0, 50.0])))
    forgotten = draw(st.dictionaries(st.sampled_from(AUTHORS[1:]), st.integers(0, 40), max_size=1))
    terms = {
        "conflict_resolution": draw(st.sampled_from(["set-aside", MAJORITY])),
        "maximum_author_share": draw(st.sampled_from([1.0, 0.5, 0.3])),
    }
    return History(statements, captured_at, {author_digest(a): hour(t) for a, t in forgotten.items()}, terms)


@given(histories(), st.integers(0, 70), st.randoms())
@settings(max_examples=300, deadline=None)
def test_order_and_repetition_change_nothing(history: History, now: int, shuffler: random.Random) -> None:
    again = history.statements * 2
    shuffler.shuffle(again)
    one, other = holding(history.statements, **history.at(now)), holding(again, **history.at(now))
    assert one.labels == other.labels
    assert one.waiting == other.waiting
    assert one.conflicts == other.conflicts
    assert one.over_share == other.over_share
    assert {k: set(v) for k, v in one.kept.items()} == {k: set(v) for k, v in other.kept.items()}
    assert sorted(s.order for s in one.expired) == sorted(s.order for s in other.expired)


@given(histories(), st.integers(0, 70))
@settings(max_examples=300, deadline=None)
def test_every_statement_is_in_exactly_one_place(history: History, now: int) -> None:
    standing = holding(history.statements, **history.at(now))
    ids = [
        {*standing.labels}, {*standing.waiting}, {*standing.conflicts}, {*standing.set_aside}
    ]  # fmt: skip
    assert set().union(*ids) <= set(standing.kept)
    assert sum(map(len, ids)) == len(set().union(*ids))
    # What is kept and stands for nothing was superseded by something that has expired since.
    for identifier in set(standing.kept) - set().union(*ids):
        for statement in standing.kept[identifier]:
            assert any(
                (s.inference_id, s.author) == (identifier, statement.author)
                and s.event_time > statement.event_time
                for s in standing.expired
            )
    kept = [s for statements in standing.kept.values() for s in statements]
    assert not set(kept) & set(standing.expired)
    assert len(set(kept)) == len(kept)
    # What is neither kept nor expired is forgotten, or superseded by what its author said later.
    for statement in set(history.statements) - set(kept) - set(standing.expired):
        newer = (
            s
            for s in history.statements
            if (s.inference_id, s.author) == (statement.inference_id, statement.author)
            and s.order > statement.order
        )
        before = history.forgotten.get(author_digest(statement.author or ""), "")
        assert statement.origin.uploaded_at < before or any(newer)
    total, share = len(standing.labels), history.terms["maximum_author_share"]
    for author in AUTHORS:
        assert sum(s.author == author for s in standing.labels.values()) <= share * total + 1e-9


@given(histories(), st.integers(0, 70))
@settings(max_examples=300, deadline=None)
def test_no_word_holds_that_its_author_has_taken_back(history: History, now: int) -> None:
    standing = holding(history.statements, **history.at(now))
    conflicting = [s for statements in standing.conflicts.values() for s in statements]
    for held in (*standing.labels.values(), *standing.waiting.values(), *conflicting):
        for s in history.statements:
            if (s.inference_id, s.author) == (held.inference_id, held.author):
                before = history.forgotten.get(author_digest(s.author or ""), "")
                assert s.event_time <= held.event_time or s.origin.uploaded_at < before


@given(histories(), st.integers(0, 12), st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=600, deadline=None)
def test_going_on_from_what_was_kept_is_starting_from_the_beginning(
    history: History, split: int, first: int, more: int
) -> None:
    """Both at the later time; the records that expired at the earlier one are known, as quarantined."""
    early = history.statements[:split]
    then = holding(early, **history.at(first))
    lapsed = {(s.origin.key, s.origin.version_id, s.origin.line) for s in then.expired}
    kept = [s for statements in then.kept.values() for s in statements]
    later = [*kept, *then.expired, *history.statements[split:]]
    resumed = holding(later, **history.at(first + more), lapsed=lapsed)
    whole = holding(history.statements, **history.at(first + more), lapsed=lapsed)
    assert resumed.labels == whole.labels
    assert resumed.waiting == whole.waiting
    assert resumed.conflicts == whole.conflicts
    assert resumed.over_share == whole.over_share
