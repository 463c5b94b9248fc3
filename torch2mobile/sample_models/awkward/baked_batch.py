"""Awkward: the batch size of the training is written into a reshape, and no other one works.

``features.flatten(1)``, or ``features.shape[0]`` in place of the number, leaves it dynamic.
"""

from __future__ import annotations

import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("image:float32[N=1..8,3,16,16]",)
VALUES = ("image=uniform(0,1)",)


class BakedBatch(nn.Module):
    """Images, ``[N, 3, 16, 16]``, to logits ``[N, classes]``."""

    def __init__(self, batch: int = 2, classes: int = 5) -> None:
        super().__init__()
        self.batch = batch
        self.features = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.classifier = nn.Linear(8 * 4 * 4, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.features(image).relu()
        rows = features.reshape(self.batch, 8 * 4 * 4)
        logits: torch.Tensor = self.classifier(rows)
        return logits


def build() -> nn.Module:
    """An untrained classifier."""
    with seeded(0):
        return BakedBatch().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images of noise."""
    return (torch.rand(2, 3, 16, 16, generator=generator(0)),)
