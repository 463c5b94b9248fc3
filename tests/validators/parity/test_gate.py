"""The verdict on an artefact: every kind of difference fails, and a true copy passes."""

from __future__ import annotations

import copy
import signal
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from rows import slow_but
from torch import nn
from torch.nn import functional as F

from torch2mobile.errors import WorkerCallError, WorkerTimeoutError
from torch2mobile.isolation import IsolatedRunner
from torch2mobile.records import Check, ParityOptions, Status, Tolerance
from torch2mobile.validators.parity import truth
from torch2mobile.validators.parity.answers import run_probes
from torch2mobile.validators.parity.baked import baked_check
from torch2mobile.validators.parity.expected import Expected, Rough, typical_of
from torch2mobile.validators.parity.gate import SHOWN, judge_probe, parity_check
from torch2mobile.validators.parity.probes import Probe

Outputs = list[tuple[str, np.ndarray]]


def probe(number: int = 0, **options: Any) -> Probe:
    x = np.random.default_rng(number).standard_normal((3, 4)).astype(np.float32)
    return Probe(f"p{number}", {"x": x}, **options)


def expected(*arrays: np.ndarray, number: int = 0, truth: bool = True, **options: Any) -> Expected:
    """A module with the outputs a, b …, which are exact where there is a truth."""
    outputs = list(zip("abcdef", arrays, strict=False))
    exact = [array.astype(np.float64) for array in arrays] if truth else None
    return Expected(probe(number, **options), outputs, exact)


def several(count: int = 5, truth: bool = True) -> list[Expected]:
    """A module of two outputs on several probes."""
    cases = []
    for number in range(count):
        rng = np.random.default_rng(number)
        a = rng.standard_normal((3, 4)).astype(np.float32)
        cases.append(expected(a, np.arange(3) + number, number=number, truth=truth))
    return cases


def copies(cases: Sequence[Expected]) -> list[Any]:
    """The answers of a perfect artefact."""
    return [[(name, array.copy()) for name, array in case.outputs] for case in cases]


def verdict(cases: Sequence[Expected], answers: Any, **options: Any) -> Check:
    return parity_check("onnx", cases, answers, ParityOptions(**options))


class TestTraps:
    """Each of these passed in some other tool."""

    def test_a_perfect_copy_passes(self) -> None:
        cases = several()
        check = verdict(cases, copies(cases))
        assert check.status is Status.PASSED
        assert check.metrics["probes"] == 5
        assert not check.mismatches

    def test_only_the_last_value_of_the_last_output_of_the_last_probe_is_wrong(self) -> None:
        cases = several()
        answers = copies(cases)
        answers[-1][-1][1][-1] += 1
        check = verdict(cases, answers)
        assert check.status is Status.FAILED
        (found,) = check.mismatches
        assert (found.output, found.probe, found.index) == ("b", "p4", (2,))
        assert (found.expected, found.actual) == ("6", "7")
        assert "on 1 of 5 probes" in check.summary

    @pytest.mark.parametrize("kept", [0, 1])
    def test_dropped_outputs_are_no_shorter_comparison(self, kept: int) -> None:
        cases = several()
        answers = copies(cases)
        answers[2] = answers[2][:kept]
        check = verdict(cases, answers)
        assert check.status is Status.FAILED
        assert "number of outputs" in check.mismatches[0].problem

    def test_added_outputs_too(self) -> None:
        cases = several()
        answers = [[*answer, ("c", np.zeros(1))] for answer in copies(cases)]
        assert verdict(cases, answers).status is Status.FAILED

    def test_two_outputs_of_equal_shape_swapped(self) -> None:
        rng = np.random.default_rng(0)
        cases = [expected(*rng.standard_normal((2, 3, 4)).astype(np.float32))]
        (answer,) = copies(cases)
        assert verdict(cases, [answer[::-1]]).status is Status.FAILED
        values = [("a", answer[1][1]), ("b", answer[0][1])]
        assert verdict(cases, [values]).status is Status.FAILED

    def test_missing_answers_are_not_skipped(self) -> None:
        cases = several()
        with pytest.raises(ValueError, match="zip"):
            verdict(cases, copies(cases)[:-1])

    def test_an_error_of_the_artefact_is_a_failure(self) -> None:
        cases = several()
        answers: list[Any] = copies(cases)
        answers[1] = WorkerCallError("InvalidArgument: shape")
        check = verdict(cases, answers)
        assert check.status is Status.FAILED
        assert check.mismatches[0].probe == "p1"
        assert "InvalidArgument: shape" in check.mismatches[0].problem

    def test_no_probes_at_all_is_an_error(self) -> None:
        check = verdict([], [])
        assert check.status is Status.ERROR
        assert "nothing could be compared" in check.summary

    def test_an_output_that_is_empty_on_some_probes(self) -> None:
        full = expected(np.ones((2, 4), np.float32), np.ones(2, np.float32))
        none = expected(np.zeros((0, 4), np.float32), np.ones(2, np.float32), number=1)
        cases = [full, none]
        assert verdict(cases, copies(cases)).status is Status.PASSED
        answers = copies(cases)
        answers[1][0] = ("a", np.zeros((0, 5), np.float32))
        assert verdict(cases, answers).status is Status.FAILED
        answers[1][0] = ("a", np.ones((1, 4), np.float32))
        assert verdict(cases, answers).status is Status.FAILED

    def test_an_output_that_is_empty_on_all_was_never_compared(self) -> None:
        empty = np.zeros((0, 4), np.float32)
        cases = [expected(np.ones(2, np.float32), empty, empty, number=n) for n in range(3)]
        check = verdict(cases, copies(cases))
        assert check.status is Status.ERROR
        assert "the output b, c holds no value on any probe" in check.summary
        # What is wrong in another output is still a failure.
        answers = copies(cases)
        answers[1][0][1][0] = 5
        assert verdict(cases, answers).status is Status.FAILED

    def test_an_empty_answer_where_values_are_wanted_fails(self) -> None:
        cases = [expected(np.ones((2, 4), np.float32))]
        assert verdict(cases, [[("a", np.ones((0, 4), np.float32))]]).status is Status.FAILED

    def test_a_cosine_near_one_is_no_pass(self) -> None:
        # Relu for HardSwish: another tool passes all above 0.9.
        x = np.random.default_rng(0).standard_normal((8, 100)).astype(np.float32)
        cases = [expected(x * np.clip(x / 6 + 0.5, 0, 1))]
        check = verdict(cases, [[("a", np.maximum(x, 0))]])
        assert check.status is Status.FAILED
        assert check.metrics["a.cosine"] > 0.9

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("truth", [True, False])
    def test_nan_and_infinity_on_one_side(self, value: float, truth: bool) -> None:
        cases = several(truth=truth)
        answers = copies(cases)
        answers[3][0][1][1, 2] = value
        found = verdict(cases, answers, tolerances={"": Tolerance(1e9, 1e9)}).mismatches
        assert found[0].index == (1, 2)
        swapped = [replace(cases[3], outputs=answers[3])]
        assert verdict(swapped, copies(cases)[3:4]).status is Status.FAILED

    def test_no_hidden_relative_tolerance(self) -> None:
        cases = [expected(np.full((2, 2), 1000.0, np.float32))]
        # 1e-5 of 1000, and torch.allclose's default rtol: a hundred rounding units.
        assert verdict(cases, [[("a", cases[0].outputs[0][1] * np.float32(1 + 1e-5))]]).status is (
            Status.FAILED
        )

    @pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
    def test_another_dtype_with_equal_values(self, dtype: Any) -> None:
        cases = [expected(np.ones((2, 2), np.float32))]
        check = verdict(cases, [[("a", np.ones((2, 2), dtype))]])
        assert check.status is Status.FAILED
        assert "dtype" in check.mismatches[0].problem

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
    @pytest.mark.parametrize("truth", [True, False])
    def test_outputs_in_each_floating_point_dtype(self, dtype: Any, truth: bool) -> None:
        rng = np.random.default_rng(0)
        values = [rng.standard_normal((4, 4)).astype(dtype) for _ in range(4)]
        cases = [expected(v, number=n, truth=truth) for n, v in enumerate(values)]
        assert verdict(cases, copies(cases)).status is Status.PASSED
        answers = copies(cases)
        answers[2][0][1][3, 1] *= dtype(1.25)
        check = verdict(cases, answers)
        assert check.status is Status.FAILED
        assert check.mismatches[0].index == (3, 1)

    @pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, np.bool_])
    def test_whole_numbers_exactly_whatever_the_tolerance(self, dtype: Any) -> None:
        cases = [expected(np.ones((2, 2), dtype))]
        assert verdict(cases, copies(cases)).summary == "1 probes, all outputs equal"
        answers = copies(cases)
        answers[0][0][1][0, 1] = 0
        assert verdict(cases, answers, tolerances={"": Tolerance(9, 9)}).status is Status.FAILED

    def test_a_module_that_gives_more_outputs_at_another_size(self) -> None:
        cases = several()
        cases[3] = replace(cases[3], outputs=[*cases[3].outputs, ("output number 2", np.ones(1))])
        answers = copies(cases)
        answers[3].pop()
        assert verdict(cases, answers).status is Status.FAILED

    def test_a_module_that_gives_fewer_outputs_at_another_size(self) -> None:
        cases = several()
        full = copies(cases)
        cases[3] = replace(cases[3], outputs=cases[3].outputs[1:], truth=None)
        assert verdict(cases, full).status is Status.FAILED
        assert verdict(cases, copies(cases)).status is Status.PASSED


class TestReport:
    def test_structure_comes_first_then_each_output_once(self) -> None:
        rng = np.random.default_rng(0)
        cases = [
            expected(*rng.standard_normal((3, 2, 2)).astype(np.float32), number=n) for n in range(4)
        ]
        answers: list[Any] = [[(k, v + 1) for k, v in answer] for answer in copies(cases)]
        answers[3] = answers[3][:2]
        found = verdict(cases, answers).mismatches
        assert "number of outputs" in found[0].problem
        assert [item.output for item in found[1:4]] == ["a", "b", "c"]

    def test_many_mismatches_are_counted_and_the_first_shown(self) -> None:
        cases = several(40)
        answers = [[(k, v + 1) for k, v in answer] for answer in copies(cases)]
        check = verdict(cases, answers)
        assert len(check.mismatches) == SHOWN
        assert "on 40 of 40 probes" in check.summary

    def test_every_failure_says_what_would_have_passed(self) -> None:
        cases = several()
        answers = copies(cases)
        answers[1][0][1][2, 3] += 0.5
        (found,) = verdict(cases, answers).mismatches
        assert found.least_atol == pytest.approx(0.5, rel=1e-5)
        assert found.allowed is not None
        assert found.allowed < 1e-4
        loose = {"a": Tolerance(atol=found.least_atol)}
        assert verdict(cases, answers, tolerances=loose).status is Status.PASSED
        tight = {"a": Tolerance(atol=found.least_atol * 0.99)}
        assert verdict(cases, answers, tolerances=tight).status is Status.FAILED

    def test_metrics_name_the_rule_that_decided(self) -> None:
        cases = several()
        metrics = verdict(cases, copies(cases)).metrics
        assert metrics["a.rule"] == "measured"
        assert metrics["b.rule"] == "exact"
        assert verdict(cases, copies(cases), tolerances={"a": Tolerance(1)}).metrics["a.rule"] == (
            "user"
        )

    def test_a_verdict_without_truth_is_marked_as_weaker(self) -> None:
        bare, full = several(truth=False), several()
        assert any("weaker" in note for note in verdict(bare, copies(bare)).notes)
        assert not verdict(full, copies(full)).notes
        # Also where it fails, and not where the user's own tolerance decided.
        broken = copies(bare)
        broken[0][0][1][0] += 1
        assert any("weaker" in note for note in verdict(bare, broken).notes)
        assert not verdict(bare, copies(bare), tolerances={"a": Tolerance(1)}).notes

    def test_it_says_which_outputs_have_none(self) -> None:
        cases = several()
        odd = replace(cases[3], truth=[cases[3].outputs[0][1] * 2.0, cases[3].outputs[1][1]])
        cases[3] = odd
        (note,) = verdict(cases, copies(cases)).notes
        assert note.startswith("no float64 truth for a on 1 probes: judged by the usual")

    def test_the_summary_shows_the_closest_call(self) -> None:
        cases = several()
        answers = copies(cases)
        answers[2][0][1][0, 0] += 1e-6
        summary = verdict(cases, answers).summary
        assert "5 probes, worst error 1e-06 of " in summary
        assert "float32 noise 0" in summary


class TestTolerances:
    def test_for_one_output_for_all_and_the_narrower_wins(self) -> None:
        rng = np.random.default_rng(0)
        cases = [expected(*rng.standard_normal((2, 3, 4)).astype(np.float32))]
        answers = [[(name, array + 0.1) for name, array in cases[0].outputs]]

        def failing(**tolerances: Tolerance) -> set[str]:
            given = {name.replace("every", ""): value for name, value in tolerances.items()}
            return {m.output for m in verdict(cases, answers, tolerances=given).mismatches}

        wide, narrow = Tolerance(atol=0.2), Tolerance(atol=0.01)
        assert failing() == {"a", "b"}
        assert failing(a=wide) == {"b"}
        assert failing(every=wide) == set()
        assert failing(every=wide, b=narrow) == {"b"}
        assert failing(every=narrow, b=wide) == {"a"}

    def test_a_users_tolerance_may_be_tighter_than_the_measured_one(self) -> None:
        cases = several()
        answers = copies(cases)
        answers[0][0][1][0, 0] = np.nextafter(answers[0][0][1][0, 0], np.float32(9))
        assert verdict(cases, answers).status is Status.PASSED
        assert verdict(cases, answers, tolerances={"a": Tolerance(1e-12)}).status is Status.FAILED

    def test_extreme_probes_do_not_loosen_ordinary_ones(self) -> None:
        cases = several()
        for number in range(20, 40):
            x = np.random.default_rng(number).standard_normal((3, 4)).astype(np.float32) * 1e4
            wild = expected(x, np.arange(3), number=number, magnitude=1e4)
            assert wild.truth is not None
            noise = np.random.default_rng(number).standard_normal((3, 4)) * 100
            cases.append(replace(wild, truth=[wild.truth[0] + noise, wild.truth[1]]))
        answers = copies(cases)
        assert verdict(cases, answers).status is Status.PASSED
        answers[2][0][1][1, 1] += 1e-4
        (found,) = verdict(cases, answers).mismatches
        assert found.probe == "p2"

    def test_few_values_on_extreme_inputs_may_be_as_noisy_as_those_are_large(self) -> None:
        values = [np.array([v], np.float32) for v in (1.0, 2.0, 1.5, 0.5, 1.2)]
        cases = [
            replace(expected(v, number=n), truth=[v * (1 + 1e-7)]) for n, v in enumerate(values)
        ]
        # Such as the sine of 1e4, which float32 happened to get right.
        for magnitude, status in ((1.0, Status.FAILED), (1e4, Status.PASSED)):
            lucky = expected(np.array([0.5], np.float32), number=9, magnitude=magnitude)
            answers = [*copies(cases), [("a", np.array([0.501], np.float32))]]
            assert verdict([*cases, lucky], answers).status is status


class TestPlainSums:
    """A second look, where an output is off by what another order of sums may give."""

    def cases(self, rough: np.ndarray | None) -> tuple[list[Expected], list[int]]:
        calls: list[int] = []

        def run() -> list[np.ndarray] | None:
            calls.append(1)
            return None if rough is None else [rough, np.arange(3)]

        return [replace(case, rough=Rough(run)) for case in several(3)], calls

    def off(self, cases: list[Expected], by: float) -> list[Any]:
        answers = copies(cases)
        answers[1][0][1][0, 0] += by
        return answers

    def test_it_widens_the_floor_to_the_noise_it_shows(self) -> None:
        want = several(3)[1].outputs[0][1]
        cases, calls = self.cases(want + np.float32(1e-4))
        assert verdict(cases, self.off(cases, 5e-4)).status is Status.PASSED
        assert calls == [1]

    def test_so_does_what_it_shows_on_other_probes(self) -> None:
        cases = [
            replace(case, rough=Rough(lambda a=case.outputs[0][1], n=n: [a + n * 1e-4, a]))  # type: ignore[misc]
            for n, case in enumerate(several(3))
        ]
        # On the first probe a plain loop happens to give the same.
        for by, status in ((5e-4, Status.PASSED), (5e-3, Status.FAILED)):
            answers = copies(cases)
            answers[0][0][1][0, 0] += by
            assert verdict(cases, answers).status is status

    def test_it_is_not_taken_where_all_is_well(self) -> None:
        cases, calls = self.cases(several(3)[1].outputs[0][1])
        assert verdict(cases, self.off(cases, 1e-7)).status is Status.PASSED
        assert calls == []

    def test_nor_for_what_no_noise_explains(self) -> None:
        cases, calls = self.cases(several(3)[1].outputs[0][1] + np.float32(1e3))
        answers = copies(cases)
        answers[1][0][1][0, 0] = np.nan
        answers[2][1][1][0] += 1
        assert verdict(cases, answers).status is Status.FAILED
        assert verdict(cases, self.off(cases, 1), tolerances={"a": Tolerance(0.5)}).mismatches
        assert calls == []

    def test_a_module_that_cannot_be_run_so_is_judged_without(self) -> None:
        cases, calls = self.cases(None)
        assert verdict(cases, self.off(cases, 5e-4)).status is Status.FAILED
        assert calls == [1, 1, 1]


class TestBaked:
    def two(self, follows: bool, module_follows: bool = True) -> tuple[list[Expected], list[Any]]:
        x, y = np.ones(3, np.float32), np.ones(3, np.float32)
        cases, answers = [], []
        for varies, dx, dy in (("", 0, 0), ("x", 1, 0), ("y", 0, 1)):
            feeds = {"x": x + dx, "y": y + dy}
            value = np.float32(feeds["x"] + (2 * feeds["y"] if module_follows else 0))
            cases.append(Expected(Probe(varies or "example", feeds, varies=varies), [("a", value)]))
            answers.append([("a", np.float32(feeds["x"] + 2 * (feeds["y"] if follows else y)))])
        return cases, answers

    def test_an_input_that_the_artefact_does_not_follow(self) -> None:
        cases, answers = self.two(follows=False)
        check = baked_check("onnx", cases, answers)
        assert check.status is Status.FAILED
        assert check.metrics["inputs"] == "y"

    def test_an_artefact_that_follows_all(self) -> None:
        check = baked_check("onnx", *self.two(follows=True))
        assert check.status is Status.PASSED
        assert check.summary == "follows x, y"

    @pytest.mark.parametrize("wrong", [np.float32([np.nan] * 3), np.float32([1, 1])])
    def test_what_is_wrong_in_another_way_is_not_baked(self, wrong: np.ndarray) -> None:
        cases, _ = self.two(follows=True)
        check = baked_check("onnx", cases, [[("a", wrong)] for _ in cases])
        assert check.status is Status.SKIPPED

    def test_an_input_that_the_module_itself_ignores_proves_nothing(self) -> None:
        cases, answers = self.two(follows=False, module_follows=False)
        check = baked_check("onnx", cases, answers)
        assert check.status is Status.PASSED
        assert check.summary == "follows x"

    def test_a_single_input_is_compared_over_the_values(self) -> None:
        cases = several()
        assert baked_check("onnx", cases, copies(cases)).status is Status.PASSED
        constant = [copies(cases)[0]] * len(cases)
        check = baked_check("onnx", cases, constant)
        assert check.status is Status.FAILED
        assert check.metrics["inputs"] == "x"

    def test_also_where_the_example_alone_has_its_size(self) -> None:
        cases = several()
        large = {"x": np.concatenate([cases[0].probe.feeds["x"]] * 2)}
        alone = replace(cases[0], probe=replace(cases[0].probe, feeds=large))
        cases = [alone, *cases[1:]]
        assert baked_check("onnx", cases, copies(cases)).status is Status.PASSED
        constant = [copies(cases)[1]] * len(cases)
        assert baked_check("onnx", cases, constant).status is Status.FAILED

    @pytest.mark.parametrize(("scale", "status"), [(1e-9, Status.SKIPPED), (1, Status.FAILED)])
    def test_what_float16_holds_nothing_of_was_not_baked_in(
        self, scale: float, status: Status
    ) -> None:
        rng = np.random.default_rng(0)
        cases = []
        for number in range(4):
            truth = scale * rng.standard_normal((4, 5))
            cases.append(Expected(probe(number), [("a", np.float32(truth))], [truth]))
        zeros: list[Any] = [[("a", np.zeros((4, 5), np.float32))]] * len(cases)
        assert baked_check("coreml-fp16", cases, zeros, lossy=True).status is status
        assert baked_check("coreml", cases, zeros).status is Status.FAILED

    def test_a_move_within_the_noise_proves_nothing(self) -> None:
        """200 layers of tanh leave 3e-8 of an input, which another kernel rounds away."""
        rng = np.random.default_rng(0)
        base = rng.standard_normal((4, 5))

        def moving(by: float) -> list[Expected]:
            cases = []
            for number in range(8):
                truth = base + by * rng.standard_normal(base.shape)
                value = np.float32(truth)
                case = Expected(probe(number), [("a", value)], [truth + 1e-8 * base])
                cases.append(case)
            return cases

        still = moving(3e-8)
        constant = [copies(still)[0]] * len(still)
        assert baked_check("onnx", still, constant).status is Status.SKIPPED
        following = moving(1e-5)
        constant = [copies(following)[0]] * len(following)
        assert baked_check("onnx", following, constant).status is Status.FAILED

    def test_a_constant_module_is_skipped_not_passed(self) -> None:
        one = several(1)[0].outputs
        cases = [replace(case, outputs=one) for case in several()]
        check = baked_check("onnx", cases, copies(cases))
        assert check.status is Status.SKIPPED

    @pytest.mark.parametrize("count", [0, 1])
    def test_nothing_to_compare_is_skipped(self, count: int) -> None:
        cases = several(count)
        assert baked_check("onnx", cases, copies(cases)).status is Status.SKIPPED

    def test_an_error_is_no_evidence(self) -> None:
        cases, answers = self.two(follows=False)
        answers[2] = WorkerCallError("boom")
        check = baked_check("onnx", cases, answers)
        assert check.status is Status.PASSED
        assert check.summary == "follows x"


RUNTIME = """
import os, signal, time
import numpy as np

class Runner:
    def run(self, feeds):
        kind = int(feeds["x"].flat[0])
        if kind == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if kind == 2:
            time.sleep(60)
        if kind == 3:
            raise ValueError("no such shape")
        if kind == 4:
            os._exit(7)
        return [("a", feeds["x"] * 2)]

def load():
    return Runner()
"""


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IsolatedRunner]:
    """A runtime that crashes, hangs, raises or exits, as its input asks."""
    (tmp_path / "fragile_runtime.py").write_text(textwrap.dedent(RUNTIME))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with IsolatedRunner("fragile_runtime:load", timeout=20) as isolated:
        yield isolated


def asking(*kinds: int) -> list[Expected]:
    cases = []
    for number, kind in enumerate(kinds):
        x = np.full((1, 2), kind, np.float32)
        cases.append(Expected(Probe(f"p{number}", {"x": x}), [("a", x * 2)], [x * 2.0]))
    return cases


class TestIsolation:
    def test_a_crash_is_a_failure_with_the_signals_name_and_the_rest_still_runs(
        self, runner: IsolatedRunner
    ) -> None:
        cases = asking(0, 1, 5, 4, 6)
        check = verdict(cases, run_probes(runner, cases))
        assert check.status is Status.FAILED
        assert "on 2 of 5 probes" in check.summary
        crash, stopped = check.mismatches
        assert (crash.probe, stopped.probe) == ("p1", "p3")
        assert signal.Signals.SIGSEGV.name in crash.problem
        assert "status 7" in stopped.problem

    def test_an_exception_of_the_runtime_is_a_failure(self, runner: IsolatedRunner) -> None:
        cases = asking(0, 3, 5)
        check = verdict(cases, run_probes(runner, cases))
        assert check.status is Status.FAILED
        assert "ValueError: no such shape" in check.mismatches[0].problem

    def test_all_well(self, runner: IsolatedRunner) -> None:
        cases = asking(0, 5, 6)
        assert verdict(cases, run_probes(runner, cases)).status is Status.PASSED

    def test_a_time_out_ends_the_run_of_the_artefact(
        self, runner: IsolatedRunner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runner.load()
        monkeypatch.setattr(runner, "_timeout", 0.5)
        with pytest.raises(WorkerTimeoutError, match="no answer within"):
            run_probes(runner, asking(0, 2, 5))


# --- real modules -----------------------------------------------------------------------------


class Vectors(nn.Module):
    """Many small functions of a vector, one output each."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.wide, self.one = nn.Linear(16, 12), nn.Linear(16, 512), nn.Linear(16, 1)
        self.unbiased, self.rare = nn.Linear(16, 8, bias=False), nn.Linear(16, 6)
        self.norm, self.rms = nn.LayerNorm(12), nn.RMSNorm(16)
        self.deep = nn.Sequential(*(nn.Linear(16, 16) for _ in range(30)))
        relus = [(nn.Linear(16, 16), nn.ReLU()) for _ in range(30)]
        for layer, _ in relus:
            nn.init.kaiming_normal_(layer.weight)
        self.relus = nn.Sequential(*(layer for pair in relus for layer in pair))
        with torch.no_grad():
            self.rare.bias -= 6

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h, n, w = self.linear(x), self.unbiased(x), self.wide(x)
        boxes = 600 * h[:, :4] + 300
        return {
            "linear": h,
            "softmax": F.softmax(h, -1),
            "log_softmax": F.log_softmax(h, -1),
            "layer_norm": self.norm(h),
            "layer_norm_input": F.layer_norm(x, (16,)),
            "rms_norm": self.rms(x),
            "sigmoid": torch.sigmoid(h),
            "sigmoid_rare": torch.sigmoid(self.rare(x)),
            "tanh": torch.tanh(h),
            "gelu": F.gelu(h),
            "gelu_tanh": F.gelu(h, approximate="tanh"),
            "erf": torch.erf(h),
            "exp": torch.exp(h),
            "expm1": torch.expm1(n),
            "elu": F.elu(n),
            "silu": F.silu(h),
            "hardswish": F.hardswish(h),
            "softplus": F.softplus(h),
            "deep": self.deep(x),
            "deep_relu": self.relus(x),
            "scalar": self.one(x).mean(),
            "sum": w.sum(-1),
            "mean": w.mean(-1),
            "var": w.var(-1),
            "std": w.std(-1),
            "logsumexp": w.logsumexp(-1),
            "cumsum": w.cumsum(-1),
            "tiny": n * 1e-8,
            "huge": n * 1e6,
            "length": x.norm(dim=-1),
            "unit": F.normalize(x, dim=-1),
            "centred": x - x.mean(-1, keepdim=True),
            "sin": torch.sin(10 * h),
            "rsqrt": torch.rsqrt(h.abs() + 1e-6),
            "detections": torch.cat([boxes, torch.sigmoid(h[:, 4:] - 3)], dim=1),
            "scales": torch.cat([n * 1e-3, n, n * 1e3], dim=1),
            "top": h.argmax(-1),
        }


class Images(nn.Module):
    """Functions of an image, one output each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)
        self.up, self.fc = nn.ConvTranspose2d(8, 4, 2, 2), nn.Linear(8, 5)
        self.norm, self.group = nn.BatchNorm2d(8), nn.GroupNorm(2, 8)
        nn.init.normal_(self.norm.running_mean)
        nn.init.uniform_(self.norm.running_var, 0.5, 2.0)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = self.conv(x)
        d = F.hardswish(self.norm(self.depthwise(h)))
        pooled = F.relu(h).mean((2, 3))
        return {
            "conv": h,
            "depthwise": d,
            "transposed": self.up(h),
            "instance_norm": F.instance_norm(h),
            "group_norm": self.group(h),
            "bilinear": F.interpolate(h, scale_factor=2.0, mode="bilinear"),
            "average": F.avg_pool2d(h, 3, 2, 1),
            "largest": F.max_pool2d(h, 3, 2, 1),
            "pooled": pooled,
            "classes": self.fc(pooled).softmax(-1),
            "gated": torch.sigmoid(d.mean((2, 3), keepdim=True)) * d,
            "standard": (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-5),
        }


class Sequences(nn.Module):
    """Functions of a sequence, one output each."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(6, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "lstm": self.lstm(x)[0],
            "gru": self.gru(x)[0],
            "attention": self.attention(x, x, x, need_weights=False)[0],
        }


class NoTruth(nn.Module):
    """A dtype hard-coded in forward: there is no float64 run of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 4)
        self.deep = nn.Sequential(*(nn.Linear(16, 16) for _ in range(30)))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = torch.mm(self.first(x), torch.eye(16, dtype=torch.float32))
        y = self.second(torch.tanh(h))
        return {"y": y, "tiny": y * 1e-8, "huge": y * 1e6, "sum": h.sum(), "deep": self.deep(h)}


class HalfPrecision(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4)
        )
        self.half()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.layers(x)
        return {"y": y, "softmax": y.softmax(-1), "mean": y.mean()}


SPECS: Mapping[type[nn.Module], str] = {
    Vectors: "x:float32[N,16]",
    Images: "x:float32[N,3,H=4..12,W=4..12]",
    Sequences: "x:float32[N,T=1..6,6]",
    NoTruth: "x:float32[N,16]",
    HalfPrecision: "x:float16[N,16]",
}


@pytest.fixture(scope="module", params=SPECS, ids=lambda kind: kind.__name__)
def artefact(request: pytest.FixtureRequest, export: Callable[..., Any]) -> Any:
    torch.manual_seed(1)
    return export(request.param().eval(), SPECS[request.param])


@pytest.mark.slow
def test_no_false_alarm_over_twenty_seeds(artefact: Any) -> None:
    wrong = []
    for seed in range(20):
        wrong += [
            f"seed {seed}, {one.probe}, {one.output}: {one.error:.2g} of {one.allowed:.2g}"
            for one in artefact.judged(seed=seed, probes=9)
            if one.mismatch is not None
        ]
    assert not wrong


@pytest.mark.slow
def test_no_false_alarm_without_a_truth(artefact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other roundings of a module measure its noise as well."""
    monkeypatch.setattr(truth, "_is_double", lambda *_: True)
    for seed in range(3):
        judged = artefact.judged(seed=seed, probes=9)
        floats = {one.rule for one in judged} - {"exact"}
        assert floats == {"compensated"}
        assert not [one for one in judged if one.mismatch is not None]


LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


@pytest.mark.slow
def test_threads_and_optimisation_levels_are_no_fault(artefact: Any) -> None:
    """Each way to run the artefact passes, and so does the module itself in each of its ways."""
    import onnxruntime

    cases = artefact.expected()
    names = [name for name, _ in cases[0].outputs]
    options = onnxruntime.SessionOptions()
    for threads in (1, 2, 4):
        for level in LEVELS:
            options.intra_op_num_threads = threads
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            session = onnxruntime.InferenceSession(artefact.model.path, options)
            answers: list[Any] = [
                list(zip(names, session.run(None, dict(c.probe.feeds)), strict=True)) for c in cases
            ]
            check = verdict(cases, answers)
            assert check.status is Status.PASSED, (threads, level, check.mismatches)
    flat, onednn = artefact.loaded.flat, torch.backends.mkldnn.enabled
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for torch.backends.mkldnn.enabled in (True, False):
                answers = []
                for case in cases:
                    x = torch.from_numpy(np.array(case.probe.feeds["x"]))
                    with torch.no_grad():
                        found = [tensor.numpy() for tensor in flat(x)]
                    answers.append(list(zip(names, found, strict=True)))
                check = verdict(cases, answers)
                assert check.status is Status.PASSED, (threads, check.mismatches)
    finally:
        torch.set_num_threads(1)
        torch.backends.mkldnn.enabled = onednn


class LongSums(nn.Module):
    """Over 12,544 values the order of a sum shows in the fifth digit, most of all of equal ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        pooled = F.relu(self.conv(x)).mean((2, 3))
        spread = F.instance_norm(x).amax((2, 3))
        return {"pooled": pooled, "classes": self.fc(pooled), "std": x.std(), "spread": spread}


@pytest.fixture(scope="module")
def long_sums(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    return export(LongSums().eval(), "x:float32[1,1,112,112]", values=("x=uniform(0,255)",))


def test_the_order_of_long_sums_is_no_false_alarm(long_sums: Any) -> None:
    assert [one for one in long_sums.judged() if one.mismatch is not None] == []


def test_and_without_the_second_look_it_would_be(
    long_sums: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rough, "__call__", lambda self: None)
    assert [one for one in long_sums.judged() if one.mismatch is not None]


def test_a_fault_in_long_sums_is_still_seen(long_sums: Any, load: Callable[..., Any]) -> None:
    other = copy.deepcopy(long_sums.loaded.module)
    with torch.no_grad():
        other.fc.weight[1, 2] *= 1.01
    against = load(other, "x:float32[1,1,112,112]", values=("x=uniform(0,255)",))
    wrong = {one.output for one in long_sums.judged(against) if one.mismatch is not None}
    assert wrong == {"classes"}


# --- faults: the module, and an export of it with one thing changed ------------------------------


class Dense(nn.Module):
    spec = "x:float32[N,16]"

    def __init__(self, activation: Any = F.relu, eps: float = 1e-5) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 5)
        self.norm, self.activation = nn.LayerNorm(32, eps=eps), activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.activation(self.first(x)))
        return self.last(self.activation(self.middle(h)))


class Convolutional(nn.Module):
    spec = "x:float32[N,3,8,8]"

    def __init__(self, activation: Any = F.relu, eps: float = 1e-5) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=8)
        self.norm, self.last = nn.GroupNorm(2, 8, eps=eps), nn.Linear(8, 5)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.activation(self.first(x)))
        return self.last(self.activation(self.middle(h)).mean((2, 3)))


def leaky(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, 0.01)


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def to_half(weight: torch.Tensor) -> None:
    weight.copy_(weight.half().float())


def drop(bias: torch.Tensor) -> None:
    bias.zero_()


def one_percent(values: torch.Tensor) -> None:
    values.view(-1)[values.abs().argmax()] *= 1.01


def one_ulp(values: torch.Tensor) -> None:
    flat = values.view(-1)
    flat[0] = torch.nextafter(flat[0], flat[0] + 1)


# How the module is made, how the artefact's is, and what is done to the artefact's weights.
FAULTS: Mapping[str, tuple[Any, Any, Any]] = {
    "relu_to_leaky": ((F.relu,), (leaky,), None),
    "leaky_to_relu": ((leaky,), (F.relu,), None),
    "gelu_erf_to_tanh": ((F.gelu,), (gelu_tanh,), None),
    "gelu_tanh_to_erf": ((gelu_tanh,), (F.gelu,), None),
    "hardswish_to_relu": ((F.hardswish,), (F.relu,), None),
    "hardswish_to_silu": ((F.hardswish,), (F.silu,), None),
    "norm_epsilon": ((F.relu, 1e-5), (F.relu, 1e-6), None),
    "first_weight_to_half": ((), (), lambda m: to_half(m.first.weight)),
    "middle_weight_to_half": ((), (), lambda m: to_half(m.middle.weight)),
    "last_weight_to_half": ((), (), lambda m: to_half(m.last.weight)),
    "first_bias_dropped": ((), (), lambda m: drop(m.first.bias)),
    "norm_bias_off_by_a_little": ((), (), lambda m: m.norm.bias[3].add_(1e-4)),
    "last_bias_dropped": ((), (), lambda m: drop(m.last.bias)),
    "one_percent_in_first": ((), (), lambda m: one_percent(m.first.weight)),
    "one_percent_in_middle": ((), (), lambda m: one_percent(m.middle.weight)),
    "one_percent_in_last": ((), (), lambda m: one_percent(m.last.weight)),
    "one_percent_of_a_bias": ((), (), lambda m: one_percent(m.last.bias)),
}
HARMLESS: Mapping[str, tuple[Any, Any, Any]] = {
    "nothing": ((), (), None),
    "one_ulp_in_first": ((), (), lambda m: one_ulp(m.first.weight)),
    "one_ulp_in_last": ((), (), lambda m: one_ulp(m.last.weight)),
}


class Bank(nn.Module):
    """One output for each fault: of the module, or of the artefact that has it."""

    def __init__(self, kind: Any, faulty: bool) -> None:
        super().__init__()
        self.cases = nn.ModuleDict()
        for number, (name, (own, others, change)) in enumerate((FAULTS | HARMLESS).items()):
            torch.manual_seed(number)
            case = kind(*(others if faulty else own))
            if faulty and change is not None:
                with torch.no_grad():
                    change(case)
            self.cases[name] = case

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: case(x) for name, case in self.cases.items()}


@pytest.fixture(
    scope="module", params=slow_but([Dense, Convolutional], Dense), ids=lambda kind: kind.__name__
)
def failing(
    request: pytest.FixtureRequest, export: Callable[..., Any], load: Callable[..., Any]
) -> dict[str, float]:
    """By output, the greatest error of the faulty artefact as a multiple of what is allowed."""
    kind = request.param
    artefact = export(Bank(kind, faulty=True).eval(), kind.spec)
    against = load(Bank(kind, faulty=False).eval(), kind.spec)
    found: dict[str, float] = {}
    for one in artefact.judged(against):
        share = one.error / one.allowed if one.allowed else 0.0
        assert (one.mismatch is not None) == (share > 1)
        found[one.output] = max(found.get(one.output, 0.0), share)
    return found


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_caught(failing: dict[str, float], fault: str) -> None:
    assert failing[fault] > 1


@pytest.mark.parametrize("change", HARMLESS)
def test_a_rounding_unit_is_no_fault(failing: dict[str, float], change: str) -> None:
    assert failing[change] < 0.5


def test_task_metrics_stand_beside_the_verdict(export: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    artefact = export(Dense().eval(), Dense.spec)
    cases = artefact.expected()
    check = parity_check("onnx", cases, run_probes(artefact.runner, cases), ParityOptions())
    assert check.status is Status.PASSED
    assert check.metrics["output.top1"] == 1.0
    assert check.metrics["output.cosine"] == pytest.approx(1.0)
    assert check.metrics["output.rule"] == "measured"
    assert 0 < check.metrics["output.floor"] < 1e-5


def test_an_input_baked_in_by_a_branch_is_found(export: Callable[..., Any]) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            # What a trace would do with y.item(), or a branch taken only while exporting.
            y = torch.ones(3) if torch.compiler.is_exporting() else y
            return x * y

    artefact = export(Scaled(), "x:float32[N,3]", "y:float32[3]")
    cases = artefact.expected()
    check = baked_check("onnx", cases, run_probes(artefact.runner, cases))
    assert check.status is Status.FAILED
    assert check.metrics["inputs"] == "y"


def test_judge_probe_reports_nothing_as_judged_where_structure_differs() -> None:
    (case,) = several(1)
    judged, wrong = judge_probe(case, [], typical_of([case]), {})
    assert judged == []
    assert len(wrong) == 1


class TestSearchedProbes:
    """They are judged, but say nothing of what is usual."""

    def noisy(self, **options: Any) -> Expected:
        want = np.full((3, 4), 1e4, np.float32)
        return Expected(probe(99, **options), [("a", want)], [want.astype(np.float64) + 10])

    def test_the_yardstick_is_that_of_the_others(self) -> None:
        built = [expected(case.outputs[0][1], number=n) for n, case in enumerate(several())]
        extra = [self.noisy(searched=True)] * 5
        assert repr(typical_of([*built, *extra])) == repr(typical_of(built))
        assert repr(typical_of([*built, *([self.noisy()] * 5)])) != repr(typical_of(built))

    def test_one_with_other_channels_is_judged_as_the_strictest(self) -> None:
        scales = np.array([1, 1000], np.float32)
        built = []
        for number in range(4):
            a = np.random.default_rng(number).standard_normal((3, 2)).astype(np.float32) * scales
            built.append(expected(a, number=number))
        assert typical_of(built)["a"].groups is not None
        more = expected(np.ones((3, 5), np.float32), number=9, searched=True)
        cases = [*built, more]
        assert verdict(cases, copies(cases)).status is Status.PASSED
        answers = copies(cases)
        answers[-1][0][1][0, 0] += 1e-4
        assert verdict(cases, answers).status is Status.FAILED


class Classes(nn.Module):
    """A softmax over many classes: each of its values is small."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 20000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).softmax(-1)


class Lost(nn.Module):
    """``log1p``, or the logarithm of a sum in which small values are lost."""

    def __init__(self, *, exact: bool) -> None:
        super().__init__()
        self.exact = exact

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.abs() * 1e-5
        return torch.log1p(x) if self.exact else torch.log(1 + x)


class Unlikely(nn.Module):
    """Probabilities that are all small: ONNX Runtime's Sigmoid is exact to a unit of 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x - 8) * torch.sigmoid(x - 2)


class Spectrum(nn.Module):
    """Of 12 points, which is no power of two: ONNX Runtime takes its angles in float32."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * (1 + self.shift), n=12)


def test_the_runtimes_transform_is_no_fault(export: Any, load: Any) -> None:
    artefact = export(Spectrum(), "x:float32[N=1..4,12]")
    other = load(Spectrum(shift=1e-4), "x:float32[N=1..4,12]")
    for seed in (0, 1):
        assert not [one.mismatch for one in artefact.judged(seed=seed) if one.mismatch]
        assert any(one.mismatch for one in artefact.judged(other, seed=seed))


class TestSmallOutputs:
    """Values far below 1 are held to their own scale."""

    def test_many_classes_with_weights_of_float16(self, export: Any, load: Any) -> None:
        torch.manual_seed(0)
        module = Classes()
        spec, values = "x:float32[1,4]", ["x=uniform(-1,1)"]
        artefact = export(copy.deepcopy(module).half().float(), spec, values=values)
        wrong = [one.mismatch for one in artefact.judged(load(module, spec, values=values))]
        assert any(wrong)
        assert not any(one.mismatch for one in artefact.judged())

    def test_small_arguments_that_are_lost(self, export: Any, load: Any) -> None:
        spec = "x:float32[N,16]"
        artefact = export(Lost(exact=False), spec)
        against = load(Lost(exact=True), spec)
        for seed in (0, 1):
            assert any(one.mismatch for one in artefact.judged(against, seed=seed))

    def test_a_sigmoid_of_the_runtime_is_no_fault(self, export: Any) -> None:
        artefact = export(Unlikely(), "x:float32[N,16]")
        judged = artefact.judged()
        assert not [one.mismatch for one in judged if one.mismatch]
