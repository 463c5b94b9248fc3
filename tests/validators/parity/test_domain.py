"""Values that nobody declared: noted where the module does not take them, and moved to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.exporter.loading import source
from torch2mobile.interfaces import SilentObserver
from torch2mobile.pipeline.module_side import module_side
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import Check, LoadedModel, ParityOptions, Request, Status
from torch2mobile.validators.parity import domain, gate
from torch2mobile.validators.parity.expected import Expected

Load = Callable[..., LoadedModel]
SEEDLESS = Request(source="")


class Of(nn.Module):
    """A function of one or two inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> Any:
        return self.function(x, *more)


class OfTwo(Of):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:  # type: ignore[override]
        return self.function(x, y)


def side(loaded: LoadedModel) -> tuple[Check, list[Expected]]:
    stages = Stages(SilentObserver())
    expected = module_side(stages, loaded, ["y"], ParityOptions(), None)
    return stages.checks[0], expected or []


def finite(expected: list[Expected]) -> list[Expected]:
    return [case for case in expected if np.isfinite(case.outputs[0][1]).all()]


def test_large_values_that_overflow_float16_within_are_left_out() -> None:
    def half(x: torch.Tensor) -> torch.Tensor:
        return (x.half() * 4).float() + x

    check, expected = side(source.from_specs("m", Of(half), ["x:float32[N,64]"], [], SEEDLESS, ()))
    assert check.status is Status.PASSED
    assert "large: too large for the float16 within, and left out" in check.notes
    assert finite(expected) == expected
    assert "large" not in {case.probe.label for case in expected}
    # What the user declared is held to.
    declared = source.from_specs("m", Of(half), ["x:float32[N,64]"], ["x=0..60000"], SEEDLESS, ())
    _, expected = side(declared)
    assert finite(expected) != expected


def in_a_window(x: torch.Tensor) -> torch.Tensor:
    """NaN where the mean is in a window that no ordinary value hits."""
    mean = x.mean(-1, keepdim=True)
    return torch.where((mean > 0.9) & (mean < 0.93), (-1 - x.abs()).sqrt(), x)


class TestExplored:
    @pytest.mark.parametrize(
        ("function", "values"),
        [
            (torch.sqrt, "x=0.1..10"),
            (torch.log, "x=0.1..10"),
            (torch.acos, "x=uniform(-1,1)"),
            (torch.logit, "x=uniform(0,1)"),
            (torch.acosh, "x=1..10"),
        ],
    )
    def test_nan_is_noted_and_other_values_judge(
        self, load: Load, function: Any, values: str
    ) -> None:
        check, expected = side(load(Of(function), "x:float32[N=1..4,8]"))
        assert check.status is Status.PASSED, check
        assert check.notes[0].startswith("the module returns NaN on example, normal, ")
        assert "which nobody declared of x; the file has to as well" in check.notes[0]
        assert f"--values '{values}'" in check.notes[1]
        assert "return self.function(x, *more)" in check.notes[2]
        inside = [case for case in expected if not case.probe.outside]
        assert len(finite(inside)) >= 8
        # NaN is still asked for where the module gives it.
        assert any(np.isnan(case.outputs[0][1]).any() for case in expected if case.probe.outside)

    def test_only_the_input_at_fault_is_moved(self, load: Load) -> None:
        loaded = load(OfTwo(torch.div), "x:float32[N=1..4,8]", "y:float32[N,8]")
        check, _ = side(loaded)
        assert check.status is Status.PASSED
        assert "NaN on zeros, which" in check.notes[0]
        assert "--values 'y=0.1..10'" in check.notes[1]

    def test_a_number_for_the_modules_nan_is_a_failure(self, load: Load) -> None:
        _, expected = side(load(Of(torch.sqrt), "x:float32[N=1..4,8]"))
        answers = [[(n, np.nan_to_num(a)) for n, a in case.outputs] for case in expected]
        found = gate.parity_check("onnx", expected, answers, ParityOptions())
        assert found.status is Status.FAILED
        assert "NaN on one side only" in found.mismatches[0].problem

    @pytest.mark.parametrize(
        ("function", "label"),
        [
            (lambda x: torch.where(x > 0.5, x, (x - 0.5) / (x - 0.5).abs()), "edges in x"),
            (in_a_window, "search"),
        ],
    )
    def test_nan_on_a_searched_input_is_noted_and_asked_for(
        self, load: Load, function: Any, label: str
    ) -> None:
        """A file that gives a number there is another function."""
        check, expected = side(load(Of(function), "x:float32[N,6]"))
        assert check.status is Status.PASSED
        note = next(note for note in check.notes if "returns NaN on" in note)
        assert label in note
        assert note.endswith("which nobody declared; the file has to as well")
        assert any(np.isnan(case.outputs[0][1]).any() for case in expected)
        answers = [[(n, np.nan_to_num(a)) for n, a in case.outputs] for case in expected]
        found = gate.parity_check("onnx", expected, answers, ParityOptions())
        assert found.status is Status.FAILED
        assert "NaN on one side only" in found.mismatches[0].problem

    def test_what_was_declared_is_held_to(self, load: Load) -> None:
        declared = load(Of(torch.sqrt), "x:float32[N=1..4,8]", values=("x=-1..1",))
        assert side(declared)[0].status is Status.FAILED
        two = load(
            OfTwo(lambda x, y: x.sqrt() + y),
            "x:float32[N=1..4,8]",
            "y:float32[N,8]",
            values=("x=-1..1",),
        )
        assert side(two)[0].status is Status.FAILED

    def test_the_users_example_is_held_to(self) -> None:
        loaded = source.from_call("m", Of(torch.sqrt), (torch.randn(2, 8),), {})
        assert side(loaded)[0].status is Status.FAILED

    def test_nan_at_a_declared_size_is_no_matter_of_values(self, load: Load) -> None:
        spread = Of(lambda x: x.std(0))
        assert side(load(spread, "x:float32[N=1..4,8]"))[0].status is Status.FAILED
        check, _ = side(load(spread, "x:float32[N,8]"))
        assert check.status is Status.PASSED
        assert "N=1" in check.notes[0]

    def test_too_few_left_is_an_error(self, load: Load) -> None:
        def odd(x: torch.Tensor) -> torch.Tensor:
            return torch.where(((x * 8) == (x * 8).round()).all(), x, torch.nan)

        check, _ = side(load(Of(odd), "x:float32[2,8]"))
        assert check.status is Status.ERROR
        assert "too few probes" in check.summary
        assert "--values" in check.hint


class TestRefused:
    def test_a_probability_is_drawn_as_in_the_example(self) -> None:
        loss = OfTwo(lambda x, y: F.binary_cross_entropy(x, y, reduction="none"))
        shapes = ({0: torch.export.Dim("N", min=1, max=6)},) * 2
        args = (torch.rand(2, 8), torch.rand(2, 8))
        check, expected = side(source.from_call("m", loss, args, {}, dynamic_shapes=shapes))
        assert check.status is Status.PASSED, check
        assert "refuses normal" in check.notes[0]
        assert {len(case.probe.feeds["x"]) for case in expected} > {1, 2}

    def test_a_drawn_example_is_drawn_anew(self, load: Load) -> None:
        loss = OfTwo(lambda x, y: F.binary_cross_entropy(x, y, reduction="none"))
        loaded = domain.taken(load(loss, "x:float32[N=1..4,8]", "y:float32[N,8]"))
        assert "x=uniform(0,1)' --values 'y=uniform(0,1)" in loaded.notes[0]
        check, expected = side(loaded)
        assert check.status is Status.PASSED, check
        assert len(expected) > 6
        never = load(Of(lambda x: x.reshape(5, 5)), "x:float32[2,8]")
        assert domain.taken(never) is never

    def test_an_index_is_taken_from_the_example(self) -> None:
        table = nn.Embedding(9, 2)
        args = (torch.randn(3), torch.tensor([5, 6, 7, 8]))
        module = OfTwo(lambda x, i: table(i - 5).sum() * x)
        check, expected = side(source.from_call("m", module, args, {}))
        assert check.status is Status.PASSED, check
        assert "--values 'y=5..8'" in check.notes[1]
        assert len(expected) > 5

    def test_of_a_declared_size_is_still_a_failure(self, load: Load) -> None:
        pairs = Of(lambda x: x.reshape(-1, 2, 3))
        check, _ = side(load(pairs, "x:float32[N=1..8,3]"))
        assert check.status is Status.FAILED
        assert "refuses N=1, which the inputs declare" in check.summary
