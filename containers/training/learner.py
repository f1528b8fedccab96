"""What a model learns from one batch: forward, backward, clipping, the optimiser's step, the average.

Nothing here waits for the device: a GPU is given the next step's work while it still computes this one's.
torch's batch normalisation across several GPUs does, once a layer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from models.interface import Transforms
from training.average import Average
from training.loader import Loaded, Part
from training.sampler import mixed
from training.settings import Settings, rate_at
from training.world import World

LOSS, RIGHT, SKIPPED = range(3)
"""What `Learner.learn` returns sums of."""


class Learner:
    """A model in training, as one of the processes that train it.

    Parameters
    ----------
    model
        Maps normalised images to logits; it is trained in place. It is on the device already.
    transforms
        How images enter it.
    settings, world
        How, and with whom.
    steps
        Of the whole run, which the learning rate depends on.
    """

    def __init__(
        self, model: nn.Module, transforms: Transforms, settings: Settings, world: World, steps: int
    ) -> None:
        self.model = model
        self.half = settings.precision == "fp16" or (
            settings.precision == "auto" and world.device.type == "cuda"
        )
        self.average = Average(model, settings.ema_decay) if settings.ema_decay else None
        # Fused: one kernel for all weights, and the only form that takes the scaler's verdict on the device.
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.half)
        self._transforms = transforms
        self._settings = settings
        self._world = world
        self._steps = steps
        self._parameters = list(model.parameters())
        self._class_weights = torch.tensor(settings.class_weights) if settings.class_weights else None
        self._weights = None if self._class_weights is None else self._class_weights.to(world.device)
        self._parallel: nn.Module = model

    @property
    def kept(self) -> nn.Module:
        """The model to measure and to save: the average, if there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        rate: float = self.optimiser.param_groups[0]["lr"]
        return rate

    def begin(self) -> None:
        """Join the other processes: every one begins with the leader's weights."""
        self._parallel = self._world.wrap(self.model)

    def train(self) -> None:
        """Put the model into training mode."""
        self._parallel.train()

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the precision that was asked for."""
        precise: AbstractContextManager[None] = torch.autocast(
            self._world.device.type, torch.float16, enabled=self.half
        )
        return precise

    def learn(self, batch: Loaded, step: int) -> Tensor:
        """Learn from one batch.

        Parameters
        ----------
        batch
            This process's share of it.
        step
            Its number, counted from 0 over all epochs. A step that is skipped because half precision
            overflowed counts too: schedule and average go by what has been seen, which is what a run goes on
            from.

        Returns
        -------
        Tensor
            float64 ``(3,)`` on the device, to be summed over the processes: the loss summed over the
            examples, the right answers, and (of the leader alone) whether the step was skipped.
        """
        settings, world = self._settings, self._world
        self._seed(mixed(settings.seed, step, world.rank))
        rate = settings.learning_rate * rate_at(step, self._steps, settings.warm_up_share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        count = len(batch.whole_targets)
        weight = self._weight(batch.whole_targets)
        sums = torch.zeros(3, dtype=torch.float64, device=world.device)
        self.optimiser.zero_grad(set_to_none=True)
        for number, part in enumerate(batch.parts):
            with self._synchronised(last=number == len(batch.parts) - 1):
                loss, right = self._forward(part)
                # The mean over the whole batch: the parallel model divides by the number of processes.
                self.scaler.scale(loss * (world.size / weight)).backward()  # type: ignore[no-untyped-call]
            sums[LOSS] += loss.detach().double() * (count / weight)
            sums[RIGHT] += right
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self._parameters, settings.clip_norm or float("inf"))
        if world.leads and self.half:
            sums[SKIPPED] = norm.isfinite().logical_not()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(step)
        return sums

    def _seed(self, seed: int) -> None:
        """Make what dropout drops a function of the step, so that a run can go on exactly.

        ``torch.manual_seed`` also looks for every other kind of device, and notes where it was called from
        for those that have not been started: a tenth of a millisecond, each step.
        """
        torch.default_generator.manual_seed(seed)
        if self._world.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _forward(self, part: Part) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            images = self._transforms.augment(self._transforms.normalise(part.images), part.noise)
        with self.autocast():
            logits = self._parallel(images.contiguous(memory_format=torch.channels_last))
        logits = logits.float()
        loss = nn.functional.cross_entropy(
            logits,
            part.targets,
            self._weights,
            reduction="sum",
            label_smoothing=self._settings.label_smoothing,
        )
        return loss, (logits.detach().argmax(1) == part.targets).sum()

    def _weight(self, targets: Tensor) -> float:
        return float(len(targets) if self._class_weights is None else self._class_weights[targets].sum())

    def _synchronised(self, *, last: bool) -> AbstractContextManager[None]:
        """Let the processes' gradients come together with the last part only."""
        if last or not isinstance(self._parallel, nn.parallel.DistributedDataParallel):
            return nullcontext()
        alone: AbstractContextManager[None] = self._parallel.no_sync()
        return alone
