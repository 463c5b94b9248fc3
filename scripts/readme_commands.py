"""Print the commands of the README's ```sh blocks, one a line, so that CI runs what users read.

python scripts/readme_commands.py                      all of them
python scripts/readme_commands.py --containing pytest  the first that contains "pytest"
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
BLOCK = re.compile(r"^```sh[ \t]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def commands(markdown: str) -> list[str]:
    """Return the commands of all sh blocks: continued lines joined, comment lines left out."""
    found = []
    for block in BLOCK.findall(markdown):
        lines = re.sub(r"\\\n\s*", "", block).splitlines()
        stripped = (line.strip() for line in lines)
        found += [line for line in stripped if line and not line.startswith("#")]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the commands that were asked for; return 1 if there is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readme", nargs="?", type=Path, default=README)
    parser.add_argument("--containing", metavar="TEXT", help="only the first with TEXT in it")
    options = parser.parse_args(arguments)
    found = commands(options.readme.read_text(encoding="utf-8"))
    if options.containing is not None:
        found = [line for line in found if options.containing in line][:1]
    if not found:
        print(f"{options.readme}: no such command in a ```sh block", file=sys.stderr)
        return 1
    print(*found, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
