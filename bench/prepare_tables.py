"""What memory it takes to read a Parquet file that is one row group: Prepare beside Polars, batch by batch.

Usage: ``.venv/bin/python bench/prepare_tables.py [images …]`` (default 200 600 1800, of 256 KiB each,
which no compression makes smaller). Each reads in a process of its own; memory is the greatest resident set.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

CONTAINERS = Path(__file__).resolve().parents[1] / "containers"
sys.path.insert(0, str(CONTAINERS))

IMAGE_BYTES = 256 * 1024


def prepare(path: Path) -> int:
    """Read as Prepare does."""
    from dataset.tables import pieces

    return sum(len(image) for _, images, _ in pieces(path, path.name) for image in images)


def polars(path: Path) -> int:
    """Read as many rows at a time as Prepare does."""
    batches = pl.scan_parquet(path).select("example_id", "image", "label").collect_batches(chunk_size=7)
    return sum(len(image) for batch in batches for image in batch["image"])


def main(counts: list[int]) -> None:
    """Print both sides."""
    chance = np.random.default_rng(20261122)
    with tempfile.TemporaryDirectory() as directory:
        for count in counts:
            path = Path(directory) / f"{count}.parquet"
            columns = {"example_id": [str(number) for number in range(count)], "label": ["7"] * count}
            images = pl.Series("image", [chance.bytes(IMAGE_BYTES) for _ in range(count)], pl.Binary)
            pl.DataFrame(columns).with_columns(images).write_parquet(path, row_group_size=count)
            peaks = []
            for side in ("prepare", "polars"):
                found = subprocess.check_output([sys.executable, __file__, side, path], text=True).split()
                assert int(found[0]) == count * IMAGE_BYTES
                peaks.append(int(found[1]) // 1024)
            ratio = peaks[0] / peaks[1]
            print(
                f"{count * IMAGE_BYTES >> 20:4} MiB of images: Prepare {peaks[0]:4} MiB, "
                f"Polars {peaks[1]:4} MiB, ratio {ratio:.2f}"
            )


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("prepare", "polars"):
        total = {"prepare": prepare, "polars": polars}[sys.argv[1]](Path(sys.argv[2]))
        # Not the resource usage: to Linux a new process has had what the one that started it has.
        status = Path("/proc/self/status").read_text()
        print(total, re.findall(r"VmHWM:\s+(\d+)", status)[0])
    else:
        main([int(value) for value in sys.argv[1:]] or [200, 600, 1800])
