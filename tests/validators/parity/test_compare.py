"""Two sets of outputs: every difference is found, at the right place, and nothing else is."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from torch2mobile.records import Tolerance
from torch2mobile.validators.parity.channels import wide
from torch2mobile.validators.parity.compare import Judged, judge, special_values, structure
from torch2mobile.validators.parity.tolerance import Limit, exact_limit, user_limit

FLOATS = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]
WHOLE = [np.bool_, np.int8, np.uint8, np.int16, np.int32, np.int64]

shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
# Powers of two and their sums: differences between them are exact.
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
doubles = hnp.arrays(np.float64, shapes, elements=numbers)
anything = hnp.arrays(np.float32, shapes, elements=st.floats(width=32))


def within(want: np.ndarray, got: np.ndarray, *, atol: float = 0.0, rtol: float = 0.0) -> Judged:
    return judge("y", "example", want, got, user_limit(want, Tolerance(atol, rtol)))


def everywhere(want: np.ndarray, allowed: float) -> Limit:
    return Limit(wide(want), np.full(want.shape, allowed), np.zeros(want.shape), "measured")


def outputs(*names: str, dtype: Any = np.float32, shape: tuple[int, ...] = (2, 3)) -> Any:
    return [(name, np.zeros(shape, dtype)) for name in names]


class TestStructure:
    def test_equal_structure_has_no_problem(self) -> None:
        assert structure(outputs("a", "b"), outputs("a", "b"), "example") == []

    @pytest.mark.parametrize(
        ("actual", "problem"),
        [
            ((), "number of outputs: expected a, b, c; got none"),
            (("a",), "number of outputs: expected a, b, c; got a"),
            (("a", "b"), "number of outputs: expected a, b, c; got a, b"),
            (("a", "b", "c", "d"), "number of outputs: expected a, b, c; got a, b, c, d"),
            (("a", "c", "b"), "names or order of outputs: expected a, b, c; got a, c, b"),
            (("a", "b", "C"), "names or order of outputs: expected a, b, c; got a, b, C"),
            (("a", "b", "b"), "names or order of outputs: expected a, b, c; got a, b, b"),
        ],
    )
    def test_number_names_and_order(self, actual: tuple[str, ...], problem: str) -> None:
        (found,) = structure(outputs("a", "b", "c"), outputs(*actual), "N=1")
        assert (found.output, found.probe, found.problem) == ("", "N=1", problem)

    def test_nothing_wanted_and_something_given(self) -> None:
        assert structure([], outputs("a"), "example")

    @pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32, np.bool_])
    def test_dtype(self, dtype: Any) -> None:
        actual = [*outputs("a"), *outputs("b", dtype=dtype)]
        (found,) = structure(outputs("a", "b"), actual, "example")
        assert found.output == "b"
        assert found.problem == f"dtype: expected float32, got {np.dtype(dtype)}"

    @pytest.mark.parametrize("shape", [(2,), (3, 2), (2, 3, 1), (1, 2, 3), (), (0, 3), (2, 1)])
    def test_shape_without_broadcasting(self, shape: tuple[int, ...]) -> None:
        actual = [*outputs("a", shape=shape), *outputs("b")]
        (found,) = structure(outputs("a", "b"), actual, "example")
        assert found.output == "a"
        assert found.problem == f"shape: expected [2, 3], got {list(shape)}"

    def test_every_output_with_a_problem_is_named(self) -> None:
        actual = [*outputs("a", shape=(1, 3)), *outputs("b", dtype=np.float64)]
        assert [m.output for m in structure(outputs("a", "b"), actual, "")] == ["a", "b"]

    def test_empty_outputs_of_equal_shape_pass_and_of_other_shape_do_not(self) -> None:
        empty = outputs("a", shape=(0, 3))
        assert structure(empty, outputs("a", shape=(0, 3)), "") == []
        assert structure(empty, outputs("a", shape=(0, 4)), "")
        assert structure(empty, outputs("a", shape=(1, 3)), "")


class TestSpecialValues:
    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("side", ["want", "got"])
    def test_on_one_side_only(self, dtype: Any, value: float, side: str) -> None:
        want, got = np.ones((2, 3), dtype), np.ones((2, 3), dtype)
        (want if side == "want" else got)[1, 2] = value
        # Whatever the tolerance: no tolerance makes NaN a number.
        judged = within(want, got, atol=math.inf, rtol=1.0)
        assert judged.mismatch is not None
        assert judged.mismatch.index == (1, 2)
        assert judged.mismatch.least_atol is None
        assert judged.mismatch.least_rtol is None
        assert "on one side only, at 1 of 6 values" in judged.mismatch.problem
        assert judged.error == math.inf

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_at_the_same_places_on_both_sides(self, dtype: Any, value: float) -> None:
        want = np.array([1, value, 2], dtype)
        assert within(want, want.copy()).mismatch is None

    @pytest.mark.parametrize(
        ("one", "other"), [(math.inf, -math.inf), (math.nan, math.inf), (math.nan, -math.inf)]
    )
    def test_one_is_not_another(self, one: float, other: float) -> None:
        want, got = np.array([0, one]), np.array([0, other])
        assert within(want, got, atol=math.inf).mismatch is not None
        assert within(got, want, atol=math.inf).mismatch is not None

    def test_the_numbers_beside_them_are_still_compared(self) -> None:
        want = np.array([np.nan, 1.0, np.inf, 2.0])
        got = np.array([np.nan, 1.0, np.inf, 2.5])
        judged = within(want, got, atol=0.1)
        assert judged.mismatch is not None
        assert judged.mismatch.index == (3,)

    def test_all_nan_against_numbers(self) -> None:
        # torch.onnx.export(verify=True) says "accuracy ✅" to this.
        want, got = np.ones(4, np.float32), np.full(4, np.nan, np.float32)
        found = special_values("y", "example", want, got)
        assert found is not None
        assert (found.expected, found.actual) == ("1.0", "nan")
        assert "at 4 of 4" in found.problem


class TestExact:
    @pytest.mark.parametrize("dtype", WHOLE)
    def test_integers_and_booleans_must_be_equal(self, dtype: Any) -> None:
        want = np.array([[0, 1], [1, 0]], dtype)
        assert judge("y", "p", want, want.copy(), exact_limit(want)).mismatch is None
        got = want.copy()
        got[1, 0] = 0
        # A tolerance of a user is for numbers: it does not reach integers.
        for limit in (exact_limit(want), user_limit(want, Tolerance(10.0, 10.0))):
            judged = judge("y", "p", want, got, limit)
            assert judged.mismatch is not None
            assert judged.mismatch.index == (1, 0)
            assert judged.mismatch.problem == "1 of 4 values are not equal"
            assert judged.error == math.inf

    def test_large_integers_that_float64_cannot_tell_apart(self) -> None:
        want = np.array([2**60, 5], np.int64)
        got = want + np.array([1, 0])
        assert judge("y", "p", want, got, exact_limit(want)).mismatch is not None

    def test_scalars_and_empty_arrays(self) -> None:
        one, two, none = np.array(1), np.array(2), np.zeros((0,), np.int32)
        assert judge("y", "p", one, one, exact_limit(one)).mismatch is None
        assert judge("y", "p", none, none, exact_limit(none)).mismatch is None
        found = judge("y", "p", one, two, exact_limit(one)).mismatch
        assert found is not None
        assert (found.index, found.expected, found.actual) == ((), "1", "2")


class TestNumbers:
    @given(anything)
    def test_equal_arrays_pass_without_any_tolerance(self, array: np.ndarray) -> None:
        judged = within(array, array.copy())
        assert judged.mismatch is None
        assert judged.error == 0

    @given(doubles, st.floats(1e-9, 1e3), st.data())
    def test_any_single_value_off_by_more_than_allowed_fails(
        self, want: np.ndarray, allowed: float, data: st.DataObject
    ) -> None:
        assume(want.size)
        where = data.draw(st.integers(0, want.size - 1))
        sign = data.draw(st.sampled_from([-1.0, 1.0]))
        got = want.copy()
        got.flat[where] += sign * allowed * 1.001
        assume(abs(got.flat[where] - want.flat[where]) > allowed)
        judged = judge("y", "p", want, got, everywhere(want, allowed))
        assert judged.mismatch is not None
        assert judged.mismatch.index == np.unravel_index(where, want.shape)
        assert judged.mismatch.expected == str(want.flat[where])
        assert judged.mismatch.actual == str(got.flat[where])
        assert judged.mismatch.allowed == allowed
        assert judged.error == abs(got.flat[where] - want.flat[where])
        assert f"at 1 of {want.size}" in judged.mismatch.problem

    @given(doubles, st.floats(1e-9, 1e3), st.data())
    def test_values_off_by_what_is_allowed_pass(
        self, want: np.ndarray, allowed: float, data: st.DataObject
    ) -> None:
        shares = data.draw(hnp.arrays(np.float64, want.shape, elements=st.floats(-0.99, 0.99)))
        got = want + shares * allowed
        assume((np.abs(got - want) <= allowed).all())
        assert judge("y", "p", want, got, everywhere(want, allowed)).mismatch is None

    @given(doubles, st.data(), st.floats(0, 1e3))
    def test_absolute_tolerance_is_symmetric(
        self, want: np.ndarray, data: st.DataObject, atol: float
    ) -> None:
        got = data.draw(hnp.arrays(np.float64, want.shape, elements=numbers))
        there, back = within(want, got, atol=atol), within(got, want, atol=atol)
        assert (there.mismatch is None) == (back.mismatch is None)
        assert there.error == back.error

    @given(doubles, st.data())
    def test_the_least_tolerances_pass_and_anything_smaller_does_not(
        self, want: np.ndarray, data: st.DataObject
    ) -> None:
        got = data.draw(hnp.arrays(np.float64, want.shape, elements=numbers))
        assume((want != got).any())
        found = within(want, got).mismatch
        assert found is not None
        assert found.least_atol is not None
        assert within(want, got, atol=found.least_atol).mismatch is None
        assert within(want, got, atol=found.least_atol * 0.99).mismatch is not None
        if found.least_rtol is None:
            assert (want[want != got] == 0).any() or np.abs(want[want != got]).min() < 1e-290
            assert within(want, got, rtol=1e300).mismatch is not None
        else:
            assert within(want, got, rtol=found.least_rtol).mismatch is None
            assert within(want, got, rtol=found.least_rtol * 0.99).mismatch is not None

    @given(doubles, st.data())
    def test_the_index_is_that_of_the_worst_value_beside_what_is_allowed_there(
        self, want: np.ndarray, data: st.DataObject
    ) -> None:
        positive = st.floats(1e-3, 1e3)
        allowed = data.draw(hnp.arrays(np.float64, want.shape, elements=positive))
        got = data.draw(hnp.arrays(np.float64, want.shape, elements=numbers))
        judged = judge("y", "p", want, got, Limit(want, allowed, np.zeros(want.shape), "user"))
        share = np.abs(got - want) / allowed
        assert (judged.mismatch is not None) == bool((share > 1).any())
        if judged.mismatch is not None:
            assert share[judged.mismatch.index] == share.max()
            assert judged.error == np.abs(got - want)[judged.mismatch.index]
            assert judged.allowed == allowed[judged.mismatch.index]

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_one_value_in_each_dtype(self, dtype: Any) -> None:
        want = (1 + np.arange(12) / 16).astype(dtype).reshape(3, 4)
        got = want.copy()
        got[2, 1] += dtype(0.25)
        assert within(want, got, atol=0.3).mismatch is None
        found = within(want, got, atol=0.2).mismatch
        assert found is not None
        assert found.index == (2, 1)
        assert found.least_atol == 0.25

    def test_a_user_may_allow_a_share_of_each_value_but_not_more(self) -> None:
        want = np.array([1.0, 100.0, -100.0])
        assert within(want, want * 1.01, rtol=0.011).mismatch is None
        # An error of 1.0 is fine beside 100 and not beside 1: no tolerance goes by the largest.
        found = within(want, want + 1.0, rtol=0.011).mismatch
        assert found is not None
        assert found.index == (0,)
        assert found.least_rtol == pytest.approx(1.0)

    def test_there_is_no_hidden_tolerance(self) -> None:
        want = np.ones(3, np.float32)
        assert within(want, np.nextafter(want, np.float32(2))).mismatch is not None

    def test_no_relative_tolerance_is_named_where_none_would_do(self) -> None:
        found = within(np.zeros(2), np.array([0.0, 1e-3])).mismatch
        assert found is not None
        assert found.least_rtol is None
        assert found.least_atol == 1e-3

    def test_where_nothing_is_allowed_any_error_is_the_worst(self) -> None:
        want = np.zeros(3)
        limit = Limit(want, np.array([0.1, 0.0, 0.1]), np.zeros(3), "measured")
        judged = judge("y", "p", want, np.array([0.3, 1e-12, 0.2]), limit)
        assert judged.mismatch is not None
        assert judged.mismatch.index == (1,)
        assert "at 3 of 3" in judged.mismatch.problem
        assert judge("y", "p", want, np.array([0.05, 0.0, 0.1]), limit).mismatch is None

    def test_a_scalar_output(self) -> None:
        found = within(np.array(1.0), np.array(1.5), atol=0.1).mismatch
        assert found is not None
        assert (found.index, found.expected, found.actual) == ((), "1.0", "1.5")

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_an_empty_output_has_nothing_wrong(self, dtype: Any) -> None:
        empty = np.zeros((2, 0), dtype)
        judged = within(empty, empty)
        assert judged.mismatch is None
        assert judged.error == 0

    def test_a_difference_that_overflows_is_still_one(self) -> None:
        found = within(np.array([1e308]), np.array([-1e308]), atol=1.0).mismatch
        assert found is not None

    def test_the_error_is_taken_from_the_truth_and_the_values_shown_are_the_modules(self) -> None:
        want, truth, got = np.array([1.0]), np.array([1.1]), np.array([1.3])
        limit = Limit(truth, np.array([0.15]), np.array([0.1]), "measured")
        judged = judge("y", "p", want, got, limit)
        assert judged.error == pytest.approx(0.2)
        assert judged.floor == 0.1
        assert judged.mismatch is not None
        assert (judged.mismatch.expected, judged.mismatch.actual) == ("1.0", "1.3")
        assert judged.mismatch.problem.startswith("is off the float64 truth by 0.2 where 0.15 is")
        stand_in = replace(limit, rule="compensated")
        said = judge("y", "p", want, got, stand_in).mismatch
        assert said is not None
        assert said.problem.startswith("is off the compensated truth by 0.2 where 0.15 is allowed")
        same = judge("y", "p", want, got, replace(limit, base=want.copy())).mismatch
        assert same is not None
        assert same.problem.startswith("differs by 0.3 where 0.15 is allowed")
        # A user's tolerance is relative to the module: that is what "would have passed" means.
        assert judged.mismatch.least_atol == pytest.approx(0.3)
