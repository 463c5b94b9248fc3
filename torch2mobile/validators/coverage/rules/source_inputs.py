"""Rules about inputs, their sizes and dtypes, and library operators: T2M150 on."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

_X = ("x:float32[N=1..4,6]",)

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M150",
        name="unused-input",
        severity=Severity.WARNING,
        summary="an input has no effect on any output",
        reason="The app would have to make and feed it for nothing.",
        remedy="Remove it from forward, or describe the inputs without it.",
        before=net(
            """
    def forward(self, x, mask):  # here
        return x * 2
"""
        ),
        after=net(
            """
    def forward(self, x, mask):
        return x * 2 * mask
"""
        ),
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
        before=net(
            """
    def forward(self, x, gain):
        if torch.compiler.is_exporting():
            return x * 2
        return x * gain  # here
"""
        ),
        after=net(
            """
    def forward(self, x, gain):
        return x * gain
"""
        ),
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
        before=net(
            """
    def forward(self, x):
        return x.reshape(2, 6) * 2  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x.reshape(x.shape[0], 6) * 2
"""
        ),
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
        before=net(
            """
    def forward(self, x):
        return x.double().mean(1).float()  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x.mean(1)
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M161",
        name="bfloat16",
        severity=Severity.WARNING,
        summary="bfloat16 is computed",
        reason="ONNX Runtime's CPU kernels lack it for nearly all operators, as do accelerators.",
        remedy="Load the module in float32: module.float(); choose half precision on the target.",
        before=net(
            """
    def forward(self, x):
        return (x.bfloat16() * 2).float()  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x * 2
"""
        ),
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
        after=net(
            """
    def forward(self, x):
        return x * 2
"""
        ),
        inputs=_X,
    ),
)
