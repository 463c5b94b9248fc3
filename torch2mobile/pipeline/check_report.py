"""From what the levels of the linter found to checks and a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from torch2mobile.pipeline.check_options import CheckOptions
from torch2mobile.pipeline.installed_tools import tool_versions
from torch2mobile.pipeline.results import CheckResult
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import (
    Check,
    Finding,
    Report,
    Severity,
    Status,
)
from torch2mobile.validators.coverage.lint_context import Section
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.selection import Selection, counts


def report_of(
    sections: Iterable[Section], options: CheckOptions, stages: Stages, name: str
) -> CheckResult:
    """The report of all sections, in the order in which they are looked at."""
    seen: list[Finding] = []
    for section in sections:
        stages.observer.started(f"check {section.name}")
        check = _check(section, options)
        seen += check.findings
        stages.add(check)
    codes = sorted({finding.code for finding in seen})
    report = Report(
        command="check",
        subject=name,
        checks=(*stages.checks, *_unused(options.selection, seen)),
        environment=tool_versions(),
        rules=tuple(RULES[code].info for code in codes),
    )
    return CheckResult(report)


def _check(section: Section, options: CheckOptions) -> Check:
    if section.skipped:
        return Check(section.name, Status.SKIPPED, section.skipped, target=section.target)
    findings = options.selection.apply(section.findings)
    failed = any(counts(finding, options.fail_on) for finding in findings)
    summary = section.instead or _tally(findings)
    # What failed has not passed because its error was left out; a suppression has a reason for it.
    unsaid = section.failure and not any(f.severity is Severity.ERROR for f in findings)
    status = Status.FAILED if failed else Status.SKIPPED if unsaid else Status.PASSED
    if unsaid:
        summary = f"{section.failure}, and the error is left out: {summary}"
        section = replace(section, summary="")
    return Check(
        section.name,
        status,
        f"{section.summary}: {summary}" if section.summary else summary,
        target=section.target,
        metrics=section.metrics,
        tables=section.tables,
        findings=findings,
        notes=section.notes,
    )


def _tally(findings: Iterable[Finding]) -> str:
    """``2 errors, 1 warning, 1 suppressed``, or that there is nothing."""
    words = Counter("suppressed" if f.suppressed else f.severity.value for f in findings)
    parts = [
        f"{words[s.value]} {s.value}{'s' if words[s.value] > 1 and s is not Severity.INFO else ''}"
        for s in Severity
        if words[s.value]
    ]
    if words["suppressed"]:
        parts.append(f"{words['suppressed']} suppressed")
    return ", ".join(parts) or "nothing found"


def _unused(selection: Selection, seen: list[Finding]) -> tuple[Check, ...]:
    """A suppression of nothing is left over from something, or has a slip in its path."""
    left = selection.unused(seen)
    if not left:
        return ()
    texts = tuple(f"{s.code} in {s.path} ({s.reason})" for s in left)
    summary = f"{len(left)} of {len(selection.suppress)} suppressed nothing here"
    return (Check("suppressions", Status.SKIPPED, summary, notes=texts),)
