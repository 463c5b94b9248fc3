"""Indices of a scalar's elements."""

from __future__ import annotations

from typing import Any

from torch2mobile.exporter.translations.row import REALS, Row
from torch2mobile.exporter.translations.values import constant, op


def nonzero(x: Any) -> Any:
    """One row for a scalar that is not 0, without columns."""
    if x.shape:
        return NotImplemented
    found = op.Transpose(op.NonZero(op.Reshape(x, constant([-1]))), perm=[1, 0])
    return op.Slice(found, constant([0]), constant([0]), constant([1]))


ROWS = (
    Row(
        "nonzero (scalar)",
        ("aten::nonzero",),
        nonzero,
        "wrong",
        "has a column for a scalar, which has no axis",
        (*REALS, "bool"),
    ),
)
