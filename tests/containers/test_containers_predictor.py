"""The predictor: precisions, threads, a device that is full and a model that computes no numbers."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from common.errors import BadImageError, DeviceFullError, NoAnswerError
from common.imaging import decode, to_input
from evaluation.predict import predict
from inference.answers import Answer, Request
from inference.predictor import Predictor
from models import artifact
from models.artifact import ModelCard
from tests.containers.conftest import Digit

CARD = ModelCard("convnet", [str(digit) for digit in range(10)], 16, 1, "g00000007", "new")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    artifact.save(tmp_path, CARD, CARD.build())
    return tmp_path


def requests(digits: list[Digit]) -> list[Request]:
    return [Request(digit.png, "image/png", 3) for digit in digits]


def good(answers: list[Answer | Exception]) -> list[Answer]:
    found = [answer for answer in answers if isinstance(answer, Answer)]
    assert len(found) == len(answers), answers
    return found


def test_the_endpoint_answers_what_was_evaluated(model: Path, digits: list[Digit]) -> None:
    card, evaluated = artifact.load(model)
    some = digits[:20]
    pixels = np.stack([to_input(decode(digit.png), card.image_size, card.channels) for digit in some])
    expected = predict(evaluated, card.transforms().normalise, torch.from_numpy(pixels))
    assert expected.std(0).max() > 1e-4  # an answer is about its picture
    for answer, scores in zip(good(Predictor(model).answer(requests(some))), expected.tolist(), strict=True):
        assert answer.scores == pytest.approx(dict(zip(card.labels, scores, strict=True)), abs=1e-6)


def test_half_precision_gives_the_same_answers(model: Path, digits: list[Digit]) -> None:
    asked = requests(digits[:64])
    whole = good(Predictor(model, max_batch=64).answer(asked))
    half = good(Predictor(model, max_batch=64, precision="fp16").answer(asked))
    for one, other in zip(whole, half, strict=True):
        # A half has 11 bits; the sums in between round too.
        assert other.scores == pytest.approx(one.scores, abs=5e-3)
        best, second = one.top_k[:2]
        assert other.label == one.label or best["score"] - second["score"] < 5e-3


class SmallDevice(nn.Module):
    """A device that has memory for so many pictures; it counts what it computes."""

    def __init__(self, inner: nn.Module, room: int) -> None:
        super().__init__()
        self.inner = inner
        self.room = room
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nDetails")
        self.sizes.append(len(images))
        logits: Tensor = self.inner(images)
        return logits


def test_a_full_device_gets_smaller_batches_and_keeps_them(model: Path, digits: list[Digit]) -> None:
    predictor = Predictor(model, max_batch=16)
    asked = requests(digits[:16])
    expected = good(predictor.answer(asked))
    device = SmallDevice(predictor._model, 5)
    predictor._model = device
    for answer, one in zip(good(predictor.answer(asked)), expected, strict=True):
        assert answer.scores == pytest.approx(one.scores, abs=1e-6)
    assert device.sizes == [4, 4, 4, 4]
    device.room = 4
    good(predictor.answer(asked[:6]))
    assert device.sizes[4:] == [4, 2]  # it does not try again what did not fit
    device.room = 0
    answers = predictor.answer(asked[:2])
    assert all(isinstance(answer, DeviceFullError) for answer in answers)
    assert str(answers[0]).endswith("one picture: CUDA out of memory. Tried to allocate 2.00 GiB.")
    device.room = 16
    good(predictor.answer(asked))


def test_a_model_that_computes_no_numbers_says_so(model: Path, digits: list[Digit]) -> None:
    weights = artifact.load_weights(model)
    built = CARD.build()
    built.load_state_dict(
        {name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()}
    )
    artifact.save(model, CARD, built)
    (answer,) = Predictor(model).answer(requests(digits[:1]))
    assert isinstance(answer, NoAnswerError)
    assert str(answer).startswith(
        "the model g00000007/new computed no probabilities (NaN) in fp32: with fp16,"
    )


def test_a_decoders_surprise_is_its_own_pictures(
    model: Path, digits: list[Digit], monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(body: bytes, kind: str) -> None:
        raise IndexError("beyond the end")

    predictor = Predictor(model, max_batch=2)
    monkeypatch.setattr("inference.predictor.read_image", surprise)
    (answer,) = predictor.answer(requests(digits[:1]))
    assert isinstance(answer, BadImageError)
    assert str(answer) == "the picture cannot be read: IndexError: beyond the end"


def test_what_cannot_be_read_is_not_kept_decoded_until_the_batch_ends(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(model, max_batch=8)
    decoded: list[weakref.ref[Any]] = []

    class Rows(list[Any]):
        """What a body became; a plain list takes no weak reference."""

    def loads(_: bytes) -> dict[str, Any]:
        rows = Rows([[]] * 1000)
        decoded.append(weakref.ref(rows))
        return {"pixels": rows}

    monkeypatch.setattr("common.inputs.json.loads", loads)
    answers = predictor.answer([Request(b"{}", "application/json", 3)] * 8)
    assert [type(answer) for answer in answers] == [BadImageError] * 8
    assert [rows() for rows in decoded] == [None] * 8


def test_large_pictures_are_decoded_side_by_side_with_the_same_answers(
    model: Path, digits: list[Digit], monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(model, max_batch=8, decoders=3)
    asked = requests(digits[:8])
    expected = good(predictor.answer(asked))
    monkeypatch.setattr("inference.predictor.DECODE_ALONE_BYTES", 0)
    assert good(predictor.answer(asked)) == expected


@pytest.mark.parametrize(
    ("long", "gain", "all_cores"), [(1e9, 0.0, False), (0.0, 0.0, True), (0.0, 1e9, False)]
)
def test_threads_are_taken_where_they_are_worth_it(
    model: Path, monkeypatch: pytest.MonkeyPatch, long: float, gain: float, all_cores: bool
) -> None:
    monkeypatch.setattr("inference.predictor.LONG_BATCH_SECONDS", long)
    monkeypatch.setattr("inference.predictor.WORTHWHILE_GAIN", gain)
    assert Predictor(model).threads == (len(os.sched_getaffinity(0)) if all_cores else 1)
    assert Predictor(model, threads=1).threads == 1
