"""Small modules that the tests of more than one runtime convert."""

from __future__ import annotations

import torch
from torch import nn


class Perceptron(nn.Module):
    """Of this one, pnnx keeps the batch as a dimension of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Looked(nn.Module):
    """torch.onnx makes a Gather of it, which ncnn does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.table(ids).mean(1)
