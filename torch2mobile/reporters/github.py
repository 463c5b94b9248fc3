"""The report as workflow commands of GitHub Actions, which show in the diff of a pull request.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Iterator

from torch2mobile.records import Check, Location, Report, Severity, Status
from torch2mobile.reporters import text_lines
from torch2mobile.reporters.printable import printable

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}


def render(report: Report, *, colour: bool = False, verbose: bool = False) -> str:
    """Return one command a finding or failed check, and the verdict as plain text."""
    del colour, verbose
    # What is found several times at a line is shown there once.
    found = (line for check in report.checks for line in _annotations(check))
    lines = list(dict.fromkeys(found))
    # Text that is no command of its own line: it must not begin with "::".
    return "\n".join([*lines, text_lines.closing(report)]) + "\n"


def _annotations(check: Check) -> Iterator[str]:
    for finding in check.findings:
        if not finding.suppressed:
            title = f"{finding.code} [{finding.target}]" if finding.target else finding.code
            text = f"{finding.message}\n{finding.remedy}".strip()
            yield _command(_COMMANDS[finding.severity], finding.location, title, text)
    if check.status in {Status.FAILED, Status.ERROR} and not check.findings:
        # Where it starts, and of which node the hint is, stands in a note.
        text = "\n".join(filter(None, [check.summary, *check.notes, check.hint]))
        for location in check.locations or (Location(),):
            yield _command("error", location, text_lines.label(check), text)


def _command(name: str, location: Location, title: str, text: str) -> str:
    file, line = text_lines.own_place(location)
    given = {"file": file, "line": str(line or ""), "title": title}
    properties = ",".join(f"{key}={_property(value)}" for key, value in given.items() if value)
    return f"::{name} {properties}::{_data(text)}"


def _data(text: str) -> str:
    """Escape as actions/toolkit does (packages/core/src/command.ts)."""
    safe = "\n".join(map(printable, text.splitlines()))
    return safe.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
