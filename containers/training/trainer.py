"""The training loop: one process, one device."""

from __future__ import annotations

import logging
import math
import os
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.architectures import normalise
from common.errors import TrainingDivergedError
from common.logs import event

log = logging.getLogger(__name__)

LABEL_SMOOTHING = 0.05
WEIGHT_DECAY = 0.01
WARM_UP_SHARE = 0.1
MAX_ROTATION = 0.15
"""Radians; with the next two it keeps every digit, letter and sign what it is."""
MAX_SCALING = 0.1
MAX_SHIFT = 0.12
"""As a share of half the edge length."""


@dataclass(frozen=True)
class Settings:
    """How to train."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


def use_half_the_cores() -> None:
    """Leave the other half: where both candidates run on one machine, more threads only get in the way."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))


def pick_device() -> torch.device:
    """Return the first GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def augment(images: Tensor) -> Tensor:
    """Rotate, scale and shift each image a little, at random."""
    count = len(images)

    def spread(*shape: int) -> Tensor:
        return torch.rand(*shape, device=images.device) * 2 - 1

    angle, scale = spread(count) * MAX_ROTATION, 1 + spread(count) * MAX_SCALING
    cosine, sine, shift = torch.cos(angle) * scale, torch.sin(angle) * scale, spread(count, 2) * MAX_SHIFT
    rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
    grid = nn.functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def rate_at(step: int, steps: int) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine down to zero."""
    warm_up = max(1, int(steps * WARM_UP_SHARE))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def fit(model: nn.Module, pixels: Tensor, targets: Tensor, settings: Settings) -> nn.Module:
    """Train ``model`` in place and return it, on the device that it was trained on.

    Parameters
    ----------
    model
        Maps normalised images to logits.
    pixels
        uint8 ``(n, channels, size, size)``.
    targets
        int64 ``(n,)``, indices of the labels.
    settings
        How to train.

    Raises
    ------
    TrainingDivergedError
        The loss of an epoch is no finite number.
    """
    device = pick_device()
    half = device.type == "cuda"  # V100 and T4 have no bfloat16: half precision, with the loss scaled
    torch.manual_seed(settings.seed)
    model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images, targets = normalise(pixels.to(device)), targets.to(device)
    count, size = len(images), settings.batch_size
    # A last batch of one example has no variance for batch normalisation: it joins the batch before.
    starts = [start for start in range(0, count, size) if count - start > 1 or start == 0]
    bounds = list(zip(starts, [*starts[1:], count], strict=True))
    steps = settings.epochs * len(bounds)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, steps))
    scaler = torch.amp.GradScaler(device.type, enabled=half)
    criterion = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    for epoch in range(1, settings.epochs + 1):
        started = time.perf_counter()
        loss_sum = torch.zeros((), device=device)
        right = torch.zeros((), device=device)
        order = torch.randperm(count, device=device)
        for start, end in bounds:
            batch = order[start:end]
            wanted = targets[batch]
            with torch.autocast(device.type, dtype=torch.float16, enabled=half):
                logits = model(augment(images[batch]))
                loss = criterion(logits, wanted)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            scaler.update()
            schedule.step()
            loss_sum += loss.detach() * len(batch)
            right += (logits.detach().argmax(1) == wanted).sum()
        mean_loss = loss_sum.item() / count  # waits for the device, so the time below is real
        if not math.isfinite(mean_loss):
            raise TrainingDivergedError(
                f"the loss of epoch {epoch} is {mean_loss}: lower learning_rate "
                f"(it was {settings.learning_rate:g})"
            )
        event(
            log,
            "epoch",
            epoch=epoch,
            train_loss=round(mean_loss, 5),
            train_accuracy=round(right.item() / count, 5),
            images_per_second=round(count / (time.perf_counter() - started), 1),
            learning_rate=schedule.get_last_lr()[0],
        )
    return model


def predict(model: nn.Module, pixels: Tensor, batch_size: int = 256) -> Tensor:
    """Return the probabilities ``(n, classes)`` of uint8 images, on the CPU."""
    device = pick_device()
    model.to(device).eval()
    with torch.inference_mode():
        batches = [
            torch.softmax(model(normalise(part.to(device))).float(), 1)
            for part in torch.split(pixels, batch_size)
        ]
        return torch.cat(batches).cpu()
