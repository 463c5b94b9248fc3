"""Values that are of a form as a whole, such as a mask of ones and then zeros."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from torch2mobile.records import Values

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Draw:
    """What a form is drawn from.

    ``level`` 0 asks for the least of it, 1 for the most. ``count`` is the size that lengths and
    offsets count.
    """

    values: Values
    shape: tuple[int, ...]
    level: int | None
    count: int
    rng: np.random.Generator

    def whole(self, shape: tuple[int, ...], low: int, high: int) -> Array:
        """Whole numbers of these ends, which are included, the greatest among them."""
        if self.level is not None:
            return np.full(shape, high if self.level else low, dtype=np.int64)
        drawn = self.rng.integers(low, high, size=shape, endpoint=True)
        if drawn.size > 1:
            drawn.flat[int(self.rng.integers(drawn.size))] = high
        return np.asarray(drawn)


def _padding(draw: _Draw) -> Array:
    size = draw.shape[-1]
    kept = draw.whole(draw.shape[:-1], 1, max(size, 1))
    mask = np.arange(size) < np.asarray(kept)[..., None]
    return np.asarray(mask[..., ::-1] if draw.values.side == "left" else mask)


def _causal(draw: _Draw) -> Array:
    rows, columns = draw.shape[-2:]
    mask = np.tri(rows, columns, max(columns - rows, 0), dtype=bool)
    return np.asarray(np.broadcast_to(mask, draw.shape))


def _one_hot(draw: _Draw) -> Array:
    size = draw.shape[-1]
    at = draw.whole(draw.shape[:-1], 0, max(size - 1, 0))
    return np.asarray(np.arange(size) == np.asarray(at)[..., None])


def _lengths(draw: _Draw) -> Array:
    return draw.whole(draw.shape, min(1, draw.count), draw.count)


def _offsets(draw: _Draw) -> Array:
    found = np.sort(draw.whole(draw.shape, 0, max(draw.count - 1, 0)), axis=-1)
    found[..., :1] = 0
    return found


def _choice(draw: _Draw) -> Array:
    numbers = sorted(draw.values.numbers)
    at = draw.whole(draw.shape, 0, len(numbers) - 1)
    return np.array(numbers)[at]


_FORMS: dict[str, Callable[[_Draw], Array]] = {
    "padding": _padding,
    "causal": _causal,
    "one-hot": _one_hot,
    "lengths": _lengths,
    "offsets": _offsets,
    "choice": _choice,
}
# The least, the most, or any of what a form can be.
_LEVELS = {"low": 0, "zeros": 0, "high": 1, "ones": 1}


def has_form(values: Values | None) -> bool:
    """Whether values are drawn as a whole, so that no single one can be changed."""
    return values is not None and values.kind in _FORMS


def level(kind: str) -> int | None:
    """0 or 1 where this kind of probe asks for the least or the most of a form."""
    return _LEVELS.get(kind)


def draw(
    values: Values, shape: tuple[int, ...], kind: str, count: int, rng: np.random.Generator
) -> Array:
    """An array of a form; true and false where it is a mask."""
    return _FORMS[values.kind](_Draw(values, shape, level(kind), count, rng))


def ends(values: Values) -> tuple[float, float]:
    """The least and greatest number in a form; infinite where a size without end is counted."""
    if values.kind == "choice":
        return min(values.numbers), max(values.numbers)
    if values.kind not in {"lengths", "offsets"}:
        return 0, 1
    top = values.of.ends[1] if values.of is not None else None
    high = float("inf") if top is None else top
    return (1, high) if values.kind == "lengths" else (0, max(high - 1, 0))
