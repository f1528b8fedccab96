"""The moving average of a model's weights, which generalises better than the weights of the last step."""

from __future__ import annotations

import copy

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
        floating-point number, such as a count, or begins as no finite one, such as an attention mask of -inf
        (whose difference to itself is no number), is the model's own.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        self._decay = decay
        self._parameters = (
            [mine.detach() for mine in self.module.parameters()],
            [theirs.detach() for theirs in model.parameters()],
        )
        pairs = list(zip(_buffers(self.module), _buffers(model), strict=True))
        self._smooth = [pair for pair in pairs if _can_be_averaged(_at(pair[0]))]
        self._exact = [pair for pair in pairs if not _can_be_averaged(_at(pair[0]))]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the model after `step`, counted from 0."""
        mine, theirs = self._parameters
        # Buffers by their places: a model may put another tensor there in every step.
        smooth = [_at(place) for place, _ in self._smooth], [_at(place) for _, place in self._smooth]
        torch._foreach_lerp_([*mine, *smooth[0]], [*theirs, *smooth[1]], 1 - decay_at(step, self._decay))
        if self._exact:
            torch._foreach_copy_(
                [_at(place) for place, _ in self._exact], [_at(place) for _, place in self._exact]
            )


_Place = tuple[nn.Module, str]


def _buffers(model: nn.Module) -> list[_Place]:
    """Return where each buffer is; one that several modules share only once."""
    found: dict[int, _Place] = {}
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            found.setdefault(id(buffer), (module, name))
    return list(found.values())


def _at(place: _Place) -> Tensor:
    module, name = place
    buffer: Tensor = getattr(module, name)
    return buffer


def _can_be_averaged(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.isfinite().all())
