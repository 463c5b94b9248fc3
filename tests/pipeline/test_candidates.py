"""What a check of an artefact is worth."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from torch2mobile.pipeline.candidates import Candidate
from torch2mobile.records import ArtifactEntry, Check, Mismatch, ParityOptions, Status, Variant


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
    check = Check("parity", Status.FAILED, "no", hint="look", mismatches=wrong)
    assert said in found.verdict(check, ParityOptions()).hint
