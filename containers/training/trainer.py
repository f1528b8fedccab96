"""The training loop: one process per GPU, on one instance or several, or one on a CPU.

What is learnt does not depend on how many processes learn it: a step's batch, its augmentation and the
weight of each example are functions of the seed (see `training.sampler`), and the gradient is that of the
whole batch. What remains is the order of floating-point sums, which examples dropout drops what of, and on
CPUs the statistics of batch normalisation, which each process takes over its own share.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from common.contract import EXIT_STOPPED
from common.errors import DeviceTooSmallError, TooLittleDataError, TrainingDivergedError
from common.imaging import Pixels
from common.logs import event
from models.interface import Transforms
from training.average import Average
from training.checkpoints import Checkpoints, Progress, Trained
from training.learner import LOSS, RIGHT, SKIPPED, Learner
from training.loader import Loader
from training.sampler import MINIMUM_PER_RANK, Sampler
from training.settings import Settings
from training.stopping import Agreement, StopSignal
from training.world import World

log = logging.getLogger(__name__)

VALIDATED_AT_ONCE = 256
LEAST_SCALE = 1e-4
"""A loss scale below this says that steps have been skipped in long rows: no smaller one will help."""


@dataclass(frozen=True)
class Examples:
    """What is learnt from: all pixels (uint8, mapped), all targets, and which of them are for what.

    `validation` holds indices that are only measured on; it may be empty.
    """

    pixels: Pixels
    targets: Tensor
    training: Tensor
    validation: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))


class Training:
    """One run of the training loop.

    Parameters
    ----------
    model
        Maps normalised images to logits; it is trained in place.
    transforms
        How images enter it, and how they are varied.
    examples, settings, world
        What is learnt from, how, and with whom.
    checkpoints
        Where the run is saved, and from where it goes on. Only the leader's count; None: nowhere.
    run
        Digest of all that the run's result depends on.
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
        if settings.deterministic:  # not without need: it imports torch's compiler, seconds of every process
            # Read when cuBLAS is first used; without it the order of its sums is a matter of timing.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = not settings.deterministic
        self._settings = settings
        self._examples = examples
        self._world = world
        self._checkpoints = checkpoints if world.leads else None
        self._transforms = transforms
        self._sampler = Sampler(
            len(examples.training),
            settings.batch_size,
            settings.seed,
            world.size,
            settings.accumulation,
            transforms.noise,
        )
        self._require_enough()
        model = model.to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps = settings.epochs * self._sampler.steps_per_epoch
        self._learner = Learner(model, transforms, settings, world, steps)
        modules: dict[str, nn.Module] = {"model": model}
        if self._learner.average is not None:
            modules["average"] = self._learner.average.module
        self._best: nn.Module | None = None
        if settings.patience:
            self._best = modules["best"] = Average(model, 0.0).module
        self._trained = Trained(modules, self._learner.optimiser)
        self._progress = Progress(run)
        self._go_on()
        self._learner.begin()
        self._stop = StopSignal()
        self._agreement = Agreement(world)
        self._saved_at = time.monotonic()

    @property
    def half(self) -> bool:
        """Whether it computes in half precision."""
        return self._learner.half

    @property
    def _at_once(self) -> int:
        """Examples that a process computes at once, at most: what `Sampler` gives a part."""
        batch = max(end - start for start, end in self._sampler.bounds)
        return -(-batch // (self._sampler.world_size * self._sampler.accumulation))

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

    def _go_on(self) -> None:
        """Take up the newest checkpoint: the leader's, in every process, whatever the other hosts have."""
        found = self._world.from_leader(self._checkpoints.newest() if self._checkpoints else None)
        if found is None:
            return
        self._progress, tensors = found
        self._trained.load(tensors)
        if self._learner.half and self._progress.scaler:  # none where it began in single precision, on a CPU
            self._learner.scaler.load_state_dict(self._progress.scaler)
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
            The loss is no finite number, or half precision skips every step.
        DeviceTooSmallError
            The GPU has no memory for a part of a batch.
        SystemExit
            SIGTERM came to a process of the job: a checkpoint has been written.
        """
        examples = self._examples
        loader = Loader(examples.pixels, examples.targets, self._world.device, examples.training)
        try:
            self._run(loader)
        except torch.OutOfMemoryError as error:
            raise DeviceTooSmallError(
                f"{self._world.device} has too little memory to train on {self._at_once} examples at once: "
                f"lower batch_size or raise accumulation ({str(error).partition(chr(10))[0]})"
            ) from error
        except RuntimeError:
            if self._world.size > 1:
                # The launcher may be ending this process because another one has gone (see `world.join`).
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                if self._stop.asked:
                    raise SystemExit(EXIT_STOPPED) from None
            raise
        finally:
            if self._checkpoints:
                self._checkpoints.finish()
        return self._learner.kept if self._best is None else self._best

    def _run(self, loader: Loader) -> None:
        while self._progress.epoch <= self._settings.epochs:
            self._epoch(loader)
            if self._settings.patience and self._validate():
                break
            self._progress.epoch += 1
            self._progress.step = 0
            self._progress.loss_sum = self._progress.right = self._progress.skipped = 0.0
        self._agreement.finish()

    # -- one epoch -------------------------------------------------------------------------------------

    def _epoch(self, loader: Loader) -> None:
        progress, world = self._progress, self._world
        self._learner.train()
        loader.reset()
        sums = torch.zeros(3, dtype=torch.float64, device=world.device)
        seen = 0
        began = time.perf_counter()
        for batch in loader.load(self._sampler.batches(progress.epoch, world.rank, progress.step)):
            sums += self._learner.learn(batch, progress.total_steps)
            seen += len(batch.whole_targets)
            progress.step = batch.step + 1
            progress.total_steps += 1
            self._agree(sums)
        waited = torch.tensor([loader.waited], dtype=torch.float64, device=world.device)
        *totals, all_waited = world.total(torch.cat([sums, waited])).tolist()  # waits for the device
        seconds = time.perf_counter() - began
        now = _with_sums(progress, totals)
        self._require_sense(now.loss_sum)
        mean_loss = now.loss_sum / self._sampler.count
        if world.leads:
            event(
                log,
                "epoch",
                epoch=progress.epoch,
                train_loss=round(mean_loss, 5),
                train_accuracy=round(now.right / self._sampler.count, 5),
                images_per_second=round(seen / seconds, 1),
                data_wait_share=round(all_waited / world.size / seconds, 4),
                epoch_seconds=round(seconds, 3),
                skipped_steps=int(now.skipped),
                learning_rate=self._learner.rate,
            )

    def _require_sense(self, loss: float) -> None:
        """Refuse to go on where nothing is learnt any more; all processes find the same."""
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"the loss of epoch {self._progress.epoch} is {loss}: lower learning_rate "
                f"(it was {self._settings.learning_rate:g})"
            )
        if self._learner.half and self._learner.scaler.get_scale() < LEAST_SCALE:
            raise TrainingDivergedError(
                f"the gradients of epoch {self._progress.epoch} are no numbers in half precision, at any "
                "scale, so no step is taken: set precision to fp32, or lower learning_rate "
                f"(it was {self._settings.learning_rate:g})"
            )

    # -- checkpoints -----------------------------------------------------------------------------------

    def _agree(self, sums: Tensor) -> None:
        """Save and stop when all processes do, and say what this one wishes."""
        decision = self._agreement.read()
        if decision.save or decision.stop:
            self._save(sums)
        if decision.stop:
            self._leave()
        self._agreement.wish(save=self._due(), stop=self._stop.asked)

    def _due(self) -> bool:
        seconds = self._settings.checkpoint_seconds
        return (
            self._checkpoints is not None
            and seconds > 0
            and time.monotonic() - self._saved_at >= seconds
            and not self._checkpoints.busy
        )

    def _save(self, sums: Tensor) -> None:
        totals = self._world.total(sums.clone()).tolist()
        # Before the epoch's end, which may be hours away, and before it takes a good checkpoint's place.
        self._require_sense(totals[LOSS])
        if self._checkpoints:
            now = replace(_with_sums(self._progress, totals), scaler=self._learner.scaler.state_dict())
            self._checkpoints.save(now, self._trained)
        self._saved_at = time.monotonic()

    def _leave(self) -> None:
        if self._checkpoints:
            self._checkpoints.finish()
        if self._world.leads:
            event(log, "stopped", total_steps=self._progress.total_steps)
        # Whoever ended before the checkpoint is written would have the launcher end all.
        self._world.barrier()
        raise SystemExit(EXIT_STOPPED)

    # -- early stopping --------------------------------------------------------------------------------

    def _validate(self) -> bool:
        """Measure the validation examples; return whether to stop."""
        progress, world = self._progress, self._world
        model = self._learner.kept
        world.same_buffers(model)
        mine = self._examples.validation[world.rank :: world.size]
        right = torch.zeros((), dtype=torch.float64, device=world.device)
        model.eval()
        with torch.inference_mode():
            # Never more than in training: what a device has memory for is known of that alone.
            for part in torch.split(mine, min(VALIDATED_AT_ONCE, self._at_once)):
                images = torch.from_numpy(self._examples.pixels[part.numpy()]).to(world.device)
                with self._learner.autocast():
                    found = model(self._transforms.normalise(images)).argmax(1)
                right += (found == self._examples.targets[part].to(world.device)).sum()
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


def _with_sums(progress: Progress, totals: list[float]) -> Progress:
    """Return `progress` with what was summed since it was taken up."""
    return replace(
        progress,
        loss_sum=progress.loss_sum + totals[LOSS],
        right=progress.right + totals[RIGHT],
        skipped=progress.skipped + totals[SKIPPED],
    )
