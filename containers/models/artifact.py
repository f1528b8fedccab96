"""A model artefact: ``model.safetensors`` (weights) and ``model.json`` (what they are).

Nothing in it is executed on loading: pickle, also behind ``torch.load``, would run whatever the file says.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from common.errors import ArtifactError
from models.catalogue import Architecture, find
from models.interface import ModelShape, Transforms, Value

WEIGHTS = "model.safetensors"
CARD = "model.json"
VERSION = 1
"""Of ``model.json``."""


@dataclass(frozen=True)
class ModelCard:
    """What ``model.json`` says; ``labels`` are in the order of the logits.

    ``values`` are the architecture's hyperparameters that it was built with. A member that a reader does not
    know is passed over; ``version`` grows when passing it over would be wrong.
    """

    architecture: str
    labels: list[str]
    image_size: int
    channels: int
    generation: str
    candidate: str
    values: dict[str, Value] = field(default_factory=dict)

    @property
    def shape(self) -> ModelShape:
        """Return what the model is built for."""
        return ModelShape(len(self.labels), self.image_size, self.channels)

    @property
    def version(self) -> str:
        """Return ``<generation>/<candidate>``, the name that the endpoint answers with."""
        return f"{self.generation}/{self.candidate}"

    def definition(self) -> tuple[Architecture, dict[str, Value]]:
        """Return the architecture and the values that the model is built with; errors as `build`."""
        try:
            architecture = find(self.architecture)
            return architecture, architecture.values(self.values)
        except ArtifactError as error:
            raise ArtifactError(f"model {self.version} cannot be built: {error}. {self.way_out}") from error

    @property
    def way_out(self) -> str:
        """What to do when its architecture is not what it was."""
        return (
            f"While {self.version} is in use, containers/models/architectures/{self.architecture}.py must be "
            "in the images as it was when that was trained: restore it, and give a changed model another name"
        )

    def build(self) -> nn.Module:
        """Return the module, with fresh weights.

        Raises
        ------
        ArtifactError
            This image has no such architecture, or it refuses the hyperparameters.
        """
        architecture, values = self.definition()
        return architecture.build(self.shape, values)

    def transforms(self) -> Transforms:
        """Return how images enter the model; errors as `build`."""
        architecture, values = self.definition()
        return architecture.transforms(self.shape, values)

    def to_json(self) -> dict[str, Any]:
        """Return the members of ``model.json``."""
        return {
            "version": VERSION,
            "architecture": self.architecture,
            "labels": self.labels,
            "imageSize": self.image_size,
            "channels": self.channels,
            "generation": self.generation,
            "candidate": self.candidate,
            "hyperparameters": self.values,
        }


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return what of a model is kept, on the CPU, where every reader starts.

    Raises
    ------
    ArtifactError
        Something of its state is no tensor.
    """
    state = model.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise ArtifactError(
            f"{', '.join(strange)} of {type(model).__name__} cannot be kept: only tensors are, so "
            "make it a buffer, or something that build derives from its hyperparameters"
        )
    # Copied, so that one tensor under two names (tied weights), which safetensors refuses, is written twice.
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in state.items()
    }


def save(directory: Path, card: ModelCard, model: nn.Module) -> None:
    """Write the artefact.

    Raises
    ------
    ArtifactError
        As `weights_of`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    text = (json.dumps(card.to_json(), indent=2) + "\n").encode()
    # So the digest of the weights, which the registry knows, vouches for the labels and their order too.
    save_file(weights_of(model), directory / WEIGHTS, metadata={CARD: hashlib.sha256(text).hexdigest()})
    (directory / CARD).write_bytes(text)
    # safetensors makes files that only their owner may read. A training job is root, the endpoint's server is
    # not, and the archive between them keeps the mode.
    for name in (WEIGHTS, CARD):
        (directory / name).chmod(0o644)


def load_card(directory: Path) -> ModelCard:
    """Read ``model.json``.

    Raises
    ------
    ArtifactError
        The file is missing, or a member is missing or has the wrong type.
    """
    path = directory / CARD
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: a model artefact holds {WEIGHTS} and {CARD}")
    try:
        raw = json.loads(path.read_text("utf-8"))
        version = int(raw.get("version", VERSION))
        card = ModelCard(
            architecture=str(raw["architecture"]),
            labels=[str(label) for label in raw["labels"]],
            image_size=int(raw["imageSize"]),
            channels=int(raw.get("channels", 1)),
            generation=str(raw["generation"]),
            candidate=str(raw["candidate"]),
            values={str(name): _value(value) for name, value in raw.get("hyperparameters", {}).items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is no model description: {type(error).__name__} {error}") from error
    if version > VERSION:
        raise ArtifactError(
            f"{path} is of version {version}, and this image reads up to {VERSION}: use the image that "
            "belongs to the one that trained it, or a newer one"
        )
    if not card.labels or len(set(card.labels)) != len(card.labels):
        raise ArtifactError(f"{path}: labels must be distinct and at least one, not {card.labels}")
    if card.channels not in (1, 3) or not 4 <= card.image_size <= 4096:
        raise ArtifactError(f"{path}: no model takes {card.channels} channels of {card.image_size} pixels")
    return card


def _value(raw: Any) -> Value:
    return raw if isinstance(raw, str) else float(raw)


def load_weights(directory: Path) -> dict[str, Tensor]:
    """Read ``model.safetensors``.

    Raises
    ------
    ArtifactError
        The file is missing or damaged.
    """
    path = directory / WEIGHTS
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    return weights


def weights_digest(directory: Path) -> str:
    """Return the SHA-256 of the weights, which is what the registry knows a model by.

    Raises
    ------
    ArtifactError
        The file is missing.
    """
    path = directory / WEIGHTS
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error


def _require_card(directory: Path) -> None:
    """Refuse a ``model.json`` that is not the one of the weights; older weights do not say which it was."""
    try:
        with safe_open(directory / WEIGHTS, "pt") as file:
            wanted = (file.metadata() or {}).get(CARD)
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{directory / WEIGHTS} cannot be read: {error}") from error
    if wanted and hashlib.sha256((directory / CARD).read_bytes()).hexdigest() != wanted:
        raise ArtifactError(
            f"{directory / CARD} is not the one that {WEIGHTS} was saved with: the artefact was changed "
            "after it was evaluated; register it again or restore the object's version"
        )


def load(directory: Path, digest: str = "") -> tuple[ModelCard, nn.Module]:
    """Load an artefact as a model in evaluation mode, on the CPU.

    Parameters
    ----------
    directory
        Where the artefact is unpacked.
    digest
        SHA-256 that the weights must have, which then vouch for ``model.json``; empty: any.

    Raises
    ------
    ArtifactError
        Anything in it is missing, damaged, not what `digest` says or does not fit.
    """
    card = load_card(directory)
    if digest and (found := weights_digest(directory)) != digest:
        raise ArtifactError(
            f"{directory / WEIGHTS} has the SHA-256 {found} and the registry says {digest}: the artefact was "
            "changed after it was evaluated; register it again or restore the object's version"
        )
    if digest:
        _require_card(directory)
    model = card.build()
    try:
        model.load_state_dict(load_weights(directory))
    except RuntimeError as error:
        raise ArtifactError(
            f"{directory / WEIGHTS} does not fit {card.architecture}: {error}. {card.way_out}"
        ) from error
    return card, model.eval()
