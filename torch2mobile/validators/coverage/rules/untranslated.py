"""Rules about operators of the captured graph that ONNX lacks: T2M2xx."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

REWRITTEN: dict[str, str] = {
    "aten::kthvalue": "torch.topk(x, k, largest=False).values[..., -1]",
    "aten::median.dim": "torch.topk(x, (x.shape[-1] + 1) // 2, largest=False).values[..., -1]",
    "aten::_cdist_forward": "(a[..., :, None, :] - b[..., None, :, :]).square().sum(-1).sqrt()",
    "aten::searchsorted.Tensor": "(edges[..., None, :] < x[..., :, None]).sum(-1)",
}
"""What to write for operators that are often missed: equal, and translated (a test runs each)."""

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M201",
        name="no-onnx-translation",
        severity=Severity.ERROR,
        level="aten",
        summary="an operator has no translation to ONNX",
        reason=(
            "The exporter knows each operator of PyTorch by name and overload. One that is not in "
            "its registry, and does not consist of ones that are, ends the export. check looks "
            "every operator of the captured graph up there, without translating anything."
        ),
        remedy="Write the same with operators that ONNX has, or compute it outside the model.",
        before=net(
            """
    def forward(self, x):
        return torch.pdist(x)  # here
"""
        ),
        after="""
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return (x[:, None] - x).square().sum(-1).sqrt()  # each with each
""",
        inputs=("x:float32[4,5]",),
    ),
    Rule(
        code="T2M202",
        name="custom-operator",
        severity=Severity.ERROR,
        level="aten",
        summary="a custom operator has no translation to ONNX",
        reason=(
            "An operator of a library of your own, or of an extension such as torchvision's, is "
            "one name to the exporter: it cannot look inside. The message has the call of "
            "torch.onnx.export that would give it a translation; ONNX Runtime then needs kernels "
            "for what that translation writes."
        ),
        remedy=(
            "Write it with PyTorch's own operators, or register a translation: "
            "torch.onnx.export(..., custom_translation_table={torch.ops.NAME: function})."
        ),
        before="""
import torch
from torch import nn


@torch.library.custom_op("examplelib::halve", mutates_args=())
def halve(x: torch.Tensor) -> torch.Tensor:
    return x * 0.5


@halve.register_fake
def _(x):
    return torch.empty_like(x)


class Net(nn.Module):
    def forward(self, x):
        return halve(x) + 1  # here
""",
        after=net(
            """
    def forward(self, x):
        return x * 0.5 + 1
"""
        ),
        inputs=("x:float32[2,5]",),
    ),
    Rule(
        code="T2M203",
        name="complex-without-translation",
        severity=Severity.ERROR,
        level="aten",
        summary="an operator has a translation for real numbers, but none for complex ones",
        reason=(
            "ONNX has no arithmetic on complex numbers: the exporter carries real and imaginary "
            "parts beside each other, and has translations that do so for a few operators only."
        ),
        remedy="Take the magnitude, or real and imaginary parts, before this operator.",
        before=net(
            """
    def forward(self, x):
        return torch.fft.rfft(x).exp().abs()  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return torch.fft.rfft(x).real.exp()
"""
        ),
        inputs=("x:float32[2,8]",),
    ),
)
