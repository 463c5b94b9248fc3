"""Figures that a model's users know, beside the gate and never in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.validators.parity.channels import is_float

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs


_CHANNELS = (1, 3, 4)


def cosine(want: np.ndarray, got: np.ndarray) -> float:
    """The cosine of the angle between two arrays seen as vectors; 1 where both are zero."""
    a, b = want.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else float(np.array_equal(a, b))


def psnr(want: np.ndarray, got: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, 20 log10(range / RMSE); inf where equal."""
    a, b = want.astype(np.float64), got.astype(np.float64)
    error = float(np.sqrt(np.mean((a - b) ** 2)))
    span = float(a.max() - a.min())
    if error == 0:
        return float("inf")
    return float(20 * np.log10(span / error)) if span > 0 else float("-inf")


def top1(want: np.ndarray, got: np.ndarray) -> float:
    """The share of rows whose greatest entry is the same on both sides."""
    return float(np.mean(want.argmax(axis=-1) == got.argmax(axis=-1)))


def measure(pairs: Sequence[tuple[Outputs, Outputs]]) -> Mapping[str, float]:
    """The worst of each metric over all probes, by ``output.metric``.

    top-1 for ``[N, classes]`` outputs, PSNR for images ``[N, 1|3|4, H, W]``, cosine for all.
    """
    found: dict[str, list[float]] = {}
    for expected, actual in pairs:
        for (name, want), (_, got) in zip(expected, actual, strict=True):
            finite = want.size and np.isfinite(want).all() and np.isfinite(got).all()
            if not is_float(want) or not finite:
                continue
            found.setdefault(f"{name}.cosine", []).append(cosine(want, got))
            if want.ndim == 2 and want.shape[1] > 1:
                found.setdefault(f"{name}.top1", []).append(top1(want, got))
            if want.ndim == 4 and want.shape[1] in _CHANNELS:
                found.setdefault(f"{name}.psnr", []).append(psnr(want, got))
    return {key: min(values) for key, values in found.items()}
