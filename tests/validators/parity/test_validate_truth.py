"""A float64 run that is another function is no truth, and one that is only noise is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.records import ParityOptions
from torch2mobile.validators.parity import compensated, gate, probes, reference

Load = Callable[..., Any]


class Net(nn.Module):
    def __init__(self, change: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.change = nn.Linear(16, 24), nn.Linear(24, 5), change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.last(torch.relu(self.first(x)))
        return y * (1 + self.change) if x.dtype == torch.float64 else y


class Norm(nn.Module):
    """Its epsilon goes by the dtype, which small inputs show."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.last = nn.RMSNorm(16), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(x * 1e-4))


class Cancels(nn.Module):
    """A noise of a thousandth, by what float32 storage alone loses."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x + 1e4) - 1e4


def evaluated(loaded: Any) -> list[reference.Reference]:
    example = reference.example_of(loaded)
    built = probes.build(loaded.specs, example, ParityOptions())
    return reference.evaluate(loaded, ["y"], built)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each evaluation of other roundings, whether it was the whole one."""
    seen: list[bool] = []
    evaluate = compensated.evaluate

    def count(*args: Any, others: bool = True) -> Any:
        seen.append(others)
        return evaluate(*args, others=others)

    monkeypatch.setattr(compensated, "evaluate", count)
    return seen


@pytest.mark.parametrize("change", [3e-5, -1e-4, 1e-3, 0.5])
def test_a_branch_on_the_dtype(load: Load, change: float) -> None:
    found = evaluated(load(Net(change).eval(), "x:float32[N,16]"))
    assert all(item.truth is None for item in found)
    assert all(item.roundings is not None for item in found)
    assert {item.lack.reason for item in found if item.lack} == {
        "its float64 run is another function"
    }


def test_it_does_not_widen_what_is_allowed(export: Callable[..., Any], load: Load) -> None:
    branch = export(Net(1e-3).eval(), "x:float32[N,16]")
    judged = branch.judged()
    assert {one.rule for one in judged} == {"compensated"}
    assert not [one for one in judged if one.mismatch]
    broken = copy.deepcopy(branch.loaded.module)
    with torch.no_grad():
        broken.first.weight.copy_(broken.first.weight.half().float())
    assert any(one.mismatch for one in branch.judged(load(broken, "x:float32[N,16]")))


def test_an_epsilon_by_dtype_is_seen_where_it_matters(load: Load) -> None:
    found = evaluated(load(Norm().eval(), "x:float32[N,16]"))
    without = {item.probe.label for item in found if item.truth is None}
    assert "small" in without
    assert all(item.lack for item in found if item.truth is None)


def test_noise_is_a_truth_and_costs_one_run(load: Load, runs: list[bool]) -> None:
    found = evaluated(load(Cancels(), "x:float32[N,16]"))
    assert all(item.truth is not None or item.later is not None for item in found)
    assert all(item.lack is None for item in found)
    # The least rounding alone does not explain it, chance does.
    assert runs == [False, True]


def test_a_clean_module_is_not_looked_at(load: Load, runs: list[bool]) -> None:
    found = evaluated(load(Net().eval(), "x:float32[N,16]"))
    assert all(item.truth is not None or item.later is not None for item in found)
    assert runs == []


def test_without_roundings_it_stays_as_it_was(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compensated, "evaluate", lambda *_, **__: None)
    found = evaluated(load(Net(0.5).eval(), "x:float32[N,16]"))
    cases = [case.sure() for case in reference.accepted(found)]
    assert all(case.case.truth is not None for case in cases)
    # And the rule for a truth that is another function everywhere decides.
    answers: list[Any] = [[(name, np.array(a)) for name, a in case.outputs] for case in cases]
    check = gate.parity_check("onnx", cases, answers, ParityOptions())
    assert check.metrics["y.rule"] == "usual"
