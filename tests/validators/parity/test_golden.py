"""The replay without torch: what was stored is demanded again, output by output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.errors import WorkerCrashError, WorkerTimeoutError
from torch2mobile.records import Check, Status, Tolerance
from torch2mobile.validators.parity.expected import Expected, Rough, typical_of
from torch2mobile.validators.parity.golden import Golden, allowed_for, golden_check
from torch2mobile.validators.parity.probes import Probe

Outputs = list[tuple[str, np.ndarray]]


class Replays:
    """A runtime that gives prepared answers, or raises them, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def inputs(self) -> Any:
        return ()

    def outputs(self) -> Any:
        return ()

    def run(self, feeds: Any) -> Outputs:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


def stored(number: int = 0) -> Golden:
    x = np.full((2, 3), number, np.float32)
    outputs = [("y", x + 1), ("index", np.array([number, 2]))]
    return Golden(f"p{number}", {"x": x}, outputs, {"y": 1e-5})


def answers(*cases: Golden) -> list[Outputs]:
    return [[(name, array.copy()) for name, array in case.outputs] for case in cases]


def replay(cases: list[Golden], given: list[Any], **tolerances: Tolerance) -> Check:
    return golden_check("onnx", Replays(*given), cases, tolerances)


CASES = [stored(0), stored(1), stored(2)]


class TestReplay:
    def test_what_was_stored_passes(self) -> None:
        check = replay(CASES, answers(*CASES))
        assert check.status is Status.PASSED
        assert check.metrics == {"cases": 3, "error": 0.0}

    def test_up_to_what_is_allowed(self) -> None:
        given = answers(*CASES)
        given[1][0][1][0, 0] += np.float32(0.9e-5)
        check = replay(CASES, given)
        assert check.status is Status.PASSED
        assert check.metrics["error"] == pytest.approx(0.9e-5, rel=0.02)
        given[1][0][1][0, 0] += np.float32(0.3e-5)
        check = replay(CASES, given)
        assert check.status is Status.FAILED
        (found,) = check.mismatches
        assert (found.output, found.probe, found.index) == ("y", "p1", (0, 0))
        assert found.allowed == 1e-5
        assert "on 1 of 3 cases" in check.summary

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_no_number_is_not_a_number(self, value: float) -> None:
        given = answers(*CASES)
        given[2][0][1][1, 2] = value
        assert replay(CASES, given).status is Status.FAILED
        assert replay(CASES, given, y=Tolerance(1e9, 1e9)).status is Status.FAILED

    def test_integers_exactly(self) -> None:
        given = answers(*CASES)
        given[0][1][1][1] += 1
        check = replay(CASES, given)
        assert check.status is Status.FAILED
        assert check.mismatches[0].output == "index"
        assert replay(CASES, given, index=Tolerance(10)).status is Status.FAILED

    @pytest.mark.parametrize(
        "change",
        [
            lambda a: a[:1],
            lambda a: [*a, ("more", np.zeros(1))],
            lambda a: a[::-1],
            lambda a: [("z", a[0][1]), a[1]],
            lambda a: [("y", a[0][1].astype(np.float64)), a[1]],
            lambda a: [("y", a[0][1][:1]), a[1]],
            lambda a: [("y", a[0][1][..., None]), a[1]],
            lambda a: [],
        ],
        ids=["dropped", "added", "order", "name", "dtype", "rows", "rank", "none"],
    )
    def test_structure(self, change: Callable[[Outputs], Outputs]) -> None:
        given = answers(*CASES)
        given[1] = change(given[1])
        check = replay(CASES, given)
        assert check.status is Status.FAILED
        assert check.mismatches[0].probe == "p1"

    def test_a_crash_is_a_failure_and_the_other_cases_still_count(self) -> None:
        given: list[Any] = answers(*CASES)
        given[0] = WorkerCrashError("the worker process died of SIGSEGV")
        given[2][0][1][:] += 1
        check = replay(CASES, given)
        assert check.status is Status.FAILED
        assert "on 2 of 3 cases" in check.summary
        assert "SIGSEGV" in check.mismatches[0].problem

    def test_a_time_out_ends_the_replay(self) -> None:
        with pytest.raises(WorkerTimeoutError):
            replay(CASES, [WorkerTimeoutError("gave no answer")])

    def test_without_cases_nothing_was_shown(self) -> None:
        check = replay([], [])
        assert check.status is Status.ERROR
        assert "no golden data" in check.summary

    def test_an_output_for_which_nothing_was_allowed_must_be_equal(self) -> None:
        case = replace(stored(), allowed={})
        assert replay([case], answers(case)).status is Status.PASSED
        given = answers(case)
        given[0][0][1][0, 0] = np.nextafter(np.float32(1), np.float32(2))
        assert replay([case], given).status is Status.FAILED

    def test_a_users_tolerance_replaces_the_stored_one(self) -> None:
        given = answers(*CASES)
        given[1][0][1][:] += np.float32(1e-3)
        assert replay(CASES, given, y=Tolerance(atol=1e-2)).status is Status.PASSED
        every = {"": Tolerance(atol=1e-2)}
        assert golden_check("onnx", Replays(*given), CASES, every).status is Status.PASSED
        given = answers(*CASES)
        given[1][0][1][0, 0] += np.float32(0.9e-5)
        assert replay(CASES, given, y=Tolerance(atol=1e-7)).status is Status.FAILED

    def test_many_failures_are_cut_short(self) -> None:
        cases = [stored(number) for number in range(30)]
        given = [[(n, a + 1) for n, a in answer] for answer in answers(*cases)]
        check = replay(cases, given)
        assert len(check.mismatches) == 12
        assert "on 30 of 30" in check.summary


class TestParts:
    """Channels that are judged apart have limits of their own."""

    case = Golden(
        "p",
        {},
        [("pred", np.zeros((2, 5, 3), np.float32)), ("pred2", np.zeros((2, 5, 3), np.float32))],
        {"pred": 1e-2, "pred@1=1:3": 1e-6, "pred@1=4:5": 1e-4, "pred2": 1e-2},
    )

    @pytest.mark.parametrize(
        ("channel", "allowed"), [(0, 1e-2), (1, 1e-6), (2, 1e-6), (3, 1e-2), (4, 1e-4)]
    )
    def test_each_index_has_its_limit(self, channel: int, allowed: float) -> None:
        for output, limit in ((0, allowed), (1, 1e-2)):
            for share, status in ((0.9, Status.PASSED), (1.1, Status.FAILED)):
                (given,) = answers(self.case)
                given[output][1][1, channel, 2] = limit * share
                check = replay([self.case], [given])
                assert check.status is status
                if check.mismatches:
                    assert check.mismatches[0].allowed == pytest.approx(limit)

    @pytest.mark.parametrize("key", ["pred@9=0:1", "pred@x=0:1", "pred@", "pred@1=3:900"])
    def test_a_key_that_does_not_fit_loosens_nothing(self, key: str) -> None:
        case = replace(self.case, allowed={"pred": 1e-6, "pred2": 1e-6, key: 1e-6})
        (given,) = answers(case)
        assert replay([case], [given]).status is Status.PASSED
        given[0][1][1, 4, 2] = 1e-5
        assert replay([case], [given]).status is Status.FAILED


def expected(*values: np.ndarray, noise: float = 1e-6) -> list[Expected]:
    cases = []
    for number, truth in enumerate(values):
        off = np.random.default_rng(number).uniform(-1, 1, truth.shape) * noise
        want = (truth + off * np.abs(truth).max()).astype(np.float32)
        cases.append(Expected(Probe(f"p{number}", {}), [("y", want)], [truth]))
    return cases


class TestAllowed:
    truths = tuple(np.random.default_rng(n).standard_normal((40, 4)) for n in range(6))

    def test_the_measured_tolerance_and_the_modules_own_noise(self) -> None:
        cases = expected(*self.truths)
        (allowed,) = allowed_for(cases[0], typical_of(cases)).values()
        assert cases[0].truth is not None
        floor = np.abs(cases[0].outputs[0][1] - cases[0].truth[0]).max()
        assert 10 * floor < allowed < 20 * floor

    def test_an_artefact_that_passed_at_export_passes_the_replay(self) -> None:
        from torch2mobile.validators.parity.gate import judge_probe

        cases = expected(*self.truths)
        usual = typical_of(cases)
        for case in cases:
            (name, want), (truth,) = case.outputs[0], case.truth or ()
            (limit,) = allowed_for(case, usual).values()
            # As far off the truth as is allowed, on the other side of the module.
            got = want.copy()
            far = np.abs(want - truth)
            at = np.unravel_index(far.argmax(), far.shape)
            judged, _ = judge_probe(case, [(name, got)], usual, {})
            got[at] = truth[at] + np.sign(truth[at] - want[at]) * judged[0].allowed * 0.999
            assert judge_probe(case, [(name, got)], usual, {})[1] == []
            stored_case = Golden("p", {}, case.outputs, {name: limit})
            assert replay([stored_case], [[(name, got)]]).status is Status.PASSED

    def test_the_users_own_tolerance_at_export_holds_at_the_replay(self) -> None:
        cases = expected(*self.truths)
        allowed = allowed_for(cases[0], typical_of(cases), {"y": Tolerance(atol=0.25)})
        assert allowed == {"y": 0.25}
        relative = allowed_for(cases[0], typical_of(cases), {"": Tolerance(rtol=0.1)})
        assert relative["y"] == pytest.approx(0.1 * np.abs(cases[0].outputs[0][1]).max())

    def test_integers_have_none(self) -> None:
        case = Expected(Probe("p", {}), [("n", np.arange(3))], [np.arange(3)])
        assert allowed_for(case, typical_of([case])) == {}

    def test_an_empty_output_needs_none(self) -> None:
        empty = np.zeros((0, 3), np.float32)
        case = Expected(Probe("p", {}), [("y", empty)], [empty])
        assert allowed_for(case, typical_of([case])) == {"y": 0.0}

    def test_without_truth_the_dtypes_usual_one_at_the_outputs_scale(self) -> None:
        case = Expected(Probe("p", {}), [("y", np.array([100.0, -50], np.float32))])
        allowed = allowed_for(case, typical_of([case]))
        assert allowed["y"] == pytest.approx(100 * (1e-5 + 1.3e-6))

    def test_noise_of_plain_sums_counts_where_it_was_needed(self) -> None:
        cases = expected(*self.truths)
        rough = Rough(lambda: [cases[0].outputs[0][1] + np.float32(1e-3)])
        case = replace(cases[0], rough=rough)
        usual = typical_of(cases)
        before = allowed_for(case, usual)["y"]
        rough()
        assert allowed_for(case, usual)["y"] == pytest.approx(1.1e-2, rel=0.01)
        assert before < 1e-4

    @pytest.mark.parametrize("axis", [1, 2])
    def test_channels_of_other_scales_have_limits_of_their_own(self, axis: int) -> None:
        scales = np.array([600.0, 600, 1, 1, 600, 1e-3])
        truths = [
            np.moveaxis(np.random.default_rng(n).standard_normal((2, 9, 6)) * scales, 2, axis)
            for n in range(6)
        ]
        cases = [Expected(Probe("p", {}), [("y", t.astype(np.float32))], [t]) for t in truths]
        allowed = allowed_for(cases[0], typical_of(cases))
        assert list(allowed) == ["y", f"y@{axis}=2:4", f"y@{axis}=5:6"]
        assert allowed["y"] > 100 * allowed[f"y@{axis}=2:4"] > 1e4 * allowed[f"y@{axis}=5:6"] > 0
        # And the replay holds each channel to its own.
        case = Golden("p", {}, cases[0].outputs, allowed)
        for channel, wrong in ((0, 1.0), (2, 1e-3), (5, 1e-6)):
            (given,) = answers(case)
            place = (1, channel, 3) if axis == 1 else (1, 3, channel)
            given[0][1][place] += np.float32(wrong)
            assert replay([case], [given]).status is Status.FAILED
            given[0][1][place] = case.outputs[0][1][place] * np.float32(1 + 1e-6)
            assert replay([case], [given]).status is Status.PASSED


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes(dtype: Any) -> None:
    case = Golden("p", {}, [("y", np.ones((2, 2), dtype))], {"y": 0.1})
    (given,) = answers(case)
    given[0][1][0, 1] += dtype(0.0625)
    assert replay([case], [given]).status is Status.PASSED
    given[0][1][0, 1] += dtype(0.0625)
    assert replay([case], [given]).status is Status.FAILED


def test_a_real_module(export: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    artefact = export(nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 3)), "x:float32[N,6]")
    cases = artefact.expected()
    usual = typical_of(cases)
    golden = [Golden(c.probe.label, c.probe.feeds, c.outputs, allowed_for(c, usual)) for c in cases]
    assert golden_check("onnx", artefact.runner, golden, {}).status is Status.PASSED
    for number, case in enumerate(golden):
        worse = [(name, array * np.float32(1.001)) for name, array in case.outputs]
        cases_with_one_changed = [*golden]
        cases_with_one_changed[number] = replace(case, outputs=worse)
        check = golden_check("onnx", artefact.runner, cases_with_one_changed, {})
        assert check.status is Status.FAILED
        assert {m.probe for m in check.mismatches} == {case.probe}


def test_the_replay_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
        "import torch2mobile.validators.parity.golden, torch2mobile.validators.contract"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
