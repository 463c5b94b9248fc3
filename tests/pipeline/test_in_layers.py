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
from torch2mobile.exporter.bundle import load_bundle, read_case
from torch2mobile.exporter.targets import TARGETS, find_variant
from torch2mobile.pipeline import in_layers
from torch2mobile.pipeline.candidates import candidate
from torch2mobile.records import Check, ParityOptions, Status, Tolerance
from torch2mobile.validators.parity.locating.layers import WrongLayer

A53, A76, _ = devices.DEVICES


WAIT = 120.0
IMAGE = "x:float32[1,3,16,16]"


# Bytes that stand in a file once.
SLOPE, STEEP = 0.3183, 0.6183


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(16, 4, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.layers(x))


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


# The bytes that make a sine a cosine, and the layer's kind then. An .ort lists the kernels that it
# needs, so there a fused ReLU becomes a tanh. In ExecuTorch's graphs of XNNPACK the operator is the
# number of a table's type, among others of the same value.
SWAPS = {
    "ort": (b"\x04\0\0\0Relu\0", b"\x04\0\0\0Tanh\0", "FusedConv"),
    "ncnn": (b" 0=9\n", b" 0=10\n", "UnaryOp"),
    "mnn": (b"\x09\0\0\0", b"\x0a\0\0\0", "COS"),
    "litert": (b"\x42\0\0\0", b"\x6c\0\0\0", "COS"),
    "coreml": (b"\n\x03sin\x12", b"\n\x03cos\x12", "cos"),
    "qnn": (b'"\x03Sin', b'"\x03Cos', "Cos"),
    "executorch-portable": (b"aten::sin", b"aten::cos", "aten::cos"),
}
# Kinds of the layers that have a bias and a slope.
KINDS = {
    "ort": ("FusedConv", "FusedConv"),
    "ncnn": ("Convolution", "Convolution"),
    "mnn": ("Convolution", "ReLU"),
    "litert": ("CONV_2D", "LEAKY_RELU"),
    "coreml": ("conv", "leaky_relu"),
    "qnn": ("Conv", "LeakyRelu"),
    "executorch": ("XNNConv2d", "XNNLeakyReLU"),
    "executorch-portable": ("aten::convolution", "aten::leaky_relu"),
}


@pytest.mark.slow
@pytest.mark.parametrize("label", KINDS)
def test_a_fault_in_the_file_is_found_at_its_layer(tmp_path: Path, label: str) -> None:
    if missing := TARGETS[find_variant(label).target].missing():
        pytest.skip(f"not installed: {missing}")
    net, bundle = Net().eval(), tmp_path / "b"
    # The NPU computes in float16: what is right is off as well.
    rounding = 2e-3 if label == "qnn" else 1e-5
    gate = {"@qnn": Tolerance(atol=rounding)} if label == "qnn" else {}
    asked: dict[str, Any] = {"inputs": [IMAGE], "parity": ParityOptions(probes=2, tolerances=gate)}
    made = torch2mobile.export(net, **asked, targets=[label], simplify=False, out=bundle)
    assert made.passed, str(made)
    assert "layer" not in parity(made.report, label).metrics
    if label != "qnn":
        assert str(find(bundle, label)).startswith("no layer goes wrong by itself")

    told = load_bundle(bundle).manifest.targets[label]
    files = [file for name in told for file in (bundle / name, *(bundle / name).rglob("*"))]
    files = [file for file in files if file.is_file()]

    def seed(*pairs: tuple[bytes, bytes]) -> Check:
        """The parity check where the first of these bytes that a file has once are replaced."""
        file, raw, old, new = next(
            (file, raw, *pair)
            for pair in pairs
            for file in files
            if (raw := file.read_bytes()).count(pair[0]) == 1
        )
        file.write_bytes(raw.replace(old, new))
        report = torch2mobile.verify(bundle, net, **asked).report
        file.write_bytes(raw)
        assert parity(report, "onnx").status is Status.PASSED
        check = parity(report, label)
        assert check.status is Status.FAILED
        assert float(str(check.metrics["before"])) < rounding
        told = f"it starts at the layer {check.metrics['layer']} ({check.metrics['layer kind']})"
        assert any(told in note for note in check.notes)
        assert check.locations[0].code == "return torch.sin(self.layers(x))"
        return check

    bias = net.layers[2].bias.detach()
    for by in (0.05, 100.0):
        check = seed((bias.numpy().tobytes(), (bias + by).numpy().tobytes()))
        assert check.metrics["layer kind"] == KINDS[label][0]
        assert check.locations[0].module in {"layers.2", "layers.3"}
        # What is far off is known by its name only, where the runtime keeps names.
        known = by < 1 or label in {"ort", "qnn"}
        assert ("after" in check.metrics) is known
        if by < 1:
            assert float(str(check.metrics["after"])) == pytest.approx(by, rel=0.03)
    check = seed(
        *((kind(SLOPE).tobytes(), kind(STEEP).tobytes()) for kind in (np.float32, np.float64)),
        (str(SLOPE).encode(), str(STEEP).encode()),
    )
    assert check.metrics["layer kind"] == KINDS[label][1]
    assert check.locations[0].module in {"layers.2", "layers.3"}
    if label in SWAPS:
        *pair, kind = SWAPS[label]
        assert seed((pair[0], pair[1])).metrics["layer kind"] == kind


@pytest.mark.slow
@pytest.mark.parametrize("label", ["ncnn-fp16", "mnn-fp16"])
def test_a_processors_float16_kernel_is_found_at_its_layer(tmp_path: Path, label: str) -> None:
    target = TARGETS[find_variant(label).target]
    if missing := target.missing() or devices.installed(target.packages) is None:
        pytest.skip(f"not there: {missing or devices.INSTALL}")
    loose = ParityOptions(probes=1, tolerances={f"@{label}": Tolerance(atol=0.001)})
    report = torch2mobile.export(
        Net().eval(), inputs=[IMAGE], targets=[label],
        devices=[A53, A76], simplify=False, parity=loose, out=tmp_path / "b",
    ).report  # fmt: skip
    assert parity(report, label).status is Status.PASSED
    assert parity(report, label, A53).status is Status.PASSED
    check = parity(report, label, A76)
    assert check.status is Status.FAILED
    assert check.locations[0].module in {"layers.2", "layers.3"}
    assert any("it does not fail on this machine" in note for note in check.notes)
