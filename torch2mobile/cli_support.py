"""What all commands share: options, progress on stderr, and what becomes of an exception."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from torch2mobile.cli_progress import clear_progress, one_line, use_colour
from torch2mobile.errors import ExitCode, Torch2MobileError

if TYPE_CHECKING:
    from torch2mobile.records import Report


def _width(stream: TextIO) -> int:
    """In how many columns a reader has it; a log has no end."""
    reader = stream.isatty() or os.environ.get("COLUMNS")
    return shutil.get_terminal_size((100, 0)).columns if reader else sys.maxsize


def _printable(text: str, taken: int = 2) -> str:
    """Printable lines, of which only the first begins at the left margin, ``taken`` being before.

    They are wrapped for a reader, and left whole for a log. What is indented, such as the place in
    an input that a caret points to, stays as it is.
    """
    from torch2mobile.reporters.printable import printable, wrapped

    width = _width(sys.stderr)
    rows: list[str] = []
    for line in printable(text.strip()).split("\n"):
        start = "  " if rows else " " * taken
        rows += [line] if line.startswith(" ") else wrapped(line, width, start, "  ")
    return "\n".join(rows)[taken:]


def in_width(page: str) -> str:
    """Markdown with its prose wrapped for a reader, and its blocks of code as they are."""
    from torch2mobile.reporters.printable import wrapped

    width = _width(sys.stdout)
    parts = page.split("```")  # every second one is a block
    for number in range(0, len(parts), 2):
        lines = parts[number].split("\n")
        parts[number] = "\n".join("\n".join(wrapped(line, width, "", "")) for line in lines)
    return "```".join(parts)


def finish(report: Report, options: dict[str, Any]) -> int:
    """Print the report, save it where asked, and return the exit code it means."""
    from torch2mobile.reporters import REPORTERS

    clear_progress()
    colour = use_colour(sys.stdout)
    text = REPORTERS[options["form"]](report, colour=colour, verbose=options["verbose"])
    try:
        click.echo(text, nl=False, color=colour)
    except BrokenPipeError:
        # The reader of stdout has gone (`| head`), which changes no verdict.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if options.get("report"):
        save_report(report, Path(options["report"]))
    return int(report.exit_code)


def save_report(report: Report, path: Path) -> None:
    """Write the report's JSON to a file."""
    from torch2mobile.exporter.output import write_output
    from torch2mobile.reporters import REPORTERS

    write_output(path, REPORTERS["json"](report).encode())


def echo_table(rows: Sequence[dict[str, Any]], form: str) -> None:
    """Rows as JSON, or as aligned columns; as sentences where a terminal is too narrow."""
    if form == "json":
        click.echo(json.dumps(list(rows), indent=2))
        return
    columns = list(rows[0]) if rows else []
    cells = [[one_line(str(row[column])) for column in columns] for row in rows]
    cells = [columns, *cells] if rows else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    if sum(widths) + 2 * (len(widths) - 1) > width:  # each row is a sentence
        from torch2mobile.reporters.printable import wrapped

        for row in cells[1:]:
            pairs = list(zip(columns, row, strict=True))[1:]
            told = ", ".join(f"{name} {text}" for name, text in pairs if text)
            click.echo("\n".join(wrapped(told, width, f"{row[0]}: " if told else row[0], "  ")))
        return
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def complain(error: Torch2MobileError) -> None:
    """An error on stderr: what was wrong, and what to do."""
    clear_progress()
    label = click.style("error:", fg="red", bold=True)
    colour = use_colour(sys.stderr)
    click.echo(f"{label} {_printable(error.message, 7)}", err=True, color=colour)
    for place in error.locations:
        click.echo(f"  {one_line(f'at {place}')}", err=True, color=colour)
    if error.remedy:
        click.echo(f"  {_printable(error.remedy)}", err=True, color=colour)


def bug(error: BaseException) -> int:
    """What is neither the user's nor the model's fault."""
    clear_progress()
    text = f"this is a bug in torch2mobile: {type(error).__name__}: {error}"
    click.echo(f"error: {_printable(text, 7)}", err=True)
    click.echo("  Run it again with --debug and report what it prints.", err=True)
    return int(ExitCode.BUG)
