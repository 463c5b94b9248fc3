"""Seeded input arrays and sizes for dynamic dimensions, for exporter and validators alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Literal, get_args

import numpy as np

from torch2mobile.records import Dim, InputSpec

ValueKind = Literal[
    "example",
    "low",
    "high",
    "ends",
    "normal",
    "zeros",
    "ones",
    "negative",
    "small",
    "wide",
    "large",
]
VALUE_KINDS: tuple[ValueKind, ...] = get_args(ValueKind)

_UNBOUNDED = 2**62
_SCALES = {"small": 1e-3, "wide": 10.0, "large": 1e4}


# --- sizes ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Symbol:
    """What all uses of one symbol say about it; an undeclared least size is 1."""

    name: str
    least: int
    greatest: int | None
    declared: bool
    batch: bool
    factor: int


def _symbols(specs: Sequence[InputSpec]) -> list[_Symbol]:
    uses: dict[str, list[tuple[int, Dim]]] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.dims):
            if dim.symbol is not None:
                uses.setdefault(dim.symbol, []).append((axis, dim))
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
            factor=max(dim.factor for _, dim in used),
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
        taken |= {first, first * symbol.factor}
    owners: dict[int, str] = {}
    for name in wishes:
        _match(name, wishes, owners, set())
    sizes = {name: size for size, name in owners.items()}
    return {each.name: sizes.get(each.name, wishes[each.name][0]) for each in symbols}


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
    new = [size for size in found if not {size, size * symbol.factor} & avoid]
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
    specs: Sequence[InputSpec], example: Mapping[str, int], budget_elements: int
) -> list[tuple[str, dict[str, int], bool]]:
    """Sizes to probe besides the example, as (label, size of every symbol, declared).

    Every symbol at its least, its greatest and an odd size, the others as in the example; batch
    1; all at their least and at their greatest. ``declared`` is False if a symbol was varied that
    has no declared range, so that a module may refuse the size. All inputs together have at most
    ``budget_elements`` elements, or as many as the example if that has more.
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
    return list(cases.values())


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
    sizes, steps = dict(base), 64
    for step in range(1, steps + 1):
        grown = {name: low + (goals[name] - low) * step // steps for name, low in base.items()}
        if _elements(specs, grown) > cap:
            break
        sizes = grown
    for name in sizes:
        sizes[name] = _largest(specs, sizes, name, goals[name], cap)
    return sizes


# --- values -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recipe:
    """How to fill an array: ``a``/``b`` are the ends, or mean and standard deviation."""

    fill: Literal["constant", "uniform", "ends", "normal", "below"]
    a: float
    b: float = 0


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of this name; ``bfloat16`` comes from ml_dtypes."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # comes with onnx; only bfloat16 needs it

    bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return bfloat16


def draw(
    spec: InputSpec, sizes: Mapping[str, int], kind: str, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """A C-contiguous array for one input, of its exact dtype and its shape at these sizes.

    Every kind stays within declared ends, and is scaled by a declared mean and standard deviation
    (``zeros`` is then the mean). Without any, floats are standard normal at the kind's scale and
    integers 0 or 1, so that look-ups do not overflow. Drawn integers include both ends.

    Raises:
        ValueError: the kind is not one of ``VALUE_KINDS``.
    """
    if kind not in VALUE_KINDS:
        raise ValueError(f"unknown kind {kind!r}, known are {', '.join(VALUE_KINDS)}")
    dtype = numpy_dtype(spec.dtype)
    shape = tuple(dim.at(sizes) for dim in spec.dims)
    array = _fill(_recipe(spec, kind), shape, _is_whole(dtype), rng)
    if dtype.kind != "b":
        np.clip(array, *_limits(dtype), out=array)
    return array.astype(dtype, copy=False)


def value_kinds(specs: Sequence[InputSpec]) -> tuple[ValueKind, ...]:
    """The kinds worth trying for these inputs, the most telling first, without repetitions.

    ``normal`` is kept beside ``example`` for floats without declared ends: it is a fresh draw.
    """
    unbounded = any(_recipe(spec, "example").fill == "normal" for spec in specs)
    first: dict[tuple[_Recipe, ...], ValueKind] = {}
    for kind in VALUE_KINDS:
        first.setdefault(tuple(_recipe(spec, kind) for spec in specs), kind)
    kept = {*first.values(), "normal"} if unbounded else {*first.values()}
    return tuple(kind for kind in VALUE_KINDS if kind in kept)


def _is_whole(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "biu"


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and greatest finite number of a dtype other than bool."""
    if _is_whole(dtype):
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    finfo: Any = np.finfo
    if dtype.kind != "f":
        import ml_dtypes  # comes with onnx; only bfloat16 needs it

        finfo = ml_dtypes.finfo
    return float(finfo(dtype).min), float(finfo(dtype).max)


def _ends(spec: InputSpec) -> tuple[float, float] | None:
    """The declared ends as the dtype holds them, rounded inward; None without a range."""
    values, dtype = spec.values, numpy_dtype(spec.dtype)
    if values is None or dtype.kind == "b":
        return None
    low, high = values.low, values.high
    if values.kind == "normal":
        if not _is_whole(dtype):
            return None
        low, high = values.low - 3 * values.high, values.low + 3 * values.high
    least, greatest = _limits(dtype)
    low, high = min(max(low, least), greatest), min(max(high, least), greatest)
    if _is_whole(dtype):
        return round(low), round(high)
    near_low, near_high = np.array([low, high], dtype=np.float64).astype(dtype)
    infinity = dtype.type(np.inf)
    above = near_low if float(near_low) >= low else np.nextafter(near_low, infinity)
    below = near_high if float(near_high) <= high else np.nextafter(near_high, -infinity)
    if float(above) > float(below):
        return float(near_low), float(near_high)
    return float(above), float(below)


def _recipe(spec: InputSpec, kind: str) -> _Recipe:
    ends = _ends(spec)
    whole = _is_whole(numpy_dtype(spec.dtype))
    if ends is not None:
        recipe = _bounded(*ends, kind, whole)
        return recipe if recipe.a != recipe.b else _Recipe("constant", recipe.a)
    level = {"zeros": 0.0, "ones": 1.0}.get(kind)
    if whole:
        return _Recipe("uniform", 0, 1) if level is None else _Recipe("constant", int(level))
    mean, std = (0.0, 1.0) if spec.values is None else (spec.values.low, spec.values.high)
    if level is not None:
        return _Recipe("constant", mean + std * level)
    return _Recipe("below" if kind == "negative" else "normal", mean, std * _SCALES.get(kind, 1.0))


def _bounded(low: float, high: float, kind: str, whole: bool) -> _Recipe:
    zero, one = (min(max(level, low), high) for level in (0, 1))
    constant = {"low": low, "high": high, "zeros": zero, "ones": one}.get(kind)
    if constant is not None:
        return _Recipe("constant", constant)
    if kind == "ends" and not (whole and high - low <= 1):
        return _Recipe("ends", low, high)
    if kind == "negative" and low < 0:
        return _Recipe("uniform", low, min(high, -1 if whole else 0.0))
    if kind == "small" and not whole:
        a, b = (zero + (end - zero) * _SCALES[kind] for end in (low, high))
        return _Recipe("uniform", a, b)
    return _Recipe("uniform", low, high)


def _fill(
    recipe: _Recipe, shape: tuple[int, ...], whole: bool, rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """The array in int64 or float64; beyond float64 it is infinite."""
    a, b = recipe.a, recipe.b
    ends = np.array([a, b], dtype=np.int64 if whole else np.float64)
    if recipe.fill == "constant":
        return np.full(shape, ends[0])
    if recipe.fill == "ends":
        return _with_ends(np.asarray(ends[rng.integers(0, 2, size=shape)]), ends, rng)
    if recipe.fill == "uniform" and whole:
        drawn = rng.integers(int(a), int(b), size=shape, dtype=np.int64, endpoint=True)
        return _with_ends(np.asarray(drawn), ends, rng)
    if recipe.fill == "uniform":
        array = np.asarray(rng.random(shape))
        array *= b / 2 - a / 2  # b - a might be infinite
        array += a / 2
        array *= 2
        return np.clip(array, a, b, out=array)
    noise = rng.standard_normal(shape)
    with np.errstate(over="ignore"):
        return np.asarray(a + b * (-np.abs(noise) if recipe.fill == "below" else noise))


def _with_ends(
    array: np.ndarray[Any, Any], ends: np.ndarray[Any, Any], rng: np.random.Generator
) -> np.ndarray[Any, Any]:
    """Put both ends somewhere, if there is room for both."""
    flat = array.reshape(-1)
    if flat.size >= 2:
        first = rng.integers(flat.size)
        flat[[first, (first + 1 + rng.integers(flat.size - 1)) % flat.size]] = ends
    return array
