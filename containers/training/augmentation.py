"""Small changes that leave a picture what it is, on the device, by noise that comes with the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_ROTATION = 0.15
"""Radians; with the next two it keeps every digit, letter and sign what it is."""
MAX_SCALING = 0.1
MAX_SHIFT = 0.12
"""As a share of half the edge length."""


def augment(images: Tensor, noise: Tensor) -> Tensor:
    """Rotate, scale and shift each image a little.

    Parameters
    ----------
    images
        Normalised, ``(n, channels, size, size)``.
    noise
        In [-1, 1), ``(n, at least 4)``; the same noise gives the same images.
    """
    angle, scale, shift = noise[:, 0] * MAX_ROTATION, 1 + noise[:, 1] * MAX_SCALING, noise[:, 2:4] * MAX_SHIFT
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
