"""The source level: what the module and its own code do that no graph can hold.

Nothing here imports torch before there is a module to look at.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch2mobile.validators.coverage.lint_context import Section, Subject


def look(subject: Subject) -> Iterator[Section]:
    """What the source rules find in a module; skipped for a file."""
    if subject.loaded is None:
        yield Section("source", skipped="a file has no source: check the module for its lines")
        return
    from torch2mobile.validators.coverage.source.findings import findings
    from torch2mobile.validators.coverage.source.observed import observe

    seen = observe(subject.loaded)
    found = tuple(findings(subject, seen))
    weaker = f"weaker: the call that was watched ended before its end ({seen.failure})"
    how = _how(subject)
    failure = how if subject.capture is None else ""
    notes = (*subject.loaded.real, *((weaker,) if seen.failure else ()))
    yield Section("source", found, summary=how, failure=failure, notes=notes)


def _how(subject: Subject) -> str:
    if subject.capture is None:
        return "not captured"
    strategy = subject.capture.strategy
    return f"captured by torch.export, {strategy}" if subject.program else f"captured, {strategy}"
