"""What a check of an artefact is worth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from torch2mobile.pipeline.candidates import Candidate, kind_of, size_of
from torch2mobile.records import ArtifactEntry, Check, Mismatch, ParityOptions, Status, Variant


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("net.tflite", 1),
        ("net.ncnn.param", 1 + 10),
        ("net.mlpackage/Data/com.apple.CoreML/model.mlmodel", 1 + 100 + 1000),
    ],
)
def test_the_size_is_that_of_all_that_is_loaded(
    path: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {
        path: 1, "net.ncnn.bin": 10, "other.bin": 7, "net.mlpackage/Manifest.json": 100,
        "net.mlpackage/Data/com.apple.CoreML/weights/weight.bin": 1000,
    }  # fmt: skip
    for name, count in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(bytes(count))
    assert size_of(Path(path), kind_of(Path(path))) == size


@pytest.mark.parametrize(
    ("precision", "rtols", "said"),
    [
        ("float16", [0.0026, 0.0014], "add --rtol @half=0.0026, or say with --values"),
        ("float16", [0.0026, 0.3], "look"),
        ("float16", [0.0026, None], "look"),
        ("float16", [], "look"),
        ("float32", [0.0026], "look"),
    ],
)
def test_what_float16_rounds_of_large_values_is_answered_with_a_relative_tolerance(
    precision: str, rtols: list[float | None], said: str
) -> None:
    process: Any = SimpleNamespace(load_seconds=None)
    entry = ArtifactEntry(Variant("half", "ort", precision=precision))
    found = Candidate(entry, process, process)
    wrong = tuple(Mismatch("y", "large", "differs by 3.3", least_rtol=rtol) for rtol in rtols)
    check = Check("parity", Status.FAILED, "no", "half", hint="look", mismatches=wrong)
    assert said in found.verdict(check, ParityOptions()).hint
