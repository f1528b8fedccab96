"""The instances of a job, each a process on this machine, and what stands for the network between them.

On AWS the instances of one job know each other as algo-1, algo-2 and so on, and every port of theirs is free.
Here all of them are one machine, on which nobody resolves such names and other jobs have ports as well. So a
job of several instances is given loopback addresses as its hosts' names, one for each, and in
``MASTER_PORT``, by which PyTorch's programs learn where to meet, a port that is its own while it runs.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM

from local.sagemaker.logs import LogStream
from local.sagemaker.processes import ContainerProcess

INTERFACE = "lo"


class Host:
    """One instance of a job.

    Attributes
    ----------
    name
        ``algo-1`` and so on, as in the names of log streams.
    base
        Its directory; ``ml`` below it stands for ``/opt/ml``.
    container
        Its container's process, once there is one.
    """

    def __init__(self, name: str, base: Path, log: LogStream) -> None:
        self.name = name
        self.base = base
        self.ml = base / "ml"
        self.log = log
        self.container: ContainerProcess | None = None

    def local(self, path: str) -> Path:
        """Return what stands for a path of the container below /opt/ml."""
        return self.ml / path.removeprefix("/opt/ml").lstrip("/")


def names(count: int) -> list[str]:
    """Return ``algo-1`` … ``algo-<count>``."""
    return [f"algo-{number}" for number in range(1, count + 1)]


def addresses(count: int) -> list[str]:
    """Return what each host is told to be named, the first one being the first also in alphabetical order.

    A host that is alone is asked for by nobody and keeps its name.
    """
    return names(1) if count == 1 else [f"127.0.0.{number}" for number in range(1, count + 1)]


class MeetingPoint:
    """A port that no other job, of this server or another, is given until it is closed.

    The socket is bound and never listens. Linux then gives the port to nobody who leaves the choice to it,
    nor to an outgoing connection; but who asks for this very port with SO_REUSEADDR, as PyTorch does, has it.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("", 0))
        self.port = int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


def stop_all(containers: Sequence[ContainerProcess], grace: float) -> list[int]:
    """Ask all containers to end at once; kill those that are left after ``grace`` seconds."""
    for container in containers:
        container.signal(SIGTERM)
    deadline = time.monotonic() + grace
    return [container.end_by(deadline) for container in containers]
