"""What a report says, as plain lines: shared by the formats that people read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch2mobile.records import (
    Check,
    Finding,
    Location,
    Metric,
    Mismatch,
    Report,
    Severity,
    Status,
    Table,
)
from torch2mobile.reporters.figures import round_up, rows
from torch2mobile.reporters.printable import one_line, printable

MISMATCHES = 3
LOCATIONS = 5
"""So many are shown under a check, so that the table stays short; JSON has all."""


@dataclass(frozen=True)
class Line:
    """One line below a check: its depth, its text, and whether the text may be wrapped."""

    text: str
    depth: int = 0
    wrap: bool = True


def heading(report: Report) -> str:
    """Return what was done to what: ``export sample:super_resolution``."""
    return one_line(f"{report.command} {report.subject}")


def closing(report: Report) -> str:
    """Return the verdict and its counts: ``FAILED: 1 failed, 8 passed, 1 skipped``."""
    counts = Counter(check.status for check in report.checks)
    order = (Status.FAILED, Status.ERROR, Status.PASSED, Status.SKIPPED)
    parts = [_count(counts[status], status) for status in order if counts[status]]
    if not set(counts) - {Status.SKIPPED}:
        parts.insert(0, "nothing was checked")
    return f"{report.status.value.upper()}: {', '.join(parts)}"


def _count(number: int, status: Status) -> str:
    if status is Status.ERROR:
        return f"{number} error" if number == 1 else f"{number} errors"
    return f"{number} {status.value}"


def label(check: Check) -> str:
    """Return the check's name, with its target and device if any: ``parity [ort, arm64:max]``."""
    about = ", ".join(filter(None, (check.target, check.device)))
    return one_line(f"{check.name} [{about}]" if about else check.name)


def own_place(location: Location) -> tuple[str, int]:
    """Return the file and line to show a user: that of the call where the place is a library's."""
    if location.caller:
        return location.caller, location.caller_line
    return location.file, location.line


def _line(location: Location) -> tuple[object, ...]:
    """Return what makes two places one line in a text: also where a library's is called."""
    return location.file, location.line, location.caller, location.caller_line


def tables(check: Check, *, verbose: bool) -> tuple[Table, ...]:
    """Return the tables to draw in a text: without ``verbose`` no detail of what passed."""
    brief = check.status is Status.PASSED and not verbose
    return tuple(table for table in check.tables if not (brief and table.detail))


def details(check: Check, drawn: Iterable[Table] = (), width: int = 91) -> list[Line]:
    """Return what stands below a check: mismatches, locations, findings, tables, hint, notes.

    ``drawn`` are the tables, for a format that does not draw them in its own way; ``width`` is
    that of a line which is not wrapped.
    """
    lines: list[Line] = []
    if check.status is not Status.PASSED:
        causes = _causes(check.mismatches)
        for group in causes[:MISMATCHES]:
            lines += _mismatch(group, check.metrics, alone=_alone(group, causes))
        lines += _rest(sum(map(len, causes[MISMATCHES:])), "mismatch", "mismatches")
        places = _places(check.locations)
        for location in places[:LOCATIONS]:
            lines += _location(location, width)
        lines += _rest(len(places) - LOCATIONS, "location", "locations")
    lines += _findings(check.findings, width)
    for table in drawn:
        lines += _table(table, width)
    if check.hint:
        lines += _prefixed("hint", check.hint)
    for note in check.notes:
        lines += _prefixed("note", note)
    return lines


def _rest(number: int, one: str, many: str) -> Iterator[Line]:
    if number > 0:
        what = one if number == 1 else many
        yield Line(f"... and {number} more {what}; --format json has all of them")


def _prefixed(prefix: str, text: str) -> Iterator[Line]:
    first, *others = printable(text).strip().split("\n")
    yield Line(f"{prefix}: {first}")
    for other in others:
        yield Line(other, depth=1)


def _causes(mismatches: Sequence[Mismatch]) -> list[list[Mismatch]]:
    """Return the mismatches of one output together; special values and structure apart."""
    groups: dict[tuple[str, bool, bool], list[Mismatch]] = {}
    for one in mismatches:
        close = one.least_atol is not None and math.isfinite(one.least_atol)
        groups.setdefault((one.output, bool(one.index), close), []).append(one)
    return list(groups.values())


def _places(locations: Sequence[Location]) -> list[Location]:
    """Return each source line once, with all that the graph has of it."""
    groups: dict[object, list[Location]] = {}
    for one in locations:
        groups.setdefault(_line(one) if one.file else one, []).append(one)
    return [
        replace(
            group[0],
            module=", ".join(_few(one.module for one in group)),
            op=", ".join(_few(one.op for one in group)),
            node=", ".join(_few(one.node for one in group)),
        )
        for group in groups.values()
    ]


def _alone(group: Sequence[Mismatch], groups: Sequence[Sequence[Mismatch]]) -> bool:
    return sum(each[0].output == group[0].output for each in groups) == 1


def _mismatch(
    group: Sequence[Mismatch], metrics: Mapping[str, Metric], *, alone: bool
) -> Iterator[Line]:
    mismatch, count = group[0], len({one.probe for one in group})
    # The report keeps some of the probes; the metric counts all.
    failing = metrics.get(f"{mismatch.output}.failing", 0) if alone else 0
    others = max(count, failing if isinstance(failing, int) else 0) - 1
    more = f" and {others} other probe{'s' if others > 1 else ''}" if others else ""
    where = _named(output=mismatch.output, probe=f"{mismatch.probe}{more}")
    yield Line(one_line(f"{where}: {mismatch.problem}" if where else mismatch.problem))
    values = []
    if mismatch.expected:
        values.append(f"expected {mismatch.expected}")
    if mismatch.actual:
        values.append(f"actual {mismatch.actual}")
    if mismatch.allowed is not None:
        values.append(f"allowed {mismatch.allowed:.3g}")
    place = f"at {list(mismatch.index)}" if mismatch.index else ""
    if place or values:
        yield Line(one_line(": ".join(filter(None, [place, ", ".join(values)]))), depth=1)
    # The report keeps some of the probes; the metric, where there is one, is that of all.
    everywhere = metrics.get(f"{mismatch.output}.least_atol", 0.0)
    least: list[Metric | None] = [*(one.least_atol for one in group), everywhere]
    known = [value for value in least if isinstance(value, float) and math.isfinite(value)]
    if others and len(known) == len(least):
        yield Line(f"would have passed with atol={round_up(max(known))} on all of them", depth=1)
    else:
        yield from _least(mismatch)


def _least(mismatch: Mismatch) -> Iterator[Line]:
    given = {"atol": mismatch.least_atol, "rtol": mismatch.least_rtol}
    known = {name: value for name, value in given.items() if value is not None}
    if not known:
        return
    enough = [f"{name}={round_up(v)}" for name, v in known.items() if math.isfinite(v)]
    if enough:
        least = " or ".join(enough)
        yield Line(f"would have passed with {least} on the module's own output", depth=1)
    else:
        yield Line("no tolerance lets this pass", depth=1)


def _findings(findings: Sequence[Finding], width: int) -> Iterator[Line]:
    """Yield what counts, grouped by source line, then module path and operator."""
    places: dict[object, dict[tuple[str, str], list[Finding]]] = {}
    for finding in findings:
        if not finding.suppressed:
            where = finding.location
            groups = places.setdefault(_line(where), {})
            groups.setdefault((where.module, where.op), []).append(finding)
    for groups in places.values():
        first = next(iter(groups.values()))[0].location
        depth = 0
        if first.file:
            yield from _location(replace(first, module="", op="", node=""), width)
            depth = 1
        for (module, op), group in groups.items():
            yield from _group(module, op, group, depth)


def _group(module: str, op: str, group: Sequence[Finding], depth: int) -> Iterator[Line]:
    """Yield the graph's side of a place, and each thing that was found there, once."""
    graph = _named(module=module, op=op, node=", ".join(_few(f.location.node for f in group)))
    if graph:
        yield Line(one_line(graph if depth else f"at {graph}"), depth)
    remedies: list[str] = []
    for finding in dict.fromkeys(replace(f, location=Location()) for f in group):
        severity = "" if finding.severity is Severity.INFO else f"{finding.severity.value}: "
        yield Line(one_line(f"{finding.code} {severity}{finding.message}"), depth + bool(graph))
        if finding.remedy and finding.remedy not in remedies:
            remedies.append(finding.remedy)
            yield Line(one_line(finding.remedy), depth + bool(graph) + 1)


def _named(**parts: str) -> str:
    """Return ``module enc.0, op Conv`` of the parts that are not empty."""
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)


def _few(names: Iterable[str]) -> list[str]:
    """Return each name once, and a number in place of many."""
    names = list(dict.fromkeys(filter(None, names)))
    return names if len(names) <= 3 else [*names[:2], f"... ({len(names)} in all)"]


def _table(table: Table, width: int) -> Iterator[Line]:
    """Yield the title and aligned columns, unwrapped: figures to the right, texts to the left.

    Where they do not fit, a text in the last column stands below its row; where the others do not
    fit either, each row is a sentence of the figures that it has.
    """
    cells = [[one_line(name) for name in table.columns], *rows(table)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.columns))]
    numeric = [
        all(not isinstance(row[column], str) for row in table.rows)
        for column in range(len(table.columns))
    ]
    yield Line(one_line(table.title))
    wide = sum(widths) + 2 * len(widths) > width
    below = wide and not numeric[-1] and sum(widths[:-1]) + 2 * len(widths[:-1]) <= width
    if wide and not below:
        for row in cells[1:]:
            pairs = zip(cells[0], row, strict=True)
            yield Line(
                ", ".join(f"{name} {text}" for name, text in pairs if text not in {"", "-"}),
                depth=1,
            )
        return
    for row in cells:
        columns = zip(row, widths, numeric, strict=True)
        texts = [t.rjust(width) if right else t.ljust(width) for t, width, right in columns]
        yield Line("  ".join(texts[:-1] if below else texts).rstrip(), depth=1, wrap=False)
        if below and row is not cells[0] and row[-1] not in {"", "-"}:
            yield Line(row[-1], depth=2)


def _location(location: Location, width: int) -> Iterator[Line]:
    """Yield ``at file:line  code`` unwrapped, so that it can be clicked, and the graph's side.

    Code that is too long is cut; a path never is.
    """
    place = f"{location.file}:{location.line}" if location.line else location.file
    graph = one_line(_named(module=location.module, op=location.op, node=location.node))
    if place:
        place, code = one_line(f"at {place}"), one_line(location.code).strip()
        whole = f"{place}  {code}" if code else place
        if code and len(whole) > width:
            yield Line(place, wrap=False)
            short = code if len(code) <= width - 2 else f"{code[: width - 5]}..."
            yield Line(short, depth=1, wrap=False)
        else:
            yield Line(whole, wrap=False)
    if location.caller:
        called = one_line(f"called at {location.caller}:{location.caller_line}")
        yield Line(called, depth=1, wrap=False)
    if graph:
        yield Line(graph, depth=1) if place else Line(f"at {graph}")
