"""Writes docs/reference/translations.md from the registry of mended translations."""

from __future__ import annotations

from pathlib import Path

from torch2mobile.exporter.translations.page import page

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "translations.md"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
