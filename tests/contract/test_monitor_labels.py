"""The monitor and the snapshot agree about which label holds, but where this file says otherwise.

The monitor's container cannot import the layer, so ``dataset.records.settled`` states the rules of
``truthloop.versions.standing`` again. It measures a model where the snapshot chooses what to train on, so it
- settles no disagreement by majority: a label that people disagree about is no ground truth to measure by;
- knows no share: that many labels are one person's makes none of them wrong;
- knows no expiry: a label is joined with a captured answer or not at all, and one that came late is true.
Forgotten authors are not in the accepted objects that it reads: ``truthloop forget`` takes them out.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset.records import AcceptedLabels, Label, read_accepted_labels
from truthloop.settings import MAJORITY, SET_ASIDE
from truthloop.times import to_iso
from truthloop.versions.labels import Origin, Statement
from truthloop.versions.standing import Gathered, Standing, Terms, settle

START = datetime(2026, 11, 22, tzinfo=UTC)
IDS = ("i", "j")


def hour(at: int) -> str:
    return to_iso(START + timedelta(hours=at))


@st.composite
def statements(draw: st.DrawFn) -> list[Statement]:
    """Few ids, times and sequencers, so that they meet; S3's sequencers of two keys may be equal."""
    sayings = draw(
        st.lists(
            st.tuples(
                st.sampled_from(IDS),
                st.sampled_from("12"),
                st.integers(0, 2),
                st.sampled_from([None, "ann", "bob", "cem"]),
                st.sampled_from(["correction", "audit", "decision"]),
                st.sampled_from(["0a", "0b"]),
                st.integers(0, 40),
            ),
            max_size=10,
        )
    )
    return [
        Statement(i, label, hour(at), author, source, sequencer, Origin(f"u{n}", "v", 1, 0, hour(uploaded)))
        for n, (i, label, at, author, source, sequencer, uploaded) in enumerate(sayings)
    ]


def monitor_says(said: list[Statement]) -> AcceptedLabels:
    """Ask the container's code, by the accepted lines that it reads."""
    with tempfile.TemporaryDirectory() as directory:
        for n, statement in enumerate(said):
            (Path(directory) / f"{n}.jsonl").write_bytes(statement.to_accepted_line())
        return read_accepted_labels(Path(directory))


def snapshot_says(said: list[Statement], captured: set[str], now: int, terms: tuple[str, float]) -> Standing:
    gathered = Gathered({})
    gathered.add(said)
    return settle(gathered, lambda s: s.inference_id in captured, (), Terms(hour(now - 24), *terms))


def facts(label: Label | Statement) -> tuple[str, str, str | None, str]:
    return label.label, label.source, label.author, label.sequencer


@given(statements())
@settings(max_examples=150, deadline=None)
def test_where_all_is_captured_and_authors_must_agree_both_say_the_same(said: list[Statement]) -> None:
    plain = snapshot_says(said, set(IDS), 0, (SET_ASIDE, 1.0))
    found = monitor_says(said)
    assert {i: facts(label) for i, label in found.labels.items()} == {
        i: facts(statement) for i, statement in plain.labels.items()
    }
    assert found.disputed == set(plain.conflicts)


@given(statements(), st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_files_decides_nothing(said: list[Statement], chooser: object) -> None:
    again = list(said)
    chooser.shuffle(again)  # type: ignore[attr-defined]
    assert monitor_says(again) == monitor_says(said)


@given(
    statements(),
    st.sets(st.sampled_from(IDS)),
    st.integers(0, 80),
    st.sampled_from([SET_ASIDE, MAJORITY]),
    st.sampled_from([1.0, 0.4]),
)
@settings(max_examples=150, deadline=None)
def test_they_differ_by_majority_share_and_expiry_only(
    said: list[Statement], captured: set[str], now: int, resolution: str, share: float
) -> None:
    standing = snapshot_says(said, captured, now, (resolution, share))
    found = monitor_says(said)
    gone = {statement.inference_id for statement in standing.expired}
    for identifier in {statement.inference_id for statement in said} - gone:
        stands = (
            standing.labels.get(identifier)
            or standing.waiting.get(identifier)
            or standing.set_aside.get(identifier)
        )
        if stands is None:
            assert identifier in standing.conflicts
            assert identifier in found.disputed
        elif identifier in found.disputed:
            assert resolution == MAJORITY
        else:
            assert facts(found.labels[identifier]) == facts(stands)
