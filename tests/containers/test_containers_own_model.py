"""The model of docs/own-model.md, from the page into the images: checked, trained, compared and served."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import torch

from common.contract import Paths
from common.errors import ArtifactError
from models import artifact
from models.artifact import ModelCard
from models.catalogue import names
from models.check.kit import inspect
from models.interface import ModelShape
from tests.containers.conftest import CONTAINERS, Digit, Job
from tests.containers.test_containers_inference import Server
from training import train

PAGE = CONTAINERS.parent / "docs/own-model.md"
LABELS = [str(digit) for digit in range(10)]


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


@dataclass(frozen=True)
class Line:
    """What the entry points have made of the example beside a champion of the shipped kind."""

    containers: Path
    train: Job
    log: str
    evaluate: Job


def shard(target: Path, digits: list[Digit]) -> None:
    target.mkdir(parents=True)
    columns = {
        "example_id": [digit.name for digit in digits],
        "image": [digit.png for digit in digits],
        "label": [digit.label for digit in digits],
        "source": ["base"] * len(digits),
        "time": [""] * len(digits),
    }
    pl.DataFrame(columns).write_parquet(target / "part-00000.parquet")


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, digits: list[Digit]) -> Line:
    root = tmp_path_factory.mktemp("own")
    containers = root / "containers"
    shutil.copytree(CONTAINERS, containers, ignore=shutil.ignore_patterns("__pycache__", "pipeline"))
    (containers / "models/architectures/squeeze.py").write_text(example())
    champion = Job(root / "champion")
    card = ModelCard("convnet", LABELS, 16, 1, "g00000001", "old")
    artifact.save(champion.base / "model", card, card.build())

    train = Job(root / "train", containers)
    shard(train.base / "input/data/train", digits[:500])
    champion.pack_model(train.base / "input/data/champion")
    train.hyperparameters(
        candidate="new",
        generation="g00000002",
        architectures="convnet,squeeze",
        epochs="6",
        batch_size="32",
        model_width="12",
    )
    log = train.run("training", "train", OMP_NUM_THREADS="1")

    evaluate = Job(root / "evaluate", containers)
    shard(evaluate.inputs / "holdout", digits[500:650])
    evaluate.dataset("g00000002")
    for name, job in (("champion", champion), ("old", champion), ("new", train)):
        job.pack_model(evaluate.inputs / name)
    evaluate.run("training", "evaluate", ACCURACY_THRESHOLD="0.6", OMP_NUM_THREADS="1")
    return Line(containers, train, log, evaluate)


def test_the_example_keeps_every_promise(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    file = tmp_path / "squeeze.py"
    file.write_text(example())
    findings = inspect(file, ModelShape(10, 32, 3), {"width": 4, "stages": 2})
    assert all(finding.kept for finding in findings), "\n".join(map(str, findings))
    assert "squeeze" not in names()


def test_the_example_is_trained_on_its_own_input_beside_the_champion(line: Line) -> None:
    card = artifact.load_card(line.train.base / "model")
    assert (card.architecture, card.image_size, card.channels) == ("squeeze", 32, 3)
    assert card.values == {"width": 12, "stages": 3, "excitation": "on"}
    assert '"fine_tuned": false' in line.log


def test_the_example_is_compared_with_the_champion(line: Line) -> None:
    found = line.evaluate.output("evaluation/evaluation.json")
    assert found["models"]["new"]["architecture"] == "squeeze"
    assert found["models"]["new"]["accuracy"] > 0.8
    assert found["recommendation"]["candidate"] == "new"


def test_the_example_is_served(line: Line, digits: list[Digit]) -> None:
    server = Server(Job(line.train.base, line.containers))
    try:
        server.ping_until(200)
        right = 0
        for digit in digits[650:680]:
            status, answer = server.request("POST", "/invocations", digit.png)
            assert (status, answer["model"]) == (200, "g00000002/new")
            right += answer["label"] == digit.label
        assert right > 20
    finally:
        assert server.end() == 0


def test_images_without_the_file_say_what_is_missing(line: Line, tmp_path: Path) -> None:
    # Its file was removed from the images while it is the champion
    job = Job(tmp_path / "old")
    shutil.copytree(line.train.base / "input/data/train", job.base / "input/data/train")
    line.train.pack_model(job.base / "input/data/champion")
    job.hyperparameters(candidate="old", generation="g00000003")
    with pytest.raises(ArtifactError) as caught:
        train.main(Paths(job.base))
    assert "model g00000002/new cannot be built: unknown architecture 'squeeze'" in str(caught.value)
    assert "containers/models/architectures/squeeze.py must be in the images" in str(caught.value)
