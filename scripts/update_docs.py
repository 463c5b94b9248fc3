"""Put into the documentation what its commands print today, where it shows something else.

    python scripts/update_docs.py [PAGE ...]

Blocks are run as tests/test_docs.py does. What differs only by the machine is left as it is, and so
is a block that shows a part ("..."): that is printed, for you to look at.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import test_docs as docs  # noqa: E402 (found beside the pages)


def clean(printed: str) -> str:
    """An output without progress lines and blank ends."""
    lines = [line.rstrip() for line in printed.splitlines()]
    kept = [line for line in lines if not docs.PROGRESS.fullmatch(line)]
    return "\n".join(kept).strip("\n")


def updated(page: Path, folder: Path) -> str:
    """The page's text with its outputs as they are today."""
    text = original = page.read_text(encoding="utf-8")
    environment, work = docs.shims(folder), folder / "work"
    work.mkdir()
    printed = ""
    for block in docs.FENCE.finditer(original):
        pairs: list[tuple[str, str]] = []
        if block["name"]:
            (work / block["name"]).write_text(block["text"], encoding="utf-8")
        elif block["mark"] == "output":
            pairs = [(block["text"], printed)]
        elif block["mark"] == "run" and block["language"] == "python":
            printed = docs.run_python(block["text"], work, environment)
        elif block["mark"] == "run":
            outputs = docs.run_console(block["text"], work, environment)
            shown = [below for _, below in docs.commands(block["text"])]
            pairs = list(zip(shown, outputs, strict=True))
        for below, output in pairs:
            if docs.same(below, output):
                continue
            if "..." in below:
                print(f"{page.relative_to(ROOT)}: shows a part of\n{clean(output)}\n")
            else:
                text = text.replace(below.strip("\n"), clean(output), 1)
    return text


def main() -> None:
    """Every page that runs something, or those that are named."""
    marked = [page for page in docs.PAGES if "<!-- run -->" in page.read_text(encoding="utf-8")]
    for page in [Path(name).resolve() for name in sys.argv[1:]] or marked:
        with tempfile.TemporaryDirectory() as folder:
            text = updated(page, Path(folder))
        if text != page.read_text(encoding="utf-8"):
            page.write_text(text, encoding="utf-8")
            print(f"{page.relative_to(ROOT)}: updated")


main()
