"""The trained sample does what it is for, on photographs that it has never seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from torch2mobile.sample_models import super_resolution

datasets = pytest.importorskip("sklearn.datasets")


def psnr(image: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    error = np.mean((image.astype(np.float64) - truth) ** 2)
    return float(10 * np.log10(255**2 / error))


@torch.no_grad()
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_beats_bicubic_on_photographs(name: str) -> None:
    photograph = Image.fromarray(datasets.load_sample_image(name)).convert("L")
    width, height = photograph.width // 2, photograph.height // 2
    truth = photograph.crop((0, 0, 2 * width, 2 * height))
    small = truth.resize((width, height), Image.Resampling.BICUBIC)
    bicubic = small.resize(truth.size, Image.Resampling.BICUBIC)

    image = torch.from_numpy(np.array(small))[None, None].float() / 255
    upscaled = super_resolution.build()(image)[0, 0].mul(255).round().clamp(0, 255)

    gain = psnr(upscaled.byte().numpy(), np.array(truth)) - psnr(np.array(bicubic), np.array(truth))
    assert gain > 0.5


@torch.no_grad()
def test_flat_grey_stays_flat_grey() -> None:
    """Away from the edges; an interface full of plain surfaces shows any ripple."""
    for grey in (0.1, 0.5, 0.9):
        upscaled = super_resolution.build()(torch.full((1, 1, 32, 32), grey))
        assert (upscaled[..., 16:-16, 16:-16] - grey).abs().max() < 0.02
