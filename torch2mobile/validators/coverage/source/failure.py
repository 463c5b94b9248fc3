"""What a capture that failed says: the finding at its line becomes an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch2mobile import torch_refusals
from torch2mobile.errors import CaptureError
from torch2mobile.records import Finding, Location, Severity
from torch2mobile.validators.coverage.lint_context import ModuleSubject
from torch2mobile.validators.coverage.rules import RULES

# By what a failure is about, the rules that it can be of, the first for lines at which none of
# them was found.
_ON_DATA = ("T2M107", "T2M101", "T2M102", "T2M103", "T2M104", "T2M106")
_CODES: dict[torch_refusals.About, tuple[str, ...]] = {
    "sizes": ("T2M152", *_ON_DATA),
    "data": _ON_DATA,
    "numpy": ("T2M105",),
    "": ("T2M100",),
}
_STATEMENTS = (
    (re.compile(r"^while\b"), "T2M102"),
    (re.compile(r"^assert\b"), "T2M103"),
    (re.compile(r"\b(?:el)?if\b"), "T2M101"),
)
# What can stop a capture in other words than these.
_OTHERS = (
    *("T2M101", "T2M102", "T2M103", "T2M104", "T2M105", "T2M106", "T2M107", "T2M110", "T2M112"),
    *("T2M113", "T2M122", "T2M123", "T2M124", "T2M142", "T2M143", "T2M144", "T2M170", "T2M111"),
    "T2M120",
)


def escalated(subject: ModuleSubject, found: Sequence[Finding]) -> Iterator[Finding]:
    """The findings; where the capture failed, an error at the line that it names."""
    if subject.error is None:
        yield from found
        yield from _traced(subject)
        return
    place = next((p for p in subject.error.locations if isinstance(p, Location)), None)
    fallback, *others = _candidates(subject.error, place)
    here = [f for f in found if place is not None and _same_line(f.location, place)]
    blamed = [f for code in (fallback, *others) for f in here if f.code == code]
    for finding in found:
        is_blamed = finding in blamed[:1]
        yield _as_error(finding, subject.error) if is_blamed else finding
    if not blamed:
        rule = RULES[fallback]
        message = f"{rule.summary}{_unexplained(subject.error, fallback)}"
        yield _as_error(rule.found(place or Location(), message), subject.error)


def _as_error(finding: Finding, error: CaptureError) -> Finding:
    """What stops the capture, with what export says of it."""
    return replace(finding, severity=Severity.ERROR, remedy=error.remedy)


def _unexplained(error: CaptureError, code: str) -> str:
    """Our own words where there are any; of torch's, only where no rule has words of its own."""
    if not error.details:
        return f" ({error.message})"
    return f" ({_reason(error).partition('. ')[0][:100]})" if code == "T2M100" else ""


def _candidates(error: CaptureError, place: Location | None) -> tuple[str, ...]:
    about = torch_refusals.about([_reason(error), *error.details])
    # A size that was fixed is no side effect's fault that stands on the same line.
    if about == "sizes":
        return _CODES[about]
    shown = _of_statement(place) if about == "data" and place is not None else ()
    return (*shown, *_CODES[about], *_OTHERS)


def _of_statement(place: Location) -> tuple[str, ...]:
    """The rule that a line itself shows, of which data decide what runs."""
    found = next((rule for word, rule in _STATEMENTS if word.search(place.code)), None)
    return () if found is None else (found,)


def _same_line(one: Location, other: Location) -> bool:
    return (one.file, one.line) == (other.file, other.line)


def _reason(error: CaptureError) -> str:
    """What the first attempt met."""
    return error.details[0].partition(": ")[2] if error.details else error.message


def _traced(subject: ModuleSubject) -> Iterator[Finding]:
    """Only the TorchScript tracer could take it."""
    capture = subject.capture
    if capture is None or capture.traced is None:
        return
    first = next((a for a in capture.attempts if not a.succeeded), None)
    place = first.locations[0] if first and first.locations else Location()
    yield RULES["T2M109"].found(place, RULES["T2M109"].summary)
