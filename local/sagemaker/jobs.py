"""What training and processing jobs share: life cycle, container, stopping, time limit, clean-up."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from local.context import LocalAws
from local.lambda_runtime import identity
from local.sagemaker.data_channels import DataChannels
from local.sagemaker.errors import JobError, ResourceInUse
from local.sagemaker.hosts import Host, names, stop_all
from local.sagemaker.images import DEFAULT_PATH, Image
from local.sagemaker.logs import LogStream
from local.sagemaker.publisher import with_millis
from local.sagemaker.state import Params, SageMaker, now, random_id

log = logging.getLogger("local.sagemaker")

GRACE_VARIABLE = "TRUTHLOOP_STOP_GRACE_SECONDS"
"""Seconds between SIGTERM and SIGKILL of a stopped job; SageMaker's own 120 by default."""

NOBODY = "http://127.0.0.1:9"
"""The discard port, where no server of ours listens."""

FAILURE_LIMIT = 1024
"""SageMaker cuts FailureReason and ExitMessage here."""


class StopRequestedError(Exception):
    """The job was asked to stop before its container ran."""


def stop_grace() -> float:
    """Return the seconds that a stopped container gets."""
    return float(os.environ.get(GRACE_VARIABLE, "120"))


def container_environment(
    aws: LocalAws,
    region: str,
    image: Image,
    role_arn: str,
    base: Path,
    variables: dict[str, str],
    *,
    isolated: bool,
) -> dict[str, str]:
    """Return the whole environment of a container's process: nothing leaks in from the server.

    Parameters
    ----------
    base
        The job's directory; ``base/ml`` stands for /opt/ml.
    variables
        What the request sets; it wins over the image's ENV.
    isolated
        Whether the container has no network: it is given no credentials then, as on AWS, and an address where
        nobody answers, so that a call fails here too. Other addresses are not closed to it.
    """
    ml_base = base / "ml"
    (base / "tmp").mkdir(parents=True, exist_ok=True)
    path = image.environment.get("PATH", DEFAULT_PATH)
    return {
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        **{name: image.localise(value, ml_base) for name, value in image.environment.items()},
        "PATH": f"{Path(sys.executable).parent}:{path}",
        "HOME": str(base),
        "TMPDIR": str(base / "tmp"),
        "ML_BASE_DIR": str(ml_base),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        **(
            {"AWS_ENDPOINT_URL": NOBODY, "AWS_EC2_METADATA_DISABLED": "true"}
            if isolated
            else {
                "AWS_ENDPOINT_URL": aws.endpoint,
                "AWS_ACCESS_KEY_ID": identity.access_key_for(role_arn),
                "AWS_SECRET_ACCESS_KEY": "local",
            }
        ),
        **{name: image.localise(value, ml_base) for name, value in variables.items()},
    }


@dataclass(frozen=True)
class Start:
    """What a host's container is started with: an image, a command line, the variables of the request."""

    host: Host
    image: Image
    argv: list[str]
    variables: dict[str, str]


@dataclass(frozen=True)
class Exit:
    """How the containers have ended: all with 0, or the first one that did not, and where that was."""

    code: int
    host: Host


class Job(ABC):
    """One training or processing job, from the request to its terminal status.

    Parameters
    ----------
    sagemaker, region
        Where it lives.
    name, arn, tags
        Its identity.
    body
        The description as Describe*Job returns it; it changes as the job goes on.
    instances
        How many hosts it has.
    """

    name_field: str
    status_field: str
    log_group: str
    event_type: str

    def __init__(
        self,
        sagemaker: SageMaker,
        region: str,
        name: str,
        arn: str,
        body: Params,
        tags: dict[str, str],
        instances: int = 1,
    ) -> None:
        self.sagemaker = sagemaker
        self.region = region
        self.name = name
        self.arn = arn
        self.tags = tags
        self.body = body
        self.lock = threading.RLock()
        self.done = threading.Event()
        self.stop_requested = threading.Event()
        self.channels = DataChannels(sagemaker.aws, region, body["RoleArn"])
        self.base = sagemaker.workdir / "jobs" / f"{name[:80]}-{random_id(6)}"
        self.timed_out = False
        created = int(body["CreationTime"].timestamp())
        self.hosts = [
            Host(
                host,
                self.base / host,
                LogStream(sagemaker.aws, region, self.log_group, f"{name}/{host}-{created}"),
            )
            for host in names(instances)
        ]

    # -- what the two kinds differ in ----------------------------------------------------------
    @abstractmethod
    def prepare(self) -> list[Start]:
        """Bring the data in; return what each host is started with."""

    @abstractmethod
    def on_started(self) -> None:
        """Act when the containers run."""

    @abstractmethod
    def on_exited(self, end: Exit) -> None:
        """Bring the results out; raise JobError when a container failed."""

    @abstractmethod
    def settle(self, status: str, failure: str | None) -> None:
        """Write the terminal status into the description."""

    def take_lines(self, host: Host, lines: list[str]) -> None:
        """Handle a container's output."""
        host.log.write(lines)

    def deadline(self) -> float:
        """Return when the container must have ended, by the monotonic clock; asked when the job starts."""
        limit = float((self.body.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds", 86400))
        return time.monotonic() + limit

    def isolated(self) -> bool:
        """Whether the request asked for network isolation."""
        settings = self.body.get("NetworkConfig") or self.body
        return bool(settings.get("EnableNetworkIsolation"))

    def reclaimed(self) -> bool:
        """Whether an instance was taken away below its running container."""
        return False

    # -- for everybody -------------------------------------------------------------------------
    @property
    def status(self) -> str:
        """The API's status of the job."""
        return str(self.body[self.status_field])

    @property
    def terminal(self) -> bool:
        """Whether the job has ended."""
        return self.status in ("Completed", "Failed", "Stopped")

    def describe(self) -> Params:
        """Return a copy of the description."""
        with self.lock:
            return copy.deepcopy(self.body)

    def publish(self) -> None:
        """Tell the bus about the present state."""
        detail = with_millis(self.describe())
        self.sagemaker.publisher.publish(
            self.region, self.event_type, [self.arn], {**detail, "Tags": dict(self.tags)}
        )

    def start(self) -> None:
        """Run the job in the background."""
        self.publish()
        self.sagemaker.spawn(self._run, name=f"job-{self.name}")

    def request_stop(self) -> None:
        """Ask the job to end; each container gets SIGTERM and its grace."""
        with self.lock:
            if self.terminal or self.stop_requested.is_set():
                return
            self.body[self.status_field] = "Stopping"
            self.body["LastModifiedTime"] = now()
            self.stop_requested.set()
        self.publish()

    def check_stop(self) -> None:
        """Raise when the job was asked to stop; called between the phases."""
        if self.stop_requested.is_set():
            raise StopRequestedError

    def _run(self) -> None:
        status, failure = "Completed", None
        try:
            self.on_exited(self.run_containers())
            if self.stop_requested.is_set() or self.timed_out:
                status = "Stopped"
        except StopRequestedError:
            status = "Stopped"
        except JobError as error:
            status, failure = "Failed", str(error)
        except Exception as error:
            if not self.sagemaker.aws.stopping.is_set():
                log.exception("job %s", self.name)
            status, failure = "Failed", f"InternalServerError: {type(error).__name__}: {error}"
        finally:
            self._clean_up()
        with self.lock:
            self.settle(status, failure[:FAILURE_LIMIT] if failure else None)
            self.body[self.status_field] = status
            self.body["LastModifiedTime"] = now()
        self.done.set()
        self.publish()

    def run_containers(self) -> Exit:
        """Run the containers to their end; when one of them fails, or there is a reason, all end."""
        starts = self.prepare()
        self.check_stop()
        for start in starts:
            self._start(start)
        self.on_started()
        return self._wait()

    def _start(self, start: Start) -> None:
        environment = container_environment(
            self.sagemaker.aws,
            self.region,
            start.image,
            self.body["RoleArn"],
            start.host.base,
            start.variables,
            isolated=self.isolated(),
        )
        try:
            start.host.container = self.sagemaker.supervisor.start(
                start.argv,
                cwd=start.image.cwd,
                env=environment,
                on_lines=partial(self.take_lines, start.host),
            )
        except OSError as error:
            raise JobError(f"AlgorithmError: cannot start {start.argv}: {error}, exit code: 126") from error

    def _wait(self) -> Exit:
        deadline = self.deadline()
        running = [(host, host.container) for host in self.hosts if host.container is not None]
        while True:
            for host, container in list(running):
                code = container.wait(0.05 / len(running))
                if code is None:
                    continue
                running.remove((host, container))
                if code != 0:  # nor can the others go on: they train together
                    stop_all([left for _, left in running], stop_grace())
                    return Exit(code, host)
            if not running:
                break
            asked = self.stop_requested.is_set() or self.reclaimed()
            if asked or time.monotonic() > deadline:
                self.timed_out = not asked
                codes = stop_all([left for _, left in running], stop_grace())
                ends = (Exit(code, host) for code, (host, _) in zip(codes, running, strict=True))
                return next((end for end in ends if end.code), Exit(0, self.hosts[0]))
        return Exit(0, self.hosts[0])

    def _clean_up(self) -> None:
        for host in self.hosts:
            if host.container is not None:
                host.container.signal(signal.SIGKILL)
            try:
                host.log.close()
            except Exception:
                if not self.sagemaker.aws.stopping.is_set():
                    log.exception("the last log lines of %s were lost", host.log.stream)
        shutil.rmtree(self.base, ignore_errors=True)


def read_message(path: Path) -> str:
    """Return a message file that a container wrote, or an empty string."""
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def algorithm_error(message: str, code: int, log_stream: LogStream) -> JobError:
    """Return SageMaker's failure for a container that ended with a code other than 0."""
    if not message:
        last = log_stream.tail[-1] if log_stream.tail else "nothing"
        message = f"no failure message was written; the last line of the log is: {last}"
    if code == 137:
        message += " (killed)"
    return JobError(f"AlgorithmError: {message[: FAILURE_LIMIT - 60]}, exit code: {code}")


def seconds_between(start: datetime, end: datetime) -> int:
    """Return whole seconds, at least one, as SageMaker bills."""
    return max(1, round((end - start).total_seconds()))


J = TypeVar("J", bound=Job)


def start_once(table: dict[str, J], lock: threading.RLock, name: str, arn: str, make: Callable[[], J]) -> J:
    """Start a job under a name that no job of the table has yet.

    Raises
    ------
    ResourceInUse
        The name is taken.
    """
    with lock:
        if name in table:
            raise ResourceInUse(
                "Job name must be unique within an AWS account and region, and a job with this name "
                f"already exists ({arn})"
            )
        job = make()
        table[name] = job
    job.start()
    return job
