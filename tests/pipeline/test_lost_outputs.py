"""What a run proves nothing about is a failed check: outputs that are no tensors, or constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.errors import InputError, UsageError
from torch2mobile.records import Check, ParityOptions, Status

QUICK: dict[str, Any] = {"parity": ParityOptions(probes=2), "inputs": ["x:float32[N=1..5,4]"]}
FAST: dict[str, Any] = {**QUICK, "simplify": False, "targets": ()}


class Cache:
    """No tensor, as the caches of language models are none."""


class Caching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, Any]:
        y = self.layer(x)
        return {"y": y, "cache": Cache(), "none": None, "pair": (y * 2, y.shape[0])}


class Constant(nn.Module):
    """A ReLU that never opens."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        nn.init.constant_(self.layer.bias, -1e9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).relu()


def failed(report: Any) -> Check:
    (found,) = [check for check in report.checks if check.status is Status.FAILED]
    return found


def test_an_output_that_is_no_tensor_fails_unless_it_may_go(tmp_path: Path) -> None:
    module = Caching().eval()
    out = tmp_path / "net"
    check = failed(torch2mobile.export(module, out=out, **FAST).report)
    assert check.name == "capture"
    assert check.summary.startswith("the module returns cache (Cache) and pair_1 (int), which is")
    assert "--drop-output cache --drop-output pair_1" in check.hint
    assert not out.exists()
    asked = ["cache", "pair"]
    done = torch2mobile.export(module, out=out, drop_outputs=asked, **FAST)
    assert done.passed, str(done)
    notes = next(check.notes for check in done.report.checks if check.name == "capture")
    assert "the output pair is left out, as asked for" in notes
    assert [spec.name for spec in torch2mobile.load_bundle(out).manifest.outputs] == ["y"]
    # A bundle that leaves export passes verify: what was dropped stands in its request.
    assert torch2mobile.verify(out, module, parity=QUICK["parity"]).passed
    lost = torch2mobile.verify(out / "model.onnx", module, **QUICK)
    assert "cache (Cache)" in failed(lost.report).summary
    assert torch2mobile.verify(out / "model.onnx", module, drop_outputs=asked, **QUICK).passed


def test_check_says_so_too() -> None:
    module = Caching().eval()
    found = torch2mobile.check(module, inputs=QUICK["inputs"])
    assert "cache (Cache)" in failed(found.report).summary
    given = {"inputs": QUICK["inputs"], "drop_outputs": ["cache", "pair_1"]}
    assert torch2mobile.check(module, **given).passed


def test_what_cannot_be_dropped_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="returns no 'cash', which was to be left out") as caught:
        torch2mobile.export(Caching().eval(), out=tmp_path / "n", drop_outputs=["cash"], **FAST)
    assert caught.value.remedy == "Did you mean cache?"
    with pytest.raises(InputError, match="returns no tensor"):
        torch2mobile.export(Constant().eval(), out=tmp_path / "n", drop_outputs=["output"], **FAST)
    program = torch.export.export(Constant().eval(), (torch.ones(2, 4),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(UsageError, match="captured already: its outputs are fixed"):
        torch2mobile.check(tmp_path / "m.pt2", drop_outputs=["output"])


def test_a_module_that_is_constant_fails_unless_it_may_be(tmp_path: Path) -> None:
    module, out = Constant().eval(), tmp_path / "net"
    check = failed(torch2mobile.export(module, out=out, **FAST).report)
    assert check.name == "constant"
    assert "probes (0 everywhere): nothing shows" in check.summary
    assert "--accept-constant" in check.hint
    assert not out.exists()
    accepted = ParityOptions(probes=2, accept_constant=True)
    assert torch2mobile.export(module, out=out, **{**FAST, "parity": accepted}).passed
    assert torch2mobile.verify(out, module, parity=QUICK["parity"]).passed
    check = failed(torch2mobile.verify(out / "model.onnx", module, **QUICK).report)
    assert check.name == "constant"
