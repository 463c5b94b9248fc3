"""Every mended operator against torch: dtypes, sizes and nasty values, in ONNX Runtime."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from translating import answers, compare
from translation_cases import CASES

from torch2mobile.exporter.translations import ROWS
from torch2mobile.exporter.translations.row import Row


@pytest.fixture(scope="session")
def together(operators_read_once: None, tmp_path_factory: Any) -> Callable[[Row], Any]:
    """All rows of one module of translations in one model, made when the first is asked for."""

    @functools.cache
    def make(module: str) -> tuple[dict[str, Any], list[str]]:
        rows = [row for row in ROWS if row.function.__module__ == module]
        cases = [(row.name, case) for row in rows for case in CASES[row.name]]
        made, found = answers([case for _, case in cases], tmp_path_factory.mktemp("rows"))
        by_row: dict[str, Any] = {row.name: [] for row in rows}
        for (name, case), got in zip(cases, found, strict=True):
            by_row[name].append((case, got))
        return by_row, [row.name for row in made.mended]

    return lambda row: make(row.function.__module__)


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_mended_is_what_torch_gives(row: Row, together: Callable[[Row], Any]) -> None:
    by_row, mended = together(row)
    assert row.name in mended
    assert len(by_row[row.name]) > 1
    for case, found in by_row[row.name]:
        compare(case, found)


def test_every_row_has_cases_and_every_case_a_row() -> None:
    assert list(CASES) == [row.name for row in ROWS]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_exporter_still_needs_it(row: Row, tmp_path: Path, operators_read_once: None) -> None:
    """Once this fails, torch.onnx is right, and the row can go."""
    try:
        _, found = answers(CASES[row.name], tmp_path, mend=False)
    except Exception:  # noqa: BLE001 (a refusal of the exporter's, or of the runtime's)
        return
    assert row.fault == "wrong"
    with pytest.raises(AssertionError):  # noqa: PT012
        for case, each in zip(CASES[row.name], found, strict=True):
            compare(case, each)
