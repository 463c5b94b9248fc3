"""What the API returns: the report, and what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch2mobile.errors import ExitCode
from torch2mobile.records import Bundle, Finding, Report, Status
from torch2mobile.reporters import REPORTERS


@dataclass(frozen=True)
class Result:
    """The outcome of one run; a notebook draws its report.

    IPython takes the first of ``_repr_pretty_`` and ``__repr__`` that a class has: others than this
    one have neither.
    """

    report: Report

    @property
    def passed(self) -> bool:
        """Whether every check that was made passed, and at least one was made."""
        return self.report.status is Status.PASSED

    @property
    def exit_code(self) -> ExitCode:
        """What the command line returns for this outcome."""
        return self.report.exit_code

    def __str__(self) -> str:
        return REPORTERS["text"](self.report)

    def _repr_html_(self) -> str:
        return REPORTERS["html"](self.report)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 (IPython's)
        printer.text(str(self))


@dataclass(frozen=True, repr=False)
class ExportResult(Result):
    """The outcome of an export; ``bundle`` is None where a check did not pass."""

    bundle: Bundle | None = None


@dataclass(frozen=True, repr=False)
class VerifyResult(Result):
    """The outcome of a verification."""


@dataclass(frozen=True, repr=False)
class DebugResult(Result):
    """The outcome of a search for where an artefact starts to differ."""


@dataclass(frozen=True, repr=False)
class SimplifyResult(Result):
    """The outcome of a simplification; ``path`` is None where the result was refused."""

    path: Path | None = None


@dataclass(frozen=True, repr=False)
class CheckResult(Result):
    """The outcome of a check for exportability."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings of all levels, suppressed ones included."""
        return tuple(finding for check in self.report.checks for finding in check.findings)
