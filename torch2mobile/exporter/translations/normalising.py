"""Batch norm by the batch's own mean and variance."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, like, op


def batch_norm_without_statistics(
    x: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,  # noqa: ARG001
    eps: float,
) -> Any:
    """The normalised ``x``, and the mean and 1 / deviation that it was normalised by."""
    return _normalised(x, weight, bias, eps)[:3] if training else NotImplemented


def batch_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> Any:
    """As :func:`batch_norm_without_statistics`, with the statistics that are kept after it."""
    if not training:
        return NotImplemented
    found, mean, deviation, variance = _normalised(x, weight, bias, eps)
    dtype = _wide(x)
    each = op.Div(op.Size(x), op.Squeeze(op.Shape(x, start=1, end=2)))
    count = op.Cast(each, to=dtype)
    unbiased = op.Div(op.Mul(variance, count), op.Sub(count, constant(1.0, dtype)))
    kept = [
        op.Add(
            op.Mul(old, like(1 - momentum, old)),
            op.Cast(op.Mul(new, constant(momentum, dtype)), to=old.dtype),
        )
        for old, new in ((running_mean, mean), (running_var, unbiased))
    ]
    return (found, mean, deviation, *kept)


def _wide(x: Any) -> ir.DataType:
    return ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT


def _normalised(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, ...]:
    """``x``, and the mean, 1 / deviation and variance of each channel."""
    rank, dtype = len(x.shape), _wide(x)
    axes = constant([axis for axis in range(rank) if axis != 1])
    wide = op.Cast(x, to=dtype)
    mean = op.ReduceMean(wide, axes, keepdims=1)
    apart = op.Sub(wide, mean)
    variance = op.ReduceMean(op.Mul(apart, apart), axes, keepdims=1)
    deviation = op.Reciprocal(op.Sqrt(op.Add(variance, constant(eps, dtype))))
    found = op.Mul(apart, deviation)
    shape = constant([1, -1, *([1] * (rank - 2))])
    if weight is not None:
        found = op.Mul(found, op.Reshape(op.Cast(weight, to=dtype), shape))
    if bias is not None:
        found = op.Add(found, op.Reshape(op.Cast(bias, to=dtype), shape))
    flat = [op.Squeeze(value, axes) for value in (mean, deviation, variance)]
    return (op.Cast(found, to=x.dtype), *flat)


_WHAT = "takes the kept statistics in training too"

ROWS = (
    Row(
        "batch_norm (training)",
        ("aten::_native_batch_norm_legit_functional",),
        batch_norm,
        "wrong",
        _WHAT,
    ),
    Row(
        "batch_norm (no statistics)",
        ("aten::_native_batch_norm_legit.no_stats",),
        batch_norm_without_statistics,
        "wrong",
        _WHAT,
    ),
)
