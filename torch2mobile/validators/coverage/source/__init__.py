"""The source level: what the module and its own code do that no graph can hold.

Nothing here imports torch before there is a module to look at.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch2mobile.validators.coverage.lint_context import ModuleSubject, Section, Subject


def look(subject: Subject) -> Iterator[Section]:
    """What the source rules find in a module; skipped for a file."""
    module = subject.module
    if module is None:
        yield Section("source", skipped="a file has no source: check the module for its lines")
        return
    from torch2mobile.validators.coverage.source.findings import findings
    from torch2mobile.validators.coverage.source.observed import observe

    seen = observe(module.loaded)
    found = tuple(findings(module, seen))
    weaker = f"weaker: the call that was watched ended before its end ({seen.failure})"
    how = _how(module)
    failure = how if module.capture is None else ""
    notes = (*module.loaded.real, *((weaker,) if seen.failure else ()))
    yield Section("source", found, summary=how, failure=failure, notes=notes)


def _how(module: ModuleSubject) -> str:
    if module.capture is None:
        return "not captured"
    strategy = module.capture.strategy
    return f"captured by torch.export, {strategy}" if module.program else f"captured, {strategy}"
