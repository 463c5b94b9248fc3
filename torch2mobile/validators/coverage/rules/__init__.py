"""The rules of ``check``: one module a level, and the explicit table of all of them.

Codes are stable: T2M1xx is about the source and the module, T2M2xx about ATen to ONNX, T2M3xx
about ONNX Runtime, T2M4xx about the phone's accelerators, T2M5xx about other
runtimes. Nothing here imports torch or onnx.
"""

from __future__ import annotations

from torch2mobile.validators.coverage.rules import accelerators, aten, runtime, source, targets
from torch2mobile.validators.coverage.rules.rule import Rule

__all__ = ["RULES"]

RULES: dict[str, Rule] = {
    rule.code: rule
    for level in (source, aten, runtime, accelerators, targets)
    for rule in level.RULES
}
