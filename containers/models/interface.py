"""What a file of `models.architectures` gives, so that the loop can train, compare and serve its model.

- ``build(shape, values)`` (required) returns the module: it maps what ``normalise`` gives, float32
  ``(n, channels, size, size)``, to logits ``(n, classes)``. Its last layer is an ``nn.Linear`` called
  ``head``: weights are carried over to another set of labels row by row (`models.catalogue.transfer`).
- ``hyperparameters()`` (optional) returns what may be set about the model; ``values`` has one for each.
- ``transforms(shape, values)`` (optional) returns how images enter it, and how training varies them; the
  default is `models.transforms.default`.

The same file is in the training and in the inference image; what was set is kept in the artefact's
``model.json``, so an endpoint builds exactly what was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class ModelShape:
    """What a model is built for; images are square."""

    classes: int
    image_size: int
    channels: int


@dataclass(frozen=True)
class Hyperparameter:
    """A number that may be set about a model; ``whole`` numbers reach it as ``int``, others as ``float``."""

    name: str
    default: float
    low: float
    high: float
    whole: bool = False


Values = Mapping[str, float]
"""Name of a hyperparameter → its value."""


@dataclass(frozen=True)
class Transforms:
    """How images enter a model.

    Parameters
    ----------
    normalise
        Maps uint8 ``(n, channels, size, size)`` to float32 of the same shape; training and serving both use
        it.
    augment
        Varies normalised images in training, by noise ``(n, 8)`` in [-1, 1) that comes with the batch: the
        same noise must give the same images, or a run could not go on exactly where it was interrupted.
    """

    normalise: Callable[[Tensor], Tensor]
    augment: Callable[[Tensor, Tensor], Tensor]


class Definition(Protocol):
    """Such a file, as the loop sees it."""

    def hyperparameters(self) -> tuple[Hyperparameter, ...]:
        """Return what may be set."""

    def build(self, shape: ModelShape, values: Values) -> nn.Module:
        """Return the module, with fresh weights."""

    def transforms(self, shape: ModelShape, values: Values) -> Transforms:
        """Return how images enter it."""
