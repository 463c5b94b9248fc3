"""Sizes for dynamic dimensions: the example's, and those at the ends of their ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, product

from torch2mobile.records import Assumption, Dim, InputSpec

_UNBOUNDED = 2**62
# How many sizes, or combinations of several symbols' sizes, an assumption is tried at.
_TRIED = 4096
# So many sizes are swept at most, in inputs that may have so many elements together.
SWEEP = 64
SWEEP_ELEMENTS = 1 << 15
# From the example's sizes to the greatest.
_STEPS = 64
# torch's symbols of sizes that data decide.
OF_DATA = re.compile(r"\bu\d+\b")


@dataclass(frozen=True)
class _Symbol:
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


def _symbols(specs: Sequence[InputSpec]) -> list[_Symbol]:
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
        symbol = _Symbol(
            name=name,
            least=max(leasts, default=1),
            greatest=min(greatests, default=None),
            declared=bool(leasts or greatests),
            batch=any(axis == 0 for axis, _ in used),
            forms=tuple(dim for _, dim in used),
        )
        found.append(symbol)
    return found


def example_sizes(specs: Sequence[InputSpec]) -> dict[str, int]:
    """One size per symbol for the example: small, inside its range, and unlike the others.

    Sizes differ wherever the ranges allow it, and are 0 or 1 only where nothing else is in range
    (torch.export specialises on those). The first dimension of an input, a batch, is 2 if it may
    be; the others are multiples of 16 or 8 where the lower half of the range has any.
    """
    symbols = _symbols(specs)
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


def _wishes(symbol: _Symbol, avoid: set[int], count: int) -> list[int]:
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


def size_cases(
    specs: Sequence[InputSpec],
    example: Mapping[str, int],
    budget_elements: int,
    assumed: Sequence[Assumption] = (),
) -> list[tuple[str, dict[str, int], bool]]:
    """Sizes to probe besides the example, as (label, size of every symbol, declared).

    Every symbol at its least, its greatest and an odd size, the others as in the example; batch
    1; all at their least and at their greatest; where something ``assumed`` is not so, in the
    smallest way and in that nearest to the example. ``declared`` is False if a symbol was varied
    that has no declared range, so that a module may refuse the size. All inputs together have at
    most ``budget_elements`` elements, or as many as the example if that has more; the smallest of
    what is assumed and not so may have any number.
    """
    symbols = _symbols(specs)
    base = {each.name: example[each.name] for each in symbols}
    cap = max(budget_elements, _elements(specs, base))
    cases: dict[tuple[int, ...], tuple[str, dict[str, int], bool]] = {}

    def add(label: str, changed: Mapping[str, int], declared: bool) -> None:
        sizes = {**base, **changed}
        if sizes != base:
            cases.setdefault(tuple(sizes.values()), (label, sizes, declared))

    for each in symbols:
        top = _largest(specs, base, each.name, _goal(each, base), cap)
        batch = [1] if each.batch and each.least <= 1 else []
        for size in (each.least, *batch, top, *_odd(each, base[each.name], top)):
            add(f"{each.name}={size}", {each.name: size}, each.declared)
    all_declared = all(each.declared for each in symbols)
    add("all least", {each.name: each.least for each in symbols}, all_declared)
    goals = {each.name: _goal(each, base) for each in symbols}
    most = _all_largest(specs, base, goals, cap)
    add("all greatest" if most == goals else "all greatest in budget", most, all_declared)
    declared = {each.name: each.declared for each in symbols}
    for assumption in assumed:
        for sizes in _exceptions(specs, base, assumption, cap):
            changed = {name: n for name, n in sizes.items() if n != base[name]}
            add(label_of(changed), changed, all(declared[name] for name in changed))
    return list(cases.values())


def label_of(sizes: Mapping[str, int]) -> str:
    """Sizes as a probe is called: ``H=7, W=9``."""
    return ", ".join(f"{name}={size}" for name, size in sizes.items())


def exception(
    specs: Sequence[InputSpec], example: Mapping[str, int], assumption: Assumption
) -> dict[str, int] | None:
    """The smallest sizes of its symbols at which an assumption is not so, if any are possible."""
    found = _exceptions(specs, example, assumption, 0)
    return {name: found[0][name] for name in assumption.symbols} if found else None


def _exceptions(
    specs: Sequence[InputSpec], base: Mapping[str, int], assumption: Assumption, cap: int
) -> list[dict[str, int]]:
    """The smallest sizes at which an assumption is not so, and the nearest that are in ``cap``."""
    symbols = [each for each in _symbols(specs) if each.name in assumption.symbols]
    count = int(_TRIED ** (1 / len(symbols)))
    named = [int(number) for number in re.findall(r"\d+", assumption.text)]
    choices = [_choices(each, base[each.name], count, named) for each in symbols]
    tried = (
        {**base, **{each.name: size for each, size in zip(symbols, sizes, strict=True)}}
        for sizes in product(*choices)
    )
    wrong = [sizes for sizes in tried if not assumption.holds(sizes)]
    if not wrong:
        return []
    affordable = [sizes for sizes in wrong if _elements(specs, sizes) <= cap]
    near = min(affordable, key=lambda sizes: _distance(sizes, base), default=None)
    return [min(wrong, key=lambda sizes: _elements(specs, sizes)), *([near] if near else [])]


def _choices(symbol: _Symbol, example: int, count: int, named: Sequence[int]) -> list[int]:
    """Some ``count`` of a symbol's sizes: the least, by the example, those named, and the ends."""
    greatest = symbol.greatest
    end = max(64, 2 * example + 1) if greatest is None else greatest
    whole = range(symbol.least, end + 1)
    if len(whole) <= count:
        return list(whole)
    part = max(count // 4, 2)
    powers = [2**n + off for n in range(30) for off in (-1, 0, 1)]
    near = [size + off for size in named for off in (-1, 0, 1)]
    some = chain(
        whole[: 2 * part], range(example, example + part), powers[:part], near, whole[-part:]
    )
    return sorted({size for size in some if size in whole})


def _distance(sizes: Mapping[str, int], base: Mapping[str, int]) -> float:
    return sum(abs(math.log((sizes[name] or 0.5) / (base[name] or 0.5))) for name in base)


def sweep_cases(
    specs: Sequence[InputSpec], example: Mapping[str, int], budget_elements: int
) -> list[tuple[str, dict[str, int], bool]]:
    """Sizes in between, spread over the ranges, as :func:`size_cases` has them.

    All symbols vary at once, every second one the other way, in at most ``SWEEP`` inputs of
    ``SWEEP_ELEMENTS`` together, or of as many as one may have. What was not declared varies by
    itself: it may be refused, and must not take a declared size with it.
    """
    symbols = _symbols(specs)
    base = {each.name: example[each.name] for each in symbols}
    cap = max(budget_elements, _elements(specs, base))
    groups = [[each for each in symbols if each.declared == flag] for flag in (True, False)]
    groups = [group for group in groups if group]
    return [
        (label_of(changed), {**base, **changed}, group[0].declared)
        for group in groups
        for changed in _sweep(specs, group, base, cap, len(groups))
        if any(base[name] != size for name, size in changed.items())
    ]


def _sweep(
    specs: Sequence[InputSpec],
    symbols: Sequence[_Symbol],
    base: Mapping[str, int],
    cap: int,
    parts: int,
) -> list[dict[str, int]]:
    tops = {each.name: _largest(specs, base, each.name, _goal(each, base), cap) for each in symbols}
    count = min(SWEEP // parts, max(tops[each.name] - each.least + 1 for each in symbols))
    while count > 1:
        cases = []
        for step in range(count):
            shares = (step / (count - 1), 1 - step / (count - 1))
            case = {
                each.name: each.least + round((tops[each.name] - each.least) * shares[number % 2])
                for number, each in enumerate(symbols)
            }
            cases.append(case)
        sizes = [_elements(specs, {**base, **case}) for case in cases]
        if max(sizes) <= cap and sum(sizes) <= max(cap, SWEEP_ELEMENTS) // parts:
            return cases
        count = count * 3 // 4
    return []


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
    symbols = _symbols(specs)
    base = {each.name: example[each.name] for each in symbols}
    cap = max(budget_elements, _elements(specs, base))
    goals = {
        each.name: max(base[each.name], each.greatest or count)  # a batch may be as large as that
        for each in symbols
    }
    most = _all_largest(specs, base, goals, cap)
    (spec,) = (each for each in specs if each.name == name)
    for step in range(_STEPS + 1):
        sizes = {key: low + (most[key] - low) * step // _STEPS for key, low in base.items()}
        if math.prod(dim.at(sizes) for dim in spec.dims) >= count:
            return sizes
    return most


def _elements(specs: Sequence[InputSpec], sizes: Mapping[str, int]) -> int:
    return sum(math.prod(dim.at(sizes) for dim in spec.dims) for spec in specs)


def _goal(symbol: _Symbol, base: Mapping[str, int]) -> int:
    """The declared greatest size, or one that is odd and about twice the example's."""
    return 2 * base[symbol.name] + 1 if symbol.greatest is None else symbol.greatest


def _odd(symbol: _Symbol, example: int, top: int) -> list[int]:
    """An odd size strictly between the ends and unlike the example, if there is one."""
    near = chain(range(example + 1, example + 5), range(example - 1, example - 5, -1))
    for size in chain((example * 4 // 3 | 1, example * 2 // 3 | 1), near):
        if size % 2 and size != example and symbol.least < size < top:
            return [size]
    return []


def _largest(
    specs: Sequence[InputSpec], sizes: Mapping[str, int], name: str, goal: int, cap: int
) -> int:
    """The largest size up to ``goal`` for one symbol with which all inputs stay within ``cap``."""
    low, high = sizes[name], max(goal, sizes[name])
    while low < high:
        middle = (low + high + 1) // 2
        if _elements(specs, {**sizes, name: middle}) <= cap:
            low = middle
        else:
            high = middle - 1
    return low


def _all_largest(
    specs: Sequence[InputSpec], base: Mapping[str, int], goals: Mapping[str, int], cap: int
) -> dict[str, int]:
    """All symbols as far towards their goals as fits in ``cap``, in even steps, then one by one."""
    sizes = dict(base)
    for step in range(1, _STEPS + 1):
        grown = {name: low + (goals[name] - low) * step // _STEPS for name, low in base.items()}
        if _elements(specs, grown) > cap:
            break
        sizes = grown
    for name in sizes:
        sizes[name] = _largest(specs, sizes, name, goals[name], cap)
    return sizes
