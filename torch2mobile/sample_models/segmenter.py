"""Labels every pixel: a small U-Net with skip connections.

It halves the image three times and doubles it again, so height and width must be multiples of
eight for the two sides to meet; the input says so with ``8*h``, and nothing has to be cropped.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.sample_models._seeding import enliven, images, seeded

INPUTS = ("image:float32[N=1..2,3,8*h=2..32,8*w=2..32]",)
VALUES = ("image=uniform(0,1)",)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Segmenter(nn.Module):
    """RGB images in 0..1, ``[N, 3, H, W]``, to logits per pixel ``[N, classes, H, W]``."""

    def __init__(self, classes: int = 4, widths: tuple[int, ...] = (8, 16, 24, 32)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            _double_conv(inputs, outputs)
            for inputs, outputs in zip((3, *widths), widths, strict=False)
        )
        self.up = nn.ModuleList(
            _double_conv(low + high, high)
            for low, high in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.down[0](image)
        skipped = []
        for down in self.down[1:]:
            skipped.append(features)
            features = down(F.max_pool2d(features, 2))
        for up in self.up:
            larger = F.interpolate(features, scale_factor=2.0, mode="bilinear")
            features = up(torch.cat([larger, skipped.pop()], dim=1))
        logits: torch.Tensor = self.classifier(features)
        return logits


def build() -> nn.Module:
    """An untrained network, weighted as if it had seen data."""
    with seeded(0):
        model = Segmenter()
        enliven(model)
    return model.eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images, 48 by 64."""
    return (images(2, 3, 48, 64),)
