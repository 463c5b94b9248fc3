"""The tables of docs/reference/accelerators.md against the code."""

from pathlib import Path

from torch2mobile.validators.coverage.accelerators import ACCELERATORS
from torch2mobile.validators.coverage.releases import RELEASES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "accelerators.md"


def _rows(heading: str) -> list[list[str]]:
    section = PAGE.read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_providers() -> None:
    wanted = [(name, found.title) for name, found in ACCELERATORS.items()]
    assert [(row[0], row[1]) for row in _rows("The providers of check")] == wanted


def test_the_releases() -> None:
    wanted = [[r.version, r.opset, r.ml_opset, r.ir, r.ort_format] for r in RELEASES]
    assert _rows("ONNX Runtime releases") == [[str(cell) for cell in row] for row in wanted]
