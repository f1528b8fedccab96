"""SageMaker's contract with a container: where things lie, what is handed over, how failure is told.

Every path derives from one base directory (``ML_BASE_DIR``, default ``/opt/ml``), so a run in any
other directory is a run of the very same code.

Sources: "How Amazon SageMaker Processing runs your container" and "How SageMaker AI provides training
information / signals algorithm success and failure" in the SageMaker developer guide.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import sys
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from common.errors import ArtifactError, ContainerError, ContractError

BASE_DIR_VARIABLE = "ML_BASE_DIR"
BASE_DIR = Path("/opt/ml")
SCRATCH = Path("/tmp/truthloop")  # noqa: S108 - a container's, and one job's alone
FAILURE_MAX_CHARS = 1024
"""SageMaker shows the first 1,024 characters of the failure file."""
EXIT_INTERNAL = 1
EXIT_STOPPED = 128 + signal.SIGTERM

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Paths:
    """Where SageMaker puts what a job reads and takes what it writes."""

    base: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Paths:
        """Return the paths below ``ML_BASE_DIR``."""
        values = os.environ if environment is None else environment
        return cls(Path(values.get(BASE_DIR_VARIABLE) or BASE_DIR))

    @property
    def model(self) -> Path:
        """Where a training job leaves its model and an endpoint finds it."""
        return self.base / "model"

    @property
    def checkpoints(self) -> Path:
        """What SageMaker copies to S3 while a training job runs, and back when its instance is replaced."""
        return self.base / "checkpoints"

    @property
    def scratch(self) -> Path:
        """Room on the instance's volume for what lasts as long as the job.

        On SageMaker below ``/tmp``. What lies in ``/opt/ml`` beside the paths that SageMaker gives a meaning
        is on the container's own disk, a few dozen GB whatever ``VolumeSizeInGB`` says. Source: "SageMaker AI
        environment variables and the default paths for training storage locations", developer guide.
        """
        return SCRATCH if self.base == BASE_DIR else self.base / "scratch"

    @property
    def failure(self) -> Path:
        """The file whose text becomes a training job's failure reason."""
        return self.base / "output" / "failure"

    @property
    def message(self) -> Path:
        """The file whose text becomes a processing job's exit message."""
        return self.base / "output" / "message"

    def config(self, name: str) -> Path:
        """Return the path of one of SageMaker's configuration files."""
        return self.base / "input" / "config" / f"{name}.json"

    def channel(self, name: str) -> Path:
        """Return the directory of a training channel."""
        return self.base / "input" / "data" / name

    def processing_input(self, name: str) -> Path:
        """Return the directory of a processing input."""
        return self.base / "processing" / "input" / name

    def processing_output(self, name: str) -> Path:
        """Return the directory of a processing output, made if it is missing."""
        path = self.base / "processing" / "output" / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class Parameters:
    """Strings from outside (hyperparameters or environment), read with a type and a range.

    ``origin`` names their source in messages, such as ``hyperparameter`` or ``environment variable``.
    """

    values: Mapping[str, str]
    origin: str
    known: set[str] = field(default_factory=set)

    def text(self, name: str, default: str | None = None) -> str:
        """Return ``name``'s value; without a default it must be there and not empty."""
        self.known.add(name)
        value = self.values.get(name, "")
        if value:
            return value
        if default is None:
            raise ContractError(f"{self.origin} {name} is missing or empty: set it for this job")
        return default

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Return ``name``'s value, one of ``allowed``."""
        value = self.text(name, default)
        if value not in allowed:
            raise ContractError(f"{self.origin} {name} is {value!r}: it must be one of {', '.join(allowed)}")
        return value

    def number(self, name: str, default: float | None, low: float, high: float) -> float:
        """Return ``name``'s value as a number within ``[low, high]``."""
        text = self.text(name, None if default is None else repr(default))
        try:
            value = float(text)
        except ValueError:
            raise ContractError(f"{self.origin} {name} is {text!r}: it must be a number") from None
        if not low <= value <= high:  # also refuses NaN
            raise ContractError(f"{self.origin} {name} is {text}: it must be between {low:g} and {high:g}")
        return value

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        """Return ``name``'s value as a whole number within ``[low, high]``."""
        value = self.number(name, default, low, high)
        if value != int(value):
            raise ContractError(f"{self.origin} {name} is {value:g}: it must be a whole number")
        return int(value)

    def texts(self, prefix: str) -> dict[str, str]:
        """Return every value whose name begins with ``prefix``, by the rest of its name."""
        names = [name for name in self.values if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.text(name) for name in names}

    def refuse_unknown(self) -> None:
        """Raise for a value that nothing asked for: a misspelt name would otherwise train with a default."""
        unknown = sorted(
            name for name in self.values if name not in self.known and not name.startswith("sagemaker_")
        )
        if unknown:
            raise ContractError(
                f"unknown {self.origin} {', '.join(unknown)}: known are {', '.join(sorted(self.known))}"
            )


@dataclass(frozen=True)
class Resources:
    """The instances of a training job, as SageMaker's resource configuration tells them."""

    current_host: str
    hosts: tuple[str, ...]
    network_interface: str = ""


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ContractError(f"{path} is not JSON: {error}") from error


MORE = "more"
"""The hyperparameter that holds others, ``name=value,name=value``: those that a deployment adds."""


def hyperparameters(paths: Paths) -> Parameters:
    """Read the hyperparameters; SageMaker hands every value over as a string, some tools JSON-quoted.

    Raises
    ------
    ContractError
        They are no JSON object, or `MORE` is no list of assignments, or assigns what is given already.
    """
    path = paths.config("hyperparameters")
    raw = _read_json(path) if path.exists() else {}
    if not isinstance(raw, dict):
        raise ContractError(f"{path} must hold one JSON object, not a {type(raw).__name__}")
    given = {name: str(value).strip('"') for name, value in raw.items()}
    for assignment in filter(None, given.pop(MORE, "").split(",")):
        name, equals, value = (part.strip() for part in assignment.partition("="))
        if not name or not equals:
            raise ContractError(f"hyperparameter {MORE}: {assignment!r} is no assignment; write name=value")
        if name in given:
            raise ContractError(f"hyperparameter {MORE}: {name} is set already, to {given[name]!r}")
        given[name] = value
    return Parameters(given, "hyperparameter")


def environment() -> Parameters:
    """Return the process environment, the way that processing jobs are configured."""
    return Parameters(os.environ, "environment variable")


def resources(paths: Paths) -> Resources:
    """Read which host this is, and of which; one host when SageMaker tells nothing."""
    path = paths.config("resourceconfig")
    raw = _read_json(path) if path.exists() else {}
    current = str(raw.get("current_host", "algo-1"))
    return Resources(
        current, tuple(raw.get("hosts", [current])), str(raw.get("network_interface_name") or "")
    )


def extract_model(directory: Path, target: Path) -> Path | None:
    """Unpack the one ``model.tar.gz`` somewhere below ``directory`` into ``target``.

    The path below an input depends on the job that wrote it and on how the input is described (a prefix
    or a manifest), so it is searched for. Returns ``None`` when there is none.

    Raises
    ------
    ArtifactError
        There are several, or the archive is damaged or would write outside ``target``.
    """
    archives = sorted(directory.rglob("model.tar.gz")) if directory.is_dir() else []
    if not archives:
        return None
    if len(archives) > 1:
        raise ArtifactError(f"{directory} holds {len(archives)} model.tar.gz, expected one: {archives}")
    target.mkdir(parents=True, exist_ok=True)
    try:
        with gzip.open(archives[0]) as content:
            with tarfile.open(fileobj=content, mode="r:") as archive:
                archive.extractall(target, filter="data")
            while content.read(1024 * 1024):  # to its end: only there the checksum is looked at
                pass
    except (tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise ArtifactError(f"{archives[0]} cannot be unpacked: {error}") from error
    return target


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(EXIT_STOPPED)


def run(entry: Callable[[Paths], None], *, first: bool = True) -> int:
    """Run ``entry`` and turn its end into an exit code: the one place that tells SageMaker of a failure.

    The reason is written to the failure file (training) and the message file (processing) and logged.
    The first process of a container clears what an earlier run left there; of those that it starts, the first
    to fail knows why, and what the others write later is not kept.
    A container's process is PID 1, for which the kernel ignores SIGTERM unless there is a handler.
    """
    signal.signal(signal.SIGTERM, _stop)
    paths = Paths.from_environment()
    reasons = (paths.failure, paths.message)
    for path in reasons:
        if first and path.is_file():
            path.unlink()
    try:
        entry(paths)
    except ContainerError as error:
        code, reason = error.exit_code, f"{type(error).__name__}: {error}"
        log.error(reason)  # noqa: TRY400 - the message says it all; the stack is of no use to its reader
    except Exception as error:
        code, reason = EXIT_INTERNAL, f"{type(error).__name__}: {error}"
        log.exception("unexpected failure")
    else:
        return 0
    for path in reasons:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(reason[:FAILURE_MAX_CHARS])
        except OSError as error:
            if path.is_file():
                continue
            print(f"cannot write {path}: {error}", file=sys.stderr)
    return code
