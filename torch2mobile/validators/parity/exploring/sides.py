"""Which sides of its decisions a module takes on an input, and a search for those never taken.

As :mod:`torch2mobile.validators.parity.mutating.decisions` does for a file's graph; but a file may
lack the very decision that it gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from torch2mobile.copies import fresh
from torch2mobile.dispatch import Operations, short_name
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet
from torch2mobile.validators.parity.calls import run, tensors_of
from torch2mobile.validators.parity.mutating.search import Space, search, small_first
from torch2mobile.validators.parity.probes import Probe

if TYPE_CHECKING:
    from torch2mobile.interfaces import Feeds
    from torch2mobile.validators.parity.expected import Expected

# A decision by its operation and its number among those of one run, and its side: 0 below or
# false, 1 above or true.
Side = tuple[str, int, int]
# By side how far beyond its threshold a run went: above 0 where it was taken.
Sides = Mapping[Side, float]

# Inputs that a search tries at most.
BUDGET = 256
# It may take as many input elements as the probes have, or as much work as is done in no time: by
# values that are computed, with what an operation costs whatever its size.
_WORK, _CALL = 1 << 26, 1 << 12
_AT_ZERO = {"relu", "leaky_relu", "elu", "selu", "celu", "prelu", "_prelu_kernel", "abs", "sign"}
_ENDS: Mapping[str, tuple[float, ...]] = {"hardswish": (-3, 3), "hardsigmoid": (-3, 3)}
_COMPARE = {"lt", "le", "gt", "ge", "eq", "ne"}
# Those that a narrow window is made of; an activation's sides are wide.
_SEARCHED = _COMPARE | {"where", "masked_fill"}


class _Watch(Operations):
    """Within it, each decision is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: dict[Side, float] = {}
        self.work = 0
        self._counts: dict[str, int] = {}
        # How far each condition is true, place by place: above 0 where it is.
        self._margins: Any = WeakTensorKeyDictionary()

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operation, and measure what it decides by."""
        op = short_name(func)
        for measured in self._of(op, args):
            number = self._counts.get(op, 0)
            self._counts[op] = number + 1
            if measured.numel():
                least, greatest = (float(end) for end in torch.aminmax(measured))
                self.sides[op, number, 0], self.sides[op, number, 1] = -least, greatest
        result = func(*args, **kwargs)
        self.work += _CALL + (result.numel() if isinstance(result, torch.Tensor) else 0)
        margin = self._condition(op, args, result)
        if margin is not None:
            self._margins[result] = margin
        return result

    def _of(self, op: str, args: Sequence[Any]) -> Iterator[torch.Tensor]:
        """What an operation decides by, as numbers of which the sign decides."""
        if op in _AT_ZERO:
            yield _numbers(args[0])
        elif op in _ENDS:
            yield from (_numbers(args[0]) - end for end in _ENDS[op])
        elif op in {"clamp", "hardtanh", "clamp_min", "clamp_max"}:
            ends = args[1:3] if len(args) > 1 else (-1, 1)
            yield from (_numbers(args[0]) - end for end in ends if end is not None)
        elif op in {"maximum", "minimum"} or op in _COMPARE:
            yield _numbers(args[0]) - _numbers(args[1])
        elif op in {"where", "masked_fill"}:
            yield self._margin(args[0 if op == "where" else 1])

    def _margin(self, condition: torch.Tensor) -> torch.Tensor:
        known: torch.Tensor | None = self._margins.get(condition)
        return 2 * condition.float() - 1 if known is None else known

    def _condition(self, op: str, args: Sequence[Any], result: Any) -> torch.Tensor | None:
        """How far a boolean result is true; None for what is no condition."""
        if not isinstance(result, torch.Tensor) or result.dtype != torch.bool:
            return None
        found: torch.Tensor | None = None
        if op in _COMPARE:
            difference = _numbers(args[0]) - _numbers(args[1])
            if op in {"eq", "ne"}:
                difference = torch.where(difference == 0, 1.0, -difference.abs())
            found = difference if op in {"gt", "ge", "eq"} else -difference
        elif all(isinstance(arg, torch.Tensor) and arg.dtype == torch.bool for arg in args):
            margins = [self._margin(arg) for arg in args]
            if op in {"logical_not", "bitwise_not"}:
                found = -margins[0]
            elif op in {"logical_and", "bitwise_and"}:
                found = torch.minimum(*margins)
            elif op in {"logical_or", "bitwise_or"}:
                found = torch.maximum(*margins)
        return found


def _numbers(value: Any) -> Any:
    """A value as floats; NaN counts as 0, on neither side."""
    if isinstance(value, torch.Tensor):
        return torch.nan_to_num(value.detach().double())
    return float(value)


@dataclass(frozen=True)
class Taken:
    """By side of each decision how far beyond it one run went, and what the run computed."""

    sides: Sides
    work: int = 0


def taken_on(loaded: LoadedModel, feeds: Feeds) -> Taken:
    """The sides that one run takes; none where the module refuses the input."""
    watch = _Watch()
    try:
        with fresh(loaded, "observed") as own, quiet(), watch:
            run(own.flat, tensors_of(loaded, feeds))
    except Exception:  # noqa: BLE001 (the module is the user's code)
        return Taken({})
    return Taken(watch.sides, watch.work)


def quickly(loaded: LoadedModel) -> Callable[[Feeds], set[Side]]:
    """The sides that a run on an input takes; none once that was more work than is done quickly."""
    done = 0

    def sides(feeds: Feeds) -> set[Side]:
        nonlocal done
        if done > _WORK:
            return set()
        taken = taken_on(loaded, feeds)
        done += taken.work
        return {side for side, margin in taken.sides.items() if margin > 0}

    return sides


def searched(
    loaded: LoadedModel, expected: Sequence[Expected], seed: int, operations: Set[str]
) -> list[Probe]:
    """Inputs that take sides which no probe took, of comparisons that hang on the inputs.

    ``operations`` are the names of all that the module runs.
    """
    if not operations & _SEARCHED:
        return []
    feeds = [case.probe.feeds for case in expected]
    first = taken_on(loaded, feeds[0])
    likes = small_first(feeds)
    known = [first.sides, *(taken_on(loaded, each).sides for each in likes[1:])]
    targets = _untaken(known)
    sizes = [sum(array.size for array in each.values()) for each in feeds]
    runs = max(sum(sizes) // max(1, sizes[0]), _WORK // max(1, first.work))
    if not targets:
        return []

    def score(inputs: Sequence[Feeds]) -> np.ndarray:
        found = [taken_on(loaded, each).sides for each in inputs]
        return np.array([[one.get(side, -np.inf) for side in targets] for one in found])

    best = search(score, Space(loaded.specs, likes, seed), len(targets), budget=min(BUDGET, runs))
    shown = {
        found.run: (side, found.feeds)
        for side, found in zip(targets, best, strict=True)
        if found.score > 0
    }
    return [
        Probe(f"search {op} {number + 1} {('false', 'true')[side]}", found, searched=True)
        for (op, number, side), found in shown.values()
    ]


def _untaken(known: Sequence[Sides]) -> list[Side]:
    """The sides of comparisons that no run took, though what they go by is not always the same."""
    every: dict[Side, list[float]] = {}
    for one in known:
        for side, margin in one.items():
            every.setdefault(side, []).append(margin)
    return [
        side
        for side, margins in every.items()
        if side[0] in _SEARCHED and max(margins) <= 0 and min(margins) < max(margins)
    ]
