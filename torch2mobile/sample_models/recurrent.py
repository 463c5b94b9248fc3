"""A gesture classifier on motion sensors: a bidirectional LSTM under a GRU.

Takes recordings of any length: the recurrent layers loop in the runtime, not in the graph.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("motion:float32[N=1..4,T=2..100,6]",)
VALUES = ("motion=normal(0,1)",)


class Recurrent(nn.Module):
    """Six sensor channels over time, ``[N, T, 6]``, to logits ``[N, classes]``."""

    def __init__(self, width: int = 32, classes: int = 4) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, width, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(2 * width, width, batch_first=True)
        self.classifier = nn.Linear(width, classes)

    def forward(self, motion: torch.Tensor) -> torch.Tensor:
        steps, _ = self.lstm(motion)
        _, last = self.gru(steps)
        logits: torch.Tensor = self.classifier(last[-1])
        return logits


def build() -> nn.Module:
    """An untrained classifier."""
    with seeded(0):
        return Recurrent().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Three recordings of twenty steps."""
    return (torch.randn(3, 20, 6, generator=generator(0)),)
