"""What a model says about images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.device import pick_device

AT_ONCE = 256
PIXELS_AT_ONCE = AT_ONCE * 128 * 128
"""Of all pictures that are computed at once: a layer of 64 channels makes a gigabyte of them. A process that
takes more memory than there is gets no error but SIGKILL, and its run has been paid for by then."""


def predict(model: nn.Module, normalise: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
    """Return the probabilities ``(n, classes)`` of uint8 images ``(n, channels, size, size)``, on the CPU."""
    device = pick_device()
    at_once = max(1, min(AT_ONCE, PIXELS_AT_ONCE // (pixels.shape[2] * pixels.shape[3])))
    model.to(device).eval()
    with torch.inference_mode():
        batches = [
            torch.softmax(model(normalise(part.to(device))).float(), 1)
            for part in torch.split(pixels, at_once)
        ]
        return torch.cat(batches).cpu()
