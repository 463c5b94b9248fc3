"""Elements by their places: those of a scalar, and places that are moved on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import REALS, Row
from torch2mobile.exporter.translations.values import constant, is_static, op, size_of


def nonzero(x: Any) -> Any:
    """One row for a scalar that is not 0, without columns."""
    if x.shape:
        return NotImplemented
    found = op.Transpose(op.NonZero(op.Reshape(x, constant([-1]))), perm=[1, 0])
    return op.Slice(found, constant([0]), constant([0]), constant([1]))


def roll(x: Any, shifts: Any, dims: Sequence[int] = ()) -> Any:
    """The elements moved on along axes by numbers that vary, and in again at the other end."""
    if is_static(*shifts) or not dims:
        return NotImplemented
    found = x
    for shift, dim in zip(shifts, dims, strict=True):
        size = op.Squeeze(size_of(x, dim))
        by = (
            constant(shift)
            if is_static(shift)
            else op.Reshape(shift, constant([], ir.DataType.INT64))
        )
        number = op.Range(constant(0), size, constant(1))
        found = op.Gather(found, op.Mod(op.Sub(number, by), size), axis=dim)
    return found


def index_put(x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Any:
    """As the exporter has it, by places in int64, which ONNX takes alone."""
    short = ir.DataType.INT32
    if not any(index is not None and index.dtype == short for index in indices):
        return NotImplemented
    from onnxscript.function_libs.torch_lib.ops.core import aten_index_put

    wide = []
    for index in indices:
        if index is None or index.dtype != short:
            wide.append(index)
            continue
        places = op.Cast(index, to=ir.DataType.INT64)
        # The exporter asks for both, and they come only once all is translated.
        places.shape, places.dtype = index.shape, ir.DataType.INT64
        wide.append(places)
    return aten_index_put(x, wide, values, accumulate)


ROWS = (
    Row(
        "nonzero (scalar)",
        ("aten::nonzero",),
        nonzero,
        "wrong",
        "has a column for a scalar, which has no axis",
        (*REALS, "bool"),
    ),
    Row(
        "index_put (int32)",
        ("aten::index_put", "aten::_unsafe_index_put"),
        index_put,
        "wrong",
        "writes a file that does not load, as in istft",
        (*REALS, "bool"),
    ),
    Row(
        "roll (varying)",
        ("aten::roll",),
        roll,
        "missing",
        "no translation by a size that varies",
        (*REALS, "bool"),
    ),
)
