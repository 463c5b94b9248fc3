"""Conversion faults that show on unusual values alone, which the module's own operations suggest.

The file is the module's faulty twin in PyTorch, so that nothing has to be exported; that a right
file passes on the same inputs is shown by one export of all twins' originals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile import limits
from torch2mobile.exporter.bundle import read_case
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.interfaces import SilentObserver
from torch2mobile.pipeline import golden_cases
from torch2mobile.pipeline.module_side import module_side
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import Check, LoadedModel, ParityOptions, Request, Status
from torch2mobile.validators.parity import gate
from torch2mobile.validators.parity.answers import run_probes
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.exploring.sides import taken_on
from torch2mobile.validators.parity.golden import Golden, golden_check

Forward = Callable[..., torch.Tensor]
ROWS = 3000


def table(rows: int = ROWS) -> torch.Tensor:
    return torch.randn(rows, 4, generator=torch.Generator().manual_seed(0))


def swapped(first: int, second: int) -> torch.Tensor:
    found = table()
    found[[first, second]] = found[[second, first]]
    return found


def wrapped(x: torch.Tensor) -> torch.Tensor:
    """A whole number as int32 holds it."""
    return x.to(torch.int32).to(torch.int64)


def window(x: torch.Tensor) -> torch.Tensor:
    return torch.where((x > 1.25) & (x < 1.2501), x * 5, x)


def deep_window(x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(-1, keepdim=True)
    return torch.where((mean > 0.9) & (mean < 0.93), x * 5, x)


def half_up(x: torch.Tensor) -> torch.Tensor:
    return torch.floor(x + 0.5)


FLOAT, WHOLE = ("x:float32[N,6]",), ("x:int64[N,6]",)


@dataclass(frozen=True)
class Twins:
    """A function, a faulty conversion of it, and its inputs."""

    right: Forward
    wrong: Forward
    inputs: tuple[str, ...] = FLOAT
    values: tuple[str, ...] = ()


TWINS: Mapping[str, Twins] = {
    "nan_to_num dropped": Twins(lambda x: torch.nan_to_num(x * 2, nan=1.0), lambda x: x * 2),
    "Max ignores NaN": Twins(torch.maximum, torch.fmax, ("x:float32[N,6]", "y:float32[N,6]")),
    "rows swapped": Twins(
        lambda x: table()[x], lambda x: swapped(1234, 2345)[x], ("x:int64[N,L=1..64]",)
    ),
    "rows swapped, declared": Twins(
        lambda x: nn.functional.embedding(x, table()),
        lambda x: nn.functional.embedding(x, swapped(17, 2999)),
        ("x:int64[N,L=1..64]",),
        (f"x=0..{ROWS - 1}",),
    ),
    "round half up": Twins(torch.round, half_up),
    "round half up, scaled": Twins(
        lambda x: torch.round(x / 0.1 + 3).clamp(-128, 127),
        lambda x: half_up(x / 0.1 + 3).clamp(-128, 127),
    ),
    "one size": Twins(
        lambda x: x.cumsum(-1),
        lambda x: x.cumsum(-1) * (1 if x.shape[1] != 23 else 2),
        ("x:float32[N=1..4,L=2..48]",),
    ),
    "one batch size": Twins(
        lambda x: x.cumsum(-1),
        lambda x: x.cumsum(-1) * (1 if x.shape[0] != 6 else 2),
        ("x:float32[N=1..8,L=2..48]",),
    ),
    "one size of many, by which the code decides": Twins(
        lambda x: x + 1 if x.shape[0] == 251 else x * 2,
        lambda x: x * 2,
        ("x:float32[N=2..400,3]",),
    ),
    "Gather clamps": Twins(
        lambda x: table(50)[x + 3], lambda x: table(50)[(x + 3).clamp(0, 40)], WHOLE
    ),
    "negative index": Twins(lambda x: table(50)[x], lambda x: table(50)[x.clamp(min=0)], WHOLE),
    "int32 truncation": Twins(lambda x: x * 3 + 1, lambda x: wrapped(x) * 3 + 1, WHOLE),
    "int32 truncation, hashed": Twins(
        lambda x: table(97)[(x * 2654435761) % 97],
        lambda x: table(97)[(wrapped(x) * 2654435761) % 97],
        WHOLE,
    ),
    "fmod": Twins(lambda x: x % 7, lambda x: torch.fmod(x, 7), WHOLE),
    "fmod, as a float": Twins(
        lambda x: (x % 7).float() * 0.5, lambda x: torch.fmod(x, 7).float() * 0.5, WHOLE
    ),
    "narrow window": Twins(window, lambda x: x * 1),
    "narrow window, of a mean": Twins(deep_window, lambda x: x * 1),
    "narrow window, declared": Twins(
        lambda x: torch.where((x > 0.5) & (x < 0.5001), x * 5, x),
        lambda x: x * 1,
        values=("x=uniform(0,1)",),
    ),
}


class Module(nn.Module):
    """A function as a module."""

    def __init__(self, function: Forward, inputs: int) -> None:
        super().__init__()
        self.function, self.inputs = function, inputs

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return self.function(x) if y is None else self.function(x, y)


class Torch:
    """A runner that runs PyTorch, and says so."""

    def __init__(self, function: Forward) -> None:
        self.function = function

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        with torch.no_grad():
            found = self.function(*(torch.from_numpy(array) for array in feeds.values()))
        return [("output", found.numpy())]


def loaded(twins: Twins) -> LoadedModel:
    module = Module(twins.right, len(twins.inputs))
    return source.from_specs("m", module, twins.inputs, twins.values, Request(source=""), ())


def against(expected: Sequence[Expected], runner: Any) -> Check:
    """As ``verify --against`` judges it."""
    return gate.parity_check("onnx", expected, run_probes(runner, expected), ParityOptions())


def taken_sides(model: LoadedModel, feeds: Mapping[str, np.ndarray]) -> set[object]:
    return {side for side, margin in taken_on(model, feeds).sides.items() if margin > 0}


def replayed(model: LoadedModel, expected: Sequence[Expected], folder: Path) -> list[Golden]:
    """What a bundle would hold of these."""
    (folder / "golden").mkdir()
    options, sides = ParityOptions(), partial(taken_sides, model)
    cases = golden_cases.write_golden(folder, expected, options, {}, [ONNX], (), sides)
    return [
        Golden(case.probe, *read_case(folder / case.file, limits.Budget()), case.allowed)
        for case in cases
    ]


@pytest.mark.parametrize("kind", TWINS)
def test_a_fault_on_unusual_values(kind: str, tmp_path: Path) -> None:
    twins = TWINS[kind]
    model, stages = loaded(twins), Stages(SilentObserver())
    expected = module_side(stages, model, ["output"], ParityOptions(), None)
    assert expected
    right, wrong = Torch(twins.right), Torch(twins.wrong)
    found = against(expected, right)
    assert found.status is Status.PASSED, found.mismatches
    assert against(expected, wrong).status is Status.FAILED
    # A bundle alone sees it too.
    cases = replayed(model, expected, tmp_path)
    found = golden_check("onnx", right, cases, {})
    assert found.status is Status.PASSED, found.mismatches
    assert golden_check("onnx", wrong, cases, {}).status is Status.FAILED


class Everything(nn.Module):
    """What all twins do rightly, as far as it is exported as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(table(97))

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "numbers": torch.nan_to_num(x * 2, nan=1.0),
            "greatest": torch.maximum(x, x * 0.5),
            "ties": torch.round(x / 0.1 + 3).clamp(-128, 127),
            "window": window(x),
            "deep": deep_window(x),
            "rows": nn.functional.embedding((ids * 2654435761) % 97, self.table),
            "remainder": ids % 7,
            "whole": ids * 3 + 1,
        }


def test_a_right_file_passes_on_unusual_values(tmp_path: Path) -> None:
    result = torch2mobile.export(
        Everything(),
        inputs=["x:float32[N=1..8,6]", "ids:int64[N,6]"],
        out=tmp_path / "bundle",
        targets=[],
        simplify=False,
    )
    found = [(check.name, check.summary) for check in result.report.checks]
    assert result.passed, found
    assert result.bundle is not None
    golden = {case.probe for case in result.bundle.manifest.golden}
    assert {"NaN", "infinities", "ties in x", "edges in x", "powers of two in ids"} <= golden
    assert any(label.startswith("search where") for label in golden)
