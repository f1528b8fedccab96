"""Checks of the module: what it answers, what it learns from, how it is kept and served."""

from __future__ import annotations

import copy
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from common.imaging import decode, to_input
from inference.answers import Answer, Request
from inference.predictor import Predictor
from models import artifact
from models.artifact import ModelCard
from models.catalogue import transfer
from models.check.definition import device
from models.check.practice import BATCH, LARGE, STEPS, Practice
from models.check.report import BrokenPromiseError, of_error
from models.check.subject import Subject
from models.interface import Choice, ModelShape

BATCHES = (1, 2, 7, 32)
MANY_CLASSES = 1000
SPREAD_SHARE, ROUNDING = 0.01, 1e-5
"""How far logits of the same image may lie apart: as a share of how far images do, and of the logits."""
HALF_PRECISION_TOLERANCE = 0.05
"""Of a probability."""
HALF_LIMIT = 65_504
"""The greatest number of fp16."""
SLOW = 0.8
"""A loss that has fallen to this share of itself has not done so by chance."""
IMITATED = "images are so large that fp16 was judged by its limits, not by many steps of it on a CPU"
RESUMED = 2
"""Steps before and after the interruption."""


def builds(subject: Subject) -> str:
    """Check that build gives a module for every shape that the loop may ask for."""
    main = subject.shape
    own = subject.architecture.preferences
    sizes = [main.image_size] if own.image_size else sorted({16, 64, main.image_size})
    channels = [own.channels] if own.channels else [1, 3]
    shapes = [replace(main, classes=classes) for classes in (2, main.classes, MANY_CLASSES)]
    shapes += [ModelShape(main.classes, size, each) for size in sizes for each in channels]
    for shape in dict.fromkeys(shapes):
        _try(
            subject,
            shape,
            f"With {shape.classes} classes and {shape.channels} channels of {shape.image_size} pixels",
        )
    return f"{len(set(shapes))} shapes, from {min(sizes)} to {max(sizes)} pixels"


def _try(subject: Subject, shape: ModelShape, when: str, otherwise: str = "") -> None:
    try:
        _build(subject, shape)
    except Exception as error:
        broken = of_error(error, subject.file)
        advice = f"{broken.advice} Or {otherwise}." if otherwise else broken.advice
        raise BrokenPromiseError(f"{when}: {broken.found}", broken.expected, advice) from error


def _build(subject: Subject, shape: ModelShape) -> None:
    model = subject.fresh(shape)
    if not isinstance(model, nn.Module):
        raise BrokenPromiseError(
            f"build returns a {type(model).__name__}.", "a torch.nn.Module.", "return the module itself."
        )
    lazy = [name for name, each in model.named_parameters() if isinstance(each, nn.UninitializedParameter)]
    if lazy:
        raise BrokenPromiseError(
            f"{lazy[0]} has no size before the first image.",
            "parameters of known sizes: the optimiser and the artefact need them.",
            "use nn.Linear or nn.Conv2d with sizes that follow from shape in place of lazy modules.",
        )
    odd = [
        name
        for name, each in model.named_parameters()
        if each.dtype != torch.float32 or each.device.type != "cpu"
    ]
    if odd:
        raise BrokenPromiseError(
            f"{odd[0]} is {dict(model.named_parameters())[odd[0]].dtype} on "
            f"{dict(model.named_parameters())[odd[0]].device}.",
            "float32 parameters on the CPU: the loop moves them and chooses the precision.",
            "leave out .half(), .cuda() and the like.",
        )
    if not any(each.requires_grad for each in model.parameters()):
        raise BrokenPromiseError(
            "No parameter learns.", "at least one that requires a gradient.", "do not freeze all of them."
        )
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear) or head.out_features != shape.classes:
        is_now = f"{head.out_features} rows" if isinstance(head, nn.Linear) else f"{type(head).__name__}"
        raise BrokenPromiseError(
            f"model.head is {'missing' if head is None else is_now}.",
            f"an nn.Linear with a row for each of the {shape.classes} classes: by its rows weights are "
            "carried over to another set of labels.",
            "call the last layer head: self.head = nn.Linear(features, shape.classes).",
        )
    artifact.weights_of(model)
    images = subject.images(2, shape)
    with torch.inference_mode():
        answers = model.eval()(images)
    _are_logits(answers, 2, shape.classes)


def _are_logits(answers: object, count: int, classes: int) -> None:
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


def settings(subject: Subject) -> str:
    """Check that the model can be built with what its hyperparameters allow: each option, each lowest."""
    tried = []
    for each in subject.architecture.hyperparameters():
        options: tuple[float | str, ...] = each.options if isinstance(each, Choice) else (each.low,)
        for option in options:
            values = subject.architecture.values({**subject.values, each.name: option})
            otherwise = "take the option away" if isinstance(each, Choice) else "raise the lowest value"
            _try(replace(subject, values=values), subject.shape, f"With {each.name} = {option}", otherwise)
            tried.append(f"{each.name}={option}")
    return ", ".join(tried)


def seeded(subject: Subject) -> str:
    """Check that a fresh model is a function of torch's seed."""
    first, second = subject.fresh().state_dict(), subject.fresh().state_dict()
    other = [name for name, value in first.items() if not torch.equal(value, second[name])]
    if other:
        raise BrokenPromiseError(
            f"{other[0]} begins with other numbers in a second model after the same torch.manual_seed.",
            "the same model: a run must be repeatable, and several GPUs must begin alike.",
            "draw from torch's own generator, not from random, numpy or a generator of your own.",
        )
    return ""


def answers(subject: Subject) -> str:
    """Check what the model in service answers to batches of any size."""
    model = subject.stirred()
    for count in BATCHES:
        with torch.inference_mode():
            _are_logits(model(subject.images(count)), count, subject.shape.classes)
    return ""


def repeats(subject: Subject) -> str:
    """Check that answering leaves nothing behind and is not random."""
    model, images = subject.stirred(), subject.images(8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        first, second = model(images.clone()), model(images.clone())
    if _apart(first, second) > _allowed(first):
        raise BrokenPromiseError(
            f"The same images get other logits the second time (apart by {_apart(first, second):.3g}).",
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
    model, images = subject.stirred(), subject.images(32)
    with torch.inference_mode():
        together = model(images)[:3]
        by_itself = torch.cat([model(images[place : place + 1]) for place in range(3)])
    if _apart(together, by_itself) > _allowed(torch.cat([together, by_itself])):
        raise BrokenPromiseError(
            f"An image gets other logits alone than among others, by {_apart(together, by_itself):.3g}.",
            "the same: an endpoint answers requests that come together as one batch.",
            "take no statistics over the batch in evaluation mode (batch normalisation does not), and mind "
            "dimensions: softmax, mean and reshape must leave dimension 0 alone.",
        )
    return ""


def _apart(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max())


def _allowed(logits: Tensor) -> float:
    """Return what rounding may do, which differs with the batch: little beside what tells images apart."""
    return SPREAD_SHARE * float(logits.std(0).mean()) + ROUNDING * float(logits.abs().max())


def other_device(subject: Subject) -> str:
    """Check that neither the model nor its transforms depend on being on the CPU."""
    model = copy.deepcopy(subject.stirred()).to("meta")
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


# -- training ----------------------------------------------------------------------------------------------


def gradients(subject: Subject) -> str:
    """Check that every parameter learns from every batch, also from the smallest one."""
    for count in (2, 8):
        practice = Practice(subject)
        loss = practice.loss(0, count)
        loss.backward()  # type: ignore[no-untyped-call]
        learning = [(name, each) for name, each in practice.model.named_parameters() if each.requires_grad]
        _all_learn(practice.model)
        bad = [name for name, each in learning if each.grad is not None and not each.grad.isfinite().all()]
        if bad or not loss.isfinite():
            raise BrokenPromiseError(
                f"With a batch of {count} the {'gradient of ' + bad[0] if bad else 'loss'} is not finite.",
                "finite numbers from the first step on.",
                "look for a square root or a division at zero; add a small number inside it.",
            )
    frozen = sum(not each.requires_grad for each in practice.model.parameters())
    return f"{frozen} parameters are frozen" if frozen else ""


def _all_learn(model: nn.Module) -> None:
    without = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    if without:
        raise BrokenPromiseError(
            f"{', '.join(without[:5])}{' and more' if len(without) > 5 else ''}: no gradient.",
            "a gradient for each of them in every step: GPUs that train together wait for it.",
            "remove what forward does not use, or freeze it: parameter.requires_grad = False. What is left "
            "out at random (stochastic depth) is multiplied by zero, not passed over.",
        )


def learns(subject: Subject) -> str:
    """Check that a few dozen steps halve the loss on four kinds of picture that are easy to tell apart.

    A model that is made for small learning rates, as those with weights beside their file are, or has little
    to learn with takes longer: a loss that falls clearly is enough, and the note says so.
    """
    practice = Practice(subject)
    losses: list[float] = []
    for step in range(STEPS):
        losses.append(practice.step(step))
        _all_learn(practice.model)  # a layer may be left out now and then
        if len(losses) >= 8 and statistics.fmean(losses[-4:]) < statistics.fmean(losses[:2]) / 2:
            break
    else:
        said = f"{_course(losses)} in {STEPS} steps"
        if statistics.fmean(losses[-4:]) < statistics.fmean(losses[:2]) * SLOW:
            return f"slowly, {said} at a learning rate of {practice.rate:g}"
        raise BrokenPromiseError(
            f"The loss went {said} of {BATCH} pictures, at a learning rate of {practice.rate:g}.",
            "half of it: discs and stripes are easy to tell apart.",
            "try PREFERENCES = Preferences(learning_rate=…) with a tenth of it or ten times it; see whether "
            "augment leaves the pictures recognisable, whether gradients reach the first layer, and whether "
            "something normalises over too few images.",
        )
    return f"{_course(losses)} in {len(losses)} steps"


def _course(losses: list[float]) -> str:
    return f"from {statistics.fmean(losses[:2]):.2f} to {statistics.fmean(losses[-4:]):.2f}"


def half_precision(subject: Subject) -> str:
    """Check a few steps under fp16 autocast with a scaled loss, as on a V100."""
    if subject.shape.image_size >= LARGE:
        practice = Practice(subject)
        _within_half(practice.model, lambda: practice.loss(0))
        return IMITATED
    practice = Practice(subject, half=True)
    found = [practice.step(step) for step in range(3)]
    if not all(torch.isfinite(torch.tensor(found))):
        raise BrokenPromiseError(
            f"In half precision the loss is {found}.",
            "finite numbers: on V100 and T4 training computes in fp16 (up to 65,504).",
            "compute what grows large in float32, on x.float() inside torch.autocast(x.device.type, "
            "enabled=False).",
        )
    return ""


def _within_half(model: nn.Module, compute: Callable[[], object]) -> None:
    """Check that no layer gives a number that fp16 cannot hold."""
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, _: object, result: object) -> None:
        greatest = float(result.detach().abs().max()) if isinstance(result, Tensor) else 0.0
        if greatest > HALF_LIMIT:
            raise BrokenPromiseError(
                f"{names[module] or 'the model'} gives numbers up to {greatest:.3g}.",
                f"at most {HALF_LIMIT:,}: V100 and T4 compute in fp16.",
                "keep what grows small: normalise it, or divide before and not after.",
            )

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        compute()
    finally:
        for hook in hooks:
            hook.remove()


def resumes(subject: Subject) -> str:
    """Check that an interrupted training ends with the very weights of one that was not."""
    straight = Practice(subject)
    for step in range(2 * RESUMED):
        straight.step(step)
    first = Practice(subject)
    for step in range(RESUMED):
        first.step(step)
    kept = first.kept()
    second = Practice(subject, seed=99)
    second.go_on(kept)
    for step in range(RESUMED, 2 * RESUMED):
        second.step(step)
    wanted, found = straight.model.state_dict(), second.model.state_dict()
    other = [name for name, value in wanted.items() if not torch.equal(value, found[name])]
    if other:
        raise BrokenPromiseError(
            f"After {RESUMED} steps, a checkpoint and {RESUMED} more, {other[0]} is not what it is after "
            f"{2 * RESUMED} steps at once.",
            "the same weights: a spot instance may be taken away at any time.",
            "keep what changes in training in buffers (persistent ones), and draw random numbers from torch "
            "only: the loop seeds it before each step.",
        )
    return ""


# -- keeping and serving -----------------------------------------------------------------------------------


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
    model, images = subject.stirred(), subject.images(4)
    with torch.inference_mode():
        wanted = model(images)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        artifact.save(directory, _card(subject), model)
        loaded = artifact.load(directory)[1].to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = sum(path.stat().st_size for path in directory.iterdir())
    for other, what in ((loaded, "saved and loaded"), (copy.deepcopy(model), "copied (copy.deepcopy)")):
        with torch.inference_mode():
            if _apart(wanted, other.eval()(images)) > _allowed(wanted):
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
    model = subject.stirred()
    other = subject.fresh(replace(subject.shape, classes=len(after)), seed=5).eval()
    transfer(other, after, model.state_dict(), before)
    images = subject.images(4)
    with torch.inference_mode():
        wanted, found = model(images)[:, 1:], other(images)[:, : len(before) - 1]
    if _apart(wanted, found) > _allowed(wanted):
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
    card, model = _card(subject), subject.stirred()
    noise = torch.Generator().manual_seed(3)
    shape = (5, subject.shape.image_size + 3, subject.shape.image_size, 3)
    requests = [
        Request(_png(Image.fromarray(each.numpy())), "image/png", 1)
        for each in torch.randint(0, 256, shape, generator=noise, dtype=torch.uint8)
    ]
    pixels = [torch.tensor(to_input(decode(each.body), card.image_size, card.channels)) for each in requests]
    with torch.inference_mode():
        wanted = torch.softmax(model(subject.transforms.normalise(torch.stack(pixels))), 1)
    threads = torch.get_num_threads()
    notes = []
    try:
        with tempfile.TemporaryDirectory() as name:
            artifact.save(Path(name), card, model)
            _agree(Predictor(Path(name), precision="fp32"), requests, wanted, 1e-3)
            try:
                if subject.shape.image_size >= LARGE:
                    _serves_half(subject)
                    notes.append(IMITATED)
                else:
                    predictor = Predictor(Path(name), precision="fp16")
                    _agree(predictor, requests[:1], wanted, HALF_PRECISION_TOLERANCE)
            except (RuntimeError, NotImplementedError) as error:
                if "not implemented for 'Half'" not in str(error):
                    raise
                notes.append(f"fp16 could not be tried on this machine: {error}")
    finally:
        torch.set_num_threads(threads)
    return "; ".join(notes)


def _serves_half(subject: Subject) -> None:
    """Check the limits of fp16 on two images, and its types on a single one."""
    model, images = subject.stirred(), subject.images(2)
    with torch.inference_mode():
        _within_half(model, lambda: model(images))
        model.half()(images[:1].half())


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
        if not found.isfinite().all() or _apart(found, wanted[place]) > tolerance:
            raise BrokenPromiseError(
                f"In {predictor.precision} the endpoint's server gives probabilities that are apart from the "
                f"model's by {_apart(found, wanted[place]):.3g}.",
                f"at most {tolerance:g}: what is served must be what was evaluated.",
                "mind numbers that fp16 cannot hold (above 65,504, or far below 1).",
            )


def speed(subject: Subject) -> str:
    """Measure, for information."""
    model = subject.stirred()
    parameters = sum(each.numel() for each in model.parameters())
    times = []
    for count in (1, 32):
        images = subject.images(count)
        with torch.inference_mode():
            model(images)
            began = time.perf_counter()
            model(images)
            times.append(1000 * (time.perf_counter() - began))
    return (
        f"{parameters:,} parameters; {times[0]:.1f} ms for one image and {times[1]:.1f} ms for 32 on this "
        f"machine's CPU ({torch.get_num_threads()} threads)"
    )
