"""Where a model computes."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from common.errors import UnusableGpuError

NODES = Path("/dev")
"""Where NVIDIA's container runtime puts ``nvidia0`` and so on for each GPU that the container has."""


def use_half_the_cores() -> None:
    """Leave the other half: where both candidates run on one machine, more threads only get in the way."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))


def pick_device() -> torch.device:
    """Return the first GPU if there is one, else the CPU.

    Raises
    ------
    UnusableGpuError
        There is a GPU and torch is built for CUDA, yet it cannot use it: the job would go on for days on the
        CPU at the GPU's price. ``CUDA_VISIBLE_DEVICES`` set to nothing says that the CPU is wanted.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    there = sorted(path.name for path in NODES.glob("nvidia[0-9]*"))
    if there and torch.version.cuda is not None and "CUDA_VISIBLE_DEVICES" not in os.environ:
        raise UnusableGpuError(
            f"this machine has a GPU ({', '.join(there)}) that torch {torch.__version__} cannot use: "
            f"{_why_not()}. Choose an instance type whose driver and GPU the image serves "
            "(docs/instances.md); set CUDA_VISIBLE_DEVICES to nothing to compute on the CPU"
        )
    return torch.device("cpu")


def _why_not() -> str:
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0].rstrip(".")
    return "it finds none"
