"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples on every run and machine: a red test means a change in the code. No deadline,
# because two workers that both import torch make any test slow now and then.
settings.register_profile("torch2mobile", derandomize=True, deadline=None, database=None)
settings.load_profile("torch2mobile")


@pytest.fixture(autouse=True)
def _no_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports are as wide as a pipe has them, also where tests run side by side."""
    monkeypatch.delenv("COLUMNS", raising=False)
