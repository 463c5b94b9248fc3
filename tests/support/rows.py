"""Rows of a table of tests of which a few that stand for the others are fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(rows: Iterable[Any], *fast: Any) -> list[Any]:
    """A parameter for each row, slow but for these."""
    rows = list(rows)
    assert all(row in rows for row in fast)
    return [pytest.param(row, marks=() if row in fast else pytest.mark.slow) for row in rows]
