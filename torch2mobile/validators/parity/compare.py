"""Two sets of outputs, compared: structure first, then special values, then numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from torch2mobile.records import Mismatch
from torch2mobile.validators.parity.tolerance import Limit, is_float, wide

Outputs = Sequence[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Judged:
    """One output on one probe: the artefact's error and what was allowed."""

    output: str
    probe: str
    error: float
    allowed: float
    floor: float
    rule: str
    mismatch: Mismatch | None = None


def structure(expected: Outputs, actual: Outputs, probe: str) -> list[Mismatch]:
    """Number, names, order, dtypes and shapes, exactly; nothing is compared if these differ."""
    names, found = [name for name, _ in expected], [name for name, _ in actual]
    if names != found:
        kind = "number" if len(names) != len(found) else "names or order"
        problem = (
            f"{kind} of outputs: expected {', '.join(names)}; got {', '.join(found) or 'none'}"
        )
        return [Mismatch(output="", probe=probe, problem=problem)]
    result = []
    for (name, want), (_, got) in zip(expected, actual, strict=True):
        if want.dtype != got.dtype:
            problem = f"dtype: expected {want.dtype}, got {got.dtype}"
            result.append(Mismatch(output=name, probe=probe, problem=problem))
        elif want.shape != got.shape:
            problem = f"shape: expected {list(want.shape)}, got {list(got.shape)}"
            result.append(Mismatch(output=name, probe=probe, problem=problem))
    return result


def _at(array: np.ndarray, flat_index: int) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat_index, array.shape))


def _mismatch(
    name: str, probe: str, problem: str, where: int, want: np.ndarray, got: np.ndarray
) -> Mismatch:
    index = _at(want, where)
    return Mismatch(
        output=name,
        probe=probe,
        problem=problem,
        index=index,
        expected=str(want[index]),
        actual=str(got[index]),
    )


def special_values(name: str, probe: str, want: np.ndarray, got: np.ndarray) -> Mismatch | None:
    """NaN and infinities must stand in the same places on both sides."""
    for label, test in (
        ("NaN", np.isnan),
        ("+inf", np.isposinf),
        ("-inf", np.isneginf),
    ):
        differ = test(wide(want)) != test(wide(got))
        if differ.any():
            where = int(np.argmax(differ))
            problem = f"{label} on one side only, at {int(differ.sum())} of {want.size} values"
            return _mismatch(name, probe, problem, where, want, got)
    return None


def _least_tolerance(want: np.ndarray, got: np.ndarray) -> tuple[float, float | None]:
    """The least atol (with rtol 0) and the least rtol (with atol 0) that would have passed.

    No rtol passes where a 0 is wanted.
    """
    expected, actual = wide(want), wide(got)
    wrong = np.isfinite(expected) & np.isfinite(actual) & (expected != actual)
    if not wrong.any():
        return 0.0, 0.0
    with np.errstate(over="ignore"):
        error, size = np.abs(expected[wrong] - actual[wrong]), np.abs(expected[wrong])
        least_atol = float(error.max())
        if not size.all():
            return least_atol, None
        rtol = (error / size).max()
        while (rtol * size < error).any():
            rtol = np.nextafter(rtol, np.inf)
    return least_atol, float(rtol) if np.isfinite(rtol) else None


def judge(name: str, probe: str, want: np.ndarray, got: np.ndarray, limit: Limit) -> Judged:
    """One output of one probe within its limit; structure must have been checked before.

    Integers and booleans must be equal.
    """
    if not is_float(want):
        return _judge_exact(name, probe, want, got)
    special = special_values(name, probe, want, got)
    if special is not None:
        return Judged(name, probe, float("inf"), 0.0, 0.0, "special values", special)
    if not want.size:
        return Judged(name, probe, 0.0, 0.0, 0.0, limit.rule)
    finite = np.isfinite(wide(got)) & np.isfinite(wide(want))
    error = np.zeros(want.shape)
    with np.errstate(over="ignore"):
        np.subtract(wide(got), limit.base, out=error, where=finite)
    share = _share(np.abs(error, out=error), limit.allowed)
    worst = int(np.argmax(share))
    at = _at(want, worst)
    peak, allowed = float(error[at]), float(limit.allowed[at])
    mismatch = None
    if share[at] > 1:
        bad = int((share > 1).sum())
        problem = f"differs by {peak:.3g} where {allowed:.3g} is allowed, at {bad} of {want.size}"
        least_atol, least_rtol = _least_tolerance(want, got)
        mismatch = replace(
            _mismatch(name, probe, problem, worst, want, got),
            allowed=allowed,
            least_atol=least_atol,
            least_rtol=least_rtol,
        )
    return Judged(name, probe, peak, allowed, float(limit.floor[at]), limit.rule, mismatch)


def _share(error: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The error as a share of what is allowed: above 1 exactly where it is greater."""
    share = np.where(error > 0, np.inf, 0.0)
    with np.errstate(over="ignore"):
        np.divide(error, allowed, out=share, where=allowed > 0)
    return np.where(error <= allowed, np.minimum(share, 1.0), np.maximum(share, np.nextafter(1, 2)))


def _judge_exact(name: str, probe: str, want: np.ndarray, got: np.ndarray) -> Judged:
    differ = want != got
    if not differ.any():
        return Judged(name, probe, 0.0, 0.0, 0.0, "exact")
    where = int(np.argmax(differ))
    problem = f"{int(differ.sum())} of {want.size} values are not equal"
    found = _mismatch(name, probe, problem, where, want, got)
    return Judged(name, probe, float("inf"), 0.0, 0.0, "exact", found)
