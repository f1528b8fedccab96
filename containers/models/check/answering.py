"""Checks of the model in service: what it answers, to whatever batch, and on whatever device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.check.definition import device
from models.check.report import BrokenPromiseError
from models.check.subject import BATCH, MANY, Subject

SPREAD_SHARE, ROUNDING = 0.01, 1e-5
"""How far logits of the same image may lie apart: as a share of how far images do, and of the logits."""


def are_logits(answers: object, count: int, classes: int) -> None:
    """Check that a model's answers are a finite number for each image and class."""
    if not isinstance(answers, Tensor):
        raise BrokenPromiseError(
            f"forward returns a {type(answers).__name__}.",
            "one tensor of logits, in training and in service alike.",
            "return the logits alone; what helps training only must stay inside.",
        )
    if answers.shape != (count, classes):
        raise BrokenPromiseError(
            f"forward turns {count} images into {tuple(answers.shape)}.",
            f"logits {(count, classes)}: a row for each image and a number for each class.",
            "end forward with return self.head(features), features of shape (n, width).",
        )
    if not answers.is_floating_point() or not torch.isfinite(answers).all():
        raise BrokenPromiseError(
            f"The logits are {answers.dtype} and "
            f"{'finite' if torch.isfinite(answers).all() else 'not all finite'}.",
            "finite numbers, before any softmax.",
            "look for a division by zero, a logarithm of zero, or uninitialised memory (torch.empty).",
        )


def answers(subject: Subject) -> str:
    """Check what the model in service answers to batches of any size."""
    of_head: list[Tensor] = []
    hook = subject.model.get_submodule("head").register_forward_hook(lambda *call: of_head.append(call[2]))
    try:
        for count in (1, 2, BATCH):
            are_logits(subject.answer(count), count, subject.shape.classes)
    finally:
        hook.remove()
    if of_head:
        _nothing_after(of_head[-1], subject.answer(BATCH))
    if not subject.large or not _is_many(subject):
        are_logits(subject.answer(MANY), MANY, subject.shape.classes)
    return ""


def _nothing_after(of_head: Tensor, answers: Tensor) -> None:
    for name, function in (
        ("softmax", torch.softmax),
        ("log_softmax", torch.log_softmax),
        ("sigmoid", lambda logits, _: torch.sigmoid(logits)),
    ):
        if of_head.shape == answers.shape and torch.allclose(function(of_head, 1), answers):
            raise BrokenPromiseError(
                f"forward ends with {name}.",
                "logits, as head returns them: training and the endpoint's server take the softmax of them "
                "themselves, and taken twice it leaves little to learn from.",
                f"leave {name} out: return self.head(features).",
            )


def _is_many(subject: Subject) -> bool:
    """Return whether a great batch has a row of logits for each image, as seen without any numbers."""
    try:
        shape = on_meta(subject)(subject.batch.to("meta")).shape
    except Exception:  # what the model does there says nothing about real numbers, which are tried then
        return False
    return bool(shape == (MANY, subject.shape.classes))


def on_meta(subject: Subject) -> nn.Module:
    """Return the model on a device without numbers, as it is before its first image."""
    return subject.fresh().eval().to("meta")


def repeats(subject: Subject) -> str:
    """Check that answering leaves nothing behind and is not random."""
    model, first = subject.model, subject.answer(BATCH)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    second = subject.compute(subject.batch[:BATCH])
    if apart(first, second) > allowed(first):
        raise BrokenPromiseError(
            f"The same images get other logits the second time (apart by {apart(first, second):.3g}).",
            "in evaluation mode, the same answer every time.",
            "random layers must rest then: use nn.Dropout, or F.dropout(x, p, self.training).",
        )
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    if changed:
        raise BrokenPromiseError(
            f"Answering changes {changed[0]}.",
            "a model that stays what was evaluated, however much it is asked.",
            "change buffers only if self.training.",
        )
    return ""


def alone(subject: Subject) -> str:
    """Check that an image's answer does not depend on its batch."""
    together = subject.answer(BATCH)[:3]
    others = [subject.compute(subject.batch[place : place + 1]) for place in (1, 2)]
    by_itself = torch.cat([subject.answer(1), *others])
    if apart(together, by_itself) > allowed(torch.cat([together, by_itself])):
        raise BrokenPromiseError(
            f"An image gets other logits alone than among others, by {apart(together, by_itself):.3g}.",
            "the same: an endpoint answers requests that come together as one batch.",
            "take no statistics over the batch in evaluation mode (batch normalisation does not, unless it "
            "has track_running_stats=False), and mind dimensions: softmax, mean and reshape must leave "
            "dimension 0 alone.",
        )
    return ""


def apart(first: Tensor, second: Tensor) -> float:
    """Return how far two tensors lie apart at most."""
    return float((first - second).abs().max())


def allowed(logits: Tensor) -> float:
    """Return what rounding may do, which differs with the batch: little beside what tells images apart."""
    return SPREAD_SHARE * float(logits.std(0).mean()) + ROUNDING * float(logits.abs().max())


def other_device(subject: Subject) -> str:
    """Check that neither the model nor its transforms depend on being on the CPU."""
    model = on_meta(subject)
    transforms = subject.transforms
    pixels = torch.empty(
        2, subject.shape.channels, subject.shape.image_size, subject.shape.image_size, device="meta"
    )
    noise = torch.empty(2, transforms.noise, device="meta")
    notes = (
        device(lambda: transforms.normalise(pixels.to(torch.uint8)), "normalise"),
        device(lambda: transforms.augment(pixels.clone(), noise), "augment"),
        device(lambda: model(pixels), "forward"),
    )
    return "; ".join(note for note in notes if note)


def speed(subject: Subject) -> str:
    """Say how large the model is and how fast the other checks have found it to be."""
    parameters = sum(each.numel() for each in subject.model.parameters())
    most = max(subject.seconds)
    times = [f"{1000 * subject.seconds[count]:.1f} ms" for count in (1, most)]
    return (
        f"{parameters:,} parameters; {times[0]} for one image and {times[1]} for {most} on this machine's "
        f"CPU ({torch.get_num_threads()} threads)"
    )
