"""Rules about what forward changes, and about modes, chance and domains: T2M120 to T2M132."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

_X = ("x:float32[N=1..4,6]",)

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M120",
        name="input-mutation",
        severity=Severity.WARNING,
        summary="an input is changed in place",
        reason=(
            "The caller's tensor is changed in PyTorch, and never on the phone: an ONNX file "
            "cannot write into its inputs. Views and slices of an input share its memory."
        ),
        remedy="Make a new tensor: x = x + 1, torch.cat, torch.where, or x = x.clone() before.",
        before=net(
            """
    def forward(self, x):
        x[:, 0] = 0  # here
        return x * 2
"""
        ),
        after=net(
            """
    def forward(self, x):
        x = torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], 1)
        return x * 2
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M122",
        name="buffer-mutation",
        severity=Severity.WARNING,
        summary="a buffer is changed in forward",
        reason=(
            "A file keeps nothing between two calls: the change is computed and thrown away, so "
            "that the second call differs from the module's."
        ),
        remedy=(
            "Update it only in training. Where later calls follow it, export with --state, which "
            "makes it an input and an output of the file."
        ),
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(6))

    def forward(self, x):
        self.mean.mul_(0.9).add_(0.1 * x.mean(0))  # here
        return x - self.mean
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(6))

    def forward(self, x):
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.mean(0))
        return x - self.mean
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M123",
        name="parameter-in-forward",
        severity=Severity.WARNING,
        summary="a parameter or layer is made in forward",
        reason=(
            "It is not in the state dict, it is drawn anew at every call, and the exporter either "
            "refuses it or fixes what it drew."
        ),
        remedy="Make it in __init__, as an attribute of the module.",
        before=net(
            """
    def forward(self, x):
        scale = nn.Parameter(torch.full((6,), 2.0))  # here
        return x * scale
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((6,), 2.0))

    def forward(self, x):
        return x * self.scale
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M124",
        name="attribute-in-forward",
        severity=Severity.WARNING,
        summary="an attribute is set while forward runs",
        reason=(
            "What one call leaves behind for the next is not in the file. Where it only carries a "
            "value to another method, it works, until something else reads an old one. Where what "
            "a later call gives follows it, it is an error: the file starts anew at each call."
        ),
        remedy=(
            "Hand the value over as an argument, or return it. What a later call shall know is an "
            "input and an output of forward."
        ),
        before=net(
            """
    def scaled(self, x):
        return x / self.scale

    def forward(self, x):
        self.scale = x.shape[1] + 1  # here
        return self.scaled(x)
"""
        ),
        after=net(
            """
    def scaled(self, x, scale):
        return x / scale

    def forward(self, x):
        return self.scaled(x, x.shape[1] + 1)
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M130",
        name="train-mode",
        severity=Severity.WARNING,
        summary="a layer works as in training",
        reason=(
            "Export puts every layer into eval mode; a layer left in train mode gives something "
            "else in PyTorch. Batch statistics asked for by name stay, and then the result for one "
            "sample depends on what else is in the batch."
        ),
        remedy="Call eval() on the whole module, and use a layer with running statistics.",
        before="""
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def forward(self, x):
        return F.batch_norm(x, None, None, training=True)  # here
""",
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(x)
"""
        ),
        inputs=("x:float32[N=2..4,6]",),
    ),
    Rule(
        code="T2M131",
        name="random-operator",
        severity=Severity.ERROR,
        summary="the result is random",
        reason=(
            "The module gives another answer at every call, so that nothing can be compared with "
            "it. F.dropout drops unless it is told not to; eval() does not reach it."
        ),
        remedy="Use nn.Dropout, or training=self.training; take noise as an input.",
        before="""
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.2) * 2  # here
""",
        after="""
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.2, training=self.training) * 2
""",
        inputs=_X,
    ),
    Rule(
        code="T2M132",
        name="outside-the-domain",
        severity=Severity.WARNING,
        summary="an operator gives NaN for values that an input may have",
        reason=(
            "A root or logarithm of an input is NaN below zero. The example may never show it, the "
            "probes will, unless the input's values are declared."
        ),
        remedy="Declare the values, e.g. --values 'x=uniform(0,1)', or limit them with clamp.",
        before=net(
            """
    def forward(self, x):
        return torch.sqrt(x) * 2  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return torch.sqrt(x.clamp(min=0)) * 2
"""
        ),
        inputs=_X,
    ),
)
