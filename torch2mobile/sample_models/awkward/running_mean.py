"""Awkward: a mean that is carried from call to call.

The level of the signals heard so far is kept in a buffer. A file has no memory: it starts anew at
each call, from what the buffer held at export. The level must go in and come out instead.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("signal:float32[N=1..8,16]",)
VALUES = ("signal=normal(0,1)",)


class RunningMean(nn.Module):
    """Signals, ``[N, 16]``, to scores ``[N, classes]`` relative to the level heard so far."""

    level: torch.Tensor

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classifier = nn.Linear(16, classes)
        self.register_buffer("level", torch.zeros(16))

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classifier(signal - self.level)
        self.level.lerp_(signal.mean(0), 0.1)
        return scores


def build() -> nn.Module:
    """An untrained classifier that has heard nothing yet."""
    with seeded(0):
        return RunningMean().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two signals."""
    return (torch.randn(2, 16, generator=generator(0)),)
