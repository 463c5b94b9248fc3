"""The mean of what is scattered to each place."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, op


def scatter_reduce(
    x: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """``x`` with the mean of ``src`` at the places of ``index``, and of itself if included."""
    if reduce != "mean" or not x.shape or src.dtype != x.dtype:
        return NotImplemented
    rank = len(x.shape)
    # ONNX Runtime adds no float16 so.
    dtype = ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    zero, one = constant(0.0, dtype), constant(1.0, dtype)
    # What of src is beyond the index is not used.
    used = op.Slice(
        op.Cast(src, to=dtype), constant([0] * rank), op.Shape(index), constant(list(range(rank)))
    )
    ones, sums = op.Expand(one, op.Shape(x)), op.Cast(x, to=dtype)
    if not include_self:
        nothing = op.Expand(zero, op.Shape(index))
        ones, sums = (op.ScatterElements(t, index, nothing, axis=dim) for t in (ones, sums))
    single = op.Expand(one, op.Shape(index))
    counts = op.ScatterElements(ones, index, single, axis=dim, reduction="add")
    sums = op.ScatterElements(sums, index, used, axis=dim, reduction="add")
    return op.Cast(op.Div(sums, counts), to=x.dtype)


ROWS = (
    Row(
        "scatter_reduce (mean)",
        ("aten::scatter_reduce.two",),
        scatter_reduce,
        "wrong",
        "the last element is written in place of the mean",
    ),
)
