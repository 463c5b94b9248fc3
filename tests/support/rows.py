"""Rows of a table of tests of which a few that stand for the others are fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(names: Iterable[Any], *fast: Any) -> list[Any]:
    """A parameter for each name, slow but for these."""
    names = list(names)
    assert set(fast) <= set(names)
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]
