"""The file that is checked, as an architecture of this process, and pictures to try it with."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models import architectures
from models.catalogue import Architecture, find
from models.check.report import BrokenPromiseError
from models.check.watch import SideEffects, watched
from models.interface import ModelShape, Transforms, Value

NAME = re.compile(r"[a-z][a-z0-9_]*")
CLASSES = 4
"""Kinds of pictures that `pictures` draws."""
LARGE = 128
LARGE_WORK = 500_000_000
"""From this image size on, or this many floating-point operations per picture, few pictures must do."""
BATCH, MANY = 7, 32
"""Pictures that checks answer together, and what stands for a great batch."""

_T = TypeVar("_T")


@contextmanager
def laid_out(file: Path) -> Iterator[None]:
    """Let the catalogue find `file`, as if it lay in its folder, with its helpers and its weights."""
    with tempfile.TemporaryDirectory(prefix="check-model-") as name:
        folder = Path(name)
        helpers = [path for path in file.parent.glob("_*.py") if not path.name.startswith("__")]
        for path in {file, *helpers, file.with_suffix(".safetensors")}:
            if path.is_file():
                (folder / path.name).symlink_to(path.resolve())
        before = set(sys.modules)
        architectures.__path__.insert(0, name)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            architectures.__path__.remove(name)
            for module in set(sys.modules) - before:
                if module.startswith("models.architectures."):
                    del sys.modules[module]


def imported(file: Path) -> tuple[Architecture, SideEffects]:
    """Import the file, watched."""
    sys.modules.pop(f"models.architectures.{file.stem}", None)
    with watched() as seen:
        architecture = find(file.stem)
    return architecture, seen


@dataclass(frozen=True)
class Subject:
    """A model's file with the shape and the hyperparameters that it is tried with.

    What several checks look at is computed once: a large model takes seconds to answer or to learn from a
    few pictures.
    """

    file: Path
    architecture: Architecture
    shape: ModelShape
    values: dict[str, Value]
    _made: dict[object, object] = field(default_factory=dict, init=False, repr=False, compare=False)
    _answers: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    seconds: dict[int, float] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The shortest time that a batch of so many pictures took."""

    def once(self, make: Callable[[Subject], _T]) -> _T:
        """Return what `make` makes of this subject: the same one to every check that asks."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast(_T, self._made[make])

    @cached_property
    def large(self) -> bool:
        """Whether few pictures must do."""
        if self.shape.image_size >= LARGE:
            return True
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.model(self.batch[:1].clone())
        return bool(counter.get_total_flops() >= LARGE_WORK)

    def fresh(self, shape: ModelShape | None = None, seed: int = 0) -> nn.Module:
        """Build the model; without the network, which neither a training job nor an endpoint can count on."""
        torch.manual_seed(seed)
        with watched() as seen:
            model = self.architecture.build(shape or self.shape, self.values)
        if seen.network:
            raise BrokenPromiseError(
                f"build asks the network for {seen.network[0]}.",
                "a model without the network: a job must not depend on somebody's server.",
                f"save the weights with safetensors.torch.save_file as {self.file.stem}.safetensors beside "
                "the file: they are what training starts from.",
            )
        return model

    @cached_property
    def model(self) -> nn.Module:
        """The model in service, which no check may change.

        Every weight is moved a little, so that parts that begin as zeros are heard too.
        """
        model = self.fresh()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    @cached_property
    def batch(self) -> Tensor:
        """The pictures that `answer` is about."""
        return self.images(MANY)

    def answer(self, count: int) -> Tensor:
        """Return the model's logits of the first `count` pictures, computed once."""
        if count not in self._answers:
            self._answers[count] = self.compute(self.batch[:count])
        return self._answers[count]

    def compute(self, images: Tensor) -> Tensor:
        """Return the model's logits, and note how long they took."""
        began = time.perf_counter()
        with torch.inference_mode():
            logits: Tensor = self.model(images.clone())  # a model may work in place
        took = time.perf_counter() - began
        self.seconds[len(images)] = min(took, self.seconds.get(len(images), took))
        return logits

    @property
    def transforms(self) -> Transforms:
        """How images enter the model."""
        return self.architecture.transforms(self.shape, self.values)

    def images(self, count: int, shape: ModelShape | None = None, seed: int = 0) -> Tensor:
        """Return normalised pictures in the memory format that they have on every device."""
        shape = shape or self.shape
        pixels, _ = pictures(count, shape, seed)
        transforms = self.architecture.transforms(shape, self.values)
        return transforms.normalise(pixels).to(memory_format=torch.channels_last)


def pictures(count: int, shape: ModelShape, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw noisy pictures of four kinds that stay what they are when turned a little, moved or mirrored.

    A bright disc, a dark one, stripes across and stripes along.

    Returns
    -------
    tuple
        uint8 ``(count, channels, size, size)`` and which kind each is, int64 ``(count,)``, in turns.
    """
    size = shape.image_size
    generator = torch.Generator().manual_seed(seed)
    place = (torch.arange(size) + 0.5) / size - 0.5
    disc = (place[:, None] ** 2 + place[None, :] ** 2 < 0.08).float()
    stripes = ((torch.arange(size) * 4 // size) % 2).float()
    kinds = torch.stack([disc, 1 - disc, stripes[:, None].expand(size, size), stripes.expand(size, size)])
    targets = torch.arange(count) % CLASSES
    clean = 60 + 140 * kinds[targets][:, None].expand(count, shape.channels, size, size)
    noise = 25 * torch.randn(clean.shape, generator=generator)
    return (clean + noise).clamp(0, 255).to(torch.uint8), targets
