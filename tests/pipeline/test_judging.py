"""What the check `reference` says of the module beside its verdict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.records import Check, ParityOptions


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)

    def forward(self, x: torch.Tensor, pad: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.encoder(x, src_key_padding_mask=pad)
        return out


class Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.log()


def reference_of(module: nn.Module, tmp_path: Any, inputs: list[str], *values: str) -> Check:
    result = torch2mobile.export(
        module.eval(), inputs=inputs, values=values, out=tmp_path / "b", targets=(),
        simplify=False, parity=ParityOptions(probes=3),
    )  # fmt: skip
    return next(check for check in result.report.checks if check.name == "reference")


@pytest.mark.slow
def test_pytorchs_fused_path_is_named_with_what_turns_it_off(tmp_path: Any) -> None:
    specs = ["x:float32[2,3,8]", "pad:bool[2,3]"]
    assert any("fused path" in note for note in reference_of(Encoder(), tmp_path, specs).notes)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        notes = reference_of(Encoder(), tmp_path, specs).notes
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert not any("fused path" in note for note in notes)


def test_infinities_are_not_called_finite(tmp_path: Any) -> None:
    check = reference_of(Log(), tmp_path, ["x:float32[2,4]"], "x=0..1")
    assert "but for infinities on" in check.summary
