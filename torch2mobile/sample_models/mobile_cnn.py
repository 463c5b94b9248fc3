"""An image classifier out of mobile parts: depthwise blocks, squeeze-and-excite, hard activations.

The parts are those of MobileNetV3 (https://arxiv.org/abs/1905.02244). Image size is dynamic,
since all that depends on it is averaged away before the last layer.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import enliven, images, seeded

INPUTS = ("image:float32[N=1..4,3,H=32..160,W=32..160]",)
VALUES = ("image=uniform(0,1)",)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, 1),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        gate: torch.Tensor = self.gate(features)
        return features * gate


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter each channel by 3x3, gate, narrow by 1x1; add the input if it fits."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        wide = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.block = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
            SqueezeExcite(wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.block(features)
        return features + result if self.residual else result


class MobileCnn(nn.Module):
    """RGB images in 0..1, ``[N, 3, H, W]``, to class scores (logits) ``[N, classes]``."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.Hardswish(),
            InvertedResidual(16, 16, stride=1),
            InvertedResidual(16, 24, stride=2),
            InvertedResidual(24, 24, stride=1),
            InvertedResidual(24, 40, stride=2),
            InvertedResidual(40, 40, stride=1),
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(40, 64),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(64, classes),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(image))
        return logits


def build() -> nn.Module:
    """An untrained network, weighted as if it had seen data."""
    with seeded(0):
        model = MobileCnn()
        enliven(model)
    return model.eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images, 64 by 96."""
    return (images(2, 3, 64, 96),)
