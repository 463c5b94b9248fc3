"""Padding of which one Pad cannot say it: around the other end, and by negative numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch2mobile.exporter.translations.row import REALS, Row
from torch2mobile.exporter.translations.values import constant, is_static, op, size_of


def pad(x: Any, amounts: Sequence[Any], mode: str = "constant", value: Any = None) -> Any:  # noqa: ARG001
    """One Gather an axis, of the places that each mode repeats; the last axis comes first."""
    if mode == "constant" or not is_static(*amounts):
        return NotImplemented
    empty = any(size == 0 for size in x.shape)
    if mode != "circular" and min(amounts, default=0) >= 0 and not empty:
        return NotImplemented
    rank, found = len(x.shape), x
    for number, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        if before or after:
            axis = rank - 1 - number
            found = op.Gather(found, _places(x, axis, before, after, mode), axis=axis)
    return found


def _places(x: Any, axis: int, before: int, after: int, mode: str) -> Any:
    size = op.Squeeze(size_of(x, axis))
    number = op.Range(constant(-before), op.Add(size, constant(after)), constant(1))
    if mode == "circular":
        return op.Mod(number, size)
    last = op.Sub(size, constant(1))
    if mode == "replicate":
        return op.Min(op.Max(number, constant(0)), last)
    return op.Sub(last, op.Abs(op.Sub(last, op.Abs(number))))


ROWS = (
    Row(
        "pad (circular, negative)",
        ("aten::pad",),
        pad,
        "wrong",
        "does not run for a side that is cut off whole, or around nothing",
        (*REALS, "bool"),
    ),
)
