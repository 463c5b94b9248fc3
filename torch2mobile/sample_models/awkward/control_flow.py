"""Awkward: which branch of an ``if`` runs depends on the values in a tensor.

A graph has no such ``if``. Computing both and choosing with ``torch.where``, or ``torch.cond``,
can be exported.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("image:float32[N=1..4,3,H=8..64,W=8..64]",)
VALUES = ("image=uniform(0,1)",)


class ControlFlow(nn.Module):
    """Enhances bright and dark images, ``[N, 3, H, W]``, by filters of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.bright = nn.Conv2d(3, 3, 3, padding=1)
        self.dark = nn.Conv2d(3, 3, 5, padding=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.mean() > 0.5:
            return torch.sigmoid(self.bright(image))
        return torch.sigmoid(self.dark(image))


def build() -> nn.Module:
    """Untrained filters."""
    with seeded(0):
        return ControlFlow().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images of noise, 16 by 24."""
    return (torch.rand(2, 3, 16, 24, generator=generator(0)),)
