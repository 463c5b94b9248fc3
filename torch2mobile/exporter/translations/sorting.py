"""Sorting and what is picked by order; of equal elements the first comes first, as TopK has it."""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import REALS, Row
from torch2mobile.exporter.translations.values import constant, like, op, size_of

_SORTED = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.INT32, ir.DataType.INT64}
"""What ONNX Runtime's TopK takes."""
_COUNT = ir.DataType.INT32


def sort_stable(
    x: Any,
    *,
    stable: Any = None,  # noqa: ARG001 (it always is)
    dim: int = -1,
    descending: bool = False,
) -> Any:
    """Values and places in order; equal elements keep theirs, whatever is asked for."""
    if not x.shape:
        return op.Identity(x), constant(0)
    return _top(x, dim, size_of(x, dim), largest=descending)


def _top(x: Any, dim: int, count: Any, *, largest: bool) -> Any:
    """The first elements in order, in their own dtype, with their places."""
    wide = x.dtype in _SORTED
    kept = x if wide else op.Cast(x, to=_wider(x.dtype))
    values, places = op.TopK(kept, count, axis=dim, largest=int(largest), sorted=1)
    return (values if wide else op.Cast(values, to=x.dtype)), places


def _wider(dtype: ir.DataType) -> ir.DataType:
    return ir.DataType.FLOAT if dtype.is_floating_point() else ir.DataType.INT32


def kthvalue(x: Any, k: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element, and its place."""
    if not x.shape:
        return op.Identity(x), constant(0)
    count = constant([k]) if isinstance(k, int) else op.Reshape(k, constant([1]))
    return _last(_top(x, dim, count, largest=False), x, dim, keepdim)


def _last(pair: Any, x: Any, dim: int, keepdim: bool) -> Any:
    """The last value and place along the axis."""
    at, end = constant([dim % len(x.shape)]), constant([2**62])
    found = [op.Slice(each, constant([-1]), end, at) for each in pair]
    return tuple(found if keepdim else (op.Squeeze(each, at) for each in found))


def median_dim(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The lower of the two middle elements, and its place; NaN where there is one."""
    if not x.shape:
        return op.Identity(x), constant(0)
    half = op.Div(op.Add(size_of(x, dim), constant([1])), constant([2]))
    values, places = _last(_top(x, dim, half, largest=False), x, dim, keepdim)
    if not x.dtype.is_floating_point():
        return values, places
    missing = op.Cast(op.IsNaN(x), to=ir.DataType.INT32)
    at = constant([dim % len(x.shape)])
    some = op.Greater(op.ReduceMax(missing, at, keepdims=int(keepdim)), constant(0, _COUNT))
    first = op.ArgMax(missing, axis=dim, keepdims=int(keepdim))
    return op.Where(some, like(math.nan, x), values), op.Where(some, first, places)


def nanmedian_dim(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """As :func:`median_dim`, of the numbers alone; NaN where there are none."""
    if not x.dtype.is_floating_point() or not x.shape:
        return median_dim(x, dim, keepdim)
    at = constant([dim % len(x.shape)])
    missing = op.IsNaN(x)
    filled = op.Where(missing, like(math.inf, x), x)
    count = op.ReduceSum(op.Cast(op.Not(missing), to=ir.DataType.INT64), at, keepdims=1)
    half = op.Div(op.Sub(count, constant(1)), constant(2))  # towards 0: 0 for none, too
    ordered = op.TopK(op.Cast(filled, to=ir.DataType.DOUBLE), size_of(x, dim), axis=dim, largest=0)
    values, places = (op.GatherElements(each, half, axis=dim) for each in ordered)
    nothing = op.Equal(count, constant(0))
    values = op.Where(nothing, like(math.nan, x), op.Cast(values, to=x.dtype))
    return tuple(each if keepdim else op.Squeeze(each, at) for each in (values, places))


def median(x: Any) -> Any:
    """The lower of the two middle elements of all."""
    return _of_all(x, median_dim)


def nanmedian(x: Any) -> Any:
    """As :func:`median`, of the numbers alone."""
    return _of_all(x, nanmedian_dim)


def _of_all(x: Any, function: Any) -> Any:
    flat = op.Reshape(x, constant([-1]))
    flat.dtype, flat.shape = x.dtype, ir.Shape([None])
    return function(flat, 0)[0]


def mode(x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element, of these the smallest, and its last place.

    Each element is compared with each.
    """
    if not x.shape:
        return op.Identity(x), constant(0)
    rank = len(x.shape)
    at = constant([dim % rank])
    wide = x if x.dtype in _SORTED else op.Cast(x, to=_wider(x.dtype))
    last = op.Transpose(wide, perm=[*(n for n in range(rank) if n != dim % rank), dim % rank])
    pairs = op.Equal(op.Unsqueeze(last, constant([-1])), op.Unsqueeze(last, constant([-2])))
    counts = op.ReduceSum(op.Cast(pairs, to=ir.DataType.INT64), constant([-1]), keepdims=0)
    most = op.Equal(counts, op.ReduceMax(counts, constant([-1]), keepdims=1))
    order = op.TopK(last, size_of(x, dim), largest=0)
    # In order of value, the first of the most frequent.
    frequent = op.GatherElements(op.Cast(most, to=_COUNT), order[1], axis=-1)
    first = op.ArgMax(frequent, axis=-1, keepdims=1)
    value = op.GatherElements(order[0], first, axis=-1)
    place = op.ArgMax(
        op.Cast(op.Equal(last, value), to=_COUNT), axis=-1, keepdims=1, select_last_index=1
    )
    found = [op.Squeeze(each, constant([-1])) for each in (value, place)]
    if keepdim:
        found = [op.Unsqueeze(each, at) for each in found]
    return (found[0] if wide is x else op.Cast(found[0], to=x.dtype)), found[1]


_NONE = "no translation"

ROWS = (
    Row("sort (stable)", ("aten::sort.stable",), sort_stable, "missing", _NONE, (*REALS, "bool")),
    Row("kthvalue", ("aten::kthvalue",), kthvalue, "missing", _NONE, REALS),
    Row("median", ("aten::median",), median, "missing", _NONE, REALS),
    Row("median (dim)", ("aten::median.dim",), median_dim, "missing", _NONE, REALS),
    Row("nanmedian", ("aten::nanmedian",), nanmedian, "missing", _NONE, REALS),
    Row("nanmedian (dim)", ("aten::nanmedian.dim",), nanmedian_dim, "missing", _NONE, REALS),
    Row("mode", ("aten::mode",), mode, "missing", _NONE, REALS),
)
