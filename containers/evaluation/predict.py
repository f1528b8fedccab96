"""What a model says about images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.device import pick_device


def predict(
    model: nn.Module, normalise: Callable[[Tensor], Tensor], pixels: Tensor, batch_size: int = 256
) -> Tensor:
    """Return the probabilities ``(n, classes)`` of uint8 images ``(n, channels, size, size)``, on the CPU."""
    device = pick_device()
    model.to(device).eval()
    with torch.inference_mode():
        batches = [
            torch.softmax(model(normalise(part.to(device))).float(), 1)
            for part in torch.split(pixels, batch_size)
        ]
        return torch.cat(batches).cpu()
