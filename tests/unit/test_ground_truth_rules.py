"""Rules at the door, and which of several labels holds."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truthloop.dataset import ChampionModel, Dataset, ObjectInfo, dataset_version, manifest
from truthloop.errors import DatasetInvalid
from truthloop.ground_truth import Judge, Rejection, SourceObject, padded_sequencer
from truthloop.labels import Label, Statement, changed, merge, per_label, read_accepted, read_merged
from truthloop.uploads import Line

SOURCE = SourceObject("bucket", "key.jsonl", "v1", "617f08299329d189", datetime(2026, 11, 22, 10, tzinfo=UTC))


def text(label: Any = "7", **metadata: Any) -> bytes:
    return json.dumps(
        {
            "groundTruthData": {"data": label, "encoding": "CSV"},
            "eventMetadata": {"eventId": "i", **metadata},
            "eventVersion": "0",
        }
    ).encode()


def decided(content: bytes, known: frozenset[str] | None = None) -> Statement | Rejection:
    result = Judge(SOURCE, "jsonl", known)(Line(1, 0, content))
    assert result is not None
    return result


def reason(content: bytes, known: frozenset[str] | None = None) -> str | None:
    result = decided(content, known)
    return result.reason if isinstance(result, Rejection) else None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (text(), None),
        (text(eventTime="2026-11-22T10:04:59Z"), None),
        (text(eventTime="2026-11-22T10:05:01Z"), "FUTURE_TIME"),
        (text(eventTime="9999-12-31T23:59:59-23:59"), "BAD_TIME"),
        (text(eventTime=5), "BAD_TIME"),
        (text("x" * 128), None),
        (text("x" * 129), "BAD_LABEL"),
        (text(7), "BAD_LABEL"),
        (text(" "), "BAD_LABEL"),
        (text("\ud800"), "BAD_LABEL"),
        (text(source="guess"), "BAD_SCHEMA"),
        (text(source=["audit"]), "BAD_SCHEMA"),
        (text(author="\n"), "BAD_SCHEMA"),
        (text(eventId=None), "BAD_SCHEMA"),
        (text().replace(b'"CSV"', b'"BASE64"'), "BAD_SCHEMA"),
        (text().replace(b'"0"', b'"1"'), "BAD_SCHEMA"),
        (b"[" * 10_000, "NOT_JSON"),
        (b"1" * 10_000, "NOT_JSON"),
        (b"[]", "BAD_SCHEMA"),
        (b"\xff", "NOT_UTF8"),
    ],
)
def test_each_reason(content: bytes, expected: str | None) -> None:
    assert reason(content) == expected


def test_the_label_set_only_counts_where_there_is_a_model() -> None:
    assert reason(text("x"), frozenset({"7"})) == "UNKNOWN_LABEL"
    assert reason(text("x"), None) is None


@given(st.binary(max_size=200), st.sampled_from(["jsonl", "csv"]))
@settings(max_examples=300, deadline=None)
def test_any_line_is_judged(content: bytes, records: str) -> None:
    result = Judge(SOURCE, records, None)(Line(1, 0, content))
    if isinstance(result, Rejection):
        assert json.loads(result.to_line(SOURCE))["reason"] == result.reason


def test_sequencers_of_different_lengths_compare_after_padding() -> None:
    assert padded_sequencer("FF") < padded_sequencer("0100") < padded_sequencer("1FF")


def label(identifier: str, name: str, time: str = "t1", sequencer: str = "1") -> Label:
    return Label(identifier, name, time, None, "correction", sequencer)


def test_the_merge_does_not_depend_on_order_and_merging_again_changes_nothing() -> None:
    statements = [label(f"i{i % 5}", str(i), time=f"t{i % 3}", sequencer=str(i % 4)) for i in range(60)]
    expected = merge({}, statements)
    for seed in range(20):
        random.Random(seed).shuffle(statements)
        assert merge({}, statements) == expected
    assert merge(expected, statements) == expected


def test_the_newest_holds_by_time_then_sequencer() -> None:
    merged = merge(
        {}, [label("i", "new", "t2", "1"), label("i", "old", "t1", "9"), label("i", "x", "t2", "0")]
    )
    assert merged["i"].label == "new"


def test_only_a_different_label_is_new() -> None:
    before = merge({}, [label("a", "1"), label("b", "2")])
    after = merge(before, [label("a", "1", "t9"), label("b", "3", "t9"), label("c", "3")])
    assert changed(before, after) == {"3": 2}
    assert per_label(after) == {"1": 1, "3": 2}


def test_labels_survive_their_files() -> None:
    whole = Label("i", "ü", "t", "ann", "audit", "s")
    assert list(read_merged("k", [whole.to_line()])) == [whole]
    assert list(read_accepted("k", [whole.to_accepted_line()])) == [whole]
    anonymous = label("i", "7")
    assert list(read_accepted("k", [anonymous.to_accepted_line()])) == [anonymous]


@pytest.mark.parametrize("reader", [read_merged, read_accepted])
@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"{"])
def test_foreign_lines_are_found(reader: Any, line: bytes) -> None:
    with pytest.raises(DatasetInvalid, match="line 1 of k"):
        list(reader("k", [line]))


def test_the_version_is_that_of_the_training_data() -> None:
    base = [ObjectInfo("base/a", "1", 5), ObjectInfo("base/b", "2", 5)]
    labels = merge({}, [label("a", "1"), label("b", "2")])
    version = dataset_version(base, labels)
    assert dataset_version(reversed(base), dict(reversed(labels.items()))) == version
    assert dataset_version(base, merge(labels, [label("a", "1", "t9")])) == version
    assert dataset_version(base, merge(labels, [label("a", "2", "t9")])) != version
    assert dataset_version(base[:1], labels) != version
    assert dataset_version([ObjectInfo("base/a", "9", 5), base[1]], labels) != version


@pytest.mark.parametrize("champion", [None, ChampionModel("arn", "s3://b/k", "g1", "old")])
def test_a_dataset_survives_its_file(champion: ChampionModel | None) -> None:
    dataset = Dataset("g1", "t", "v", None, "s3://b/base/", 1, 1, {"7": 1}, ("k",), 3, champion)
    assert Dataset.from_json(dataset.to_json(), "x") == dataset


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 2}', b"[]"])
def test_a_foreign_dataset_is_named(content: bytes) -> None:
    with pytest.raises(DatasetInvalid, match="s3://b/x is not a dataset"):
        Dataset.from_json(content, "s3://b/x")


def test_a_manifest_is_sagemakers() -> None:
    assert json.loads(manifest("b", ["k"])) == [{"prefix": "s3://b/"}, "k"]
