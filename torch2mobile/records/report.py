"""What was found: checks and their report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from torch2mobile.errors import ExitCode
from torch2mobile.records.request import Request

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Location:
    """A place to look at: module path, source file, line and text, ONNX node and operator.

    ``caller`` and ``caller_line`` are the user's own line that calls it, where ``file`` is that of
    an installed library.
    """

    def __str__(self) -> str:
        return f"{self.file}:{self.line}  {self.code}"

    module: str = ""
    file: str = ""
    line: int = 0
    code: str = ""
    node: str = ""
    op: str = ""
    caller: str = ""
    caller_line: int = 0


class Status(str, Enum):
    """The verdict of one check. SKIPPED and ERROR are never shown as passed."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


Metric = bool | int | float | str


@dataclass(frozen=True)
class Mismatch:
    """One output that differs on one probe: where, both values, and what would have passed."""

    output: str
    probe: str
    problem: str
    index: tuple[int, ...] = ()
    expected: str = ""
    actual: str = ""
    allowed: float | None = None
    least_atol: float | None = None
    least_rtol: float | None = None


@dataclass(frozen=True)
class Table:
    """Figures of one check that belong side by side, such as one row an output.

    With ``detail`` the text has it below a passed check only where everything was asked for.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Metric | None, ...], ...]
    detail: bool = False

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has not as many figures as there are columns")

    def without(self, column: str) -> Table:
        """The table without a column, where it has it."""
        kept = [number for number, name in enumerate(self.columns) if name != column]
        columns = tuple(self.columns[number] for number in kept)
        rows = tuple(tuple(row[number] for number in kept) for row in self.rows)
        return replace(self, columns=columns, rows=rows)


class Severity(str, Enum):
    """How much a finding matters: ERROR stands in the way, WARNING may, INFO is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True)
class RuleInfo:
    """What a rule of ``check`` says to a reader: its stable code, its name, why, what to do."""

    code: str
    name: str
    severity: Severity
    summary: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """One place at which a rule of ``check`` found something.

    ``suppressed`` is the reason that the configuration gives for not counting it.
    """

    code: str
    severity: Severity
    message: str
    location: Location
    remedy: str = ""
    target: str = ""
    suppressed: str = ""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at, and what was found.

    ``device`` is where the artefact ran, where that was not this machine. ``seconds`` is the wall
    time since the check before, so that those of a run sum up to it.
    """

    name: str
    status: Status
    summary: str
    target: str = ""
    device: str = ""
    hint: str = ""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    locations: tuple[Location, ...] = ()
    mismatches: tuple[Mismatch, ...] = ()
    tables: tuple[Table, ...] = ()
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float | None = None

    def timeless(self) -> Check:
        """The check without how long anything took, which the same run gives again."""
        metrics = {name: value for name, value in self.metrics.items() if name != LOAD_SECONDS}
        tables = tuple(table.without(LOAD_SECONDS) for table in self.tables)
        return replace(self, seconds=None, metrics=metrics, tables=tables)


# The metric of a check that was skipped for want of a runtime: the command that installs it.
NOT_INSTALLED = "not installed"
# The metric, and the column, of how long a runtime took to load a file.
LOAD_SECONDS = "load s"


@dataclass(frozen=True)
class Report:
    """All checks of one run; its JSON form is canonical, every other format is drawn from it.

    ``rules`` are those with a finding.
    """

    command: str
    subject: str
    checks: tuple[Check, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    request: Request | None = None
    rules: tuple[RuleInfo, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def status(self) -> Status:
        """FAILED before ERROR before PASSED; a run in which nothing passed is an ERROR."""
        found = {check.status for check in self.checks}
        for status in (Status.FAILED, Status.ERROR, Status.PASSED):
            if status in found:
                return status
        return Status.ERROR

    @property
    def exit_code(self) -> ExitCode:
        """The process exit code that this report means."""
        strict = self.request is not None and self.request.strict
        if strict and self.status is Status.PASSED:
            skipped = any(NOT_INSTALLED in check.metrics for check in self.checks)
            return ExitCode.STAGE if skipped else ExitCode.PASSED
        return {
            Status.PASSED: ExitCode.PASSED,
            Status.FAILED: ExitCode.FAILED,
        }.get(self.status, ExitCode.STAGE)
