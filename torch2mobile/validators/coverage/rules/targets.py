"""Rules about the other mobile runtimes, whose own converters are asked: T2M5xx."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule

_NEEDS_EXTRA = "It needs a converter that comes with an extra of pip."

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M501",
        name="not-for-target",
        severity=Severity.ERROR,
        level="target",
        summary="the target's converter does not make a file of it that its runtime loads",
        reason=(
            "Which operators a runtime has, and in which forms, only its own converter knows. The "
            "model was converted in memory, and what was written was loaded. A node is named where "
            "the converter or the runtime names its operator; each node of it is."
        ),
        remedy=(
            "Write it with other operators, or leave out the target: the .ort of the same model "
            "runs wherever ONNX Runtime does."
        ),
        no_example=_NEEDS_EXTRA,
    ),
    Rule(
        code="T2M502",
        name="no-form-in-target",
        severity=Severity.ERROR,
        level="target",
        summary="the target has no form for an input or output of the model",
        reason=(
            "Each runtime takes certain types, numbers of dimensions, and sizes that vary. That is "
            "known before anything is converted."
        ),
        remedy="Give the model inputs and outputs that the target has, or leave out the target.",
        no_example=_NEEDS_EXTRA,
    ),
)
