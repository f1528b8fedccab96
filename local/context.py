"""What every adapter of the embedded AWS shares: address, work directory, clients, background work.

One :class:`LocalAws` exists per process, made by :func:`local.server.start` and handed to each
adapter's ``install(aws)``. Adapters never keep globals of their own beside what they hang on it.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config

from local import workdirs

ACCOUNT_ID = "123456789012"
"""The account that moto simulates (its own constant)."""
DELETE_SECONDS = 3.0
"""How long the work directory's deletion is tried."""

log = logging.getLogger("local")


class LocalAws:
    """The running embedded AWS.

    Parameters
    ----------
    port
        TCP port on the loopback interface.
    region
        The region that clients get when they name none.
    """

    def __init__(self, port: int, region: str = "us-east-1") -> None:
        self.port = port
        self.region = region
        self.account_id = ACCOUNT_ID
        self.endpoint = f"http://localhost:{port}"
        self.workdir = workdirs.make()
        self.stopping = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=64, thread_name_prefix="local")
        self._on_stop: list[Callable[[], None]] = []
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()
        # One session: its loader keeps each service's model once, whichever clients use it.
        self._session = boto3.session.Session()

    def client(self, service: str, region: str | None = None) -> Any:
        """Return a cached boto3 client that talks to this server over HTTP (thread-safe)."""
        key = (service, region or self.region)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._session.client(
                    service,  # type: ignore[call-overload]
                    region_name=key[1],
                    endpoint_url=self.endpoint,
                    aws_access_key_id="local",
                    aws_secret_access_key="local",  # noqa: S106 - moto takes any
                    config=Config(
                        retries={"total_max_attempts": 1},
                        max_pool_connections=64,
                        s3={"addressing_style": "path"},
                        parameter_validation=True,
                    ),
                )
            return self._clients[key]

    def share_service_models(self) -> None:
        """Let moto read botocore's service models through our session: a second copy costs 100 MB."""
        import moto.core.utils

        loader: Any = self._session._session.get_component("data_loader")
        moto.core.utils._load_service_model = loader.load_service_model

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run ``work`` in the background; an exception is logged, never lost."""

        def guarded() -> Any:
            try:
                return work(*args)
            except Exception:
                if not self.stopping.is_set():
                    log.exception("background work failed: %s", getattr(work, "__qualname__", work))
                raise

        return self._pool.submit(guarded)

    def on_stop(self, action: Callable[[], None]) -> None:
        """Register an action for :meth:`stop`; the last registered runs first."""
        self._on_stop.append(action)

    def stop(self) -> None:
        """End every process and thread that this server started and delete its work directory."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        for action in reversed(self._on_stop):
            try:
                action()
            except Exception:
                log.exception("stop action failed: %s", getattr(action, "__qualname__", action))
        self._pool.shutdown(wait=False, cancel_futures=True)
        # What was killed may still be writing for a moment.
        deadline = time.monotonic() + DELETE_SECONDS
        while self.workdir.exists() and time.monotonic() < deadline:
            shutil.rmtree(self.workdir, ignore_errors=True)
            time.sleep(0.02)
