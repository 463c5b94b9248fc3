"""Sizes for dynamic dimensions: the example's, and those at the ends of their ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from torch2mobile.records import Dim, InputSpec

_UNBOUNDED = 2**62
# From the example's sizes to the greatest.
_STEPS = 64
# torch's symbols of sizes that data decide.
OF_DATA = re.compile(r"\bu\d+\b")


def example_sizes(specs: Sequence[InputSpec]) -> dict[str, int]:
    """One size per symbol for the example: small, inside its range, and unlike the others.

    Sizes differ wherever the ranges allow it, and are 0 or 1 only where nothing else is in range
    (torch.export specialises on those). The first dimension of an input, a batch, is 2 if it may
    be; the others are multiples of 16 or 8 where the lower half of the range has any.
    """
    symbols = symbols_of(specs)
    fixed = {dim.size for spec in specs for dim in spec.dims if dim.size is not None}
    taken: set[int] = set()
    wishes: dict[str, list[int]] = {}
    for symbol in sorted(symbols, key=lambda each: not each.batch):
        avoid = taken if symbol.batch else taken | fixed
        wishes[symbol.name] = _wishes(symbol, avoid, len(symbols))
        first = wishes[symbol.name][0]
        taken |= symbol.made(first)
    owners: dict[int, str] = {}
    for name in wishes:
        _match(name, wishes, owners, set())
    sizes = {name: size for size, name in owners.items()}
    return {each.name: sizes.get(each.name, wishes[each.name][0]) for each in symbols}


def sizes_of(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The size of every symbol in arrays of these shapes, as far as they tell it."""
    pairs = [pair for s in specs for pair in zip(s.dims, shapes[s.name], strict=True)]
    sizes: dict[str, int] = {}
    before = -1
    while before < len(sizes):
        before = len(sizes)
        for dim, size in pairs:
            found = dim.solved(size, sizes)
            if found is not None:
                sizes[found[0]] = found[1]
    return sizes


def sizes_in(specs: Sequence[InputSpec], tensors: Sequence[Any]) -> dict[str, int]:
    """As :func:`sizes_of`, in one tensor or array for each specification, in their order."""
    pairs = zip(specs, tensors, strict=True)
    return sizes_of(specs, {spec.name: tuple(tensor.shape) for spec, tensor in pairs})


def _wishes(symbol: Symbol, avoid: set[int], count: int) -> list[int]:
    """The sizes that suit a symbol, best first; ``count`` of them if the range has as many."""
    greatest = _UNBOUNDED if symbol.greatest is None else symbol.greatest
    least = max(2, symbol.least)
    tiers = [range(least, greatest + 1), range(min(1, greatest), symbol.least - 1, -1)]
    if greatest >= 2:
        tiers.pop()
    if not symbol.batch:
        half = symbol.least + (greatest - symbol.least) // 2
        start, usual = max(2, symbol.least + 1), math.ceil(32 / symbol.factor)
        start = max(start, usual) if usual <= half else start
        steps = [multiple // math.gcd(multiple, symbol.factor) for multiple in (16, 8, 1)]
        tiers = [range(-(-start // step) * step, half + 1, step) for step in steps] + tiers
    enough = count + 2 * len(avoid)
    found = list(dict.fromkeys(chain.from_iterable(islice(tier, enough) for tier in tiers)))
    new = [size for size in found if not symbol.made(size) & avoid]
    return list(dict.fromkeys([*new, *found])) or [symbol.least]


def _match(
    name: str, wishes: Mapping[str, list[int]], owners: dict[int, str], tried: set[int]
) -> bool:
    """Give a symbol a size of its own, moving others if need be (Kuhn's bipartite matching)."""
    free = next((size for size in wishes[name] if size not in owners), None)
    if free is not None:
        owners[free] = name
        return True
    for size in wishes[name]:
        if size not in tried:
            tried.add(size)
            if _match(owners[size], wishes, owners, tried):
                owners[size] = name
                return True
    return False


def label_of(sizes: Mapping[str, int]) -> str:
    """Sizes as a probe is called: ``H=7, W=9``."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def single(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes with a batch of 1, where all inputs lead with a symbol that may be 1."""
    leading = {spec.dims[0].symbol if spec.dims else None for spec in specs}
    alone = {
        each.name: 1
        for each in symbols_of(specs)
        if {each.name} == leading and each.batch and each.declared and each.least <= 1
    }
    return {**sizes, **alone}


def holding(
    specs: Sequence[InputSpec],
    example: Mapping[str, int],
    name: str,
    count: int,
    budget_elements: int,
) -> dict[str, int]:
    """The sizes at which an input has ``count`` elements, or as many as the budget allows.

    No larger than needed, in even steps from the example's sizes to the greatest.
    """
    symbols = symbols_of(specs)
    base = {each.name: example[each.name] for each in symbols}
    cap = max(budget_elements, elements(specs, base))
    goals = {
        each.name: max(base[each.name], each.greatest or count)  # a batch may be as large as that
        for each in symbols
    }
    most = all_largest(specs, base, goals, cap)
    (spec,) = (each for each in specs if each.name == name)
    for step in range(_STEPS + 1):
        sizes = {key: low + (most[key] - low) * step // _STEPS for key, low in base.items()}
        if math.prod(dim.at(sizes) for dim in spec.dims) >= count:
            return sizes
    return most


@dataclass(frozen=True)
class Symbol:
    """What all uses of one symbol say about it; an undeclared least size is 1."""

    name: str
    least: int
    greatest: int | None
    declared: bool
    batch: bool
    forms: tuple[Dim, ...]

    @property
    def factor(self) -> int:
        """The greatest of its factors."""
        return max(dim.factor for dim in self.forms)

    def made(self, size: int) -> set[int]:
        """The sizes of all dimensions that are made of this symbol alone, and its own."""
        return {size, *(dim.at({self.name: size}) for dim in self.forms if not dim.others)}


def symbols_of(specs: Sequence[InputSpec]) -> list[Symbol]:
    """The symbols of these inputs."""
    uses: dict[str, list[tuple[int, Dim]]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            for term in dim.terms:
                # In a sum no symbol is the batch.
                form = (1, term) if dim.others else (axis, dim)
                uses.setdefault(str(term.symbol), []).append(form)
    found = []
    for name, used in uses.items():
        leasts = [dim.least for _, dim in used if dim.least is not None]
        greatests = [dim.greatest for _, dim in used if dim.greatest is not None]
        symbol = Symbol(
            name=name,
            least=max(leasts, default=1),
            greatest=min(greatests, default=None),
            declared=bool(leasts or greatests),
            batch=any(axis == 0 for axis, _ in used),
            forms=tuple(dim for _, dim in used),
        )
        found.append(symbol)
    return found


def elements(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> int:
    """How many elements all inputs have together."""
    return sum(math.prod(dim.at(sizes) for dim in spec.dims) for spec in specs)


def goal(symbol: Symbol, base: Mapping[str, int]) -> int:
    """The declared greatest size, or one that is odd and about twice the example's."""
    return 2 * base[symbol.name] + 1 if symbol.greatest is None else symbol.greatest


def largest(
    specs: Sequence[InputSpec], sizes: Mapping[str, int], name: str, goal: int, cap: int
) -> int:
    """The largest size up to ``goal`` for one symbol with which all inputs stay within ``cap``."""
    low, high = sizes[name], max(goal, sizes[name])
    while low < high:
        middle = (low + high + 1) // 2
        if elements(specs, {**sizes, name: middle}) <= cap:
            low = middle
        else:
            high = middle - 1
    return low


def all_largest(
    specs: Sequence[InputSpec], base: Mapping[str, int], goals: Mapping[str, int], cap: int
) -> dict[str, int]:
    """All symbols as far towards their goals as fits in ``cap``, in even steps, then one by one."""
    sizes = dict(base)
    for step in range(1, _STEPS + 1):
        grown = {name: low + (goals[name] - low) * step // _STEPS for name, low in base.items()}
        if elements(specs, grown) > cap:
            break
        sizes = grown
    for name in sizes:
        sizes[name] = largest(specs, sizes, name, goals[name], cap)
    return sizes
