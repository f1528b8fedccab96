"""Time from StartExecution to a seen SUCCEEDED of a Pass state, beside a call that does nothing.

Run ``.venv/bin/python -m bench.pass_execution [count]``. Both are measured in turn on one server, so
what else the machine does slows both; exit code 1 if the median exceeds 30 ms.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

ROOT = Path(__file__).resolve().parents[1]
LIMIT_MS = 30.0
ROLE = "arn:aws:iam::123456789012:role/bench"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _millis(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def _client(port: int) -> Any:
    return boto3.session.Session().client(
        "stepfunctions",
        region_name="us-east-1",
        endpoint_url=f"http://localhost:{port}",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
    )


def _run(client: Any, arn: str, value: str) -> None:
    execution = client.start_execution(stateMachineArn=arn, input=value)["executionArn"]
    while (status := client.describe_execution(executionArn=execution)["status"]) == "RUNNING":
        time.sleep(0.001)
    if status != "SUCCEEDED":
        raise RuntimeError(f"the execution {execution} ended as {status}")


def measure(client: Any, count: int) -> dict[str, list[float]]:
    """Return the times in milliseconds of each kind of work, taken in turn."""
    machines = {
        "Pass, JSONPath": {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}},
        "Pass, JSONata": {
            "QueryLanguage": "JSONata",
            "StartAt": "P",
            "States": {
                "P": {"Type": "Pass", "Output": "{% $states.input.list[$ > 1].{'v': $} %}", "End": True}
            },
        },
    }
    arns = {
        name: client.create_state_machine(
            name=name.replace(", ", "-"), definition=json.dumps(definition), roleArn=ROLE
        )["stateMachineArn"]
        for name, definition in machines.items()
    }
    value = json.dumps({"list": [1, 2, 3]})
    times: dict[str, list[float]] = {"floor": [], **{name: [] for name in arns}}
    for arn in arns.values():
        _run(client, arn, value)
    for _ in range(count):
        times["floor"].append(_millis(client.list_activities))
        for name, arn in arns.items():
            times[name].append(_millis(lambda arn=arn: _run(client, arn, value)))  # type: ignore[misc]
    return times


def main() -> int:
    """Start a server, measure, print medians and ratios."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "local", "--no-deploy", "--port", str(port)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if server.stdout is None or server.stdout.readline().strip() != "ready":
            print("the server did not start", file=sys.stderr)
            return 2
        times = measure(_client(port), count)
    finally:
        server.terminate()
        server.wait(timeout=20)
    floor = statistics.median(times["floor"])
    print(f"{count} runs each on one server; the floor is ListActivities, one call that does nothing")
    print(f"{'work':<16}{'median ms':>10}{'p95 ms':>10}{'× floor':>9}")
    for name, values in times.items():
        median = statistics.median(values)
        late = sorted(values)[int(len(values) * 0.95)]
        print(f"{name:<16}{median:>10.1f}{late:>10.1f}{median / floor:>9.1f}")
    worst = max(statistics.median(values) for name, values in times.items() if name != "floor")
    print(f"limit {LIMIT_MS:.0f} ms: {'kept' if worst <= LIMIT_MS else 'EXCEEDED'}")
    return 0 if worst <= LIMIT_MS else 1


if __name__ == "__main__":
    raise SystemExit(main())
