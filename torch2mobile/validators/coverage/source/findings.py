"""All findings of the source level: from the code, the module tree, the graph, a failed capture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch2mobile import user_code
from torch2mobile.records import Finding, InputSpec, LoadedModel, Severity
from torch2mobile.validators.coverage.lint_context import Subject
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.source import failure, graph, tree
from torch2mobile.validators.coverage.source.code import Library
from torch2mobile.validators.coverage.source.values import Kind, Value, of_object
from torch2mobile.validators.coverage.source.walk import Sighting, Walker
from torch2mobile.validators.parity import calls

# Where there is a graph, its own operators and dtypes say more than the code's words.
GRAPH_DECIDES = {"T2M111", "T2M131", "T2M160", "T2M161", "T2M170"}

# What to do where state counts.
_AS_INPUT = "Make the state an input and an output of forward: the caller keeps it."


def findings(subject: Subject) -> Iterator[Finding]:
    """Everything found, one of a rule at a line; what stops the capture is an error."""
    walker = walk(subject)
    found = list(_from_code(walker, _counting(walker, subject)))
    if subject.program is not None:
        found = [f for f in found if f.code not in GRAPH_DECIDES]
        found = list(_buffers_that_count(subject, found))
        found += graph.look(subject, walker)
    found += tree.look(subject)
    yield from failure.escalated(subject, found)


def walk(subject: Subject) -> Walker:
    """The code of the module, followed from its forward with the inputs that it is given."""
    loaded = _loaded(subject)
    walker = Walker(loaded.module, Library())
    args, kwargs = subject.call
    walker.module(
        loaded.module,
        [_value(part) for part in args],
        {name: _value(part) for name, part in kwargs.items()},
    )
    return walker


def _value(part: object) -> Value:
    """What is known of an argument: an input's tensor, a container of them, or a constant."""
    if isinstance(part, InputSpec):
        boolean = part.dtype == "bool"
        return Value(Kind.TENSOR, inputs=frozenset({part.name}), boolean=boolean)
    inner = tuple(part.values()) if isinstance(part, dict) else part
    if isinstance(inner, tuple | list):
        items = tuple(_value(item) for item in inner)
        tensors = any(item.kind is Kind.TENSOR for item in items)
        return Value(Kind.TENSOR if tensors else Kind.PLAIN, items=items)
    return of_object(part)


def _buffers_that_count(subject: Subject, found: list[Finding]) -> Iterator[Finding]:
    """A changed buffer is an error where an output is computed from it: the next call differs."""
    changed = any(finding.code == "T2M122" for finding in found)
    lasting = graph.lasting(subject) if changed else set()
    for finding in found:
        counts = finding.code == "T2M122" and any(name in finding.message for name in lasting)
        yield replace(finding, severity=Severity.ERROR) if counts else finding


def _counting(walker: Walker, subject: Subject) -> set[Sighting]:
    """Where something is kept that later calls follow: in no graph, but some calls show it."""
    if subject.program is None:
        return set()
    kept = [(m, name, s) for m, name, s in walker.keeps if (id(m), name) in walker.reads]
    counts = calls.counting(_loaded(subject), [(m, name) for m, name, _ in kept]) if kept else []
    return {sighting for (_, _, sighting), counted in zip(kept, counts, strict=True) if counted}


def _loaded(subject: Subject) -> LoadedModel:
    assert subject.loaded is not None
    return subject.loaded


def _from_code(walker: Walker, counting: set[Sighting]) -> Iterator[Finding]:
    """One finding of a rule at a line; how many more modules share it is in its message."""
    # What nothing reads again carries no state from one call to the next.
    unread = {s for owner, name, s in walker.writes if (owner, name) not in walker.reads}
    groups: dict[tuple[str, str, int], list[Sighting]] = {}
    for sighting in walker.sightings:
        groups.setdefault((sighting.code, sighting.file, sighting.line), []).append(sighting)
    for (code, file, line), group in groups.items():
        first = group[0]
        message = first.message or RULES[code].summary
        others = len({s.module for s in group}) - 1
        if others:
            message += f" (also in {others} other module{'s' if others > 1 else ''})"
        location = user_code.location(file, line, module=first.module)
        location = user_code.called_by(location, first.callers)
        severity, remedy = Severity.INFO if unread.issuperset(group) else None, ""
        if not counting.isdisjoint(group):
            message += ", and what a later call gives follows it"
            severity, remedy = Severity.ERROR, _AS_INPUT
        yield RULES[code].found(location, message, severity=severity, remedy=remedy)
