"""A mutant's answers, judged as the file's are, and how far they lie from the file's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from torch2mobile.errors import Torch2MobileError
from torch2mobile.records import Mismatch, ParityOptions, Status
from torch2mobile.validators.parity import baked, channels, compare, gate, tolerance
from torch2mobile.validators.parity.expected import Expected, typical_of


class Judge:
    """The gate, as it judges the artefact, and a mutant's effect in units of the noise."""

    def __init__(self, expected: Sequence[Expected], options: ParityOptions) -> None:
        self.expected, self._options = expected, options
        self._usual = typical_of(expected)

    def mismatches(self, case: Expected, answer: Any) -> list[Mismatch]:
        """What the gate has against an answer."""
        return gate.judge_probe(case, answer, self._usual, self._options.tolerances)[1]

    def problem(self, case: Expected, answer: Any) -> str:
        """The first thing that the gate has against an answer, or nothing."""
        wrong = self.mismatches(case, answer)
        return wrong[0].problem if wrong else ""

    def baked(self, answers: Sequence[Any]) -> bool:
        """Whether the answers to all probes show a baked input."""
        found = baked.baked_check("", self.expected, list(answers))
        return found.status is Status.FAILED

    def effect(self, case: Expected, before: Any, after: Any) -> float:
        """How far two answers lie apart, in units of one float32 noise; inf for other structure."""
        if isinstance(before, Torch2MobileError) or isinstance(after, Torch2MobileError):
            return 0.0 if type(before) is type(after) else float("inf")
        if compare.structure(before, after, ""):
            return float("inf")
        limits = gate.limits_of(case, self._usual, {})
        greatest = 0.0
        for (_, a), (_, b), (_, want), limit in zip(
            before, after, case.outputs, limits, strict=True
        ):
            greatest = max(greatest, _apart(a, b, one_noise(want, limit)))
        return greatest


def one_noise(want: np.ndarray, limit: tolerance.Limit) -> np.ndarray:
    """One float32 noise at each value: the tenth of what a rule allows that measures it.

    Where none was measured, one rounding unit of the output's scale.
    """
    if limit.rule in {"measured", "compensated"}:
        return limit.allowed / tolerance.FACTOR
    if not channels.is_float(want):
        return np.zeros(want.shape)
    size = np.abs(channels.wide(want))
    scale = size[np.isfinite(size)].max(initial=0.0)
    unit = tolerance.epsilon(want) * scale
    return np.asarray(np.maximum(0.0 if limit.floor is None else limit.floor, unit))


def _apart(before: np.ndarray, after: np.ndarray, noise: np.ndarray) -> float:
    a, b = (array.astype(np.float64) for array in (before, after))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        shares = np.where(same, 0.0, np.abs(a - b) / noise)
    return float(np.where(np.isnan(shares), np.inf, shares).max())


def relative_difference(before: Any, after: Any) -> float:
    """The greatest difference as a share of the scale; 1 for what no tolerance lets pass."""
    if isinstance(before, Torch2MobileError):
        return 0.0  # an input that the file itself does not take shows nothing
    if isinstance(after, Torch2MobileError) or compare.structure(before, after, ""):
        return 1.0
    greatest = 0.0
    for (_, a), (_, b) in zip(before, after, strict=True):
        x, y = (array.astype(np.float64) for array in (a, b))
        special = ~(np.isfinite(x) & np.isfinite(y))
        if not channels.is_float(a) or special.any():
            greatest = max(greatest, float(not np.array_equal(x, y, equal_nan=True)))
        elif x.size:
            scale = float(np.abs(x).max())
            greatest = max(greatest, float(np.abs(x - y).max()) / (scale or 1.0))
    return greatest
