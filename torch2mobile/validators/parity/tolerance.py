"""How far an artefact may be off: measured on the module's own noise, scale by scale.

With float64 outputs as the truth, the float32 module's own error is the noise floor; an artefact
may be off the truth by FACTOR floors plus one rounding unit of the output's scale, and by the
dtype's usual relative tolerance of that scale at least (kernels sum in other orders than torch).
Without a truth, the module with the least rounding (``compensated``) stands in for it, and the
floor is how far the other roundings lie off that. Without either, the defaults of
``torch.testing.assert_close`` apply at the output's scale.

What is usual for an output is taken from all ordinary probes, so that float32 being exact by luck,
or a sum that happens to cancel, on one probe asks no such luck of the artefact. Channels whose
usual scales differ by SCALE_STEP and more are measured apart: an error of 1e-3 in scores of about
1 must not hide beside boxes of about 600.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.records import Tolerance
from torch2mobile.validators.parity.channels import (
    LEAST,
    SCALE_STEP,
    Yardstick,
    counts,
    finite,
    grouping,
    is_float,
    peaks_of,
    spread,
    wide,
)

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs


FACTOR = 10.0
# Of fewer values than these, the greatest error on one probe says little about the noise.
FEW = 16

# torch.testing.assert_close's (rtol, atol) by dtype.
USUAL = {
    "float16": Tolerance(rtol=1e-3, atol=1e-5),
    "bfloat16": Tolerance(rtol=1.6e-2, atol=1e-5),
    "float32": Tolerance(rtol=1.3e-6, atol=1e-5),
    "float64": Tolerance(rtol=1e-7, atol=1e-7),
}


@dataclass(frozen=True)
class Roundings:
    """A module's outputs with the least rounding there is in its dtype, and with other roundings.

    See :mod:`torch2mobile.validators.parity.compensated`.
    """

    least: Sequence[np.ndarray]
    others: Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class Case:
    """The module on one probe; ``magnitude`` is that of its inputs, 1 where they are ordinary.

    ``roundings`` stand in where there is no float64 ``truth``; ``rough`` are the outputs with all
    sums taken in a plain loop.
    """

    outputs: Outputs
    truth: Sequence[np.ndarray] | None = None
    magnitude: float = 1.0
    roundings: Roundings | None = None
    late: bool = False
    rough: Sequence[np.ndarray] | None = None

    def known(self, number: int) -> Known:
        """One output and what there is to judge by."""
        want = self.outputs[number][1]
        others = [] if self.rough is None else [self.rough[number]]
        others = [each for each in others if each.shape == want.shape]
        if self.truth is not None:
            return Known(want, self.truth[number], others)
        if self.roundings is None:
            return Known(want, others=others, late=self.late)
        others += [each[number] for each in self.roundings.others]
        return Known(want, self.roundings.least[number], others, "compensated")


@dataclass(frozen=True)
class Known:
    """One output of the module, and the rule of what is taken for the truth.

    ``others`` are the same output in other roundings; ``late`` says that there is a truth, not yet
    evaluated.
    """

    want: np.ndarray
    truth: np.ndarray | None = None
    others: Sequence[np.ndarray] = ()
    rule: str = "measured"
    late: bool = False


@dataclass(frozen=True)
class Limit:
    """What one output on one probe is compared with, and the error allowed at each value.

    ``floor`` is the reference's own noise, None where it was not measured.
    """

    base: np.ndarray
    allowed: np.ndarray
    floor: np.ndarray | None
    rule: str


def epsilon(array: np.ndarray) -> float:
    """The rounding unit of an array's dtype at 1.0."""
    return 2.0**-7 if array.dtype.name == "bfloat16" else float(np.finfo(array.dtype).eps)


def yardsticks(cases: Sequence[Case]) -> Mapping[str, Yardstick]:
    """The yardstick of every floating-point output."""
    if not cases:
        return {}
    names = [name for name, _ in cases[0].outputs]
    alike = [case for case in cases if [name for name, _ in case.outputs] == names]
    return {name: _yardstick(alike, name) for name, array in cases[0].outputs if is_float(array)}


def _yardstick(cases: Sequence[Case], name: str) -> Yardstick:
    number = [key for key, _ in cases[0].outputs].index(name)
    found = [case.known(number) for case in cases]
    ordinary = [one for one, case in zip(found, cases, strict=True) if case.magnitude == 1]
    axis, groups = grouping([one.want for one in found], [one.want for one in ordinary])
    bare = Yardstick(axis=axis, groups=groups)
    peaks = np.array([peaks_of(np.abs(finite(one.want)), bare) for one in ordinary])
    if not len(peaks):
        return bare
    scale = np.median(peaks, axis=0)
    return Yardstick(scale, _noise(ordinary, bare, scale), axis, groups)


def _noise(ordinary: Sequence[Known], bare: Yardstick, scale: np.ndarray) -> np.ndarray | None:
    """The usual relative noise; None without a truth, or with one that is another function."""
    shares = [share(one, replace(bare, scale=scale)) for one in ordinary if one.truth is not None]
    if not shares:
        return None
    noise = np.quantile(shares, 0.9, axis=0, method="lower")
    # FACTOR floors would then allow anything, and a float64 module is no better than itself.
    exact = ordinary[0].want.dtype == np.float64 and not np.any(shares)
    return None if exact or noise.max() * FACTOR >= 1 else noise


def share(known: Known, yardstick: Yardstick) -> np.ndarray:
    """By group the module's own noise relative to the scale."""
    assert known.truth is not None
    peak = np.maximum(peaks_of(np.abs(finite(known.truth)), yardstick), yardstick.scale)
    floor = _floor(known, yardstick)
    found: np.ndarray = np.divide(floor, peak, out=np.zeros_like(peak), where=peak > 0)
    return found


def _floor(known: Known, yardstick: Yardstick) -> np.ndarray:
    """By group how far the module is off the truth, in all of its roundings."""
    assert known.truth is not None
    errors = [peaks_of(_error(x, known.truth), yardstick) for x in (known.want, *known.others)]
    found: np.ndarray = np.maximum.reduce(errors)
    return found


def _error(want: np.ndarray, truth: np.ndarray) -> np.ndarray:
    known = np.isfinite(wide(want)) & np.isfinite(wide(truth))
    return np.where(known, np.abs(finite(want) - finite(truth)), 0.0)


def exact_limit(want: np.ndarray) -> Limit:
    """Integers and booleans must be equal."""
    return Limit(want, np.zeros(want.shape), None, "exact")


def user_limit(want: np.ndarray, tolerance: Tolerance, truth: np.ndarray | None = None) -> Limit:
    """A user's own tolerance, relative to the module's own output; the noise is shown beside it."""
    with np.errstate(over="ignore", invalid="ignore"):
        allowed = tolerance.atol + tolerance.rtol * np.abs(finite(want))
    floor = None if truth is None else np.full(want.shape, _error(want, truth).max(initial=0.0))
    return Limit(wide(want), allowed, floor, "user")


def limit_for(
    known: Known,
    yardstick: Yardstick,
    magnitude: float = 1.0,
) -> Limit:
    """The limit of one output on one probe by the best rule that there is evidence for."""
    want = known.want
    # An output's scale may shrink with its inputs, but cancelling by chance is no smaller scale.
    least = yardstick.scale * min(1.0, magnitude)
    least = np.maximum(least, least.max() * LEAST)
    if known.truth is not None and _is_truth(known, yardstick, least, magnitude):
        limit, floor = _measured(known, yardstick, least, magnitude)
        exact = wide(known.truth)
        base = np.where(np.isfinite(exact), exact, wide(want))
        allowed, floor = (spread(each, yardstick, want) for each in (limit, floor))
        return Limit(base, allowed, floor, known.rule)
    if known.late and yardstick.noise is not None:
        limit, floor = _at_a_glance(known, yardstick, least, magnitude)
        allowed, floor = (spread(each, yardstick, want) for each in (limit, floor))
        return Limit(wide(want), allowed, floor, known.rule)
    usual = USUAL.get(want.dtype.name, USUAL["float32"])
    scale = np.maximum(peaks_of(np.abs(finite(want)), yardstick), least)
    # The noise of a small channel is not known then: it may come from operands of the large ones.
    scale = np.maximum(scale, scale.max() / SCALE_STEP)
    floor = _floor(replace(known, truth=want), yardstick)
    limit = usual.atol * scale + FACTOR * floor
    allowed = spread(limit, yardstick, want) + usual.rtol * np.abs(finite(want))
    shown = spread(floor, yardstick, want) if known.others else None
    return Limit(wide(want), allowed, shown, "usual")


def _is_truth(known: Known, yardstick: Yardstick, least: np.ndarray, magnitude: float) -> bool:
    """Whether the float64 outputs are the same function as the module's.

    Half of the digits lost on one probe alone is no noise: RMSNorm's epsilon goes by the dtype.
    """
    if yardstick.noise is None or known.truth is None:
        return False
    if known.rule == "compensated" or magnitude > 1:
        return True
    scale = np.maximum(peaks_of(np.abs(finite(known.truth)), yardstick), least)
    floor = peaks_of(_error(known.want, known.truth), yardstick)
    lost = floor > np.sqrt(epsilon(known.want)) * scale
    return not (lost & (floor > 100 * yardstick.noise * scale)).any()


def _measured(
    known: Known, yardstick: Yardstick, least: np.ndarray, magnitude: float
) -> tuple[np.ndarray, np.ndarray]:
    """By group what is allowed, and the reference's own error."""
    assert yardstick.noise is not None
    assert known.truth is not None
    want = known.want
    scale = np.maximum(peaks_of(np.abs(finite(known.truth)), yardstick), least)
    floor = _floor(known, yardstick)
    # Too few values to measure the noise of large inputs on: it is taken to grow as they do.
    growth = np.where(counts(want, yardstick) < FEW, max(1.0, magnitude), 1.0)
    grown = np.maximum(scale, least * growth)
    if known.rule == "compensated":
        # Chance may just not have moved the value that counts, as the greatest of an exp().
        lucky = floor < yardstick.noise * scale / 2
        grown = np.where(lucky, np.maximum(grown, scale * max(1.0, magnitude)), grown)
    noise = np.maximum(floor, yardstick.noise * grown)
    eps = epsilon(want)
    rtol = USUAL.get(want.dtype.name, USUAL["float32"]).rtol
    return np.maximum(FACTOR * noise + eps * scale, rtol * scale), floor


def _at_a_glance(
    known: Known, yardstick: Yardstick, least: np.ndarray, magnitude: float
) -> tuple[np.ndarray, np.ndarray]:
    """By group what is allowed against the module itself, and the usual noise at this scale.

    Whatever is within it is within what the truth would allow, however far the module is off the
    truth: with that distance f and an error e against the module, the error against the truth is
    e + f at most, and 10 max(f, usual noise) or more are allowed. So e may be (FACTOR - 1) times
    the usual noise, or (1 - 1 / FACTOR) of the usual relative tolerance.
    """
    assert yardstick.noise is not None
    want = known.want
    scale = np.maximum(peaks_of(np.abs(finite(want)), yardstick), least)
    growth = np.where(counts(want, yardstick) < FEW, max(1.0, magnitude), 1.0)
    noise = yardstick.noise * np.maximum(scale, least * growth)
    rtol = USUAL.get(want.dtype.name, USUAL["float32"]).rtol
    return np.maximum((FACTOR - 1) * noise, (1 - 1 / FACTOR) * rtol * scale), noise
