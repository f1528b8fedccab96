"""A real server process per test session (and per xdist worker), driven by plain boto3 clients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


class LocalServer:
    """A running ``python -m local --no-deploy`` and clients for it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.endpoint = f"http://localhost:{port}"
        # One session reads each service's model once.
        self._session = boto3.session.Session()

    def client(self, service: str, **config: Any) -> Any:
        return self._session.client(
            service,  # type: ignore[call-overload]
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(s3={"addressing_style": "path"}, **config),
        )


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    """Start the empty embedded AWS once per session."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "--no-deploy", "--port", str(port)],
        cwd=ROOT,
        env={
            **os.environ,
            # The tests' own tiny images beside the real ones, and no two minutes for stubborn jobs.
            "TRUTHLOOP_IMAGES": os.pathsep.join(
                [str(ROOT / "tests/local/fixtures/images"), str(ROOT / "containers")]
            ),
            "TRUTHLOOP_STOP_GRACE_SECONDS": "1",
            "TRUTHLOOP_SPOT_SCARCE": "ml.p3.16xlarge",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "ready":
            break
    else:
        pytest.fail(f"python -m local ended with {process.wait()} before it was ready")
    yield LocalServer(port)
    process.terminate()
    assert process.wait(timeout=60) == 0
