"""How far an artefact may be off: measured on the module's own noise, scale by scale.

With float64 outputs as the truth, the float32 module's own error is the noise floor; an artefact
may be off the truth by FACTOR floors plus one rounding unit of the output's scale, and by the
dtype's usual relative tolerance of that scale at least (kernels sum in other orders than torch).
Without a truth, the defaults of ``torch.testing.assert_close`` apply at the output's scale.

What is usual for an output is taken from all ordinary probes, so that float32 being exact by luck,
or a sum that happens to cancel, on one probe asks no such luck of the artefact. Channels whose
usual scales differ by SCALE_STEP and more are measured apart: an error of 1e-3 in scores of about
1 must not hide beside boxes of about 600.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from torch2mobile.records import Tolerance

FACTOR = 10.0
SCALE_STEP = 16.0
# No channel is held to less than 16**-5, some 1e-6, of the greatest one: a probability of 1e-30
# may well be 0 in another kernel.
_STEPS = 5
# Of fewer values than these, the greatest error on one probe says little about the noise.
FEW = 16

# torch.testing.assert_close's (rtol, atol) by dtype.
USUAL = {
    "float16": Tolerance(rtol=1e-3, atol=1e-5),
    "bfloat16": Tolerance(rtol=1.6e-2, atol=1e-5),
    "float32": Tolerance(rtol=1.3e-6, atol=1e-5),
    "float64": Tolerance(rtol=1e-7, atol=1e-7),
}

Outputs = Sequence[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """The module on one probe; ``magnitude`` is that of its inputs, 1 where they are ordinary."""

    outputs: Outputs
    truth: Sequence[np.ndarray] | None = None
    magnitude: float = 1.0


@dataclass(frozen=True)
class Yardstick:
    """What is usual for one output over the ordinary probes, by group of channels.

    ``scale`` is the median of the greatest magnitude; ``noise`` the 90 % quantile of the float32
    error relative to it, None where there is no truth; ``unit`` whether all values ever seen lie
    in 0..1. ``groups`` has the group of each index of ``axis``; None for one group.
    """

    scale: np.ndarray = field(default_factory=lambda: np.zeros(1))
    noise: np.ndarray | None = None
    unit: np.ndarray = field(default_factory=lambda: np.zeros(1, dtype=bool))
    axis: int = 0
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Limit:
    """What one output on one probe is compared with, and the error allowed at each value.

    ``floor`` is the reference's own noise, 0 where none was measured.
    """

    base: np.ndarray
    allowed: np.ndarray
    floor: np.ndarray
    rule: str


def is_float(array: np.ndarray) -> bool:
    """Whether the dtype is a floating-point one, bfloat16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def epsilon(array: np.ndarray) -> float:
    """The rounding unit of an array's dtype at 1.0."""
    return 2.0**-7 if array.dtype.name == "bfloat16" else float(np.finfo(array.dtype).eps)


def wide(array: np.ndarray) -> np.ndarray:
    """The array in float64."""
    return array.astype(np.float64)


def yardsticks(cases: Sequence[Case]) -> Mapping[str, Yardstick]:
    """The yardstick of every floating-point output."""
    if not cases:
        return {}
    names = [name for name, _ in cases[0].outputs]
    alike = [case for case in cases if [name for name, _ in case.outputs] == names]
    return {name: _yardstick(alike, name) for name, array in cases[0].outputs if is_float(array)}


def _yardstick(cases: Sequence[Case], name: str) -> Yardstick:
    found = [_pick(case, name) for case in cases]
    ordinary = [
        (want, truth)
        for (want, truth), case in zip(found, cases, strict=True)
        if case.magnitude == 1
    ]
    axis, groups = _grouping([want for want, _ in found], [want for want, _ in ordinary])
    bare = Yardstick(axis=axis, groups=groups)
    peaks = np.array([_peaks(np.abs(_finite(want)), bare) for want, _ in ordinary])
    if not len(peaks):
        return bare
    scale = np.median(peaks, axis=0)
    outside = [_peaks(((want < 0) | (want > 1)).astype(float), bare) for want, _ in found]
    return Yardstick(
        scale=scale,
        noise=_noise(ordinary, bare, scale),
        unit=~np.any(outside, axis=0),
        axis=axis,
        groups=groups,
    )


def _pick(case: Case, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    number = [key for key, _ in case.outputs].index(name)
    return case.outputs[number][1], None if case.truth is None else case.truth[number]


def _noise(
    ordinary: Sequence[tuple[np.ndarray, np.ndarray | None]], bare: Yardstick, scale: np.ndarray
) -> np.ndarray | None:
    """The usual relative noise; None without a truth, or with one that is another function."""
    shares = []
    for want, truth in ordinary:
        if truth is not None:
            peak = np.maximum(_peaks(np.abs(_finite(truth)), bare), scale)
            error = _peaks(_error(want, truth), bare)
            shares.append(np.divide(error, peak, out=np.zeros_like(peak), where=peak > 0))
    if not shares:
        return None
    noise = np.quantile(shares, 0.9, axis=0, method="lower")
    # FACTOR floors would then allow anything, and a float64 module is no better than itself.
    exact = ordinary[0][0].dtype == np.float64 and not np.any(shares)
    return None if exact or noise.max() * FACTOR >= 1 else noise


def _finite(array: np.ndarray) -> np.ndarray:
    values = wide(array)
    return np.where(np.isfinite(values), values, 0.0)


def _error(want: np.ndarray, truth: np.ndarray) -> np.ndarray:
    known = np.isfinite(wide(want)) & np.isfinite(wide(truth))
    return np.where(known, np.abs(_finite(want) - _finite(truth)), 0.0)


def _grouping(
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

    A channel that is nearly always 0 has no scale: it counts as the greatest.
    """
    shares = []
    for array in arrays:
        size = np.moveaxis(np.abs(_finite(array)), axis, 0).reshape(array.shape[axis], -1)
        peaks = size.max(axis=1, initial=0.0)
        if peaks.max() > 0:
            shares.append(peaks / peaks.max())
    usual = np.median(shares, axis=0) if shares else np.zeros(arrays[0].shape[axis])
    below = np.divide(usual.max(), usual, out=np.ones_like(usual), where=usual > 0)
    steps: np.ndarray = np.minimum(np.log(below) / np.log(SCALE_STEP), _STEPS).astype(int)
    return steps


def _peaks(size: np.ndarray, yardstick: Yardstick) -> np.ndarray:
    """The greatest value in each group of channels."""
    if yardstick.groups is None:
        return np.array([size.max(initial=0.0)])
    by_channel = np.moveaxis(size, yardstick.axis, 0).reshape(len(yardstick.groups), -1)
    peaks = np.zeros(int(yardstick.groups.max()) + 1)
    np.maximum.at(peaks, yardstick.groups, by_channel.max(axis=1, initial=0.0))
    return peaks


def _spread(by_group: np.ndarray, yardstick: Yardstick, array: np.ndarray) -> np.ndarray:
    """One number a group as an array of the output's shape."""
    if yardstick.groups is None:
        return np.full(array.shape, by_group[0])
    shape = [1] * array.ndim
    shape[yardstick.axis] = -1
    return np.broadcast_to(by_group[yardstick.groups].reshape(shape), array.shape)


def exact_limit(want: np.ndarray) -> Limit:
    """Integers and booleans must be equal."""
    nothing = np.zeros(want.shape)
    return Limit(want, nothing, nothing, "exact")


def user_limit(want: np.ndarray, tolerance: Tolerance) -> Limit:
    """A user's own tolerance, relative to the module's own output."""
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = tolerance.atol + tolerance.rtol * np.abs(_finite(want))
    return Limit(wide(want), allowed, np.zeros(want.shape), "user")


def limit_for(
    want: np.ndarray,
    truth: np.ndarray | None,
    yardstick: Yardstick,
    magnitude: float = 1.0,
    rough: np.ndarray | None = None,
) -> Limit:
    """The measured limit of one output on one probe; the dtype's usual one without a truth.

    ``rough`` is the module's own output as float32 gives it in another order of its sums.
    """
    usual = USUAL.get(want.dtype.name, USUAL["float32"])
    # An output's scale may shrink with its inputs, but cancelling by chance is no smaller scale.
    least = yardstick.scale * min(1.0, magnitude)
    least = np.maximum(least, least.max() * SCALE_STEP**-_STEPS)
    if rough is None or rough.shape != want.shape:
        rough = want
    if truth is not None and _is_truth(want, truth, yardstick, least, magnitude):
        limit, floor = _measured(want, truth, rough, yardstick, least, magnitude)
        exact = wide(truth)
        base = np.where(np.isfinite(exact), exact, wide(want))
        allowed, floor = (_spread(each, yardstick, want) for each in (limit, floor))
        return Limit(base, allowed, floor, "measured")
    scale = np.maximum(_peaks(np.abs(_finite(want)), yardstick), least)
    # The noise of a small channel is not known then: it may come from operands of the large ones.
    scale = np.maximum(scale, scale.max() / SCALE_STEP)
    floor = _peaks(_error(want, rough), yardstick)
    limit = usual.atol * scale + FACTOR * floor
    allowed = _spread(limit, yardstick, want) + usual.rtol * np.abs(_finite(want))
    return Limit(wide(want), allowed, _spread(floor, yardstick, want), "usual")


def _is_truth(
    want: np.ndarray,
    truth: np.ndarray,
    yardstick: Yardstick,
    least: np.ndarray,
    magnitude: float,
) -> bool:
    """Whether the float64 outputs are the same function as the module's.

    Half of the digits lost on one probe alone is no noise: RMSNorm's epsilon goes by the dtype.
    """
    if yardstick.noise is None:
        return False
    scale = np.maximum(_peaks(np.abs(_finite(truth)), yardstick), least)
    floor = _peaks(_error(want, truth), yardstick)
    other = (floor > np.sqrt(epsilon(want)) * scale) & (floor > 100 * yardstick.noise * scale)
    return magnitude > 1 or not other.any()


def _measured(
    want: np.ndarray,
    truth: np.ndarray,
    rough: np.ndarray,
    yardstick: Yardstick,
    least: np.ndarray,
    magnitude: float,
) -> tuple[np.ndarray, np.ndarray]:
    """By group what is allowed, and the reference's own error."""
    assert yardstick.noise is not None
    scale = np.maximum(_peaks(np.abs(_finite(truth)), yardstick), least)
    floor = np.maximum(
        _peaks(_error(want, truth), yardstick), _peaks(_error(rough, truth), yardstick)
    )
    # Too few values to measure the noise of large inputs on: it is taken to grow as they do.
    growth = np.where(_counts(want, yardstick) < FEW, max(1.0, magnitude), 1.0)
    noise = np.maximum(floor, yardstick.noise * np.maximum(scale, least * growth))
    eps = epsilon(want)
    rtol = USUAL.get(want.dtype.name, USUAL["float32"]).rtol
    limit = np.maximum(FACTOR * noise + eps * scale, rtol * scale)
    # Probabilities: ONNX Runtime's Sigmoid is exact to a rounding unit of 1, not of its value.
    unit = np.maximum(limit, np.minimum(2 * eps, 0.01 * scale))
    return np.where(yardstick.unit, unit, limit), floor


def _counts(array: np.ndarray, yardstick: Yardstick) -> np.ndarray:
    if yardstick.groups is None:
        return np.array([array.size])
    rest = array.size // max(1, array.shape[yardstick.axis])
    counts: np.ndarray = np.bincount(yardstick.groups) * rest
    return counts
