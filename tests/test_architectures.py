"""The pages of public architectures and of measured targets are what their benchmarks found."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(params=["architectures"])
def benchmark(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    path = FOLDER / f"{request.param}.py"
    spec = importlib.util.spec_from_file_location(request.param, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in ("architecture_models", "architectures"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("benchmark", ["architectures", "targets"], indirect=True)
def test_the_page_is_what_was_found(benchmark: Any) -> None:
    results = json.loads(benchmark.RESULTS.read_text())
    whole = benchmark.RESULTS.stem == "architectures"  # a model on every target takes minutes
    assert list(results) == [name for name in benchmark.INPUTS if whole or name in results] != []
    assert benchmark.PAGE.read_text() == benchmark.page(results)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "library"),
    [("lstm_tagger", "torch"), ("yolos", "transformers"), ("yolo", "torchvision")],
)
def test_an_architecture_passes_today_as_well(benchmark: Any, name: str, library: str) -> None:
    pytest.importorskip(library, reason=f"{name} needs {library}")
    assert benchmark.run(name, 300)["verdict"] == "passed"
