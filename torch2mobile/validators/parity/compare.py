"""Two sets of outputs, compared: structure first, then special values, then numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile.records import Mismatch
from torch2mobile.validators.parity.channels import is_float, wide
from torch2mobile.validators.parity.tolerance import Limit

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs


@dataclass(frozen=True)
class Judged:
    """One output on one probe: the artefact's error and what was allowed.

    ``floor`` is the module's own noise, None where it was not measured. ``least_atol`` (with rtol
    0) and ``least_rtol`` (with atol 0) are the least tolerances of a user's that let it pass, None
    where none does. ``scale`` is the greatest value that is wanted there. What is ``left_open`` was
    not compared: all of it follows the order of equal values.
    """

    output: str
    probe: str
    error: float
    allowed: float
    floor: float | None
    rule: str
    mismatch: Mismatch | None = None
    least_atol: float | None = None
    least_rtol: float | None = None
    scale: float = 0.0
    left_open: bool = False


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


def same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    """Whether all values are equal, NaN included."""
    return len(first) == len(second) and all(
        a.shape == b.shape and np.array_equal(a, b, equal_nan=is_float(a))
        for a, b in zip(first, second, strict=True)
    )


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


def _least_tolerance(expected: np.ndarray, error: np.ndarray) -> tuple[float, float | None]:
    """The least atol (with rtol 0) and the least rtol (with atol 0) that would have passed.

    No rtol passes where a 0 is wanted.
    """
    wrong = error > 0
    if not wrong.any():
        return 0.0, 0.0
    error, size = error[wrong], np.abs(expected[wrong])
    least_atol = float(error.max())
    with np.errstate(over="ignore", divide="ignore"):
        rtol = (error / size).max()
        if not np.isfinite(rtol):
            return least_atol, None
        # The quotient is rounded, and so is the product that it will be used in.
        while (np.nextafter(rtol, 0.0) * size >= error).all():
            rtol = np.nextafter(rtol, 0.0)
        while (rtol * size < error).any():
            rtol = np.nextafter(rtol, np.inf)
    return least_atol, float(rtol)


def judge(name: str, probe: str, want: np.ndarray, got: np.ndarray, limit: Limit) -> Judged:
    """One output of one probe within its limit; structure must have been checked before.

    Integers and booleans must be equal.
    """
    if not is_float(want):
        return _judge_exact(name, probe, want, got)
    special = special_values(name, probe, want, got)
    if special is not None:
        return Judged(name, probe, float("inf"), 0.0, None, "special values", special)
    if not want.size:
        return Judged(name, probe, 0.0, 0.0, None, limit.rule, least_atol=0.0, least_rtol=0.0)
    expected, actual = wide(want), wide(got)
    finite = np.isfinite(actual) & np.isfinite(expected)
    error = _error(actual, limit.base, finite)
    share = _share(error, limit.allowed)
    # Of values as close to what is allowed, as where anything is, the one that is furthest off.
    worst = int(np.argmax(np.where(share == share.max(), error, -1.0)))
    at = _at(want, worst)
    own = error if limit.base is expected else _error(actual, expected, finite)
    judged = Judged(
        name,
        probe,
        float(error[at]),
        float(limit.allowed[at]),
        None if limit.floor is None else float(limit.floor[at]),
        limit.rule,
        None,
        *_least_tolerance(expected, own),
        scale=float(np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))),
    )
    if share[at] <= 1:
        return judged
    # The values shown beside it, and the least tolerances, are about the module's own output.
    own_output = np.array_equal(limit.base, expected, equal_nan=True)
    problem = _off(judged, own_output, int((share > 1).sum()), want.size)
    mismatch = replace(
        _mismatch(name, probe, problem, worst, want, got),
        allowed=judged.allowed,
        least_atol=judged.least_atol,
        least_rtol=judged.least_rtol,
    )
    return replace(judged, mismatch=mismatch)


def _off(judged: Judged, own_output: bool, bad: int, size: int) -> str:
    """How far it is off what, and at how many values."""
    truth = "compensated" if judged.rule == "compensated" else "float64"
    return (
        f"{'differs' if own_output else f'is off the {truth} truth'} by {judged.error:.3g} "
        f"where {judged.allowed:.3g} is allowed, at {bad} of {size}"
    )


def _error(actual: np.ndarray, base: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """How far a value is off, 0 where either side is not finite."""
    error = np.zeros(actual.shape)
    with np.errstate(over="ignore"):
        np.subtract(actual, base, out=error, where=finite)
    return np.abs(error, out=error)


def distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How far two arrays of one shape are apart at each value, 0 where either is not finite."""
    one, other = wide(first), wide(second)
    return _error(one, other, np.isfinite(one) & np.isfinite(other))


def _share(error: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    """The error as a share of what is allowed: above 1 exactly where it is greater."""
    share = np.where(error > 0, np.inf, 0.0)
    with np.errstate(over="ignore"):
        np.divide(error, allowed, out=share, where=allowed > 0)
    return np.where(error <= allowed, np.minimum(share, 1.0), np.maximum(share, np.nextafter(1, 2)))


def _judge_exact(name: str, probe: str, want: np.ndarray, got: np.ndarray) -> Judged:
    differ = want != got
    if not differ.any():
        return Judged(name, probe, 0.0, 0.0, None, "exact", least_atol=0.0, least_rtol=0.0)
    where = int(np.argmax(differ))
    problem = f"{int(differ.sum())} of {want.size} values are not equal"
    found = _mismatch(name, probe, problem, where, want, got)
    return Judged(name, probe, float("inf"), 0.0, None, "exact", found)
