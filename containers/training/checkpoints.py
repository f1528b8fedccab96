"""Checkpoints of a training run: tensors in safetensors, the rest as JSON in the file's header.

SageMaker copies the checkpoint directory to S3 while the job runs and back when a spot instance is replaced.
A checkpoint is written beside its name and renamed, so that a name stands for a whole file; a copy that was
cut off on its way is found by safetensors' own check and the one before is taken.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from common.logs import event

log = logging.getLogger(__name__)

KEPT = 2
"""The newest, and the one before in case that one was cut off on its way to S3."""
_SUFFIX = ".safetensors"
_STATE = "state"


@dataclass
class Progress:
    """Where a run is; all that the next step depends on besides the tensors.

    `run` tells runs apart: a directory may hold what another run has left.
    """

    run: str
    epoch: int = 1
    step: int = 0
    total_steps: int = 0
    loss_sum: float = 0.0
    right: float = 0.0
    best_accuracy: float = -1.0
    epochs_without_gain: int = 0
    scaler: dict[str, float] = field(default_factory=dict)


@dataclass
class Trained:
    """What is learnt: modules whose parameters and buffers are saved by name, and the optimiser."""

    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor under a name of its own."""
        found = {
            f"{name}/{key}": value.detach()
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for index, state in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        return {name: value.cpu().contiguous().clone() for name, value in found.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put saved tensors in place."""
        for name, module in self.modules.items():
            prefix = f"{name}/"
            module.load_state_dict(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )
        parameters = [each for group in self.optimiser.param_groups for each in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser/"):
                _, index, name = key.split("/", 2)
                like = parameters[int(index)]
                if value.shape == like.shape:
                    # In the parameter's memory format: the fused optimiser goes through both by address, and
                    # would give the momentum of one weight to another.
                    value = torch.empty_like(like, dtype=value.dtype).copy_(value)
                state.setdefault(int(index), {})[name] = value
        whole = self.optimiser.state_dict()
        self.optimiser.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


class Checkpoints:
    """The checkpoint directory of a job.

    Parameters
    ----------
    directory
        SageMaker's ``/opt/ml/checkpoints``.
    run
        What the run learns from and how: a digest. A checkpoint of another run is not gone on from.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self._directory = directory
        self._run = run

    def save(self, progress: Progress, trained: Trained) -> Path:
        """Write a checkpoint and delete those before the last two."""
        self._directory.mkdir(parents=True, exist_ok=True)
        target = self._directory / f"{progress.total_steps:012d}{_SUFFIX}"
        unfinished = target.with_suffix(".part")
        save_file(trained.tensors(), unfinished, metadata={_STATE: json.dumps(asdict(progress))})
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(target)
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)
        return target

    def newest(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """Return the newest checkpoint of this run that can be read; None when there is none."""
        for path in self._files():
            try:
                with safe_open(path, "pt") as file:
                    state: dict[str, Any] = json.loads((file.metadata() or {})[_STATE])
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                progress = Progress(**state)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                event(log, "a checkpoint cannot be read", path=str(path), reason=str(error))
                continue
            if progress.run == self._run:
                return progress, tensors
            event(log, "a checkpoint is of another run", path=str(path))
        return None

    def _files(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self._directory.glob(f"*{_SUFFIX}"), reverse=True) if self._directory.is_dir() else []
