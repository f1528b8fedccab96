"""What the door costs per record, beside the decoder that it cannot do without.

Run ``.venv/bin/python bench/ingest_records.py``. The door: unpack, split, judge against a label set, write
the accepted and the quarantine lines to the function's spools, as ``ingest_ground_truth`` does between its S3
calls. The floor: the same bytes through the decoder alone, line by line (``json.loads``; for CSV
``csv.reader``; gzip unpacked by ``gzip.decompress`` first). Both alternate in one process, so that a busy
machine hits both; of each the fastest round counts. The exit code is 1 when a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "layers" / "common"))

from truthloop.ports import ObjectStream  # noqa: E402
from truthloop.steps.ingest_ground_truth import sort_records  # noqa: E402
from truthloop.uploads.door import SourceObject  # noqa: E402 (the layer is no installed package)
from truthloop.uploads.spool import spool  # noqa: E402

UPLOADED = datetime(2026, 11, 22, 12, tzinfo=UTC)
LABELS = frozenset(str(digit) for digit in range(10))
BAD_EVERY = 50
CHUNK = 256 * 1024
LIMITS = {"jsonl": 6.0, "jsonl.gz": 6.0, "csv": 15.0, "csv.gz": 15.0}
"""Ratios to the floor. CSV's floor is lower, while an accepted line costs the same to write."""


def records(count: int) -> list[tuple[str, str, str, str]]:
    """Return inference id, label, author and time of `count` records; every 50th has an unknown label."""
    chooser = random.Random(1)
    return [
        (
            f"{chooser.getrandbits(128):032x}",
            "?" if number % BAD_EVERY == 0 else str(chooser.randrange(10)),
            chooser.choice(["ann", "bob", "eve"]),
            f"2026-11-22T{chooser.randrange(12):02d}:{chooser.randrange(60):02d}:{chooser.randrange(60):02d}Z",
        )
        for number in range(count)
    ]


def json_lines(count: int) -> bytes:
    """Return corrections as JSON lines."""
    return b"".join(
        json.dumps(
            {
                "groundTruthData": {"data": label, "encoding": "CSV"},
                "eventMetadata": {"eventId": identifier, "eventTime": at, "author": author},
                "eventVersion": "0",
            }
        ).encode()
        + b"\n"
        for identifier, label, author, at in records(count)
    )


def csv_lines(count: int) -> bytes:
    """Return the same corrections as CSV with a header."""
    rows = [",".join(row) for row in records(count)]
    return "\n".join(["inference_id,label,author,event_time", *rows, ""]).encode()


def door(name: str, content: bytes) -> int:
    """Take an upload through the door; return how many records were decided."""
    source = SourceObject("bucket", f"ground-truth/inbox/2026-11-22/ann.{name}", "v" * 32, "6a" * 8, UPLOADED)
    chunks = (content[start : start + CHUNK] for start in range(0, len(content), CHUNK))
    stream = ObjectStream(chunks, len(content), UPLOADED, "v" * 32)
    with spool() as accepted, spool() as quarantine:
        counts = sort_records(stream, source, LABELS, accepted, quarantine)
        accepted.content()
        quarantine.content()
    return counts.accepted + counts.quarantined


def decoder(name: str, content: bytes) -> int:
    """Decode the same bytes line by line and do nothing with them; return how many lines there were."""
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    lines = content.decode().split("\n")
    lines.pop()
    if name.startswith("csv"):
        return sum(len(list(csv.reader((line,)))) for line in lines) - 1
    for line in lines:
        json.loads(line)
    return len(lines)


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """Return the wall time and the CPU time of `work` per record, in seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    count = work()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    plain = {"jsonl": json_lines(options.records), "csv": csv_lines(options.records)}
    uploads = {**plain, **{f"{name}.gz": gzip.compress(content, 6) for name, content in plain.items()}}
    print(f"{'':10}{'bytes':>12}{'records/s':>12}{'CPU/record':>14}{'floor':>10}{'ratio':>8}{'limit':>8}")
    held = True
    for name in sorted(uploads, key=list(LIMITS).index):
        content = uploads[name]
        ours, floors = [], []
        for _ in range(options.rounds):
            ours.append(measured(lambda name=name, content=content: door(name, content)))
            floors.append(measured(lambda name=name, content=content: decoder(name, content)))
        wall, cpu = (min(values) for values in zip(*ours, strict=True))
        floor = min(value[1] for value in floors)
        ratio = cpu / floor
        held = held and ratio <= LIMITS[name]
        print(
            f"{name:10}{len(content):12,}{1 / wall:12,.0f}{cpu * 1e6:11.2f} µs{floor * 1e6:7.2f} µs"
            f"{ratio:8.2f}{LIMITS[name]:8.1f}{'' if ratio <= LIMITS[name] else '  EXCEEDED'}"
        )
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
