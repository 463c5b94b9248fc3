"""Write docs/reference/rules: a page for every rule of ``check``, from its own text.

Run it after a change of a rule; a test compares.

    python scripts/rule_pages.py
"""

from __future__ import annotations

from pathlib import Path

from torch2mobile.validators.coverage.rules import RULES, pages

FOLDER = Path(__file__).parents[1] / "docs" / "reference" / "rules"


def index() -> str:
    """The Markdown of the list of all rules."""
    lines = [
        "# Rules",
        "",
        "What `torch2mobile check` looks for; see [how to use it](../../how-to/check.md).",
        "Made by `scripts/rule_pages.py` from what `torch2mobile explain CODE` prints.",
        "",
        "| code | name | severity | found |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| [{rule.code}]({rule.code}.md) | {rule.name} | {rule.severity.value} "
        f"| {rule.summary.replace('|', chr(92) + '|')} |"
        for rule in RULES.values()
    ]
    return "\n".join(lines) + "\n"


def made() -> dict[str, str]:
    """The text of every page, by file name."""
    texts = {f"{code}.md": pages.page(rule) for code, rule in RULES.items()}
    return {"README.md": index(), **texts}


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
