"""The models that can be trained: a table from name to builder.

A builder takes a :class:`ModelShape` and returns a module that maps float images in ``[-1, 1]`` of shape
``(n, channels, size, size)`` to logits ``(n, classes)``. Its last layer is an ``nn.Linear`` called ``head``,
which is what :func:`transfer` needs to carry weights over to another set of labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from common.errors import ArtifactError


@dataclass(frozen=True)
class ModelShape:
    """What a model is built for."""

    classes: int
    image_size: int
    channels: int


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ConvNet(nn.Module):
    """Plain convolutional network: three stages, each half the size of the one before."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(shape.channels, 16, stride=2),
            _conv(16, 24),
            _conv(24, 48, stride=2),
            nn.AdaptiveAvgPool2d(2),
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(48 * 4, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.dropout(self.features(images).flatten(1)))
        return logits


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.token_norm = nn.LayerNorm(width)
        self.token_mixing = nn.Sequential(
            nn.Linear(tokens, 2 * tokens), nn.ReLU(), nn.Linear(2 * tokens, tokens)
        )
        self.channel_norm = nn.LayerNorm(width)
        self.channel_mixing = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.token_mixing(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        mixed: Tensor = x + self.channel_mixing(self.channel_norm(x))
        return mixed


class ConvMixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021) on convolutional tokens.

    A plain patch embedding needs far more images than a team's corrections hold; two convolutions
    in front of the mixer give it the locality that it would otherwise have to learn. ReLU stands in for
    GELU, which took a fifth of a step on a CPU.
    """

    TOKENS_PER_SIDE = 4

    def __init__(self, shape: ModelShape, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _conv(shape.channels, 16, stride=2),
            nn.Conv2d(16, width, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(self.TOKENS_PER_SIDE),
        )
        self.blocks = nn.Sequential(*(_MixerBlock(self.TOKENS_PER_SIDE**2, width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        logits: Tensor = self.head(self.dropout(self.norm(self.blocks(tokens)).mean(1)))
        return logits


ARCHITECTURES: dict[str, Callable[[ModelShape], nn.Module]] = {"convnet": ConvNet, "convmixer": ConvMixer}
"""Name in ``model.json`` → builder. The first is the default; :func:`challenger_of` uses the order."""

DEFAULT_ARCHITECTURE = next(iter(ARCHITECTURES))


def challenger_of(architecture: str) -> str:
    """Return what the `new` candidate tries against ``architecture``: the next in the table."""
    names = list(ARCHITECTURES)
    if architecture not in names:
        return names[0]
    return names[(names.index(architecture) + 1) % len(names)]


def build(architecture: str, shape: ModelShape) -> nn.Module:
    """Build a model with fresh weights.

    Raises
    ------
    ArtifactError
        No architecture has that name.
    """
    if architecture not in ARCHITECTURES:
        raise ArtifactError(
            f"unknown architecture {architecture!r}: this image has {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[architecture](shape)


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


def normalise(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels into the models' input range ``[-1, 1]``."""
    return pixels.float().div_(127.5).sub_(1.0)
