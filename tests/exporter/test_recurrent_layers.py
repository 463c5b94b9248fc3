"""LSTM and GRU stay whole through capture and translation, at any length."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim as TorchDim

from torch2mobile.errors import CaptureError
from torch2mobile.exporter import capture, strategies
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.recurrent_layers import whole_recurrent_layers


class Layers(nn.Module):
    """One of each kind of option: layers, directions, order of axes, bias, given states."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, batch_first=True, bidirectional=True, dropout=0.5)
        self.gru = nn.GRU(8, 5, bias=False)
        self.stateful = nn.GRU(5, 2, batch_first=True)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> Any:
        y, (hidden, cell) = self.lstm(x)
        z, _ = self.gru(y.transpose(0, 1))
        last, state = self.stateful(z.transpose(0, 1), h)
        return {"y": y, "hidden": hidden, "cell": cell, "last": last, "state": state}


def example(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, length, 3), torch.randn(1, batch, 2)


N, T = TorchDim("N", min=1, max=16), TorchDim("T", min=1, max=64)
SHAPES = ({0: N, 1: T}, {1: N})


def tables() -> list[Any]:
    """All that whole_recurrent_layers() replaces."""
    decompositions = torch._decomp.global_decomposition_table["post_autograd"]
    operators = (torch.ops.aten.lstm.input, torch.ops.aten.gru.input)
    return [
        entry
        for operator in operators
        for entry in (decompositions.get(operator), dict(operator.py_kernels))
    ]


def test_one_node_a_layer_and_any_size(export: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    before = tables()
    exported = export(Layers().eval(), example(2, 5), dynamic_shapes=SHAPES)
    assert tables() == before
    counted = Counter(node.op_type for node in exported.proto.graph.node)
    assert (counted["LSTM"], counted["GRU"]) == (2, 2)
    assert exported.dims("output")["y"] == ["N", "T", 8]
    for batch, length in ((2, 5), (1, 1), (1, 12), (7, 3)):
        exported.check(*example(batch, length))


def test_without_it_the_length_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch has it: once this fails, torch has learned it, and the module can go."""
    module, x = nn.GRU(3, 4, batch_first=True), torch.randn(2, 5, 3)
    loaded = source.from_call("n", module, (x,), {}, dynamic_shapes=({1: T},))
    assert capture.capture(loaded).strategy == "non-strict"
    monkeypatch.setattr(strategies, "whole_recurrent_layers", contextlib.nullcontext)
    with pytest.raises(CaptureError):
        capture.capture(loaded)


def test_the_operators_are_restored_after_an_error() -> None:
    before = tables()
    with contextlib.suppress(ZeroDivisionError), whole_recurrent_layers():
        assert tables() != before
        raise ZeroDivisionError
    assert tables() == before


def test_real_results_are_not_touched() -> None:
    """Only fake tensors see the replaced kernels."""
    torch.manual_seed(0)
    module, (x, h) = Layers().eval(), example(2, 5)
    expected = module(x, h)
    with whole_recurrent_layers():
        found = module(x, h)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
