"""Branches and loops on values, from the user's lines to If, Loop and Scan in a proven file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from flow_modules import MODULES, Branch, Never, While
from torch import nn

import torch2mobile
from torch2mobile.records import Check, ParityOptions, Status

OPERATORS = {"T2M101": "If", "T2M102": "Loop", "T2M152": "Scan"}


def export(kind: type[Any], out: Path, *codes: str) -> Any:
    torch.manual_seed(0)
    return torch2mobile.export(
        kind().eval(), inputs=kind.inputs, out=out, targets=(), rewrites=codes, simplify=False
    )


def check(result: Any, name: str) -> Check:
    return next(check for check in result.report.checks if check.name == name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODULES)
def test_it_arrives_and_the_probes_take_both_ways(kind: type[Any], tmp_path: Path) -> None:
    code = kind.forward.__code__
    result = export(kind, tmp_path / "out", kind.code)
    assert result.passed, [str(c) for c in result.report.checks]
    assert check(result, "sides").status is Status.PASSED
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert OPERATORS[kind.code] in [node.op_type for node in model.graph.node]
    assert kind.forward.__code__ is code


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODULES)
def test_the_refusal_names_the_option(kind: type[Any], tmp_path: Path) -> None:
    found = check(export(kind, tmp_path / "out"), "capture")
    assert found.status is Status.ERROR
    assert f"--rewrite {kind.code}" in found.hint


@pytest.mark.slow
def test_a_later_run_in_the_same_process_offers_it_as_well(tmp_path: Path) -> None:
    hints = [check(export(Branch, tmp_path / "out"), "capture").hint for _ in range(3)]
    assert hints[0] == hints[1] == hints[2]
    assert "--rewrite T2M101" in hints[0]


@pytest.mark.slow
def test_a_side_that_no_probe_takes_is_said(tmp_path: Path) -> None:
    found = check(export(Never, tmp_path / "out", "T2M101"), "sides")
    assert found.status is Status.SKIPPED
    assert "never true" in found.notes[0]
    assert "if (x * 0).sum() > 1" in found.notes[0]


class Types(nn.Module):
    inputs, code = Branch.inputs, Branch.code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return x > 0


class Leaves(nn.Module):
    inputs, code = While.inputs, While.code

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        while x.abs().max() > 0.1:
            x = x / 2
            if x.sum() > 3:
                break
        return x


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reason"), [(Types, "rewritten"), (Leaves, "a break leaves it")])
def test_what_has_no_operator_is_refused_with_the_line(
    kind: type[Any], reason: str, tmp_path: Path
) -> None:
    result = export(kind, tmp_path / "out", kind.code)
    found = check(result, "capture")
    assert found.status is Status.ERROR
    assert found.locations
    if kind is Leaves:
        assert reason in found.hint
        assert "keep what is done" in found.hint
    else:
        assert "--rewrite" not in found.hint


def test_a_branch_arrives_with_both_sides(tmp_path: Path) -> None:
    torch.manual_seed(0)
    result = torch2mobile.export(
        Branch().eval(),
        inputs=Branch.inputs,
        out=tmp_path / "out",
        targets=(),
        rewrites=("T2M101",),
        simplify=False,
        parity=ParityOptions(probes=2),
    )
    assert result.passed
    assert check(result, "rewrite").metrics["branch-to-if"] == 1
    assert check(result, "sides").status is Status.PASSED
