"""The training loop: one process per GPU, on one instance or several, or one on a CPU.

What is learnt does not depend on how many processes learn it: a step's batch, its augmentation and the
weight of each example are functions of the seed (see `training.sampler`), and the gradient is that of the
whole batch. What remains is the order of floating-point sums, and on CPUs the statistics of batch
normalisation, which each process takes over its own share.
"""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from common.contract import EXIT_STOPPED
from common.errors import ContractError, TooLittleDataError, TrainingDivergedError
from common.imaging import Pixels
from common.logs import event
from models.interface import Transforms
from training.checkpoints import Checkpoints, Progress, Trained
from training.loader import Loaded, Loader, Part
from training.sampler import MINIMUM_PER_RANK, Batch, Sampler, mixed
from training.world import World

log = logging.getLogger(__name__)


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
    ema_decay
        Of the moving average of the weights, which is what is evaluated and saved; 0: none. It starts small,
        so that a short run is not held back by where it began.
    patience
        Epochs without a better accuracy on the validation examples after which training stops; 0: never.
    checkpoint_seconds
        Time between two checkpoints; 0: none but at a stop.
    deterministic
        Refuse kernels whose result differs from run to run, which costs speed on a GPU.
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
    ema_decay: float = 0.999
    patience: int = 0
    checkpoint_seconds: float = 300.0
    deterministic: bool = False


@dataclass(frozen=True)
class Examples:
    """What is learnt from: all pixels (uint8, mapped), all targets, and which of them are for what.

    `validation` holds indices that are only measured on; it may be empty.
    """

    pixels: Pixels
    targets: Tensor
    training: Tensor
    validation: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


def rate_at(step: int, steps: int, warm_up_share: float = 0.1) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine down to zero."""
    warm_up = max(1, int(steps * warm_up_share))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def decay_at(step: int, decay: float) -> float:
    """Return the moving average's decay after `step` steps: at first it forgets quickly where it began."""
    return min(decay, (1 + step) / (10 + step))


class StopSignal:
    """SIGTERM, as a wish that the leading process fulfils between two steps.

    The other processes do not act on it: one that left in the middle of a step would leave the leader
    waiting for it. They end with the leader.
    """

    def __init__(self) -> None:
        self._asked = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signum: int, _frame: FrameType | None) -> None:
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether the job is to stop."""
        return self._asked.is_set()


class Training:
    """One run of the training loop.

    Parameters
    ----------
    model
        Maps normalised images to logits; it is trained in place.
    transforms
        How images enter it, and are varied.
    examples, settings, world
        What is learnt from, how, and with whom.
    checkpoints
        Where the run is saved, and from where it goes on; None: nowhere.
    """

    def __init__(
        self,
        model: nn.Module,
        transforms: Transforms,
        examples: Examples,
        settings: Settings,
        world: World,
        checkpoints: Checkpoints | None = None,
        run: str = "",
    ) -> None:
        torch.manual_seed(settings.seed)
        torch.use_deterministic_algorithms(settings.deterministic)
        torch.backends.cudnn.benchmark = not settings.deterministic
        self._settings = settings
        self._examples = examples
        self._world = world
        self._checkpoints = checkpoints
        self._transforms = transforms
        # V100 and T4 have no bfloat16: half precision, with the loss scaled.
        self._half = world.device.type == "cuda"
        self._sampler = Sampler(
            len(examples.training),
            settings.batch_size,
            settings.seed,
            world.size,
            settings.accumulation,
            transforms.noise,
        )
        self._require_enough()
        self._model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._steps = settings.epochs * self._sampler.steps_per_epoch
        self._average: torch.optim.swa_utils.AveragedModel | None = None
        modules: dict[str, nn.Module] = {"model": self._model}
        if settings.ema_decay:
            self._average = torch.optim.swa_utils.AveragedModel(
                self._model, multi_avg_fn=self._averaging(), use_buffers=True
            )
            modules["average"] = self._average
        self._best: nn.Module | None = None
        if settings.patience:
            self._best = torch.optim.swa_utils.AveragedModel(self._model).module
            modules["best"] = self._best
        self._optimiser = torch.optim.AdamW(
            self._model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=self._half)
        self._trained = Trained(modules, self._optimiser)
        self._progress = Progress(run)
        self._weights = (
            torch.tensor(settings.class_weights, device=world.device) if settings.class_weights else None
        )
        self._go_on()
        self._parallel = world.wrap(self._model)
        self._stop = StopSignal()
        self._saved_at = time.monotonic()

    def _require_enough(self) -> None:
        sampler = self._sampler
        least = MINIMUM_PER_RANK * sampler.world_size * sampler.accumulation
        if sampler.count < least:
            raise TooLittleDataError(
                f"{sampler.count} training examples are too few for {sampler.world_size} processes with "
                f"{sampler.accumulation} parts each: {least} are needed"
            )
        if sampler.smallest_batch < least and sampler.steps_per_epoch > 1:
            raise TooLittleDataError(
                f"hyperparameter batch_size is {sampler.batch_size}: {sampler.world_size} processes with "
                f"{sampler.accumulation} parts each need at least {2 * least}"
            )

    def _averaging(self) -> Callable[[Any, Any, Any], None]:
        @torch.no_grad()
        def update(average: list[Tensor], current: list[Tensor], _: Any) -> None:
            if torch.is_floating_point(average[0]):
                weight = 1 - decay_at(self._progress.total_steps, self._settings.ema_decay)
                torch._foreach_lerp_(average, current, weight)
            else:  # batch normalisation counts its batches
                torch._foreach_copy_(average, current)

        return update

    def _go_on(self) -> None:
        found = self._checkpoints.newest() if self._checkpoints else None
        if found is None:
            self._world.total(torch.tensor(0, device=self._world.device))  # as below: all processes ask
            return
        self._progress, tensors = found
        self._trained.load(tensors)
        if self._half:
            self._scaler.load_state_dict(dict(self._progress.scaler))
        everywhere = torch.tensor(self._progress.total_steps, device=self._world.device)
        if self._world.total(everywhere).item() != self._world.size * self._progress.total_steps:
            raise ContractError(
                f"this instance has a checkpoint of step {self._progress.total_steps}, and another one has "
                "not: the job's instances must share one checkpoint location"
            )
        if self._world.leads:
            event(
                log,
                "going on from a checkpoint",
                epoch=self._progress.epoch,
                step=self._progress.step,
                total_steps=self._progress.total_steps,
            )

    def run(self) -> nn.Module:
        """Train to the end and return the model to keep.

        Raises
        ------
        TrainingDivergedError
            The loss of an epoch is no finite number.
        SystemExit
            SIGTERM came: a checkpoint has been written.
        """
        loader = Loader(self._examples.pixels, self._examples.targets, self._world.device)
        try:
            return self._run(loader)
        except RuntimeError:
            if self._stop.asked:  # the leader has saved and gone, and this process was waiting for it
                raise SystemExit(EXIT_STOPPED) from None
            raise

    def _run(self, loader: Loader) -> nn.Module:
        while self._progress.epoch <= self._settings.epochs:
            self._epoch(loader)
            if self._settings.patience and self._validate():
                break
            self._progress.epoch += 1
            self._progress.step = 0
            self._progress.loss_sum = self._progress.right = 0.0
        if self._best is not None:
            return self._best
        return self._model if self._average is None else self._average.module

    # -- one epoch -------------------------------------------------------------------------------------

    def _epoch(self, loader: Loader) -> None:
        progress, world = self._progress, self._world
        self._parallel.train()
        loader.reset()
        sums = torch.zeros(2, dtype=torch.float64, device=world.device)
        seen = 0
        began = time.perf_counter()
        for batch in loader.load(self._batches()):
            sums += self._step(batch)
            seen += len(batch.whole_targets)
            progress.step = batch.step + 1
            progress.total_steps += 1
            if world.leads:
                self._save_if_due(sums)
        totals = world.total(sums).tolist()  # waits for the device, so the time below is real
        seconds = time.perf_counter() - began
        count = self._sampler.count
        mean_loss = (progress.loss_sum + totals[0]) / count
        if not math.isfinite(mean_loss):
            raise TrainingDivergedError(
                f"the loss of epoch {progress.epoch} is {mean_loss}: lower learning_rate "
                f"(it was {self._settings.learning_rate:g})"
            )
        if world.leads:
            event(
                log,
                "epoch",
                epoch=progress.epoch,
                train_loss=round(mean_loss, 5),
                train_accuracy=round((progress.right + totals[1]) / count, 5),
                images_per_second=round(seen / seconds, 1),
                data_wait_share=round(loader.waited / seconds, 4),
                learning_rate=self._optimiser.param_groups[0]["lr"],
            )

    def _batches(self) -> Iterator[Batch]:
        """Yield the epoch's batches as places in the store."""
        training = self._examples.training
        for batch in self._sampler.batches(self._progress.epoch, self._world.rank, self._progress.step):
            parts = tuple((training[indices], noise) for indices, noise in batch.parts)
            yield Batch(batch.step, training[batch.whole], parts)

    def _step(self, batch: Loaded) -> Tensor:
        """Learn from one batch; return this process's share of the summed loss and of the right answers."""
        settings, world, progress = self._settings, self._world, self._progress
        # Dropout is random too: what it drops is a function of the step, so that a run can go on exactly.
        torch.manual_seed(mixed(settings.seed, progress.total_steps, world.rank))
        rate = settings.learning_rate * rate_at(progress.total_steps, self._steps, settings.warm_up_share)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        whole_weight = self._weight(batch.whole_targets.to(world.device)).sum()
        sums = torch.zeros(2, dtype=torch.float64, device=world.device)
        self._optimiser.zero_grad(set_to_none=True)
        for number, part in enumerate(batch.parts):
            last = number == len(batch.parts) - 1
            with self._synchronised(last), torch.autocast(world.device.type, torch.float16, self._half):
                logits = self._parallel(self._images(part))
                loss = nn.functional.cross_entropy(
                    logits,
                    part.targets,
                    self._weights,
                    reduction="sum",
                    label_smoothing=settings.label_smoothing,
                )
                # The mean over the whole batch: the parallel model divides by the number of processes.
                self._scaler.scale(loss * (world.size / whole_weight)).backward()  # type: ignore[no-untyped-call]
            right = (logits.detach().argmax(1) == part.targets).sum()
            sums += torch.stack([loss.detach().double() * (len(batch.whole_targets) / whole_weight), right])
        self._scaler.step(self._optimiser)
        self._scaler.update()
        if self._average is not None:
            self._average.update_parameters(self._model)
        return sums

    def _images(self, part: Part) -> Tensor:
        return self._transforms.augment(self._transforms.normalise(part.images), part.noise)

    def _weight(self, targets: Tensor) -> Tensor:
        return (
            torch.ones(len(targets), device=targets.device)
            if self._weights is None
            else self._weights[targets]
        )

    def _synchronised(self, last: bool) -> AbstractContextManager[None]:
        """Let the processes' gradients come together with the last part only."""
        if last or not isinstance(self._parallel, nn.parallel.DistributedDataParallel):
            return nullcontext()
        alone: AbstractContextManager[None] = self._parallel.no_sync()
        return alone

    # -- checkpoints -----------------------------------------------------------------------------------

    def _save_if_due(self, sums: Tensor) -> None:
        seconds, stop = self._settings.checkpoint_seconds, self._stop.asked
        due = seconds > 0 and time.monotonic() - self._saved_at >= seconds
        if self._checkpoints is not None and (due or stop):
            self._save(self._checkpoints, sums)
        if stop:
            event(log, "stopped", total_steps=self._progress.total_steps)
            raise SystemExit(EXIT_STOPPED)

    def _save(self, checkpoints: Checkpoints, sums: Tensor) -> None:
        loss, right = (sums * self._world.size).tolist()  # the other processes' shares are estimated
        progress = Progress(**vars(self._progress))
        progress.loss_sum += loss
        progress.right += right
        progress.scaler = {key: float(value) for key, value in self._scaler.state_dict().items()}
        checkpoints.save(progress, self._trained)
        self._saved_at = time.monotonic()

    # -- early stopping --------------------------------------------------------------------------------

    def _validate(self) -> bool:
        """Measure the validation examples; return whether to stop."""
        progress, world = self._progress, self._world
        model: nn.Module = self._model if self._average is None else self._average.module
        mine = self._examples.validation[world.rank :: world.size]
        right = torch.zeros((), dtype=torch.float64, device=world.device)
        model.eval()
        with torch.inference_mode():
            for part in torch.split(mine, 256):
                images = torch.from_numpy(self._examples.pixels[part.numpy()]).to(world.device)
                with torch.autocast(world.device.type, torch.float16, self._half):
                    found = model(self._transforms.normalise(images)).argmax(1)
                right += (found.cpu() == self._examples.targets[part]).sum().to(world.device)
        accuracy = (world.total(right) / len(self._examples.validation)).item()
        if accuracy > progress.best_accuracy:
            progress.best_accuracy, progress.epochs_without_gain = accuracy, 0
            if self._best is not None:
                self._best.load_state_dict(model.state_dict())
        else:
            progress.epochs_without_gain += 1
        if world.leads:
            event(log, "validation", epoch=progress.epoch, validation_accuracy=round(accuracy, 5))
        return progress.epochs_without_gain >= self._settings.patience
