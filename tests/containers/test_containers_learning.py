"""What training learns, from what and how exactly: in this process, on real digits."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from common.contract import EXIT_STOPPED, Paths, hyperparameters
from common.errors import (
    ContractError,
    RecordError,
    TooLittleDataError,
    TrainingDivergedError,
    VolumeTooSmallError,
)
from common.imaging import decode, to_input
from common.logs import METRIC_NAMES
from models import transforms
from models.catalogue import find
from models.interface import ModelShape, Transforms
from tests.containers.conftest import Digit, Job
from training import store, train, trainer, world
from training.average import Average, decay_at
from training.checkpoints import Checkpoints, Progress, Trained
from training.loader import Loader
from training.sampler import Sampler
from training.settings import Settings, rate_at
from training.store import Store
from training.trainer import Examples, Training
from training.world import World

SIZE = 12


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Leave the process as it was: training takes SIGTERM, threads and torch's settings for its own."""
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.set_num_threads(threads)
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)


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


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Have the kernel refuse to write more than that to a file, as it does when a disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


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


@pytest.mark.parametrize("processes", [1, 2])
def test_the_store_holds_every_image_decoded_however_many_decode(
    tmp_path: Path, digits: list[Digit], monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(store, "ROWS_AT_ONCE", 30)  # many blocks: the reader must wait for the decoders
    channel = write_shards(tmp_path / "train", digits[:250], rows=100)
    store.build(tmp_path / "scratch", channel, SIZE, 3, processes)
    for path in channel.iterdir():
        path.unlink()  # nobody reads the channel twice
    found = Store.read(tmp_path / "scratch", SIZE, 3)
    assert np.array_equal(found.pixels, [to_input(decode(digit.png), SIZE, 3) for digit in digits[:250]])
    assert found.labels == [digit.label for digit in digits[:250]]
    assert found.example_ids == [digit.name for digit in digits[:250]]


def test_what_a_store_holds_has_a_digest(tmp_path: Path, digits: list[Digit]) -> None:
    def digest(name: str, part: list[Digit]) -> str:
        store.build(tmp_path / name, write_shards(tmp_path / f"{name}-train", part), 8, 1)
        return Store.read(tmp_path / name, 8, 1).digest

    other = [replace(digits[0], label="x"), *digits[1:20]]
    assert digest("a", digits[:20]) == digest("b", digits[:20]) != digest("c", other)


def test_damaged_shards_are_named(tmp_path: Path, digits: list[Digit]) -> None:
    scratch = tmp_path / "scratch"
    with pytest.raises(TooLittleDataError, match="holds no Parquet shard"):
        store.build(scratch, tmp_path / "nowhere", 16, 1)
    empty = write_shards(tmp_path / "empty", digits[:1])
    pl.read_parquet(empty / "part-00000.parquet").head(0).write_parquet(empty / "part-00000.parquet")
    with pytest.raises(TooLittleDataError, match="holds no example"):
        store.build(scratch, empty, 16, 1)
    directory = write_shards(tmp_path / "train", digits[:20], rows=10)
    path = directory / "part-00001.parquet"
    broken = pl.read_parquet(path)
    images = broken["image"].to_list()
    images[3] = b"no image"
    broken.with_columns(image=pl.Series(images, dtype=pl.Binary)).write_parquet(path)
    with pytest.raises(RecordError, match=r"row 3 of .*part-00001.parquet: the bytes are neither"):
        store.build(scratch, directory, 16, 1)
    broken.drop("image").write_parquet(path)
    with pytest.raises(RecordError, match="is a damaged shard"):
        store.build(scratch, directory, 16, 1)
    path.write_bytes(b"PAR1")
    with pytest.raises(RecordError, match="is a damaged shard"):
        store.build(scratch, directory, 16, 1)


def test_a_volume_without_room_is_found_before_anything_is_decoded(
    tmp_path: Path, digits: list[Digit]
) -> None:
    channel = write_shards(tmp_path / "train", digits[:50])
    too_small = pytest.raises(VolumeTooSmallError, match=r"take 204800 bytes in .*raise .*VolumeSizeInGB")
    with largest_file(100_000), too_small:
        store.build(tmp_path / "scratch", channel, 64, 1)
    assert not list((tmp_path / "scratch").iterdir())


def test_an_error_while_reading_ahead_is_raised_to_the_model() -> None:
    pixels = np.arange(10, dtype=np.uint8).repeat(16).reshape(10, 1, 4, 4)
    targets = torch.arange(10)
    loader = Loader(pixels, targets, torch.device("cpu"))
    with pytest.raises(IndexError, match=r"index 1\d is out of bounds"):
        list(loader.load(Sampler(20, 5, 0).batches(1, 0)))  # of a larger store than there is
    loader.reset()
    assert loader.waited == 0
    good = list(loader.load(Sampler(10, 5, 0, 1, 2).batches(1, 0)))
    assert [len(batch.whole_targets) for batch in good] == [5, 5]
    assert all((part.images[:, 0, 0, 0] == part.targets).all() for batch in good for part in batch.parts)
    assert loader.waited > 0


# -- the loop ----------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """A model whose result depends on nothing but what it has learnt from: no statistics, no dropout."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.hidden = nn.Linear(SIZE * SIZE, 32)
        self.head = nn.Linear(32, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.hidden(images.flatten(1)).relu())
        return logits


@pytest.fixture(scope="module")
def examples(digits: list[Digit]) -> Examples:
    part = digits[:240]
    pixels = np.stack([to_input(decode(digit.png), SIZE, 1) for digit in part])
    return Examples(
        pixels, torch.tensor([int(digit.label) for digit in part]), torch.arange(200), torch.arange(200, 240)
    )


BASE = Settings(epochs=3, batch_size=32, learning_rate=3e-3, seed=1, checkpoint_seconds=0)


def plain(seed: int = 0) -> Plain:
    torch.manual_seed(seed)
    return Plain()


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return find("convnet").build(ModelShape(10, SIZE, 1), {})


def learn(
    model: nn.Module,
    examples: Examples,
    asked: Settings,
    directory: Path | None = None,
    given: Transforms | None = None,
) -> dict[str, Tensor]:
    checkpoints = Checkpoints(directory, "r" * 64) if directory else None
    training = Training(
        model, given or transforms.default(), examples, asked, World(), checkpoints, run="r" * 64
    )
    return {name: value.clone() for name, value in training.run().state_dict().items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], **(tolerance or {"atol": 0.0, "rtol": 0.0}))


def metrics_of(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(each)["fields"] for each in caplog.records if each.getMessage() == message]


def test_a_step_is_what_a_plain_loop_would_take(examples: Examples) -> None:
    """Schedule, class weights, label smoothing, clipping and average, beside a loop that does the same."""
    weights = tuple(1 + place / 3 for place in range(10))
    asked = replace(BASE, class_weights=weights, clip_norm=0.2, label_smoothing=0.1, accumulation=3)
    asked = replace(asked, weight_decay=0.3, warm_up_share=0.4)
    found = learn(plain(), examples, asked)

    model, average = plain(), plain()
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=asked.weight_decay, foreach=False)
    sampler = Sampler(200, asked.batch_size, asked.seed)
    given = transforms.default()
    step = 0
    for epoch in range(1, asked.epochs + 1):
        for batch in sampler.batches(epoch, 0):
            ((indices, noise),) = batch.parts
            images = torch.from_numpy(examples.pixels[indices.numpy()])
            logits = model(given.augment(given.normalise(images), noise))
            loss = nn.functional.cross_entropy(
                logits, examples.targets[indices], torch.tensor(weights), label_smoothing=0.1
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)
            optimiser.param_groups[0]["lr"] = asked.learning_rate * rate_at(
                step, 3 * len(sampler.bounds), 0.4
            )
            optimiser.step()
            decay = decay_at(step, asked.ema_decay)
            for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
                mine.data = decay * mine.data + (1 - decay) * theirs.data
            step += 1
    assert_same(found, average.state_dict(), atol=2e-5, rtol=1e-4)


def test_the_same_seed_learns_the_same_weights(examples: Examples) -> None:
    asked = replace(BASE, epochs=1, deterministic=True)
    first = learn(convnet(), examples, asked)
    assert_same(learn(convnet(), examples, asked), first)
    other = learn(convnet(), examples, replace(asked, seed=2))
    assert not other["head.weight"].equal(first["head.weight"])


def test_a_loss_that_is_no_number_ends_the_run(examples: Examples) -> None:
    broken = replace(transforms.default(), normalise=lambda pixels: pixels.float() * float("inf"))
    with pytest.raises(TrainingDivergedError, match="the loss of epoch 1 is nan: lower learning_rate"):
        learn(plain(), examples, replace(BASE, epochs=1), given=broken)


def test_training_stops_when_nothing_is_gained_and_keeps_the_best(
    examples: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = replace(BASE, epochs=40, patience=2, learning_rate=0.05)
    model, given = plain(), transforms.default()
    kept = plain()
    kept.load_state_dict(learn(model, examples, asked))
    measured = [line["validation_accuracy"] for line in metrics_of(caplog, "validation")]
    best = measured.index(max(measured))
    assert len(measured) == best + 3 < 40
    images = torch.from_numpy(examples.pixels[200:])
    right = kept(given.normalise(images)).argmax(1) == examples.targets[200:]
    assert right.double().mean().item() == pytest.approx(max(measured), abs=1e-5)


@pytest.mark.parametrize(("count", "asked"), [(3, {"accumulation": 2}), (40, {"batch_size": 4})])
def test_too_few_examples_for_every_part_are_refused(
    examples: Examples, count: int, asked: dict[str, int]
) -> None:
    few = replace(examples, training=torch.arange(count))
    with pytest.raises(TooLittleDataError, match=r"2 parts each|batch_size is 4.*at least 8"):
        Training(plain(), transforms.default(), few, replace(BASE, **{"accumulation": 2} | asked), World())  # type: ignore[arg-type]


# -- half precision ----------------------------------------------------------------------------------------


def test_half_precision_learns(examples: Examples, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    few = replace(examples, training=torch.arange(96))
    for precision in ("fp16", "fp32"):
        learn(convnet(), few, replace(BASE, epochs=4, learning_rate=0.01, precision=precision))
    lines = metrics_of(caplog, "epoch")
    half, full = ([line["train_loss"] for line in part] for part in (lines[:4], lines[4:]))
    assert half[-1] < 0.8 * half[0]
    assert half[-1] == pytest.approx(full[-1], abs=0.1)


class Overflows(torch.autograd.Function):
    """The identity, whose gradient is infinite when asked."""

    now = False

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient * float("inf") if Overflows.now else gradient


def test_a_step_that_overflows_is_skipped(examples: Examples, caplog: pytest.LogCaptureFixture) -> None:
    """The weights stay, the scale is halved, the average stays a number; schedule and places go on."""
    caplog.set_level(logging.INFO)
    seen: list[tuple[bool, Tensor]] = []

    class Watched(Plain):
        def forward(self, images: Tensor) -> Tensor:
            Overflows.now = len(seen) in (0, 4)
            seen.append((Overflows.now, self.head.weight.detach().clone()))
            logits: Tensor = Overflows.apply(super().forward(images))  # type: ignore[no-untyped-call]
            return logits

    torch.manual_seed(0)
    found = learn(Watched(), examples, replace(BASE, epochs=2, precision="fp16"))
    steps = Sampler(200, 32, 1).steps_per_epoch
    assert len(seen) == 2 * steps
    for (overflowed, before), (_, after) in pairwise(seen):
        assert before.equal(after) == overflowed
    assert all(value.isfinite().all() for value in found.values())
    lines = metrics_of(caplog, "epoch")
    assert [line["skipped_steps"] for line in lines] == [2, 0]
    assert lines[-1]["learning_rate"] == BASE.learning_rate * rate_at(2 * steps - 1, 2 * steps)


# -- interrupted, and gone on ------------------------------------------------------------------------------


def interrupted_after(steps: int) -> Transforms:
    """Transforms that send this process SIGTERM while it learns from batch number `steps`."""
    given, seen = transforms.default(), [0]

    def augment(images: Tensor, noise: Tensor) -> Tensor:
        seen[0] += 1
        if seen[0] == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return given.augment(images, noise)

    return replace(given, augment=augment)


@pytest.mark.parametrize(
    "asked",
    [{}, {"precision": "fp16", "accumulation": 2}, {"patience": 5, "ema_decay": 0.0}],
    ids=["fp32", "fp16", "patience"],
)
def test_a_run_that_is_stopped_at_any_step_ends_with_the_very_same_weights(
    tmp_path: Path, examples: Examples, caplog: pytest.LogCaptureFixture, asked: dict[str, Any]
) -> None:
    caplog.set_level(logging.INFO)
    wanted = replace(BASE, **asked)
    fresh = plain if wanted.precision == "fp16" else convnet  # few CPUs are quick at half a convolution
    expected = learn(fresh(), examples, wanted)
    curve = metrics_of(caplog, "epoch")
    caplog.clear()
    per_epoch = Sampler(200, 32, 1).steps_per_epoch * wanted.accumulation
    for gap in (1, per_epoch - 1, 2, per_epoch):  # after the first batch, at an epoch's end, in its middle …
        with pytest.raises(SystemExit) as stopped:
            learn(fresh(), examples, wanted, tmp_path, interrupted_after(gap))
        assert stopped.value.code == EXIT_STOPPED
        assert len(list(tmp_path.iterdir())) <= 2
    assert_same(learn(fresh(), examples, wanted, tmp_path), expected)
    found = {line["epoch"]: line for line in metrics_of(caplog, "epoch")}
    for line in curve:
        for name in ("train_loss", "train_accuracy", "skipped_steps"):
            assert found[line["epoch"]][name] == pytest.approx(line[name], abs=1e-5), name


class KilledError(BaseException):
    """Stands for the end of the instance: nothing of the loop's own comes after it."""


@pytest.mark.parametrize("end", [4, 7, 12, 18, 21])
def test_what_is_lost_is_one_interval_at_most(
    tmp_path: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch, end: int
) -> None:
    usual, clock, interval = transforms.default(), [0.0], 4

    def augment(images: Tensor, noise: Tensor) -> Tensor:
        clock[0] += 1.0  # a step takes a second, in which a disk has written what it was given
        checkpoints.finish()
        if clock[0] > end:
            raise KilledError
        return usual.augment(images, noise)

    monkeypatch.setattr(
        trainer, "time", SimpleNamespace(monotonic=lambda: clock[0], perf_counter=perf_counter)
    )
    checkpoints = Checkpoints(tmp_path, "r" * 64)
    asked = replace(BASE, epochs=4, checkpoint_seconds=float(interval))
    training = Training(
        plain(), replace(usual, augment=augment), examples, asked, World(), checkpoints, run="r" * 64
    )
    with pytest.raises(KilledError):
        training.run()
    checkpoints.finish()
    found = checkpoints.newest()
    saved = found[0].total_steps if found else 0
    # The interval, and the step after which all processes have heard that it is over.
    assert end - saved <= interval + 1


def trained() -> Trained:
    model = plain()
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, SIZE * SIZE)).sum().backward()
    optimiser.step()
    return Trained({"model": model}, optimiser)


def test_a_checkpoint_that_was_damaged_or_is_of_another_run_is_passed_over(tmp_path: Path) -> None:
    mine, other = Checkpoints(tmp_path, "a" * 64), Checkpoints(tmp_path, "b" * 64)
    saved = trained()
    for checkpoints, steps in ((other, (1000,)), (mine, (10, 20, 30))):
        for step in steps:
            checkpoints.save(Progress(checkpoints._run, epoch=2, step=step, total_steps=step), saved)
        checkpoints.finish()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name[:2] + name[-14:-12] for name in names] == ["aa20", "aa30", "bb00"]  # of mine, the last two
    newest = tmp_path / names[1]
    whole = newest.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-5] + b"\xff" + whole[-4:], b"", b"no checkpoint"):
        newest.write_bytes(content)
        progress, tensors = mine.newest() or pytest.fail("there is none")
        assert (progress.step, progress.epoch) == (20, 2)
    model = saved.modules["model"]
    assert isinstance(model, Plain)
    nn.init.zeros_(model.head.weight)
    saved.load(tensors)
    assert all(value.equal(tensors[name]) for name, value in saved.tensors().items())
    assert model.head.weight.abs().sum() > 0
    assert Checkpoints(tmp_path, "c" * 64).newest() is None
    assert Checkpoints(tmp_path / "nowhere", "a" * 64).newest() is None


def test_a_full_disk_does_not_end_the_training(
    tmp_path: Path, examples: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path, "a" * 64)
    checkpoints.save(Progress("a" * 64, total_steps=1), trained())
    checkpoints.finish()
    with largest_file(1000):
        checkpoints.save(Progress("a" * 64, total_steps=2), trained())
        checkpoints.finish()
    assert checkpoints.failures == 1
    (warning,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "File too large" in vars(warning)["fields"]["reason"]
    assert vars(warning)["fields"]["checkpoint_failures"] == 1
    assert len(list(tmp_path.iterdir())) == 1  # half a file would keep the disk full
    progress, _ = checkpoints.newest() or pytest.fail("the last good one is gone")
    assert progress.total_steps == 1
    checkpoints.save(Progress("a" * 64, total_steps=3), trained())  # there is room again
    checkpoints.finish()
    assert (checkpoints.newest() or pytest.fail("there is none"))[0].total_steps == 3

    with largest_file(1000):
        asked = replace(BASE, epochs=1, checkpoint_seconds=1e-6)
        assert learn(plain(), examples, asked, tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())


# -- hyperparameters ---------------------------------------------------------------------------------------


def test_class_weights() -> None:
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


class Masked(nn.Module):
    """Has a mask, as attention does, and puts its statistics anew into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean = self.mean + 1
        answer: Tensor = self.head(self.mask.softmax(1) @ x - self.mean)
        return answer


def test_the_average_follows_whatever_a_model_keeps_in_its_buffers() -> None:
    model = Masked()
    average = Average(model, 0.5)
    for step in range(20):
        model(torch.ones(3))
        average.update(step)
    kept = average.module.state_dict()
    assert torch.equal(kept["mask"], model.mask)
    assert kept["mean"].isclose(model.mean - 1, atol=0.1).all()  # of half of what each step adds
    assert average.module(torch.ones(3)).isfinite().all()


@pytest.mark.parametrize(("given", "seconds"), [(signal.SIGTERM, world.SAVING_TAKES), (None, 30)])
def test_the_launcher_waits_for_the_checkpoint_when_it_is_stopped(
    given: signal.Signals | None, seconds: int
) -> None:
    from torch.distributed.elastic.multiprocessing.api import PContext

    waited = []
    # What else it closes is another thing in each torch.
    context = MagicMock(_close=lambda death_sig, timeout: waited.append(timeout))
    before = PContext.close
    with world._time_to_save():
        PContext.close(context, given)
    assert waited == [seconds]
    assert PContext.close is before


def test_hyperparameters_reach_the_settings(job: Job) -> None:
    base = {"candidate": "old", "epochs": "4", "batch_size": "64", "seed": "3"}
    asked = {"weight_decay": "0.1", "label_smoothing": "0", "ema_decay": "0", "deterministic": "true"}
    job.hyperparameters(**base, **asked, clip_norm="0", precision="fp16")
    found = train.read_job(hyperparameters(Paths(job.base))).settings
    assert found == Settings(
        4,
        64,
        0.0,
        seed=3,
        weight_decay=0.1,
        label_smoothing=0.0,
        clip_norm=0.0,
        ema_decay=0.0,
        precision="fp16",
        deterministic=True,
    )
    for wrong, message in (
        ({"processes_per_host": "65"}, "processes_per_host is 65: it must be between 0 and 64"),
        ({"precision": "bf16"}, "precision is 'bf16': it must be one of auto, fp32, fp16"),
        ({"batch_sise": "8"}, "unknown hyperparameter batch_sise: known are .*batch_size"),
        ({"channels": "2"}, "channels is 2: it must be 1"),
    ):
        job.hyperparameters(**base, **wrong)
        with pytest.raises(ContractError, match=message):
            train.main(Paths(job.base))


def test_the_documentation_names_every_hyperparameter_with_its_default(job: Job) -> None:
    job.hyperparameters(candidate="old")
    parameters = hyperparameters(Paths(job.base))
    train.read_job(parameters)
    page = (Path(__file__).resolve().parents[2] / "docs/training.md").read_text("utf-8")
    table = page.partition("## Hyperparameters")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    named = {row[1].strip().strip("`"): row[2].strip().strip("`") for row in rows}
    assert named.keys() == parameters.known | {"model_<name>"}
    default, asked = Settings(30, 64, 0.0), {"class_weights": "none", "learning_rate": "0"}
    for name, value in vars(default).items():
        expected = asked.get(name, json.dumps(value) if isinstance(value, bool) else f"{value}")
        assert named[name] in (expected, expected.removesuffix(".0")), name
    assert all(f"`{name}`" in page for name in METRIC_NAMES)


def test_a_host_that_is_not_in_the_job_is_refused() -> None:
    from common.contract import Resources

    with pytest.raises(ContractError, match=r"lists \['a', 'b'\], without c"):
        world.launch(Resources("c", ("a", "b")), 1)
