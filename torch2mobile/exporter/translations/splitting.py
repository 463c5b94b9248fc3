"""Pieces and turns of a tensor whose sizes vary."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from torch2mobile.exporter.translations.row import REALS, Row
from torch2mobile.exporter.translations.values import constant, is_static, op, size_of

_MOST = 16
"""Pieces of a size that varies: how many is not told, and what is not used goes from the file."""


def split(x: Any, split_size: Any, dim: int = 0) -> Any:
    """Pieces of a size that varies, the last one smaller."""
    if is_static(split_size):
        return NotImplemented
    size = op.Reshape(split_size, constant([1]))
    starts = [op.Mul(size, constant([n])) for n in range(_MOST + 1)]
    at = constant([dim % len(x.shape)])
    return [op.Slice(x, start, end, at) for start, end in itertools.pairwise(starts)]


def roll(x: Any, shifts: Any, dims: Sequence[int] = ()) -> Any:
    """The elements moved on along axes by numbers that vary, and in again at the other end."""
    if is_static(*shifts) or not dims:
        return NotImplemented
    found = x
    for shift, dim in zip(shifts, dims, strict=True):
        size = op.Squeeze(size_of(x, dim))
        by = constant(shift) if is_static(shift) else op.Reshape(shift, constant([], _INT))
        number = op.Range(constant(0), size, constant(1))
        found = op.Gather(found, op.Mod(op.Sub(number, by), size), axis=dim)
    return found


_INT = ir.DataType.INT64
_BY_SIZE = "no translation by a size that varies"
_ANY = (*REALS, "bool")

ROWS = (
    Row("split (varying)", ("aten::split.Tensor",), split, "missing", _BY_SIZE, _ANY),
    Row("roll (varying)", ("aten::roll",), roll, "missing", _BY_SIZE, _ANY),
)
