"""Rules about ONNX nodes that a phone's accelerator does not take: T2M4xx."""

from __future__ import annotations

from torch2mobile.validators.coverage.rules.rule import Rule

RULES: tuple[Rule, ...] = ()
