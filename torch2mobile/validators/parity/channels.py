"""Channels whose usual scales differ, measured apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SCALE_STEP = 16.0


# No channel is held to less than 16**-5, some 1e-6, of the greatest one: a probability of 1e-30
# may well be 0 in another kernel.
_STEPS = 5


LEAST = SCALE_STEP**-_STEPS


def grouping(
    every: Sequence[np.ndarray], ordinary: Sequence[np.ndarray]
) -> tuple[int, np.ndarray | None]:
    """The axis along which scales differ most, and the group of each of its indices.

    Only an axis that has the same size on every probe can be one of channels.
    """
    ranks = {array.ndim for array in every}
    best: tuple[int, np.ndarray | None] = (0, None)
    if len(ranks) != 1 or not ordinary:
        return best
    most = 0
    for axis in range(ranks.pop()):
        sizes = {array.shape[axis] for array in every}
        if len(sizes) == 1 and sizes.pop() > 1:
            steps = _steps(ordinary, axis)
            if steps.max() > most:
                most = int(steps.max())
                best = axis, np.unique(steps, return_inverse=True)[1].reshape(-1)
    return best


def _steps(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
    """How many SCALE_STEPs each channel's usual scale lies below the greatest one's.

    By what it reaches on the probes where it is large: a ReLU may cut it off on most of the others.
    A channel that is nearly always 0 has no scale: it counts as the greatest.
    """
    shares = []
    for array in arrays:
        size = np.moveaxis(np.abs(finite(array)), axis, 0).reshape(array.shape[axis], -1)
        peaks = size.max(axis=1, initial=0.0)
        if peaks.max() > 0:
            shares.append(peaks / peaks.max())
    usual = (
        np.quantile(shares, 0.9, axis=0, method="lower")
        if shares
        else np.zeros(arrays[0].shape[axis])
    )
    below = np.divide(usual.max(), usual, out=np.ones_like(usual), where=usual > 0)
    steps: np.ndarray = np.minimum(np.log(below) / np.log(SCALE_STEP), _STEPS).astype(int)
    return steps


@dataclass(frozen=True)
class Yardstick:
    """What is usual for one output over the ordinary probes, by group of channels.

    ``scale`` is the median of the greatest magnitude; ``noise`` the 90 % quantile of the float32
    error relative to it, None where there is no truth. ``groups`` has the group of each index of
    ``axis``; None for one group.
    """

    scale: np.ndarray = field(default_factory=lambda: np.zeros(1))
    noise: np.ndarray | None = None
    axis: int = 0
    groups: np.ndarray | None = None

    def fitting(self, want: np.ndarray) -> Yardstick:
        """The same for an array that has other channels than were ever seen: one group, strictest.

        An output's size may hang on the data, and was the same on all probes by chance.
        """
        known = self.groups
        if known is None or want.shape[self.axis : self.axis + 1] == known.shape:
            return self
        noise = None if self.noise is None else self.noise.min(keepdims=True)
        return Yardstick(self.scale.min(keepdims=True), noise)


def is_float(array: np.ndarray) -> bool:
    """Whether the dtype is a floating-point one, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def wide(array: np.ndarray) -> np.ndarray:
    """The array in float64."""
    return array.astype(np.float64)


def finite(array: np.ndarray) -> np.ndarray:
    """The array in float64, with 0 for NaN and infinities."""
    values = wide(array)
    return np.where(np.isfinite(values), values, 0.0)


def peaks_of(size: np.ndarray, yardstick: Yardstick) -> np.ndarray:
    """The greatest value in each group of channels."""
    if yardstick.groups is None:
        return np.array([size.max(initial=0.0)])
    by_channel = np.moveaxis(size, yardstick.axis, 0).reshape(len(yardstick.groups), -1)
    peaks = np.zeros(int(yardstick.groups.max()) + 1)
    np.maximum.at(peaks, yardstick.groups, by_channel.max(axis=1, initial=0.0))
    return peaks


def spread(by_group: np.ndarray, yardstick: Yardstick, array: np.ndarray) -> np.ndarray:
    """One number a group as an array of the output's shape."""
    if yardstick.groups is None:
        return np.full(array.shape, by_group[0])
    shape = [1] * array.ndim
    shape[yardstick.axis] = -1
    return np.broadcast_to(by_group[yardstick.groups].reshape(shape), array.shape)


def counts(array: np.ndarray, yardstick: Yardstick) -> np.ndarray:
    """How many values each group of channels has."""
    if yardstick.groups is None:
        return np.array([array.size])
    rest = array.size // max(1, array.shape[yardstick.axis])
    counts: np.ndarray = np.bincount(yardstick.groups) * rest
    return counts
