"""A plain convolutional network: small, and hard to beat where a team has few images."""

from __future__ import annotations

from torch import Tensor, nn

from models.interface import ModelShape, Values


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a 3 × 3 convolution with batch normalisation."""
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
            convolution(shape.channels, 16, stride=2),
            convolution(16, 24),
            convolution(24, 48, stride=2),
            nn.AdaptiveAvgPool2d(2),
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(48 * 4, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.dropout(self.features(images).flatten(1)))
        return logits


def build(shape: ModelShape, values: Values) -> nn.Module:
    """Return the module."""
    del values  # it has nothing to set
    return ConvNet(shape)
