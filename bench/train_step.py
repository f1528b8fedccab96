"""How many images a second the training loop learns from, beside a plain loop that has nothing else to do.

Run ``python bench/train_step.py``. Peer: forward, backward, AdamW on tensors that lie on the device, in the
same precision, the images varied in the same way; nothing is read, nothing decided, no average kept. The loop
is the real one: store, loader, clipping, average, agreement, metrics. Both alternate, so that a busy machine
hits both; on a CPU the process's CPU time counts, which is nobody else's. The aim is a ratio of 0.9. On a GPU
fp16 stands beside fp32.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "containers"))

from models.catalogue import find
from models.interface import ModelShape
from models.transforms import default
from training.settings import Settings
from training.trainer import Examples, Training
from training.world import World

CLASSES = 10


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="convnet")
    parser.add_argument("--size", type=int, default=0, help="edge length (default: 32, on a GPU 224)")
    parser.add_argument("--batch", type=int, default=0, help="batch size (default: 64, on a GPU 256)")
    parser.add_argument("--steps", type=int, default=20, help="steps of a round (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each (default: 5)")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    size, batch = options.size or (224 if on_gpu else 32), options.batch or (256 if on_gpu else 64)
    name = torch.cuda.get_device_name() if on_gpu else f"the CPU, {torch.get_num_threads()} threads"
    print(f"{options.architecture} on {name}: {size} x {size} x 3, batch {batch}, torch {torch.__version__}")
    if not on_gpu:
        print("There is no GPU here: fp16 is not measured, since CPUs only emulate it.")
    speed: dict[str, float] = {}
    for precision in ("fp32", "fp16") if on_gpu else ("fp32",):
        ours, theirs = [], []
        for _ in range(options.rounds + 1):
            theirs.append(plain(options.architecture, device, precision, size, batch, options.steps))
            ours.append(real(options.architecture, device, precision, size, batch, options.steps))
        found, peer = (statistics.median(times[1:]) for times in (ours, theirs))  # the first warms up
        speed[precision] = found
        print(
            f"{precision}: training loop {found:8.0f} images/s, plain loop {peer:8.0f}, {found / peer:.2f} x"
        )
    if "fp16" in speed:
        print(f"fp16 beside fp32: {speed['fp16'] / speed['fp32']:.2f} x")
    return 0


def model_of(architecture: str, device: torch.device, size: int) -> nn.Module:
    """Return fresh weights, the same every time."""
    torch.manual_seed(0)
    definition = find(architecture)
    model = definition.build(ModelShape(CLASSES, size, 3), definition.values({}))
    return model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def plain(
    architecture: str, device: torch.device, precision: str, size: int, batch: int, steps: int
) -> float:
    """Return the images per second of a loop over one batch that never changes."""
    model = model_of(architecture, device, size)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    half = precision == "fp16"
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    images = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, device=device)
    targets = torch.randint(0, CLASSES, (batch,), device=device)
    noise = torch.rand(batch, 8, device=device) * 2 - 1
    given = default()

    def step() -> int:
        optimiser.zero_grad()
        entering = given.augment(given.normalise(images), noise).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.float16, half):
            logits = model(entering)
        scaler.scale(nn.functional.cross_entropy(logits.float(), targets)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        return batch

    return timed(lambda: sum(step() for _ in range(steps)), device, steps * batch)


def real(architecture: str, device: torch.device, precision: str, size: int, batch: int, steps: int) -> float:
    """Return the images per second of an epoch of the training loop."""
    generator = np.random.default_rng(0)
    count = steps * batch
    pixels = generator.integers(0, 256, (count, 3, size, size), np.uint8)
    targets = torch.from_numpy(generator.integers(0, CLASSES, count))
    settings = Settings(epochs=1, batch_size=batch, learning_rate=1e-3, precision=precision)
    training = Training(
        model_of(architecture, device, size),
        default(),
        Examples(pixels, targets, torch.arange(count)),
        settings,
        World(device=device),
    )
    return timed(training.run, device, count)


def timed(work: Callable[[], object], device: torch.device, images: int) -> float:
    """Return the images per second."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images / (clock() - began)


if __name__ == "__main__":
    sys.exit(main())
