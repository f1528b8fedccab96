"""Checks of how a model is kept, carried over to other labels, and served."""

from __future__ import annotations

import copy
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from common.imaging import decode, to_input
from inference.answers import Answer, Request
from inference.predictor import Predictor
from models import artifact
from models.artifact import ModelCard
from models.catalogue import transfer
from models.check.answering import allowed, apart
from models.check.learning import within_half
from models.check.practice import noting
from models.check.report import BrokenPromiseError
from models.check.subject import BATCH, Subject

HALF_PRECISION_TOLERANCE = 0.05
"""Of a probability."""


def _card(subject: Subject) -> ModelCard:
    shape = subject.shape
    labels = [f"label {place}" for place in range(shape.classes)]
    return ModelCard(
        subject.architecture.name,
        labels,
        shape.image_size,
        shape.channels,
        "g00000000",
        "new",
        subject.values,
    )


def kept(subject: Subject) -> str:
    """Check that the artefact and a copy in memory answer as the model does."""
    images, wanted = subject.batch[:2], subject.answer(2)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        artifact.save(directory, _card(subject), subject.model)
        loaded = artifact.load(directory)[1].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = sum(path.stat().st_size for path in directory.iterdir())
    copied = copy.deepcopy(subject.model)
    for other, what in ((loaded, "saved and loaded"), (copied, "copied (copy.deepcopy)")):
        with torch.inference_mode():
            if apart(wanted, other.eval()(images.clone())) > allowed(subject.answer(BATCH)):
                raise BrokenPromiseError(
                    f"The model answers otherwise after it was {what}.",
                    "the same answers: state_dict must hold all that forward depends on.",
                    "register tensors as parameters or persistent buffers, and derive the rest from shape "
                    "and values in build.",
                )
    return f"the artefact has {size / 1e6:.2f} MB"


def transfers(subject: Subject) -> str:
    """Check that weights are carried over to a set of labels that has changed."""
    before = _card(subject).labels
    after = [*before[1:], "a new label", "another"]
    other = subject.fresh(replace(subject.shape, classes=len(after)), seed=5).eval()
    transfer(other, after, subject.model.state_dict(), before)
    with torch.inference_mode():
        wanted, found = subject.answer(2)[:, 1:], other(subject.batch[:2].clone())[:, : len(before) - 1]
    if apart(wanted, found) > allowed(subject.answer(BATCH)):
        raise BrokenPromiseError(
            "Labels that both sets have get other logits after the weights were carried over.",
            "the same: the head's rows go over by label, everything else as it is.",
            "let nothing but head depend on shape.classes, and return what head returns.",
        )
    return ""


def begins(subject: Subject) -> str:
    """Check the weights beside the file, if there are any."""
    if not subject.architecture.begin(subject.fresh()):
        return f"there is no {subject.file.stem}.safetensors: training begins from fresh weights"
    return f"training begins from {subject.file.stem}.safetensors"


def served(subject: Subject) -> str:
    """Check that the endpoint's predictor answers as the model does, in fp32 and in the fp16 of a T4."""
    card, threads = _card(subject), torch.get_num_threads()
    noise = torch.Generator().manual_seed(3)
    shape = (2, subject.shape.image_size + 3, subject.shape.image_size, 3)
    requests = [
        Request(_png(Image.fromarray(each.numpy())), "image/png", 1)
        for each in torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8)
    ]
    pixels = [torch.tensor(to_input(decode(each.body), card.image_size, card.channels)) for each in requests]
    images = subject.transforms.normalise(torch.stack(pixels))
    greatest: dict[str, float] = {}
    with noting(subject.model, greatest):
        wanted = torch.softmax(subject.compute(images), 1)
    with tempfile.TemporaryDirectory() as name:
        artifact.save(Path(name), card, subject.model)
        _agree(Predictor(Path(name), precision="fp32", threads=threads), requests, wanted, 1e-3)
        try:
            if subject.large:
                within_half(greatest)  # which names the layer
            predictor = Predictor(Path(name), precision="fp16", threads=threads)
            _agree(predictor, requests[:1], wanted, HALF_PRECISION_TOLERANCE)
        except (RuntimeError, NotImplementedError) as error:
            if "not implemented for 'Half'" not in str(error):
                raise
            return f"fp16 could not be tried on this machine: {error}"
    return ""


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _agree(predictor: Predictor, requests: list[Request], wanted: Tensor, tolerance: float) -> None:
    for place, answer in enumerate(predictor.answer(requests)):
        if not isinstance(answer, Answer):
            raise BrokenPromiseError(
                f"In {predictor.precision} the endpoint's server has no answer: {answer}",
                "an answer to every picture.",
                "mind numbers that fp16 cannot hold (above 65,504, or far below 1).",
            ) from answer
        found = torch.tensor([answer.scores[label] for label in predictor.card.labels])
        if not found.isfinite().all() or apart(found, wanted[place]) > tolerance:
            raise BrokenPromiseError(
                f"In {predictor.precision} the endpoint's server gives probabilities that are apart from the "
                f"model's by {apart(found, wanted[place]):.3g}.",
                f"at most {tolerance:g}: what is served must be what was evaluated.",
                "mind numbers that fp16 cannot hold (above 65,504, or far below 1).",
            )
