"""How processes that train together stop at the same step, and save at the same step.

SIGTERM reaches the processes of a job one after the other, on several instances perhaps seconds apart, and
whoever left at once would leave the others in a collective operation that never ends. So every step each
process tells the others what it wishes, and acts on what all have said one step before: by then the answer
has come over the network by itself, and nobody, least of all a GPU, has waited for it.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from types import FrameType

import torch
from torch import distributed

from training.world import World


class StopSignal:
    """SIGTERM, as a wish that is fulfilled between two steps."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _signum: int, _frame: FrameType | None) -> None:
        self._asked.set()

    @property
    def asked(self) -> bool:
        """Whether this process has been asked to stop."""
        return self._asked.is_set()


@dataclass(frozen=True)
class Decision:
    """What all processes do at this step: save a checkpoint, or save and stop."""

    save: bool = False
    stop: bool = False


class Agreement:
    """Wishes that are gathered while a step is computed, and read after it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._wishes = torch.zeros(2, dtype=torch.int64)
        self._coming: distributed.Work | None = None

    def read(self) -> Decision:
        """Return what was decided by the wishes of the step before: the same in every process."""
        self.finish()
        save, stop = self._wishes.tolist()
        return Decision(save > 0, stop > 0)

    def wish(self, *, save: bool, stop: bool) -> None:
        """Say what this process wishes; every process must say something at every step."""
        self._wishes = torch.tensor([save, stop], dtype=torch.int64)
        if self._world.size > 1:
            self._coming = distributed.all_reduce(self._wishes, group=self._world.control, async_op=True)

    def finish(self) -> None:
        """Wait for what is under way, so that no process leaves another one waiting."""
        if self._coming is not None:
            self._coming.wait()
            self._coming = None
