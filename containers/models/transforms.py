"""How images enter a model, unless its file says otherwise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.interface import Transforms

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


def normalise(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels into float32 in [-1, 1]."""
    return pixels.float().div_(127.5).sub_(1.0)


def default() -> Transforms:
    """Return the transforms of a model whose file names none."""
    return Transforms(normalise, augment)
