"""The demo as a person starts it: once all the way, and each way in which it can stop early."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
MEMORY_LIMIT_BYTES = int(2.5 * 2**30)


def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PORT"}
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "demo", *arguments],
        cwd=ROOT,
        env={**environment, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def still_running(endpoint_port: int) -> list[str]:
    """Return what the demo with this port left behind."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if f"-m local --no-deploy --port {endpoint_port}" in command:
            found.append(command)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_story(tmp_path: Path) -> None:
    port = free_port()
    before = set(psutil.pids())
    process = start("--output", str(tmp_path), "--port", str(port))
    said, _ = process.communicate(timeout=1180)

    assert process.returncode == 0, said[-6000:]
    result: dict[str, Any] = json.loads((tmp_path / "result.json").read_text())
    assert result["passed"] is True
    assert all(check["passed"] for check in result["checks"])
    assert result["counts"]["retrains_after_drift"] == 1
    assert result["counts"]["trigger_executions"] >= 3, "ground truth, violation and alarm"
    assert result["counts"]["failed_requests"] == 0
    assert result["counts"]["models_in_stream"] >= 2, "requests went on through the update"
    assert result["accuracy"]["everyday"] > 0.9
    assert result["accuracy"]["exam_after"] > result["accuracy"]["exam_before"] + 0.1
    assert result["memory"]["peak_bytes"] < MEMORY_LIMIT_BYTES
    reasons = sorted(item["reason"] for item in result["quarantine"])
    assert reasons == ["BAD_SCHEMA", "BAD_TIME", "NOT_JSON", "NOT_UTF8", "UNKNOWN_LABEL"]
    outcomes = [decision["outcome"] for decision in result["decisions"]]
    assert outcomes.count("SUCCEEDED") == 2
    assert outcomes.count("DEPLOYED") == 2
    # The log reads well where there is no terminal: no escape codes, every chapter named.
    assert "\x1b" not in said
    assert "Decision log" in said
    assert "ml.p3.8xlarge" in said
    assert (tmp_path / "report.html").stat().st_size > 100_000
    assert still_running(port) == []
    mine = [pid for pid in set(psutil.pids()) - before if _is_ours(pid, tmp_path)]
    assert mine == []


def _is_ours(pid: int, output: Path) -> bool:
    try:
        return str(output) in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        by_option = start("--port", str(port), "--output", str(tmp_path))
        said, _ = by_option.communicate(timeout=60)
        by_variable = start("--output", str(tmp_path), PORT=str(port))
        said_too, _ = by_variable.communicate(timeout=60)

    assert by_option.returncode == by_variable.returncode == 1
    for text in (said, said_too):
        assert text.count("The demo stopped:") == 1
        assert f"port {port} is in use" in text
        assert "Traceback" not in text
    assert still_running(port) == []


def test_a_deployment_that_fails(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    parameters = json.loads((ROOT / "demo" / "parameters.json").read_text())
    content = {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Resources": {"Castle": {"Type": "AWS::Architecture::Castle"}},
    }
    template.write_text(json.dumps(content))
    port = free_port()

    process = start("--port", str(port), "--template", str(template), "--output", str(tmp_path / "out"))
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert said.count("The demo stopped:") == 1
    assert "the deployment of template.yaml failed" in said
    assert "AWS::Architecture::Castle" in said
    assert "Traceback" not in said
    assert still_running(port) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    process = start("--port", str(port), "--output", str(tmp_path))
    deadline = time.monotonic() + 60
    while "ready" not in (tmp_path / "local.log").read_text() if (tmp_path / "local.log").exists() else True:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family

    process.send_signal(number)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "stopped: everything that the demo started has been ended" in said
    assert "Traceback" not in said
    assert [child for child in family if child.is_running()] == []


def test_a_demo_interrupted_while_it_starts_says_nothing(tmp_path: Path) -> None:
    # Given a demo that has just begun its imports: Python alone does not handle SIGTERM
    process = start("--port", str(free_port()), "--output", str(tmp_path))
    deadline = time.monotonic() + 60
    while not handles(process.pid, signal.SIGTERM):
        assert time.monotonic() < deadline
        time.sleep(0.005)

    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert said == ""


def handles(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def test_a_killed_demo_takes_the_embedded_aws_with_it(tmp_path: Path) -> None:
    process = start("--port", str(free_port()), "--output", str(tmp_path))
    deadline = time.monotonic() + 60
    while not (family := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)

    process.kill()

    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []


def test_an_embedded_aws_that_dies_is_named(tmp_path: Path) -> None:
    port = free_port()
    process = start("--port", str(port), "--output", str(tmp_path))
    deadline = time.monotonic() + 60
    while not (found := psutil.Process(process.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found[0].kill()
    said, _ = process.communicate(timeout=120)

    assert process.returncode == 1
    assert "ended by itself with exit code -9" in said
    assert "Traceback" not in said
