from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from torch2mobile import probe_sizes, sampling, sizing
from torch2mobile.records import Assumption, Dim, InputSpec, Values

FLOATS = ("float16", "bfloat16", "float32", "float64")
INTS = ("int8", "int16", "int32", "int64", "uint8")
DTYPES = (*FLOATS, *INTS, "bool")


def dim(text: int | str, least: int | None = None, greatest: int | None = None) -> Dim:
    """``dim(3)``, ``dim("N", 1, 8)`` or ``dim("8*h")``."""
    if isinstance(text, int):
        return Dim(size=text)
    factor, _, symbol = text.rpartition("*")
    return Dim(symbol=symbol, factor=int(factor or 1), least=least, greatest=greatest)


def spec(
    *dims: Dim, name: str = "x", dtype: str = "float32", values: Values | None = None
) -> InputSpec:
    return InputSpec(name, (name,), dtype, dims, values)


def elements(specs: list[InputSpec], sizes: Mapping[str, int]) -> int:
    return sum(math.prod(d.at(sizes) for d in each.dims) for each in specs)


# --- sizes of the example ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "sizes"),
    [
        ([], {}),
        ([dim(3)], {}),
        ([dim("N"), dim(3), dim("H"), dim("W")], {"N": 2, "H": 32, "W": 48}),
        ([dim("N", 1, 8), dim("H", 64, 512), dim("W", 64, 512)], {"N": 2, "H": 80, "W": 96}),
        ([dim("N", 4, 8)], {"N": 4}),
        ([dim("N", 0, 1)], {"N": 1}),
        ([dim("N", 1, 2), dim("M", 1, 2)], {"N": 2, "M": 2}),
        ([dim("N"), dim("T", 1, 128)], {"N": 2, "T": 32}),
        ([dim("N"), dim("T", 100)], {"N": 2, "T": 112}),
        ([dim("N"), dim("T", 1)], {"N": 2, "T": 32}),
        ([dim("N"), dim("T", 1, 63)], {"N": 2, "T": 32}),
        ([dim("N"), dim("T", 1, 62)], {"N": 2, "T": 16}),
        ([dim("N"), dim("T", 1, 20)], {"N": 2, "T": 8}),
        ([dim("N"), dim("T", 3, 10)], {"N": 2, "T": 4}),
        ([dim("N"), dim("T", 4, 7)], {"N": 2, "T": 5}),
        ([dim("N"), dim("T", 2, 3)], {"N": 2, "T": 3}),
        ([dim(1), dim("8*h"), dim("8*w", 2, 32)], {"h": 4, "w": 6}),
        ([dim(1), dim("16*h"), dim("100*w")], {"h": 2, "w": 4}),
        ([dim(1), dim("h"), dim("8*h"), dim("2*h")], {"h": 4}),
        ([dim("N"), dim("T"), dim(32)], {"N": 2, "T": 48}),
        ([dim("N"), dim(2)], {"N": 2}),
        ([dim("N"), dim("N"), dim("T")], {"N": 2, "T": 32}),
        ([dim("H", 64, 512), dim("W", 64, 512)], {"H": 64, "W": 80}),
    ],
)
def test_example_sizes(dims: list[Dim], sizes: dict[str, int]) -> None:
    assert sizing.example_sizes([spec(*dims)]) == sizes


def test_every_first_dimension_is_a_batch_and_symbols_are_shared() -> None:
    specs = [spec(dim("N"), dim("T")), spec(dim("K"), dim(4)), spec(dim(7), dim("T"), dim("N"))]
    assert sizing.example_sizes(specs) == {"N": 2, "T": 32, "K": 3}


def test_tight_ranges_get_sizes_of_their_own_if_there_is_a_way() -> None:
    specs = [spec(dim("A", 2, 4)), spec(dim("B", 2, 3)), spec(dim("C", 2, 3))]
    assert sizing.example_sizes(specs)["A"] == 4
    assert sorted(sizing.example_sizes(specs).values()) == [2, 3, 4]


@pytest.mark.parametrize(
    ("ranges", "sizes"),
    [
        # C takes 3 from B, as A cannot leave 2
        ({"A": (2, 2), "B": (2, 9), "C": (2, 3)}, {"A": 2, "B": 4, "C": 3}),
        # E takes 2 from A, A 3 from B, B 4 from C
        (
            {"A": (2, 3), "B": (2, 4), "C": (2, 6), "D": (5, 5), "E": (2, 2)},
            {"A": 3, "B": 4, "C": 6, "D": 5, "E": 2},
        ),
    ],
)
def test_sizes_are_passed_on(ranges: dict[str, tuple[int, int]], sizes: dict[str, int]) -> None:
    specs = [spec(dim(name, *limits), name=name) for name, limits in ranges.items()]
    assert sizing.example_sizes(specs) == sizes


@st.composite
def spec_lists(draw: st.DrawFn, width: int = 1) -> list[InputSpec]:
    """Up to three inputs over up to four symbols, each with one range, as ``resolve`` gives."""
    ranges: dict[str, tuple[int | None, int | None]] = {}
    for symbol in "NHWT"[: draw(st.integers(1, 4))]:
        least = draw(st.none() | st.integers(0, 40))
        greatest = None
        if least is not None:
            greatest = draw(st.none() | st.integers(least + width, least + 600))
        ranges[symbol] = (least, greatest)
    anything = st.integers(1, 64).map(dim) | st.builds(
        lambda symbol, factor: dim(f"{factor}*{symbol}", *ranges[symbol]),
        st.sampled_from(sorted(ranges)),
        st.sampled_from([1, 1, 2, 8, 12]),
    )
    return [
        spec(*draw(st.lists(anything, max_size=3)), name=f"x{index}")
        for index in range(draw(st.integers(1, 3)))
    ]


def ranges_of(specs: list[InputSpec]) -> dict[str, tuple[int | None, int | None]]:
    return {d.symbol: (d.least, d.greatest) for s in specs for d in s.dims if d.symbol is not None}


def in_range(value: int, limits: tuple[int | None, int | None]) -> bool:
    least, greatest = limits
    return value >= (1 if least is None else least) and (greatest is None or value <= greatest)


@given(spec_lists())
def test_example_sizes_suit_the_exporter(specs: list[InputSpec]) -> None:
    sizes = sizing.example_sizes(specs)
    ranges = ranges_of(specs)
    assert list(sizes) == list(ranges)
    for symbol, size in sizes.items():
        assert in_range(size, ranges[symbol])
        least, greatest = ranges[symbol]
        assert size >= 2 or (greatest is not None and greatest < 2)
        if greatest is None and not (least or 0) > 100:
            assert size <= 160
    assert sizing.example_sizes(specs) == sizes


@given(spec_lists(width=5))
def test_example_sizes_differ_where_they_can(specs: list[InputSpec]) -> None:
    sizes = sizing.example_sizes(specs)
    assert len(set(sizes.values())) == len(sizes)


# --- sizes to probe ---------------------------------------------------------------------------

AMPLE = 10**9


def test_size_cases_of_an_image() -> None:
    specs = [spec(dim("N", 1, 8), dim(3), dim("H", 64, 512), dim("W"))]
    base = {"N": 2, "H": 80, "W": 32}
    assert probe_sizes.size_cases(specs, base, AMPLE) == [
        ("N=1", {**base, "N": 1}, True),
        ("N=8", {**base, "N": 8}, True),
        ("N=3", {**base, "N": 3}, True),
        ("H=64", {**base, "H": 64}, True),
        ("H=512", {**base, "H": 512}, True),
        ("H=107", {**base, "H": 107}, True),
        ("W=1", {**base, "W": 1}, False),
        ("W=65", {**base, "W": 65}, False),
        ("W=43", {**base, "W": 43}, False),
        ("all least", {"N": 1, "H": 64, "W": 1}, False),
        ("all greatest", {"N": 8, "H": 512, "W": 65}, False),
    ]


def test_greatest_sizes_shrink_to_the_budget() -> None:
    specs = [spec(dim("N", 1, 8), dim("H", 4, 100)), spec(dim("H", 4, 100))]
    base = {"N": 2, "H": 8}
    budget = 99
    cases = {label: sizes for label, sizes, _ in probe_sizes.size_cases(specs, base, budget)}
    assert cases["H=33"] == {"N": 2, "H": 33}  # 2 * 33 + 33 = 99
    assert cases["N=8"] == {"N": 8, "H": 8}  # 8 * 8 + 8 = 72
    assert "H=100" not in cases
    most = cases["all greatest in budget"]
    assert elements(specs, most) <= budget
    assert most["N"] > 2
    assert most["H"] > 8
    for symbol in most:
        assert elements(specs, {**most, symbol: most[symbol] + 1}) > budget or (
            most[symbol] == ranges_of(specs)[symbol][1]
        )


def test_a_budget_below_the_example_still_probes_smaller_sizes() -> None:
    specs = [spec(dim("N", 1, 8), dim("H", 4, 100))]
    cases = probe_sizes.size_cases(specs, {"N": 4, "H": 50}, 0)
    assert [label for label, _, _ in cases] == ["N=1", "N=3", "H=4", "H=33", "all least"]


def test_symbols_grow_evenly_to_the_budget() -> None:
    specs = [spec(dim("A", 1, 1000), dim("B", 1, 1000))]
    *_, (label, sizes, declared) = probe_sizes.size_cases(specs, {"A": 10, "B": 10}, 10000)
    assert (label, declared) == ("all greatest in budget", True)
    assert min(sizes.values()) > 80
    assert 9900 < sizes["A"] * sizes["B"] <= 10000


def test_no_symbols_no_cases() -> None:
    assert probe_sizes.size_cases([spec(dim(2), dim(3))], {}, AMPLE) == []


def test_one_symbol_is_not_probed_twice() -> None:
    cases = probe_sizes.size_cases([spec(dim("N"), dim(3))], {"N": 2}, AMPLE)
    assert [label for label, _, _ in cases] == ["N=1", "N=5", "N=3"]
    assert [declared for _, _, declared in cases] == [False] * 3


@pytest.mark.parametrize(
    ("limits", "example", "labels"),
    [
        ((4, 7), 5, ["T=4", "T=7"]),  # no other odd size
        ((8, 12), 9, ["T=8", "T=12", "T=11"]),
        ((8, 12), 11, ["T=8", "T=12", "T=9"]),
    ],
)
def test_odd_sizes_in_narrow_ranges(
    limits: tuple[int, int], example: int, labels: list[str]
) -> None:
    cases = probe_sizes.size_cases([spec(dim(1), dim("T", *limits))], {"T": example}, AMPLE)
    assert [label for label, _, _ in cases] == labels


def test_batch_one_is_probed_besides_a_declared_least_of_zero() -> None:
    cases = probe_sizes.size_cases(
        [spec(dim("N", 0, 8)), spec(dim(2), dim("T", 0, 8))], {"N": 2, "T": 2}, AMPLE
    )
    labels = [label for label, _, _ in cases]
    assert labels[:2] == ["N=0", "N=1"]
    assert "T=0" in labels
    assert "T=1" not in labels


def test_batch_one_is_not_probed_below_the_declared_least() -> None:
    cases = probe_sizes.size_cases([spec(dim("N", 2, 8))], {"N": 2}, AMPLE)
    assert [label for label, _, _ in cases] == ["N=8", "N=3"]


def test_a_range_without_upper_bound_is_declared() -> None:
    cases = probe_sizes.size_cases([spec(dim(1), dim("T", 4))], {"T": 32}, AMPLE)
    assert [(label, declared) for label, _, declared in cases] == [
        ("T=4", True),
        ("T=65", True),
        ("T=43", True),
    ]


def assumption(text: str, *symbols: str) -> Assumption:
    return Assumption(text, symbols, lambda sizes: bool(eval(text, {}, dict(sizes))))


@pytest.mark.parametrize(
    ("text", "symbols", "greatest", "labels"),
    [
        ("N != 7", ["N"], 99, ["N=7"]),
        ("N % 2 == 0", ["N"], 99, ["N=1", "N=11"]),
        ("N < 4000", ["N"], 10**6, ["N=4000"]),
        ("N != T", ["N", "T"], 99, ["N=19, T=19"]),
        ("N >= 1", ["N"], 99, []),
        ("N != 7", ["N"], None, ["N=7"]),
    ],
)
def test_sizes_at_which_something_assumed_is_not_so(
    text: str, symbols: list[str], greatest: int | None, labels: list[str]
) -> None:
    specs = [spec(dim("N", 1, greatest), dim("T", 1, greatest))]
    base, assumed = {"N": 10, "T": 32}, assumption(text, *symbols)
    usual = {label for label, _, _ in probe_sizes.size_cases(specs, base, 2000)}
    cases = probe_sizes.size_cases(specs, base, 2000, [assumed])
    new = [label for label, _, _ in cases if label not in usual]
    # The probes that are there anyway may have some of them.
    assert new == [label for label in labels if label not in usual]
    found = probe_sizes.exception(specs, base, assumed)
    assert (found is None) == (not labels)
    assert found is None or not assumed.holds({**base, **found})


@given(spec_lists(), st.integers(0, 10**6), st.data())
def test_size_cases_keep_to_ranges_and_budget(
    specs: list[InputSpec], budget: int, data: st.DataObject
) -> None:
    ranges = ranges_of(specs)
    example = sizing.example_sizes(specs)
    if data.draw(st.booleans()):
        example = {
            symbol: data.draw(st.integers(max(1, low or 1), 300 if high is None else high))
            for symbol, (low, high) in ranges.items()
            if low is None or low <= 300
        }
    cases = probe_sizes.size_cases(specs, example, budget)
    cap = max(budget, elements(specs, example))
    seen = [tuple(sizes[symbol] for symbol in ranges) for _, sizes, _ in cases]
    assert len(set(seen)) == len(seen)
    assert len({label for label, _, _ in cases}) == len(cases)
    for label, sizes, declared in cases:
        assert sizes != example
        assert list(sizes) == list(ranges)
        assert elements(specs, sizes) <= cap
        assert all(in_range(size, ranges[symbol]) for symbol, size in sizes.items())
        changed = [symbol for symbol in ranges if sizes[symbol] != example[symbol]]
        if not label.startswith("all "):
            assert label == f"{changed[0]}={sizes[changed[0]]}"
            assert len(changed) == 1
            assert declared == (ranges[changed[0]] != (None, None))
        elif declared:
            assert all(limits != (None, None) for limits in ranges.values())


@given(spec_lists())
def test_size_cases_reach_every_end(specs: list[InputSpec]) -> None:
    ranges = ranges_of(specs)
    example = sizing.example_sizes(specs)
    cases = [sizes for _, sizes, _ in probe_sizes.size_cases(specs, example, 10**30)]
    batch = {s.dims[0].symbol for s in specs if s.dims}
    for symbol, (least, greatest) in ranges.items():
        probed = {sizes[symbol] for sizes in [*cases, example]}
        assert (1 if least is None else least) in probed
        assert greatest is None or greatest in probed
        if symbol in batch and (least is None or least <= 1):
            assert 1 in probed
        others = {size for size in probed if size != example[symbol]}
        if greatest is None or greatest - (least or 0) >= 4:
            assert any(size % 2 for size in others)
    if ranges:
        smallest = {s: 1 if low is None else low for s, (low, _) in ranges.items()}
        assert smallest in [*cases, example]


# --- arrays -----------------------------------------------------------------------------------


def drawn(each: InputSpec, kind: str, seed: int = 0, **sizes: int) -> np.ndarray[Any, Any]:
    return sampling.draw(each, sizes, kind, np.random.default_rng(seed))


@st.composite
def value_specs(
    draw: st.DrawFn,
    dtypes: tuple[str, ...] = DTYPES,
    kinds: tuple[str | None, ...] = (None, "range", "uniform", "normal"),
    least: int = 1,
) -> InputSpec:
    dtype = draw(st.sampled_from(dtypes))
    kind = draw(st.sampled_from(kinds))
    values = None
    if dtype in INTS and kind is not None:
        info = np.iinfo(dtype)
        ends = sorted(draw(st.tuples(*[st.integers(int(info.min), int(info.max))] * 2)))
        values = Values("range", *ends)
    elif dtype in FLOATS and kind == "normal":
        values = Values("normal", draw(st.floats(-1e3, 1e3)), draw(st.floats(1e-3, 1e3)))
    elif dtype in FLOATS and kind is not None:
        limit = 65504.0 if dtype == "float16" else 3e38
        low, high = sorted(draw(st.tuples(*[st.floats(-limit, limit)] * 2)))
        values = Values("uniform" if kind == "uniform" else "range", low, high)
    return spec(
        *map(dim, draw(st.lists(st.integers(least, 6), min_size=least - 1, max_size=4))),
        dtype=dtype,
        values=values,
    )


def rounds_to(value: float, dtype: np.dtype[Any]) -> list[float]:
    """The dtype's number nearest to a value, and both of that number's neighbours."""
    near = np.array(value).astype(dtype)
    with np.errstate(over="ignore"):
        neighbours = [np.nextafter(near, dtype.type(end)) for end in (-np.inf, np.inf)]
    return [float(near), *map(float, neighbours)]


@given(value_specs(), st.sampled_from(sampling.VALUE_KINDS), st.integers(0, 2**32))
def test_arrays_are_exact_in_form_and_range(each: InputSpec, kind: str, seed: int) -> None:
    array = drawn(each, kind, seed)
    assert isinstance(array, np.ndarray)
    assert array.dtype == sampling.numpy_dtype(each.dtype)
    assert array.shape == tuple(d.size for d in each.dims)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    if each.dtype in FLOATS:
        assert np.isfinite(array.astype(np.float64)).all()
    again = drawn(each, kind, seed)
    assert array.tobytes() == again.tobytes()
    values = each.values
    if values is None or values.kind == "normal":
        return
    numbers = [v.item() if each.dtype in INTS else float(v) for v in array.reshape(-1)]
    representable = each.dtype in INTS or any(
        values.low <= near <= values.high
        for end in (values.low, values.high)
        for near in rounds_to(end, array.dtype)
    )
    if representable:
        assert all(values.low <= number <= values.high for number in numbers)
    else:  # nothing lies between the ends: both round to a neighbour
        assert {*numbers} <= {*rounds_to(values.low, array.dtype)}


@given(
    value_specs(INTS, least=2),
    st.sampled_from(["example", "normal", "ends", "wide"]),
    st.integers(0, 2**32),
)
def test_whole_numbers_include_both_ends(each: InputSpec, kind: str, seed: int) -> None:
    array = drawn(each, kind, seed)
    low, high = (0, 1) if each.values is None else (each.values.low, each.values.high)
    assert (array.min(), array.max()) == (low, high)


BIG = spec(dim("N"), dim(100))


def moments(array: np.ndarray[Any, Any]) -> tuple[float, float]:
    return float(array.mean()), float(array.std())


@pytest.mark.parametrize(
    ("kind", "std"),
    [("example", 1.0), ("normal", 1.0), ("small", 1e-3), ("wide", 10.0), ("large", 1e4)],
)
def test_undeclared_floats_are_normal_at_the_kinds_scale(kind: str, std: float) -> None:
    mean, found = moments(drawn(BIG, kind, N=200))
    assert abs(mean) < 0.05 * std
    assert found == pytest.approx(std, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [("example", 50, 2), ("small", 50, 0.002), ("wide", 50, 20), ("zeros", 50, 0), ("ones", 52, 0)],
)
def test_a_declared_normal_moves_and_scales_every_kind(kind: str, mean: float, std: float) -> None:
    array = drawn(spec(dim(20000), dtype="float64", values=Values("normal", 50, 2)), kind)
    found = moments(array)
    assert found[0] == pytest.approx(mean, abs=0.05 * std)
    assert found[1] == pytest.approx(std, rel=0.05)


def test_negative_floats() -> None:
    array = drawn(BIG, "negative", N=200)
    assert (array <= 0).all()
    assert float(array.mean()) == pytest.approx(-math.sqrt(2 / math.pi), rel=0.05)
    below = drawn(spec(dim(1000), values=Values("normal", 5, 2)), "negative")
    assert below.max() <= 5
    assert below.min() < 3


def test_zeros_and_ones() -> None:
    for dtype in DTYPES:
        each = spec(dim(2), dim(3), dtype=dtype)
        assert drawn(each, "zeros").astype(np.float64).tolist() == [[0.0] * 3] * 2
        assert drawn(each, "ones").astype(np.float64).tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("dtype", FLOATS)
def test_float_ranges(dtype: str) -> None:
    each = spec(dim(1000), dtype=dtype, values=Values("uniform", -2, 6))
    example = drawn(each, "example").astype(np.float64)
    assert example.mean() == pytest.approx(2, abs=0.5)
    assert example.std() == pytest.approx(8 / math.sqrt(12), rel=0.1)
    assert {*drawn(each, "low").astype(np.float64)} == {-2.0}
    assert {*drawn(each, "high").astype(np.float64)} == {6.0}
    ends = drawn(each, "ends").astype(np.float64)
    assert {*ends} == {-2.0, 6.0}
    assert ends.mean() == pytest.approx(2, abs=0.5)
    assert {*drawn(each, "zeros").astype(np.float64)} == {0.0}
    assert {*drawn(each, "ones").astype(np.float64)} == {1.0}
    small = drawn(each, "small").astype(np.float64)
    assert small.min() == pytest.approx(-0.002, rel=0.1)
    assert small.max() == pytest.approx(0.006, rel=0.1)
    negative = drawn(each, "negative").astype(np.float64)
    assert negative.max() <= 0
    assert negative.min() == pytest.approx(-2, rel=0.1)


def test_kinds_are_clipped_into_a_range_without_zero() -> None:
    each = spec(dim(50), values=Values("range", 5, 9))
    assert {*drawn(each, "zeros")} == {5}
    assert {*drawn(each, "ones")} == {5}
    small = drawn(each, "small")
    assert 5 <= small.min() < small.max() <= 5.004 + 1e-6


def test_declared_ends_round_inward() -> None:
    each = spec(dim(3), dtype="float16", values=Values("range", 1e-8, 0.1))
    assert float(drawn(each, "low")[0]) == 2.0**-24  # not 0, which 1 / x would not survive
    assert float(np.float16(0.1)) < 0.1
    assert drawn(each, "high")[0] == np.float16(0.1)
    above = spec(dim(3), values=Values("range", 0.1, 0.2))
    assert float(np.float32(0.2)) > 0.2
    assert drawn(above, "high")[0] == np.nextafter(np.float32(0.2), np.float32(0))
    point = spec(dim(3), values=Values("range", 0.1, 0.1))
    assert {*drawn(point, "example")} == {np.float32(0.1)}


def test_extreme_ranges_do_not_overflow() -> None:
    most = sys.float_info.max
    wide = drawn(spec(dim(100), dtype="float64", values=Values("range", -most, most)), "example")
    assert np.isfinite(wide).all()
    assert wide.min() < 0 < wide.max()
    huge = drawn(spec(dim(100), dtype="float64", values=Values("normal", 0, most)), "large")
    assert np.isfinite(huge).all()
    half = drawn(spec(dim(9999), dtype="float16", values=Values("normal", 0, 100)), "large")
    assert {float(half.min()), float(half.max())} == {-65504.0, 65504.0}
    whole = drawn(spec(dim(9), dtype="int64", values=Values("range", -(2**63), 2**63 - 1)), "ends")
    assert {*whole.tolist()} == {-(2**63), 2**63 - 1}


def test_whole_number_ranges() -> None:
    each = spec(dim(5000), dtype="int64", values=Values("range", -3, 4))
    counts = np.bincount(drawn(each, "example") + 3)
    assert len(counts) == 8
    assert counts == pytest.approx([625] * 8, rel=0.2)
    assert {*drawn(each, "negative").tolist()} == {-3, -2, -1}
    assert {*drawn(each, "ends").tolist()} == {-3, 4}
    assert {*drawn(each, "low").tolist()} == {-3}
    assert {*drawn(each, "high").tolist()} == {4}
    spread = spec(dim(5000), dtype="int32", values=Values("normal", 10, 2))
    assert {*drawn(spread, "example").tolist()} == {*range(4, 17)}


def test_undeclared_whole_numbers_are_safe_for_a_look_up() -> None:
    for dtype in INTS:
        for kind in sampling.VALUE_KINDS:
            assert {*drawn(spec(dim(20), dtype=dtype), kind).tolist()} <= {0, 1}


COUNTED = Dim(symbol="T", least=1, greatest=9)
FORMS = [
    (Values("padding"), "int64"),
    (Values("padding", side="left"), "bool"),
    (Values("causal"), "bool"),
    (Values("causal"), "float32"),
    (Values("lengths", of=COUNTED), "int32"),
    (Values("offsets", of=COUNTED), "int64"),
    (Values("sorted"), "float32"),
    (Values("sorted", 0, 9), "int64"),
    (Values("one-hot"), "float32"),
    (Values("nonzero"), "float32"),
    (Values("nonzero", -3, 3), "int64"),
    (Values("choice", numbers=(2, 5)), "uint8"),
    (Values("choice", numbers=(True,)), "bool"),
]


def is_sorted(array: np.ndarray[Any, Any]) -> bool:
    return bool((array[:, :-1] <= array[:, 1:]).all())


def has_form(array: np.ndarray[Any, Any], values: Values, count: int) -> bool:
    """Whether an array of two dimensions is of the form, told in another way than it is drawn."""
    if values.kind == "padding":
        ordered = array[:, ::-1] if values.side == "left" else array
        return bool(array.any(axis=-1).all()) and is_sorted(-ordered.astype(int))
    if values.kind == "causal":
        hidden = -np.inf if array.dtype.kind == "f" else 0
        seen = 0 if array.dtype.kind == "f" else 1
        places = itertools.product(*map(range, array.shape))
        ahead = array.shape[1] - array.shape[0]
        return all(array[r, c] == (seen if c <= r + max(ahead, 0) else hidden) for r, c in places)
    found = {
        "lengths": (array >= 1) & (array <= count),
        "offsets": is_sorted(array) and not array[:, 0].any() and array < count,
        "sorted": is_sorted(array),
        "one-hot": array.astype(float).sum(-1) == 1,
        "nonzero": array != 0,
        "choice": np.isin(array, values.numbers),
    }
    return bool(np.all(found[values.kind]))


@pytest.mark.parametrize(("values", "dtype"), FORMS)
def test_values_of_a_form_keep_it_in_every_kind_of_probe(values: Values, dtype: str) -> None:
    each = InputSpec("x", ("x",), dtype, (Dim(symbol="N"), Dim(symbol="C")), values)
    drawn = []
    for kind, rows, columns in itertools.product(sampling.VALUE_KINDS, (1, 4), (1, 4, 7)):
        sizes = {"N": rows, "C": columns, "T": 5}
        array = sampling.draw(each, sizes, kind, np.random.default_rng(1))
        assert (array.shape, str(array.dtype)) == ((rows, columns), dtype)
        assert has_form(array, values, 5), (kind, array)
        low, high = sampling.bounds(each)
        declared = dtype == "bool" or sampling.promised(each) is not None
        assert not declared or bool(((array >= low) & (array <= high)).all())
        drawn.append(array.tobytes())
    fixed = values.kind == "causal" or len(values.numbers) == 1
    assert fixed or len(set(drawn)) > 6  # other values, and not only other shapes
    assert sampling.draw(each, {"N": 2, "C": 0, "T": 0}, "ones", np.random.default_rng(1)).size == 0


@pytest.mark.parametrize("values", [None, Values("range", 0, 1)])
def test_bools_are_mixed(values: Values | None) -> None:
    each = spec(dim(2), dtype="bool", values=values)
    assert {*drawn(each, "example").tolist()} == {False, True}
    assert {*drawn(spec(dim(50), dtype="bool", values=values), "low").tolist()} == {False, True}


def test_scalars_and_empty_arrays() -> None:
    for dtype in DTYPES:
        for kind in sampling.VALUE_KINDS:
            assert drawn(spec(dtype=dtype), kind).shape == ()
            assert drawn(spec(dim("N"), dim(3), dtype=dtype), kind, N=0).shape == (0, 3)


def test_shapes_follow_the_symbols() -> None:
    assert drawn(spec(dim("N"), dim("8*h"), dim(3)), "example", N=2, h=5).shape == (2, 40, 3)


def test_bfloat16_is_that_of_ml_dtypes() -> None:
    assert drawn(spec(dim(2), dtype="bfloat16"), "example").dtype == np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("kind", ["example", "normal", "small", "wide", "large", "negative"])
def test_seeds_matter(kind: str) -> None:
    assert (drawn(BIG, kind, seed=1, N=2) != drawn(BIG, kind, seed=2, N=2)).any()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown kind 'zero', known are example, low"):
        drawn(spec(dim(2)), "zero")


# --- kinds worth trying -----------------------------------------------------------------------

UNBOUNDED = ("example", "normal", "zeros", "ones", "negative", "small", "wide", "large")


@pytest.mark.parametrize(
    ("specs", "kinds"),
    [
        ([], ("example",)),
        ([spec(dim(4))], UNBOUNDED),
        ([spec(dim(4), values=Values("normal", 5, 2))], UNBOUNDED),
        (
            [spec(dim(4), values=Values("uniform", 0, 1))],
            ("example", "low", "high", "ends", "small"),
        ),
        ([spec(dim(4), values=Values("range", 5, 9))], ("example", "low", "high", "ends", "small")),
        (
            [spec(dim(4), values=Values("range", -2, 2))],
            ("example", "low", "high", "ends", "zeros", "ones", "negative", "small"),
        ),
        ([spec(dim(4), values=Values("range", 3, 3))], ("example",)),
        ([spec(dim(4), dtype="int64")], ("example", "zeros", "ones")),
        ([spec(dim(4), dtype="bool"), spec(dtype="uint8")], ("example", "zeros", "ones")),
        (
            [spec(dim(4), dtype="int64", values=Values("range", 0, 30521))],
            ("example", "low", "high", "ends", "ones"),
        ),
        ([spec(dtype="int64", values=Values("range", 0, 1))], ("example", "low", "high")),
        (
            [spec(dtype="int64", values=Values("range", 0, 2))],
            ("example", "low", "high", "ends", "ones"),
        ),
        (
            [spec(dtype="int64", values=Values("range", -5, 5))],
            ("example", "low", "high", "ends", "zeros", "ones", "negative"),
        ),
        ([spec(dim(4)), spec(dim(4), dtype="int64")], UNBOUNDED),
        (
            [spec(dim(4)), spec(dim(4), dtype="int64", values=Values("range", 0, 9))],
            ("example", "low", "high", "ends", *UNBOUNDED[1:]),
        ),
    ],
)
def test_value_kinds(specs: list[InputSpec], kinds: tuple[str, ...]) -> None:
    assert sampling.value_kinds(specs) == kinds


@given(st.lists(value_specs((*FLOATS, *INTS), ("range", "uniform")), min_size=1, max_size=3))
def test_kinds_that_fill_with_one_number_do_not_repeat(specs: list[InputSpec]) -> None:
    kinds = sampling.value_kinds(specs)
    assert kinds[0] == "example"
    assert sorted(kinds, key=sampling.VALUE_KINDS.index) == list(kinds)
    filled = [kind for kind in kinds if kind in ("low", "high", "zeros", "ones")]
    arrays = {tuple(drawn(each, kind).tobytes() for each in specs) for kind in filled}
    assert len(arrays) == len(filled)


def test_sampling_needs_no_torch() -> None:
    code = "import sys, torch2mobile.sampling; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int64", Values("choice", numbers=(1, 2, 5))),
        ("bool", Values("choice", numbers=(0,))),
        ("int64", Values("lengths", of=Dim(size=7))),
    ],
)
def test_a_scalar_of_a_form_has_no_dimension(dtype: str, values: Values) -> None:
    spec = InputSpec("mode", ("mode",), dtype, (), values)
    drawn = sampling.draw(spec, {}, "example", np.random.default_rng(0))
    assert (drawn.shape, str(drawn.dtype)) == ((), dtype)
