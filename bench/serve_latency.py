"""Latency under open-loop load, what batching gains, and the server's memory, with real models.

Run ``python bench/serve_latency.py``. For each model the capacity is found with a closed loop; then requests
come as a Poisson process at 70 % of it, and a latency counts from when the request was due. Batching:
requests a second with ``MAX_BATCH=32`` beside ``MAX_BATCH=1``, in turn. On a GPU the same by batch size.
The server is the image's entry point, with torch; it decodes real PNGs. The client is another process.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from serving.load import Load, Outcome, generate
from serving.servers import CONTAINERS, Started, cores, running
from sklearn.datasets import load_digits

sys.path.insert(0, str(CONTAINERS))

import torch

from models import artifact
from models.artifact import ModelCard

SHARE_OF_CAPACITY = 0.7
CONNECTIONS = 32
OPEN_CONNECTIONS = 256
LABELS = [str(digit) for digit in range(10)]
MODELS = {
    "convnet 16x16x1": ModelCard("convnet", LABELS, 16, 1, "g00000001", "new"),
    "convnet 64x64x3": ModelCard("convnet", LABELS, 64, 3, "g00000001", "new"),
}


def picture(card: ModelCard) -> bytes:
    """Return a real digit as a PNG of the size of the model's input."""
    pixels = (load_digits().images[0] * 15).astype(np.uint8)
    image = Image.fromarray(pixels).convert("L" if card.channels == 1 else "RGB")
    buffer = io.BytesIO()
    image.resize((card.image_size, card.image_size), Image.Resampling.BILINEAR).save(buffer, "PNG")
    return buffer.getvalue()


class Bench:
    """A directory with each model and a picture for it, and what is asked of their servers."""

    def __init__(self, root: Path, requests: int) -> None:
        self.root = root
        self.requests = requests
        for name, card in MODELS.items():
            torch.manual_seed(0)
            artifact.save(root / name / "model", card, card.build())
            (root / name / "picture.png").write_bytes(picture(card))

    def server(self, stack: ExitStack, name: str, max_batch: int) -> Started:
        """Start a model's server; on a GPU it may use every core."""
        return stack.enter_context(
            running(
                lambda port: [sys.executable, "-m", "inference", "serve"],
                port_variable="SAGEMAKER_BIND_TO_PORT",
                environment={
                    "ML_BASE_DIR": str(self.root / name),
                    "BIND_HOST": "127.0.0.1",
                    "MAX_BATCH": str(max_batch),
                    "MAX_WAITING": "10000",
                },
                pinned=not torch.cuda.is_available(),
                body=(self.root / name / "picture.png").read_bytes(),
            )
        )

    def ask(self, server: Started, name: str, rate: float = 0.0, seed: int = 0) -> Outcome:
        """Send the model's picture; all must be answered."""
        path = str(self.root / name / "picture.png")
        connections = OPEN_CONNECTIONS if rate else CONNECTIONS
        outcome = generate(Load(server.port, path, "image/png", connections, self.requests, rate, seed))
        if not outcome.all_answered:
            raise RuntimeError(f"{name} answered {outcome.statuses}")
        return outcome


def latency(bench: Bench, rounds: int) -> None:
    """Print capacity, latencies at a share of it, and memory."""
    columns = ("capacity/s", "offered/s", "p50 ms", "p99 ms", "MiB at rest", "MiB after")
    print(f"\n{'open loop':18}" + "".join(f"{column:>12}" for column in columns))
    for name in MODELS:
        with ExitStack() as stack:
            server = bench.server(stack, name, 32)
            rest = server.resident_mib()
            bench.ask(server, name)
            capacity = statistics.median(bench.ask(server, name).requests_per_second for _ in range(rounds))
            rate = capacity * SHARE_OF_CAPACITY
            found = [bench.ask(server, name, rate, seed) for seed in range(rounds)]
            p50, p99 = (statistics.median(getattr(one, of) for one in found) for of in ("p50", "p99"))
            memory = f"{rest:12.0f}{server.resident_mib():12.0f}"
            print(f"{name:18}{capacity:12.0f}{rate:12.0f}{p50:12.2f}{p99:12.2f}{memory}")


def batching(bench: Bench, rounds: int, sizes: list[int]) -> None:
    """Print requests a second by the largest batch, beside no batching."""
    print(f"\n{'closed loop':18}" + "".join(f"{f'MAX_BATCH={size}':>22}" for size in sizes))
    for name in MODELS:
        with ExitStack() as stack:
            servers = {size: bench.server(stack, name, size) for size in sizes}
            for server in servers.values():
                bench.ask(server, name)
            found: dict[int, list[Outcome]] = {size: [] for size in sizes}
            for _ in range(rounds):
                for size, server in servers.items():
                    found[size].append(bench.ask(server, name))
        rates = {size: statistics.median(one.requests_per_second for one in of) for size, of in found.items()}
        cells = []
        for size, of in found.items():
            p99 = statistics.median(one.p99 for one in of)
            cells.append(f"{rates[size]:6.0f}/s {rates[size] / rates[sizes[0]]:.2f}x {p99:4.0f} ms")
        print(f"{name:18}" + "".join(f"{cell:>22}" for cell in cells))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=3000, help="requests of a round (default: 3000)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: 3)")
    options = parser.parse_args()
    own, _ = cores()
    gpu = torch.cuda.is_available()
    if gpu:
        print(f"GPU: {torch.cuda.get_device_name()}, fp16; the server may use every core")
    else:
        print(
            "No GPU that torch can use: the model computes on the CPU, fp32, and the GPU's part is left out"
        )
        print(f"server on core {sorted(own)}")
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root), options.requests)
        latency(bench, options.rounds)
        batching(bench, options.rounds, [1, 4, 16, 32, 128] if gpu else [1, 32])
    print("ms in the second table: p99; x: beside MAX_BATCH=1")
    return 0


if __name__ == "__main__":
    sys.exit(main())
