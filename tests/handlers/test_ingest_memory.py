"""The bound on the door's memory, shown: uploads of 100 MB and more through the real handler, over HTTP."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.handlers.conftest import BUCKET, ROOT, batch, record, uploaded

pytestmark = pytest.mark.slow

INBOX = "ground-truth/inbox/"
SIZE = 100_000_000
BOUND = 32 * 1024 * 1024
"""How much more memory than for one record: what docs/conventions.md promises."""

FUNCTION = """
import importlib.util, json, sys
from types import SimpleNamespace

def peak():
    # Not getrusage: its peak is inherited from the process that has started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

spec = importlib.util.spec_from_file_location("app", sys.argv[1])
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)
context = SimpleNamespace(
    aws_request_id="1", function_name="ingest", get_remaining_time_in_millis=lambda: 300_000
)
for line in sys.stdin:
    answer = app.lambda_handler(json.loads(line), context)
    print("PEAK", json.dumps({"answer": answer, "peak": peak()}), flush=True)
"""


def large() -> tuple[bytes, int]:
    """Return 100 MB of JSON lines of about four kilobytes and their number; every tenth record is bad."""
    filling = "x" * 4000
    lines = []
    for number in range(10):
        lines.append(json.dumps({**record(f"i{number}", "7" if number else 7), "note": filling}))
    block = "\n".join(lines).encode() + b"\n"
    times = -(-SIZE // len(block))
    return block * times, 10 * times


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak")
def test_memory_does_not_grow_with_the_upload(world: Any) -> None:
    # Given: one record; 100 MB; a gzip file that unpacks to 100 MB; and one that unpacks to more than is read
    content, records = large()
    assert len(content) >= SIZE
    uploads = {
        "one.jsonl": json.dumps(record("i", "7")).encode(),
        "large.jsonl": content,
        "large.jsonl.gz": gzip.compress(content, 1),
        "bomb.jsonl.gz": gzip.compress(bytes(150_000_000), 1),
    }
    events = [batch(uploaded(INBOX + name, world.put(INBOX + name, body))) for name, body in uploads.items()]
    # When: a process of its own takes them one after the other
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": world.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": str(ROOT / "layers/common"),
    }
    command = [sys.executable, "-c", FUNCTION, str(ROOT / "functions/ingest_ground_truth/app.py")]
    run = subprocess.run(
        command,
        input="".join(json.dumps(event) + "\n" for event in events),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    # Then
    found = [json.loads(line[5:]) for line in run.stdout.splitlines() if line.startswith("PEAK ")]
    assert len(found) == len(uploads), run.stderr
    assert [entry["answer"] for entry in found] == [{"batchItemFailures": []}] * len(uploads)
    growth = {name: entry["peak"] - found[0]["peak"] for name, entry in zip(uploads, found, strict=True)}
    print({name: f"{value / 2**20:.1f} MiB" for name, value in growth.items()})
    assert max(growth.values()) < BOUND, growth
    # and all of it was read
    sizes = [
        len(world.get(key).splitlines())
        for prefix in ("accepted", "quarantine")
        for key in world.keys(f"ground-truth/{prefix}/")
    ]
    assert sorted(sizes) == sorted([1, records * 9 // 10, records * 9 // 10, records // 10, records // 10, 1])
    assert world.s3.list_objects_v2(Bucket=BUCKET, Prefix="ground-truth/quarantine/")["KeyCount"] == 3
