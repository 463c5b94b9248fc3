"""Finds objects without anchors: two heads on one backbone, and a dict of two outputs.

Each cell of a coarse grid gives one box and its scores. The grid is made in ``forward`` from the
size of the features: had it been made once for one image size, other sizes would go wrong
without any error.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.sample_models._seeding import enliven, images, seeded

STRIDE = 16

INPUTS = ("image:float32[N=1..2,3,16*h=2..16,16*w=2..16]",)
VALUES = ("image=uniform(0,1)",)


def _halve(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class Detector(nn.Module):
    """RGB images in 0..1, ``[N, 3, 16 * h, 16 * w]``, to one box for each of ``h * w`` cells.

    ``boxes`` are ``[N, h * w, 4]``, left, top, right and bottom in pixels; ``scores`` are
    ``[N, h * w, classes]``, each in 0..1. Overlaps are left for the app to suppress.
    """

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.backbone = nn.Sequential(_halve(3, 16), _halve(16, 24), _halve(24, 32), _halve(32, 48))
        self.box_head = nn.Conv2d(48, 4, 3, padding=1)
        self.score_head = nn.Conv2d(48, classes, 3, padding=1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(image)
        # Distances from the cell's centre to the four sides. Softplus, as exp would overflow.
        left, top, right, bottom = (STRIDE * F.softplus(self.box_head(features))).unbind(1)
        rows, columns = features.shape[2:]
        y = STRIDE * (torch.arange(rows, device=image.device).to(image.dtype)[:, None] + 0.5)
        x = STRIDE * (torch.arange(columns, device=image.device).to(image.dtype) + 0.5)
        boxes = torch.stack([x - left, y - top, x + right, y + bottom], dim=-1)
        scores = torch.sigmoid(self.score_head(features))
        return {"boxes": boxes.flatten(1, 2), "scores": scores.flatten(2).transpose(1, 2)}


def build() -> nn.Module:
    """An untrained network, weighted as if it had seen data."""
    with seeded(0):
        model = Detector()
        enliven(model)
    return model.eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images, 64 by 96."""
    return (images(2, 3, 64, 96),)
