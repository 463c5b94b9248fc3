"""Functions of a size that torch.export would fix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from translating import Case, answers, compare, normal

from torch2mobile.exporter.sized import by_sizes

ROUNDS = tuple((normal(size, 3),) for size in (5, 1, 2, 12))


def test_a_root_and_a_range_by_a_size_are_torchs(tmp_path: Path) -> None:
    calls: Any = (
        lambda x: x / math.sqrt(x.shape[0]) + math.sqrt(2.0),
        lambda x: torch.linspace(-1, 2.5, x.shape[0]),
        lambda x: torch.linspace(3, 0, x.shape[0] + 1, dtype=torch.float64),
        lambda x: torch.linspace(0, 1, 4) * x[:, :1],
    )
    cases = [Case(call, ROUNDS, scale=3) for call in calls]
    _, found = answers(cases, tmp_path)
    for case, each in zip(cases, found, strict=True):
        compare(case, each)


def test_both_are_as_they_were_afterwards() -> None:
    before = math.sqrt
    with by_sizes():
        assert math.sqrt(9) == 3.0
        assert torch.linspace(0, 1, 3).tolist() == [0.0, 0.5, 1.0]
    assert math.sqrt is before


def test_what_is_written_through_data_is_in_the_graph() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x + 0
            y.data.mul_(2)
            return y + 1

    with by_sizes():
        program = torch.export.export(Doubled(), (torch.ones(2),))
    assert program.module()(torch.full((2,), 3.0)).tolist() == [7.0, 7.0]
