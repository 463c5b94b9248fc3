"""Rules about the source and the module: T2M1xx."""

from __future__ import annotations

from torch2mobile.records import Severity
from torch2mobile.validators.coverage.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    Rule(
        code="T2M100",
        name="not-capturable",
        severity=Severity.ERROR,
        level="source",
        summary="torch.export cannot take the module as one graph, and no other rule says why",
        reason="Everything after it needs the graph. The message is torch.export's own.",
        remedy="Rewrite the line in plain torch operations on tensors.",
        no_example="What a rule of its own could show has one: this is for all the rest.",
    ),
)
