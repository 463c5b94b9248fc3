"""Mended operators through the whole run: the report names them, --no-mend leaves them be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch2mobile
from torch2mobile import cli
from torch2mobile.records import Check, ParityOptions, Status

NAME = "scaled_dot_product_attention"


class Attention(nn.Module):
    """As in text models: rows whose mask is zero see nothing."""

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(x, x, x, mask[:, None, :, None] != 0)


CALL: dict[str, Any] = {
    "inputs": ["x:float32[N=1..4,2,L=1..9,4]", "mask:int64[N,L]"],
    "values": ["mask=0..1"],
}


def check_of(report: Any, name: str) -> Check:
    return next(check for check in report.checks if check.name == name)


@pytest.mark.parametrize("mend", [True, False])
def test_the_verdict_with_and_without(mend: bool, tmp_path: Path) -> None:
    result = torch2mobile.export(
        Attention(),
        out=tmp_path / "b",
        simplify=False,
        targets=(),
        mend=mend,
        parity=ParityOptions(probes=4),
        **CALL,
    )
    translated = check_of(result.report, "translate")
    assert result.passed is mend
    assert check_of(result.report, "parity").status is (Status.PASSED if mend else Status.FAILED)
    assert translated.metrics == ({"mended": NAME} if mend else {})
    notes = [note for note in translated.notes if note.startswith(f"mended {NAME} (torch.onnx: ")]
    assert len(notes) == mend
    assert result.report.request is not None
    assert result.report.request.mend is mend


@pytest.mark.parametrize("mend", [True, False])
def test_check_says_it_too(mend: bool) -> None:
    result = torch2mobile.check(Attention(), mend=mend, **CALL)
    assert result.passed
    notes = check_of(result.report, "aten").notes
    assert any(note.startswith(f"mended {NAME} (") for note in notes) is mend


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["translations"]) == 0
    assert NAME in capsys.readouterr().out
    assert cli.run(["translations", "--format", "json"]) == 0
    rows = {row["operator"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[NAME]["operators"] == [f"aten::{NAME}"]
    assert rows[NAME]["torch.onnx's"] == "wrong"
    assert rows[NAME]["link"].startswith("https://github.com/")
