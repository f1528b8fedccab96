"""Training by several processes, and training that is interrupted: real processes, real digits."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from common.contract import Paths
from common.errors import ContractError, RecordError, TooLittleDataError
from common.imaging import decode, to_input
from tests.containers.conftest import Digit, Job, NewJob
from tests.containers.test_containers_inference import free_port
from training import store, train
from training.checkpoints import Checkpoints, Progress, Trained
from training.loader import Loader
from training.sampler import Sampler
from training.store import Shards
from training.trainer import Settings, decay_at

BASE = {"candidate": "old", "generation": "g00000001", "epochs": "4", "batch_size": "64", "seed": "3"}


def write_shards(directory: Path, digits: list[Digit], rows: int = 300) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for number, first in enumerate(range(0, len(digits), rows)):
        part = digits[first : first + rows]
        columns = {
            "example_id": [digit.name for digit in part],
            "image": [digit.png for digit in part],
            "label": [digit.label for digit in part],
            "source": ["base"] * len(part),
            "time": [""] * len(part),
        }
        pl.DataFrame(columns).write_parquet(directory / f"part-{number:05}.parquet")
    return directory


def prepare(job: Job, digits: list[Digit], **hyperparameters: str) -> Job:
    write_shards(job.base / "input/data/train", digits)
    job.hyperparameters(**{**BASE, **hyperparameters})
    return job


def epochs_of(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == "epoch"]


def weights_of(job: Job) -> dict[str, torch.Tensor]:
    return load_file(job.base / "model/model.safetensors")


# -- which rank sees what ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)  # machines are shared and noisy
@given(
    count=st.integers(1, 400),
    batch_size=st.integers(1, 100),
    world_size=st.integers(1, 8),
    accumulation=st.integers(1, 3),
    first=st.integers(0, 5),
)
def test_ranks_share_every_example_without_overlap_or_loss(
    count: int, batch_size: int, world_size: int, accumulation: int, first: int
) -> None:
    samplers = Sampler(count, batch_size, 7, world_size, accumulation)
    alone = Sampler(count, batch_size, 7)
    ranks = [list(samplers.batches(2, rank, first)) for rank in range(world_size)]
    seen: list[int] = []
    for step, together in enumerate(zip(*ranks, strict=True), first):
        shares = [indices for batch in together for indices, _ in batch.parts]
        assert all(batch.step == step and batch.whole.equal(together[0].whole) for batch in together)
        assert sorted(torch.cat(shares).tolist()) == sorted(together[0].whole.tolist())
        seen += together[0].whole.tolist()
    skipped = sum(end - start for start, end in samplers.bounds[:first])
    assert seen == samplers.order(2).tolist()[skipped:]
    assert alone.order(2).equal(samplers.order(2))
    assert not alone.order(1).equal(alone.order(2)) or count < 5


def test_the_same_example_meets_the_same_noise_in_any_world() -> None:
    def noise(world_size: int) -> dict[int, list[float]]:
        found = {}
        for rank in range(world_size):
            for batch in Sampler(100, 32, 1, world_size).batches(1, rank):
                for indices, values in batch.parts:
                    found |= dict(zip(indices.tolist(), values.tolist(), strict=True))
        return found

    assert noise(1) == noise(3) == noise(4)


# -- the store and the loader ------------------------------------------------------------------------------


def test_the_store_holds_every_image_decoded_however_many_decode(tmp_path: Path, digits: list[Digit]) -> None:
    shards = Shards.open(write_shards(tmp_path / "train", digits[:250], rows=100))
    expected = np.stack([to_input(decode(digit.png), 12, 3) for digit in digits[:250]])
    for processes in (1, 2):
        target = tmp_path / f"{processes}.pixels"
        store.build(target, shards, 12, 3, processes)
        assert np.array_equal(store.read(target, shards, 12, 3), expected)
    assert shards.labels == tuple(digit.label for digit in digits[:250])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pixels", "2.pixels", "train"]


def test_damaged_shards_are_named(tmp_path: Path, digits: list[Digit]) -> None:
    with pytest.raises(TooLittleDataError, match="holds no Parquet shard"):
        Shards.open(tmp_path / "nowhere")
    directory = write_shards(tmp_path / "train", digits[:20], rows=10)
    broken = pl.read_parquet(directory / "part-00001.parquet")
    images = broken["image"].to_list()
    images[3] = b"no image"
    broken.with_columns(image=pl.Series(images, dtype=pl.Binary)).write_parquet(
        directory / "part-00001.parquet"
    )
    with pytest.raises(RecordError, match=r"row 3 of .*part-00001.parquet: the bytes are neither"):
        store.build(tmp_path / "x.pixels", Shards.open(directory), 16, 1)
    (directory / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="is a damaged shard"):
        Shards.open(directory)


def test_an_error_while_reading_ahead_is_raised_to_the_model() -> None:
    pixels = np.zeros((10, 1, 4, 4), np.uint8)
    loader = Loader(pixels, torch.zeros(10, dtype=torch.int64), torch.device("cpu"))
    batches = Sampler(20, 5, 0).batches(1, 0)  # of a larger store than there is
    with pytest.raises(IndexError):
        list(loader.load(batches))
    good = list(loader.load(Sampler(10, 5, 0).batches(1, 0)))
    assert [len(batch.whole_targets) for batch in good] == [5, 5]
    assert loader.waited >= 0


# -- several processes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, digits: list[Digit]) -> tuple[Job, list[dict[str, Any]]]:
    job = prepare(Job(tmp_path_factory.mktemp("alone")), digits[:900])
    return job, epochs_of(job.run("training", "train"))


LOSS_TOLERANCE, ACCURACY_TOLERANCE = 0.1, 0.05
"""What batch normalisation over shares of a batch may change on a CPU; docs/training.md states it."""


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_learn_what_one_learns(
    job: Job, digits: list[Digit], alone: tuple[Job, list[dict[str, Any]]], processes: int
) -> None:
    log = prepare(job, digits[:900], processes_per_host=str(processes)).run(
        "training", "train", MASTER_PORT=str(free_port())
    )
    found = epochs_of(log)
    assert [line["rank"] for line in found] == [0] * 4  # one process speaks for all, and says who it is
    for mine, expected in zip(found, alone[1], strict=True):
        assert mine["train_loss"] == pytest.approx(expected["train_loss"], abs=LOSS_TOLERANCE)
        assert mine["train_accuracy"] == pytest.approx(expected["train_accuracy"], abs=ACCURACY_TOLERANCE)
    assert weights_of(job).keys() == weights_of(alone[0]).keys()
    assert not (job.base / "scratch").exists()


def test_two_instances_train_one_model(new_job: NewJob, digits: list[Digit]) -> None:
    hosts = ["127.0.0.1", "localhost"]
    port, processes, jobs = str(free_port()), [], []
    for host in hosts:
        job = prepare(new_job(host), digits[:300], epochs="1")
        job.write("input/config/resourceconfig.json", json.dumps({"current_host": host, "hosts": hosts}))
        jobs.append(job)
        processes.append(job.start("training", "train", MASTER_PORT=port))
    logs = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    assert [len(epochs_of(log)) for log in logs] == [1, 0]
    assert [(job.base / "model").is_dir() for job in jobs] == [True, False]


def test_a_rank_that_fails_ends_the_job_with_its_reason_and_code(job: Job, digits: list[Digit]) -> None:
    prepare(job, digits[:8], processes_per_host="4", batch_size="4", accumulation="2")
    job.run("training", "train", code=2, MASTER_PORT=str(free_port()))
    assert job.failure.startswith("TooLittleDataError: 8 training examples are too few for 4 processes")


def test_a_host_that_is_not_in_the_job_is_refused(job: Job, digits: list[Digit]) -> None:
    prepare(job, digits[:50])
    job.write("input/config/resourceconfig.json", json.dumps({"current_host": "c", "hosts": ["a", "b"]}))
    job.run("training", "train", code=2)
    assert "lists ['a', 'b'], without c" in job.failure


# -- interrupted, and gone on ------------------------------------------------------------------------------


def total_steps(job: Job) -> int:
    files = sorted((job.base / "checkpoints").glob("*.safetensors"))
    return int(files[-1].stem) if files else 0


@pytest.mark.parametrize(("ending", "processes"), [("kill", 1), ("stop", 1), ("stop", 2)])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    new_job: NewJob, digits: list[Digit], ending: str, processes: int
) -> None:
    asked = {"epochs": "25", "processes_per_host": str(processes), "checkpoint_seconds": "0.2"}
    whole = prepare(new_job("whole"), digits[:600], **asked)
    expected = epochs_of(whole.run("training", "train", MASTER_PORT=str(free_port())))
    job = prepare(new_job("interrupted"), digits[:600], **asked)
    chance = random.Random(processes)
    found: list[dict[str, Any]] = []
    for _ in range(3):
        process = job.start("training", "train", MASTER_PORT=str(free_port()))
        before = total_steps(job)
        until = time.monotonic() + 60
        while total_steps(job) <= before and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(chance.random() * 0.4)
        process.send_signal(signal.SIGKILL if ending == "kill" else signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        if ending == "stop" and process.returncode == 143:
            stopped = next(json.loads(line) for line in log.splitlines() if '"stopped"' in line)
            assert stopped["total_steps"] == total_steps(job)  # nothing at all is lost
        found += epochs_of(log)
        # An instance that is replaced starts with empty disks, checkpoints aside.
        shutil.rmtree(job.base / "scratch", ignore_errors=True)
    log = job.run("training", "train", MASTER_PORT=str(free_port()))
    assert "going on from a checkpoint" in log
    assert job.failure == ""
    curve = {line["epoch"]: line["train_loss"] for line in found + epochs_of(log)}
    assert sorted(curve) == list(range(1, 26))
    for line in expected:
        assert curve[line["epoch"]] == pytest.approx(line["train_loss"], abs=0.02)
    for name, weight in weights_of(whole).items():
        torch.testing.assert_close(weights_of(job)[name], weight, atol=1e-4, rtol=1e-4)


def test_a_checkpoint_that_was_cut_off_or_is_of_another_run_is_passed_over(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    trained = Trained({"model": model}, optimiser)
    checkpoints = Checkpoints(tmp_path, "this")
    for step in (10, 20, 30):
        checkpoints.save(Progress("this", epoch=2, step=step, total_steps=step), trained)
    names = [f"{step:012d}.safetensors" for step in (20, 30)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    content = (tmp_path / names[1]).read_bytes()
    (tmp_path / names[1]).write_bytes(content[: len(content) // 2])
    found = checkpoints.newest()
    assert found is not None
    progress, tensors = found
    assert (progress.step, progress.epoch) == (20, 2)
    torch.nn.init.zeros_(model.weight)
    trained.load(tensors)
    assert model.weight.abs().sum() > 0
    assert trained.tensors().keys() == tensors.keys()
    assert all(value.equal(tensors[name]) for name, value in trained.tensors().items())
    assert Checkpoints(tmp_path, "another").newest() is None
    assert Checkpoints(tmp_path / "nowhere", "this").newest() is None


# -- hyperparameters ---------------------------------------------------------------------------------------


def test_training_stops_when_nothing_is_gained_and_keeps_the_best(job: Job, digits: list[Digit]) -> None:
    log = prepare(job, digits[:300], epochs="60", patience="2", validation_share="0.3").run(
        "training", "train"
    )
    lines = [json.loads(line) for line in log.splitlines()]
    measured = [line["validation_accuracy"] for line in lines if line["message"] == "validation"]
    start = next(line for line in lines if line["message"] == "training")
    assert start["examples"] + start["validation"] == 300
    assert 60 < start["validation"] < 120
    best = measured.index(max(measured))
    assert len(measured) == best + 3 < 60
    assert (job.base / "model/model.safetensors").is_file()


def test_what_one_part_learns_several_parts_learn(
    job: Job, digits: list[Digit], alone: tuple[Job, list[dict[str, Any]]]
) -> None:
    found = epochs_of(prepare(job, digits[:900], accumulation="2").run("training", "train"))
    for mine, expected in zip(found, alone[1], strict=True):
        assert mine["train_loss"] == pytest.approx(expected["train_loss"], abs=LOSS_TOLERANCE)


def test_class_weights() -> None:
    from collections import Counter

    labels, counts = ["a", "b"], Counter({"a": 30, "b": 10})
    assert train.weights_of("none", labels, counts) == ()
    assert train.weights_of("balanced", labels, counts) == (40 / 60, 2.0)
    assert train.weights_of('{"b": 3}', labels, counts) == (1.0, 3.0)
    for asked, message in (
        ("much", "none, balanced or a JSON object"),
        ("[1]", "none, balanced or a JSON object"),
        ('{"c": 1}', r"no example is labelled \['c'\]"),
        ('{"a": 0}', "every weight must be above 0"),
    ):
        with pytest.raises(ContractError, match=message):
            train.weights_of(asked, labels, counts)


def test_the_average_forgets_quickly_at_first() -> None:
    assert [round(decay_at(step, 0.999), 3) for step in (0, 10, 90, 100_000)] == [0.1, 0.55, 0.91, 0.999]


def test_hyperparameters_reach_the_settings(job: Job, digits: list[Digit]) -> None:
    from common.contract import hyperparameters

    prepare(job, digits[:10], weight_decay="0.1", label_smoothing="0", ema_decay="0", deterministic="true")
    settings = train.read_job(hyperparameters(Paths(job.base))).settings
    assert settings == Settings(
        4, 64, 0.0, seed=3, weight_decay=0.1, label_smoothing=0.0, ema_decay=0.0, deterministic=True
    )
    job.hyperparameters(**BASE, processes_per_host="65")
    with pytest.raises(ContractError, match="processes_per_host is 65: it must be between 0 and 64"):
        train.main(Paths(job.base))
