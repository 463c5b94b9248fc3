"""Greatest and smallest elements: NaN where there is one, which ONNX leaves open."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, like, op

_COUNT = ir.DataType.INT32


def amax(x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """The greatest element along axes, of all without any; NaN where there is one."""
    return _extreme(op.ReduceMax, x, dim, keepdim)


def amin(x: Any, dim: Sequence[int] = (), keepdim: bool = False) -> Any:
    """As :func:`amax`, the smallest."""
    return _extreme(op.ReduceMin, x, dim, keepdim)


def maximum_of_all(x: Any) -> Any:
    """As :func:`amax`, of all."""
    return amax(x)


def minimum_of_all(x: Any) -> Any:
    """As :func:`amin`, of all."""
    return amin(x)


def maximum_along(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The greatest element along an axis, and its first place."""
    return _with_place(op.ReduceMax, op.ArgMax, x, dim, keepdim)


def minimum_along(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The smallest element along an axis, and its first place."""
    return _with_place(op.ReduceMin, op.ArgMin, x, dim, keepdim)


def _extreme(reduce: Callable[..., Any], x: Any, dim: Sequence[int], keepdim: bool) -> Any:
    if not x.shape:
        return op.Identity(x)
    axes = (constant(list(dim)),) if len(dim) else ()
    found = reduce(x, *axes, keepdims=int(keepdim))
    if not x.dtype.is_floating_point():
        return found
    some = op.ReduceMax(op.Cast(op.IsNaN(x), to=_COUNT), *axes, keepdims=int(keepdim))
    return op.Where(op.Cast(some, to=ir.DataType.BOOL), like(math.nan, x), found)


def _with_place(
    reduce: Callable[..., Any], place: Callable[..., Any], x: Any, dim: int, keepdim: bool
) -> Any:
    if not x.shape:
        return op.Identity(x), constant(0)
    options = {"axis": dim, "keepdims": int(keepdim)}
    first = place(x, **options)
    if not x.dtype.is_floating_point():
        return _extreme(reduce, x, [dim], keepdim), first
    found = reduce(x, constant([dim]), keepdims=int(keepdim))
    missing = op.Cast(op.IsNaN(x), to=_COUNT)
    some = op.ReduceMax(missing, constant([dim]), keepdims=int(keepdim))
    some = op.Cast(some, to=ir.DataType.BOOL)
    values = op.Where(some, like(math.nan, x), found)
    return values, op.Where(some, op.ArgMax(missing, **options), first)


_WHAT = "a number where an element is NaN"
_DTYPES = ("float16", "float32", "float64", "int32", "int64")
_FLOATS = ("float32", "float64")

ROWS = (
    Row("amax", ("aten::amax",), amax, "wrong", _WHAT, _DTYPES),
    Row("amin", ("aten::amin",), amin, "wrong", _WHAT, _DTYPES),
    Row("max", ("aten::max",), maximum_of_all, "wrong", _WHAT, _FLOATS),
    Row("min", ("aten::min",), minimum_of_all, "wrong", _WHAT, _FLOATS),
    Row("max (dim)", ("aten::max.dim",), maximum_along, "wrong", _WHAT, _FLOATS),
    Row("min (dim)", ("aten::min.dim",), minimum_along, "wrong", _WHAT, _FLOATS),
)
