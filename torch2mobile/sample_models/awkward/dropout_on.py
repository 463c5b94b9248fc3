"""Awkward: dropout that ``eval()`` does not switch off.

The functional form has no mode of its own: it needs ``training=self.training``, or else an
``nn.Dropout``. As it stands, the model gives another answer at every call.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("features:float32[N=1..8,32]",)
VALUES = ("features=normal(0,1)",)


class DropoutOn(nn.Module):
    """Feature vectors, ``[N, 32]``, to logits ``[N, classes]``."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.hidden = nn.Linear(32, 64)
        self.classifier = nn.Linear(64, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        hidden = self.hidden(features).relu()
        hidden = F.dropout(hidden, p=0.2, training=True)
        logits: torch.Tensor = self.classifier(hidden)
        return logits


def build() -> nn.Module:
    """An untrained classifier."""
    with seeded(0):
        return DropoutOn().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two feature vectors."""
    return (torch.randn(2, 32, generator=generator(0)),)
