"""The processes that train together: one per GPU, on every instance of the job.

``python -m training train`` is what SageMaker starts once per instance. With one process in all it trains by
itself; with more it starts one per GPU through torch's elastic launcher (what ``torchrun`` is made of), which
gives each its rank and ends all of them when one fails. Instances find each other by the first host of
SageMaker's resource configuration.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from common.contract import EXIT_STOPPED, Resources
from common.errors import ContainerError, ContractError
from common.logs import event
from models.device import pick_device

log = logging.getLogger(__name__)

T = TypeVar("T")
CPU = torch.device("cpu")
_PR_SET_PDEATHSIG = 1

RENDEZVOUS_PORT = 29400
RENDEZVOUS_TIMEOUT = timedelta(hours=3)
"""Instances decode their images before they meet, and not all in the same time.

Long, since it costs nothing: when an instance fails, SageMaker ends the job's others.
"""
TIMEOUT = timedelta(minutes=10)
"""No process is ever that much behind the others: who is has failed."""
LAUNCHER_NOTICES = 3.0
"""Seconds in which the launcher, which looks ten times a second, has seen that a process ended."""


SAVING_TAKES = 110
"""Seconds that the processes have to save once SIGTERM has come: SageMaker kills the container after 120."""


class RankFailedError(ContainerError):
    """A process of the training group ended before its time; the failure file says what it was."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class World:
    """A process's place among those that train together.

    `control` is a group of the same processes over the network of the hosts, for what the GPUs' own group
    must not wait for.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: torch.device = CPU
    control: distributed.ProcessGroup | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes checkpoints, logs and the model."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            distributed.barrier(self.control)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def from_leader(self, value: T) -> T:
        """Return the leader's `value` in every process."""
        if self.size == 1:
            return value
        values: list[Any] = [value]
        distributed.broadcast_object_list(values, src=0, group=self.control)
        leading: T = values[0]
        return leading

    def same_buffers(self, model: nn.Module) -> None:
        """Give every process the leader's statistics, so that all measure the model that will be saved."""
        if self.size > 1:
            for buffer in model.buffers():
                whole = buffer.contiguous()  # NCCL refuses any other, such as a transposed one
                distributed.broadcast(whole, src=0)
                if whole is not buffer:
                    buffer.copy_(whole)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` as one whose gradients are the mean over all processes."""
        if self.size == 1:
            return model
        on_gpu = self.device.type == "cuda"
        if on_gpu:  # the CPU has no implementation: there, each rank normalises its own share of a batch
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        devices = [self.device.index] if on_gpu else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)


@contextmanager
def join() -> Iterator[World]:
    """Join the group that the launcher's variables describe; alone without them."""
    local_rank, local_size, size = (
        int(os.environ.get(name, default))
        for name, default in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"), ("WORLD_SIZE", "1"))
    )
    device = pick_device()
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if size > 1:
        # There is nothing to save yet, and waiting for the others must not keep anybody from ending. Nor does
        # anybody outlive the launcher, which in a container takes everything with it: see prctl(2).
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The other half is left to the loaders, and to the other candidate where both train on one machine.
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2 // local_size))
    if size == 1:
        yield World(device=device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    control = distributed.new_group(backend="gloo", timeout=TIMEOUT)
    world = World(int(os.environ["RANK"]), size, local_rank, local_size, device, control)
    try:
        yield world
        world.barrier()
    except RuntimeError:
        # Perhaps only because another process has gone. Then the launcher ends this one in a moment, and the
        # reason that is told is the other's; nothing else tells a lost connection from an error of our own.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(LAUNCHER_NOTICES)
        raise
    except SystemExit:  # all processes stop at the same step
        distributed.destroy_process_group()
        raise
    distributed.destroy_process_group()


def processes_here(wanted: int) -> int:
    """Return how many processes train on this instance: `wanted`, or with 0 one per GPU.

    Raises
    ------
    ContractError
        More are wanted than there are GPUs.
    UnusableGpuError
        As `pick_device`; here, because between this and the first step lie hours of decoding, perhaps.
    """
    # Not torch's count alone: it asks the management library, which knows GPUs that CUDA cannot use.
    gpus = torch.cuda.device_count() if pick_device().type == "cuda" else 0
    if gpus and wanted > gpus:
        raise ContractError(f"hyperparameter processes_per_host is {wanted}: this instance has {gpus} GPUs")
    return wanted or max(1, gpus)


def launch(resources: Resources, processes: int) -> None:
    """Train with `processes` processes on this instance, together with the job's other instances.

    Raises
    ------
    RankFailedError
        One of them failed; its exit code is the error's.
    SystemExit
        SIGTERM came, here or at another instance.
    ContractError
        The resource configuration does not name this host among the hosts.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    hosts = sorted(resources.hosts)
    if resources.current_host not in hosts:
        raise ContractError(f"the resource configuration lists {hosts}, without {resources.current_host}")
    _tell_the_libraries(resources.network_interface)
    # What a failure was is told below, in words; the launcher's own account is a page of stack.
    for part in ("agent.server.api", "multiprocessing.api", "multiprocessing.errors"):
        logging.getLogger(f"torch.distributed.elastic.{part}").setLevel(logging.CRITICAL)
    seconds = int(RENDEZVOUS_TIMEOUT.total_seconds())
    if len(hosts) > 1:
        meeting: dict[str, Any] = {
            "rdzv_backend": "static",
            "rdzv_endpoint": f"{hosts[0]}:{os.environ.get('MASTER_PORT', RENDEZVOUS_PORT)}",
            "rdzv_configs": {"rank": hosts.index(resources.current_host), "timeout": seconds},
            "local_addr": resources.current_host,
        }
    else:
        # A port that the system chooses: two jobs may run on one machine. And a single instance need not know
        # its name, which outside of SageMaker nobody resolves.
        meeting = {"rdzv_backend": "c10d", "rdzv_endpoint": "127.0.0.1:0", "local_addr": "127.0.0.1"}
    config = LaunchConfig(
        min_nodes=len(hosts),
        max_nodes=len(hosts),
        nproc_per_node=processes,
        run_id="truthloop",
        max_restarts=0,
        monitor_interval=0.1,
        **meeting,
    )
    event(log, "launching", hosts=len(hosts), processes_per_host=processes)
    try:
        with _time_to_save():
            elastic_launch(config, sys.executable)("-m", "training", "rank")
    except SignalException:
        raise SystemExit(EXIT_STOPPED) from None  # the processes have had the signal, and their time
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode in (EXIT_STOPPED, -signal.SIGTERM):
            raise SystemExit(EXIT_STOPPED) from None
        raise _failed(rank, failure.exitcode) from error


def _tell_the_libraries(interface: str) -> None:
    """Set what NCCL and gloo read in the processes; what somebody has set stays."""
    # NCCL ends when the interface that it is told of does not exist, and a container that is cut off from the
    # network may have none but the loopback's, which both find by themselves.
    if interface in [name for _, name in socket.if_nameindex()]:
        for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            os.environ.setdefault(variable, interface)
    # By itself NCCL keeps the reasons of its errors, such as a /dev/shm that is too small, to itself.
    os.environ.setdefault("NCCL_DEBUG", "WARN")


@contextmanager
def _time_to_save() -> Iterator[None]:
    """Let the launcher wait for the checkpoint after SIGTERM.

    By itself it kills the processes after 30 seconds, and not every torch can be told otherwise. A step, a
    validation and a large model's checkpoint may take longer. Where no signal is passed on a process has
    failed, and there is nothing to wait for.
    """
    from torch.distributed.elastic.multiprocessing.api import PContext

    close = PContext.close

    def patiently(self: PContext, death_sig: signal.Signals | None = None, timeout: int = 30) -> None:
        close(self, death_sig, timeout if death_sig is None else max(timeout, SAVING_TAKES))

    PContext.close = patiently  # type: ignore[method-assign]
    try:
        yield
    finally:
        PContext.close = close  # type: ignore[method-assign]


def _failed(rank: int, code: int) -> RankFailedError:
    if code >= 0:
        return RankFailedError(f"the process of rank {rank} ended with code {code}", code)
    # As a shell says it.
    name = signal.Signals(-code).name
    reason = "the instance has run out of memory, perhaps: lower batch_size or raise accumulation"
    detail = reason if name == "SIGKILL" else "its log says what it was doing"
    return RankFailedError(f"the process of rank {rank} was ended by {name}: {detail}", 128 - code)
