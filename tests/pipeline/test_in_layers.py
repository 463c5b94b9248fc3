"""A mismatch of a runtime with layers of its own names the layer, the module and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile import devices
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.records import Check, ParityOptions, Status, Tolerance

A53, A76, _ = devices.DEVICES
with_ncnn = pytest.mark.skipif(bool(TARGETS["ncnn"].missing()), reason="ncnn is not installed")
emulated = pytest.mark.skipif(
    devices.installed(("ncnn", "numpy")) is None, reason=f"not there: {devices.INSTALL}"
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 4, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def parity(report: Any, label: str, device: str = "") -> Check:
    (found,) = [
        check
        for check in report.checks
        if (check.name, check.target, check.device) == ("parity", label, device)
    ]
    return found


@with_ncnn
@pytest.mark.slow
@pytest.mark.parametrize("by", [0.05, 100.0])
def test_a_weight_changed_in_the_file_is_found_at_its_layer(tmp_path: Path, by: float) -> None:
    net = Net().eval()
    asked: dict[str, Any] = {
        "inputs": ["x:float32[1,3,16,16]"], "parity": ParityOptions(probes=2)
    }  # fmt: skip
    made = torch2mobile.export(net, **asked, targets=["ncnn"], simplify=False, out=tmp_path / "b")
    assert made.passed, str(made)
    file = tmp_path / "b" / "model.ncnn.bin"
    raw, weight = bytearray(file.read_bytes()), net.layers[2].weight.detach().numpy()
    at = raw.index(weight[0, 0].tobytes())
    raw[at : at + 4] = np.float32(weight[0, 0, 0, 0] + by).tobytes()
    file.write_bytes(raw)
    check = parity(torch2mobile.verify(tmp_path / "b", net, **asked).report, "ncnn")
    assert check.status is Status.FAILED
    assert str(check.metrics["layer"]).startswith("conv")
    assert check.metrics["layer kind"] == "Convolution"
    assert float(str(check.metrics["before"])) < 1e-5
    assert ("after" in check.metrics) is (by < 1)
    (place, *_) = check.locations
    assert place.module in {"layers.2", "layers.3"}
    assert place.code == "return self.layers(x)"
    assert any("it starts at the layer conv" in note for note in check.notes)


@with_ncnn
@emulated
@pytest.mark.slow
def test_a_processors_float16_kernel_is_found_at_its_layer(tmp_path: Path) -> None:
    loose = ParityOptions(probes=1, tolerances={"@ncnn-fp16": Tolerance(atol=0.001)})
    report = torch2mobile.export(
        Net().eval(), inputs=["x:float32[1,3,16,16]"], targets=["ncnn-fp16"],
        devices=[A53, A76], simplify=False, parity=loose, out=tmp_path / "b",
    ).report  # fmt: skip
    assert parity(report, "ncnn-fp16").status is Status.PASSED
    assert parity(report, "ncnn-fp16", A53).status is Status.PASSED
    check = parity(report, "ncnn-fp16", A76)
    assert check.status is Status.FAILED
    assert check.locations[0].module in {"layers.2", "layers.3"}
    assert any("it does not fail on this machine" in note for note in check.notes)
