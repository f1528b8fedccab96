"""What a piece of code does besides what it returns: prints, files, network, processes, threads, settings."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

_NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "urllib.Request"}
_PROCESSES = {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn"}
_CHANGES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree"}
_ALLOWED = ("/dev/", "/proc/")


class NetworkError(PermissionError):
    """Code that is watched reached for the network."""


@dataclass
class SideEffects:
    """What was seen."""

    network: list[str] = field(default_factory=list)
    processes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    printed: str = ""
    threads: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)


_watching: list[SideEffects] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    seen = _watching[-1]
    first = str(arguments[0]) if arguments else ""
    if event in _NETWORK:
        target = first if event in ("urllib.Request", "socket.getaddrinfo") else str(arguments[-1])
        seen.network.append(target)
        raise NetworkError(f"the network was asked for {target}")
    if event in _PROCESSES:
        seen.processes.append(first)
    elif event in _CHANGES or (event == "open" and _writes(arguments)):
        seen.files += [] if first.startswith(_ALLOWED) else [first]


def _writes(arguments: tuple[Any, ...]) -> bool:
    _path, mode, flags = arguments
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def _settings() -> dict[str, object]:
    return {
        "torch's default type (torch.set_default_dtype)": torch.get_default_dtype(),
        "torch's number of threads (torch.set_num_threads)": torch.get_num_threads(),
        "torch's random state (torch.manual_seed, or numbers drawn)": torch.get_rng_state().numpy().tobytes(),
        "whether gradients are kept (torch.set_grad_enabled)": torch.is_grad_enabled(),
        "deterministic algorithms (torch.use_deterministic_algorithms)": (
            torch.are_deterministic_algorithms_enabled()
        ),
        "cudnn's benchmark mode (torch.backends.cudnn.benchmark)": torch.backends.cudnn.benchmark,
        "the environment (os.environ)": dict(os.environ),
        "the working directory (os.chdir)": os.getcwd(),
    }


_installed: list[bool] = []


@contextlib.contextmanager
def watched() -> Iterator[SideEffects]:
    """Watch what happens inside; the network is refused, everything else only noted."""
    if not _installed:
        sys.addaudithook(_audit)  # for good: Python has no way to remove one
        _installed.append(True)
    seen = SideEffects()
    threads = set(threading.enumerate())
    before = _settings()
    bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # Python's own files are no side effect
    printed = io.StringIO()
    _watching.append(seen)
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            yield seen
    finally:
        _watching.pop()
        sys.dont_write_bytecode = bytecode
        seen.printed = printed.getvalue().strip()
        seen.threads = [each.name for each in threading.enumerate() if each not in threads]
        after = _settings()
        seen.settings = [name for name, value in before.items() if value != after[name]]
