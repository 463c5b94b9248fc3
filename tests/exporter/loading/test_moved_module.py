"""Modules on another device; a stand-in for one, as a CPU alone runs the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import torch2mobile
from torch2mobile.exporter.loading.example import Call
from torch2mobile.exporter.loading.moved_module import on_cpu


class Elsewhere(torch.Tensor):
    """A tensor that says it is on a GPU, and does nothing there but come back."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Elsewhere:
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device="cuda"
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner)
        if func is torch.ops.aten._to_copy.default and str(kwargs["device"]) == "cpu":
            return args[0].inner.clone()
        raise AssertionError(f"{func} ran on the other device")


class Net(nn.Module):
    """Two layers with one weight, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.arange(4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh()) + self.shift


def moved(net: Net) -> Net:
    """The same net, whose weights say that they are elsewhere."""
    net.shift = Elsewhere(net.shift)
    shared = nn.Parameter(Elsewhere(net.first.weight.detach()))
    for layer in (net.first, net.second):
        layer.weight = shared
        layer.bias = nn.Parameter(Elsewhere(layer.bias.detach()), requires_grad=False)
    return net


def test_a_copy_is_on_the_cpu_and_the_original_stays() -> None:
    net, x = Net(), torch.randn(2, 4)
    wanted = net(x)
    original = moved(net)
    copy, call, notes = on_cpu(original, Call(((), {}), (Elsewhere(x),), ()))
    assert notes == ("the module is on cuda: a copy of it on the CPU was exported",)
    torch.testing.assert_close(copy(*call.tensors), wanted)
    assert copy.first.weight is copy.second.weight
    assert copy.first.weight.requires_grad
    assert not copy.first.bias.requires_grad
    assert {each.device.type for each in (*original.parameters(), *original.buffers())} == {"cuda"}


def test_it_is_exported_with_a_note(tmp_path: Path) -> None:
    net = moved(Net().eval())
    result = torch2mobile.export(net, inputs=["x:float32[N=1..3,4]"], out=tmp_path / "net")
    assert result.passed, str(result)
    assert "the module is on cuda: a copy of it on the CPU was exported" in str(result)
    assert net.shift.device.type == "cuda"
