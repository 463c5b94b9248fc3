"""The report as a fragment of HTML that needs no style sheet: for notebooks and web pages."""

from __future__ import annotations

from torch2mobile.records import Check, Report, Status, Table
from torch2mobile.reporters import figures, text_lines
from torch2mobile.reporters.printable import one_line, printable

# Readable on white and on black: notebooks come in both.
_COLOURS = {
    Status.PASSED: "#2e8b57",
    Status.FAILED: "#d9363e",
    Status.ERROR: "#d9363e",
    Status.SKIPPED: "#b8860b",
}
_CELL = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
_DETAILS = "margin-left:1em;white-space:pre-wrap"


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """Return the fragment, in ASCII; it has its colours and all tables whatever the options say."""
    del colour, verbose
    lines = [
        '<div class="torch2mobile-report">',
        f"<p><strong>{_text(text_lines.heading(report))}</strong></p>",
    ]
    if report.checks:
        lines += ["<table>", "<thead>", _row("th", "status", "check", "summary"), "</thead>"]
        lines += ["<tbody>", *(_check(check) for check in report.checks), "</tbody>", "</table>"]
    lines += [f"<p>{_coloured(text_lines.closing(report), report.status)}</p>", "</div>"]
    return "\n".join(lines) + "\n"


def _check(check: Check) -> str:
    return _row(
        "td",
        _coloured(check.status.value.upper(), check.status),
        _text(text_lines.label(check)),
        _text(printable(check.summary)) + _below(check),
    )


def _below(check: Check) -> str:
    lines = text_lines.details(check)
    text = "\n".join("  " * line.depth + line.text for line in lines)
    below = f'<div style="{_DETAILS}">{_text(text)}</div>' if text else ""
    return below + "".join(map(_table, check.tables))


def _table(table: Table) -> str:
    head = _row("th", *(_text(one_line(name)) for name in table.columns))
    rows = [_row("td", *map(_text, row)) for row in figures.rows(table)]
    title = f"<caption>{_text(one_line(table.title))}</caption>"
    return f"<table>{title}<thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _row(tag: str, *cells: str) -> str:
    columns = "".join(f'<{tag} style="{_CELL}">{cell}</{tag}>' for cell in cells)
    return f"<tr>{columns}</tr>"


def _coloured(text: str, status: Status) -> str:
    return f'<strong style="color:{_COLOURS[status]}">{_text(text)}</strong>'


def _text(text: str) -> str:
    """Escape ``text``; character references make it safe in a page of any encoding."""
    import html  # the tables of all entities, which few reports need

    return html.escape(text).encode("ascii", "xmlcharrefreplace").decode("ascii")
