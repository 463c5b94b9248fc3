"""Rules about ONNX nodes that a phone's accelerator does not take: T2M4xx.

What an accelerator does not take runs on the CPU, so that these are warnings.
"""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule, net

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M401",
        name="not-on-accelerator",
        severity=Severity.WARNING,
        level="accelerator",
        summary="the accelerator has no such operator: it runs on the CPU",
        reason=(
            "The accelerator's list, in the installed onnxruntime, does not name the operator. The "
            "runtime then computes it on the CPU, which takes a copy there and one back."
        ),
        remedy="Write it with operators of the list, where that is worth it.",
        rewrite="a mean over height and width becomes GlobalAveragePool",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.act = nn.Hardswish()

    def forward(self, x):
        return self.act(x)  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x * (x + 3).clamp(0, 6) / 6
"""
        ),
        inputs=("x:float32[1,2,8,8]",),
        target="nnapi",
    ),
    Rule(
        code="T2M402",
        name="condition-not-met",
        severity=Severity.WARNING,
        level="accelerator",
        summary="the accelerator has the operator, but not as it is used here",
        reason=(
            "The lists name conditions: constant weights, 2-D pooling, a mode. Each is evaluated "
            "on the node itself; the message says which one it does not meet, and how."
        ),
        remedy="Write it so that the condition holds.",
        rewrite="a DepthToSpace after a convolution becomes one in DCR order, which NNAPI takes",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool1d(2)

    def forward(self, x):
        return self.pool(x)  # here
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d((1, 2))

    def forward(self, x):
        return self.pool(x.unsqueeze(2)).squeeze(2)
"""
        ),
        inputs=("x:float32[1,2,8]",),
        target="nnapi",
    ),
    Rule(
        code="T2M403",
        name="size-not-fixed",
        severity=Severity.WARNING,
        level="accelerator",
        summary="nodes are not for the accelerator because a size may vary",
        reason=(
            "NNAPI takes fixed sizes only; CoreML is slow with others, and ONNX Runtime's own "
            "usability_checker counts them as not taken for both. XNNPACK needs channels, height "
            "and width."
        ),
        remedy="Export with fixed sizes; --fix-dim N=1 shows what that would give.",
        no_example="The code is the same; what differs are the declared inputs.",
    ),
    Rule(
        code="T2M404",
        name="condition-not-evaluated",
        severity=Severity.WARNING,
        level="accelerator",
        summary="the accelerator's list has a condition that torch2mobile does not know",
        reason=(
            "A newer onnxruntime may have conditions that are new. They are not evaluated, and the "
            "node is counted as not taken, rather than taken on trust."
        ),
        remedy="Read the condition in the message, and judge by yourself.",
        no_example="With the tested onnxruntime there is none.",
    ),
    Rule(
        code="T2M405",
        name="too-many-dimensions",
        severity=Severity.WARNING,
        level="accelerator",
        summary="a tensor has more dimensions than the accelerator takes",
        reason="CoreML takes tensors of at most five dimensions.",
        remedy="Do it in steps with fewer dimensions, or leave out those of size 1.",
        before=net(
            """
    def forward(self, x):
        windows = x.reshape(1, 2, 4, 2, 4, 3)
        return windows.permute(0, 1, 3, 2, 4, 5)  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        windows = x.reshape(2, 4, 2, 4, 3)
        return windows.permute(0, 2, 1, 3, 4)
"""
        ),
        inputs=("x:float32[1,8,8,3]",),
        target="coreml",
    ),
    Rule(
        code="T2M406",
        name="type-not-on-accelerator",
        severity=Severity.WARNING,
        level="accelerator",
        summary="the accelerator computes nothing in float64",
        reason="No accelerator of a phone has float64: the node runs on the CPU.",
        remedy="Compute it in float32.",
        before=net(
            """
    def forward(self, x):
        return (x.double() * 2).float()  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return x * 2
"""
        ),
        inputs=("x:float32[1,2,8,8]",),
        target="nnapi",
    ),
    Rule(
        code="T2M407",
        name="several-pieces",
        severity=Severity.WARNING,
        level="accelerator",
        summary="the model falls into several pieces for the accelerator",
        reason=(
            "Between two pieces, the data goes to the CPU and back. ONNX Runtime's own advice is "
            "to use an accelerator for one piece that is most of the model, hardly for two, and "
            "not for more. The nodes named here are the smallest set whose replacement leaves one."
        ),
        remedy="Replace the nodes in the message by operators that the accelerator takes.",
        before=net(
            """
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
        self.act = nn.Hardswish()

    def forward(self, x):
        x = self.one(x)
        x = self.act(x)  # here
        return self.two(x)
"""
        ),
        after=net(
            """
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x):
        x = self.one(x)
        x = x * (x + 3).clamp(0, 6) / 6
        return self.two(x)
"""
        ),
        inputs=("x:float32[1,2,8,8]",),
        target="nnapi",
        also=("T2M401",),
    ),
    Rule(
        code="T2M408",
        name="subgraph-on-cpu",
        severity=Severity.INFO,
        level="accelerator",
        summary="the nodes inside a branch or a loop stay on the CPU",
        reason="The accelerators' parts of ONNX Runtime look at the main graph only by default.",
        remedy="Write the branch as torch.where, and the loop unrolled, where that is possible.",
        before=net(
            """
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x + 1, (x,))  # here
"""
        ),
        after=net(
            """
    def forward(self, x):
        return torch.where(x.sum() > 0, x * 2, x + 1)
"""
        ),
        inputs=("x:float32[1,4]",),
        target="coreml",
        also=("T2M401", "T2M402", "T2M407"),
    ),
)
