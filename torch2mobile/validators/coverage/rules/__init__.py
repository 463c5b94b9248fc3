"""The rules of ``check``: one module a level, and the explicit table of all of them.

Codes are stable: T2M1xx is about the source and the module, T2M2xx about ATen to ONNX, T2M3xx
about ONNX Runtime, T2M4xx about the phone's accelerators. Nothing here imports torch or onnx.
"""

from __future__ import annotations

from torch2mobile.validators.coverage.rules import accelerators, aten, runtime, source
from torch2mobile.validators.coverage.rules.rule import Rule

__all__ = ["RULES"]

RULES: dict[str, Rule] = {
    rule.code: rule for rule in (*source.RULES, *aten.RULES, *runtime.RULES, *accelerators.RULES)
}
