"""Sizes that a declared dimension takes, and real inputs by the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch2mobile.records import Dim

T = TypeVar("T")


def greatest(dim: Dim, size: int) -> tuple[int, int] | None:
    """The greatest size of a dimension up to ``size``, and of its symbol; None for none."""
    if dim.symbol is None or dim.others:
        own = dim.size or size
        return (own, own) if own <= size else None
    low = 1 if dim.least is None else dim.least
    count = (size - dim.offset) // dim.factor
    count = count if dim.greatest is None else min(count, dim.greatest)
    return (dim.factor * count + dim.offset, count) if count >= low else None


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of these, evenly spread."""
    count = min(len(items), most)
    return [items[number * len(items) // count] for number in range(count)]


def grouped(items: Sequence[T], count: int) -> list[list[T]]:
    """Groups of ``count``, the last one filled up from the start."""
    starts = range(0, len(items), count)
    return [[items[i % len(items)] for i in range(start, start + count)] for start in starts]
