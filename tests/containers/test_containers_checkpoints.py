"""A checkpoint's name stands for a whole file that is on the disk, whenever the instance is taken away."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.containers.test_containers_learning import trained
from training import checkpoints
from training.checkpoints import Checkpoints, Progress

RUN = "a" * 64


def save(directory: Path, steps: int) -> Checkpoints:
    found = Checkpoints(directory, RUN)
    found.save(Progress(RUN, total_steps=steps), trained())
    found.finish()
    return found


def test_what_was_half_written_when_the_process_was_killed_has_no_checkpoints_name(tmp_path: Path) -> None:
    # Given a checkpoint, and a process that the kernel kills in the middle of writing the next one
    before = save(tmp_path, 1)
    (whole,) = tmp_path.iterdir()
    # When (a process of its own: a fork of this one has its locks, and not the threads that hold them)
    limit = str(whole.stat().st_size // 2)
    killed = subprocess.run(
        [sys.executable, __file__, tmp_path, limit],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=False,
    )
    # Then SageMaker copies to S3 nothing that passes for a checkpoint and is none
    assert killed.returncode == -signal.SIGXFSZ
    assert list(tmp_path.glob("*.safetensors")) == [whole]
    progress, _ = before.newest() or pytest.fail("the whole one is gone")
    assert progress.total_steps == 1
    # And what is left over goes with the next one: else each interruption cost a checkpoint's room, and S3's
    assert len(list(tmp_path.rglob("*"))) == 3
    save(tmp_path, 3)
    assert sorted(path.stem[-1] for path in tmp_path.rglob("*")) == ["1", "3"]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.replace

    def synced(file: int) -> None:
        sync(file)
        done.append(str(Path(os.readlink(f"/proc/self/fd/{file}")).relative_to(tmp_path)))

    def renamed(path: Path, target: Any) -> Path:
        done.append(f"{path.relative_to(tmp_path)} becomes {Path(target).relative_to(tmp_path)}")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    save(tmp_path, 7)
    name = f"{'a' * 16}-000000000007.safetensors"
    assert done == [f"{checkpoints.UNFINISHED}/{name}", f"{checkpoints.UNFINISHED}/{name} becomes {name}"]


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
    save(Path(sys.argv[1]), 2)
