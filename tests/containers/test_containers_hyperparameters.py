"""What a training job was asked for is what it does: each of these would else train on, at full price."""

from __future__ import annotations

import itertools
import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from common.contract import Paths
from common.errors import TrainingDivergedError
from common.logs import METRIC_DEFINITIONS, METRIC_NAMES, JsonFormatter
from models import transforms
from tests.containers.conftest import Digit, Job
from tests.containers.test_containers_learning import (
    BASE,
    SIZE,
    Overflows,
    Plain,
    assert_same,
    interrupted_after,
    learn,
    metrics_of,
    plain,
    write_shards,
)
from tests.containers.test_containers_learning import _restored as _restored  # a fixture
from tests.containers.test_containers_learning import examples as examples  # a fixture
from tests.containers.test_containers_training import Ranks
from training import train, trainer
from training.checkpoints import Checkpoints, Progress, Trained
from training.sampler import Sampler
from training.settings import Settings
from training.trainer import Examples
from training.world import World


def test_no_bound_on_the_gradient_is_none(examples: Examples) -> None:
    asked = replace(BASE, epochs=1)
    unbound = learn(plain(), examples, replace(asked, clip_norm=0.0))
    assert_same(unbound, learn(plain(), examples, replace(asked, clip_norm=1e6)))
    assert not unbound["head.weight"].equal(plain().head.weight)


def test_half_precision_bounds_the_gradient_and_not_its_scaled_one(examples: Examples) -> None:
    asked = replace(BASE, clip_norm=0.001, ema_decay=0.0)
    full, half = (learn(plain(), examples, replace(asked, precision=name)) for name in ("fp32", "fp16"))
    assert_same(half, full, atol=2e-3, rtol=0.0)


def test_weights_that_are_the_same_for_all_classes_are_none(
    examples: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked = replace(BASE, epochs=1, clip_norm=0.0)
    same = learn(plain(), examples, replace(asked, class_weights=(7.0,) * 10))
    assert_same(same, learn(plain(), examples, asked), atol=1e-5, rtol=1e-4)
    weighted, usual = (line["train_loss"] for line in metrics_of(caplog, "epoch"))
    assert weighted == pytest.approx(usual, abs=1e-4)


def test_a_loss_scale_that_was_too_large_is_not_tried_again_after_an_interruption(
    tmp_path: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = itertools.count()

    class Overflowing(Plain):
        def forward(self, images: Tensor) -> Tensor:
            monkeypatch.setattr(Overflows, "now", next(calls) == 0)
            logits: Tensor = Overflows.apply(super().forward(images))  # type: ignore[no-untyped-call]
            return logits

    asked = replace(BASE, precision="fp16")
    scales = []
    for step in (3, 3):  # of the run, and of its going on
        with pytest.raises(SystemExit):
            learn(Overflowing(), examples, asked, tmp_path, interrupted_after(step))
        progress, _ = Checkpoints(tmp_path, "r" * 64).newest() or pytest.fail("there is none")
        scales.append(progress.scaler["scale"])
    assert scales == [2.0**15, 2.0**15]


def test_half_precision_that_takes_no_step_at_all_ends_the_run(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Overflowing(Plain):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = Overflows.apply(super().forward(images))  # type: ignore[no-untyped-call]
            return logits

    monkeypatch.setattr(Overflows, "now", True)
    with pytest.raises(TrainingDivergedError, match=r"no numbers in half precision.*: set precision to fp32"):
        learn(Overflowing(), examples, replace(BASE, epochs=10, precision="fp16"))


def test_what_began_in_single_precision_goes_on_in_half(tmp_path: Path, examples: Examples) -> None:
    for precision in ("fp32", "fp16"):  # "auto" on a CPU, and on a GPU afterwards
        with pytest.raises(SystemExit):
            learn(plain(), examples, replace(BASE, precision=precision), tmp_path, interrupted_after(3))
    progress, _ = Checkpoints(tmp_path, "r" * 64).newest() or pytest.fail("there is none")
    assert progress.scaler["scale"] > 0


class Watched(nn.Module):
    """A model that looks at how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 10)
        self.seen: list[dict[str, Any]] = []

    def forward(self, images: Tensor) -> Tensor:
        found = self.first(images)
        if self.training:
            self.seen.append(
                {
                    "inputs last": images.is_contiguous(memory_format=torch.channels_last),
                    "weights last": self.first.weight.is_contiguous(memory_format=torch.channels_last),
                    "computes in": found.dtype,
                    "deterministic": torch.are_deterministic_algorithms_enabled(),
                }
            )
        logits: Tensor = self.head(found.mean((2, 3)))
        return logits


@pytest.mark.parametrize(
    ("precision", "kind", "deterministic"), [("fp32", torch.float32, True), ("fp16", torch.float16, False)]
)
def test_a_step_computes_as_it_was_asked_to(
    examples: Examples, precision: str, kind: torch.dtype, deterministic: bool
) -> None:
    # Given images of three channels: with one, both formats are the same
    coloured = replace(examples, pixels=examples.pixels.repeat(3, axis=1), training=torch.arange(64))
    model = Watched()
    # When
    learn(model, coloured, replace(BASE, epochs=1, precision=precision, deterministic=deterministic))
    # Then
    expected = {"inputs last": True, "weights last": True, "computes in": kind}
    assert model.seen == [{**expected, "deterministic": deterministic}] * 2


def test_dropout_is_on_in_every_epoch_though_the_same_model_is_measured_in_between(
    examples: Examples,
) -> None:
    modes = []

    class Told(Plain):
        def forward(self, images: Tensor) -> Tensor:
            modes.append(self.training)
            return super().forward(images)

    learn(Told(), examples, replace(BASE, epochs=2, patience=5, ema_decay=0.0, batch_size=100))
    assert modes == [True, True, False] * 2


def test_the_best_model_is_kept_though_the_run_is_interrupted_after_it(
    tmp_path: Path, examples: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    # Given a run that gains nothing any more after some epoch
    caplog.set_level(logging.INFO)
    asked = replace(BASE, epochs=40, patience=2, learning_rate=0.05)
    expected = learn(plain(), examples, asked)
    measured = [line["validation_accuracy"] for line in metrics_of(caplog, "validation")]
    best = measured.index(max(measured)) + 1
    assert best + 2 == len(measured)
    # When it is stopped in the epoch after that, and goes on
    per_epoch = Sampler(200, asked.batch_size, asked.seed).steps_per_epoch
    with pytest.raises(SystemExit):
        learn(plain(), examples, asked, tmp_path, interrupted_after(best * per_epoch + 2))
    # Then
    assert_same(learn(plain(), examples, asked, tmp_path), expected)


class Scripted(Plain):
    """A model that has so many of 40 examples right whenever it is measured, in two parts of 20."""

    def __init__(self, targets: Tensor, script: list[int]) -> None:
        super().__init__()
        self.targets, self.script = targets, script
        self.measured: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if self.training:
            return logits
        epoch, part = divmod(len(self.measured), 2)
        self.measured.append(images.clone())
        answers = (self.targets + (torch.arange(40) >= self.script[epoch])) % 10
        return nn.functional.one_hot(answers[20 * part :][:20], 10).float()


def test_patience_counts_the_epochs_in_a_row_that_gained_nothing(
    examples: Examples, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    script = [10, 9, 20, 20, 19, 40, 40]  # a gain begins the count anew, and as good is no gain
    model = Scripted(examples.targets[200:], script)
    learn(model, examples, replace(BASE, epochs=7, patience=2, ema_decay=0.0, batch_size=20))
    found = [line["validation_accuracy"] for line in metrics_of(caplog, "validation")]
    assert found == [right / 40 for right in script[:5]]
    # Measured is what is held back, as it enters the model in training.
    held_back = transforms.default().normalise(torch.from_numpy(examples.pixels[200:]))
    assert torch.cat(model.measured[:2]).equal(held_back)


def test_a_model_that_diverged_takes_no_good_checkpoints_place(tmp_path: Path, examples: Examples) -> None:
    with pytest.raises(SystemExit):
        learn(plain(), examples, BASE, tmp_path, interrupted_after(3))
    usual = interrupted_after(1)
    broken = replace(usual, normalise=lambda pixels: pixels.float() * float("inf"))
    with pytest.raises(TrainingDivergedError, match="the loss of epoch 1 is nan"):
        learn(plain(), examples, BASE, tmp_path, broken)
    progress, tensors = Checkpoints(tmp_path, "r" * 64).newest() or pytest.fail("there is none")
    assert progress.total_steps < 5
    assert all(value.isfinite().all() for value in tensors.values())


def test_checkpoints_are_an_interval_apart(
    tmp_path: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, steps, saved = transforms.default(), itertools.count(1), []

    class Counted(Checkpoints):
        def save(self, progress: Progress, trained: Trained) -> None:
            saved.append(progress.total_steps)
            super().save(progress, trained)
            self.finish()

    def augment(images: Tensor, noise: Tensor) -> Tensor:
        now = float(next(steps))  # a step takes a second
        monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: now, perf_counter=lambda: now))
        return usual.augment(images, noise)

    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 0.0, perf_counter=lambda: 0.0))
    asked = replace(BASE, epochs=4, checkpoint_seconds=4.0)
    checkpoints = Counted(tmp_path, "r" * 64)
    given = replace(usual, augment=augment)
    trainer.Training(plain(), given, examples, asked, World(), checkpoints, run="r" * 64).run()
    assert len(saved) >= 4
    assert all(later - earlier >= 4 for earlier, later in itertools.pairwise(saved))


def test_seed_and_epoch_decide_the_order_and_with_the_step_the_noise() -> None:
    def drawn(seed: int, epoch: int) -> tuple[Tensor, Tensor]:
        batches = list(Sampler(90, 30, seed).batches(epoch, 0))
        return batches[0].whole, torch.stack([batch.parts[0][1] for batch in batches])

    first, again, epoch, seed = (drawn(*given) for given in ((1, 1), (1, 1), (1, 2), (2, 1)))
    for place in (0, 1):
        assert first[place].equal(again[place])
        assert not first[place].equal(epoch[place])
        assert not first[place].equal(seed[place])
    assert not first[1][0].equal(first[1][1])


# -- jobs in this process ----------------------------------------------------------------------------------


def prepare(job: Job, digits: list[Digit], **asked: str) -> None:
    write_shards(job.base / "input/data/train", digits)
    base = {"candidate": "old", "epochs": "1", "batch_size": "20", "seed": "3", "image_size": "8"}
    job.hyperparameters(**base, checkpoint_seconds="0.000001", **asked)


def weights(job: Job) -> dict[str, Tensor]:
    return load_file(job.base / "model/model.safetensors")


def test_a_checkpoint_of_other_data_or_other_settings_is_not_gone_on_from(
    job: Job, digits: list[Digit], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def goes_on(digits: list[Digit], **asked: str) -> bool:
        caplog.clear()
        prepare(job, digits, **asked)
        train.main(Paths(job.base))
        return "going on from a checkpoint" in {record.getMessage() for record in caplog.records}

    some = digits[:60]
    assert not goes_on(some)
    assert goes_on(some)
    relabelled = [replace(some[0], label=some[1].label), *some[1:]]
    assert some[0].label != some[1].label
    assert not goes_on(relabelled)
    assert not goes_on(some, learning_rate="0.01")
    assert not goes_on(some, patience="1", validation_share="0.2")
    assert not goes_on(some, patience="1", validation_share="0.3")


def test_the_weight_of_a_class_that_was_asked_for_is_learnt_with(job: Job, digits: list[Digit]) -> None:
    found = []
    for asked in ("none", '{"3": 50}', "balanced"):
        prepare(job, digits[:60], class_weights=asked)
        train.main(Paths(job.base))
        found.append(weights(job)["head.bias"])
    assert not found[0].equal(found[1])
    assert not found[0].equal(found[2])
    assert found[1][3] > found[0][3]


def test_what_is_measured_on_is_not_learnt_from_and_every_metric_is_reported(
    job: Job, digits: list[Digit], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    prepare(job, digits[:200], patience="1", validation_share="0.4")
    train.main(Paths(job.base))
    (about,) = metrics_of(caplog, "training")
    assert about["examples"] + about["validation"] == 200
    assert 60 < about["validation"] < 100
    # As SageMaker reads it from the log. That a checkpoint cannot be written is told when it cannot.
    text = "\n".join(JsonFormatter().format(record) for record in caplog.records)
    found = {each["Name"]: re.findall(each["Regex"], text) for each in METRIC_DEFINITIONS}
    assert [name for name in METRIC_NAMES if not found[name]] == ["checkpoint_failures"]


# -- ranks -------------------------------------------------------------------------------------------------


class Drifting(Plain):
    """A model whose statistics differ from process to process, beyond what a batch explains."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(10))
        torch.manual_seed(0)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.offset.zero_()
            self.offset[0] = 1000.0 * torch.distributed.get_rank()
        return super().forward(images) + self.offset


def test_all_ranks_measure_the_model_that_is_saved_and_speak_for_all(
    tmp_path: Path, examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an epoch of four seconds, of which every rank waits one
    class Waits(trainer.Loader):
        def load(self, *given: Any) -> Any:
            yield from super().load(*given)
            self.waited = 1.0

    clock = itertools.count(0.0, 4.0)
    monkeypatch.setattr(trainer, "Loader", Waits)
    monkeypatch.setattr(
        trainer, "time", SimpleNamespace(monotonic=lambda: 0.0, perf_counter=lambda: next(clock))
    )

    def model() -> nn.Module:
        handler = logging.FileHandler(tmp_path / "log")
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(level="INFO", handlers=[handler], force=True)
        return Drifting()

    asked = Settings(1, 40, 3e-3, seed=1, patience=3, ema_decay=0.0, checkpoint_seconds=0)
    # When
    ranks = Ranks(tmp_path / "two", model, examples, asked, 2)
    assert ranks.codes() == [0, 0]
    # Then
    said = {line["message"]: line for line in map(json.loads, (tmp_path / "log").read_text().splitlines())}
    assert (said["epoch"]["images_per_second"], said["epoch"]["data_wait_share"]) == (50.0, 0.25)
    kept = Drifting().eval()
    kept.load_state_dict(load_file(tmp_path / "two/kept.safetensors"))
    images = transforms.default().normalise(torch.from_numpy(examples.pixels[200:]))
    assert images.shape[-1] == SIZE
    right = (kept(images).argmax(1) == examples.targets[200:]).double().mean().item()
    assert said["validation"]["validation_accuracy"] == pytest.approx(right, abs=1e-5)
    assert {line["rank"] for line in said.values()} == {0}
