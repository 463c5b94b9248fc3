"""The source level: what the module's own code does that no graph can hold."""

from __future__ import annotations

from collections.abc import Iterator

from torch2mobile.validators.coverage.subject import Checker, Section, Subject

CHECKERS: tuple[Checker, ...] = ()


def look(subject: Subject) -> Iterator[Section]:
    """What the source rules find in a module; skipped for a file."""
    if subject.loaded is None:
        yield Section("source", skipped="a file has no source: check the module for its lines")
        return
    found = tuple(finding for checker in CHECKERS for finding in checker(subject))
    yield Section("source", found)
