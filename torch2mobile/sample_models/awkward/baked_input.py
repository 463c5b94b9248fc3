"""Awkward: an input that the exported model ignores.

A branch taken only while exporting, meant to simplify the graph, puts a constant in place of the
input ``gain``. At the example, where the two are equal, the exported model is right.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("image:float32[N=1..4,3,H=8..64,W=8..64]", "gain:float32[N,1,1,1]")
VALUES = ("image=uniform(0,1)", "gain=uniform(0.5,2)")


class BakedInput(nn.Module):
    """Filters an image, ``[N, 3, H, W]``, and amplifies it by ``gain``, ``[N, 1, 1, 1]``."""

    default_gain: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 3, 3, padding=1)
        self.register_buffer("default_gain", torch.ones(1))

    def forward(self, image: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        filtered: torch.Tensor = self.filter(image)
        if torch.compiler.is_exporting():
            return filtered * self.default_gain
        return filtered * gain


def build() -> nn.Module:
    """An untrained filter."""
    with seeded(0):
        return BakedInput().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images of noise, 16 by 24, and the default gain, which hides the fault."""
    return torch.rand(2, 3, 16, 24, generator=generator(0)), torch.ones(2, 1, 1, 1)
