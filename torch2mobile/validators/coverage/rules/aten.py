"""Rules about operators of the captured graph that ONNX lacks: T2M2xx."""

from __future__ import annotations

from torch2mobile.validators.coverage.rules.rule import Rule

RULES: tuple[Rule, ...] = ()
