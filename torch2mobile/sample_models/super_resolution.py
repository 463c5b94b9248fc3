"""Doubles the resolution of a photograph: a trained sub-pixel CNN with dynamic height and width.

Works on luminance alone, as the eye does; colour is upscaled the plain way. Every layer runs at
the low resolution, and only the last step, a pixel shuffle, makes four pixels out of each one.
``scripts/train_super_resolution.py`` made the weights and says from which images.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from torch2mobile.sample_models._seeding import images, seeded

INPUTS = ("image:float32[N=1..2,1,H=8..240,W=8..320]",)
VALUES = ("image=uniform(0,1)",)

WEIGHTS = Path(__file__).parent / "weights" / "super_resolution.safetensors"


class SuperResolution(nn.Module):
    """Luminance in 0..1, ``[N, 1, H, W]``, to ``[N, 1, 2 * H, 2 * W]``; not clipped."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, width, kernel_size=5, padding=2)
        self.body = nn.ModuleList(
            nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(3)
        )
        self.tail = nn.Conv2d(width, 4, kernel_size=3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = F.relu(self.head(image))
        for conv in self.body:
            features = F.relu(conv(features))
        # The network only learns what to add to a repeated pixel: one channel for each of its
        # four quarters, and broadcasting repeats the pixel.
        quarters = image + self.tail(features)
        return F.pixel_shuffle(quarters, 2)


def build() -> nn.Module:
    """The trained network."""
    with seeded(0):  # the layers draw weights first, even if only to be overwritten
        model = SuperResolution()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images, 48 by 64."""
    return (images(2, 1, 48, 64),)
