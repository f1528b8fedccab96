"""The evaluation job on real pictures and untrained models: what it writes, refuses and reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from common.contract import Paths
from common.errors import ArtifactError, ContainerError, ContractError, ModelDivergedError, RecordError
from common.imaging import decode, to_input
from dataset.labels import read_labels
from evaluation import evaluate
from evaluation.answers import answer, load_models
from evaluation.holdout import Holdout
from evaluation.parts import parts_of
from models import artifact
from models.artifact import ModelCard
from tests.containers.conftest import Digit, Job, label_line, lines

LABELS = [str(digit) for digit in range(10)]


def write_shards(
    directory: Path, digits: Sequence[Digit], rows: int, corrected: Sequence[Digit] = ()
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    known = {digit.name for digit in corrected}
    for number, start in enumerate(range(0, len(digits), rows)):
        part = digits[start : start + rows]
        columns = {
            "example_id": [digit.name for digit in part],
            "image": [digit.png for digit in part],
            "label": [digit.label for digit in part],
            "source": ["ground-truth" if digit.name in known else "base" for digit in part],
            "time": ["" for _ in part],
        }
        pl.DataFrame(columns).write_parquet(directory / f"part-{number:05d}.parquet")


def pack(
    job: Job, name: str, labels: Sequence[str] = LABELS, *, size: int = 16, broken: bool = False
) -> None:
    """Put an untrained model where the job finds it."""
    torch.manual_seed(len(name))
    made = Job(job.base / f"made-{name}")
    card = ModelCard("convnet", list(labels), size, 1, "g00000001", name)
    model = card.build()
    if broken:
        with torch.no_grad():
            model.get_parameter("head.bias").fill_(float("nan"))
    artifact.save(made.base / "model", card, model)
    made.pack_model(job.inputs / name)


@pytest.fixture
def ready(job: Job, digits: list[Digit], monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job with everything that it needs: 40 pictures, 5 of them corrections, both candidates."""
    monkeypatch.setenv("ACCURACY_THRESHOLD", "0")
    corrected = digits[:5]
    job.dataset("g00000002", [label_line(digit.name, digit.label) for digit in corrected], 5)
    write_shards(job.inputs / "holdout", digits[:40], 15, corrected)
    pack(job, "old")
    pack(job, "new", size=12)
    return job


def name_champion(job: Job) -> None:
    path = job.inputs / "dataset/dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "champion": {"modelPackageArn": "arn"}}))


def run(job: Job) -> None:
    evaluate.main(Paths(job.base))


def test_a_champion_of_other_labels_is_compared_on_what_it_knows(
    ready: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPROVEMENT_MARGIN", "0.02")
    monkeypatch.setenv("MAXIMUM_CLASS_LOSS", "0.13")
    name_champion(ready)
    pack(ready, "champion", ["9", "a class that is gone", "0"])

    run(ready)

    found = ready.output("evaluation/evaluation.json")
    assert ready.output("evaluation/labels.json") == LABELS  # the candidates', not every label of the exam
    bounds = {"accuracyThreshold": 0.0, "improvementMargin": 0.02, "maximumClassLoss": 0.13}
    assert found["bounds"] == bounds
    held = found["holdout"]
    assert (held["examples"], held["base"], held["groundTruth"], held["corrections"]) == (40, 35, 5, 5)
    assert held["newestCorrections"] == 5
    for name, model in found["models"].items():
        assert set(model["perClass"]) == {*LABELS, "a class that is gone"}
        assert model["weightsSha256"] == artifact.weights_digest(ready.base / f"made-{name}/model")
        assert model["parameters"] > 1000
        assert 0 <= model["calibrationError"] <= 1
        assert model["latency"]["device"] == "cpu"
        assert 0 < model["latency"]["batch1"]["medianMs"] <= model["latency"]["batch1"]["p99Ms"]
        assert model["latency"]["batch32"]["imagesPerSecond"] > 0
        newest = model["newestCorrections"]
        assert sum(score["support"] for score in newest["perClass"].values()) == newest["examples"] == 5
    for comparison in found["comparisons"].values():
        assert {change["label"] for change in comparison["classes"]} == {"0", "9"}
        assert comparison["newestCorrections"]["examples"] == 5
        assert comparison["notSelected"]["examples"] == 35
    rules = found["recommendation"]["rules"]
    assert [(rule["candidate"], rule["rule"]) for rule in rules] == [
        (name, rule) for name in ("old", "new") for rule in ("THRESHOLD", "MARGIN", "INTERVAL", "CLASSES")
    ]
    for name in ("old", "new"):
        directory = ready.outputs / "evaluation" / name
        plots = sorted(directory.glob("*.png"))
        assert [path.name for path in plots] == [
            "accuracy.png",
            "classes.png",
            "confusion.png",
            "reliability.png",
        ]
        assert all(path.stat().st_size < 200_000 for path in plots)
        assert (directory / "report.html").stat().st_size < 1_000_000


def test_one_class_alone_and_no_correction_can_be_evaluated(ready: Job, digits: list[Digit]) -> None:
    for path in (ready.inputs / "holdout").iterdir():
        path.unlink()
    write_shards(ready.inputs / "holdout", [digit for digit in digits if digit.label == "3"][:7], 4)

    run(ready)

    found = ready.output("evaluation/evaluation.json")
    assert found["holdout"]["labels"] == 1
    assert (found["models"]["champion"], found["comparisons"]) == (None, {})
    assert found["models"]["new"]["newestCorrections"]["examples"] == 0
    assert [rule["rule"] for rule in found["recommendation"]["rules"]] == ["THRESHOLD", "THRESHOLD"]
    statistics = ready.output("evaluation/new/statistics.json")
    assert statistics["dataset"]["item_count"] == 7


def test_a_champion_that_is_missing_is_not_taken_for_none(ready: Job) -> None:
    name_champion(ready)
    with pytest.raises(ArtifactError, match=r"though the dataset names a champion\. Without it nothing says"):
        run(ready)


def test_a_damaged_champion_is_refused_with_the_way_out(ready: Job) -> None:
    ready.write_input("champion/model.tar.gz", b"no archive")
    with pytest.raises(ArtifactError, match=r"champion\) cannot be loaded.*reject its package"):
        run(ready)


def test_a_champion_of_an_architecture_that_this_image_lacks_is_refused(ready: Job) -> None:
    pack(ready, "champion")
    made = Job(ready.base / "made-champion")
    path = made.base / "model/model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "architecture": "perceptron"}))
    made.pack_model(ready.inputs / "champion")
    with pytest.raises(ArtifactError, match=r"unknown architecture 'perceptron'.*deploy a training image"):
        run(ready)


@pytest.mark.parametrize(
    ("name", "way_out"), [("new", "lower learning_rate"), ("champion", "reject its package")]
)
def test_answers_that_are_no_numbers_are_refused(ready: Job, name: str, way_out: str) -> None:
    pack(ready, name, broken=True)
    with pytest.raises(ModelDivergedError, match=f"examples 0 to 14: .*{way_out}"):
        run(ready)
    assert not (ready.outputs / "evaluation/evaluation.json").exists()


@pytest.mark.parametrize("value", ["much", "-0.1", "nan"])
def test_a_bound_that_is_no_share_is_refused(ready: Job, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAXIMUM_CLASS_LOSS", value)
    with pytest.raises(ContractError, match="MAXIMUM_CLASS_LOSS"):
        run(ready)


def test_a_picture_that_cannot_be_decoded_is_refused(ready: Job) -> None:
    path = ready.inputs / "holdout/part-00001.parquet"
    table = pl.read_parquet(path)
    table = table.with_columns(pl.Series("image", [b"no image", *table["image"].to_list()[1:]]))
    table.write_parquet(path)
    with pytest.raises(RecordError, match=r"cannot be decoded: the bytes are neither"):
        run(ready)


def test_the_holdout_is_read_in_batches_and_decoded_once_per_form(
    tmp_path: Path, digits: list[Digit]
) -> None:
    write_shards(tmp_path, digits[:600], 500)
    holdout = Holdout.open(tmp_path)
    forms = [(16, 1), (12, 3), (16, 1)]
    batches = list(holdout.batches(forms))
    assert [len(batch[16, 1]) for batch in batches] == [256, 244, 100]
    for size, channels in forms[:2]:
        expected = np.stack([to_input(decode(digit.png), size, channels) for digit in digits[:600]])
        assert np.array_equal(np.concatenate([batch[size, channels] for batch in batches]), expected)
    assert holdout.labels == tuple(digit.label for digit in digits[:600])


def test_a_shard_is_read_when_it_is_its_turn(tmp_path: Path, digits: list[Digit]) -> None:
    write_shards(tmp_path, digits[:40], 20)
    images = Holdout.open(tmp_path).images(8)
    first = [len(next(images)) for _ in range(3)]
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 and no more")
    assert first == [8, 8, 4]
    with pytest.raises(RecordError, match=r"part-00001\.parquet is a damaged shard"):
        next(images)


def test_an_empty_holdout_is_refused(tmp_path: Path) -> None:
    write_shards(tmp_path, [], 1)
    columns = {name: pl.Series([], dtype=pl.String) for name in ("example_id", "label", "source")}
    pl.DataFrame({**columns, "image": pl.Series([], dtype=pl.Binary)}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ContainerError, match="holds no example"):
        Holdout.open(tmp_path)


def test_corrections_are_told_from_what_nobody_chose_for_a_mistake(job: Job, digits: list[Digit]) -> None:
    write_shards(job.base, digits[:6], 6, digits[:4])
    corrected, audited, decided, uploaded, base = (digit.name for digit in digits[:5])
    said = [
        label_line(corrected, "1", "2026-11-22T10:00:00Z"),
        label_line(audited, "1", "2026-11-22T11:00:00Z", source="audit"),
        label_line(decided, "1", "2026-11-22T12:00:00Z", source="decision"),
        label_line(uploaded, "1", "2026-11-22T13:00:00-01:00", image="images/a.png"),
        # The id of a base example that somebody used for an inference: the picture is the base set's.
        label_line(base, "1", "2026-11-22T13:30:00"),
    ]
    labels = read_labels(job.write("ground-truth.jsonl", lines(said)))
    assert labels["source"].to_list().count("correction") == 3
    holdout = Holdout.open(job.base)
    parts = parts_of(holdout, labels, 3)
    assert parts.ground_truth.tolist() == [True] * 4 + [False] * 2
    assert parts.selected.tolist() == [True, False, True, False, False, False]
    assert parts.newest.tolist() == [False, False, True, True, False, False]
    assert not parts_of(holdout, labels, 0).newest.any()
    assert parts_of(holdout, labels, 99).newest.tolist() == parts.ground_truth.tolist()
    nothing = read_labels(job.base / "missing.jsonl")
    assert not parts_of(holdout, nothing, 0).selected.any()


def test_each_model_answers_in_its_own_labels(ready: Job, digits: list[Digit]) -> None:
    # Given models that know other labels, in another order, than the exam
    pack(ready, "champion", ["9", "a class that is gone", "0"])
    contestants = load_models(Paths(ready.base), has_champion=True)
    holdout = Holdout.open(ready.inputs / "holdout")
    labels = sorted({*LABELS, "a class that is gone"}, reverse=True)
    truth = np.array([labels.index(label) for label in holdout.labels], np.int32)
    # When
    said = answer(contestants, holdout, truth, labels)
    # Then
    for name, each in contestants.items():
        size, channels = each.form
        pixels = np.stack([to_input(decode(digit.png), size, channels) for digit in digits[:40]])
        with torch.inference_mode():
            logits = each.model(each.card.transforms().normalise(torch.from_numpy(pixels)))
        sure, best = logits.softmax(1).max(1)
        expected = [each.card.labels[row] for row in best.tolist()]
        assert [labels[row] for row in said[name].predicted] == expected
        assert said[name].confidence == pytest.approx(sure.numpy(), abs=1e-5)
        assert said[name].right.tolist() == [a == b for a, b in zip(expected, holdout.labels, strict=True)]
