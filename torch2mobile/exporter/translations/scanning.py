"""Scans along an axis: each result is of all elements up to its place.

Made by doubling: what each place knows is joined with what the place 1, 2, 4, … before it knows.
These steps are in the file where the size is fixed; where it varies, a Loop takes as many as it
needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import FLOATS, REALS, Row
from torch2mobile.exporter.translations.values import constant, like, op, size_of

Join = Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]]
"""What is known of two neighbouring stretches, of what is known of each, the earlier one first."""


def cummax(x: Any, dim: int) -> Any:
    """The greatest element so far, and its last place; NaN stays."""
    return _extreme(x, dim, op.GreaterOrEqual)


def cummin(x: Any, dim: int) -> Any:
    """The smallest element so far, and its last place; NaN stays."""
    return _extreme(x, dim, op.LessOrEqual)


def _extreme(x: Any, dim: int, compare: Any) -> Any:
    if not x.shape:
        return op.Identity(x), constant(0)

    def join(earlier: Sequence[Any], later: Sequence[Any]) -> Sequence[Any]:
        takes = compare(later[0], earlier[0])
        if x.dtype.is_floating_point():
            takes = op.Or(op.IsNaN(later[0]), takes)
        return [op.Where(takes, b, a) for a, b in zip(earlier, later, strict=True)]

    dtype = x.dtype if x.dtype.is_floating_point() else ir.DataType.INT64
    wide = x if dtype == x.dtype else op.Cast(x, to=dtype)
    state = [(wide, dtype), (_places(x, dim), ir.DataType.INT64)]
    values, places = _scan(state, x, dim, join)
    return (values if wide is x else op.Cast(values, to=x.dtype)), places


def _places(x: Any, dim: int) -> Any:
    """For each element its place along the axis."""
    rank = len(x.shape)
    count = op.Range(constant(0), op.Squeeze(size_of(x, dim)), constant(1))
    shape = [1] * rank
    shape[dim] = -1
    return op.Expand(op.Reshape(count, constant(shape)), op.Shape(x))


def cumprod(x: Any, dim: int, dtype: Any = None) -> Any:
    """The product so far."""
    if dtype not in {None, -1, x.dtype}:
        return NotImplemented
    if not x.shape:
        return op.Identity(x)
    small = x.dtype in {ir.DataType.INT8, ir.DataType.INT16, ir.DataType.INT32, ir.DataType.UINT8}
    wide = op.Cast(x, to=ir.DataType.INT64) if small else x
    dtype = ir.DataType.INT64 if small else x.dtype
    (found,) = _scan([(wide, dtype)], x, dim, lambda a, b: [op.Mul(a[0], b[0])])
    return found


def logcumsumexp(x: Any, dim: int) -> Any:
    """``log(sum(exp(x)))`` so far, of the greatest element and the distances from it."""
    if not x.shape:
        return op.Identity(x)
    one = like(1.0, x)

    def join(earlier: Sequence[Any], later: Sequence[Any]) -> Sequence[Any]:
        (m, s), (n, t) = earlier, later
        most = op.Where(op.Greater(m, n), m, n)
        # Of equal infinities the distance is 0, not NaN.
        shares = [
            op.Mul(s, op.Where(op.Equal(m, most), one, op.Exp(op.Sub(m, most)))),
            op.Mul(t, op.Where(op.Equal(n, most), one, op.Exp(op.Sub(n, most)))),
        ]
        return [most, op.Add(*shares)]

    ones = op.Expand(one, op.Shape(x))
    most, total = _scan([(x, x.dtype), (ones, x.dtype)], x, dim, join)
    return op.Add(most, op.Log(total))


def _scan(state: Sequence[tuple[Any, ir.DataType]], x: Any, dim: int, join: Join) -> Sequence[Any]:
    """Each tensor of the shape of ``x``, given with its dtype, scanned along ``dim`` together."""
    axis, size = dim % len(x.shape), x.shape[dim]
    if not isinstance(size, int):
        return _loop(state, size_of(x, axis), axis, join)
    tensors: Sequence[Any] = [tensor for tensor, _ in state]
    step = 1
    while step < size:
        tensors = _joined(tensors, axis, constant([step]), join)
        step *= 2
    return tensors


def _joined(tensors: Sequence[Any], axis: int, step: Any, join: Join) -> Sequence[Any]:
    """One doubling; ``step`` is at most the size."""
    at, zero, end = constant([axis]), constant([0]), constant([2**62])
    kept = [op.Slice(each, zero, step, at) for each in tensors]
    later = [op.Slice(each, step, end, at) for each in tensors]
    earlier = [op.Slice(each, zero, op.Neg(step), at) for each in tensors]
    pairs = zip(kept, join(earlier, later), strict=True)
    return [op.Concat(before, after, axis=axis) for before, after in pairs]


def _loop(
    state: Sequence[tuple[Any, ir.DataType]], size: Any, axis: int, join: Join
) -> Sequence[Any]:
    from onnxscript import evaluator

    recorder: Any = evaluator.default()
    types = [ir.DataType.INT64, *(dtype for _, dtype in state)]
    trip, more = _value("trip", ir.DataType.INT64), _value("more", ir.DataType.BOOL)
    step, *now = (_value(f"state_{n}", dtype, None) for n, dtype in enumerate(types))
    body = type(recorder)(recorder.opset, {})
    with evaluator.default_as(body):
        found = _joined(now, axis, step, join)
        doubled = op.Add(step, step)
        outputs = [op.Squeeze(op.Less(doubled, size)), doubled, *found]
    outputs[0].shape = ir.Shape([])
    for value, dtype in zip(outputs, [ir.DataType.BOOL, *types], strict=True):
        value.dtype = dtype
    graph = ir.Graph([trip, more, step, *now], outputs, nodes=body.nodes, name="scan")
    first = op.Squeeze(op.Less(constant([1]), size))
    inputs = [None, first, constant([1]), *(tensor for tensor, _ in state)]
    node = ir.Node("", "Loop", inputs, [ir.AttrGraph("body", graph)], num_outputs=len(types))
    recorder.nodes.append(node)
    return node.outputs[1:]


def _value(name: str, dtype: ir.DataType, shape: ir.Shape | None = ir.Shape([])) -> ir.Value:  # noqa: B008
    """A value that the body of a Loop is given."""
    value = ir.Value(name=f"scan_{name}", shape=shape)
    value.dtype = dtype
    return value


_NONE = "no translation"

ROWS = (
    Row("cummax", ("aten::cummax",), cummax, "missing", _NONE, REALS),
    Row("cummin", ("aten::cummin",), cummin, "missing", _NONE, REALS),
    Row("cumprod", ("aten::cumprod",), cumprod, "missing", _NONE, REALS),
    Row(
        "logcumsumexp",
        ("aten::logcumsumexp",),
        logcumsumexp,
        "wrong",
        "gives -inf before the greatest element, and NaN with infinities",
        FLOATS,
    ),
)
