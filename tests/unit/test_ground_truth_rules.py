"""Which of several labels holds, and what a dataset version is."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from truthloop.dataset import ChampionModel, Dataset, ObjectInfo, dataset_version, manifest
from truthloop.errors import DatasetInvalid
from truthloop.labels import Label, changed, merge, per_label, read_accepted, read_merged


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
