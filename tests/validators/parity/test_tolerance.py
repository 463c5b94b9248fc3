"""What an artefact may be off: measured on the module's noise, and no more than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torch2mobile.records import Tolerance
from torch2mobile.validators.parity import tolerance
from torch2mobile.validators.parity.channels import Yardstick, is_float
from torch2mobile.validators.parity.compare import Judged, judge
from torch2mobile.validators.parity.tolerance import (
    FACTOR,
    USUAL,
    Case,
    Known,
    Limit,
    epsilon,
    limit_for,
    user_limit,
    yardsticks,
)

EPS = float(np.finfo(np.float32).eps)


def case(want: Any, truth: Any = None, magnitude: float = 1.0, dtype: Any = np.float32) -> Case:
    exact = None if truth is None else [np.asarray(truth, np.float64)]
    return Case([("y", np.asarray(want, dtype))], exact, magnitude)


def limit(cases: Sequence[Case], number: int = 0) -> Limit:
    """The limit of output y on one of the cases, measured on all of them."""
    one = cases[number]
    return limit_for(one.known(0), yardsticks(cases)["y"], one.magnitude)


def judged(cases: Sequence[Case], got: Any, number: int = 0) -> Judged:
    want = cases[number].outputs[0][1]
    return judge("y", "p", want, np.asarray(got, want.dtype), limit(cases, number))


def noisy(truth: np.ndarray, noise: float, seed: int = 0) -> np.ndarray:
    """The truth as a float32 module gives it: off by this share of its scale at most."""
    share = np.random.default_rng(seed).uniform(-1, 1, truth.shape)
    return (truth + share * noise * np.abs(truth).max()).astype(np.float32)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


class TestMeasured:
    def test_factor_floors_and_a_rounding_unit(self) -> None:
        truth = np.full((4, 8), 2.0)
        want = truth.copy()
        want[1, 2] += 2.0**-10
        found = limit([case(want, truth)])
        assert found.rule == "measured"
        assert np.unique(found.allowed) == pytest.approx(FACTOR * 2.0**-10 + EPS * 2)
        assert np.unique(found.floor) == 2.0**-10
        assert np.array_equal(found.base, truth)

    def test_the_usual_relative_tolerance_of_the_scale_at_least(self) -> None:
        # Where float32 is exact by nature, a kernel that sums in another order is not.
        truth = np.array([4.0, -1.0, 0.0])
        assert np.unique(limit([case(truth, truth)]).allowed) == pytest.approx(1.3e-6 * 4)

    def test_an_artefact_is_judged_by_its_own_error_against_the_truth(self) -> None:
        truth = normal(4, 8)
        want = noisy(truth, 1e-5)
        cases = [case(want, truth)]
        allowed = float(limit(cases).allowed[0, 0])
        got = truth.copy()
        got[3, 1] += allowed * 0.99
        assert judged(cases, got).mismatch is None
        got[3, 1] += allowed * 0.03
        found = judged(cases, got).mismatch
        assert found is not None
        assert found.index == (3, 1)

    def test_float32_exact_by_luck_on_one_probe_asks_no_luck_of_the_artefact(self) -> None:
        truths = [normal(4, 8, seed=seed) for seed in range(6)]
        cases = [case(noisy(truth, 1e-4, seed), truth) for seed, truth in enumerate(truths)]
        lucky = case(truths[0].astype(np.float32), truths[0].astype(np.float32))
        found = limit([lucky, *cases])
        assert found.floor.max() == 0
        assert 5e-4 < found.allowed.max() / np.abs(truths[0]).max() < 2e-3

    def test_a_sum_that_cancels_on_one_probe_has_its_usual_scale(self) -> None:
        truths = [np.array([value]) for value in (3.0, -2.0, 4.0, 1e-6, -3.0)]
        cases = [case(truth + 1e-6, truth) for truth in truths]
        assert float(limit(cases, 3).allowed[0]) >= 1.3e-6 * 3
        assert float(limit(cases[3:4]).allowed[0]) < 1.2e-5

    @pytest.mark.parametrize("magnitude", [10.0, 1e4])
    def test_extreme_probes_do_not_loosen_ordinary_ones(self, magnitude: float) -> None:
        ordinary = [case(noisy(t, 1e-6, s), t) for s in range(4) for t in [normal(4, 8, seed=s)]]
        wild = [
            case(noisy(1e4 * t, 1e-2, s), 1e4 * t, magnitude)
            for s in range(9)
            for t in [normal(4, 8, seed=s)]
        ]
        alone, beside = limit(ordinary), limit([*ordinary, *wild])
        assert np.array_equal(alone.allowed, beside.allowed)
        # Of themselves they are judged by their own noise.
        assert limit([*ordinary, *wild], 4).allowed.max() > 1e-2 * FACTOR * 1e4

    def test_small_inputs_may_have_a_small_output(self) -> None:
        cases = [case(noisy(t, 1e-7, s), t) for s in range(4) for t in [normal(4, 8, seed=s)]]
        tiny = normal(4, 8) * 1e-3
        small = case(noisy(tiny, 1e-7), tiny, 1 / 8)
        scale = limit([*cases, small]).allowed.max()
        assert limit([*cases, small], 4).allowed.max() == pytest.approx(scale / 8, rel=0.3)

    def test_few_values_do_not_measure_the_noise_of_extreme_inputs(self) -> None:
        few = [case([v * (1 + 1e-7)], [v]) for v in (1.0, 2.0, 1.5)]
        lucky = case([500.0], [500.0], 1e4)
        assert 5e-3 < float(limit([*few, lucky], 3).allowed[0]) < 0.1
        many = [case(noisy(t, 1e-7, s), t) for s in range(3) for t in [normal(4, 8, seed=s)]]
        saturated = np.sign(normal(4, 8))
        assert limit([*many, case(saturated, saturated, 1e4)], 3).allowed.max() < 1e-5

    def test_one_odd_probe_does_not_loosen_all(self) -> None:
        cases = [case(noisy(t, 1e-7, s), t) for s in range(12) for t in [normal(4, 8, seed=s)]]
        odd = case(noisy(normal(4, 8, seed=9), 1e-3), normal(4, 8, seed=9))
        assert limit([*cases, odd]).allowed.max() < 3 * limit(cases).allowed.max()

    @pytest.mark.parametrize(
        ("dtype", "least"),
        [(np.float16, 1e-3), (ml_dtypes.bfloat16, 1.6e-2), (np.float32, 1.3e-6)],
    )
    def test_each_dtype_has_its_own_rounding_unit(self, dtype: Any, least: float) -> None:
        truth = np.array([1.0, -0.5, 0.25])
        found = limit([case(truth, truth, dtype=dtype)])
        assert np.unique(found.allowed) == pytest.approx(least)
        got = np.array([1.0, -0.5, 0.25]).astype(dtype)
        assert judged([case(truth, truth, dtype=dtype)], got).mismatch is None
        got[2] += dtype(16 * epsilon(got))
        assert judged([case(truth, truth, dtype=dtype)], got).mismatch is not None

    def test_nan_and_infinity_do_not_spread_into_the_tolerance(self) -> None:
        truth = np.array([1.0, np.nan, np.inf, -np.inf, 2.0])
        found = limit([case(truth, truth)])
        assert np.isfinite(found.allowed).all()
        assert np.unique(found.allowed) == pytest.approx(1.3e-6 * 2)

    def test_an_output_without_values(self) -> None:
        cases = [case(np.zeros((0, 4)), np.zeros((0, 4))), case(np.ones((2, 4)), np.ones((2, 4)))]
        assert limit(cases).allowed.shape == (0, 4)
        assert limit(cases, 1).allowed.shape == (2, 4)

    def test_an_all_zero_output_must_be_zero(self) -> None:
        zero = [case(np.zeros(4), np.zeros(4))] * 3
        assert judged(zero, np.zeros(4)).mismatch is None
        assert judged(zero, [0, 1e-12, 0, 0]).mismatch is not None

    def test_integers_have_no_yardstick(self) -> None:
        cases = [Case([("n", np.arange(3)), ("y", np.ones(3, np.float32))])]
        assert list(yardsticks(cases)) == ["y"]
        assert not is_float(np.zeros(2, np.int8))
        assert not is_float(np.zeros(2, np.bool_))
        assert is_float(np.zeros(2, ml_dtypes.bfloat16))

    def test_no_case_no_yardstick(self) -> None:
        assert dict(yardsticks([])) == {}


class TestProbabilities:
    """Values in 0..1 are held to their own scale; what a Sigmoid is off shows in the coarse run."""

    def test_the_allowance_goes_by_the_outputs_own_scale(self) -> None:
        truth = np.abs(normal(4, 8)) * 1e-4
        cases = [case(truth, truth.astype(np.float32))]
        assert limit(cases).allowed.max() < 1e-5 * truth.max()


class TestWithoutTruth:
    @pytest.mark.parametrize(
        ("dtype", "rtol", "atol"),
        [
            (np.float16, 1e-3, 1e-5),
            (ml_dtypes.bfloat16, 1.6e-2, 1e-5),
            (np.float32, 1.3e-6, 1e-5),
            (np.float64, 1e-7, 1e-7),
        ],
    )
    def test_assert_close_at_the_outputs_scale(self, dtype: Any, rtol: float, atol: float) -> None:
        assert USUAL[np.dtype(dtype).name] == Tolerance(rtol=rtol, atol=atol)
        found = limit([case([1.0, -0.5, 0.0], dtype=dtype)])
        assert found.rule == "usual"
        assert found.allowed == pytest.approx([atol + rtol, atol + rtol / 2, atol])
        assert found.floor is None

    @pytest.mark.parametrize("scale", [1e-8, 1e-3, 1e6])
    def test_whatever_the_scale(self, scale: float) -> None:
        want = normal(4, 8) * scale
        cases = [case(want)]
        assert judged(cases, want * (1 + 1e-6)).mismatch is None
        # torch's own atol of 1e-5 would let all of an output of 1e-8 go by.
        assert judged(cases, want * 1.001).mismatch is not None
        assert judged(cases, np.zeros((4, 8))).mismatch is not None

    def test_a_float64_module_is_no_truth_for_itself(self) -> None:
        want = normal(4, 8)
        assert limit([case(want, want, dtype=np.float64)] * 3).rule == "usual"
        # Float64 outputs of a float32 computation do have one.
        off = want * (1 + 1e-7)
        assert limit([case(off, want, dtype=np.float64)] * 3).rule == "measured"

    def test_a_truth_that_is_another_function_is_none(self) -> None:
        # For example a branch on the dtype. FACTOR times this "noise" would allow anything.
        truths = [normal(4, 8, seed=seed) for seed in range(5)]
        cases = [case(truth * 0.5, truth) for truth in truths]
        assert limit(cases).rule == "usual"
        assert judged(cases, truths[0]).mismatch is not None
        assert judged(cases, truths[0] * 0.5).mismatch is None

    def test_nor_one_that_is_another_function_on_one_probe(self) -> None:
        # As RMSNorm, whose epsilon goes by the dtype, on small inputs.
        cases = [case(noisy(t, 1e-7, s), t) for s in range(9) for t in [normal(4, 8, seed=s)]]
        truth = normal(4, 8, seed=20)
        odd = [*cases, case(truth * 0.9, truth)]
        assert limit(odd, 9).rule == "usual"
        assert judged(odd, truth, 9).mismatch is not None
        assert judged(odd, truth * 0.9, 9).mismatch is None
        assert limit(odd, 0).rule == "measured"

    def test_but_on_extreme_inputs_that_is_noise(self) -> None:
        cases = [case(noisy(t, 1e-7, s), t) for s in range(9) for t in [normal(4, 8, seed=s)]]
        truth = normal(4, 8, seed=20)
        odd = [*cases, case(noisy(truth, 0.01), truth, 1e4)]
        assert limit(odd, 9).rule == "measured"

    def test_a_truth_without_numbers_hides_nothing(self) -> None:
        # float64 gives NaN where the module gives numbers: those are compared with the module.
        want, truth = np.array([1.0, 2.0, 3.0]), np.array([1.0, np.nan, 3.0])
        cases = [case(want, truth)]
        assert judged(cases, [1.0, 2.0, 3.0]).mismatch is None
        found = judged(cases, [1.0, 2.5, 3.0]).mismatch
        assert found is not None
        assert found.index == (1,)
        assert judged([case(want, [np.nan] * 3)], [1.0, 2.0, 3.1]).mismatch is not None


def detections(seed: int, rows: int, axis: int) -> np.ndarray:
    """Four box coordinates of some 600 and five scores of some 0.5, as YOLO has them."""
    rng = np.random.default_rng(seed)
    boxes, scores = rng.uniform(0, 600, (2, rows, 4)), rng.uniform(-1, 1, (2, rows, 5))
    return np.moveaxis(np.concatenate([boxes, scores], axis=2), 2, axis)


def as_float32(truth: np.ndarray, axis: int, seed: int) -> np.ndarray:
    """Each channel with noise of its own scale."""
    noise = np.random.default_rng(seed).uniform(-1, 1, truth.shape)
    peaks = np.moveaxis(np.abs(truth), axis, 0).reshape(truth.shape[axis], -1).max(axis=1)
    shape = [1] * truth.ndim
    shape[axis] = -1
    return (truth + noise * 1e-7 * peaks.reshape(shape)).astype(np.float32)


@pytest.mark.parametrize("axis", [1, 2])
class TestChannels:
    """Channels of very different scales in one output are judged apart."""

    @pytest.fixture
    def cases(self, axis: int) -> list[Case]:
        truths = [detections(seed, rows, axis) for seed, rows in enumerate((20, 20, 7, 31, 20))]
        return [case(as_float32(t, axis, s), t) for s, t in enumerate(truths)]

    def place(self, axis: int, row: int, channel: int) -> tuple[int, int, int]:
        return (1, channel, row) if axis == 1 else (1, row, channel)

    def test_they_are_found_on_the_axis_that_never_changes(
        self, cases: list[Case], axis: int
    ) -> None:
        found = yardsticks(cases)["y"]
        assert found.axis == axis
        assert found.groups is not None
        assert found.groups.tolist() == [0] * 4 + [1] * 5
        assert found.scale == pytest.approx([600, 1], rel=0.05)

    @pytest.mark.parametrize("channel", [4, 8])
    def test_an_error_in_a_small_channel_does_not_hide_beside_large_ones(
        self, cases: list[Case], axis: int, channel: int
    ) -> None:
        got = cases[0].outputs[0][1].copy()
        got[self.place(axis, 3, channel)] += 1e-4
        found = judged(cases, got).mismatch
        assert found is not None
        assert found.index == self.place(axis, 3, channel)
        assert found.allowed is not None
        assert found.allowed < 3e-6

    def test_the_same_error_in_a_large_channel_is_rounding(
        self, cases: list[Case], axis: int
    ) -> None:
        got = cases[0].outputs[0][1].copy()
        got[self.place(axis, 3, 2)] += 1e-4
        assert judged(cases, got).mismatch is None
        got[self.place(axis, 3, 2)] += 1e-2
        assert judged(cases, got).mismatch is not None

    def test_also_without_a_truth(self, cases: list[Case], axis: int) -> None:
        bare = [Case(one.outputs) for one in cases]
        got = cases[0].outputs[0][1].copy()
        got[self.place(axis, 3, 2)] += 1e-3
        assert judged(bare, got).mismatch is None
        got[self.place(axis, 3, 6)] += 1e-3
        found = judged(bare, got).mismatch
        assert found is not None
        assert found.index == self.place(axis, 3, 6)

    def test_but_then_with_the_noise_of_the_large_ones(self, cases: list[Case], axis: int) -> None:
        bare = [Case(one.outputs) for one in cases]
        found = limit(bare).allowed[self.place(axis, 3, 6)]
        assert found == pytest.approx(1e-5 * 600 / 16, rel=0.05)

    def test_on_every_probe_the_other_artefact_passes(self, cases: list[Case], axis: int) -> None:
        for number, one in enumerate(cases):
            assert one.truth is not None
            got = as_float32(one.truth[0], axis, seed=100 + number)
            assert judged(cases, got, number).mismatch is None


class TestGroups:
    def test_channels_of_like_scale_are_one_group(self) -> None:
        scales = np.array([1.0, 3.0, 0.3, 2.0])
        cases = [case(t, t) for s in range(4) for t in [normal(50, 4, seed=s) * scales]]
        assert yardsticks(cases)["y"].groups is None

    def test_an_axis_whose_size_varies_has_no_channels(self) -> None:
        rows = [np.geomspace(1, 1e4, size) for size in (4, 5, 6)]
        assert yardsticks([case(row, row) for row in rows])["y"].groups is None

    def test_a_dead_channel_has_no_scale_of_its_own(self) -> None:
        alive = [normal(50, 3, seed=s) * [1, 0, 1] for s in range(4)]
        found = yardsticks([case(t, t) for t in alive])["y"]
        assert found.groups is None

    def test_a_channel_is_never_held_to_less_than_a_millionth_of_the_output(self) -> None:
        truths = [normal(50, 2, seed=s) * [1.0, 1e-12] for s in range(4)]
        found = yardsticks([case(t, t) for t in truths])["y"]
        assert found.groups is not None
        assert found.groups.tolist() == [0, 1]
        got = truths[0].copy()
        got[7, 1] = 0
        assert judged([case(t, t) for t in truths], got).mismatch is None
        got[7, 1] = 1e-9
        assert judged([case(t, t) for t in truths], got).mismatch is not None

    def test_groups_survive_a_probe_of_another_rank(self) -> None:
        cases = [case(np.ones((2, 3)), np.ones((2, 3))), case(np.ones(3), np.ones(3))]
        assert yardsticks(cases)["y"].groups is None

    @settings(max_examples=60)
    @given(
        st.lists(st.floats(-6, 4), min_size=2, max_size=12),
        st.integers(1, 40),
        st.integers(0, 2**31),
    )
    def test_no_false_alarm_whatever_the_scales(
        self, exponents: list[float], rows: int, seed: int
    ) -> None:
        """An artefact with noise like the module's own passes on every probe."""
        rng = np.random.default_rng(seed)
        scales = 10.0 ** np.array(exponents)

        def float32(truth: np.ndarray) -> np.ndarray:
            return truth + rng.normal(0, 1e-7, truth.shape) * scales

        truths = [rng.standard_normal((rows, len(scales))) * scales for _ in range(10)]
        cases = [case(float32(truth), truth) for truth in truths]
        for number, truth in enumerate(truths):
            assert judged(cases, float32(truth), number).mismatch is None

    @settings(max_examples=60)
    @given(
        st.lists(st.floats(-3, 3), min_size=2, max_size=12),
        st.data(),
        st.integers(0, 2**31),
    )
    def test_no_channel_hides_an_error_of_a_thousandth_of_its_scale(
        self, exponents: list[float], data: st.DataObject, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        scales = 10.0 ** np.array(exponents)
        truths = [rng.standard_normal((20, len(scales))) * scales for _ in range(10)]
        cases = [case(t + rng.normal(0, 1e-7, t.shape) * scales, t) for t in truths]
        channel = data.draw(st.integers(0, len(scales) - 1))
        got = truths[0].copy()
        got[5, channel] += 1e-3 * scales[channel]
        found = judged(cases, got).mismatch
        assert found is not None
        assert found.index == (5, channel)


def test_a_users_tolerance_is_the_only_one() -> None:
    want = np.array([1.0, -4.0], np.float32)
    found = user_limit(want, Tolerance(atol=0.1, rtol=0.5))
    assert found.allowed == pytest.approx([0.6, 2.1])
    assert np.array_equal(found.base, want)
    assert found.rule == "user"


def test_an_output_that_no_ordinary_probe_gave() -> None:
    wild = [case([1e4, 2e4], [1e4, 2e4], 1e4)]
    assert limit(wild).rule == "usual"
    assert Yardstick().noise is None


class TestAtAGlance:
    """What passes without the truth passes with it, however far the module is off it."""

    @given(
        floor=st.floats(0, 1e-3),
        noise=st.floats(0, 1e-4),
        share=st.floats(0, 1),
        sign=st.sampled_from([-1, 1]),
    )
    def test_nothing_passes_that_the_truth_would_not_let_pass(
        self, floor: float, noise: float, share: float, sign: int
    ) -> None:
        truth = np.linspace(0.5, 2.0, 64)
        want = (truth + floor * np.cos(np.arange(64.0))).astype(np.float32)
        yardstick = Yardstick(np.array([2.0]), np.array([noise]), np.array([False]))
        glance = tolerance.limit_for(Known(want, late=True), yardstick)
        assert glance.rule == "measured"
        artefact = want + sign * share * glance.allowed
        full = tolerance.limit_for(Known(want, truth), yardstick)
        assert full.rule in {"measured", "usual"}
        if full.rule == "measured":
            error = np.abs(artefact - full.base)
            assert (error <= full.allowed * (1 + 1e-6) + 1e-12).all()

    def test_without_usual_noise_there_is_no_glance(self) -> None:
        limit = tolerance.limit_for(Known(np.ones(64, np.float32), late=True), Yardstick())
        assert limit.rule == "usual"


def test_a_channel_that_is_often_cut_off_is_no_small_one() -> None:
    """A ReLU leaves little of it on most probes; where all cancels, its noise is the others'."""
    heights = [0.1, 0.1, 0.1, 0.1, 0.1, 6.0, 7.0, 8.0, 7.0]
    cases = [case([[8.0, height]], [[8.0, height]]) for height in heights]
    cases.append(case([[8.0, 0.0]], [[8.0, 0.0]]))
    assert yardsticks(cases)["y"].groups is None
    assert judged(cases, [[8.0, 1.4e-6]], number=9).mismatch is None
    always_small = [case([[8.0, 0.1]], [[8.0, 0.1]]) for _ in heights]
    assert judged(always_small, [[8.0, 0.1 + 5e-6]]).mismatch is not None
