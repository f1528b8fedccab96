"""How long a Lambda invocation takes on the embedded AWS, beside the same work without it.

Run ``python bench/lambda_invoke.py``. Warm: an invocation through the HTTP API, beside a call of the same
server that does nothing (``sts:GetCallerIdentity``). Cold: a function's first invocation, beside the start of
a bare process that imports the runtime interface client. Both alternate, so that a busy machine hits both.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import statistics
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]
WARM_LIMIT_MS = 15.0
COLD_LIMIT_MS = 350.0
HANDLER = "def lambda_handler(event, context):\n    return event\n"


def main() -> int:
    """Measure, print the table and tell whether the limits hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--warm", type=int, default=200, help="warm invocations (default: 200)")
    parser.add_argument("--cold", type=int, default=20, help="cold invocations (default: 20)")
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "local", "--no-deploy", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "TRUTHLOOP_LAMBDA_MAX_IDLE": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        if server.stdout.readline().strip() != "ready":
            print("The server did not start; its message is above.", file=sys.stderr)
            return 1
        warm, warm_floor = measure_warm(port, options.warm)
        cold, cold_floor = measure_cold(port, options.cold)
    finally:
        server.terminate()
        server.wait(timeout=20)
    print(f"{'':24}{'median':>10}{'p95':>10}{'floor':>10}{'ratio':>8}{'limit':>10}")
    held = [
        row("warm invoke", warm, warm_floor, WARM_LIMIT_MS),
        row("cold invoke", cold, cold_floor, COLD_LIMIT_MS),
    ]
    print(
        "floor, warm: GetCallerIdentity on the same server · cold: python -c 'import awslambdaric.bootstrap'"
    )
    return 0 if all(held) else 1


def row(name: str, times: list[float], floor: list[float], limit: float) -> bool:
    """Print one line, in milliseconds; return whether the median is within the limit."""
    median, least = statistics.median(times), statistics.median(floor)
    tail = statistics.quantiles(times, n=20)[-1]
    verdict = "" if median <= limit else "  EXCEEDED"
    print(
        f"{name:24}{median:7.1f} ms{tail:7.1f} ms{least:7.1f} ms{median / least:8.2f}{limit:7.0f} ms{verdict}"
    )
    return median <= limit


def measure_warm(port: int, count: int) -> tuple[list[float], list[float]]:
    """Return the times of invocations of a warm function and of calls that do nothing."""
    functions, identity = client(port, "lambda"), client(port, "sts")
    name = create(port)

    def invoke() -> None:
        functions.invoke(FunctionName=name, Payload=b"{}")["Payload"].read()

    for _ in range(20):
        invoke()
        identity.get_caller_identity()
    pairs = [(timed(invoke), timed(identity.get_caller_identity)) for _ in range(count)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def measure_cold(port: int, count: int) -> tuple[list[float], list[float]]:
    """Return the times of first invocations and of bare starts of the runtime interface client."""
    functions = client(port, "lambda")
    bare = [sys.executable, "-c", "import awslambdaric.bootstrap"]
    times, floor = [], []
    for _ in range(count):
        name = create(port)

        def invoke(name: str = name) -> None:
            functions.invoke(FunctionName=name, Payload=b"{}")["Payload"].read()

        times.append(timed(invoke))
        floor.append(timed(lambda: subprocess.run(bare, check=True)))
        functions.delete_function(FunctionName=name)
    return times, floor


def timed(work: Callable[[], Any]) -> float:
    """Return how long ``work`` takes, in milliseconds."""
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


def create(port: int) -> str:
    """Create a bare function and return its name."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", HANDLER)
    name = f"bench-{uuid.uuid4().hex[:8]}"
    role = client(port, "iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    client(port, "lambda").create_function(
        FunctionName=name,
        Role=role,
        Runtime=f"python{sys.version_info.major}.{sys.version_info.minor}",
        Handler="app.lambda_handler",
        Code={"ZipFile": code.getvalue()},
    )
    return name


def client(port: int, service: str) -> Any:
    """Return a client for the server of this benchmark."""
    return boto3.client(
        service,  # type: ignore[call-overload]
        region_name="us-east-1",
        endpoint_url=f"http://localhost:{port}",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
    )


if __name__ == "__main__":
    raise SystemExit(main())
