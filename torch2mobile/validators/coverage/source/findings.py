"""All findings of the source level: from the code, the module tree, the graph, a failed capture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from torch2mobile.records import Finding, InputSpec, LoadedModel, Severity
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.source import failure, graph, tree
from torch2mobile.validators.coverage.source.code import Library
from torch2mobile.validators.coverage.source.values import Kind, Value, of_object
from torch2mobile.validators.coverage.source.walk import Sighting, Walker
from torch2mobile.validators.coverage.subject import Blame, Subject
from torch2mobile.validators.parity import calls

# Where there is a graph, its own operators and dtypes say more than the code's words.
GRAPH_DECIDES = {"T2M111", "T2M131", "T2M160", "T2M161", "T2M170"}

# What Python keeps from one call to the next, and what to do where that counts.
_KEEPING = {"T2M124", "T2M142"}
_AS_INPUT = "Make the state an input and an output of forward: the caller keeps it."


def findings(subject: Subject) -> Iterator[Finding]:
    """Everything found, one of a rule at a line; what stops the capture is an error."""
    assert subject.blame is not None
    walker = walk(subject)
    found = list(_from_code(walker, subject.blame))
    if subject.program is not None:
        found = [f for f in found if f.code not in GRAPH_DECIDES]
        found = list(_state_that_counts(subject, found))
        found += graph.look(subject, walker)
    found += tree.look(subject)
    yield from failure.escalated(subject, found)


def walk(subject: Subject) -> Walker:
    """The code of the module, followed from its forward with the inputs that it is given."""
    loaded, blame = _loaded(subject), subject.blame
    assert blame is not None
    walker = Walker(loaded.module, Library(blame))
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


def _state_that_counts(subject: Subject, found: list[Finding]) -> Iterator[Finding]:
    """Changed state is an error where outputs follow it: what the next call gives differs."""
    codes = {finding.code for finding in found if finding.severity is Severity.WARNING}
    lasting = graph.lasting(subject) if "T2M122" in codes else set()
    # What Python keeps is in no graph; a few calls in a row show it.
    remembers = bool(codes & _KEEPING) and calls.remembers(_loaded(subject))
    for finding in found:
        counts = finding.code == "T2M122" and any(name in finding.message for name in lasting)
        kept = remembers and finding.severity is Severity.WARNING and _keeps(finding)
        if counts:
            yield replace(finding, severity=Severity.ERROR)
        elif kept:
            message = f"{finding.message}, and what a later call gives follows such state"
            yield replace(finding, severity=Severity.ERROR, message=message, remedy=_AS_INPUT)
        else:
            yield finding


def _keeps(finding: Finding) -> bool:
    """Not what is printed."""
    return finding.code in _KEEPING and (
        "is set" in finding.message or "changed" in finding.message
    )


def _loaded(subject: Subject) -> LoadedModel:
    assert subject.loaded is not None
    return subject.loaded


def _from_code(walker: Walker, blame: Blame) -> Iterator[Finding]:
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
        location = blame.location(file, line, module=first.module)
        severity = Severity.INFO if unread.issuperset(group) else None
        yield RULES[code].found(location, message, severity=severity)
