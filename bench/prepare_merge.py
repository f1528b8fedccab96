"""What it costs Prepare to join captures and labels, beside Polars on the concatenated bytes.

Usage: ``.venv/bin/python bench/prepare_merge.py [records] [files]`` (default 100,000 in 1,000 files). Both
sides run in a process of their own, from reading the files to the newest capture of each labelled id; CPU is
user plus system time of the whole process, memory its greatest resident set.
"""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
from PIL import Image

CONTAINERS = Path(__file__).resolve().parents[1] / "containers"
sys.path.insert(0, str(CONTAINERS))

TIME = "%Y-%m-%dT%H:%M:%S%.f%#z"


def make(directory: Path, records: int, files: int) -> None:
    """Write capture files, in which every tenth id is captured twice, and a label for every id."""
    pictures = []
    for shade in range(200):
        buffer = io.BytesIO()
        Image.frombytes("L", (8, 8), bytes((shade * 7 + 31 * n * n) % 256 for n in range(64))).save(
            buffer, "PNG"
        )
        pictures.append(base64.b64encode(buffer.getvalue()).decode())
    (directory / "capture").mkdir()
    ids = records * 10 // 11
    with (directory / "labels.jsonl").open("w") as labels:
        for number in range(ids):
            label = {"inferenceId": f"request-{number:032}", "label": str(number % 10)}
            label |= {"eventTime": f"2026-11-22T10:00:00.{number % 10**6:06}Z", "author": "ann"}
            label |= {"source": "correction", "sequencer": f"{number:040x}.0", "image": None}
            labels.write(json.dumps(label, separators=(",", ":")) + "\n")
    for file in range(files):
        with (directory / "capture" / f"{file:06}.jsonl").open("w") as lines:
            for number in range(file, records, files):
                part = {"observedContentType": "image/png", "mode": "INPUT", "encoding": "BASE64"}
                answer = {"observedContentType": "application/json", "mode": "OUTPUT", "encoding": "JSON"}
                record = {
                    "captureData": {
                        "endpointInput": part | {"data": pictures[number % 200]},
                        "endpointOutput": answer | {"data": '{"label": "7", "score": 0.9}'},
                    },
                    "eventMetadata": {
                        "eventId": f"event-{number:032}",
                        "inferenceId": f"request-{number % ids:032}",
                        "inferenceTime": f"2026-11-22T09:{number // 60 % 60:02}:{number % 60:02}Z",
                    },
                    "eventVersion": "0",
                }
                lines.write(json.dumps(record) + "\n")


def prepare(directory: Path) -> int:
    """Join as Prepare does, by its own functions."""
    from dataset.captures import CaptureCounts, files
    from dataset.labels import read_labels
    from dataset.prepare import join

    return join(read_labels(directory / "labels.jsonl"), files(directory / "capture"), CaptureCounts()).height


def polars(directory: Path) -> int:
    """Join all at once."""
    paths = sorted(os.path.join(directory, "capture", name) for name in os.listdir(directory / "capture"))
    content = b"".join(Path(path).read_bytes() for path in paths)
    metadata = pl.col("eventMetadata").struct
    captured = pl.read_ndjson(content).select(
        metadata.field("inferenceId"),
        metadata.field("inferenceTime").str.to_datetime(TIME).alias("at"),
        pl.col("captureData").struct.field("endpointInput").struct.field("data"),
    )
    labels = pl.read_ndjson(directory / "labels.jsonl")
    newest = (
        captured.join(labels, on="inferenceId").group_by("inferenceId").agg(pl.all().sort_by("at").last())
    )
    return newest.height


def measure(side: str, directory: Path) -> tuple[float, float, int]:
    """Run one side in a process; return CPU seconds, MiB and rows."""
    process = subprocess.Popen([sys.executable, __file__, side, directory], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    rows = int(process.stdout.read())
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, rows


def main(records: int, files: int) -> None:
    """Print both sides and their ratios."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make(directory, records, files)
        ours, theirs = (measure(side, directory) for side in ("prepare", "polars"))
    assert ours[2] == theirs[2]
    print(f"{records:,} records in {files:,} files, {ours[2]:,} labelled ids")
    print(f"Prepare                       {ours[0]:6.2f} s CPU  {ours[1]:6.0f} MiB")
    print(f"Polars on concatenated bytes  {theirs[0]:6.2f} s CPU  {theirs[1]:6.0f} MiB")
    print(
        f"ratio                         {ours[0] / theirs[0]:6.2f} (≤ 1.3) {ours[1] / theirs[1]:4.2f} (≤ 1.5)"
    )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("prepare", "polars"):
        print({"prepare": prepare, "polars": polars}[sys.argv[1]](Path(sys.argv[2])))
    else:
        main(*[int(value) for value in sys.argv[1:]] or [100_000, 1_000])
