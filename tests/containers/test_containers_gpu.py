"""What training and serving do about what only a GPU brings: a full device, overflow, several devices."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import (
    ContractError,
    DeviceFullError,
    DeviceTooSmallError,
    TrainingDivergedError,
    UnusableGpuError,
)
from common.imaging import Pixels
from evaluation.predict import predict
from inference.answers import Answer, Request
from inference.predictor import Predictor
from models import artifact, device, transforms
from models.artifact import ModelCard
from models.interface import Transforms
from training import world
from training.checkpoints import Checkpoints
from training.loader import Loader
from training.sampler import Sampler
from training.settings import Settings
from training.trainer import Examples, Training
from training.world import World

BASE = Settings(1, 4, 1e-3, ema_decay=0.0, checkpoint_seconds=0.0)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def examples() -> Examples:
    """160 pictures to learn from, and 40 to measure on."""
    pixels = np.random.default_rng(0).integers(0, 256, (200, 1, 8, 8)).astype(np.uint8)
    return Examples(pixels, torch.arange(200) % 2, torch.arange(160), torch.arange(160, 200))


class Linear(nn.Module):
    """The least that can be trained; it notes how many pictures it gets at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(64, 2)
        self.sizes: dict[bool, list[int]] = {True: [], False: []}

    def forward(self, images: Tensor) -> Tensor:
        self.sizes[self.training].append(len(images))
        logits: Tensor = self.head(images.flatten(1))
        return logits


def run(
    model: nn.Module,
    examples: Examples,
    settings: Settings,
    given: Transforms | None = None,
    checkpoints: Checkpoints | None = None,
) -> None:
    Training(model, given or transforms.default(), examples, settings, World(), checkpoints, run="r").run()


class Full(Linear):
    def forward(self, images: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails")


def test_a_device_that_is_too_small_says_what_to_lower(examples: Examples) -> None:
    expected = (
        r"^cpu has too little memory to train on 4 examples at once: lower batch_size or raise accumulation "
        r"\(CUDA out of memory. Tried to allocate 2.00 GiB.\)$"
    )
    with pytest.raises(DeviceTooSmallError, match=expected):
        run(Full(), examples, replace(BASE, batch_size=7, accumulation=2))


def test_no_more_are_measured_at_once_than_are_learnt_from_at_once(examples: Examples) -> None:
    model = Linear()
    run(model, examples, replace(BASE, batch_size=20, accumulation=2, patience=1))
    assert set(model.sizes[True]) == {10}
    assert model.sizes[False] == [10] * 4


def test_a_loss_that_is_no_number_is_found_with_the_next_checkpoint_and_not_saved(
    examples: Examples, tmp_path: Path
) -> None:
    model, checkpoints = Linear(), Checkpoints(tmp_path, "r")
    broken = replace(transforms.default(), normalise=lambda pixels: pixels.float() * float("inf"))
    with pytest.raises(TrainingDivergedError, match="the loss of epoch 1 is nan: lower learning_rate"):
        run(model, examples, replace(BASE, checkpoint_seconds=1e-9), broken, checkpoints)
    assert len(model.sizes[True]) == 2  # of 40: the wish of the first step is granted after the second
    assert not list(tmp_path.iterdir())


class _Overflowing(torch.autograd.Function):
    @staticmethod
    def forward(_context: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(_context: object, *gradients: Tensor) -> Tensor:
        return gradients[0] * torch.nan


class NeverSteps(Linear):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = _Overflowing.apply(super().forward(images))
        return logits


def test_a_run_of_which_half_precision_skips_every_step_ends(examples: Examples) -> None:
    """Its loss is a number, so that alone would let it go on for days, without learning anything."""
    with pytest.raises(TrainingDivergedError, match="no step is taken: set precision to fp32"):
        run(NeverSteps(), examples, replace(BASE, precision="fp16"))


def test_a_run_that_is_to_be_the_same_each_time_tells_cublas_so(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "restored afterwards")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    run(Linear(), examples, BASE)
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    run(Linear(), examples, replace(BASE, deterministic=True))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


class Runtime:
    """What CUDA 12 keeps: each thread's device, at first 0, and which ones the process has a context on."""

    def __init__(self) -> None:
        self.contexts: set[int] = set()
        self._thread = threading.local()

    @property
    def current(self) -> int:
        return getattr(self._thread, "device", 0)

    def set_device(self, wanted: torch.device) -> None:
        """Make a context there at once, as cudaSetDevice does, unless the thread is there."""
        if wanted.index != self.current:
            self._thread.device = wanted.index
            self.contexts.add(wanted.index)

    @contextmanager
    def stream(self, stream: SimpleNamespace) -> Iterator[None]:
        """Go to the stream's device and back, as torch.cuda.stream does."""
        before = torch.device("cuda", self.current)
        self.set_device(stream.device)
        yield
        self.set_device(before)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Have the loader's calls for a GPU reach this; its tensors stay where they are."""
    found, empty, to = Runtime(), torch.empty, torch.Tensor.to

    def moved(tensor: Tensor, *where: object, **how: object) -> Tensor:
        return (
            tensor
            if isinstance(where[0], torch.device) and where[0].type == "cuda"
            else to(tensor, *where, **how)
        )

    stream = SimpleNamespace(wait_event=lambda _: None)
    for name, stand_in in {
        "Stream": lambda device: SimpleNamespace(device=device),
        "Event": lambda: SimpleNamespace(record=lambda _: None),
        "current_stream": lambda _: stream,
        "set_device": found.set_device,
        "stream": found.stream,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs))
    monkeypatch.setattr(torch.Tensor, "to", moved)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda _: True)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    return found


def test_the_reading_thread_makes_no_context_on_another_ranks_gpu(
    examples: Examples, runtime: Runtime
) -> None:
    loader = Loader(examples.pixels, examples.targets, torch.device("cuda", 1))
    loaded = list(loader.load(Sampler(200, 20, 0).batches(1, 0)))
    assert [batch.step for batch in loaded] == list(range(10))
    assert runtime.contexts == {1}


def test_a_gpu_that_cannot_be_used_is_found_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "NODES", tmp_path)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)  # NVML's, whose driver is too old for CUDA
    (tmp_path / "nvidia0").touch()
    with pytest.raises(UnusableGpuError):
        world.processes_here(0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (world.processes_here(0), world.processes_here(2)) == (4, 2)
    with pytest.raises(ContractError, match="processes_per_host is 5: this instance has 4 GPUs"):
        world.processes_here(5)


def test_only_a_network_that_exists_is_named_to_nccl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    world._tell_the_libraries("eth-none")
    assert os.environ == {"NCCL_DEBUG": "WARN"}
    world._tell_the_libraries("lo")
    assert os.environ == {"NCCL_DEBUG": "WARN", "NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo"}
    monkeypatch.setattr(os, "environ", {"NCCL_DEBUG": "INFO", "NCCL_SOCKET_IFNAME": "eth1"})
    world._tell_the_libraries("lo")
    assert (os.environ["NCCL_DEBUG"], os.environ["NCCL_SOCKET_IFNAME"]) == ("INFO", "eth1")


def test_buffers_of_any_layout_reach_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def broadcast(tensor: Tensor, src: int) -> None:
        """Take what NCCL takes; gloo is not so particular."""
        if not (tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)):
            raise ValueError("Tensors must be contiguous")
        tensor.fill_(7 + src)

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    model = nn.Module()
    model.register_buffer("plain", torch.zeros(3))
    model.register_buffer("turned", torch.zeros(2, 3).t())
    model.register_buffer("filters", torch.zeros(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))
    World(size=2).same_buffers(model)
    assert [buffer.unique().tolist() for buffer in model.buffers()] == [[7]] * 3
    assert model.get_buffer("turned").stride() == (1, 3)


# -- serving -----------------------------------------------------------------------------------------------

CARD = ModelCard("convnet", ["a", "b", "c"], 16, 1, "g00000007", "new")
PICTURES = list(np.random.default_rng(1).integers(0, 256, (6, 1, 16, 16)).astype(np.uint8))


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the server take half precision by itself, as on a GPU."""
    monkeypatch.setattr("inference.predictor.usual_precision", lambda _: "fp16")


def saved(directory: Path, scale: float = 1.0) -> Path:
    """Save a model whose inner numbers are so many times larger, and whose answers are not."""
    torch.manual_seed(0)
    model = CARD.build()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        weights["features.2.1.weight"].mul_(scale)
        weights["head.weight"].div_(scale)
    artifact.save(directory, CARD, model)
    return directory


def answers(predictor: Predictor) -> Tensor:
    return torch.tensor(predictor._scores(PICTURES))


@pytest.mark.usefixtures("on_a_gpu")
def test_half_precision_is_taken_where_it_suffices(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Predictor(saved(tmp_path)).precision == "fp16"
    assert not caplog.records


@pytest.mark.usefixtures("on_a_gpu")
def test_a_model_that_overflows_in_half_precision_is_served_in_single(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor(saved(tmp_path, 1e6))
    assert predictor.precision == "fp32"
    assert answers(predictor).equal(answers(Predictor(tmp_path, precision="fp32")))
    assert answers(Predictor(tmp_path, precision="fp16")).isnan().all()  # who asks for it gets it
    (line,) = caplog.records
    assert line.getMessage().startswith(
        "g00000007/new does not fit into half precision: it is served in single"
    )
    assert line.fields == {"reason": "a probability of noise is nan off"}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("on_a_gpu")
def test_a_picture_that_overflows_is_answered_in_single_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "_judge_half", lambda *_: None)  # noise did not show it
    predictor = Predictor(saved(tmp_path, 1e6))
    assert predictor.precision == "fp16"
    monkeypatch.setattr(Predictor, "_decode", lambda _, requests: PICTURES[: len(requests)])
    asked = [Request(b"", "image/png", 1)] * 2
    assert [type(each) for each in predictor.answer(asked)] == [Answer, Answer]
    assert predictor.precision == "fp32"


@pytest.mark.usefixtures("on_a_gpu")
def test_a_layer_without_half_precision_is_computed_in_single(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = nn.AdaptiveAvgPool2d.forward

    def forward(self: nn.AdaptiveAvgPool2d, images: Tensor) -> Tensor:
        if images.dtype == torch.float16:
            raise RuntimeError("\"pool\" not implemented for 'Half'")
        return usual(self, images)

    monkeypatch.setattr(nn.AdaptiveAvgPool2d, "forward", forward)
    assert Predictor(saved(tmp_path)).precision == "fp32"


@pytest.mark.parametrize(
    ("kind", "most", "expected"),
    [
        ("cuda", 5, [1, 2, 3, 4, 5]),
        ("cuda", 70, [*range(1, 33), 64, 70]),
        ("cpu", 6, [1, 2, 4, 6]),
    ],
)
def test_every_size_of_batch_that_a_gpu_plans_for_is_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, most: int, expected: list[int]
) -> None:
    predictor, sizes = Predictor(saved(tmp_path)), []
    predictor.device, predictor.most_at_once = torch.device(kind), most
    monkeypatch.setattr(predictor, "_time", sizes.append)
    predictor._warm_up()
    assert sizes == expected


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: out of memory\nCUDA kernel errors might be reported later",
    ],
)
def test_a_library_without_memory_gets_smaller_batches_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    predictor = Predictor(saved(tmp_path), max_batch=6)
    expected, usual = answers(predictor), predictor._probabilities

    def small(pixels: list[Pixels]) -> list[list[float]]:
        if len(pixels) > 2:
            raise RuntimeError(said)
        return usual(pixels)

    monkeypatch.setattr(predictor, "_probabilities", small)
    assert torch.allclose(answers(predictor), expected, atol=1e-6)
    assert predictor.most_at_once == 1  # 6, 3, 1
    said, predictor.most_at_once = "CUDA error: an illegal memory access was encountered", 6
    with pytest.raises(RuntimeError, match="illegal memory access"):
        answers(predictor)


def test_a_server_without_memory_for_one_picture_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> list[list[float]]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(Predictor, "_probabilities", full)
    with pytest.raises(DeviceFullError, match=r"no memory for one picture: .* 20\.00 GiB"):
        Predictor(saved(tmp_path), max_batch=4)


# -- evaluating --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("edge", "expected"), [(128, [256, 4]), (256, [64] * 4 + [4]), (4096, [1] * 3)])
def test_large_pictures_are_evaluated_few_at_once(edge: int, expected: list[int]) -> None:
    sizes: list[int] = []

    class Counts(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            sizes.append(len(images))
            return images.new_zeros(len(images), 2)

    pixels = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(sum(expected), 1, edge, edge)
    found = predict(Counts(), lambda images: images, pixels)
    assert found.shape == (sum(expected), 2)
    assert sizes == expected
