"""Metrics for people: right by hand, the worst over all probes, and never NaN."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from torch2mobile.validators.parity.task_metrics import cosine, measure, psnr, top1

vectors = hnp.arrays(np.float64, 6, elements=st.floats(-100, 100))


def pair(want: Any, got: Any, name: str = "y") -> Any:
    return [(name, np.asarray(want))], [(name, np.asarray(got))]


class TestCosine:
    def test_by_hand(self) -> None:
        assert cosine(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(2**-0.5)
        assert cosine(np.array([1.0, 0.0]), np.array([-3.0, 0.0])) == -1
        assert cosine(np.array([1.0, 0.0]), np.array([0.0, 3.0])) == 0

    def test_zeros(self) -> None:
        assert cosine(np.zeros(3), np.zeros(3)) == 1
        assert cosine(np.zeros(3), np.ones(3)) == 0

    @given(vectors, vectors, st.floats(0.1, 10))
    def test_symmetric_bounded_and_blind_to_scale(
        self, a: np.ndarray, b: np.ndarray, scale: float
    ) -> None:
        value = cosine(a, b)
        assert -1 - 1e-9 <= value <= 1 + 1e-9
        assert cosine(b, a) == pytest.approx(value)
        if np.abs(b).max() > 1e-100:
            assert cosine(a, b * scale) == pytest.approx(value, abs=1e-9)


class TestPsnr:
    def test_by_hand(self) -> None:
        want = np.array([0.0, 1.0, 0.5, 0.5])
        assert psnr(want, want + 0.1) == pytest.approx(20.0)
        assert psnr(255 * want, 255 * (want + 0.1)) == pytest.approx(20.0)

    def test_equal_is_infinite_and_a_flat_image_has_no_range(self) -> None:
        assert psnr(np.ones(4), np.ones(4)) == math.inf
        assert psnr(np.ones(4), np.zeros(4)) == -math.inf

    @given(st.floats(0.01, 0.4))
    def test_less_error_is_more(self, error: float) -> None:
        want = np.array([0.0, 1.0, 0.5])
        assert psnr(want, want + error) > psnr(want, want + 1.1 * error)


class TestTop1:
    def test_by_hand(self) -> None:
        want = np.array([[1.0, 2.0], [4.0, 3.0], [0.0, 1.0], [1.0, 0.0]])
        assert top1(want, want) == 1
        assert top1(want, want[:, ::-1]) == 0
        got = want.copy()
        got[0] = [3.0, 2.0]
        assert top1(want, got) == 0.75


class TestMeasure:
    def test_which_metrics_an_output_has_goes_by_its_shape(self) -> None:
        outputs = [
            ("classes", np.ones((2, 5), np.float32)),
            ("image", np.ones((2, 3, 4, 4), np.float32)),
            ("features", np.ones((2, 8, 4, 4), np.float32)),
            ("score", np.ones((2, 1), np.float32)),
            ("label", np.ones(2, np.int64)),
        ]
        assert set(measure([(outputs, outputs)])) == {
            "classes.cosine",
            "classes.top1",
            "image.cosine",
            "image.psnr",
            "features.cosine",
            "score.cosine",
        }

    def test_the_worst_of_all_probes(self) -> None:
        want = np.array([[1.0, 2.0], [2.0, 1.0]])
        found = measure([pair(want, want), pair(want, want[:, ::-1]), pair(want, want)])
        assert found["y.top1"] == 0
        assert found["y.cosine"] == pytest.approx(0.8)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    @pytest.mark.parametrize("side", [0, 1])
    def test_what_is_not_finite_or_empty_is_left_to_the_gate(self, value: float, side: int) -> None:
        arrays = [np.ones((2, 3)), np.ones((2, 3))]
        arrays[side][0, 0] = value
        assert measure([pair(*arrays)]) == {}
        assert measure([pair(np.ones((0, 3)), np.ones((0, 3)))]) == {}

    def test_bfloat16(self) -> None:
        want = np.ones((2, 3), ml_dtypes.bfloat16)
        assert measure([pair(want, want)]) == {"y.cosine": pytest.approx(1), "y.top1": 1}

    def test_nothing_compared_nothing_measured(self) -> None:
        assert measure([]) == {}
