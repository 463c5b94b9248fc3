"""Rules about ONNX nodes that ONNX Runtime lacks a kernel for: T2M3xx."""

from __future__ import annotations

from torch2mobile.validators.coverage.rules.rule import Rule

RULES: tuple[Rule, ...] = ()
