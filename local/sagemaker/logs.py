"""Containers' output in CloudWatch Logs, while they run, one call per second and stream at most."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

from botocore.exceptions import ClientError

from local.context import LocalAws

log = logging.getLogger("local.sagemaker")

FLUSH_SECONDS = 0.5
BATCH = 1000
MAX_EVENT = 250_000


class LogStream:
    """One log stream that is written in batches."""

    def __init__(self, aws: LocalAws, region: str, group: str, stream: str) -> None:
        self._aws = aws
        self._logs = aws.client("logs", region)
        self.group = group
        self.stream = stream
        self.arn = f"arn:aws:logs:{region}:{aws.account_id}:log-group:{group}:log-stream:{stream}"
        self.tail: deque[str] = deque(maxlen=20)
        self._pending: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._closed = threading.Event()
        self._created = False
        self._wake = threading.Event()
        threading.Thread(target=self._run, name=f"logs-{stream}", daemon=True).start()

    def write(self, lines: list[str]) -> None:
        """Add lines; they appear within a second."""
        stamp = int(time.time() * 1000)
        with self._lock:
            for line in lines:
                if line.strip():
                    self.tail.append(line)
                self._pending.append({"timestamp": stamp, "message": line[:MAX_EVENT] or " "})
        self._wake.set()

    def close(self) -> None:
        """Write what is left."""
        self._closed.set()
        self._wake.set()
        self._flush()

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self._flush()
            except Exception:
                if not self._aws.stopping.is_set():
                    log.exception("lines of the log stream %s were lost", self.stream)
            self._closed.wait(FLUSH_SECONDS)

    def _flush(self) -> None:
        with self._flush_lock:
            with self._lock:
                pending, self._pending = self._pending, []
            if not pending:
                return
            if not self._created:
                self._create()
            for start in range(0, len(pending), BATCH):
                self._logs.put_log_events(
                    logGroupName=self.group,
                    logStreamName=self.stream,
                    logEvents=pending[start : start + BATCH],
                )

    def _create(self) -> None:
        for create, names in (
            (self._logs.create_log_group, {"logGroupName": self.group}),
            (self._logs.create_log_stream, {"logGroupName": self.group, "logStreamName": self.stream}),
        ):
            try:
                create(**names)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                    raise
        self._created = True
