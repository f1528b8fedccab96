"""Checks of what build gives: a module for every shape and setting, and the same one every time."""

from __future__ import annotations

import traceback
from dataclasses import replace

import torch
from torch import nn

from models import artifact
from models.check.answering import are_logits
from models.check.report import BrokenPromiseError, of_error
from models.check.subject import Subject
from models.interface import Choice, ModelShape

MANY_CLASSES = 1000


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
        advice = _of_values(subject, error) or broken.advice
        advice = f"{advice} Or {otherwise}." if otherwise else advice
        raise BrokenPromiseError(f"{when}: {broken.found}", broken.expected, advice) from error


def _of_values(subject: Subject, error: Exception) -> str:
    """Return what to do about an error that comes from a hyperparameter's name or type, if it does."""
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    if isinstance(error, KeyError) and "values" in line:
        known = ", ".join(subject.values) or "nothing"
        return f"values has {known}: name what else may be set in hyperparameters()."
    if not isinstance(error, TypeError):
        return ""
    texts = [
        name for name, value in subject.values.items() if str(value).isdigit() and isinstance(value, str)
    ]
    if texts:
        return f'what a Choice offers comes as a text: int(values["{texts[0]}"]).'
    broken = [name for name, value in subject.values.items() if isinstance(value, float)]
    if broken and "float" in str(error):
        return f"{broken[0]} comes as a float: Hyperparameter({broken[0]!r}, …, whole=True) makes it an int."
    return ""


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
    _has_head(model, shape)
    _knows_its_layers(model)
    artifact.weights_of(model)
    images = subject.images(2, shape)
    with torch.inference_mode():
        answers = model.eval()(images)
    are_logits(answers, 2, shape.classes)


def _has_head(model: nn.Module, shape: ModelShape) -> None:
    head = getattr(model, "head", None)
    if isinstance(head, nn.Linear) and head.out_features == shape.classes:
        return
    advice = "self.head = nn.Linear(features, shape.classes)"
    if isinstance(head, nn.Linear):
        found = f"{head.out_features} rows"
        advice = f"derive its size from shape: {advice}."
    else:
        linear = [name for name, each in model.named_modules() if isinstance(each, nn.Linear)]
        last = f"; its last nn.Linear is model.{linear[-1]}" if linear else ""
        found = ("missing" if head is None else f"a {type(head).__name__}") + last
        advice = (
            f"call the last layer head: {advice}. A model from a library goes without its own "
            "(num_classes=0, or fc = nn.Identity()) into a module of yours that puts head after it."
        )
    raise BrokenPromiseError(
        f"model.head is {found}.",
        f"an nn.Linear with a row for each of the {shape.classes} classes: by its rows weights are carried "
        "over to another set of labels.",
        advice,
    )


def _knows_its_layers(model: nn.Module) -> None:
    known = set(model.modules())
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            held = value.values() if isinstance(value, dict) else value
            if name.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            if any(isinstance(each, nn.Module) and each not in known for each in held):
                where = f"{path}.{name}" if path else name
                raise BrokenPromiseError(
                    f"{where} is a {type(value).__name__} of layers, which torch does not look into.",
                    "layers that the model knows: else they are not trained, kept or moved to a GPU.",
                    f"make it an nn.ModuleList or nn.ModuleDict: self.{name} = nn.ModuleList([…]).",
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
