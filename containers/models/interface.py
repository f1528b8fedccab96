"""What a file of `models.architectures` gives, so that the loop can train, compare and serve its model.

- ``build(shape, values)`` (required) returns the module: it maps what ``normalise`` gives, float32
  ``(n, channels, size, size)``, to logits ``(n, classes)``. Its last layer is an ``nn.Linear`` called
  ``head``: weights are carried over to another set of labels row by row (`models.catalogue.transfer`).
- ``hyperparameters()`` (optional) returns what may be set about the model; ``values`` has one for each.
- ``transforms(shape, values)`` (optional) returns how images enter it, and how training varies them; the
  default is `models.transforms.default`.
- ``PREFERENCES`` (optional) is a `Preferences`: the input and the learning rates that the model is made for.

Weights to start from lie beside the file, under its name: ``my_model.safetensors`` of ``my_model.py``.
`models.check` (``make check-model FILE=my_model.py``) says in words whether a file keeps to all this;
docs/own-model.md shows a whole one.

The same file is in the training and in the inference image; what was set is kept in the artefact's
``model.json``, so an endpoint builds exactly what was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

NOISE = 8
"""Random numbers per example and step that an augmentation gets, unless it asks for another count."""


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


@dataclass(frozen=True)
class Choice:
    """A word that may be set about a model: one of ``options``, by default the first."""

    name: str
    options: tuple[str, ...]


Value = float | str
Values = Mapping[str, Value]
"""Name of a hyperparameter → its value."""


@dataclass(frozen=True)
class Preferences:
    """What a model is made for.

    Parameters
    ----------
    image_size, channels
        The only input that it takes; channels: 1 (grey) or 3 (RGB). None: it is built for the input of the
        champion that it is to beat, or for the job's ``image_size`` and ``channels``.
    learning_rate, fine_tuning_rate
        The greatest learning rate from fresh weights (or from those beside the file), and from a champion's,
        unless the job's ``learning_rate`` says another.
    """

    image_size: int | None = None
    channels: int | None = None
    learning_rate: float = 3e-3
    fine_tuning_rate: float = 1e-3


@dataclass(frozen=True)
class Transforms:
    """How images enter a model, each for itself: what one becomes depends on no other of its batch.

    Parameters
    ----------
    normalise
        Maps uint8 ``(n, channels, size, size)`` to float32 of the same shape, on the device of its input and
        without changing it; training, evaluation and serving all use it.
    augment
        Varies normalised images in training, by noise ``(n, noise)`` in [-1, 1) that comes with the batch:
        the same noise must give the same images, or a run could not go on exactly where it was interrupted.
    noise
        How many random numbers ``augment`` gets per image.
    """

    normalise: Callable[[Tensor], Tensor]
    augment: Callable[[Tensor, Tensor], Tensor]
    noise: int = NOISE


class Definition(Protocol):
    """Such a file, as the loop sees it."""

    PREFERENCES: Preferences

    def hyperparameters(self) -> tuple[Hyperparameter | Choice, ...]:
        """Return what may be set."""

    def build(self, shape: ModelShape, values: Values) -> nn.Module:
        """Return the module, with fresh weights."""

    def transforms(self, shape: ModelShape, values: Values) -> Transforms:
        """Return how images enter it."""
