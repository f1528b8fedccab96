"""How fast and in what memory the evaluation reads a holdout, beside a plain loop over pictures in memory.

Usage: ``.venv/bin/python bench/evaluate_holdout.py [pictures]`` (default 8,000; also a quarter of them). The
holdout is of real digits, scaled to 48 × 48 and with noise, so that no two are equal, in shards of 2,500.
Three untrained models answer it (two architectures, two input sizes). Each measurement is a process of its
own, and its memory is that process's greatest resident set, less what it was before the holdout was opened.
The floor decodes, scales and answers the same pictures, whose bytes are in memory, with no threads and no
files.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "containers"))

import numpy as np
import polars as pl
import torch
from PIL import Image
from sklearn.datasets import load_digits

from common.imaging import decode, to_input
from evaluation.answers import Contestant, answer
from evaluation.holdout import BATCH, Holdout
from evaluation.predict import predict
from models.artifact import ModelCard

LABELS = [str(digit) for digit in range(10)]
MODELS = {"champion": ("convnet", 16), "old": ("convnet", 16), "new": ("convmixer", 32)}
PER_SHARD = 2500
SIZE = 48


def contestants() -> dict[str, Contestant]:
    """Return three models with fresh weights."""
    found = {}
    for name, (architecture, size) in MODELS.items():
        card = ModelCard(architecture, LABELS, size, 1, "g00000001", name)
        found[name] = Contestant(card, card.build().eval(), "")
    return found


def write(directory: Path, count: int) -> None:
    """Write the shards."""
    data = load_digits()
    generator = np.random.default_rng(0)
    for number, start in enumerate(range(0, count, PER_SHARD)):
        rows = range(start, min(start + PER_SHARD, count))
        images = []
        for row in rows:
            digit = Image.fromarray((data.images[row % len(data.images)] * 15).astype(np.uint8))
            canvas = np.asarray(digit.resize((SIZE, SIZE))).astype(int)
            noisy = np.clip(canvas + generator.integers(-8, 8, canvas.shape), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(noisy).save(buffer, "PNG")
            images.append(buffer.getvalue())
        columns = {
            "example_id": [f"e{row}" for row in rows],
            "image": images,
            "label": [str(data.target[row % len(data.target)]) for row in rows],
            "source": ["base" for _ in rows],
        }
        pl.DataFrame(columns).write_parquet(directory / f"part-{number:05d}.parquet")


def resident() -> int:
    """Return the greatest resident set so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(directory: Path, what: str) -> dict[str, float]:
    """Answer the holdout in this process."""
    torch.set_num_threads(1)
    models = contestants()
    warm = torch.zeros((BATCH, 1, 32, 32), dtype=torch.uint8)
    predict(models["new"].model, models["new"].card.transforms().normalise, warm)
    images = [image for part in Holdout.open(directory).images() for image in part] if what == "floor" else []
    before = resident()
    wall, cpu = time.perf_counter(), time.process_time()
    if what == "floor":
        for start in range(0, len(images), BATCH):
            pictures = [decode(image) for image in images[start : start + BATCH]]
            for each in models.values():
                pixels = np.stack([to_input(picture, *each.form) for picture in pictures])
                predict(each.model, each.card.transforms().normalise, torch.from_numpy(pixels))
        count = len(images)
    else:
        holdout = Holdout.open(directory)
        truth = np.array([int(label) for label in holdout.labels], np.int32)
        answer(models, holdout, truth, LABELS)
        count = len(holdout)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"pictures": count, "wall": wall, "cpu": cpu, "memory": resident() - before}


def main() -> None:
    """Print both, with their ratios."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2])))
        return
    most = int(sys.argv[1]) if len(sys.argv) > 1 else 8_000
    found = {}
    for count in (most // 4, most):
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch), count)
            for what in ("evaluation", "floor"):
                command = [sys.executable, __file__, scratch, what]
                said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                found[what] = json.loads(said)
        mine, floor = found["evaluation"], found["floor"]
        megabytes = mine["memory"] / 2**20
        print(
            f"{count:,} pictures, three models: {count / mine['wall']:,.0f} pictures/s, "
            f"{1e6 * mine['cpu'] / count:.0f} us of CPU each; {mine['cpu'] / floor['cpu']:.2f} x the CPU and "
            f"{mine['wall'] / floor['wall']:.2f} x the time of the plain loop; {megabytes:.0f} MiB"
        )


if __name__ == "__main__":
    main()
