"""Checks of what the file defines: its name, its members, its hyperparameters, how images enter."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.catalogue import Architecture
from models.check.report import BrokenPromiseError
from models.check.subject import NAME, Subject, pictures
from models.check.watch import SideEffects
from models.interface import Choice, Hyperparameter, Preferences, Transforms

FOLDER = Path(__file__).parents[1] / "architectures"
OPTIONAL = ("hyperparameters", "transforms", "PREFERENCES")
LIMIT_NOISE = 1024
_A_TUPLE = "a tuple of models.interface.Hyperparameter and Choice."
_FOR_EXAMPLE = (
    'for example (Hyperparameter("width", 64, 8, 1024, whole=True),): mind the comma of a single one.'
)
IMAGE_SIZES = range(8, 1025)
"""What a job's ``image_size`` may be."""


def name(file: Path) -> str:
    """Check that the file's name is one, and its own."""
    if file.suffix != ".py" or not NAME.fullmatch(file.stem):
        raise BrokenPromiseError(
            f"The file is called {file.name}.",
            "lower-case letters, digits and _ (a letter first), then .py: the name is the architecture's, in "
            "lists that are separated by commas and in every artefact.",
            "rename it, to my_model.py for example.",
        )
    shipped = [path for path in FOLDER.glob("*.py") if path.stem == file.stem]
    if shipped and not shipped[0].samefile(file):
        raise BrokenPromiseError(
            f"There is an architecture {file.stem} already.",
            "a name of its own: artefacts say by it what they were built from.",
            "rename the file.",
        )
    return ""


def side_effects(seen: SideEffects) -> str:
    """Check what importing the file has done."""
    for what, found in (
        ("asks the network for", seen.network),
        ("starts", seen.processes),
        ("writes", seen.files),
        ("prints", [seen.printed.splitlines()[0]] if seen.printed else []),
        ("leaves a thread running:", seen.threads),
        ("changes", seen.settings),
    ):
        if found:
            raise BrokenPromiseError(
                f"Importing the file {what} {', '.join(found)}.",
                "an import that only defines: it happens in every job and in the endpoint's server, which "
                "has no network to count on, may write nowhere and sets torch up itself.",
                "move it into build, or do without it.",
            )
    return ""


def members(architecture: Architecture) -> str:
    """Check that the file has what `models.interface` describes, under the right names."""
    module = architecture.module
    _function(architecture, "build", ("shape", "values"), required=True)
    _function(architecture, "hyperparameters", ())
    _function(architecture, "transforms", ("shape", "values"))
    own = [
        each
        for each, value in vars(module).items()
        if not each.startswith("_")
        and (
            getattr(value, "__module__", None) == module.__name__
            or isinstance(value, Preferences | Transforms)
        )
        and each not in ("build", *OPTIONAL)
    ]
    for wanted in OPTIONAL:
        close = [each for each in own if difflib.get_close_matches(each.lower(), [wanted.lower()], 1, 0.85)]
        if not hasattr(module, wanted) and close:
            raise BrokenPromiseError(
                f"The file has {close[0]} and no {wanted}.",
                f"{wanted}: nothing else is looked for, so {close[0]} would never be used.",
                f"call it {wanted}, or name it less alike.",
            )
    _preferences(architecture)
    return ""


def _function(
    architecture: Architecture, wanted: str, takes: tuple[str, ...], required: bool = False
) -> None:
    call = f"{wanted}({', '.join(takes)})"
    function = getattr(architecture.module, wanted, None)
    if function is None:
        if required:
            raise BrokenPromiseError(
                f"The file has no {wanted}.",
                f"a function {call} that returns the torch.nn.Module.",
                "see docs/own-model.md for a whole file.",
            )
        return
    try:
        inspect.signature(function).bind(*takes)
    except TypeError as error:
        found = f"{wanted}{inspect.signature(function)}" if callable(function) else f"{wanted} is no function"
        raise BrokenPromiseError(
            f"The file has {found}, which cannot be called as {call} ({error}).",
            f"def {call}.",
            "change what it takes; everything that may be set comes in values.",
        ) from error


def _preferences(architecture: Architecture) -> None:
    found: object = getattr(architecture.module, "PREFERENCES", Preferences())
    if not isinstance(found, Preferences):
        raise BrokenPromiseError(
            f"PREFERENCES is {found!r}.",
            "a models.interface.Preferences.",
            "for example PREFERENCES = Preferences(image_size=224, channels=3, learning_rate=5e-4).",
        )
    if found.image_size is not None and found.image_size not in IMAGE_SIZES:
        raise BrokenPromiseError(
            f"PREFERENCES.image_size is {found.image_size!r}.",
            f"a whole number from {IMAGE_SIZES[0]} to {IMAGE_SIZES[-1]}, or None.",
            "images are square; say the length of one edge.",
        )
    if found.channels not in (None, 1, 3):
        raise BrokenPromiseError(
            f"PREFERENCES.channels is {found.channels!r}.",
            "1 (grey), 3 (RGB) or None.",
            "choose one of these.",
        )
    for which in ("learning_rate", "fine_tuning_rate"):
        rate = getattr(found, which)
        if not isinstance(rate, int | float) or not 0 < rate <= 10:
            raise BrokenPromiseError(
                f"PREFERENCES.{which} is {rate!r}.",
                "a number above 0 and up to 10.",
                f"leave {which} out for the default, {getattr(Preferences(), which):g}.",
            )


def hyperparameters(architecture: Architecture) -> str:
    """Check what may be set about the model; return it in words."""
    try:
        found = architecture.hyperparameters()
    except TypeError as error:
        raise BrokenPromiseError(
            f"hyperparameters() does not return a tuple ({error}).", _A_TUPLE, _FOR_EXAMPLE
        ) from error
    words = []
    for each in found:
        if not isinstance(each, Hyperparameter | Choice):
            raise BrokenPromiseError(
                f"hyperparameters() returns {each!r}.",
                _A_TUPLE,
                _FOR_EXAMPLE,
            )
        if not NAME.fullmatch(each.name):
            raise BrokenPromiseError(
                f"A hyperparameter is called {each.name!r}.",
                "lower-case letters, digits and _, a letter first: a job sets it as model_<name>.",
                "rename it.",
            )
        words.append(_choice(each) if isinstance(each, Choice) else _number(each))
    names = [each.name for each in found]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise BrokenPromiseError(
            f"{', '.join(twice)} is there more than once.",
            "one hyperparameter per name.",
            "rename one of them.",
        )
    return "; ".join(words) or "nothing may be set"


def values(subject: Subject) -> str:
    """Return the values of the hyperparameters that the model is tried with."""
    return ", ".join(f"{name} = {value}" for name, value in subject.values.items())


def _number(each: Hyperparameter) -> str:
    for which in ("default", "low", "high"):
        value: object = getattr(each, which)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BrokenPromiseError(
                f"{each.name} has the {which} {value!r}, a {type(value).__name__}.",
                "a number.",
                "write it without quotes, or offer words: Choice(name, (…)).",
            )
    ordered = all(math.isfinite(value) for value in (each.low, each.default, each.high))
    if not ordered or not each.low <= each.default <= each.high:
        raise BrokenPromiseError(
            f"{each.name} has the default {each.default:g} and the range {each.low:g} to {each.high:g}.",
            "low ≤ default ≤ high, all finite.",
            "Hyperparameter takes name, default, low, high, in this order.",
        )
    if each.whole and each.default != int(each.default):
        raise BrokenPromiseError(
            f"{each.name} is a whole number and has the default {each.default:g}.",
            "a default that is one.",
            "change the default, or leave whole=True out.",
        )
    return f"{each.name} = {each.default:g} ({each.low:g} to {each.high:g})"


def _choice(each: Choice) -> str:
    options = each.options
    listed = isinstance(options, tuple | list)
    if not listed or len(set(options)) < 2 or not all(isinstance(one, str) for one in options):
        raise BrokenPromiseError(
            f"{each.name} can be chosen from {options!r}.",
            "a tuple of at least two different texts, the default first.",
            'for example Choice("pooling", ("mean", "max")); of numbers, write texts and take '
            f'int(values["{each.name}"]) in build, or use a Hyperparameter.',
        )
    return f"{each.name} = {options[0]} (or {', '.join(options[1:])})"


# -- how images enter --------------------------------------------------------------------------------------


def normalise(subject: Subject) -> str:
    """Check `Transforms.normalise` on ordinary, black and white pictures."""
    transforms = subject.transforms
    if not isinstance(transforms, Transforms):
        raise BrokenPromiseError(
            f"transforms(shape, values) returns a {type(transforms).__name__}.",
            "a models.interface.Transforms.",
            "return Transforms(normalise, augment).",
        )
    pixels = pictures(6, subject.shape)[0]
    pixels[1], pixels[2] = 0, 255
    before = pixels.clone()
    images = transforms.normalise(pixels)
    if not torch.equal(pixels, before):
        raise BrokenPromiseError(
            "normalise changes the pixels that it is given.",
            "a new tensor: the same pixels are shown to other models too.",
            "begin with pixels.float(), which copies, and work in place only on that.",
        )
    _same_kind(images, pixels, "normalise")
    alone = torch.cat([transforms.normalise(each[None]) for each in pixels])
    _each_for_itself(images, alone, "normalise", "use fixed means and deviations, or each image's own.")
    return ""


def augment(subject: Subject) -> str:
    """Check `Transforms.augment`: what it returns, and that it depends on images and noise alone."""
    transforms = subject.transforms
    if not isinstance(transforms.noise, int) or not 0 <= transforms.noise <= LIMIT_NOISE:
        raise BrokenPromiseError(
            f"Transforms.noise is {transforms.noise!r}.",
            f"a whole number from 0 to {LIMIT_NOISE}: how many random numbers augment gets per image.",
            "count what augment reads from noise[:, …].",
        )
    images = subject.images(6)
    generator = torch.Generator().manual_seed(0)
    noise, other = (torch.rand(6, transforms.noise, generator=generator) * 2 - 1 for _ in range(2))
    torch.manual_seed(1)
    try:
        varied = transforms.augment(images.clone(), noise)
    except IndexError as error:
        raise BrokenPromiseError(
            f"augment fails with {transforms.noise} random numbers per image: {error}.",
            "no more of them read than are asked for.",
            "ask for more: Transforms(normalise, augment, noise=16).",
        ) from error
    _same_kind(varied, images, "augment")
    torch.manual_seed(2)
    if not torch.equal(varied, transforms.augment(images.clone(), noise)):
        raise BrokenPromiseError(
            "augment gives other images for the same images and the same noise.",
            "a function of its two arguments: a run that was interrupted must go on exactly where it was.",
            "take every random number from noise (in [-1, 1), one row per image) and none from torch.rand, "
            "random or numpy; Transforms(…, noise=16) gives more of them.",
        )
    alone = torch.cat(
        [transforms.augment(images[i : i + 1].clone(), noise[i : i + 1]) for i in range(len(images))]
    )
    _each_for_itself(
        varied, alone, "augment", "vary each image by its own row of noise: batches are divided among GPUs."
    )
    if transforms.noise and torch.equal(varied, transforms.augment(images.clone(), other)):
        raise BrokenPromiseError(
            "augment gives the same images whatever the noise.",
            "images that vary with it.",
            "use noise, or say that you need none: Transforms(normalise, augment, noise=0).",
        )
    return "" if transforms.noise else "images are not varied in training"


def _same_kind(found: object, given: Tensor, function: str) -> None:
    advice = f"return one float32 tensor with an image for each image that {function} was given."
    if not isinstance(found, Tensor):
        raise BrokenPromiseError(f"{function} returns a {type(found).__name__}.", "a tensor.", advice)
    if found.shape != given.shape or found.dtype != torch.float32:
        kind = str(found.dtype).removeprefix("torch.")
        raise BrokenPromiseError(
            f"{function} turns {tuple(given.shape)} into {kind} {tuple(found.shape)}.",
            f"float32 {tuple(given.shape)}.",
            advice,
        )
    if not torch.isfinite(found).all():
        raise BrokenPromiseError(
            f"{function} gives numbers that are not finite for some picture (a black one, a white one?).",
            "finite numbers for every picture.",
            "mind a division by an image's own deviation, which is 0 for a plain one.",
        )


def _each_for_itself(together: Tensor, alone: Tensor, function: str, advice: str) -> None:
    if not torch.allclose(together, alone, rtol=1e-3, atol=1e-4):
        raise BrokenPromiseError(
            f"{function} turns an image into something else when others are beside it (by up to "
            f"{(together - alone).abs().max():.3g}).",
            "each image for itself: an endpoint's answer must not depend on who asks at the same time.",
            advice,
        )


def device(move: Callable[[], Tensor], what: str) -> str:
    """Check that `move`, given tensors of a device without numbers, stays on it.

    That device, "meta", stands for a GPU: whatever is made on the CPU does not meet it there either.
    """
    try:
        result = move()
    except RuntimeError as error:
        if "expected device" not in str(error) and "same device" not in str(error):
            return f"{what} looks at numbers, so it could not be tried without a GPU"
        raise BrokenPromiseError(
            f"{what} mixes tensors of two devices ({error}).",
            "everything on the device of what it is given: a GPU in training and perhaps in service.",
            "make tensors with device=images.device, or register them as buffers of the model.",
        ) from error
    if result.device.type != "meta":
        raise BrokenPromiseError(
            f"{what} returns a tensor on {result.device} for images that are on another device.",
            "a result on the device of the images.",
            "make tensors with device=images.device, or register them as buffers of the model.",
        )
    return ""
