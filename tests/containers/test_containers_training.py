"""Training by several processes, and training that is interrupted: real processes, real digits.

Some processes are what SageMaker would start; where only the ranks matter they are forked from this one,
which has imported torch already.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common import contract
from common.contract import EXIT_STOPPED
from local.ports import free_port
from models import transforms
from models.catalogue import find
from models.interface import ModelShape
from tests.containers.conftest import Digit, Job, NewJob
from tests.containers.test_containers_learning import SIZE, Plain, write_shards
from tests.containers.test_containers_learning import examples as examples  # a fixture
from training import world
from training.checkpoints import Checkpoints
from training.settings import Settings
from training.trainer import Examples, Training

BASE = {"candidate": "old", "generation": "g00000001", "epochs": "16", "batch_size": "32", "seed": "3"}
WITHIN = 100.0
"""Seconds for what takes one or two on an idle machine."""


def prepare(job: Job, digits: list[Digit], **hyperparameters: str) -> Job:
    write_shards(job.base / "input/data/train", digits)
    job.hyperparameters(**{**BASE, **hyperparameters})
    return job


def epochs_of(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == "epoch"]


def weights_of(job: Job) -> dict[str, Tensor]:
    return load_file(job.base / "model/model.safetensors")


def newest_step(directory: Path) -> int:
    return max((int(path.stem[-12:]) for path in directory.glob("*.safetensors")), default=0)


def until_saved(directory: Path, beyond: int, alive: Callable[[], bool]) -> None:
    """Wait for a checkpoint of a later step than `beyond`."""
    until = time.monotonic() + WITHIN
    while newest_step(directory) <= beyond and alive() and time.monotonic() < until:
        time.sleep(0.005)
    assert newest_step(directory) > beyond, "no checkpoint was written"


# -- ranks that are forked ---------------------------------------------------------------------------------

ASKED = Settings(epochs=4, batch_size=40, learning_rate=3e-3, seed=1, checkpoint_seconds=0)


class Ranks:
    """Processes that train together; the leader leaves its weights and its epochs' metrics in a directory."""

    def __init__(
        self, directory: Path, model: Callable[[], nn.Module], examples: Examples, asked: Settings, size: int
    ) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        port = str(free_port())
        torch.optim.AdamW([torch.zeros(1)])  # its first use imports a second's worth, once for all ranks
        self.pids = []
        for rank in range(size):
            pid = os.fork()
            if pid == 0:
                os.environ |= {
                    "ML_BASE_DIR": str(directory / f"rank-{rank}"),
                    "RANK": str(rank),
                    "WORLD_SIZE": str(size),
                    "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(size),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": port,
                }
                os._exit(self._code(lambda _: self._train(model, examples, asked)))
            self.pids.append(pid)

    def _code(self, entry: Callable[[Any], None]) -> int:
        try:
            return contract.run(entry)
        except SystemExit as stopped:
            return int(stopped.code or 0)
        finally:
            sys.stderr.flush()

    def _train(self, model: Callable[[], nn.Module], examples: Examples, asked: Settings) -> None:
        with world.join() as here:
            torch.set_num_threads(1)
            torch.manual_seed(0)
            checkpoints = Checkpoints(self.directory / "checkpoints", "r" * 64) if here.leads else None
            kept = Training(
                model(), transforms.default(), examples, asked, here, checkpoints, run="r" * 64
            ).run()
            if here.leads:
                whole = {name: value.contiguous() for name, value in kept.state_dict().items()}
                save_file(whole, self.directory / "kept.safetensors")

    @property
    def alive(self) -> bool:
        return os.waitid(os.P_PID, self.pids[0], os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def send(self, number: int) -> None:
        for pid in self.pids:
            os.kill(pid, number)

    def codes(self) -> list[int]:
        found = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]
        self.pids = []
        return found


def plain() -> nn.Module:
    return Plain()


def convnet() -> nn.Module:
    return find("convnet").build(ModelShape(10, SIZE, 1), {})


def learnt(
    directory: Path, model: Callable[[], nn.Module], examples: Examples, asked: Settings, size: int
) -> dict[str, Tensor]:
    ranks = Ranks(directory, model, examples, asked, size)
    count = len(ranks.pids)
    assert ranks.codes() == [0] * count
    return load_file(directory / "kept.safetensors")


def test_without_statistics_and_dropout_any_number_of_processes_learns_the_same(
    tmp_path: Path, examples: Examples
) -> None:
    """What is left is the order of sums; with accumulation and an average, and early stopping's best."""
    asked = replace(ASKED, accumulation=2, patience=4, class_weights=tuple(1 + n / 3 for n in range(10)))
    found = {size: learnt(tmp_path / str(size), plain, examples, asked, size) for size in (1, 2, 4)}
    for size in (2, 4):
        for name, value in found[1].items():
            torch.testing.assert_close(found[size][name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [1, 2])
def test_killed_at_random_points_it_ends_as_if_it_had_not_been(
    tmp_path: Path, examples: Examples, size: int
) -> None:
    asked = replace(ASKED, epochs=24, checkpoint_seconds=0.02)
    expected = learnt(tmp_path / "whole", convnet, examples, asked, size)
    chance, directory = random.Random(size), tmp_path / "killed" / "checkpoints"
    for ending in (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM):
        before = newest_step(directory)
        ranks = Ranks(tmp_path / "killed", convnet, examples, asked, size)
        until_saved(directory, before, lambda ranks=ranks: ranks.alive)  # type: ignore[misc]
        time.sleep(chance.random() * 0.02)
        ranks.send(ending)
        code = EXIT_STOPPED if ending == signal.SIGTERM else -ending
        assert ranks.codes() == [code] * size
    found = learnt(tmp_path / "killed", convnet, examples, asked, size)
    for name, value in expected.items():  # the very same, on a CPU
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6)


# -- several processes, as SageMaker starts them -----------------------------------------------------------


LOSS_TOLERANCE, ACCURACY_TOLERANCE = 0.05, 0.05
"""What batch normalisation and dropout over shares of a batch may change on a CPU; docs/training.md states
it."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, digits: list[Digit]) -> tuple[Job, list[dict[str, Any]]]:
    job = prepare(Job(tmp_path_factory.mktemp("alone")), digits[:500])
    return job, epochs_of(job.run("training", "train"))


def test_a_job_of_two_processes_that_is_killed_and_stopped_learns_what_one_process_learns(
    job: Job, digits: list[Digit], alone: tuple[Job, list[dict[str, Any]]]
) -> None:
    prepare(job, digits[:500], processes_per_host="2", checkpoint_seconds="0.05")
    found: dict[int, dict[str, Any]] = {}
    for ending, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, EXIT_STOPPED)):
        before = newest_step(job.base / "checkpoints")
        process = job.start("training", "train", group=True)
        until_saved(job.base / "checkpoints", before, lambda process=process: process.poll() is None)  # type: ignore[misc]
        if ending == signal.SIGKILL:
            os.killpg(process.pid, ending)  # as an instance that is gone
        else:
            process.send_signal(ending)  # as SageMaker: to the container's first process
        _, log = process.communicate(timeout=WITHIN)
        assert process.returncode == code, log
        assert "Traceback" not in log
        assert "traceback" not in log
        found |= {line["epoch"]: line for line in epochs_of(log)}
        # An instance that is replaced starts with empty disks, checkpoints aside.
        shutil.rmtree(job.base / "scratch", ignore_errors=True)
    stopped = next(json.loads(line) for line in log.splitlines() if '"stopped"' in line)
    assert stopped["total_steps"] == newest_step(job.base / "checkpoints")  # nothing at all is lost
    log = job.run("training", "train")
    assert "going on from a checkpoint" in log
    found |= {line["epoch"]: line for line in epochs_of(log)}
    assert sorted(found) == list(range(1, 17))
    for expected in alone[1]:
        mine = found[expected["epoch"]]
        assert mine["rank"] == 0  # one process speaks for all, and says who it is
        assert mine["train_loss"] == pytest.approx(expected["train_loss"], abs=LOSS_TOLERANCE)
        assert mine["train_accuracy"] == pytest.approx(expected["train_accuracy"], abs=ACCURACY_TOLERANCE)
    assert weights_of(job).keys() == weights_of(alone[0]).keys()
    assert not (job.base / "scratch").exists()


def test_four_processes_learn_what_one_learns(tmp_path: Path, examples: Examples) -> None:
    found = {size: learnt(tmp_path / str(size), convnet, examples, ASKED, size) for size in (1, 4)}
    images = transforms.default().normalise(torch.from_numpy(examples.pixels))
    losses = []
    for weights in found.values():
        model = convnet().eval()
        model.load_state_dict(weights)
        with torch.inference_mode():
            losses.append(nn.functional.cross_entropy(model(images), examples.targets).item())
    assert losses[1] == pytest.approx(losses[0], abs=LOSS_TOLERANCE)


def test_whoever_is_asked_first_stops_the_processes_of_all_instances(
    new_job: NewJob, digits: list[Digit]
) -> None:
    hosts = ["127.0.0.1", "localhost"]
    port, processes, jobs = str(free_port()), [], []
    for host in hosts:
        job = prepare(new_job(host), digits[:300], epochs="400", checkpoint_seconds="0.1")
        job.write("input/config/resourceconfig.json", json.dumps({"current_host": host, "hosts": hosts}))
        jobs.append(job)
        processes.append(job.start("training", "train", MASTER_PORT=port))
    until_saved(jobs[0].base / "checkpoints", 0, lambda: all(each.poll() is None for each in processes))
    processes[1].send_signal(signal.SIGTERM)
    logs = [process.communicate(timeout=WITHIN)[1] for process in processes]
    assert [process.returncode for process in processes] == [EXIT_STOPPED, EXIT_STOPPED], logs
    assert [job.failure for job in jobs] == ["", ""]
    assert epochs_of(logs[1]) == []
    assert not (jobs[1].base / "checkpoints").exists()  # the first instance's are all that is needed
    (stopped,) = (json.loads(line) for line in logs[0].splitlines() if '"stopped"' in line)
    assert stopped["total_steps"] == newest_step(jobs[0].base / "checkpoints")


def ranks_of(launcher: int) -> dict[int, int]:
    """Return the process ids by rank: their own order says nothing once the numbers have begun anew."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # others' processes come and go
            status, command = (path / "status").read_text(), (path / "cmdline").read_bytes()
            if f"\nPPid:\t{launcher}\n" in status and b"rank" in command:
                variables = (path / "environ").read_bytes().split(b"\0")
                rank = next(each for each in variables if each.startswith(b"RANK="))
                found[int(rank.partition(b"=")[2])] = int(path.name)
    return found


def test_a_process_that_is_killed_ends_the_job_with_its_reason(job: Job, digits: list[Digit]) -> None:
    prepare(job, digits[:300], processes_per_host="2", epochs="400", checkpoint_seconds="0.1")
    process = job.start("training", "train")
    until_saved(job.base / "checkpoints", 0, lambda: process.poll() is None)
    ranks = ranks_of(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    _, log = process.communicate(timeout=WITHIN)
    assert process.returncode == 137, log
    assert job.failure.startswith(
        "RankFailedError: the process of rank 1 was ended by SIGKILL: the instance has"
    )
    assert newest_step(job.base / "checkpoints") > 0


def test_a_rank_that_fails_ends_the_job_with_its_reason_and_code(job: Job, digits: list[Digit]) -> None:
    prepare(job, digits[:6], processes_per_host="2", batch_size="4", accumulation="2")
    job.run("training", "train", code=2)
    assert job.failure.startswith("TooLittleDataError: 6 training examples are too few for 2 processes")
