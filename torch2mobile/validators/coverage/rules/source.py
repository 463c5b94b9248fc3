"""Rules about the source and the module: T2M1xx."""

from __future__ import annotations

from torch2mobile.validators.coverage.rules import source_data, source_state, source_values
from torch2mobile.validators.coverage.rules.rule import Rule

RULES: tuple[Rule, ...] = tuple(
    sorted(
        (*source_data.RULES, *source_state.RULES, *source_values.RULES),
        key=lambda rule: rule.code,
    )
)
