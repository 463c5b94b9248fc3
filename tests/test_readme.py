"""What the README promises: its two commands, its help text, its Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from torch2mobile.cli import cli

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
WIDTH = 100
COMMANDS = [
    "pip install -c constraints.txt . && torch2mobile export sample:super_resolution",
    "pip install -c constraints.txt '.[test]' && pytest",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_stand_alone_in_their_blocks() -> None:
    """CI runs every sh block; other examples are console blocks."""
    assert [block.strip() for block in blocks("sh")] == COMMANDS


def test_the_help_text_is_the_programs_own() -> None:
    result = CliRunner().invoke(
        cli, ["--help"], prog_name="torch2mobile", terminal_width=WIDTH, color=False
    )
    assert result.exit_code == 0
    (shown,) = (block for block in blocks("text") if block.startswith("$ torch2mobile --help"))
    printed = "\n".join(line.rstrip() for line in result.output.splitlines())
    assert shown.partition("\n")[2].strip() == printed.strip()


def test_without_a_terminal_the_help_is_as_in_the_readme() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    done = subprocess.run(
        [sys.executable, "-m", "torch2mobile", "--help"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() in README


def test_every_command_is_in_the_help_text() -> None:
    (shown,) = (block for block in blocks("text") if block.startswith("$ torch2mobile --help"))
    for name in cli.commands:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE), name


@pytest.mark.slow
def test_the_python_example_runs(tmp_path: Path) -> None:
    (script,) = (block for block in blocks("python") if "torch2mobile.export(" in block)
    assert len([line for line in script.splitlines() if line.strip()]) <= 8
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "PASSED: " in done.stdout
    assert done.stdout.endswith("\npassed\n")


def test_the_readme_says_why_the_folders_stand_where_they_do() -> None:
    assert "`validators`" in README


def test_the_codes_of_the_readme_are_explained_where_it_links() -> None:
    for target in ("docs/tutorial.md", "docs/reference/exit-codes.md", "LICENSE"):
        assert f"]({target})" in README
