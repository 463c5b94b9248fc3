"""Division and remainder that round down, and by truncation, exactly."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import REALS, Row
from torch2mobile.exporter.translations.values import (
    constant,
    in_range,
    like,
    op,
    tensor_of,
    widened,
)


def div_mode(x: Any, other: Any, rounding_mode: str | None = None) -> Any:
    """``x / other``, rounded down (``floor``) or towards 0 (``trunc``)."""
    if rounding_mode is None or not _fits(x, other):
        return NotImplemented
    if rounding_mode == "floor":
        return floor_divide(x, other)
    other = tensor_of(other, x)
    if not x.dtype.is_floating_point():
        return widened(lambda a, b, _: op.Div(a, b), x, other)
    quotient = op.Div(x, other)
    zero = like(0.0, x)
    return op.Where(op.Less(quotient, zero), op.Ceil(quotient), op.Floor(quotient))


def floor_divide(x: Any, other: Any) -> Any:
    """``floor(x / other)`` of the exact quotient, by way of the remainder, as PyTorch does it."""
    if not _fits(x, other):
        return NotImplemented
    other = tensor_of(other, x)
    if not x.dtype.is_floating_point():
        return widened(_floor_of_whole, x, other)
    zero, one = like(0.0, x), like(1.0, x)
    rest = op.Mod(x, other, fmod=1)
    whole = op.Div(op.Sub(x, rest), other)
    whole = op.Where(_opposite(rest, other, zero), op.Sub(whole, one), whole)
    down = op.Floor(whole)
    down = op.Where(op.Greater(op.Sub(whole, down), like(0.5, x)), op.Add(down, one), down)
    quotient = op.Div(x, other)
    # A zero has the quotient's sign.
    down = op.Where(op.Equal(whole, zero), op.Mul(quotient, zero), down)
    return op.Where(op.Equal(other, zero), quotient, down)


def remainder(x: Any, other: Any) -> Any:
    """What is left of ``x``, with the sign of ``other``."""
    if not _fits(x, other):
        return NotImplemented
    other = tensor_of(other, x)
    if not x.dtype.is_floating_point():
        return widened(lambda a, b, _: op.Mod(a, b), x, other)
    rest = op.Mod(x, other, fmod=1)
    return op.Where(_opposite(rest, other, like(0.0, x)), op.Add(rest, other), rest)


def _fits(x: Any, other: Any) -> bool:
    """Whether the result has the dtype of ``x``, a tensor."""
    if not isinstance(x, ir.Value):
        return False
    if isinstance(other, ir.Value):
        return x.dtype == other.dtype
    floating = x.dtype is not None and x.dtype.is_floating_point()
    return floating or in_range(other, x)


def _opposite(rest: Any, other: Any, zero: Any) -> Any:
    """Whether there is a rest, and of the other sign than the divisor."""
    differ = op.Xor(op.Less(rest, zero), op.Less(other, zero))
    return op.And(op.Not(op.Equal(rest, zero)), differ)


def _floor_of_whole(x: Any, other: Any, typed: ir.DataType) -> Any:
    """The truncated quotient, one less where there is a rest and the signs differ."""
    zero, one = constant(0, typed), constant(1, typed)
    rest = op.Mod(x, other, fmod=1)
    less = _opposite(rest, other, zero)
    return op.Sub(op.Div(x, other), op.Where(less, one, zero))


ROWS = (
    Row(
        "div (floor, trunc)",
        ("aten::div.Tensor_mode", "aten::div.Scalar_mode"),
        div_mode,
        "wrong",
        "rounds the rounded quotient, and divides integers as float32",
        REALS,
    ),
    Row(
        "floor_divide",
        ("aten::floor_divide",),
        floor_divide,
        "wrong",
        "rounds the rounded quotient down: 10 for 1 // 0.1, PyTorch 9",
        REALS,
    ),
    Row(
        "remainder",
        ("aten::remainder.Tensor", "aten::remainder.Scalar"),
        remainder,
        "wrong",
        "subtracts a rounded multiple: not what is left",
        REALS,
    ),
)
