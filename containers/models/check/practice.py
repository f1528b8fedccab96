"""A few steps of training as the loop takes them, on drawn pictures, in the memory of one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.check.subject import CLASSES, Subject, pictures
from training.checkpoints import Trained
from training.sampler import mixed

BATCH = 16
WARM_UP = 5
RESUMED = 2
"""Steps before and after the interruption."""


class Practice:
    """A model in training.

    Parameters
    ----------
    subject
        Whose model is trained, for as many classes as there are kinds of pictures.
    half
        Compute in fp16, with the loss scaled.
    seed
        Of the fresh weights.
    """

    def __init__(self, subject: Subject, half: bool = False, seed: int = 0) -> None:
        self._shape = replace(subject.shape, classes=CLASSES)
        self.batch = CLASSES if subject.large else BATCH
        self._transforms = subject.architecture.transforms(self._shape, subject.values)
        self._half = half
        model = subject.fresh(self._shape, seed)
        self.model: nn.Module = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.rate = subject.architecture.preferences.learning_rate
        learning = [each for each in model.parameters() if each.requires_grad]
        self._optimiser = torch.optim.AdamW(learning, self.rate, fused=True)
        self._scaler = torch.amp.GradScaler("cpu", enabled=half)

    def loss(self, step: int, count: int = 0) -> Tensor:
        """Return the loss of a step's batch, seeded as in the loop: the step alone decides it."""
        count = count or self.batch
        pixels, targets = pictures(count, self._shape, seed=mixed(1, step))
        generator = torch.Generator().manual_seed(mixed(2, step))
        noise = torch.rand(count, self._transforms.noise, generator=generator) * 2 - 1
        torch.manual_seed(mixed(3, step))
        with torch.autocast("cpu", torch.float16, self._half):
            images = self._transforms.augment(self._transforms.normalise(pixels), noise)
            return nn.functional.cross_entropy(self.model(images), targets)

    def step(self, step: int, count: int = 0) -> float:
        """Learn from a step's batch; return its loss."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, (step + 1) / WARM_UP)
        loss = self.loss(step, count)
        self._optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return float(loss.detach())

    def kept(self) -> dict[str, Tensor]:
        """Return the tensors of a checkpoint."""
        return Trained({"model": self.model}, self._optimiser).tensors()

    def go_on(self, tensors: dict[str, Tensor]) -> None:
        """Put those of a checkpoint in place."""
        Trained({"model": self.model}, self._optimiser).load(tensors)


class Course:
    """The one training that several checks look at: each step of a large model takes seconds.

    Attributes
    ----------
    losses
        Of the steps so far.
    greatest
        The greatest number that each layer gave in the first step, by its name.
    kept
        The tensors of the checkpoint after `RESUMED` steps.
    weights
        The model's state after twice as many.
    """

    def __init__(self, subject: Subject) -> None:
        self.practice = Practice(subject)
        self.losses: list[float] = []
        self.greatest: dict[str, float] = {}
        self.kept: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}

    def step(self) -> float:
        """Learn from one more batch; return its loss."""
        number = len(self.losses)
        with noting(self.practice.model, self.greatest) if number == 0 else nullcontext():
            self.losses.append(self.practice.step(number))
        if len(self.losses) == RESUMED:
            self.kept = self.practice.kept()
        if len(self.losses) == 2 * RESUMED:
            self.weights = {name: value.clone() for name, value in self.practice.model.state_dict().items()}
        return self.losses[-1]


@contextmanager
def noting(model: nn.Module, greatest: dict[str, float]) -> Iterator[None]:
    """Note the greatest number that each layer gives inside, by the layer's name."""

    def note(name: str, result: object) -> None:
        if isinstance(result, Tensor):
            greatest[name] = max(greatest.get(name, 0.0), float(result.detach().abs().max()))

    hooks = [
        module.register_forward_hook(lambda _module, _images, result, name=name: note(name, result))
        for name, module in model.named_modules()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
