"""Where values stand in sorted ones, and whether they are among others: each compared with each."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import REALS, Refused, Row
from torch2mobile.exporter.translations.values import constant, op, tensor_of


def searchsorted(
    edges: Any,
    x: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """How many edges come before each value; before and at it on the right side.

    Raises Refused for edges that a ``sorter`` puts in order.
    """
    if sorter is not None:
        raise Refused("searchsorted with a sorter: sort the edges first")
    return _bucket(edges, tensor_of(x, edges), out_int32, right or side == "right", edges)


def bucketize(x: Any, edges: Any, *, out_int32: bool = False, right: bool = False) -> Any:
    """As :func:`searchsorted`, of edges in one dimension."""
    return _bucket(edges, tensor_of(x, edges), out_int32, right, edges)


def _bucket(edges: Any, x: Any, out_int32: bool, right: bool, typed: Any) -> Any:
    if isinstance(x, ir.Value) and x.dtype is not None and x.dtype != typed.dtype:
        return NotImplemented
    each, value = edges, op.Unsqueeze(x, constant([-1]))
    if len(edges.shape) > 1:
        each = op.Unsqueeze(edges, constant([-2]))
    # NaN is after all edges, as a comparison that does not hold.
    behind = op.Greater(each, value) if right else op.GreaterOrEqual(each, value)
    dtype = ir.DataType.INT32 if out_int32 else ir.DataType.INT64
    return op.ReduceSum(op.Cast(op.Not(behind), to=dtype), constant([-1]), keepdims=0)


def isin(
    elements: Any,
    tests: Any,
    *,
    assume_unique: bool = False,  # noqa: ARG001 (nothing is made unique)
    invert: bool = False,
) -> Any:
    """Whether each element is among the others."""
    typed = elements if isinstance(elements, ir.Value) else tests
    if not isinstance(typed, ir.Value):
        return NotImplemented
    elements, tests = tensor_of(elements, typed), tensor_of(tests, typed)
    if elements.dtype not in {None, typed.dtype} or tests.dtype not in {None, typed.dtype}:
        return NotImplemented
    pairs = op.Equal(op.Unsqueeze(elements, constant([-1])), op.Reshape(tests, constant([-1])))
    count = op.ReduceSum(op.Cast(pairs, to=ir.DataType.INT64), constant([-1]), keepdims=0)
    among = op.Greater(count, constant(0))
    return op.Not(among) if invert else among


_NONE = "no translation"
_SEARCHED = ("float16", "float32", "float64", "int32", "int64")

ROWS = (
    Row(
        "searchsorted",
        ("aten::searchsorted.Tensor", "aten::searchsorted.Scalar"),
        searchsorted,
        "missing",
        _NONE,
        _SEARCHED,
    ),
    Row("bucketize", ("aten::bucketize.Tensor",), bucketize, "missing", _NONE, _SEARCHED),
    Row(
        "isin",
        ("aten::isin.Tensor_Tensor", "aten::isin.Tensor_Scalar"),
        isin,
        "missing",
        _NONE,
        REALS,
    ),
)
