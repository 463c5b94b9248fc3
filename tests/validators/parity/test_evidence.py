"""The figures behind a verdict: what is shown is what decided."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from torch2mobile.errors import WorkerCallError
from torch2mobile.records import Check, Metric, ParityOptions, Status, Tolerance
from torch2mobile.validators.parity.compare import judge
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.gate import parity_check
from torch2mobile.validators.parity.golden import Golden, golden_check
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.tolerance import Roundings, user_limit

NOISE = 1e-6


def cases(truth: bool = True, **more: Any) -> list[Expected]:
    """A module of two outputs: floats with some noise, and whole numbers."""
    found = []
    for number in range(5):
        exact = np.random.default_rng(number).standard_normal((3, 4))
        noise = np.random.default_rng(-number + 99).uniform(-NOISE, NOISE, exact.shape)
        want = (exact + noise).astype(np.float32)
        outputs = [("a", want), ("n", np.arange(3))]
        given = [exact, np.arange(3)] if truth else None
        found.append(Expected(Probe(f"p{number}", {}), outputs, given, **more))
    return found


def copies(expected: list[Expected]) -> list[Any]:
    return [[(name, array.copy()) for name, array in case.outputs] for case in expected]


def verdict(expected: list[Expected], answers: list[Any], **tolerances: Tolerance) -> Check:
    return parity_check("onnx", expected, answers, ParityOptions(tolerances=tolerances))


def rows(check: Check) -> dict[str, dict[str, Metric | None]]:
    (table,) = check.tables
    assert table.title == "by output"
    assert table.detail
    return {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


class TestTable:
    def test_a_row_an_output_from_the_probe_that_came_closest(self) -> None:
        expected = cases()
        answers = copies(expected)
        truth = expected[3].truth
        assert truth is not None
        answers[3][0][1][2, 1] = np.float32(truth[0][2, 1] + 5 * NOISE)
        check = verdict(expected, answers)
        assert check.status is Status.PASSED
        found = rows(check)
        assert list(found) == ["a", "n"]
        row = found["a"]
        assert row["probe"] == "p3"
        assert row["error"] == pytest.approx(5 * NOISE, rel=0.05)
        assert row["noise"] == pytest.approx(NOISE, rel=0.2)
        assert row["ratio"] == pytest.approx(row["error"] / row["noise"])  # type: ignore[operator]
        assert row["rule"] == "measured"
        assert row["weaker"] is False
        for key, column in (("floor", "noise"), ("ratio", "ratio"), ("least_atol", "least atol")):
            assert check.metrics[f"a.{key}"] == row[column]
        assert check.metrics["a.probe"] == "p3"
        assert found["n"] == {
            **dict.fromkeys(row, None),
            "output": "n",
            "probe": "p0",
            "error": 0.0,
            "allowed": 0.0,
            "rule": "exact",
            "least atol": 0.0,
            "least rtol": 0.0,
            "weaker": False,
        }

    def test_where_anything_is_allowed_the_error_is_the_greatest(self) -> None:
        expected = cases()
        answers = copies(expected)
        answers[3][0][1][2, 1] += np.float32(0.25)
        check = verdict(expected, answers, a=Tolerance(atol=math.inf))
        row = rows(check)["a"]
        assert (row["probe"], row["error"]) == ("p3", row["least atol"])
        assert row["error"] == pytest.approx(0.25, rel=1e-5)
        assert "worst error 0.25 of" in check.summary

    def test_the_least_tolerance_is_that_of_all_probes(self) -> None:
        expected = cases()
        answers = copies(expected)
        answers[1][0][1][0, 0] += np.float32(0.25)
        answers[4][0][1][0, 0] += np.float32(0.5)
        check = verdict(expected, answers)
        assert check.status is Status.FAILED
        least = rows(check)["a"]["least atol"]
        assert least == pytest.approx(0.5, rel=1e-5)
        assert isinstance(least, float)
        assert verdict(expected, answers, a=Tolerance(least)).status is Status.PASSED
        tight = Tolerance(math.nextafter(least, 0))
        assert verdict(expected, answers, a=tight).status is Status.FAILED
        relative = rows(check)["a"]["least rtol"]
        assert isinstance(relative, float)
        assert verdict(expected, answers, a=Tolerance(rtol=relative)).status is Status.PASSED
        tight = Tolerance(rtol=math.nextafter(relative, 0))
        assert verdict(expected, answers, a=tight).status is Status.FAILED

    @pytest.mark.parametrize("wrong", ["nan", "shape", "missing", "crash", "whole"])
    def test_there_is_none_for_what_no_tolerance_lets_pass(self, wrong: str) -> None:
        expected = cases()
        answers = copies(expected)
        if wrong == "nan":
            answers[2][0][1][0, 0] = np.nan
        elif wrong == "shape":
            answers[2][0] = ("a", np.zeros((3, 5), np.float32))
        elif wrong == "missing":
            answers[2].pop()
        elif wrong == "crash":
            answers[2] = WorkerCallError("no")
        else:
            answers[2][1][1][0] += 1
        found = rows(verdict(expected, answers))
        name = "n" if wrong == "whole" else "a"
        assert found[name]["least atol"] is None
        assert found[name]["least rtol"] is None
        if wrong in {"nan", "shape"}:
            assert found["n"]["least atol"] == 0

    def test_nothing_compared_no_table(self) -> None:
        expected = cases()
        check = verdict(expected, [WorkerCallError("no")] * 5)
        assert check.status is Status.FAILED
        assert check.tables == ()

    def test_an_exact_module_has_no_ratio_but_infinity(self) -> None:
        expected = [replace(c, truth=[np.float64(a) for _, a in c.outputs]) for c in cases()]
        answers = copies(expected)
        assert rows(verdict(expected, answers))["a"]["ratio"] == 0
        answers[0][0][1][0, 0] = np.nextafter(answers[0][0][1][0, 0], np.float32(9))
        assert rows(verdict(expected, answers))["a"]["ratio"] == math.inf

    def test_a_users_tolerance_is_shown_beside_the_noise(self) -> None:
        expected = cases()
        row = rows(verdict(expected, copies(expected), a=Tolerance(0.5)))["a"]
        assert row["rule"] == "user"
        assert row["allowed"] == 0.5
        assert row["noise"] == pytest.approx(NOISE, rel=0.5)
        assert row["weaker"] is False
        bare = cases(truth=False)
        assert rows(verdict(bare, copies(bare), a=Tolerance(0.5)))["a"]["noise"] is None


class TestWeaker:
    def rounded(self, case: Expected) -> Expected:
        """The truth as the least rounding, and the outputs themselves as another one."""
        assert case.truth is not None
        others = [[array for _, array in case.outputs]]
        return replace(case, truth=None, roundings=Roundings(case.truth, others))

    def test_usual_is_weaker_and_says_so(self) -> None:
        bare = cases(truth=False)
        check = verdict(bare, copies(bare))
        row = rows(check)["a"]
        assert (row["rule"], row["weaker"], row["noise"]) == ("usual", True, None)
        assert "a much weaker verdict" in check.notes[0]

    def test_compensated_too_and_it_is_as_tight_as_measured(self) -> None:
        measured, other = cases(), list(map(self.rounded, cases()))
        check = verdict(other, copies(other))
        row = rows(check)["a"]
        assert (row["rule"], row["weaker"]) == ("compensated", True)
        assert check.notes[0].startswith("no float64 truth for this module: the noise is")
        assert row["allowed"] == rows(verdict(measured, copies(measured)))["a"]["allowed"]
        answers = copies(other)
        answers[2][0][1][1, 1] += np.float32(30 * NOISE)
        assert verdict(other, answers).status is Status.FAILED

    def test_other_roundings_widen_the_noise(self) -> None:
        wide = []
        for case in map(self.rounded, cases()):
            assert case.roundings is not None
            rough = [
                array + (1e-3 if array.dtype == np.float32 else 0) for _, array in case.outputs
            ]
            wide.append(replace(case, roundings=replace(case.roundings, others=[rough])))
        row = rows(verdict(wide, copies(wide)))["a"]
        assert row["noise"] == pytest.approx(1e-3, rel=0.01)
        assert row["allowed"] == pytest.approx(1e-2, rel=0.01)

    def test_an_output_is_weaker_where_one_probe_is(self) -> None:
        mixed = cases()
        mixed[3] = self.rounded(mixed[3])
        check = verdict(mixed, copies(mixed))
        assert rows(check)["a"]["weaker"] is True
        assert "for a on 1 probes" in check.notes[0]


class Replays:
    def __init__(self, answers: list[Any]) -> None:
        self.answers = iter(answers)

    def run(self, feeds: Any) -> Any:
        return next(self.answers)


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_golden_data_has_the_same_table(wrong: float) -> None:
    stored = [Golden(c.probe.label, {}, c.outputs, {"a": 1e-4}) for c in cases()]
    answers = copies(cases())
    answers[1][0][1][0, 0] += np.float32(wrong)
    check = golden_check("onnx", Replays(answers), stored, {})  # type: ignore[arg-type]
    row = rows(check)["a"]
    assert (row["rule"], row["noise"], row["ratio"]) == ("golden", None, None)
    assert row["allowed"] == pytest.approx(1e-4)
    assert row["least atol"] == pytest.approx(wrong, rel=1e-5)
    assert (check.status is Status.PASSED) == (wrong == 0)


floats = hnp.arrays(
    np.float32, hnp.array_shapes(max_dims=2, max_side=4), elements=st.floats(width=32)
)


@given(floats, st.data())
def test_the_least_tolerance_passes_and_one_unit_less_fails(
    want: np.ndarray, data: st.DataObject
) -> None:
    got = data.draw(hnp.arrays(np.float32, want.shape, elements=st.floats(width=32)))
    got = np.where(np.isfinite(want) & np.isfinite(got), got, want)

    def passes(atol: float, rtol: float) -> bool:
        limit = user_limit(want, Tolerance(atol, rtol))
        return judge("y", "p", want, got, limit).mismatch is None

    found = judge("y", "p", want, got, user_limit(want, Tolerance()))
    assert found.least_atol is not None
    assert passes(found.least_atol, 0)
    if found.least_atol > 0:
        assert not passes(math.nextafter(found.least_atol, 0), 0)
    if found.least_rtol is None:
        assert not passes(0, 1e300)
    else:
        assert passes(0, found.least_rtol)
        if found.least_rtol > 0:
            assert not passes(0, math.nextafter(found.least_rtol, 0))
