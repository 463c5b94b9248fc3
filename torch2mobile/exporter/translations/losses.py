"""Cross entropy as PyTorch has it: probabilities, weights, smoothing, ignored targets."""

from __future__ import annotations

from typing import Any

from torch2mobile.exporter.translations.row import FLOATS, Row
from torch2mobile.exporter.translations.values import constant, like, op, size_of


def cross_entropy(
    x: Any,
    target: Any,
    weight: Any = None,
    reduction: int = 1,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:
    """Of class indices or probabilities; the class axis is the second, or the only one."""
    axis = 1 if len(x.shape) > 1 else 0
    logs = op.LogSoftmax(x, axis=axis)
    if target.dtype.is_floating_point():
        return _of_probabilities(x, logs, target, weight, reduction, label_smoothing, axis)
    counted = op.Not(op.Equal(target, constant(ignore_index, target.dtype)))
    safe = op.Where(counted, target, constant(0, target.dtype))
    at = constant([axis])
    picked = op.Squeeze(op.GatherElements(logs, op.Unsqueeze(safe, at), axis=axis), at)
    share = like(1.0, x) if weight is None else op.Gather(weight, safe)
    share = op.Where(counted, share, like(0.0, x))
    # A loss that is not counted may be infinite.
    loss = op.Neg(op.Where(counted, op.Mul(picked, share), like(0.0, x)))
    if label_smoothing:
        spread = logs if weight is None else op.Mul(logs, _by_class(weight, x, axis))
        spread = op.Neg(op.ReduceSum(spread, at, keepdims=0))
        spread = op.Where(counted, spread, like(0.0, x))
        loss = _smoothed(loss, op.Div(spread, _classes(x, axis)), x, label_smoothing)
    if reduction == 0:
        return loss
    total = op.ReduceSum(loss, keepdims=0)
    return total if reduction == 2 else op.Div(total, op.ReduceSum(share, keepdims=0))


def _of_probabilities(
    x: Any, logs: Any, target: Any, weight: Any, reduction: int, smoothing: float, axis: int
) -> Any:
    if smoothing:
        even = op.Div(like(smoothing, x), _classes(x, axis))
        target = op.Add(op.Mul(target, like(1 - smoothing, x)), even)
    parts = op.Mul(logs, target)
    if weight is not None:
        parts = op.Mul(parts, _by_class(weight, x, axis))
    loss = op.Neg(op.ReduceSum(parts, constant([axis]), keepdims=0))
    if reduction == 0:
        return loss
    total = op.ReduceSum(loss, keepdims=0)
    if reduction == 2 or len(x.shape) == 1:
        return total
    return op.Div(total, op.Div(op.CastLike(op.Size(x), x), _classes(x, axis)))


def _smoothed(loss: Any, spread: Any, x: Any, smoothing: float) -> Any:
    return op.Add(op.Mul(loss, like(1 - smoothing, x)), op.Mul(spread, like(smoothing, x)))


def _classes(x: Any, axis: int) -> Any:
    return op.CastLike(op.Squeeze(size_of(x, axis)), x)


def _by_class(weight: Any, x: Any, axis: int) -> Any:
    shape = [1] * len(x.shape)
    shape[axis] = -1
    return op.Reshape(weight, constant(shape))


ROWS = (
    Row(
        "cross_entropy",
        ("aten::cross_entropy_loss",),
        cross_entropy,
        "wrong",
        "label smoothing is ignored, and probabilities are taken for classes",
        FLOATS,
    ),
)
