"""The levels of ``check``, in order: each gives one Section or more."""

from __future__ import annotations

from torch2mobile.validators.coverage import (
    level_accelerators,
    level_aten,
    level_runtime,
    source,
)
from torch2mobile.validators.coverage.lint_context import Level

LEVELS: tuple[Level, ...] = (
    source.look,
    level_aten.look,
    level_runtime.look,
    level_accelerators.look,
)
