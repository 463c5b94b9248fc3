"""All findings of the source level: from the code, the module tree, the graph, a failed capture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch2mobile import user_code
from torch2mobile.records import Finding, Severity
from torch2mobile.validators.coverage.lint_context import ModuleSubject
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.source import captured_graph, failure, syntax, tree
from torch2mobile.validators.coverage.source.sightings import Observation, Sighting
from torch2mobile.validators.parity import calls

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Where there is a graph, its own operators and dtypes say more than the code's words.
GRAPH_DECIDES = {"T2M111", "T2M130", "T2M131", "T2M160", "T2M161", "T2M170"}

# What forward leaves for the next call, in buffers and attributes.
STATE = {"T2M122", "T2M124"}
# What to do where state counts.
_AS_INPUT = (
    "Export it with --state, or make the state an input and an output of forward: the caller keeps "
    "it."
)


def findings(subject: ModuleSubject, seen: Observation) -> Iterator[Finding]:
    """Everything found, one of a rule at a line; what stops the capture is an error."""
    found = list(_from_code(seen, _counting(seen, subject)))
    if subject.capture is not None and subject.program is not None:
        found = [f for f in found if f.code not in GRAPH_DECIDES]
        found = list(_buffers_that_count(subject.program, found))
        found += captured_graph.look(subject.capture, subject.program, seen)
    if subject.loaded.flat.states:
        # What is kept is an input and an output; what is not, and counts, is an error.
        found = [f for f in found if f.code not in STATE or f.severity is Severity.ERROR]
    found += tree.look(subject)
    yield from failure.escalated(subject, found)


def _buffers_that_count(program: ExportedProgram, found: list[Finding]) -> Iterator[Finding]:
    """A changed buffer is an error where an output is computed from it: the next call differs."""
    changed = any(finding.code == "T2M122" for finding in found)
    lasting = captured_graph.lasting(program) if changed else set()
    for finding in found:
        counts = finding.code == "T2M122" and any(name in finding.message for name in lasting)
        yield replace(finding, severity=Severity.ERROR) if counts else finding


def _counting(seen: Observation, subject: ModuleSubject) -> set[Sighting]:
    """Where something is kept that later calls follow: in no graph, but some calls show it."""
    if subject.program is None or not seen.kept:
        return set()
    read = syntax.attributes_read(seen.ran)
    kept = [each for each in seen.kept if each[1] in read]
    layers = dict(subject.loaded.module.named_modules())
    counts = calls.counting(subject.loaded, [(layers[path], name) for path, name, _ in kept])
    return {sighting for (_, _, sighting), counted in zip(kept, counts, strict=True) if counted}


def _from_code(seen: Observation, counting: set[Sighting]) -> Iterator[Finding]:
    """One finding of a rule at a line; how many more modules share it is in its message."""
    # What nothing reads again carries no state from one call to the next, and what a library asks
    # of the exporter is its own concern.
    read = syntax.attributes_read(seen.ran) if seen.kept else set()
    unread = {s for _, name, s in seen.kept if s.code == "T2M124" and name not in read}
    groups: dict[tuple[str, str, int], list[Sighting]] = {}
    for sighting in seen.sightings:
        place = sighting.place
        groups.setdefault((sighting.code, place.file, place.line), []).append(sighting)
    for (code, file, line), group in groups.items():
        first = group[0]
        message = first.message or RULES[code].summary
        others = len({s.place.module for s in group}) - 1
        if others:
            message += f" (also in {others} other module{'s' if others > 1 else ''})"
        location = user_code.location(file, line, module=first.place.module)
        location = user_code.called_by(location, first.place.frames)
        idle = unread.issuperset(group) or (code == "T2M145" and bool(location.caller))
        severity, remedy = Severity.INFO if idle else None, ""
        if not counting.isdisjoint(group):
            message += ", and what a later call gives follows it"
            severity, remedy = Severity.ERROR, _AS_INPUT
        yield RULES[code].found(location, message, severity=severity, remedy=remedy)
