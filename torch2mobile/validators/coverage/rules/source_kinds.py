"""Rules about kinds of tensors and layers: T2M110 to T2M113."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

_X = ("x:float32[N=1..4,6]",)

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M110",
        name="custom-autograd-function",
        severity=Severity.INFO,
        summary="an autograd.Function of your own is called",
        reason=(
            "Its forward is followed like any other code, as far as that is torch; its gradient "
            "does not matter on a phone. With numpy or C++ inside, the capture stops."
        ),
        remedy="Call plain torch operations; keep the Function for training only.",
        before="""
import torch
from torch import nn


class Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Net(nn.Module):
    def forward(self, x):
        return Round.apply(x) * 2  # here
""",
        after=net(
            """
    def forward(self, x):
        return x.round() * 2
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M111",
        name="complex-tensor",
        severity=Severity.WARNING,
        summary="complex numbers are computed",
        reason=(
            "ONNX has no complex numbers. The exporter writes them as pairs for Fourier transforms "
            "and some arithmetic, and has nothing for the rest; accelerators take none of it."
        ),
        remedy="Compute with real and imaginary parts, or a transform as a matrix product.",
        before=net(
            """
    def forward(self, x):
        return torch.view_as_real(torch.fft.rfft(x)).square().sum(-1)  # here
"""
        ),
        after=net(
            """
    def __init__(self, length=6):
        super().__init__()
        n = torch.arange(length)
        angle = 2 * math.pi * n[:, None] * n[None, : length // 2 + 1] / length
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, x):
        return (x @ self.cos).square() + (x @ self.sin).square()
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M112",
        name="sparse-tensor",
        severity=Severity.WARNING,
        summary="sparse tensors are used",
        reason="Neither torch.export's decompositions nor ONNX operators take sparse layouts.",
        remedy="Use the dense tensor, or an index with index_select and index_add.",
        also=("T2M109",),
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(6))

    def forward(self, x):
        return torch.sparse.mm(self.weight.to_sparse(), x.T).T  # here
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(6))

    def forward(self, x):
        return (self.weight @ x.T).T
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M113",
        name="quantized-module",
        severity=Severity.WARNING,
        summary="a layer is quantized in eager mode",
        reason=(
            "Its weights are packed for PyTorch's own kernels, which no other runtime can read. "
            "It is an error where the capture stops at it."
        ),
        remedy="Export the float model, and quantize for the target's runtime afterwards.",
        also=("T2M109",),
        before="""
from torch import nn
from torch.ao.nn.quantized.dynamic import Linear


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = Linear(6, 3)

    def forward(self, x):
        return self.layer(x)
""",
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x)
"""
        ),
        inputs=_X,
    ),
)
