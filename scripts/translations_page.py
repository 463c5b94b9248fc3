"""Writes docs/reference/translations.md from the registry of mended translations."""

from __future__ import annotations

from pathlib import Path

from torch2mobile.exporter.translations import ROWS

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "translations.md"
_HEAD = """\
# Mended translations

The operators of PyTorch that `export` translates itself, in place of torch.onnx: where that has no
translation, or one that is wrong for some values, sizes or arguments. Each is one function of ONNX
operators, held against PyTorch by a test over the data types below, sizes that vary and values at
the ends. A report names each that was used, below the check `translate`; `check` does so below
`aten`. What a mended operator does not cover (another data type, say) is left to torch.onnx where
that has a translation, and refused with the reason where it has none.

`--no-mend` (in Python `mend=False`) leaves every operator to torch.onnx. `torch2mobile
translations` prints the table; with `--format json` also each operator's overloads.
Made by `scripts/translations_page.py`.

| operator | torch.onnx's | torch | data types | what torch.onnx does |
|---|---|---|---|---|
"""


def page() -> str:
    """The Markdown."""
    lines = []
    for row in ROWS:
        name = f"[{row.name}]({row.link})" if row.link else row.name
        dtypes = ", ".join(row.dtypes)
        lines.append(f"| {name} | {row.fault} | {row.versions} | {dtypes} | {row.what} |")
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
