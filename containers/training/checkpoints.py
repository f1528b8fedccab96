"""Checkpoints of a training run: tensors in safetensors, the rest as JSON in the file's header.

SageMaker copies the checkpoint directory to S3 while the job runs and back when a spot instance is replaced.
A checkpoint is written in a directory of its own and renamed, so that a name stands for a whole file; a copy
that was cut off or damaged on its way does not have the digest that its header names, and the one before is
taken.

The tensors are copied to the host's memory while the model waits, and written by a thread while it goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
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
UNFINISHED = "unfinished"
"""The directory where a checkpoint is written: safetensors itself begins with another name than its own."""
_SUFFIX = ".safetensors"
_STATE = "state"
_DIGEST = "digest"


@dataclass
class Progress:
    """Where a run is; all that the next step depends on besides the tensors.

    `run` tells runs apart: a directory may hold what another run has left. The sums are those of the epoch so
    far, over all processes.
    """

    run: str
    epoch: int = 1
    step: int = 0
    total_steps: int = 0
    loss_sum: float = 0.0
    right: float = 0.0
    skipped: float = 0.0
    best_accuracy: float = -1.0
    epochs_without_gain: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass
class Trained:
    """What is learnt: modules whose parameters and buffers are saved by name, and the optimiser."""

    modules: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of every tensor, on the CPU, under a name of its own."""
        found = {
            f"{name}/{key}": value.detach()
            for name, module in self.modules.items()
            for key, value in module.state_dict().items()
        }
        for index, state in self.optimiser.state_dict()["state"].items():
            found |= {f"optimiser/{index}/{key}": torch.as_tensor(value) for key, value in state.items()}
        return {
            name: value.to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in found.items()
        }

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
        What the run learns from and how: a digest. Another run's checkpoints are neither gone on from nor
        touched.

    Attributes
    ----------
    failures
        Checkpoints that could not be written.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self._directory = directory
        self._run = run
        self._writer: threading.Thread | None = None
        self.failures = 0

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._writer is not None and self._writer.is_alive()

    def save(self, progress: Progress, trained: Trained) -> None:
        """Copy what is learnt, and begin to write it; `finish` waits until it is written.

        A checkpoint that cannot be written is logged and counted. The one before stays, and training goes on:
        a disk that is full ends no run that would have needed no checkpoint.
        """
        self.finish()
        tensors, state = trained.tensors(), json.dumps(asdict(progress))
        path = self._directory / f"{self._run[:16]}-{progress.total_steps:012d}{_SUFFIX}"
        self._writer = threading.Thread(
            target=self._write_or_warn, args=(path, tensors, state), name="checkpoint"
        )
        self._writer.start()

    def finish(self) -> None:
        """Wait until nothing is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _write_or_warn(self, path: Path, tensors: dict[str, Tensor], state: str) -> None:
        try:
            self._write(path, tensors, state)
        except (OSError, SafetensorError) as error:  # the library wraps the system's errors in its own
            self.failures += 1
            log.warning(
                "a checkpoint cannot be written: training goes on, and what it learns from here on is lost "
                "if it is interrupted",
                extra={
                    "fields": {"path": str(path), "reason": str(error), "checkpoint_failures": self.failures}
                },
            )

    def _write(self, path: Path, tensors: dict[str, Tensor], state: str) -> None:
        unfinished = self._directory / UNFINISHED
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed while it wrote
        unfinished.mkdir(parents=True)
        try:
            whole = unfinished / path.name
            save_file(tensors, whole, metadata={_STATE: state, _DIGEST: _digest(tensors)})
            with whole.open("rb") as file:
                os.fsync(file.fileno())
            whole.replace(path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # half a file would keep the disk full
        for old in self._files()[KEPT:]:
            old.unlink(missing_ok=True)

    def newest(self) -> tuple[Progress, dict[str, Tensor]] | None:
        """Return the newest checkpoint of this run that can be read; None when there is none."""
        files = self._files()
        others = len(list(self._directory.glob(f"*{_SUFFIX}"))) - len(files)
        if others:
            event(log, "there are checkpoints of another run", directory=str(self._directory), count=others)
        for path in files:
            try:
                with safe_open(path, "pt") as file:
                    metadata = file.metadata() or {}
                    state: dict[str, Any] = json.loads(metadata[_STATE])
                    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
                progress = Progress(**state)
                intact = metadata[_DIGEST] == _digest(tensors)
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                event(log, "a checkpoint cannot be read", path=str(path), reason=str(error))
                continue
            if intact and progress.run == self._run:
                return progress, tensors
            event(log, "a checkpoint is not what it was saved as", path=str(path))
        return None

    def _files(self) -> list[Path]:
        """Return this run's checkpoints, newest first."""
        return sorted(self._directory.glob(f"{self._run[:16]}-*{_SUFFIX}"), reverse=True)


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of contiguous tensors on the CPU, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
