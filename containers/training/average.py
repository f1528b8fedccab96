"""The moving average of a model's weights, which generalises better than the weights of the last step."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


def decay_at(step: int, decay: float) -> float:
    """Return the moving average's decay after `step` steps: at first it forgets quickly where it began."""
    return min(decay, (1 + step) / (10 + step))


class Average:
    """A copy of a model that follows it.

    ``torch.optim.swa_utils.AveragedModel`` asks the device in every step whether it is the first one, and
    waits for the answer. This one never waits.

    Attributes
    ----------
    module
        The average: parameters and floating-point buffers (batch normalisation's statistics). What is no
        floating-point number, such as a count, is the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay
        pairs = list(zip(_tensors(self.module), _tensors(model), strict=True))
        smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        exact = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._smooth = [mine for mine, _ in smooth], [theirs for _, theirs in smooth]
        self._exact = [mine for mine, _ in exact], [theirs for _, theirs in exact]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after `step`, counted from 0."""
        mine, theirs = self._smooth
        torch._foreach_lerp_(mine, theirs, 1 - decay_at(step, self._decay))
        mine, theirs = self._exact
        if mine:
            torch._foreach_copy_(mine, theirs)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [each.detach() for each in chain(model.parameters(), model.buffers())]
