"""The line that a pipeline runs: prepare, train both candidates, evaluate; first without a champion, then
with one whose inputs have drifted. Real digits, real training, real processes."""

from __future__ import annotations

import json
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from common.contract import Paths
from common.errors import ContainerError
from common.imaging import decode, to_input
from evaluation import evaluate
from evaluation.predict import predict
from models import artifact
from tests.containers.conftest import Digit, Job, NewJob, capture_line, label_line, lines
from training import train
from training.settings import rate_at

EPOCHS = "12"


@dataclass(frozen=True)
class Run:
    """What one run of the line left behind."""

    prepare: Job
    trained: dict[str, Job]
    evaluate: Job
    packed: dict[str, Path]
    logs: dict[str, str]

    def model(self, candidate: str) -> Path:
        return self.trained[candidate].base / "model"


def run_line(root: Path, generation: str, prepare: Job, champion: Path | None) -> Run:
    prepare.run("training", "prepare")
    trained, packed, logs, processes = {}, {}, {}, {}
    for candidate in ("old", "new"):
        job = Job(root / candidate)
        shutil.copytree(prepare.outputs / "train", job.base / "input/data/train")
        if champion:
            job.write("input/data/champion/runs/g/models/job/output/model.tar.gz", champion.read_bytes())
        job.hyperparameters(candidate=candidate, generation=generation, epochs=EPOCHS)
        trained[candidate], processes[candidate] = job, job.start("training", "train")
    evaluate = Job(root / "evaluate")
    for candidate, process in processes.items():
        _, logs[candidate] = process.communicate(timeout=120)
        assert process.returncode == 0, logs[candidate]
        packed[candidate] = trained[candidate].pack_model(evaluate.inputs / candidate)
    shutil.copytree(prepare.outputs / "holdout", evaluate.inputs / "holdout")
    shutil.copytree(prepare.inputs / "dataset", evaluate.inputs / "dataset")
    if champion:
        evaluate.write_input("champion/runs/g/models/job/output/model.tar.gz", champion.read_bytes())
    evaluate.run("training", "evaluate", ACCURACY_THRESHOLD="0.85")
    return Run(prepare, trained, evaluate, packed, logs)


def answers(model: Path, images: list[bytes]) -> list[str]:
    card, network = artifact.load(model)
    pixels = np.stack([to_input(decode(image), card.image_size, card.channels) for image in images])
    return [
        card.labels[index]
        for index in predict(network, card.transforms().normalise, torch.from_numpy(pixels))
        .argmax(1)
        .tolist()
    ]


def share_right(model: Path, digits: list[Digit], images: list[bytes]) -> float:
    return float(np.mean([a == d.label for a, d in zip(answers(model, images), digits, strict=True)]))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, digits: list[Digit]) -> Run:
    root = tmp_path_factory.mktemp("first")
    prepare = Job(root / "prepare")
    prepare.base_set(digits[:1000])
    prepare.dataset("g00000001")
    return run_line(root, "g00000001", prepare, None)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, digits: list[Digit], first: Run) -> Run:
    """The run after drift: users have labelled 150 mistakes of the champion."""
    root = tmp_path_factory.mktemp("second")
    prepare = Job(root / "prepare")
    prepare.base_set(digits[:1000])
    stream = digits[1000:1300]
    guesses = answers(first.model("old"), [digit.drifted for digit in stream])
    pairs = list(zip(stream, guesses, strict=True))
    wrong = [digit for digit, guess in pairs if guess != digit.label][:150]
    prepare.dataset("g00000002", [label_line(digit.name, digit.label) for digit in wrong], len(wrong))
    prepare.write_input(
        "capture/a.jsonl", lines(capture_line(digit.name, digit.drifted, guess) for digit, guess in pairs)
    )
    return run_line(root, "g00000002", prepare, first.packed["old"])


def test_without_a_champion_two_different_models_are_trained_from_scratch(first: Run) -> None:
    cards = {name: artifact.load_card(first.model(name)) for name in ("old", "new")}
    assert cards["old"].architecture != cards["new"].architecture
    assert cards["old"].labels == [str(digit) for digit in range(10)]
    assert cards["new"].version == "g00000001/new"
    for name in ("old", "new"):
        assert sorted(path.name for path in first.model(name).iterdir()) == [
            "model.json",
            "model.safetensors",
        ]
        assert '"fine_tuned": false' in first.logs[name]
        epochs = [json.loads(line) for line in first.logs[name].splitlines() if '"message": "epoch"' in line]
        assert len(epochs) == int(EPOCHS)
        assert epochs[-1]["train_loss"] < epochs[0]["train_loss"] / 2


def test_the_first_evaluation_recommends_the_better_candidate(first: Run) -> None:
    found = first.evaluate.output("evaluation/evaluation.json")
    assert (found["version"], found["generation"]) == (2, "g00000001")
    assert found["models"]["champion"] is None
    assert found["comparisons"] == {}
    assert found["gate"]["passed"] == 1
    best = max(("old", "new"), key=lambda name: found["models"][name]["accuracy"])
    assert (
        found["models"][found["recommendation"]["candidate"]]["accuracy"] == found["models"][best]["accuracy"]
    )
    for name in ("old", "new"):
        model = found["models"][name]
        assert model["accuracy"] > 0.93
        assert model["accuracyInterval"][0] < model["accuracy"] < model["accuracyInterval"][1]
        newest = {"accuracy": None, "accuracyInterval": None, "macroF1": None, "perClass": {}}
        assert model["newestCorrections"] == {"examples": 0, **newest}
        counts = [count for row in model["confusionMatrix"].values() for count in row.values()]
        assert sum(counts) == found["holdout"]["examples"]
        assert sum(score["support"] for score in model["perClass"].values()) == found["holdout"]["examples"]
        quality = first.evaluate.output(f"evaluation/{name}/statistics.json")
        measured = quality["multiclass_classification_metrics"]["accuracy"]["value"]
        assert measured == pytest.approx(model["accuracy"])
    assert first.evaluate.output("evaluation/labels.json") == [str(digit) for digit in range(10)]


def test_old_goes_on_from_the_champion_and_new_tries_another_architecture(first: Run, second: Run) -> None:
    champion = artifact.load_card(first.model("old"))
    old, new = (artifact.load_card(second.model(name)) for name in ("old", "new"))
    assert old.architecture == champion.architecture
    assert new.architecture != champion.architecture
    assert '"fine_tuned": true' in second.logs["old"]
    assert '"fine_tuned": false' in second.logs["new"]


def test_drift_is_measured_and_retraining_recovers_it(first: Run, second: Run, digits: list[Digit]) -> None:
    # On digits that neither run has seen, drifted and not
    unseen = digits[1300:]
    drifted, straight = [digit.drifted for digit in unseen], [digit.png for digit in unseen]
    assert share_right(first.model("old"), unseen, straight) > 0.95
    assert share_right(first.model("old"), unseen, drifted) < 0.5
    for name in ("old", "new"):
        assert share_right(second.model(name), unseen, drifted) > 0.75
        assert share_right(second.model(name), unseen, straight) > 0.95

    found = second.evaluate.output("evaluation/evaluation.json")
    champion = found["models"]["champion"]
    assert found["holdout"]["newestCorrections"] == champion["newestCorrections"]["examples"] > 15
    assert champion["newestCorrections"]["accuracy"] == 0.0  # the labelled ones are its mistakes
    for name in ("old", "new"):
        comparison = found["comparisons"][name]
        gain = found["models"][name]["accuracy"] - champion["accuracy"]
        assert comparison["accuracyDifference"] == pytest.approx(gain)
        assert 0 < comparison["interval"][0] <= gain <= comparison["interval"][1]
        assert comparison["mcnemar"]["pValue"] < 0.01
        assert comparison["newestCorrections"]["interval"][0] > 0.3
        digest = artifact.weights_digest(second.model(name))
        assert found["models"][name]["weightsSha256"] == digest
        assert (second.evaluate.outputs / f"evaluation/{name}/report.html").exists()
    recommended = found["recommendation"]["candidate"]
    assert recommended in ("old", "new")
    rules = [rule for rule in found["recommendation"]["rules"] if rule["candidate"] == recommended]
    assert len(rules) == 4
    assert all(rule["passed"] for rule in rules)


def test_the_same_seed_gives_the_same_weights(first: Run, new_job: NewJob) -> None:
    job = new_job("again")
    shutil.copytree(first.prepare.outputs / "train", job.base / "input/data/train")
    job.hyperparameters(candidate="old", generation="g00000001", epochs=EPOCHS)
    job.run("training", "train")
    assert (job.base / "model/model.safetensors").read_bytes() == (
        first.model("old") / "model.safetensors"
    ).read_bytes()


def test_a_stop_ends_training_at_once_and_is_no_failure(first: Run, job: Job) -> None:
    shutil.copytree(first.prepare.outputs / "train", job.base / "input/data/train")
    job.hyperparameters(candidate="old", epochs="10000")
    process = job.start("training", "train")
    assert process.stderr
    for line in process.stderr:
        if '"message": "epoch"' in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert job.failure == ""
    assert not (job.base / "model").exists()


def test_a_damaged_champion_fails_the_training_with_the_reason(first: Run, job: Job) -> None:
    shutil.copytree(first.prepare.outputs / "train", job.base / "input/data/train")
    job.write("input/data/champion/model.tar.gz", b"no archive")
    job.hyperparameters(candidate="old")
    job.run("training", "train", code=2)
    assert job.failure.startswith("ArtifactError: ")
    assert "cannot be unpacked" in job.failure


def test_a_diverging_training_fails_with_the_reason(first: Run, job: Job) -> None:
    shutil.copytree(first.prepare.outputs / "train", job.base / "input/data/train")
    # Weights that are no numbers stand for any cause of a loss that is none.
    card, model = artifact.load(first.model("old"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    poisoned = Job(job.base / "poisoned")
    artifact.save(poisoned.base / "model", card, model)
    poisoned.pack_model(job.base / "input/data/champion")
    job.hyperparameters(candidate="old")
    job.run("training", "train", code=1)
    assert job.failure.startswith("TrainingDivergedError: the loss of epoch 1 is nan: lower learning_rate")


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({}, "hyperparameter candidate is missing or empty"),
        ({"candidate": "best"}, "must be one of old, new"),
        ({"candidate": "old", "epochs": "0"}, "hyperparameter epochs is 0"),
        ({"candidate": "old", "chanels": "3"}, "unknown hyperparameter chanels"),
        ({"candidate": "old", "channels": "2"}, "channels is 2"),
        ({"candidate": "old"}, "holds no Parquet shard: did Prepare succeed?"),
    ],
)
def test_bad_hyperparameters_and_missing_data_are_refused(
    job: Job, hyperparameters: dict[str, str], message: str
) -> None:
    job.hyperparameters(**hyperparameters)
    with pytest.raises(ContainerError, match=re.escape(message)):
        train.main(Paths(job.base))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("old/model.tar.gz", "no model.tar.gz below"),
        ("dataset/dataset.json", "the dataset's description cannot be read"),
        ("holdout/part-00000.parquet", "holds no Parquet shard"),
    ],
)
def test_an_evaluation_without_its_inputs_is_refused(
    first: Run, job: Job, monkeypatch: pytest.MonkeyPatch, damage: str, message: str
) -> None:
    shutil.copytree(first.evaluate.inputs, job.inputs)
    (job.inputs / damage).unlink()
    monkeypatch.setenv("ACCURACY_THRESHOLD", "0.85")
    with pytest.raises(ContainerError, match=message):
        evaluate.main(Paths(job.base))


def test_a_damaged_shard_fails_the_evaluation_with_the_reason(first: Run, new_job: NewJob) -> None:
    job = new_job("evaluate")
    shutil.copytree(first.evaluate.inputs, job.inputs)
    (job.inputs / "holdout/part-00000.parquet").write_bytes(b"PAR1 and no more")
    job.run("training", "evaluate", code=2, ACCURACY_THRESHOLD="0.85")
    assert "part-00000.parquet is a damaged shard" in job.failure


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    rates = [rate_at(step, 100) for step in range(101)]
    assert rates[:2] == [0.1, 0.2]
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.0)
