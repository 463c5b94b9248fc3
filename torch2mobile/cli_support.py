"""What all commands share: options, progress on stderr, and what becomes of an exception."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from torch2mobile.cli_progress import clear_progress, one_line, use_colour
from torch2mobile.errors import ExitCode, Torch2MobileError

if TYPE_CHECKING:
    from torch2mobile.records import Report


def _printable(text: str) -> str:
    """Printable lines, of which only the first begins at the left margin."""
    from torch2mobile.reporters.printable import printable

    return re.sub(r"\n(?=\S)", "\n  ", printable(text.strip()))


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
    """Rows as JSON, or as aligned columns."""
    if form == "json":
        click.echo(json.dumps(list(rows), indent=2))
        return
    columns = list(rows[0]) if rows else []
    cells = [[one_line(str(row[column])) for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def complain(error: Torch2MobileError) -> None:
    """An error on stderr: what was wrong, and what to do."""
    clear_progress()
    label = click.style("error:", fg="red", bold=True)
    colour = use_colour(sys.stderr)
    click.echo(f"{label} {_printable(error.message)}", err=True, color=colour)
    for place in error.locations:
        click.echo(f"  {one_line(f'at {place}')}", err=True, color=colour)
    if error.remedy:
        click.echo(f"  {_printable(error.remedy)}", err=True, color=colour)


def bug(error: BaseException) -> int:
    """What is neither the user's nor the model's fault."""
    clear_progress()
    text = _printable(f"{type(error).__name__}: {error}")
    click.echo(f"error: this is a bug in torch2mobile: {text}", err=True)
    click.echo("  Run it again with --debug and report what it prints.", err=True)
    return int(ExitCode.BUG)
