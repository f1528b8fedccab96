"""A mixer on convolutional tokens."""

from __future__ import annotations

from torch import Tensor, nn

from models.architectures.convnet import convolution
from models.interface import Hyperparameter, ModelShape, Values


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

    def __init__(self, shape: ModelShape, width: int, depth: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            convolution(shape.channels, 16, stride=2),
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


def hyperparameters() -> tuple[Hyperparameter, ...]:
    """Return what may be set."""
    return (
        Hyperparameter("width", 48, 8, 4096, whole=True),
        Hyperparameter("depth", 2, 1, 64, whole=True),
    )


def build(shape: ModelShape, values: Values) -> nn.Module:
    """Return the module."""
    return ConvMixer(shape, int(values["width"]), int(values["depth"]))
