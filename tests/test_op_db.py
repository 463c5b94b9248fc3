"""The committed verdicts on torch's operators are those of the code, on some of them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "op_db.py"
# So many names lie between two that are run.
STEP = 23


@pytest.fixture(scope="module")
def benchmark() -> Any:
    pytest.importorskip("expecttest")
    spec = importlib.util.spec_from_file_location("op_db", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["op_db"] = module
    spec.loader.exec_module(module)
    return module


def _table() -> dict[str, str]:
    found: dict[str, str] = json.loads(BENCHMARK.with_suffix(".json").read_text())
    return found


def test_no_operator_is_wrong() -> None:
    counts = Counter(_table().values())
    assert set(counts) == {"right", "mended", "refused", "random"}
    assert counts["right"] + counts["mended"] >= 520


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_verdicts_are_those_of_the_code(benchmark: Any) -> None:
    table = _table()
    names = list(table)[::STEP]
    found = {name: benchmark.judged(call, True)[0] for name, call in benchmark.cases(names)}
    assert {name: verdict for name, verdict in found.items() if name in names} == {
        name: table[name] for name in names
    }
