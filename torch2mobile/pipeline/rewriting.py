"""The stage ``rewrite`` of an export: what was asked for, what was done, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch2mobile.errors import UsageError
from torch2mobile.records import Check, LoadedModel, Location, OnnxModel, RewrittenFlow, Status

if TYPE_CHECKING:
    from torch2mobile.validators.parity.expected import Expected


def check_codes(codes: tuple[str, ...]) -> tuple[str, ...]:
    """The codes of the rules that these name, by code or name.

    Raises UsageError for one that no rule has, or whose rule has no rewrite.
    """
    if not codes:
        return ()
    from torch2mobile.exporter import control_flow
    from torch2mobile.exporter.rewrite import REWRITES
    from torch2mobile.validators.coverage.selection import find_rule

    known = sorted({*REWRITES, *control_flow.CODES})
    rules = [find_rule(code) for code in codes]
    for rule in rules:
        if rule.code not in known:
            raise UsageError(
                f"{rule.code} ({rule.name}) has no rewrite: its remedy changes your source",
                f"Rules with a rewrite: {', '.join(known)}; see 'torch2mobile explain "
                f"{rule.code}'.",
            )
    return tuple(dict.fromkeys(rule.code for rule in rules))


def rewritten(
    model: OnnxModel, codes: tuple[str, ...], flow: RewrittenFlow | None
) -> tuple[OnnxModel, Check]:
    """The model with the rewrites of these codes, and the check that names them.

    ``flow`` are the statements that the capture has rewritten. SKIPPED where there was nothing to.
    """
    from torch2mobile.exporter import control_flow
    from torch2mobile.exporter.rewrite import REWRITES, rewrite

    result, counts = rewrite(model, codes)
    does = {one.name: one.does for code in codes for one in REWRITES.get(code, ())}
    does |= dict(control_flow.CODES[code] for code in codes if code in control_flow.CODES)
    places = [(control_flow.CODES[code][0], place) for place, code in _places(flow).items()]
    of_source = {name: 0 for name in does if name not in counts}
    counts = {**counts, **of_source, **Counter(name for name, _ in places)}
    done = [f"{name} ({count})" for name, count in counts.items() if count]
    if not done:
        reasons = tuple(f"nothing to {text}" for text in does.values())
        return result, Check("rewrite", Status.SKIPPED, "nothing to rewrite", notes=reasons)
    notes = tuple(f"{name}: {does[name]}" for name, count in counts.items() if count)
    notes += tuple(f"{name}: {place}" for name, place in places)
    nothing = [name for name, count in counts.items() if not count]
    summary = ", ".join(done) + (f"; nothing for {', '.join(nothing)}" if nothing else "")
    return result, Check("rewrite", Status.PASSED, summary, metrics=counts, notes=notes)


def _places(flow: RewrittenFlow | None) -> Mapping[Location, str]:
    return flow.places if flow is not None else {}


def sides_check(flow: RewrittenFlow, loaded: LoadedModel, expected: Sequence[Expected]) -> Check:
    """Whether the probes take each rewritten statement both ways.

    SKIPPED where one is not, since nothing proves its other side.
    """
    from torch2mobile.copies import fresh
    from torch2mobile.exporter.control_flow.flow_operators import watching
    from torch2mobile.tensors import quiet
    from torch2mobile.validators.parity.calls import run, tensors_of

    seen: dict[str, set[int]] = {}
    for case in expected:
        with fresh(loaded, "observed") as own, quiet(), flow.applied(), watching() as took:
            run(own.flat, tensors_of(loaded, case.probe.feeds))
        for at, side in took:
            seen.setdefault(at, set()).add(side)
    both, notes = 0, []
    for place, code in flow.places.items():
        lack = _untaken(code, seen.get(f"{place.file}:{place.line}", set()))
        both += not lack
        notes += [f"{lack}: {place}"] if lack else []
    ways = f"{both} of {len(flow.places)} taken both ways by the probes"
    if not notes:
        return Check("sides", Status.PASSED, ways)
    remedy = (
        "nothing proves the other side: inputs that take it can be given with --data or --values"
    )
    return Check("sides", Status.SKIPPED, f"{ways}; {remedy}", notes=tuple(notes))


def _untaken(code: str, sides: set[int]) -> str:
    """What no probe does at a statement; empty where they do all there is."""
    if code == "T2M101":
        lacks = {0: "never false", 1: "never true"}
        return " and ".join(text for side, text in lacks.items() if side not in sides)
    if not sides - {0}:
        return "never run"
    return "" if code == "T2M152" or len(sides) > 1 else f"always {min(sides)} times"
