"""A right file is not refused: the benchmark's modules that were, once, on two seeds each."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "false_alarms.py"
ONCE_REFUSED = (
    "tanh_200",
    "acos",
    "divide",
    "geometric_mean",
    "topk_rounded",
    "half_sum",
    "half_softmax",
    "max_pool_ceil",
    "irfft",
    "nearest_recomputed",
)


@pytest.fixture(scope="module")
def benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("false_alarms", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["false_alarms"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["false_alarms"]


def test_there_are_sixty_common_modules(benchmark: Any) -> None:
    assert len(benchmark.COMMON) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ONCE_REFUSED)
def test_a_right_file_passes(benchmark: Any, name: str, tmp_path: Path) -> None:
    assert list(benchmark.alarms(name, range(2), tmp_path)) == []
