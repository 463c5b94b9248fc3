"""Sizes to probe besides the example's: the ends, what is assumed and not so, and a sweep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import chain, product

from torch2mobile.records import Assumption, InputSpec
from torch2mobile.sizing import Symbol, all_largest, elements, goal, label_of, largest, symbols_of

# How many sizes, or combinations of several symbols' sizes, an assumption is tried at.
_TRIED = 4096


# So many sizes are swept at most, in inputs that may have so many elements together.
SWEEP = 64


SWEEP_ELEMENTS = 1 << 15


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
    symbols = symbols_of(specs)
    base = {each.name: example[each.name] for each in symbols}
    cap = max(budget_elements, elements(specs, base))
    cases: dict[tuple[int, ...], tuple[str, dict[str, int], bool]] = {}

    def add(label: str, changed: Mapping[str, int], declared: bool) -> None:
        sizes = {**base, **changed}
        if sizes != base:
            cases.setdefault(tuple(sizes.values()), (label, sizes, declared))

    for each in symbols:
        top = largest(specs, base, each.name, goal(each, base), cap)
        batch = [1] if each.batch and each.least <= 1 else []
        for size in (each.least, *batch, top, *_odd(each, base[each.name], top)):
            add(f"{each.name}={size}", {each.name: size}, each.declared)
    all_declared = all(each.declared for each in symbols)
    add("all least", {each.name: each.least for each in symbols}, all_declared)
    goals = {each.name: goal(each, base) for each in symbols}
    most = all_largest(specs, base, goals, cap)
    add("all greatest" if most == goals else "all greatest in budget", most, all_declared)
    declared = {each.name: each.declared for each in symbols}
    for assumption in assumed:
        for sizes in _exceptions(specs, base, assumption, cap):
            changed = {name: n for name, n in sizes.items() if n != base[name]}
            add(label_of(changed), changed, all(declared[name] for name in changed))
    return list(cases.values())


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
    symbols = [each for each in symbols_of(specs) if each.name in assumption.symbols]
    count = int(_TRIED ** (1 / len(symbols)))
    written = re.findall(r"\d+", assumption.text) if assumption.near is None else assumption.near
    named = list(map(int, written))
    choices = [_choices(each, base[each.name], count, named) for each in symbols]
    tried = (
        {**base, **{each.name: size for each, size in zip(symbols, sizes, strict=True)}}
        for sizes in product(*choices)
    )
    wrong = [sizes for sizes in tried if not assumption.holds(sizes)]
    if not wrong:
        return []
    affordable = [sizes for sizes in wrong if elements(specs, sizes) <= cap]
    near = min(affordable, key=lambda sizes: _distance(sizes, base), default=None)
    return [min(wrong, key=lambda sizes: elements(specs, sizes)), *([near] if near else [])]


def _choices(symbol: Symbol, example: int, count: int, named: Sequence[int]) -> list[int]:
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
    specs: Sequence[InputSpec], example: Mapping[str, int], budget_elements: int, total: int
) -> list[tuple[str, dict[str, int], bool]]:
    """Sizes in between, spread over the ranges, as :func:`size_cases` has them.

    All symbols vary at once, every second one the other way, in at most ``SWEEP`` inputs of
    ``total`` elements together. What was not declared varies by
    itself: it may be refused, and must not take a declared size with it.
    """
    symbols = symbols_of(specs)
    base = {each.name: example[each.name] for each in symbols}
    cap = max(budget_elements, elements(specs, base))
    parts = len({each.declared for each in symbols})
    groups = [[each for each in symbols if each.declared == flag] for flag in (True, False)]
    groups = [group for group in groups if group]
    return [
        (label_of(changed), {**base, **changed}, group[0].declared)
        for group in groups
        for changed in _sweep(specs, group, base, cap, total // parts, parts)
        if any(base[name] != size for name, size in changed.items())
    ]


def _sweep(
    specs: Sequence[InputSpec],
    symbols: Sequence[Symbol],
    base: Mapping[str, int],
    cap: int,
    total: int,
    parts: int,
) -> list[dict[str, int]]:
    tops = {each.name: largest(specs, base, each.name, goal(each, base), cap) for each in symbols}
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
        sizes = [elements(specs, {**base, **case}) for case in cases]
        if max(sizes) <= cap and sum(sizes) <= total:
            return cases
        count = count * 3 // 4
    return []


def _odd(symbol: Symbol, example: int, top: int) -> list[int]:
    """An odd size strictly between the ends and unlike the example, if there is one."""
    near = chain(range(example + 1, example + 5), range(example - 1, example - 5, -1))
    for size in chain((example * 4 // 3 | 1, example * 2 // 3 | 1), near):
        if size % 2 and size != example and symbol.least < size < top:
            return [size]
    return []
