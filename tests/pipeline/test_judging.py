"""What the check `reference` says of the module beside its verdict."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import torch2mobile
from torch2mobile.records import Check, ParityOptions


class Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


def reference_of(module: nn.Module, tmp_path: Any, inputs: list[str], *values: str) -> Check:
    result = torch2mobile.export(
        module.eval(), inputs=inputs, values=values, out=tmp_path / "b", targets=(),
        simplify=False, parity=ParityOptions(probes=3),
    )  # fmt: skip
    return next(check for check in result.report.checks if check.name == "reference")


def test_infinities_are_not_called_finite(tmp_path: Any) -> None:
    check = reference_of(Log(), tmp_path, ["x:float32[2,4]"], "x=0..1")
    assert "but for infinities on" in check.summary
