"""What a whole Prepare job costs: base set in Parquet, capture, labels; to the shards of both sides.

Usage: ``.venv/bin/python bench/prepare_all.py [pictures] [files]`` (default 20,000 base pictures in one row
group and 500 capture files). There are ten captures per file, and a label for one in five. The pictures are
scikit-learn's digits under noise that no two share, 8 × 8 PNGs.

CPU is user plus system time of all processes, memory the greatest sum of their proportional set sizes (what
they share counts once), looked at four times a second, beside the greatest of one of them. The floor is
what cannot be left out: reading the table, decoding every picture once, and writing it again.
"""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "containers"))

from tests.containers.conftest import Job, capture_line, label_line, lines

CAPTURES_PER_FILE, LABELLED_EVERY = 10, 5
NOISE = 60
AT_ONCE = 10_000
SCHEMA = pa.schema([("example_id", pa.string()), ("image", pa.binary()), ("label", pa.string())])


def pictures(count: int) -> Iterator[tuple[bytes, str]]:
    """Yield pictures and their labels."""
    digits = load_digits()
    chance = np.random.default_rng(20261122)
    for number in range(count):
        pixels = digits.images[number % 1797] * 15 + chance.normal(0, NOISE, (8, 8))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
        yield buffer.getvalue(), str(digits.target[number % 1797])


def make(job: Job, count: int, files: int) -> None:
    """Write the inputs."""
    source = pictures(count + files * CAPTURES_PER_FILE)
    path = job.write_input("base/all.parquet", b"")
    images, labels = zip(*(next(source) for _ in range(count)), strict=True)
    columns = [
        pa.array(f"base-{n:08}" for n in range(count)),
        pa.array(images, pa.binary()),
        pa.array(labels),
    ]
    pq.write_table(pa.table(columns, schema=SCHEMA), path, row_group_size=count)
    statements = []
    for file in range(files):
        records = []
        for number in range(file * CAPTURES_PER_FILE, (file + 1) * CAPTURES_PER_FILE):
            picture, label = next(source)
            records.append(capture_line(f"request-{number:08}", picture, label))
            if number % LABELLED_EVERY == 0:
                statements.append(label_line(f"request-{number:08}", label))
        job.write_input(f"capture/{file % 24:02}/{file:06}.jsonl", lines(records))
    job.dataset(labels=statements)


def watch(process: subprocess.Popen[str]) -> tuple[float, float]:
    """Return the greatest memory of all processes together, and of one of them, in MiB."""
    together = alone = 0
    while process.poll() is None:
        try:
            root = psutil.Process(process.pid)
            sizes = [one.memory_full_info().pss for one in (root, *root.children(recursive=True))]
        except psutil.Error:  # one ended while it was looked at
            continue
        together, alone = max(together, sum(sizes)), max(alone, *sizes)
        time.sleep(0.25)
    return together / 2**20, alone / 2**20


def floor(job: Job) -> None:
    """Read, decode and write every picture of the base set."""
    table = pl.read_parquet(job.inputs / "base" / "all.parquet")
    for image in table["image"]:
        Image.open(io.BytesIO(image)).load()
    table.write_parquet(job.base / "again.parquet")


def cpu(who: int) -> float:
    """Return the CPU seconds of this process or of its children."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main(count: int, files: int) -> None:
    """Print what it cost."""
    with tempfile.TemporaryDirectory() as directory:
        job = Job(Path(directory))
        make_in_a_process = os.fork()
        if not make_in_a_process:
            make(job, count, files)
            os._exit(0)
        assert os.waitpid(make_in_a_process, 0)[1] == 0
        began, used = time.perf_counter(), cpu(resource.RUSAGE_CHILDREN)
        process = job.start("training", "prepare")
        together, alone = watch(process)
        log = process.communicate()[1]
        wall, used = time.perf_counter() - began, cpu(resource.RUSAGE_CHILDREN) - used
        assert process.returncode == 0, log
        report = job.output("report/report.json")
        here = cpu(resource.RUSAGE_SELF)
        floor(job)
        here = cpu(resource.RUSAGE_SELF) - here
        size = (job.inputs / "base" / "all.parquet").stat().st_size / 2**20
    print(f"{count:,} pictures in one row group ({size:.0f} MiB), {report['captureRecords']:,} captures in")
    print(f"{files:,} files, {report['joined']:,} labelled; written: {report['examples']}, ", end="")
    print(f"near duplicates {report['nearDuplicates']:,}")
    print(f"Prepare  {used:7.1f} s CPU  {wall:7.1f} s  {together:6.0f} MiB, one process {alone:6.0f} MiB")
    print(f"floor    {here:7.1f} s CPU, {used / here:.1f} times as much for Prepare")


if __name__ == "__main__":
    main(*[int(value) for value in sys.argv[1:]] or [20_000, 500])
