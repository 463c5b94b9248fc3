"""Awkward: an operation of its own, with a gradient of its own, computed by numpy.

The exporter sees tensors, never what numpy does to their values. Written with ``torch.bucketize``
and a table, the curve can be exported; its gradient does not matter on a phone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from torch2mobile.sample_models._seeding import generator, seeded

INPUTS = ("image:float32[N=1..4,3,H=8..64,W=8..64]",)
VALUES = ("image=uniform(0,1)",)

KNOTS = (0.0, 0.25, 0.5, 0.75, 1.0)
CURVE = (0.0, 0.15, 0.5, 0.85, 1.0)


class ToneCurve(torch.autograd.Function):
    """A piecewise linear curve on each pixel, whose gradient is taken to be one."""

    @staticmethod
    def forward(_ctx: Any, image: torch.Tensor) -> torch.Tensor:
        curved = np.interp(image.detach().numpy(), KNOTS, CURVE)
        return torch.from_numpy(curved).to(image.dtype)

    @staticmethod
    def backward(_ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0]


class CustomAutograd(nn.Module):
    """Filters an image, ``[N, 3, H, W]``, and raises its contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        filtered = torch.sigmoid(self.filter(image))
        result: torch.Tensor = ToneCurve.apply(filtered)  # type: ignore[no-untyped-call]
        return result


def build() -> nn.Module:
    """An untrained filter."""
    with seeded(0):
        return CustomAutograd().eval()


def example_inputs() -> tuple[torch.Tensor, ...]:
    """Two images of noise, 16 by 24."""
    return (torch.rand(2, 3, 16, 24, generator=generator(0)),)
