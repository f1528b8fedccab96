"""A GPU that torch cannot use is an error, not a slow CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import UnusableGpuError
from models import device


@pytest.fixture
def built_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container with a build for CUDA, whose /dev is the folder; there is no driver here."""
    monkeypatch.setattr(device, "NODES", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def test_a_gpu_without_a_driver_for_torch_is_refused(built_for_cuda: Path) -> None:
    (built_for_cuda / "nvidia0").touch()
    (built_for_cuda / "nvidiactl").touch()
    with pytest.raises(UnusableGpuError, match=r"a GPU \(nvidia0\) that torch .* cannot use: [A-Z].*CUDA"):
        device.pick_device()


def test_without_a_gpu_the_cpu_computes(built_for_cuda: Path) -> None:
    (built_for_cuda / "nvidiactl").touch()
    assert device.pick_device() == torch.device("cpu")


def test_the_cpu_can_be_asked_for(built_for_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (built_for_cuda / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.pick_device() == torch.device("cpu")


def test_a_build_for_the_cpu_does_not_look_for_gpus(
    built_for_cuda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (built_for_cuda / "nvidia0").touch()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert device.pick_device() == torch.device("cpu")


def test_a_gpu_that_torch_can_use_is_taken(built_for_cuda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.pick_device() == torch.device("cuda")
