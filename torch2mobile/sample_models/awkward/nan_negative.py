"""Awkward: a square root of whatever comes in, which is NaN below zero.

It is never so at the example, and the values say that it can come in. Declaring
``image=uniform(0,1)``, if the app keeps to it, or ``image.clamp(min=0)`` would mend it.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("image:float32[N=1..4,3,H=8..64,W=8..64]",)
VALUES = ("image=uniform(-1,1)",)


class NanNegative(nn.Module):
    """Brightens an image, ``[N, 3, H, W]``, by a gamma of one half, and filters it."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        brightened = torch.sqrt(image)
        filtered: torch.Tensor = self.filter(brightened)
        return filtered


def build() -> nn.Module:
    """An untrained filter."""
    with seeded(0):
        return NanNegative().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images of noise, 16 by 24, of positive numbers."""
    return (torch.rand(2, 3, 16, 24, generator=generator(0)),)
