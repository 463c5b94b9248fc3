"""Operators that were spelled out, as one node where the opset has it and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from rows import slow_but

from torch2mobile.exporter import capture, fusions, translate
from torch2mobile.exporter.loading import source
from torch2mobile.records import Request

WEIGHT = torch.linspace(0.5, 1.5, 16)


def layer_norm(x: torch.Tensor) -> torch.Tensor:
    off = x - x.mean(-1, keepdim=True)
    return off / torch.sqrt(off.pow(2).mean(-1, keepdim=True) + 1e-5) * WEIGHT + WEIGHT


def rms_norm(x: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * WEIGHT


def hard_swish(x: torch.Tensor) -> torch.Tensor:
    return x * torch.nn.functional.relu6(x + 3) / 6


def gelu(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def gelu_by_tanh(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Of(torch.nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


SPELLED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "LayerNormalization": (layer_norm, 17),
    "RMSNormalization": (rms_norm, 23),
    "HardSwish": (hard_swish, 14),
    "Gelu": (gelu, 20),
    "Gelu, tanh": (gelu_by_tanh, 20),
}


@pytest.mark.parametrize("opset", slow_but([18, 20, 24], 20))
@pytest.mark.parametrize("name", SPELLED)
def test_it_is_one_node_from_its_opset_on(tmp_path: Path, name: str, opset: int) -> None:
    function, since = SPELLED[name]
    request = Request(source="")
    loaded = source.from_specs("net", Of(function), ["x:float32[N=1..4,16]"], (), request, ())
    path = tmp_path / "model.onnx"
    translate.translation(capture.capture(loaded), path, opset=opset)
    model = ir.load(path)
    assert fusions.fuse(model) is (opset >= since)
    operators = {node.op_type for node in model.graph}
    assert (operators == {name.partition(",")[0]}) is (opset >= since), operators
    ir.save(model, path.with_name("fused.onnx"))
    x = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32) * 3
    session = onnxruntime.InferenceSession(path.with_name("fused.onnx"))
    np.testing.assert_allclose(session.run(None, {"x": x})[0], function(torch.tensor(x)), atol=2e-6)
