"""The architectures of this image: the files of `models.architectures`, by name."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from common.errors import ArtifactError, ContractError
from models import architectures, transforms
from models.interface import Choice, Hyperparameter, ModelShape, Preferences, Transforms, Value, Values

DEFAULT_ORDER = ("convnet", "convmixer")
"""The first is that of a first model; `new` tries the one after the champion's."""
HEAD = ("head.weight", "head.bias")
"""What of a model belongs to its labels."""


@dataclass(frozen=True)
class Architecture:
    """One architecture's file, with the defaults of what it leaves out."""

    name: str
    module: ModuleType

    @property
    def preferences(self) -> Preferences:
        """What the model is made for."""
        found: Preferences = getattr(self.module, "PREFERENCES", Preferences())
        return found

    def hyperparameters(self) -> tuple[Hyperparameter | Choice, ...]:
        """Return what may be set."""
        given = getattr(self.module, "hyperparameters", None)
        found: tuple[Hyperparameter | Choice, ...] = tuple(given()) if given else ()
        return found

    def own(self, given: Values) -> dict[str, Value]:
        """Return those of the given hyperparameters that are this architecture's."""
        known = {each.name for each in self.hyperparameters()}
        return {name: value for name, value in given.items() if name in known}

    def values(self, given: Values) -> dict[str, Value]:
        """Return a value for each hyperparameter: the given one (a text will do), else the default.

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
        return {name: self._value(each, given.get(name)) for name, each in known.items()}

    def _value(self, known: Hyperparameter | Choice, given: Value | None) -> Value:
        what = f"hyperparameter {known.name} of {self.name}"
        if isinstance(known, Choice):
            option = known.options[0] if given is None else given
            if option not in known.options:
                raise ArtifactError(f"{what} is {option!r}: it must be one of {', '.join(known.options)}")
            return option
        try:
            value = float(known.default if given is None else given)
        except ValueError:
            value = math.nan
        if not known.low <= value <= known.high or (known.whole and value != int(value)):
            kind = "a whole number" if known.whole else "a number"
            raise ArtifactError(
                f"{what} is {given if isinstance(given, str) else f'{value:g}'}: it must be {kind} between "
                f"{known.low:g} and {known.high:g}"
            )
        return int(value) if known.whole else value

    def shape(self, shape: ModelShape) -> ModelShape:
        """Return the shape that the model is built for when `shape` is asked for."""
        own = self.preferences
        return replace(
            shape,
            image_size=own.image_size or shape.image_size,
            channels=own.channels or shape.channels,
        )

    def build(self, shape: ModelShape, values: Values) -> nn.Module:
        """Return the module, with fresh weights."""
        model: nn.Module = self.module.build(shape, values)
        return model

    def transforms(self, shape: ModelShape, values: Values) -> Transforms:
        """Return how images enter it."""
        given = getattr(self.module, "transforms", None)
        found: Transforms = given(shape, values) if given else transforms.default()
        return found

    def begin(self, model: nn.Module) -> bool:
        """Load the weights that lie beside the file into a fresh model; return whether there are any.

        Theirs are other labels: where their head has another size, the model keeps its own.

        Raises
        ------
        ArtifactError
            The file is damaged, or its weights are another model's.
        """
        path = Path(str(self.module.__file__)).with_suffix(".safetensors")
        if not path.is_file():
            return False
        try:
            weights = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(f"{path.name}, the weights to start {self.name} from: {error}") from error
        own = model.state_dict()
        for name in HEAD:
            if name in own and (name not in weights or weights[name].shape != own[name].shape):
                weights[name] = own[name]
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ArtifactError(
                f"{path.name}, the weights to start {self.name} from, does not fit what {self.name}.py "
                f"builds: {error}"
            ) from error
        return True


def names() -> list[str]:
    """Return the architectures that this image has; a file whose name begins with ``_`` is none."""
    folders = [Path(folder) for folder in architectures.__path__]
    return sorted({path.stem for folder in folders for path in folder.glob("[!_]*.py")})


def find(name: str) -> Architecture:
    """Return an architecture.

    Raises
    ------
    ArtifactError
        No file has that name.
    """
    if name not in names():  # the name comes from an artefact: only what lies here is imported
        raise ArtifactError(
            f"unknown architecture {name!r}: this image has {', '.join(names())}. An architecture is a file "
            "of containers/models/architectures, and an image has those that were there when it was built"
        )
    return Architecture(name, importlib.import_module(f"models.architectures.{name}"))


def order_of(text: str) -> tuple[str, ...]:
    """Return the architectures that a job names, comma-separated.

    Raises
    ------
    ContractError
        One is unknown, or is named twice, or there is none.
    """
    order = tuple(name.strip() for name in text.split(","))
    unknown = sorted(set(order) - set(names()))
    if unknown:
        raise ContractError(
            f"hyperparameter architectures is {text!r}: this image has no "
            f"{', '.join(map(repr, unknown))}, it has {', '.join(names())}"
        )
    if len(set(order)) < len(order):
        raise ContractError(f"hyperparameter architectures is {text!r}: name each one once")
    return order


def require_known(given: Mapping[str, Value], order: Iterable[str], prefix: str = "") -> None:
    """Refuse a hyperparameter that none of a job's architectures has, and a value that one cannot take.

    A job's two candidates have different architectures and the same hyperparameters, so that one of them
    lacks what is set about the other is no mistake.

    Raises
    ------
    ContractError
        A name is none's.
    ArtifactError
        A value is out of its range.
    """
    found = [find(name) for name in order]
    for architecture in found:
        architecture.values(architecture.own(given))
    known = {each.name for architecture in found for each in architecture.hyperparameters()}
    unknown = sorted(set(given) - known)
    if unknown:
        raise ContractError(
            f"unknown hyperparameter {', '.join(prefix + name for name in unknown)}: "
            f"{', '.join(architecture.name for architecture in found)} have "
            f"{', '.join(prefix + name for name in sorted(known)) or 'nothing to set'}"
        )


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
    for name in HEAD:
        fits = name in state and name in own and state[name].shape[1:] == own[name].shape[1:]
        if fits and len(state[name]) == len(known_labels):  # else load_state_dict says what does not fit
            head = own[name].clone()
            for to, source in rows:
                head[to] = state[name][source]
            state[name] = head
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ArtifactError(
            f"the weights do not fit {type(model).__name__}: {error}. They are another model's, or its file "
            "has changed since they were trained: restore it, and give a changed model another name"
        ) from error
