"""Distances of each vector to each, by their differences."""

from __future__ import annotations

import math
from typing import Any

from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, like, op


def cdist(x: Any, other: Any, p: float, compute_mode: Any = None) -> Any:  # noqa: ARG001
    """The p-norm of the differences of all pairs of rows, for any p from 0 to infinity."""
    apart = op.Abs(op.Sub(op.Unsqueeze(x, constant([-2])), op.Unsqueeze(other, constant([-3]))))
    at = constant([-1])
    if p == 0:
        some = op.Not(op.Equal(apart, like(0.0, x)))
        return op.ReduceSum(op.CastLike(some, x), at, keepdims=0)
    if p == 1:
        return op.ReduceSum(apart, at, keepdims=0)
    if math.isinf(p):
        return op.ReduceMax(apart, at, keepdims=0)
    if p == 2:
        return op.Sqrt(op.ReduceSum(op.Mul(apart, apart), at, keepdims=0))
    total = op.ReduceSum(op.Pow(apart, like(p, x)), at, keepdims=0)
    return op.Pow(total, like(1 / p, x))


ROWS = (Row("cdist", ("aten::_cdist_forward",), cdist, "missing", "no translation"),)
