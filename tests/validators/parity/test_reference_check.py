"""A module that is random, gives NaN or refuses its own ranges is found before any comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.records import Check, LoadedModel, ParityOptions, Status
from torch2mobile.validators.parity import probes
from torch2mobile.validators.parity.domain import has_nan, settle
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.reference import Reference, evaluate, example_of
from torch2mobile.validators.parity.reference_check import constant_check, reference_check

Load = Callable[..., LoadedModel]


def item(value: Any = 1.0, dtype: Any = np.float32, **options: Any) -> Reference:
    x = {"x": np.zeros((2, 3), np.float32)}
    array = np.ones((2, 3), dtype)
    array[1, 2] = value
    return Reference(Probe("p", x, **options), [("y", array)])


def check_of(load: Load, module: nn.Module, *inputs: str, **options: Any) -> Check:
    loaded = load(module, *inputs, **options)
    built = probes.build(loaded.specs, example_of(loaded), ParityOptions(), drawn=loaded.drawn)
    found = evaluate(loaded, ["y"], built)
    settled = settle(loaded, found)
    if settled is not None:
        found = evaluate(loaded, ["y"], settled.probes)
    return reference_check(found, settled=settled)


class TestNan:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
    def test_on_ordinary_inputs_fails_and_says_where(self, dtype: Any) -> None:
        check = reference_check([item(), item(np.nan, dtype)])
        assert check.status is Status.FAILED
        assert "NaN on 1 of 2 probes" in check.summary
        (found,) = check.mismatches
        assert (found.output, found.probe, found.index) == ("y", "p", (1, 2))
        assert "at 1 of 6 values" in found.problem
        assert "--values" in check.hint

    def test_on_extreme_inputs_is_no_fault(self) -> None:
        assert not has_nan(item(np.nan, magnitude=1e4))
        assert reference_check([item(), item(np.nan, magnitude=1e4)]).status is Status.PASSED

    def test_infinity_is_a_value(self) -> None:
        assert reference_check([item(np.inf), item(-np.inf)]).status is Status.PASSED

    def test_integers_have_none(self) -> None:
        assert reference_check([item(3, np.int64)]).status is Status.PASSED

    def test_every_output_that_has_some_is_named(self) -> None:
        one = item(np.nan)
        both = replace(one, outputs=[("a", one.outputs[0][1]), ("b", one.outputs[0][1])])
        assert [m.output for m in reference_check([both]).mismatches] == ["a", "b"]

    def test_in_an_undeclared_range_is_noted(self, load: Load) -> None:
        class Root(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.sqrt()

        check = check_of(load, Root(), "x:float32[N,3]")
        assert check.status is Status.PASSED
        assert "which nobody declared of x" in check.notes[0]
        assert "--values 'x=0.1..10'" in check.notes[1]

    def test_and_a_declared_range_without_it_passes(self, load: Load) -> None:
        class Root(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.sqrt()

        declared = check_of(load, Root(), "x:float32[N,3]", values=("x=uniform(0,1)",))
        assert declared.status is Status.PASSED
        wrong = check_of(load, Root(), "x:float32[N,3]", values=("x=uniform(-1,1)",))
        assert wrong.status is Status.FAILED


class Even(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) % 2:
            raise ValueError("only pairs")
        return x


class TestRefusals:
    def test_within_a_declared_range_fails(self, load: Load) -> None:
        check = check_of(load, Even(), "x:float32[N=1..8,3]")
        assert check.status is Status.FAILED
        assert "refuses N=1, which the inputs declare: ValueError: only pairs" in check.summary
        assert not check.notes
        assert "--input" in check.hint

    def test_without_one_is_noted(self, load: Load) -> None:
        check = check_of(load, Even(), "x:float32[N,3]")
        assert check.status is Status.PASSED
        assert "the module refuses N=1: ValueError: only pairs" in check.notes
        assert f"on {13 - len(check.notes)} probes" in check.summary

    def test_of_values_it_declares_fails(self, load: Load) -> None:
        check = check_of(load, nn.Embedding(10, 4), "ids:int64[N]", values=("ids=0..10",))
        assert check.status is Status.FAILED
        assert "IndexError" in check.summary
        good = check_of(load, nn.Embedding(10, 4), "ids:int64[N]", values=("ids=0..9",))
        assert good.status is Status.PASSED

    def test_of_everything_is_no_pass(self, load: Load) -> None:
        class Never(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise ValueError("never")

        assert check_of(load, Never(), "x:float32[N,3]").status is Status.ERROR


class TestRepeatability:
    def test_randomness_fails_before_all_else(self, load: Load) -> None:
        class Noise(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if len(x) % 2:
                    raise ValueError("only pairs")
                return x.sqrt() + torch.rand_like(x)

        check = check_of(load, Noise(), "x:float32[N,3]")
        assert check.status is Status.FAILED
        assert "differ between two runs" in check.summary
        assert any("only pairs" in note for note in check.notes)

    def test_one_probe_is_enough(self) -> None:
        check = reference_check([item(), replace(item(), repeatable=False)])
        assert check.status is Status.FAILED


def test_a_sound_module_passes(load: Load) -> None:
    check = check_of(load, nn.Linear(3, 2), "x:float32[N,3]")
    assert check.status is Status.PASSED
    assert check.summary.startswith("repeatable and finite on ")
    assert not check.notes


def test_no_references_are_no_pass() -> None:
    assert reference_check([]).status is not Status.PASSED


class TestConstant:
    def expected(self, *outputs: Any, same_shapes: bool = True) -> list[Expected]:
        return [
            Expected(
                Probe(f"p{n}", {"x": np.full(1 if same_shapes else n + 1, n, np.float32)}),
                [("y", np.asarray(output, np.float32))],
            )
            for n, output in enumerate(outputs)
        ]

    @pytest.mark.parametrize(
        "outputs",
        [
            pytest.param([[0], [0, 0], [0, 0, 0]], id="zeros of every size"),
            pytest.param([[1, 2], [1, 2, 1, 2]], id="the same row"),
            pytest.param([[np.nan, 1], [np.nan, 1]], id="NaN"),
        ],
    )
    def test_fails(self, outputs: list[Any]) -> None:
        check = constant_check(self.expected(*outputs))
        assert check is not None
        assert check.status is Status.FAILED
        assert f"the same on all {len(outputs)} probes" in check.summary

    @pytest.mark.parametrize(
        "outputs",
        [
            pytest.param([[0], [0], [1]], id="one differs"),
            pytest.param([[0, 1], [0, 1, 2]], id="positions"),
            pytest.param([[0, 1, 1], [0, 1, 1], [0, 1, 0]], id="a mask, in other places"),
            pytest.param([[0]], id="one probe"),
        ],
    )
    def test_is_no_fault(self, outputs: list[Any]) -> None:
        assert constant_check(self.expected(*outputs)) is None

    def test_without_two_probes_of_one_size_nothing_is_said(self) -> None:
        assert constant_check(self.expected([0], [0, 0], same_shapes=False)) is None
        without = [Expected(Probe("p", {}), [("y", np.zeros(2))])] * 2
        assert constant_check(without) is None
