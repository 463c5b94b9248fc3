"""One canned report with every status and everything a check can hold."""

from __future__ import annotations

import math

import pytest

from torch2mobile.records import (
    Check,
    Finding,
    Location,
    Mismatch,
    ParityOptions,
    Report,
    Request,
    RuleInfo,
    Severity,
    Status,
    Tolerance,
)

CAPTURE = Check(
    name="capture",
    status=Status.PASSED,
    summary="torch.export, non-strict",
    metrics={"attempts": 1},
    locations=(Location(file="not/shown/for/passed.py", line=1),),
    notes=("the output 'aux' is None and was dropped",),
)
PARITY = Check(
    name="parity",
    status=Status.FAILED,
    summary="2 of 24 outputs differ: the file on the phone is another function than the module",
    target="ort",
    hint="Compare the operator below with the one in the module.\nThen export again.",
    metrics={"worst_error": math.inf, "probes": 24, "cosine": 0.984, "equal": False},
    locations=(
        Location(
            module="encoder.layers.0",
            file="models/net.py",
            line=12,
            code="    return torch.nn.functional.hardswish(x)",
            node="node_hardswish",
            op="HardSwish",
        ),
        Location(op="Relu", node="node_relu"),
    ),
    mismatches=(
        Mismatch(
            output="image",
            probe="normal (H=65, W=33)",
            problem="values differ",
            index=(0, 0, 3, 4),
            expected="0.5",
            actual="0.75",
            allowed=1.2e-6,
            least_atol=0.250041,
            least_rtol=0.5,
        ),
        Mismatch(
            output="image",
            probe="negative",
            problem="NaN against a number",
            index=(0, 0, 0, 0),
            expected="-0.375",
            actual="nan",
            least_atol=math.inf,
            least_rtol=math.nan,
        ),
        Mismatch(output="logits", probe="", problem="the output is missing"),
    ),
)
CONTRACT = Check(
    name="contract",
    status=Status.ERROR,
    summary="the worker process was killed by SIGSEGV",
    target="ort",
    hint="Run again with --debug.",
)
NCNN = Check(
    name="parity",
    status=Status.SKIPPED,
    summary="ncnn is not installed",
    target="ncnn",
    hint="pip install ncnn pnnx",
)


@pytest.fixture
def canned() -> Report:
    return Report(
        command="export",
        subject="sample:super_resolution",
        checks=(CAPTURE, PARITY, CONTRACT, NCNN),
        environment={"torch2mobile": "0.1.0", "torch": "2.13.0"},
        request=Request(
            source="sample:super_resolution",
            inputs=("image:float32[N,1,H,W]",),
            parity=ParityOptions(seed=7, tolerances={"image": Tolerance(atol=1e-6, rtol=math.inf)}),
        ),
    )


@pytest.fixture
def linted() -> Report:
    """What ``check`` reports: an error at a line, a suppressed one, and one without a line."""
    remedy = "Use torch.where."
    where = Location("body.0", "models/my net.py", 12, "if x.mean() > 0:")
    node = Location(module="head", node="node_gather", op="Gather")
    message = "a branch depends on tensor values"
    findings = (
        Finding("T2M101", Severity.ERROR, message, where, remedy),
        Finding(
            "T2M142",
            Severity.WARNING,
            "print() runs",
            Location(file="models/my net.py", line=13),
            "Return it.",
            suppressed="while debugging",
        ),
        Finding("T2M401", Severity.INFO, "Gather is not on NNAPI", node, target="nnapi"),
    )
    rules = (
        RuleInfo("T2M101", "data-dependent-branch", Severity.WARNING, message, "Why.", remedy),
        RuleInfo("T2M142", "python-side-effect", Severity.WARNING, "prints", "Why.", "Return it."),
        RuleInfo("T2M401", "not-on-accelerator", Severity.INFO, "not there", "Why.", "Do."),
    )
    check = Check("source", Status.FAILED, "1 error, 1 suppressed", findings=findings)
    return Report("check", "net.py:Net", (check,), {"torch2mobile": "0.1.0"}, rules=rules)
