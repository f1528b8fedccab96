"""The processes that train together: one per GPU, on every instance of the job.

``python -m training train`` is what SageMaker starts once per instance. With one process in all it trains by
itself; with more it starts one per GPU through torch's elastic launcher, which gives each its rank and ends
all of them when one fails. Instances find each other by the first host of SageMaker's resource configuration.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn

from common.contract import EXIT_STOPPED, Resources
from common.errors import ContainerError, ContractError
from common.logs import event

log = logging.getLogger(__name__)

RENDEZVOUS_PORT = 29400
TIMEOUT = timedelta(minutes=10)
"""Longer than any rank decodes its images while the others wait for it."""


class RankFailedError(ContainerError):
    """A process of the training group ended before its time; the failure file says what it was."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class World:
    """A process's place among those that train together."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the one process that writes checkpoints, logs and the model."""
        return self.rank == 0

    @property
    def prepares(self) -> bool:
        """Whether this is the process that prepares its machine's files."""
        return self.local_rank == 0

    def barrier(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of `values` over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return `model` as one whose gradients are the mean over all processes."""
        if self.size == 1:
            return model
        on_gpu = self.device.type == "cuda"
        if on_gpu:  # the CPU has no implementation: there, each rank normalises its own share of a batch
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        devices = [self.device.index] if on_gpu else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


@contextmanager
def join() -> Iterator[World]:
    """Join the group that the launcher's variables describe; alone without them."""
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    world = World(
        int(os.environ.get("RANK", "0")),
        size,
        local_rank,
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device,
    )
    if size == 1:
        yield world
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield world
        world.barrier()
    finally:
        distributed.destroy_process_group()


def processes_here(wanted: int) -> int:
    """Return how many processes train on this instance: `wanted`, or with 0 one per GPU.

    Raises
    ------
    ContractError
        More are wanted than there are GPUs.
    """
    gpus = torch.cuda.device_count()
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
        SIGTERM came.
    ContractError
        The resource configuration does not name this host among the hosts.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    hosts = sorted(resources.hosts)
    if resources.current_host not in hosts:
        raise ContractError(f"the resource configuration lists {hosts}, without {resources.current_host}")
    if resources.network_interface:
        for variable in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
            os.environ.setdefault(variable, resources.network_interface)
    # A single instance need not know its name: outside of SageMaker nobody resolves it.
    leader = hosts[0] if len(hosts) > 1 else "127.0.0.1"
    port = int(os.environ.get("MASTER_PORT", RENDEZVOUS_PORT))
    config = LaunchConfig(
        min_nodes=len(hosts),
        max_nodes=len(hosts),
        nproc_per_node=processes,
        run_id="truthloop",
        rdzv_backend="static",
        rdzv_endpoint=f"{leader}:{port}",
        rdzv_configs={"rank": hosts.index(resources.current_host), "timeout": 900},
        max_restarts=0,
        monitor_interval=0.1,
        start_method="spawn",
    )
    event(log, "launching", hosts=len(hosts), processes_per_host=processes, leader=leader)
    try:
        elastic_launch(config, sys.executable)("-m", "training", "rank")
    except SignalException:
        raise SystemExit(EXIT_STOPPED) from None  # the processes have had the signal, and their time
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # A negative code is the signal that ended it, as a shell would say with 128 and more.
        code = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
        if code == EXIT_STOPPED:
            raise SystemExit(EXIT_STOPPED) from None
        raise RankFailedError(f"the process of rank {rank} ended with code {code}", code) from error
