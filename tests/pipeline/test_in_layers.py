"""A mismatch of a runtime with layers of its own names the layer, the module and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile import devices
from torch2mobile.exporter.bundle import load_bundle, read_case
from torch2mobile.exporter.targets import TARGETS, find_variant
from torch2mobile.pipeline import in_layers
from torch2mobile.pipeline.candidates import candidate
from torch2mobile.records import Check, ParityOptions, Status, Tolerance
from torch2mobile.validators.parity.locating.layers import WrongLayer

A53, A76, _ = devices.DEVICES
with_ncnn = pytest.mark.skipif(bool(TARGETS["ncnn"].missing()), reason="ncnn is not installed")
emulated = pytest.mark.skipif(
    devices.installed(("ncnn", "numpy")) is None, reason=f"not there: {devices.INSTALL}"
)


WAIT = 120.0
IMAGE = "x:float32[1,3,16,16]"


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


def find(folder: Path, label: str) -> WrongLayer | str:
    """Where an artefact of a bundle goes wrong, on the first input of its golden data."""
    bundle = load_bundle(folder)
    told = bundle.manifest
    feeds, _ = read_case(bundle.file(told.golden[0].file))
    file, entry = bundle.file(told.targets[label][0]), told.artifacts[label]
    found = candidate(file, entry, told.inputs, told.outputs, WAIT)
    with found.process:
        return in_layers.find(found.runner, bundle.file("model.onnx"), feeds, WAIT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "kind", "by"),
    [
        ("ort", "FusedConv", 0.05),
        ("ort", "FusedConv", 100.0),
        ("ncnn", "Convolution", 0.05),
        ("ncnn", "Convolution", 100.0),
        ("mnn", "Convolution", 0.05),
        ("mnn", "Convolution", 100.0),
        ("litert", "CONV_2D", 0.05),
        ("executorch", "XNNConv2d", 0.05),
        ("executorch-portable", "aten::convolution", 0.05),
    ],
)
def test_a_weight_changed_in_the_file_is_found_at_its_layer(
    tmp_path: Path, label: str, kind: str, by: float
) -> None:
    if missing := TARGETS[find_variant(label).target].missing():
        pytest.skip(f"not installed: {missing}")
    net, bundle = Net().eval(), tmp_path / "b"
    asked: dict[str, Any] = {"inputs": [IMAGE], "parity": ParityOptions(probes=2)}
    made = torch2mobile.export(net, **asked, targets=[label], simplify=False, out=bundle)
    assert made.passed, str(made)
    assert "layer" not in parity(made.report, label).metrics
    assert str(find(bundle, label)).startswith("no layer goes wrong by itself")

    bias = net.layers[2].bias.detach()
    (file,) = (
        bundle / name
        for name in load_bundle(bundle).manifest.targets[label]
        if (bundle / name).read_bytes().count(bias.numpy().tobytes()) == 1
    )
    raw = file.read_bytes()
    file.write_bytes(raw.replace(bias.numpy().tobytes(), (bias + by).numpy().tobytes()))
    checks = torch2mobile.verify(bundle).report.checks
    golden = {check.target: check.status for check in checks if check.name == "golden"}
    assert golden == {"onnx": Status.PASSED, label: Status.FAILED}
    check = parity(torch2mobile.verify(bundle, net, **asked).report, label)
    assert check.status is Status.FAILED
    assert check.metrics["layer kind"] == kind
    assert float(str(check.metrics["before"])) < 1e-5
    # What is far off is known by its name only, where the runtime keeps names.
    known = by < 1 or label == "ort"
    assert ("after" in check.metrics) is known
    if known:
        assert float(str(check.metrics["after"])) == pytest.approx(by, rel=0.01)
    (place, *_) = check.locations
    assert place.module in {"layers.2", "layers.3"}
    assert place.code == "return self.layers(x)"
    told = f"it starts at the layer {check.metrics['layer']} ({kind})"
    assert any(told in note for note in check.notes)


@with_ncnn
@emulated
@pytest.mark.slow
def test_a_processors_float16_kernel_is_found_at_its_layer(tmp_path: Path) -> None:
    loose = ParityOptions(probes=1, tolerances={"@ncnn-fp16": Tolerance(atol=0.001)})
    report = torch2mobile.export(
        Net().eval(), inputs=[IMAGE], targets=["ncnn-fp16"],
        devices=[A53, A76], simplify=False, parity=loose, out=tmp_path / "b",
    ).report  # fmt: skip
    assert parity(report, "ncnn-fp16").status is Status.PASSED
    assert parity(report, "ncnn-fp16", A53).status is Status.PASSED
    check = parity(report, "ncnn-fp16", A76)
    assert check.status is Status.FAILED
    assert check.locations[0].module in {"layers.2", "layers.3"}
    assert any("it does not fail on this machine" in note for note in check.notes)
