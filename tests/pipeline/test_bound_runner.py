"""A runtime without a batch, in which the first dimension may be there or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from torch2mobile.errors import ProbeRefusedError
from torch2mobile.pipeline.bound_runner import BoundRunner
from torch2mobile.records import ArtifactEntry, Dim, InputSpec, OutputSpec, Variant

SINGLE = Variant("single", "single", batch=False, own_names=True)
INPUT = InputSpec("x", ("x",), "float32", (Dim(symbol="N"), Dim(size=3), Dim(symbol="L")))


class Doubles:
    """Takes and gives arrays of the ``rank`` that it tells, if it tells one."""

    def __init__(self, rank: int, *, tells: bool) -> None:
        self.rank, self.tells = rank, tells

    def inputs(self) -> tuple[OutputSpec, ...]:
        return (OutputSpec("in0", "", ("?",) * (self.rank if self.tells else 0)),)

    def outputs(self) -> tuple[OutputSpec, ...]:
        return (OutputSpec("out0", "float32", ()),)

    def run(self, feeds: Any) -> list[tuple[str, np.ndarray]]:
        assert feeds["in0"].ndim == self.rank
        return [("out0", feeds["in0"] * 2)]


@pytest.mark.parametrize("dtype", ["float32", ""], ids=["contract", "file"])
@pytest.mark.parametrize(("rank", "tells"), [(2, True), (3, True), (2, False)])
def test_the_first_dimension_is_left_out_and_put_back(rank: int, tells: bool, dtype: str) -> None:
    wanted = OutputSpec("y", dtype, ("N", 3, "L") if dtype else ())
    bound = BoundRunner(Doubles(rank, tells=tells), ArtifactEntry(SINGLE), [INPUT], [wanted])
    assert bound.inputs() == (OutputSpec("x", "float32", ("N", 3, "L")),)
    x = np.ones((1, 3, 5), np.float32)
    ((name, array),) = bound.run({"x": x})
    assert name == "y"
    np.testing.assert_array_equal(array, x * 2)
    with pytest.raises(ProbeRefusedError, match="no batch"):
        bound.run({"x": np.ones((2, 3, 5), np.float32)})


@pytest.mark.parametrize("dims", [(), (Dim(symbol="N"),)], ids=["none", "one"])
def test_what_has_no_second_dimension_keeps_its_first(dims: tuple[Dim, ...]) -> None:
    spec = InputSpec("x", ("x",), "float32", dims)
    wanted = [OutputSpec("y", "float32", tuple(dim.label for dim in dims))]
    bound = BoundRunner(Doubles(len(dims), tells=False), ArtifactEntry(SINGLE), [spec], wanted)
    ((_, array),) = bound.run({"x": np.ones((1,) * len(dims), np.float32)})
    assert array.shape == (1,) * len(dims)


@pytest.mark.parametrize("value", [0, 1, 2, 0.5, np.nan])
def test_a_truth_value_in_floats_is_one_only_where_it_is_0_or_1(value: float) -> None:
    variant = Variant("floats", "floats", own_names=True, dtypes={"bool": "float32"})
    wanted = [OutputSpec("y", "bool", ("N", 3, "L"))]
    bound = BoundRunner(Doubles(3, tells=True), ArtifactEntry(variant), [INPUT], wanted)
    ((_, array),) = bound.run({"x": np.full((1, 3, 5), value / 2, np.float32)})
    assert array.dtype == ("bool" if value in {0, 1} else "float32")
    np.testing.assert_array_equal(array, np.float32(value))


@pytest.mark.parametrize(
    ("own", "contract", "dtype"),
    [
        ("float16", "", "float32"),  # a file from elsewhere tells no dtypes
        ("float16", "float32", "float32"),
        ("int32", "", "int64"),
        ("float32", "", "float32"),
        ("float32", "bool", "bool"),
    ],
)
def test_what_a_variant_replaces_is_put_back(own: str, contract: str, dtype: str) -> None:
    replaced = {"float32": "float16", "int64": "int32", "bool": "float32"}
    variant = Variant("own", "own", own_names=True, dtypes=replaced)

    class Gives(Doubles):
        def run(self, feeds: Any) -> list[tuple[str, np.ndarray]]:
            return [("out0", np.array([[[0, 1, np.nan if own == "float16" else 1]]], own))]

    wanted = OutputSpec("y", contract, ("N", 3, "L") if contract else ())
    bound = BoundRunner(Gives(3, tells=True), ArtifactEntry(variant), [INPUT], [wanted])
    ((_, array),) = bound.run({"x": np.ones((1, 3, 5), np.float32)})
    assert array.dtype == dtype
