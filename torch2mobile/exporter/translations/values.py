"""Constants and sizes as ONNX values, for the translations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


class _Operators:
    """ONNX's operators; onnxscript, which takes a second to load, comes with the first of them."""

    def __getattr__(self, name: str) -> Any:
        from onnxscript import opset18

        return getattr(opset18, name)


op: Any = _Operators()
"""The operators that translations are made of; untyped, as is what the exporter passes."""


def constant(value: float | Sequence[float], dtype: ir.DataType = ir.DataType.INT64) -> Any:
    """A number or a list of numbers."""
    return op.Constant(value=ir.tensor(np.array(value, dtype.numpy()), dtype=dtype))


def like(value: float | Sequence[float], tensor: Any) -> Any:
    """A number or a list of numbers of the tensor's dtype."""
    return constant(value, tensor.dtype)


def opset() -> int:
    """The opset of the model that is being translated."""
    from onnxscript import evaluator

    recorder: Any = evaluator.default()
    return int(recorder.opset.version)


def is_static(*sizes: Any) -> bool:
    """Whether all sizes are fixed in the file."""
    return all(isinstance(size, int) for size in sizes)


def size_of(tensor: Any, axis: int) -> Any:
    """The size along an axis, as a list of one integer."""
    at = axis % len(tensor.shape)
    return op.Shape(tensor, start=at, end=at + 1)


def tensor_of(value: Any, typed: Any) -> Any:
    """A Python number as a constant of a tensor's dtype; a tensor as it is."""
    return value if isinstance(value, ir.Value) else like(value, typed)


def in_range(number: Any, typed: Any) -> bool:
    """Whether a Python number is one that an integer tensor's dtype has."""
    if isinstance(number, float) or not isinstance(number, int):
        return False
    limits = np.iinfo(typed.dtype.numpy())
    return bool(limits.min <= number <= limits.max)


def widened(function: Any, x: Any, *others: Any) -> Any:
    """A function of integers and their dtype, in int32 for those that are small.

    ONNX Runtime has no arithmetic on these.
    """
    if x.dtype in {ir.DataType.INT32, ir.DataType.INT64}:
        return function(x, *others, x.dtype)
    wide = (op.Cast(each, to=ir.DataType.INT32) for each in (x, *others))
    return op.Cast(function(*wide, ir.DataType.INT32), to=x.dtype)
