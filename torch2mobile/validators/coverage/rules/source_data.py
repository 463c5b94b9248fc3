"""Rules about values that steer the program: T2M101 to T2M109."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

_X = ("x:float32[N=1..4,6]",)
_GRAPH = (
    "torch.export follows the module once, with tensors that have shapes but no values. A graph "
    "has no place for a decision of Python's that depends on values."
)

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M100",
        name="not-capturable",
        severity=Severity.ERROR,
        summary="torch.export cannot take the module as one graph, and no other rule says why",
        reason="Everything after it needs the graph. The message is torch.export's own.",
        remedy="Rewrite the line in plain torch operations on tensors.",
        no_example="What a rule of its own could show has one: this is for all the rest.",
    ),
    Rule(
        code="T2M101",
        name="data-dependent-branch",
        severity=Severity.WARNING,
        summary="a branch depends on tensor values",
        reason=f"{_GRAPH} It is an error where the capture stops at it.",
        remedy="Compute both and choose with torch.where, or use torch.cond.",
        rewrite="the branch runs as torch.cond, and the file has an If",
        before="""
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        if x.mean() > 0:  # here
            return x * 2
        return x
""",
        after=net(
            """
    def forward(self, x):
        return torch.where(x.mean() > 0, x * 2, x)
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M102",
        name="data-dependent-loop",
        severity=Severity.WARNING,
        summary="how often a loop runs depends on tensor values",
        reason=f"{_GRAPH} A loop is written out while exporting, as often as it ran then.",
        remedy="Loop a fixed number of times and stop changing the result with torch.where.",
        rewrite="the loop runs as torch's while_loop, and the file has a Loop",
        before="""
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        while x.abs().max() > 1:  # here
            x = x / 2
        return x
""",
        after=net(
            """
    def forward(self, x):
        for _ in range(8):
            x = torch.where(x.abs().max() > 1, x / 2, x)
        return x
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M103",
        name="data-dependent-assert",
        severity=Severity.WARNING,
        summary="an assert depends on tensor values",
        reason=f"{_GRAPH} On the phone nothing could raise the error.",
        remedy="Check the data before it is given to the model, or limit it with clamp.",
        before=net(
            """
    def forward(self, x):
        assert x.abs().max() < 100, "too large"  # here
        return x * 2
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x.clamp(-100, 100) * 2
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M104",
        name="tensor-to-python",
        severity=Severity.WARNING,
        summary="a tensor's data becomes a Python value",
        reason=(
            "While exporting there is no data, so .item(), .tolist(), float() and int() either "
            "stop the capture or leave an unknown number that few operators take."
        ),
        remedy="Keep it a tensor of one element: all arithmetic takes it.",
        before=net(
            """
    def forward(self, x):
        scale = x.abs().max().item()  # here
        return x / (scale + 1)
"""
        ),
        after=net(
            """
    def forward(self, x):
        scale = x.abs().max()
        return x / (scale + 1)
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M105",
        name="numpy-in-forward",
        severity=Severity.WARNING,
        summary="the data leaves torch for numpy",
        reason=(
            "The exporter sees tensors, never what numpy or another library does to their values: "
            "the capture stops, or the result of the example is fixed in the file."
        ),
        remedy="Use the torch function of the same name, or compute it before the model.",
        before="""
import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return torch.from_numpy(np.tanh(x.numpy())) * 2  # here
""",
        after=net(
            """
    def forward(self, x):
        return torch.tanh(x) * 2
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M106",
        name="data-dependent-shape",
        severity=Severity.WARNING,
        summary="the shape of a result depends on tensor values",
        reason=(
            "nonzero, unique, masked_select, repeat_interleave by a tensor and a mask as an index "
            "give as many elements as the data says. torch.export can only go on while nothing "
            "asks how many, and accelerators on phones need fixed shapes."
        ),
        remedy="Keep the shape: torch.where with a neutral value, a fixed topk, a mask.",
        before=net(
            """
    def forward(self, x):
        return x[x > 0].sum()  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return torch.where(x > 0, x, 0.0).sum()
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M107",
        name="data-dependent-size",
        severity=Severity.WARNING,
        summary="a size depends on tensor values",
        reason=(
            "How many elements a data-dependent result has is unknown while exporting; a branch, "
            "loop or size that asks for it stops the capture."
        ),
        remedy="Count with a sum of the condition, which stays a tensor.",
        also=("T2M106",),
        before=net(
            """
    def forward(self, x):
        found = torch.nonzero(x[:, 0] > 0)
        count = len(found)  # here
        return x * count
"""
        ),
        after=net(
            """
    def forward(self, x):
        count = (x[:, 0] > 0).sum()
        return x * count
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M109",
        name="torchscript-only",
        severity=Severity.WARNING,
        summary="only a TorchScript trace can take the module",
        reason=(
            "torch.export refused it. A trace keeps what ran for the example: branches, loops and "
            "Python numbers are fixed without a word."
        ),
        remedy="Rewrite the line in plain torch operations on tensors, and verify with real data.",
        no_example="Which modules these are differs from one version of torch to the next.",
    ),
)
