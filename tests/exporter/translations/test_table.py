"""Mended translations as torch.onnx takes them: what they leave to it, and when they can go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import translations_page
from torch.onnx._internal.exporter import _registration
from translating import Case, answers

from torch2mobile.errors import ExitCode, TranslateError
from torch2mobile.exporter.translations import ROWS
from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.table import RegistrationError, Table, operators

DOCS = Path(__file__).parents[3] / "docs" / "reference"


def test_the_page_is_the_registry() -> None:
    """Write it anew with ``python scripts/translations_page.py``."""
    assert translations_page.PAGE.read_text(encoding="utf-8") == translations_page.page()


def test_the_registry_names_operators_that_there_are_once() -> None:
    names = [name for row in ROWS for name in row.operators]
    assert len(names) == len(set(names))
    assert len(operators()) == len(names)
    assert all(row.what and row.dtypes for row in ROWS)


def test_a_torch_that_takes_no_table_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def export(model: Any, args: Any = (), translations: Any = None) -> None:
        """Another registration API."""

    monkeypatch.setattr(torch.onnx, "export", export)
    with pytest.raises(
        RegistrationError, match=f"torch {torch.__version__}".split("+")[0]
    ) as caught:
        Table().functions()
    assert ">=2.13,<2.14" in caught.value.remedy
    assert "--no-mend" in caught.value.remedy
    assert caught.value.exit_code is ExitCode.STAGE


@pytest.mark.parametrize(
    ("version", "needed"),
    [
        ("2.12.1", False),
        ("2.13.0+cpu", True),
        ("2.14.0a0+git1", True),
        ("2.15.0", False),
        ("3.0", False),
    ],
)
def test_a_row_is_for_some_versions(version: str, needed: bool) -> None:
    row = Row("f", ("aten::f",), lambda x: x, "wrong", "is wrong", since="2.13", until="2.15")
    assert row.needed(version) is needed
    assert row.versions == ">=2.13,<2.15"


def test_an_operator_that_torch_does_not_have_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2mobile.exporter.translations import table

    row = Row("f", ("aten::no_such_thing", "nowhere::f"), lambda x: x, "missing", "has none")
    monkeypatch.setattr(table, "ROWS", (row,))
    assert Table().functions() == {}


@pytest.mark.parametrize("dtypes", [("float64",), ("float32",)])
def test_what_is_not_covered_is_left_to_the_exporter(
    dtypes: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another dtype, and a call that the function hands over."""
    from torch2mobile.exporter.translations import table

    row = Row("relu", ("aten::relu",), lambda x: NotImplemented, "wrong", "is wrong", dtypes)
    monkeypatch.setattr(table, "ROWS", (row,))
    registry: Any = _registration.ONNXRegistry
    read, reads = registry.from_torchlib, []
    monkeypatch.setattr(
        registry, "from_torchlib", staticmethod(lambda **opset: reads.append(1) or read(**opset))
    )
    made, found = answers([Case(torch.relu, ((torch.tensor([-1.0, 2.0]),),))], tmp_path)
    assert made.mended == ()
    assert found[0][0][0].tolist() == [0.0, 2.0]
    assert len(reads) == 1, "the exporter's translations are read once"


def test_what_nothing_covers_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch2mobile.exporter.translations import table

    row = Row("lgamma", ("aten::lgamma",), lambda x: x, "missing", "none", ("float64",))
    monkeypatch.setattr(table, "ROWS", (row,))
    reason = r"lgamma.* has no ONNX translation for these arguments"
    with pytest.raises(TranslateError, match=reason) as caught:
        answers([Case(torch.lgamma, ((torch.tensor([2.0]),),))], tmp_path)
    assert any("is not covered" in text for text in caught.value.details)
    assert "lgamma" in str(caught.value.locations)
