"""Pooling to a given size, whatever the input's, and averages with a divisor of one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from torch2mobile.exporter.translations.row import FLOATS, Refused, Row
from torch2mobile.exporter.translations.values import constant, like, op, size_of


def adaptive_avg_pool(x: Any, output_size: Sequence[int]) -> Any:
    """The mean of each window along the last axes, one axis after the other."""
    _refuse_varying(output_size)
    rank, count = len(x.shape), len(output_size)
    wide = x if x.dtype == ir.DataType.DOUBLE else op.Cast(x, to=ir.DataType.FLOAT)
    dtype = ir.DataType.DOUBLE if x.dtype == ir.DataType.DOUBLE else ir.DataType.FLOAT
    for number, size in enumerate(output_size):
        axis = rank - count + number
        places, lengths = _windows(x, axis, size)
        after = [1] * (rank - axis - 1)
        inside = op.Less(
            _counted(op.Shape(places, start=1, end=2)), op.Unsqueeze(lengths, constant([1]))
        )
        inside = op.Reshape(
            inside, op.Concat(op.Shape(places), constant(after or [], _INT), axis=0)
        )
        kept = op.Where(inside, op.Gather(wide, places, axis=axis), constant(0.0, dtype))
        total = op.ReduceSum(kept, constant([axis + 1]), keepdims=0)
        divisor = op.Reshape(op.Cast(lengths, to=dtype), constant([size, *after]))
        wide = op.Div(total, divisor)
    return wide if dtype == x.dtype else op.Cast(wide, to=x.dtype)


_INT = ir.DataType.INT64


def adaptive_max_pool(x: Any, output_size: Sequence[int]) -> Any:
    """The greatest element of each window, and its place in the flattened plane or volume."""
    _refuse_varying(output_size)
    rank, count = len(x.shape), len(output_size)
    before = rank - count
    windows, grid = x, None
    for number in range(count):
        places, _ = _windows(x, before + number, output_size[number])
        windows = op.Gather(windows, places, axis=before + 2 * number)
        # As [1, …, size, step, …, 1]: one pair of axes for each axis of the input.
        others = [axis for axis in range(2 * count) if axis // 2 != number]
        places = op.Unsqueeze(places, constant(others))
        grid = places if grid is None else op.Add(op.Mul(grid, size_of(x, number - count)), places)
    order = [*range(0, 2 * count, 2), *range(1, 2 * count, 2)]
    perm = [*range(before), *(before + axis for axis in order)]
    flat = op.Concat(op.Shape(x, start=0, end=before), constant([*output_size, -1]), axis=0)
    windows = op.Reshape(op.Transpose(windows, perm=perm), flat)
    grid = op.Reshape(op.Transpose(grid, perm=order), constant([*output_size, -1]))
    first = op.ArgMax(windows, axis=-1, keepdims=1)
    places = op.GatherElements(op.Expand(grid, op.Shape(windows)), first, axis=-1)
    values = op.GatherElements(windows, first, axis=-1)
    return tuple(op.Squeeze(each, constant([-1])) for each in (values, places))


def _refuse_varying(output_size: Sequence[Any]) -> None:
    if not all(isinstance(size, int) for size in output_size):
        raise Refused("adaptive pooling to a size that varies: fix the output size")


def _windows(x: Any, axis: int, size: int) -> tuple[Any, Any]:
    """By window, the places in it along an axis, the last one repeated, and how many there are."""
    length = x.shape[axis]
    number = np.arange(size)
    if isinstance(length, int):
        start, end = number * length // size, -(-(number + 1) * length // size)
        step = np.arange((end - start).max(initial=0))
        places = np.minimum(start[:, None] + step, end[:, None] - 1)
        return constant(places.tolist()), constant((end - start).tolist())
    extent, out = size_of(x, axis), constant([size])
    start = op.Div(op.Mul(constant(number.tolist()), extent), out)
    end = op.Div(op.Add(op.Mul(constant((number + 1).tolist()), extent), constant([size - 1])), out)
    lengths = op.Sub(end, start)
    step = _counted(op.ReduceMax(lengths, keepdims=1))
    places = op.Min(
        op.Add(op.Unsqueeze(start, constant([1])), step),
        op.Unsqueeze(op.Sub(end, constant([1])), constant([1])),
    )
    return places, lengths


def _counted(size: Any) -> Any:
    """0, 1, 2, … below a size, which is a list of one integer."""
    return op.Range(constant(0), op.Squeeze(size), constant(1))


def avg_pool(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,  # noqa: ARG001 (the divisor is given)
    divisor_override: int | None = None,
) -> Any:
    """The sum of each window by ``divisor_override``, with zeros around."""
    if divisor_override is None:
        return NotImplemented
    axes = len(x.shape) - (3 if len(kernel_size) == 2 else 4)
    count = len(kernel_size)
    kernel = list(kernel_size)
    steps, around = (_each(value, count) for value in (stride or kernel, padding))
    more = [step - 1 if ceil_mode else 0 for step in steps]
    inner = x if axes else op.Unsqueeze(x, constant([0]))
    pads = [0, 0, *around, 0, 0, *(a + b for a, b in zip(around, more, strict=True))]
    padded = op.Pad(inner, constant(pads), like(0.0, x))
    means = op.AveragePool(padded, kernel_shape=kernel, strides=steps)
    found = op.Mul(means, like(math.prod(kernel) / divisor_override, x))
    if ceil_mode:
        # No window begins behind the input and its padding.
        for axis, (step, pad) in enumerate(zip(steps, around, strict=True)):
            extent = op.Add(size_of(x, axis - count), constant([pad + step - 1]))
            end = op.Div(extent, constant([step]))
            found = op.Slice(found, constant([0]), end, constant([axis + 2]))
    return found if axes else op.Squeeze(found, constant([0]))


def _each(values: Sequence[int], count: int) -> list[int]:
    return list(values) if len(values) == count else [*values] * count


_VARYING = "is wrong for another size of the input, or refuses one that varies"

ROWS = (
    Row(
        "adaptive_avg_pool",
        ("aten::_adaptive_avg_pool2d", "aten::_adaptive_avg_pool3d"),
        adaptive_avg_pool,
        "wrong",
        _VARYING,
        FLOATS,
        "https://github.com/microsoft/onnxscript/issues/1646",
    ),
    Row(
        "adaptive_max_pool",
        ("aten::adaptive_max_pool2d", "aten::adaptive_max_pool3d"),
        adaptive_max_pool,
        "missing",
        "no translation",
    ),
    Row(
        "avg_pool (divisor_override)",
        ("aten::avg_pool2d", "aten::avg_pool3d"),
        avg_pool,
        "wrong",
        "the divisor is ignored",
        ("float16", "float32"),
    ),
)
