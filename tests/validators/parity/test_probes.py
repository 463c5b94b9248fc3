"""The inputs to compare on: seeded, at the ends of what is declared, and within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch2mobile import sampling, sizing
from torch2mobile.records import Dim, InputSpec, ParityOptions, Values
from torch2mobile.validators.parity import probes
from torch2mobile.validators.parity.probes import Probe

BATCH = Dim(symbol="N")
IMAGE = InputSpec("image", ("image",), "float32", (BATCH, Dim(size=3), Dim(symbol="H", least=4)))
IDS = InputSpec(
    "ids", ("ids",), "int64", (BATCH, Dim(symbol="T", least=2, greatest=9)), Values("range", 0, 30)
)
SCALED = InputSpec("x", ("x",), "float32", (BATCH, Dim(size=5)), Values("uniform", -2, 3))


def example_of(*specs: InputSpec, **sizes: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(99)
    given_sizes = sizing.example_sizes(specs) | sizes
    return {spec.name: sampling.draw(spec, given_sizes, "example", rng) for spec in specs}


def build(
    *specs: InputSpec,
    data: Any = (),
    sizes: Mapping[str, int] | None = None,
    work: int = 0,
    **options: Any,
) -> list[Probe]:
    example = example_of(*specs, **(sizes or {}))
    return probes.build(specs, example, ParityOptions(**options), data, work=work)


def labels(found: list[Probe]) -> list[str]:
    return [probe.label for probe in found]


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


class TestSeeds:
    def test_the_same_seed_gives_the_same_probes(self) -> None:
        first, second = build(IMAGE, IDS, seed=7), build(IMAGE, IDS, seed=7)
        assert labels(first) == labels(second)
        assert all(same(a.feeds, b.feeds) for a, b in zip(first, second, strict=True))

    def test_another_seed_gives_others(self) -> None:
        first = {p.label: p.feeds for p in build(SCALED, seed=1)}
        second = {p.label: p.feeds for p in build(SCALED, seed=2)}
        assert same(first["example"], second["example"])
        changed = [label for label in first if not same(first[label], second[label])]
        constants = {"example", "low", "high", "zeros", "ones"}
        assert set(changed) == set(first) - constants

    def test_the_number_of_probes_does_not_change_their_values(self) -> None:
        few = {p.label: p.feeds for p in build(IMAGE, IDS, probes=3)}
        many = {p.label: p.feeds for p in build(IMAGE, IDS, probes=20)}
        assert few.keys() < many.keys()
        assert all(same(few[label], many[label]) for label in few)

    def test_nor_does_what_the_caller_has_drawn_before(self) -> None:
        first = build(IMAGE)
        np.random.default_rng().standard_normal(100)
        np.random.rand(10)
        assert all(same(a.feeds, b.feeds) for a, b in zip(first, build(IMAGE), strict=True))

    def test_no_two_probes_are_equal(self) -> None:
        found = build(IMAGE, IDS, probes=15)
        for number, one in enumerate(found):
            assert not any(same(one.feeds, other.feeds) for other in found[:number])


class TestCount:
    def test_the_example_is_first_and_as_given(self) -> None:
        example = example_of(IMAGE)
        found = probes.build([IMAGE], example, ParityOptions())
        assert found[0].label == "example"
        assert found[0].feeds is example

    @pytest.mark.parametrize("count", [0, 1, 5, 8, 30])
    def test_the_option_is_the_number_of_value_probes(self, count: int) -> None:
        sized = {"N", "H", "all"}
        values = [
            probe
            for probe in build(IMAGE, probes=count)[1:]
            if probe.label.split("=")[0].split()[0] not in sized
        ]
        assert len(values) == count

    def test_after_one_of_each_kind_come_fresh_draws(self) -> None:
        found = labels(build(IMAGE, probes=12))
        assert found[1:8] == ["normal", "zeros", "ones", "negative", "small", "wide", "large"]
        assert found[8:13] == [f"random {n}" for n in range(1, 6)]

    def test_sizes_are_probed_even_without_values(self) -> None:
        assert "N=1" in labels(build(IMAGE, probes=0))


class TestSizes:
    def shapes(self, *specs: InputSpec, **options: Any) -> dict[str, list[tuple[int, ...]]]:
        return {
            probe.label: [probe.feeds[spec.name].shape for spec in specs]
            for probe in build(*specs, **options)
        }

    def test_batch_1_is_always_there(self) -> None:
        declared = replace(IMAGE, dims=(Dim(symbol="N", least=1, greatest=8), *IMAGE.dims[1:]))
        for spec in (IMAGE, IDS, SCALED, declared):
            (found,) = self.shapes(spec)["N=1"]
            assert found[0] == 1

    def test_but_not_where_it_is_declared_out(self) -> None:
        spec = replace(IMAGE, dims=(Dim(symbol="N", least=2, greatest=8), *IMAGE.dims[1:]))
        assert all(probe.feeds["image"].shape[0] >= 2 for probe in build(spec))

    def test_both_ends_and_an_odd_size_between(self) -> None:
        lengths = {probe.feeds["ids"].shape[1] for probe in build(IDS)}
        assert {2, 9} <= lengths
        example = build(IDS)[0].feeds["ids"].shape[1]
        assert any(size % 2 and 2 < size < 9 and size != example for size in lengths)

    def test_the_same_symbol_has_the_same_size_in_every_input(self) -> None:
        for probe in build(IMAGE, IDS):
            assert probe.feeds["image"].shape[0] == probe.feeds["ids"].shape[0]

    def test_a_multiple_of_a_symbol_stays_one(self) -> None:
        dims = (BATCH, Dim(symbol="h", factor=16, least=1, greatest=5))
        spec = InputSpec("x", ("x",), "float32", dims)
        widths = {probe.feeds["x"].shape[1] for probe in build(spec)}
        assert {16, 80} <= widths
        assert all(width % 16 == 0 for width in widths)

    def test_declared_ranges_must_be_taken_undeclared_ones_need_not(self) -> None:
        by_label = {probe.label: probe.declared for probe in build(IDS, IMAGE)}
        assert by_label["T=2"]
        assert by_label["T=9"]
        assert not by_label["N=1"]
        assert by_label["example"]
        assert all(by_label[f"only {name}"] for name in ("ids", "image"))

    def test_a_declared_4096_stays_within_the_budget(self) -> None:
        dims = (BATCH, Dim(size=3), *(Dim(symbol=s, least=8, greatest=4096) for s in "HW"))
        spec = InputSpec("x", ("x",), "float32", dims)
        found = build(spec)
        sizes = [probe.feeds["x"].size for probe in found]
        assert max(sizes) <= max(probes.ELEMENT_BUDGET, 2 * sizes[0])
        assert max(probe.feeds["x"].shape[2] for probe in found) > found[0].feeds["x"].shape[2]

    def test_a_large_example_raises_the_budget_to_twice_its_own(self) -> None:
        big = {"N": 2, "H": probes.ELEMENT_BUDGET}
        found = build(IMAGE, sizes=big)
        own = found[0].feeds["image"].size
        assert own > probes.ELEMENT_BUDGET
        assert own < max(probe.feeds["image"].size for probe in found) <= 2 * own

    def test_fixed_sizes_have_one_shape(self) -> None:
        spec = InputSpec("x", ("x",), "float32", (Dim(size=2), Dim(size=3)))
        assert {probe.feeds["x"].shape for probe in build(spec)} == {(2, 3)}

    def test_a_scalar_input(self) -> None:
        spec = InputSpec("x", ("x",), "float32", ())
        assert all(probe.feeds["x"].shape == () for probe in build(spec))


class TestValues:
    def test_the_ends_of_a_declared_range(self) -> None:
        by_label = {probe.label: probe.feeds["x"] for probe in build(SCALED, probes=12)}
        assert np.unique(by_label["low"]) == [-2]
        assert np.unique(by_label["high"]) == [3]
        assert np.unique(by_label["ends"]).tolist() == [-2, 3]
        assert all((array >= -2).all() and (array <= 3).all() for array in by_label.values())

    def test_the_ends_of_a_vocabulary(self) -> None:
        by_label = {probe.label: probe.feeds["ids"] for probe in build(IDS)}
        assert np.unique(by_label["low"]) == [0]
        assert np.unique(by_label["high"]) == [30]
        assert all(array.dtype == np.int64 for array in by_label.values())

    def test_undeclared_floats_are_tried_at_several_scales(self) -> None:
        peaks = {p.label: float(np.abs(p.feeds["image"]).max()) for p in build(IMAGE)}
        assert peaks["small"] < 0.01
        assert 10 < peaks["wide"] < 100
        assert peaks["large"] > 1e4
        assert peaks["zeros"] == 0
        assert next(p for p in build(IMAGE) if p.label == "negative").feeds["image"].max() <= 0

    def test_only_what_is_far_from_the_ordinary_is_extreme(self) -> None:
        extreme = {probe.label for probe in build(IMAGE, IDS, probes=12) if probe.extreme}
        assert extreme == {"wide", "large"}
        # Within a declared range nothing is.
        assert not any(probe.extreme for probe in build(SCALED, probes=12))

    def test_a_probe_knows_how_large_its_values_are(self) -> None:
        by_label = {probe.label: probe.magnitude for probe in build(IMAGE, probes=9)}
        assert by_label["large"] > by_label["wide"] > 1 > by_label["small"] > 0
        others = by_label.keys() - {"large", "wide", "small"}
        assert {by_label[label] for label in others} == {1.0}


class TestWork:
    """A module that takes long to run is run on fewer and smaller inputs."""

    batch = Dim(symbol="N", least=1, greatest=4)
    tokens = InputSpec(
        "ids",
        ("ids",),
        "int64",
        (batch, Dim(symbol="L", least=1, greatest=128)),
        Values("range", 0, 9),
    )

    def test_other_values_are_tried_at_batch_1(self) -> None:
        light, heavy = build(self.tokens, work=10**8), build(self.tokens, work=10**10)
        usual = light[0].shapes
        for found, shapes in ((light, usual), (heavy, ((1, *usual[0][1:]),))):
            assert found[0].shapes == usual
            assert {p.shapes for p in found if p.label.startswith("random")} == {shapes}

    @pytest.mark.parametrize(
        "batch",
        [
            pytest.param(Dim(symbol="N", least=2, greatest=4), id="never 1"),
            pytest.param(Dim(symbol="N"), id="not declared"),
            pytest.param(Dim(size=2), id="fixed"),
        ],
    )
    def test_but_not_where_1_may_be_refused(self, batch: Dim) -> None:
        found = build(replace(self.tokens, dims=(batch, *self.tokens.dims[1:])), work=10**10)
        assert {p.shapes[0][0] for p in found if p.label.startswith("random")} == {2}

    def test_nor_where_the_inputs_lead_with_different_sizes(self) -> None:
        other = InputSpec(
            "y", ("y",), "float32", (Dim(symbol="M", least=1, greatest=4), Dim(size=5))
        )
        found = build(self.tokens, other, work=10**10)
        assert all(p.shapes[0][0] > 1 for p in found if p.label.startswith("random"))

    def test_fewer_sizes_in_between(self) -> None:
        counts = [len(build(self.tokens, work=work)) for work in (0, 10**9, 10**10, 10**12)]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > 64
        assert counts[-1] < 32

    def test_all_that_was_declared_is_tried_where_it_can_be_paid(self) -> None:
        ends = [(4, 128), (1, 1)]
        found = {p.shapes[0] for p in build(self.tokens, work=5 * 10**9)}
        assert found.issuperset(ends)
        dear = {p.shapes[0] for p in build(self.tokens, work=10**13)}
        example = build(self.tokens)[0].shapes[0]
        assert max(np.prod(shape) for shape in dear) <= 2 * np.prod(example)


class TestOneInputAlone:
    def test_each_input_is_varied_while_the_others_stay(self) -> None:
        found = build(IMAGE, IDS, SCALED)
        example = found[0].feeds
        alone = {probe.varies: probe for probe in found if probe.varies}
        assert list(alone) == ["image", "ids", "x"]
        for name, probe in alone.items():
            assert probe.label == f"only {name}"
            assert not np.array_equal(probe.feeds[name], example[name])
            assert all(probe.feeds[other] is example[other] for other in example if other != name)

    def test_one_input_needs_no_such_probe(self) -> None:
        assert not any(probe.varies for probe in build(IMAGE))

    def test_the_order_of_the_inputs_is_kept(self) -> None:
        assert all(list(probe.feeds) == ["ids", "image"] for probe in build(IDS, IMAGE))


class TestData:
    def test_real_data_are_probes(self) -> None:
        cases = [example_of(IMAGE, H=5), example_of(IMAGE, H=6)]
        found = {probe.label: probe for probe in build(IMAGE, data=cases)}
        assert found["data 1"].feeds["image"] is cases[0]["image"]
        assert found["data 2"].feeds["image"] is cases[1]["image"]
        assert found["data 1"].declared

    def test_a_single_case_needs_no_number(self) -> None:
        assert labels(build(IMAGE, data=[example_of(IMAGE, H=5)]))[-1] == "data"

    def test_the_example_itself_is_not_probed_twice(self) -> None:
        example = example_of(IMAGE)
        read_again = {name: array.copy() for name, array in example.items()}
        for case in (example, read_again):
            found = probes.build([IMAGE], example, ParityOptions(), [case])
            assert "data" not in labels(found)

    def test_what_is_no_input_is_left_out(self) -> None:
        case = {"label": np.zeros(3), **example_of(IMAGE, H=5)}
        assert list(build(IMAGE, data=[case])[-1].feeds) == ["image"]


@settings(max_examples=50)
@given(
    st.sampled_from(["float32", "float16", "bfloat16", "float64", "int64", "int32", "bool"]),
    st.integers(0, 3),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
def test_every_probe_has_the_dtype_and_the_rank_that_was_declared(
    dtype: str, free: int, size: int, seed: int
) -> None:
    dims = (*(Dim(symbol=f"D{n}", least=1, greatest=5) for n in range(free)), Dim(size=size))
    spec = InputSpec("x", ("x",), dtype, dims)
    for probe in build(spec, seed=seed):
        array = probe.feeds["x"]
        assert array.dtype == sampling.numpy_dtype(dtype)
        assert array.ndim == free + 1
        assert array.shape[-1] == size
        assert all(1 <= length <= 5 for length in array.shape[:-1])
