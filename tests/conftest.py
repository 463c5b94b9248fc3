"""What all tests share."""

from __future__ import annotations

import functools
import sys
from typing import Any

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


@pytest.fixture(autouse=True)
def _operators_read_once() -> None:
    """torch.onnx reads all operators anew on each export: the same ones, for more than a second."""
    if registration := sys.modules.get("torch.onnx._internal.exporter._registration"):
        _read_once(registration.ONNXRegistry)


@functools.cache
def _read_once(registry: Any) -> None:
    read = functools.cache(registry.from_torchlib)

    def copied(*opset: int, **named: int) -> Any:
        kept, made = read(*opset, **named), registry()
        made._opset_version = kept.opset_version
        made.functions = {name: [*each] for name, each in kept.functions.items()}
        return made

    registry.from_torchlib = staticmethod(copied)
