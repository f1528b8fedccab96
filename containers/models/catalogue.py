"""The architectures of this image: the files of `models.architectures`, by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from common.errors import ArtifactError
from models import transforms
from models.interface import Hyperparameter, ModelShape, Transforms, Values

DEFAULT_ORDER = ("convnet", "convmixer")
"""The first is that of a first model; `new` tries the one after the champion's."""
_FOLDER = Path(__file__).with_name("architectures")


@dataclass(frozen=True)
class Architecture:
    """One architecture's file, with the defaults of what it leaves out."""

    name: str
    module: ModuleType

    def hyperparameters(self) -> tuple[Hyperparameter, ...]:
        """Return what may be set."""
        given = getattr(self.module, "hyperparameters", None)
        found: tuple[Hyperparameter, ...] = tuple(given()) if given else ()
        return found

    def values(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return a value for each hyperparameter: the given one, else the default.

        Raises
        ------
        ArtifactError
            One is out of its range, or is none of this architecture's.
        """
        known = {each.name: each for each in self.hyperparameters()}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ArtifactError(
                f"{self.name} has no hyperparameter {', '.join(unknown)}: it has {', '.join(known) or 'none'}"
            )
        found: dict[str, float] = {}
        for name, each in known.items():
            value = given.get(name, each.default)
            if not each.low <= value <= each.high or (each.whole and value != int(value)):
                kind = "a whole number" if each.whole else "a number"
                raise ArtifactError(
                    f"hyperparameter {name} of {self.name} is {value:g}: it must be {kind} between "
                    f"{each.low:g} and {each.high:g}"
                )
            found[name] = int(value) if each.whole else float(value)
        return found

    def build(self, shape: ModelShape, values: Values) -> nn.Module:
        """Return the module, with fresh weights."""
        model: nn.Module = self.module.build(shape, values)
        return model

    def transforms(self, shape: ModelShape, values: Values) -> Transforms:
        """Return how images enter it."""
        given = getattr(self.module, "transforms", None)
        found: Transforms = given(shape, values) if given else transforms.default()
        return found


def names() -> list[str]:
    """Return the architectures that this image has."""
    return sorted(path.stem for path in _FOLDER.glob("[!_]*.py"))


def find(name: str) -> Architecture:
    """Return an architecture.

    Raises
    ------
    ArtifactError
        No file has that name.
    """
    if name not in names():  # the name comes from an artefact: only what lies here is imported
        raise ArtifactError(f"unknown architecture {name!r}: this image has {', '.join(names())}")
    return Architecture(name, importlib.import_module(f"models.architectures.{name}"))


def challenger_of(architecture: str, order: Sequence[str] = DEFAULT_ORDER) -> str:
    """Return what the `new` candidate tries against ``architecture``: the next in the order."""
    if architecture not in order:
        return order[0]
    return order[(order.index(architecture) + 1) % len(order)]


def transfer(
    model: nn.Module, labels: list[str], weights: dict[str, Tensor], known_labels: list[str]
) -> None:
    """Load ``weights`` into ``model``, matching the rows of the head by label.

    A label that ``weights`` never saw keeps the row that ``model`` was built with.

    Raises
    ------
    ArtifactError
        The weights are of another architecture or input size.
    """
    state = dict(weights)
    own = model.state_dict()
    rows = [(labels.index(label), known_labels.index(label)) for label in labels if label in known_labels]
    for name in ("head.weight", "head.bias"):
        fits = name in state and name in own and state[name].shape[1:] == own[name].shape[1:]
        if fits and len(state[name]) == len(known_labels):  # else load_state_dict says what does not fit
            head = own[name].clone()
            for to, source in rows:
                head[to] = state[name][source]
            state[name] = head
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(f"the weights do not fit {type(model).__name__}: {error}") from error
