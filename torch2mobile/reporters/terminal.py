"""The report as a short table for a terminal."""

from __future__ import annotations

import shutil

from torch2mobile.records import Check, Report, Status
from torch2mobile.reporters import text_lines
from torch2mobile.reporters.printable import printable, wrapped

# As wide as the terminal up to this, and so wide where nothing says how wide it is.
_WIDTH = 100
_STATUS_WIDTH = max(len(status.value) for status in Status) + 2
_WIDEST_LABEL = 32

_COLOURS = {
    Status.PASSED: "green",
    Status.FAILED: "red",
    Status.ERROR: "red",
    Status.SKIPPED: "yellow",
}


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """Return the table, in ANSI colours with ``colour``, and all details with ``verbose``."""
    width = min(shutil.get_terminal_size((_WIDTH, 0)).columns, _WIDTH)
    widest = max((len(text_lines.label(check)) for check in report.checks), default=0)
    blocks = [_style(text_lines.heading(report), colour, bold=True)]
    if report.checks:
        column = min(widest, _WIDEST_LABEL)
        blocks.append(
            "\n".join("\n".join(_rows(c, column, width, colour, verbose)) for c in report.checks)
        )
    blocks.append(_style(text_lines.closing(report), colour, fg=_COLOURS[report.status], bold=True))
    return "\n\n".join(blocks) + "\n"


def _rows(check: Check, column: int, width: int, colour: bool, verbose: bool) -> list[str]:
    """Return the line of one check, wrapped, and what stands below it."""
    word = check.status.value.upper()
    cell = word.ljust(_STATUS_WIDTH)
    label, summary = text_lines.label(check), printable(check.summary)
    if verbose and check.seconds is not None:
        summary += f" ({check.seconds:.1f} s)"
    indent = " " * (_STATUS_WIDTH + column + 2)
    if len(label) > column:  # too long for its column: the summary starts below it
        indent = " " * _STATUS_WIDTH
        table = [cell + label, *wrapped(summary, width, indent, indent)]
    else:
        table = wrapped(summary, width, f"{cell}{label:<{column}}  ", indent)
    table[0] = _style(word, colour, fg=_COLOURS[check.status]) + table[0][len(word) :]
    drawn = text_lines.tables(check, verbose=verbose)
    lines = text_lines.details(check, drawn, width - _STATUS_WIDTH)
    return table + [row for line in lines for row in _below(line, width, colour)]


def _below(line: text_lines.Line, width: int, colour: bool) -> list[str]:
    indent = " " * (_STATUS_WIDTH + 2 * line.depth)
    if not line.wrap:
        return [indent + line.text]
    rows = wrapped(line.text, width, indent, indent + "  ")
    if line.text.startswith("hint:"):
        rows[0] = indent + _style("hint:", colour, fg="cyan") + rows[0][len(indent + "hint:") :]
    return rows


def _style(text: str, colour: bool, *, fg: str | None = None, bold: bool | None = None) -> str:
    if not colour:
        return text
    # Here and not above: a notebook that draws HTML has no use for click.
    import click

    return click.style(text, fg=fg, bold=bold)
