"""Rules about what forward asks or tells outside of its tensors: T2M140 to T2M145."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

_X = ("x:float32[N=1..4,6]",)

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M140",
        name="forward-hook",
        severity=Severity.WARNING,
        summary="a hook runs with a layer",
        reason=(
            "What a hook does to tensors is captured like any other code, where nobody looks for "
            "it; what it does to Python state happens once, while exporting."
        ),
        remedy="Remove hooks that only observe; write what they compute into forward.",
        before="""
from torch import nn


def double(module, args, output):  # here
    return output * 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.layer.register_forward_hook(double)

    def forward(self, x):
        return self.layer(x)
""",
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(x) * 2
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M141",
        name="grad-mode",
        severity=Severity.INFO,
        summary="gradients are switched in forward",
        reason="A file has no gradients, so that it changes nothing, but for the graph's shape.",
        remedy="Leave it to the caller of the module.",
        before=net(
            """
    def forward(self, x):
        with torch.no_grad():  # here
            return x * 2
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
        code="T2M142",
        name="python-side-effect",
        severity=Severity.WARNING,
        summary="forward does something beside computing",
        reason=(
            "Printing, logging, files, globals and lists that grow are Python's: it happens once, "
            "while exporting, with tensors that have no values, and never on the phone."
        ),
        remedy="Return what shall be seen, and do it in the caller.",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, x):
        self.sizes.append(x.shape[1])  # here
        return x * 2
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
        code="T2M143",
        name="value-from-outside",
        severity=Severity.WARNING,
        summary="forward asks the clock, a random number or the environment",
        reason="It is asked once, while exporting, and the answer is fixed in the file.",
        remedy="Take the value as an input of the model.",
        before="""
import random

from torch import nn


class Net(nn.Module):
    def forward(self, x):
        return x * random.choice([2, 3])  # here
""",
        after=net(
            """
    def __init__(self, factor=2):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M144",
        name="try-in-forward",
        severity=Severity.WARNING,
        summary="errors of tensor operations decide what is computed",
        reason=(
            "Which way is taken is decided while exporting, for the example's shapes; and an "
            "except can swallow the very error that says why a module cannot be captured."
        ),
        remedy="Ask for the condition, such as a shape, before the operation.",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 3))

    def forward(self, x):
        try:  # here
            return x @ self.weight
        except RuntimeError:
            return x @ self.weight.T
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6, 3))

    def forward(self, x):
        weight = self.weight if x.shape[1] == 6 else self.weight.T
        return x @ weight
"""
        ),
        inputs=_X,
    ),
    Rule(
        code="T2M145",
        name="branch-while-exporting",
        severity=Severity.WARNING,
        summary="the code differs while it is exported",
        reason="What is exported is then another function than what was trained and tested.",
        remedy="Write one way that can be exported, and use it everywhere.",
        before=net(
            """
    def forward(self, x):
        if torch.compiler.is_exporting():  # here
            return x * 2
        return x + x
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x + x
"""
        ),
        inputs=_X,
    ),
)
