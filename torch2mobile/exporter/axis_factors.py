"""Axes as factors: what a chain of views does to them, and the steps that do the same."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

_PRODUCT = re.compile(r"\w+(\*\w+)*")


@dataclass(frozen=True)
class Size:
    """A size as a product: a number times symbols, such as ``4*N``."""

    number: int
    symbols: tuple[str, ...] = ()

    def over(self, other: Size) -> Size | None:
        """This size divided by another; None where that is no product."""
        left = Counter(self.symbols)
        left.subtract(other.symbols)
        if self.number % other.number or any(count < 0 for count in left.values()):
            return None
        return Size(self.number // other.number, tuple(sorted(left.elements())))


ONE = Size(1)


@dataclass(eq=False)
class Factor:
    """A part of an axis; a reshape that needs a finer one gives it parts."""

    size: Size
    parts: list[Factor] = field(default_factory=list)


Axes = list[list[Factor]]


# The order of a Transpose, or None and the axes of a Reshape.
Step = tuple[list[int] | None, Axes]


def _size(dim: int | ir.SymbolicDim) -> Size | None:
    """None for a size without a name, and for none at all."""
    if isinstance(dim, int):
        return Size(dim) if dim > 0 else None
    text = (dim.value or "").replace(" ", "")
    if not _PRODUCT.fullmatch(text):
        return Size(1, (text,)) if text else None
    words = text.split("*")
    number = math.prod(int(word) for word in words if word.isdigit())
    return Size(number, tuple(sorted(word for word in words if not word.isdigit())))


def sizes_of(value: ir.Value | None) -> list[Size] | None:
    """The sizes of a value's axes; None where one of them is not known by name."""
    if value is None or value.shape is None:
        return None
    found = [_size(dim) for dim in value.shape]
    return None if None in found else [size for size in found if size is not None]


def leaves(axes: Axes) -> Axes:
    """The finest factors of each axis."""

    def whole(factors: Sequence[Factor]) -> Iterator[Factor]:
        for factor in factors:
            yield from whole(factor.parts) if factor.parts else [factor]

    return [list(whole(axis)) for axis in axes]


def regrouped(axes: Axes, shape: Sequence[Size]) -> Axes | None:
    """The same factors in the same order under other axes; None where they do not fit."""
    queue = deque(itertools.chain.from_iterable(leaves(axes)))
    found: Axes = []
    for size in shape:
        axis: list[Factor] = []
        needed = size
        while needed != ONE:
            if not queue:
                return None
            factor = queue.popleft()
            rest = needed.over(factor.size)
            if rest is None:
                more = factor.size.over(needed)
                if more is None:
                    return None
                factor.parts = [Factor(needed), Factor(more)]
                queue.appendleft(factor.parts[1])
                factor, rest = factor.parts[0], ONE
            axis.append(factor)
            needed = rest
        found.append(axis)
    return found if not queue else None


def product(axis: Sequence[Factor]) -> Size:
    """The size of an axis."""
    number = math.prod(factor.size.number for factor in axis)
    return Size(number, tuple(sorted(s for factor in axis for s in factor.size.symbols)))


def _ordered(pieces: Axes, goal: Axes) -> list[int] | None:
    """The order in which the pieces give the goal's factors; those of size 1 stand in between."""
    by_first = {axis[0]: n for n, axis in enumerate(pieces) if axis}
    flat = [factor for axis in goal for factor in axis]
    order: list[int] = []
    while flat:
        place = by_first.get(flat[0])
        if place is None or flat[: len(pieces[place])] != pieces[place]:
            return None
        order.append(place)
        del flat[: len(pieces[place])]
    return order


def steps(first: Axes, last: Axes) -> Iterator[list[Step]]:
    """Ways from the first axes to the last, the shortest first: shapes and permutations."""
    ones = [n for n, axis in enumerate(first) if not axis]
    order = _ordered(first, last)
    back = _ordered(last, first)
    whole = [factor for axis in first for factor in axis]
    if whole == [factor for axis in last for factor in axis]:
        same = [product(a) for a in first] == [product(a) for a in last]
        yield [] if same else [(None, last)]
        return
    if order is not None and len(first) == len(last):
        named, spare = iter(order), iter(ones)
        pure = [next(named if axis else spare, -1) for axis in last]
        if sorted(pure) == list(range(len(first))) and [first[n] for n in pure] == last:
            yield [(pure, [])]
    if order is not None:
        yield [([*order, *ones], []), (None, last)]
    if back is not None:
        places = [*back, *(n for n, axis in enumerate(last) if not axis)]
        turned = [places.index(n) for n in range(len(last))]
        yield [(None, [last[n] for n in places]), (turned, [])]
    place = {factor: n for n, factor in enumerate(whole)}
    groups: Axes = []
    for factor in (factor for axis in last for factor in axis):
        if groups and place[factor] == place[groups[-1][-1]] + 1:
            groups[-1].append(factor)
        else:
            groups.append([factor])
    middle = sorted(groups, key=lambda axis: place[axis[0]])
    yield [(None, middle), ([middle.index(axis) for axis in groups], []), (None, last)]
