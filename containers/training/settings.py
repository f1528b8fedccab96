"""How to train: what the hyperparameters of a training job become."""

from __future__ import annotations

import math
from dataclasses import dataclass

PRECISIONS = ("auto", "fp32", "fp16")


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    epochs
        Passes over the training examples.
    batch_size
        Examples of one step, over all processes.
    learning_rate, weight_decay, warm_up_share
        AdamW's; the rate rises over the first share of the steps and then falls along a cosine.
    seed
        Of everything random.
    accumulation
        Parts in which a process computes its share of a batch, where memory does not hold it at once.
    label_smoothing
        Share of the target that is spread over all classes (Szegedy et al. 2016).
    class_weights
        Weight of each class's examples in the loss; empty: all alike.
    clip_norm
        Largest norm of the whole gradient; a longer one is scaled down to it (Pascanu et al. 2013). 0: any.
    ema_decay
        Of the moving average of the weights, which is what is evaluated and saved; 0: none. It starts small,
        so that a short run is not held back by where it began.
    patience
        Epochs without a better accuracy on the validation examples after which training stops; 0: never.
    checkpoint_seconds
        Time between two checkpoints; 0: none but at a stop.
    precision
        ``fp16`` computes in half precision and scales the loss (Micikevicius et al. 2018; V100 and T4 have no
        bfloat16), ``fp32`` does not, ``auto`` is ``fp16`` on a GPU.
    deterministic
        Prefer kernels whose result is the same in every run, which costs speed on a GPU. On a CPU the result
        is the same in any case.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    weight_decay: float = 0.01
    warm_up_share: float = 0.1
    accumulation: int = 1
    label_smoothing: float = 0.05
    class_weights: tuple[float, ...] = ()
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    patience: int = 0
    checkpoint_seconds: float = 300.0
    precision: str = "auto"
    deterministic: bool = False


def rate_at(step: int, steps: int, warm_up_share: float = 0.1) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine down to zero."""
    warm_up = max(1, int(steps * warm_up_share))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
