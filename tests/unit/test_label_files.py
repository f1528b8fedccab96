"""Statements and versions survive their files; the capture index says what the capture objects hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truthloop.errors import DatasetInvalid
from truthloop.versions.captures import Indexed, Lookup, index_lines, read_segment
from truthloop.versions.dataset import (
    ChampionModel,
    Dataset,
    GroundTruth,
    ObjectInfo,
    dataset_version,
    manifest,
)
from truthloop.versions.labels import Kept, Origin, Reader, Statement, changed, per_label

ORIGIN = Origin("ground-truth/inbox/a.jsonl", "v1", 3, 412, "2026-11-22T10:00:00.000000Z")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def statement(identifier: str, label: str, time: str = "t1", **more: Any) -> Statement:
    fields: dict[str, Any] = {"author": None, "source": "correction", "sequencer": "1", "origin": ORIGIN}
    return Statement(identifier, label, time, **{**fields, **more})


def image(key: str, label: str, **more: Any) -> Statement:
    return statement(f"image:{key}", label, image=key, **more)


@given(TEXT, TEXT, st.none() | TEXT, st.none() | TEXT)
def test_statements_survive_their_files(
    identifier: str, label: str, author: str | None, key: str | None
) -> None:
    whole = statement(identifier, label, author=author, image=key, source="audit")
    assert list(Reader().accepted("k", [whole.to_accepted_line()])) == [whole]
    line = whole.to_statement_line(captured=True, trained=False)
    assert list(Reader().kept("k", [line])) == [Kept(whole, captured=True, trained=False)]
    assert b"\n" not in line[:-1]


def test_a_statement_turns_back_into_what_its_author_uploaded() -> None:
    said = json.loads(statement("i", "ü", author="ann").to_record())
    assert said == {
        "groundTruthData": {"data": "ü", "encoding": "CSV"},
        "eventMetadata": {"eventId": "i", "eventTime": "t1", "source": "correction", "author": "ann"},
        "eventVersion": "0",
    }
    said = json.loads(image("ground-truth/images/a.png", "7").to_record())
    assert said == {
        "source-ref": "ground-truth/images/a.png",
        "label": "7",
        "eventTime": "t1",
        "source": "correction",
    }


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"{", b'{"eventMetadata": 1}', b'"x"'])
def test_foreign_lines_are_found(line: bytes) -> None:
    with pytest.raises(DatasetInvalid, match="line 1 of k"):
        list(Reader().accepted("k", [line]))
    with pytest.raises(DatasetInvalid, match="line 2 of k"):
        list(Reader().kept("k", [line]))
    with pytest.raises(DatasetInvalid, match="line 1 of k"):
        list(read_segment("k", [line]))


def test_a_statement_that_lacks_its_text_is_foreign() -> None:
    line = statement("i", "7").to_accepted_line().replace(b'"7"', b"7")
    with pytest.raises(DatasetInvalid, match="must be text"):
        list(Reader().accepted("k", [line]))


def test_only_a_different_label_is_new() -> None:
    after = {"a": statement("a", "1", "t9"), "b": statement("b", "3"), "c": statement("c", "3")}
    assert changed({"a": "1", "b": "2"}, after) == {"3": 2}
    assert per_label(after) == {"1": 1, "3": 2}


def test_the_version_is_that_of_the_training_data() -> None:
    base = [ObjectInfo("base/a", "1", 5), ObjectInfo("base/b", "2", 5)]
    labels = {"a": statement("a", "1"), "image:k": image("k", "2")}
    tags = {"k": "etag"}
    version = dataset_version(base, labels, tags)
    assert dataset_version(reversed(base), dict(reversed(labels.items())), tags) == version
    assert dataset_version(base, labels | {"a": statement("a", "1", "t9", author="bob")}, tags) == version
    assert dataset_version(base, labels | {"a": statement("a", "2")}, tags) != version
    assert dataset_version(base[:1], labels, tags) != version
    assert dataset_version([ObjectInfo("base/a", "9", 5), base[1]], labels, tags) != version
    assert dataset_version(base, labels, {"k": "another"}) != version


@pytest.mark.parametrize("champion", [None, ChampionModel("arn", "s3://b/k", "g1", "old")])
def test_a_dataset_survives_its_file(champion: ChampionModel | None) -> None:
    truth = GroundTruth(1, 1, {"7": 1}, 9, 2, 3, 4, 5, 6)
    dataset = Dataset("g1", "t", "v", None, "s3://b/base/", truth, ("k",), 1, champion, ("c",))
    assert Dataset.from_json(dataset.to_json(), "x") == dataset
    line = dataset.to_line()
    assert b"\n" not in line[:-1]
    assert Dataset.from_json(line, "x").capture_keys == ("c",)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"version": 2}', b"[]"])
def test_a_foreign_dataset_is_named(content: bytes) -> None:
    with pytest.raises(DatasetInvalid, match="s3://b/x is not a dataset"):
        Dataset.from_json(content, "s3://b/x")


def test_a_manifest_is_sagemakers() -> None:
    assert json.loads(manifest("b", ["k"])) == [{"prefix": "s3://b/"}, "k"]


# -- the capture index -------------------------------------------------------------------------------------


def capture(metadata: Any, given: Any) -> bytes:
    return json.dumps({"eventMetadata": metadata, "captureData": {"endpointInput": given}}).encode()


def test_only_records_that_captured_their_input_count() -> None:
    given = {"data": "AAAA", "encoding": "BASE64"}
    lines = [
        capture({"inferenceId": "named", "eventId": "e1"}, given),
        capture({"eventId": "e2"}, given),
        capture({"eventId": "e2"}, given),
        capture({"eventId": "no-input"}, None),
        capture({"eventId": "empty"}, {"data": ""}),
        capture({"eventId": 7}, given),
        capture({}, given),
        capture([], given),
        b"",
        b"[]",
        b'{"eventMetadata": {"eventId": "cut off"}, "capt',
    ]
    assert list(index_lines("c", lines)) == [Indexed("c", ("named", "e2"))]


def test_an_empty_capture_object_is_covered_too() -> None:
    assert list(index_lines("c", [])) == [Indexed("c", ())]


def test_a_capture_object_of_many_records_takes_several_lines() -> None:
    lines = [capture({"eventId": str(i)}, {"data": "x"}) for i in range(10_001)]
    indexed = list(index_lines("c", lines))
    assert [len(line.ids) for line in indexed] == [10_000, 1]
    assert list(read_segment("k", [line.to_line() for line in indexed])) == indexed


def test_an_id_may_be_in_several_capture_objects() -> None:
    lookup = Lookup(["a", "b", "c"])
    for indexed in (Indexed("x", ("a", "z")), Indexed("w", ("a", "b")), Indexed("x", ("a",))):
        lookup.note(indexed)
    assert "a" in lookup
    assert "c" not in lookup
    assert "z" not in lookup
    assert lookup.captures_of(["a"]) == ("w", "x")
    assert lookup.captures_of(["b", "c", "unasked"]) == ("w",)
