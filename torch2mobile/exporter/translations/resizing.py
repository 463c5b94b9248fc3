"""Resizing to the nearest pixel, by PyTorch's own arithmetic where ONNX's takes another pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.values import constant, is_static, op, size_of

_FLOAT, _INT = ir.DataType.FLOAT, ir.DataType.INT64
_SCALES = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}


def upsample_nearest(x: Any, output_size: Sequence[Any], *scales: Any, **named: Any) -> Any:
    """The pixels of a given size; the scales, if any, are PyTorch's for the places."""
    names = _SCALES[len(output_size)]
    given = {**dict(zip(names, scales, strict=False)), **named}
    return _nearest(x, output_size, [given.get(name) for name in names])


def upsample_nearest_vec(
    x: Any, output_size: Sequence[Any] | None, scale_factors: Sequence[float] | None = None
) -> Any:
    """The pixels of a given size, or of a size that follows from the scales."""
    count = len(x.shape) - 2
    return _nearest(x, output_size or [None] * count, scale_factors or [None] * count)


def upsample_nearest_exact(x: Any, output_size: Sequence[Any], *scales: Any, **named: Any) -> Any:
    """As :func:`upsample_nearest`, by the middles of the pixels."""
    names = _SCALES[len(output_size)]
    given = {**dict(zip(names, scales, strict=False)), **named}
    return _nearest(x, output_size, [given.get(name) for name in names], middle=0.5)


def upsample_nearest_exact_vec(
    x: Any, output_size: Sequence[Any] | None, scale_factors: Sequence[float] | None = None
) -> Any:
    """As :func:`upsample_nearest_vec`, by the middles of the pixels."""
    count = len(x.shape) - 2
    return _nearest(x, output_size or [None] * count, scale_factors or [None] * count, middle=0.5)


def _nearest(
    x: Any, output_size: Sequence[Any], scales: Sequence[float | None], middle: float = 0.0
) -> Any:
    """One Gather an axis; a Resize, which phones have kernels for, where that is the same."""
    axes = [
        (axis, _static_size(x.shape[axis], size, scale), scale)
        for axis, (size, scale) in enumerate(zip(output_size, scales, strict=True), start=2)
    ]
    if not middle and all(_agrees(x.shape[axis], size, scale) for axis, size, scale in axes):
        return NotImplemented
    found = x
    for axis, size, scale in axes:
        same = scale is None and is_static(size, x.shape[axis]) and size == x.shape[axis]
        if scale != 1 and not same:
            found = op.Gather(found, _places(x, axis, size, scale, middle), axis=axis)
    return op.Identity(x) if found is x else found


def _static_size(before: Any, size: Any, scale: float | None) -> Any:
    """The size after it, where none is given and that before is fixed."""
    if size is None and scale is not None and is_static(before):
        return int(before * scale)
    return size


def _agrees(before: Any, size: Any, scale: float | None) -> bool:
    """Whether float32 gives the pixels of exact arithmetic, as by a factor that is whole."""
    if not scale:
        if not is_static(before, size):
            return False
        scale = size / before
    if scale < 1:
        return math.frexp(scale)[0] == 0.5  # a power of two
    number = np.arange(1 << 16)
    rounded = np.floor(number.astype(np.float32) * np.float32(1 / scale))
    return float(scale).is_integer() and np.array_equal(rounded, number // int(scale))


def _places(x: Any, axis: int, size: Any, scale: float | None, middle: float) -> Any:
    """By pixel, the place of its source: its number times a step, both float32, rounded down."""
    before = x.shape[axis]
    if is_static(before, size):
        step = np.float32(1 / scale if scale else np.float32(before) / np.float32(size))
        places = np.floor((np.arange(size, dtype=np.float32) + np.float32(middle)) * step).astype(
            np.int64
        )
        return constant(np.minimum(places, before - 1).tolist())
    extent = size_of(x, axis)
    if size is None:
        wide = op.Cast(extent, to=ir.DataType.DOUBLE)
        size = op.Cast(op.Floor(op.Mul(wide, constant(scale or 1, ir.DataType.DOUBLE))), to=_INT)
    else:
        size = constant([size]) if is_static(size) else op.Reshape(size, constant([1]))
    if scale:
        step = constant(1 / scale, _FLOAT)
    else:
        step = op.Div(op.Cast(extent, to=_FLOAT), op.Cast(size, to=_FLOAT))
    number = op.Range(constant(0), op.Squeeze(size), constant(1))
    number = op.Cast(number, to=_FLOAT)
    if middle:
        number = op.Add(number, constant(middle, _FLOAT))
    places = op.Floor(op.Mul(number, step))
    return op.Min(op.Cast(places, to=_INT), op.Sub(extent, constant([1])))


ROWS = (
    Row(
        "upsample_nearest",
        tuple(f"aten::upsample_nearest{n}d" for n in (1, 2, 3)),
        upsample_nearest,
        "wrong",
        "rounds to another pixel, unless the scale is a whole number",
        ("float16", "float32", "uint8"),
    ),
    Row(
        "upsample_nearest (vec)",
        tuple(f"aten::upsample_nearest{n}d.vec" for n in (1, 2, 3)),
        upsample_nearest_vec,
        "wrong",
        "rounds to another pixel, unless the scale is a whole number",
        ("float16", "float32", "uint8"),
    ),
    Row(
        "upsample_nearest_exact",
        tuple(f"aten::_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
        upsample_nearest_exact,
        "wrong",
        "takes another pixel where the size varies",
        ("float16", "float32", "uint8"),
    ),
    Row(
        "upsample_nearest_exact (vec)",
        tuple(f"aten::_upsample_nearest_exact{n}d.vec" for n in (1, 2, 3)),
        upsample_nearest_exact_vec,
        "wrong",
        "takes another pixel where the size varies",
        ("float16", "float32", "uint8"),
    ),
)
