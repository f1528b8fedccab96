"""One serving container: started with ``serve``, watched, restarted, spoken to over kept connections."""

from __future__ import annotations

import http.client
import logging
import os
import queue
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any

from local.ports import free_port
from local.sagemaker.data_channels import DataChannels, unpack
from local.sagemaker.errors import JobError
from local.sagemaker.images import Image
from local.sagemaker.jobs import container_environment
from local.sagemaker.logs import LogStream
from local.sagemaker.models import ContainerDefinition
from local.sagemaker.processes import ContainerProcess
from local.sagemaker.state import SageMaker, random_id

log = logging.getLogger("local.sagemaker")

INVOCATION_VARIABLE = "TRUTHLOOP_INVOCATION_SECONDS"
"""Seconds that a container has for an answer; SageMaker's own 60 by default."""

HEALTH_VARIABLE = "TRUTHLOOP_HEALTH_CHECK_SECONDS"
"""Upper limit for the time to the first good ping: the API allows no less than a minute."""

LOG_GROUP_PREFIX = "/aws/sagemaker/Endpoints/"
STOP_GRACE = 30.0
_RESTART_WAITS = (0.2, 0.5, 1.0, 2.0, 5.0)
_PING_TIMEOUT = 2.0


class ContainerUnavailableError(Exception):
    """The container does not answer."""


class ContainerTimeoutError(ContainerUnavailableError):
    """The container did not answer in time."""


@dataclass(frozen=True)
class Answer:
    """What the container said."""

    status: int
    headers: dict[str, str]
    body: bytes


class ServingContainer:
    """A process that serves one variant of one endpoint configuration.

    Parameters
    ----------
    sagemaker, region, endpoint_name, variant
        Whose container it is; they name the log stream.
    definition
        Image, model data, environment and role.
    health_timeout
        Seconds that the container has from its start to its first successful ping.
    """

    def __init__(
        self,
        sagemaker: SageMaker,
        region: str,
        endpoint_name: str,
        variant: str,
        definition: ContainerDefinition,
        health_timeout: float,
    ) -> None:
        self._sagemaker = sagemaker
        self._region = region
        self._variant = variant
        self._definition = definition
        self._health_timeout = health_timeout
        self._base = sagemaker.workdir / "endpoints" / f"{endpoint_name[:60]}-{random_id(8)}"
        self._ml = self._base / "ml"
        self._connections: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self._port = 0
        self._process: ContainerProcess | None = None
        self._stopping = threading.Event()
        self._in_flight = 0
        self._idle = threading.Condition()
        stream = f"{variant}/i-{random_id(17)}"
        self.log = LogStream(sagemaker.aws, region, LOG_GROUP_PREFIX + endpoint_name, stream)

    def start(self) -> None:
        """Fetch the model, start the process and wait until it answers pings.

        Raises
        ------
        JobError
            Image, model data or container are no good; the message is the FailureReason.
        """
        image = self._sagemaker.images.resolve(self._definition.image)
        model = self._ml / "model"
        model.mkdir(parents=True, exist_ok=True)
        if self._definition.model_data:
            archive = self._base / "model.tar.gz"
            channels = DataChannels(self._sagemaker.aws, self._region, self._definition.role_arn)
            channels.download_file(self._definition.model_data, archive)
            unpack(archive, model, self._definition.model_data)
            archive.unlink()
        process = self._launch(image)
        self._sagemaker.spawn(self._watch, image, process, name=f"serve-{self._variant}")

    def acquire(self) -> None:
        """Count a request in; the caller holds the lock under which traffic is switched."""
        with self._idle:
            self._in_flight += 1

    def release(self) -> None:
        """Count a request out."""
        with self._idle:
            self._in_flight -= 1
            self._idle.notify_all()

    def invoke(self, headers: dict[str, str], body: bytes) -> Answer:
        """Send one request to ``/invocations``.

        Raises
        ------
        ContainerTimeoutError, ContainerUnavailableError
            No answer.
        """
        deadline = time.monotonic() + invocation_timeout()
        while True:
            connection, kept = self._connection()
            try:
                connection.request("POST", "/invocations", body=body, headers=headers)
                response = connection.getresponse()
                content = response.read()
            except TimeoutError as error:
                connection.close()
                raise ContainerTimeoutError(str(error)) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # A kept connection may have been closed by the container while it was idle: that
                # request was never read, so it goes out once more on a new one.
                stale = kept and isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError))
                if stale and time.monotonic() < deadline:
                    continue
                raise ContainerUnavailableError(str(error)) from error
            if response.will_close:
                connection.close()
            else:
                self._connections.put(connection)
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

    def drain_and_stop(self) -> None:
        """Let the requests in flight finish, then end the process and forget its files."""
        self._stopping.set()
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, timeout=invocation_timeout())
        if self._process is not None:
            self._process.stop(STOP_GRACE)
        self._close_connections()
        try:
            self.log.close()
        except Exception:
            if not self._sagemaker.aws.stopping.is_set():
                log.exception("the last log lines of %s were lost", self.log.stream)
        shutil.rmtree(self._base, ignore_errors=True)

    def _launch(self, image: Image) -> ContainerProcess:
        """Start the process and wait until it is healthy."""
        self._port = free_port()
        argv = image.argv(None, ["serve"], self._ml)
        environment = container_environment(
            self._sagemaker.aws,
            self._region,
            image,
            self._definition.role_arn,
            self._base,
            {
                **self._definition.environment,
                "BIND_HOST": "127.0.0.1",
                "SAGEMAKER_BIND_TO_PORT": str(self._port),
                "SAGEMAKER_SAFE_PORT_RANGE": f"{self._port}-{self._port}",
                "SAGEMAKER_MULTI_MODEL": "false",
            },
            isolated=self._definition.isolated,
        )
        try:
            process = self._sagemaker.supervisor.start(
                argv, cwd=image.cwd, env=environment, on_lines=self.log.write, nice=0
            )
        except OSError as error:
            raise JobError(f"ClientError: cannot start {argv}: {error}") from error
        self._process = process
        self._await_health(process, time.monotonic() + self._health_timeout)
        return process

    def _await_health(self, process: ContainerProcess, deadline: float) -> None:
        problem = "no answer"
        while time.monotonic() < deadline and not self._stopping.is_set():
            code = process.wait(0.02)
            if code is not None:
                last = self.log.tail[-1] if self.log.tail else "nothing"
                problem = f"the container ended with exit code {code}; the last line of its log is: {last}"
                break
            status = self._ping()
            if status == 200:
                return
            problem = f"the last answer was {status}" if status else "no answer"
        process.stop(2.0)
        raise JobError(
            f"The primary container for production variant {self._variant} did not pass the ping health "
            f"check ({problem}). Please check CloudWatch logs for this endpoint."
        )

    def _ping(self) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PING_TIMEOUT)
        try:
            connection.request("GET", "/ping")
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return response.status

    def _watch(self, image: Image, process: ContainerProcess) -> None:
        """Restart the process when it ends by itself, less and less eagerly."""
        crashes = 0
        ending = self._sagemaker.aws.stopping
        while not (self._stopping.is_set() or ending.is_set()):
            code = process.wait(1.0)
            if code is None or self._stopping.is_set() or ending.is_set():
                continue
            self.log.write([f"container ended with exit code {code}; it is started again"])
            self._close_connections()
            self._stopping.wait(_RESTART_WAITS[min(crashes, len(_RESTART_WAITS) - 1)])
            crashes += 1
            if self._stopping.is_set():
                return
            try:
                process = self._launch(image)
            except JobError as error:
                log.warning("%s: %s", self.log.stream, error)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        try:
            return self._connections.get_nowait(), True
        except queue.Empty:
            pass
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=invocation_timeout())
        try:
            connection.connect()
        except OSError as error:
            raise ContainerUnavailableError(str(error)) from error
        # http.client sends headers and body in two writes; with Nagle the second waits 40 ms.
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, False

    def _close_connections(self) -> None:
        while True:
            try:
                self._connections.get_nowait().close()
            except queue.Empty:
                return


def invocation_timeout() -> float:
    """Return the seconds that a container has for an answer."""
    return float(os.environ.get(INVOCATION_VARIABLE, "60"))


def health_timeout_of(variant: dict[str, Any]) -> float:
    """Return the seconds that a variant's container has to become healthy."""
    limit = float(os.environ.get(HEALTH_VARIABLE, "inf"))
    return min(limit, float(variant.get("ContainerStartupHealthCheckTimeoutInSeconds") or 240))
