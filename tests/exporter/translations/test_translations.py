"""Every mended operator against torch: dtypes, sizes and nasty values, in ONNX Runtime."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from translating import Calls, Case, answers, compare
from translation_cases import CASES

from torch2mobile.errors import Torch2MobileError, TranslateError
from torch2mobile.exporter import capture, translate
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.recurrent_layers import whole_recurrent_layers
from torch2mobile.exporter.translations import ROWS
from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.table import operators
from torch2mobile.tensors import quiet
from torch2mobile.validators.coverage import aten


@pytest.fixture(scope="session")
def together(tmp_path_factory: Any) -> Callable[[Row], Any]:
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
    assert sum(len(case.rounds) for case, _ in by_row[row.name]) > 1
    for case, found in by_row[row.name]:
        compare(case, found)


def test_every_row_has_cases_and_every_case_a_row() -> None:
    assert list(CASES) == [row.name for row in ROWS]


def _others(case: Case) -> list[Case]:
    """The first call on other dtypes, ranks and on nothing, where PyTorch itself takes these."""
    first = case.rounds[0]
    dtypes = (torch.float16, torch.int32, torch.bool, torch.float64)
    calls = [tuple(t.to(d) if t.dtype == first[0].dtype else t for t in first) for d in dtypes]
    calls += [tuple(t[None] for t in first)]
    if all(t.dim() for t in first):
        calls += [tuple(t[0] for t in first), tuple(t[:0] for t in first)]
    found = []
    for tensors in calls:
        with contextlib.suppress(Exception):
            case.call(*tensors)
            found.append(Case(case.call, (tensors,), max(case.ulps, 32), max(case.scale, 4)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_is_not_covered_is_never_wrong(row: Row, tmp_path: Path) -> None:
    """Right, refused, or a file that does not load or run; all at once where all are right."""
    cases = _others(CASES[row.name][0])
    for some in (cases, *([case] for case in cases)):
        try:
            _, found = answers(some, tmp_path)
        except Exception as error:  # noqa: BLE001 (one of onnxruntime's, or a refusal)
            assert isinstance(error, Torch2MobileError) or "onnxruntime" in type(error).__module__
            continue
        for case, each in zip(some, found, strict=True):
            compare(case, each)
        if some is cases:
            return


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_check_and_export_agree(row: Row, tmp_path: Path) -> None:
    """What check finds no translation for is what export refuses, unless check has a doubt."""
    first = CASES[row.name][0]
    for case in (first, *_others(first)[2:4]):
        with quiet():
            loaded = source.from_call("calls", Calls([case]), [*case.rounds[0]], {})
            captured = capture.capture(loaded)
            for mended in (operators(), {}):
                with whole_recurrent_layers(plain=bool(mended)):
                    seen = aten.survey(captured.program, mended)
                try:
                    translate.in_memory(captured, tmp_path, mend=bool(mended))
                    refused = False
                except TranslateError:
                    refused = True
                if refused and not mended and row.fault == "wrong":
                    continue  # torch.onnx has a translation, and its file is no valid one
                assert seen.doubtful or bool(seen.missing) == refused


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_exporter_still_needs_it(row: Row, tmp_path: Path) -> None:
    """Once this fails, torch.onnx is right, and the row can go."""
    try:
        _, found = answers(CASES[row.name], tmp_path, mend=False)
    except Exception:  # noqa: BLE001 (a refusal of the exporter's, or of the runtime's)
        return
    assert row.fault == "wrong"
    with pytest.raises(AssertionError):  # noqa: PT012
        for case, each in zip(CASES[row.name], found, strict=True):
            compare(case, each)
