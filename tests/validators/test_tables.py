"""Every row of a table is the module's, or named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import torch2mobile
from torch2mobile.records import Check, Status
from torch2mobile.validators import tables
from torch2mobile.validators.tables import tables_check

ROWS = 3000


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.other = nn.Embedding(ROWS, 4), nn.Embedding(ROWS, 4)
        self.head = nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.words(ids) + self.other(ids.flip(1)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    module, out = Words().eval(), tmp_path_factory.mktemp("words") / "out"
    made = torch2mobile.export(module, inputs=["ids:int64[N=1..2,T=2..12]"], out=out)
    assert made.passed, str(made)
    (check,) = (check for check in made.report.checks if check.name == "tables")
    assert check.status is Status.PASSED
    assert "2 tables of 6,000 rows" in check.summary
    return module, out / "model.onnx"


Change = Callable[[np.ndarray], None]


def changed(path: Path, to: Path, change: Change) -> Path:
    model = onnx.load(path)
    (table, *_) = (each for each in model.graph.initializer if list(each.dims) == [ROWS, 4])
    array = numpy_helper.to_array(table).copy()
    change(array)
    table.CopyFrom(numpy_helper.from_array(array, table.name))
    onnx.save(model, to)
    return to


def swap(array: np.ndarray) -> None:
    array[[1234, 2345]] = array[[2345, 1234]]


def nudge(array: np.ndarray) -> None:
    array[77, 2] = np.nextafter(array[77, 2], np.float32(9))


def spoil(array: np.ndarray) -> None:
    array[5] = np.nan


@pytest.mark.parametrize(("change", "rows"), [(swap, "1234, 2345"), (nudge, "77"), (spoil, "5")])
def test_rows_that_are_others_are_named(
    exported: tuple[nn.Module, Path], tmp_path: Path, change: Change, rows: str
) -> None:
    module, path = exported
    found = tables_check(changed(path, tmp_path / "changed.onnx", change), module)
    assert found is not None
    assert found.status is Status.FAILED
    assert any(f"{rows} of {name}.weight" in found.summary for name in ("words", "other")), (
        found.summary
    )


def test_another_table_is_left_to_the_probes(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    def halved(array: np.ndarray) -> None:
        array[:] = array.astype(np.float16)

    module, path = exported
    found = tables_check(changed(path, tmp_path / "changed.onnx", halved), module)
    assert found is not None
    assert found.status is Status.PASSED
    assert "table of 3,000 rows" in found.summary


def test_what_is_computed_of_a_parameter_is_no_table_of_its_name(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    module, path = exported
    model = onnx.load(changed(path, tmp_path / "pruned.onnx", swap))
    (name, *_) = (each.name for each in model.graph.initializer if list(each.dims) == [ROWS, 4])
    for node in model.graph.node:
        node.input[:] = ["mul_1" if each == name else each for each in node.input]
    for table in model.graph.initializer:
        table.name = "mul_1" if table.name == name else table.name
    onnx.save(model, tmp_path / "pruned.onnx")
    found = tables_check(tmp_path / "pruned.onnx", module)
    assert found is not None
    assert found.status is Status.PASSED
    assert "table of 3,000 rows" in found.summary


def test_a_file_that_gathers_nothing_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (float[2] x) => (float[2] y) { y = Relu(x) }'
    )
    onnx.save(model, tmp_path / "relu.onnx")
    monkeypatch.setattr(tables, "outline", lambda _: pytest.fail("it was parsed"))
    assert tables_check(tmp_path / "relu.onnx", nn.Linear(3, 3)) is None


def test_a_table_within_a_branch_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = "g () => (float[2] z) { i = Constant <value_int = 1> () z = Gather(t, i) }"
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (bool c, float[3, 2] t) => (float[2] y) '
        f"{{ y = If(c) <then_branch = {branch}, else_branch = {branch}> }}"
    )
    onnx.save(model, tmp_path / "if.onnx")
    asked: list[Path] = []
    monkeypatch.setattr(tables, "outline", lambda path: asked.append(path) or model)
    tables_check(tmp_path / "if.onnx", nn.Linear(3, 3))
    assert asked


def test_no_table(exported: tuple[nn.Module, Path]) -> None:
    assert tables_check(exported[1], nn.Linear(3, 3)) is None


def test_verify_names_two_rows_that_no_probe_visits(
    exported: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    module, path = exported
    wrong = changed(path, tmp_path / "swapped.onnx", swap)

    def check(file: Path) -> dict[str, Check]:
        inputs = ["ids:int64[N=1..2,T=2..12]"]
        found = torch2mobile.verify(file, module, inputs=inputs)
        return {each.name: each for each in found.report.checks}

    assert check(path)["tables"].status is Status.PASSED
    assert check(wrong)["tables"].status is Status.FAILED
