"""Where a model computes."""

from __future__ import annotations

import os

import torch


def use_half_the_cores() -> None:
    """Leave the other half: where both candidates run on one machine, more threads only get in the way."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))


def pick_device() -> torch.device:
    """Return the first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
