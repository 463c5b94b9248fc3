"""Rules about the source and the module: T2M1xx."""

from __future__ import annotations

from torch2mobile.validators.coverage.rules import (
    source_calls,
    source_data,
    source_inputs,
    source_kinds,
    source_state,
)
from torch2mobile.validators.coverage.rules.rule import Rule

_MODULES = (source_calls, source_data, source_inputs, source_kinds, source_state)
RULES: tuple[Rule, ...] = tuple(
    sorted((rule for module in _MODULES for rule in module.RULES), key=lambda rule: rule.code)
)
