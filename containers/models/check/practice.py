"""A few steps of training as the loop takes them, on drawn pictures, in the memory of one process."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.check.subject import CLASSES, Subject, pictures
from training.checkpoints import Trained
from training.sampler import mixed

STEPS = 60
BATCH = 16
WARM_UP = 5
LARGE = 128
"""From this image size on a batch has a quarter of the pictures, and fp16, which most CPUs only imitate, is
judged by its limits."""


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
        count = count or (BATCH if self._shape.image_size < LARGE else BATCH // 4)
        pixels, targets = pictures(count, self._shape, seed=mixed(1, step))
        generator = torch.Generator().manual_seed(mixed(2, step))
        noise = torch.rand(count, self._transforms.noise, generator=generator) * 2 - 1
        torch.manual_seed(mixed(3, step))
        with torch.autocast("cpu", torch.float16, self._half):
            images = self._transforms.augment(self._transforms.normalise(pixels), noise)
            return nn.functional.cross_entropy(self.model(images), targets)

    def step(self, step: int) -> float:
        """Learn from one batch; return its loss."""
        for group in self._optimiser.param_groups:
            group["lr"] = self.rate * min(1.0, (step + 1) / WARM_UP)
        loss = self.loss(step)
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
