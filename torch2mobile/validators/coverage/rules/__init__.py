"""The rules of ``check``: a module a level, or a kind of rule, and the table of all of them.

Codes are stable: T2M1xx is about the source and the module, T2M2xx about ATen to ONNX, T2M3xx
about ONNX Runtime, T2M4xx about the phone's accelerators, T2M5xx about other
runtimes. Nothing here imports torch or onnx.
"""

from __future__ import annotations

from torch2mobile.validators.coverage.rules import (
    onnxruntime_nodes,
    providers,
    source_calls,
    source_data,
    source_inputs,
    source_kinds,
    source_state,
    targets,
    untranslated,
)
from torch2mobile.validators.coverage.rules.rule import Rule

__all__ = ["RULES"]

_SOURCE = (source_calls, source_data, source_inputs, source_kinds, source_state)
_MODULES = (*_SOURCE, untranslated, onnxruntime_nodes, providers, targets)
_RULES = (rule for module in _MODULES for rule in module.RULES)
RULES: dict[str, Rule] = {rule.code: rule for rule in sorted(_RULES, key=lambda rule: rule.code)}
