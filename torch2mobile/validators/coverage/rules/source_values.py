"""Rules about kinds of tensors and layers, and about inputs: T2M110 to T2M113, T2M150 on."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule

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
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x.round() * 2
""",
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
        before="""
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return torch.view_as_real(torch.fft.rfft(x)).square().sum(-1)  # here
""",
        after="""
import math

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, length=6):
        super().__init__()
        n = torch.arange(length)
        angle = 2 * math.pi * n[:, None] * n[None, : length // 2 + 1] / length
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, x):
        return (x @ self.cos).square() + (x @ self.sin).square()
""",
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
        before="""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(6))

    def forward(self, x):
        return torch.sparse.mm(self.weight.to_sparse(), x.T).T  # here
""",
        after="""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(6))

    def forward(self, x):
        return (self.weight @ x.T).T
""",
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
        after="""
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x)
""",
        inputs=_X,
    ),
    Rule(
        code="T2M150",
        name="unused-input",
        severity=Severity.WARNING,
        summary="an input has no effect on any output",
        reason="The app would have to make and feed it for nothing.",
        remedy="Remove it from forward, or describe the inputs without it.",
        before="""
from torch import nn


class Net(nn.Module):
    def forward(self, x, mask):  # here
        return x * 2
""",
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x, mask):
        return x * 2 * mask
""",
        inputs=(*_X, "mask:float32[N,6]"),
    ),
    Rule(
        code="T2M151",
        name="baked-input",
        severity=Severity.WARNING,
        summary="an input is read, and yet fixed in the file",
        reason=(
            "The code reads it, and the captured graph does not: a branch, a constant or a detour "
            "through Python stands in for it, with the example's values."
        ),
        remedy="Let the result depend on the input in every branch, by torch operations.",
        also=("T2M145",),
        before="""
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x, gain):
        if torch.compiler.is_exporting():
            return x * 2
        return x * gain  # here
""",
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x, gain):
        return x * gain
""",
        inputs=(*_X, "gain:float32[N,6]"),
    ),
    Rule(
        code="T2M152",
        name="fixed-size",
        severity=Severity.ERROR,
        summary="a dimension that is declared to vary is fixed",
        reason=(
            "A size that is written as a number, or that Python computed with, holds for the "
            "example only. torch.export proves for which sizes the graph is right."
        ),
        remedy=(
            "Ask the tensor for its size (x.shape[0], -1, flatten), or declare the dimension fixed."
        ),
        rewrite="a loop over the dimension runs as torch's scan, and the file has a Scan",
        before="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x.reshape(2, 6) * 2  # here
""",
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x.reshape(x.shape[0], 6) * 2
""",
        inputs=_X,
    ),
    Rule(
        code="T2M153",
        name="constant-argument",
        severity=Severity.INFO,
        summary="an argument of forward is no tensor",
        reason="Python numbers, texts and truths are no inputs of a file: each is fixed in it.",
        remedy="Give a tensor for what the app shall choose; export once for each fixed value.",
        no_example="It is about how the module is called, which is the same before and after.",
    ),
    Rule(
        code="T2M160",
        name="float64",
        severity=Severity.WARNING,
        summary="double precision is computed",
        reason=(
            "Phones' processors compute it at half the speed or less, accelerators not at all, and "
            "some ONNX Runtime kernels do not exist for it."
        ),
        remedy="Compute in float32; make constants with dtype=torch.float32.",
        rewrite="what is computed in float64 between float32 inputs and outputs becomes float32",
        before="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x.double().mean(1).float()  # here
""",
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x.mean(1)
""",
        inputs=_X,
    ),
    Rule(
        code="T2M161",
        name="bfloat16",
        severity=Severity.WARNING,
        summary="bfloat16 is computed",
        reason="ONNX Runtime's CPU kernels lack it for nearly all operators, as do accelerators.",
        remedy="Load the module in float32: module.float(); choose half precision on the target.",
        before="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return (x.bfloat16() * 2).float()  # here
""",
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x * 2
""",
        inputs=_X,
    ),
    Rule(
        code="T2M170",
        name="library-operator",
        severity=Severity.WARNING,
        summary="an operator comes from a library, not from torch",
        reason=(
            "Operators of extensions such as torchvision, or registered with torch.library, have "
            "no ONNX form unless somebody registers one."
        ),
        remedy="Write it in torch operations, or register a translation for the exporter.",
        before="""
import torch
from torch import nn


@torch.library.custom_op("t2m_example::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Net(nn.Module):
    def forward(self, x):
        return twice(x)  # here
""",
        after="""
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x * 2
""",
        inputs=_X,
    ),
)
