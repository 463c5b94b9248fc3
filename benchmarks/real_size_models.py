"""Models at their real size, with random weights; those by torchvision need it."""

from __future__ import annotations

import torch
from torch import nn

IMAGE = "x:float32[N=1..8,3,224,224]"
INPUTS = {
    "resnet50": (IMAGE,),
    "mobilenet_v3_large": (IMAGE,),
    "transformer_12": ("ids:int64[N=1..4,L=1..128]",),
    "convolutions_300": ("x:float32[N=1..8,16,32,32]",),
}
VALUES = {"transformer_12": ("ids=0..30521",)}


def resnet50() -> nn.Module:
    """25 million parameters."""
    from torchvision import models

    return models.resnet50(weights=None)


def mobilenet_v3_large() -> nn.Module:
    """5 million parameters."""
    from torchvision import models

    return models.mobilenet_v3_large(weights=None)


class Encoder(nn.Module):
    """Of BERT's size: 110 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30522, 768)
        layer = nn.TransformerEncoderLayer(768, 12, 3072, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)
        # The layers are copies of one: a simplifier would store their weights once.
        for weight in self.layers.parameters():
            if weight.dim() > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """From tokens to features."""
        features: torch.Tensor = self.layers(self.tokens(ids))
        return features


def transformer_12() -> nn.Module:
    """12 layers."""
    return Encoder()


def convolutions_300() -> nn.Module:
    """A long chain."""
    return nn.Sequential(
        *[each for _ in range(300) for each in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
    )


def example(name: str) -> torch.Tensor:
    """One input, as anybody would take it."""
    if name == "transformer_12":
        return torch.randint(0, 30522, (2, 64))
    return torch.rand(2, 16, 32, 32) if name == "convolutions_300" else torch.rand(2, 3, 224, 224)
