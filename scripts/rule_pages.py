"""Write docs/reference/rules: a page for every rule of ``check``, from its own text.

Run it after a change of a rule; a test compares.

    python scripts/rule_pages.py
"""

from __future__ import annotations

from pathlib import Path

from torch2mobile.validators.coverage.rules import RULES, pages

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "rules"


def made() -> dict[str, str]:
    """The text of every page, by file name."""
    texts = {f"{code}.md": pages.page(rule) for code, rule in RULES.items()}
    return {"README.md": pages.index(RULES), **texts}


def main() -> None:
    """Write the pages, and remove those of rules that are gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = made()
    for old in FOLDER.glob("*.md"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{len(texts)} pages in {FOLDER}")


if __name__ == "__main__":
    main()
