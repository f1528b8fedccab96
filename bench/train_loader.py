"""How many images a second the loader delivers, beside what the model's own step takes on the same device.

Run ``python bench/train_loader.py``. The store is real: decoded from a Parquet shard of PNGs into a file
and mapped. The loader alone is drained as fast as it goes; the step is the training loop's, which says itself
what share of its time it waited for data. The aim is a share of at most 0.05.
"""

from __future__ import annotations

import argparse
import io
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "containers"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from train_step import CLASSES, model_of

from models.transforms import default
from training import store
from training.loader import Loader
from training.sampler import Sampler
from training.settings import Settings
from training.store import Store
from training.trainer import Examples, Training
from training.world import World


class Epochs(logging.Handler):
    """Keeps what the training loop reports about each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.getMessage() == "epoch":
            self.seen.append(vars(record)["fields"])


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="convnet")
    parser.add_argument("--size", type=int, default=0, help="edge length (default: 32, on a GPU 224)")
    parser.add_argument("--batch", type=int, default=0, help="batch size (default: 64, on a GPU 256)")
    parser.add_argument("--images", type=int, default=2000, help="examples (default: 2000)")
    parser.add_argument(
        "--epochs", type=int, default=4, help="epochs, the first of which warms up (default: 4)"
    )
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    size, batch = options.size or (224 if on_gpu else 32), options.batch or (256 if on_gpu else 64)
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))  # as in a training job
    name = torch.cuda.get_device_name() if on_gpu else f"the CPU, {torch.get_num_threads()} thread(s)"
    print(f"{options.architecture} on {name}: {options.images} images of {size} x {size} x 3, batch {batch}")
    with tempfile.TemporaryDirectory() as folder:
        scratch, channel = Path(folder) / "scratch", Path(folder) / "train"
        write_shard(channel, options.images, size)
        began = time.perf_counter()
        store.build(scratch, channel, size, 3)
        print(f"decoding: {options.images / (time.perf_counter() - began):8.0f} images/s, once per job")
        examples = Store.read(scratch, size, 3)
        targets = torch.tensor([int(label) for label in examples.labels])
        loaders = [drain(Loader(examples.pixels, targets, device), options.images, batch) for _ in range(4)]
        loader = statistics.median(loaders[1:])
        epochs = Epochs()
        logger = logging.getLogger("training.trainer")
        logger.setLevel(logging.INFO)
        logger.addHandler(epochs)
        Training(
            model_of(options.architecture, device, size),
            default(),
            Examples(examples.pixels, targets, torch.arange(options.images)),
            Settings(options.epochs, batch, 1e-3),
            World(device=device),
        ).run()
    step = statistics.median(line["images_per_second"] for line in epochs.seen[1:])
    share = statistics.median(line["data_wait_share"] for line in epochs.seen[1:])
    print(f"loader alone {loader:8.0f} images/s, training loop {step:8.0f}: {loader / step:.1f} x")
    print(f"share of the training loop's time that waited for data: {share:.3f} (aim: 0.05)")
    return 0


def write_shard(channel: Path, count: int, size: int) -> None:
    """Write PNGs of noise on a gradient, which compress about as photographs do."""
    generator = np.random.default_rng(0)
    channel.mkdir()
    images = []
    for _ in range(count):
        slope = np.linspace(0, 200, size, dtype=np.uint8)[:, None, None]
        buffer = io.BytesIO()
        Image.fromarray(slope + generator.integers(0, 50, (size, size, 3), np.uint8)).save(buffer, "PNG")
        images.append(buffer.getvalue())
    columns = {
        "example_id": [f"e{place}" for place in range(count)],
        "image": images,
        "label": [str(place % CLASSES) for place in range(count)],
    }
    pl.DataFrame(columns).write_parquet(channel / "part-00000.parquet")


def drain(loader: Loader, count: int, batch: int) -> float:
    """Return the images per second when nobody computes."""
    began = time.perf_counter()
    for _ in loader.load(Sampler(count, batch, 0).batches(1, 0)):
        pass
    return count / (time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
