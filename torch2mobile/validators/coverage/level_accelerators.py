"""The accelerators' level of ``check``: what of the model each of them would take over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch2mobile.errors import some_of
from torch2mobile.records import Finding, Metric, Table
from torch2mobile.validators.coverage import graph
from torch2mobile.validators.coverage.accelerators import (
    ACCELERATORS,
    Answer,
    NodeVerdict,
    Placement,
    place,
)
from torch2mobile.validators.coverage.lint_context import OnnxSubject, Section, Subject
from torch2mobile.validators.coverage.rules import RULES

if TYPE_CHECKING:
    from torch2mobile.validators.coverage.graph import Model

_CODES = {
    Answer.NOT_LISTED: "T2M401",
    Answer.CONDITION_NOT_MET: "T2M402",
    Answer.NOT_EVALUATED: "T2M404",
    Answer.RANK: "T2M405",
    Answer.TYPE: "T2M406",
    Answer.SUBGRAPH: "T2M408",
}
_WORTH = {"yes": "worth trying", "maybe": "perhaps worth trying", "no": "not worth trying"}
_NAMED = 6
"""How many nodes a message names before it says how many more there are."""


def look(subject: Subject) -> Iterator[Section]:
    """Every accelerator that was asked for, as the model is, and again with sizes fixed.

    Raises UsageError where a size is fixed that no input has.
    """
    wanted = [ACCELERATORS[name] for name in subject.providers]
    onnx = subject.onnx
    if onnx is None:
        for accelerator in wanted:
            why = subject.no_model or "there is no ONNX model to look at"
            yield Section("accelerator", target=accelerator.name, skipped=why)
        return
    fixed = graph.read(onnx.model, subject.fixed) if subject.fixed else None
    sizes = ", ".join(f"{name}={size}" for name, size in subject.fixed.items())
    for accelerator in wanted:
        as_is = place(onnx.graph, accelerator)
        if fixed is None:
            yield _section("accelerator", as_is, _findings(as_is, onnx.graph, onnx))
            continue
        yield _section("accelerator", as_is, (), instead=f"with {sizes}, see below")
        again = place(fixed, accelerator)
        yield _section(f"accelerator {sizes}", again, _findings(again, fixed, onnx, fixed=True))


def _section(
    name: str, found: Placement, findings: tuple[Finding, ...], instead: str = ""
) -> Section:
    count, pieces = len(found.verdicts), len(found.pieces)
    share = "unknown" if found.share is None else f"{found.share:.0%}"
    metrics: dict[str, Metric] = {
        "nodes": count,
        "taken": found.taken,
        "pieces": pieces,
        "advice": _advice(found),
    }
    if found.share is not None:
        metrics["share of FLOPs"] = round(found.share, 4)
    lacks = found.share is None
    notes = ("the share of FLOPs needs fixed sizes: see --fix-dim",) if lacks else ()
    return Section(
        name,
        findings,
        summary=(
            f"{found.taken} of {count} nodes in {pieces} piece{'' if pieces == 1 else 's'}, "
            f"FLOPs {share}, {_WORTH[_advice(found)]}"
        ),
        target=found.accelerator.name,
        metrics=metrics,
        tables=tuple(_tables(found)),
        notes=notes,
        instead=instead,
    )


def _advice(found: Placement) -> str:
    """ONNX Runtime's own rule of thumb (``PartitioningInfo.suitability``)."""
    percent = 100 * found.taken / max(len(found.verdicts), 1)
    if len(found.pieces) == 1:
        return "yes" if percent > 75 else "maybe" if percent > 50 else "no"
    return "maybe" if len(found.pieces) == 2 and percent > 75 else "no"


def _tables(found: Placement) -> Iterator[Table]:
    counted: dict[tuple[str, str], list[NodeVerdict]] = {}
    for verdict in found.verdicts:
        counted.setdefault((verdict.node.op, verdict.answer.value), []).append(verdict)
    rows = tuple(
        (op, len(members), answer, members[0].condition)
        for (op, answer), members in sorted(counted.items())
    )
    yield Table("operators", ("operator", "nodes", "verdict", "condition"), rows)
    if len(found.pieces) > 1:
        sizes = tuple((number, size) for number, size in enumerate(found.pieces, 1))
        yield Table("pieces", ("piece", "nodes"), sizes)
        between = tuple(
            (verdict.node.label, verdict.node.op, verdict.answer.value) for verdict in found.joining
        )
        yield Table("to be replaced for one piece", ("node", "operator", "verdict"), between)


def _findings(
    found: Placement, model: Model, onnx: OnnxSubject, *, fixed: bool = False
) -> tuple[Finding, ...]:
    """The findings of one accelerator; ``fixed``: with the sizes that were asked for."""
    target = found.accelerator.name
    result = []
    for verdict in found.verdicts:
        code = _CODES.get(verdict.answer)
        if code:
            where = onnx.place_of(verdict.node)
            asked = f"Write it so that this holds: {verdict.condition}" if verdict.condition else ""
            result.append(RULES[code].found(where, verdict.reason, remedy=asked, target=target))
    waiting = [v for v in found.verdicts if v.answer is Answer.NOT_STATIC]
    if waiting:
        result.append(_not_static(waiting, model, onnx, target, fixed=fixed))
    if len(found.pieces) > 1:
        result.append(_several_pieces(found, onnx, target))
    return tuple(result)


def _several_pieces(found: Placement, onnx: OnnxSubject, target: str) -> Finding:
    """What to replace for one piece; where that is more than is taken, that the CPU does better."""
    between, remedy = found.joining, ""
    message = f"{len(found.pieces)} pieces; one would be left without {_named(between)}"
    if len(between) > found.taken:
        remedy = (
            f"Leave this model to the CPU: for one piece, {len(between)} nodes would have to be "
            f"replaced, more than the {found.taken} that are taken."
        )
    where = onnx.place_of(between[0].node)
    return RULES["T2M407"].found(where, message, remedy=remedy, target=target)


def _not_static(
    waiting: list[NodeVerdict], model: Model, onnx: OnnxSubject, target: str, *, fixed: bool
) -> Finding:
    """One finding for all: it is the inputs that make the sizes vary, not the single lines."""
    first = waiting[0]
    symbols = list(graph.symbols(model.proto))
    remedy = ""
    if symbols:
        words = " ".join(f"--fix-dim {name}=SIZE" for name in symbols)
        remedy = f"Export with fixed sizes; {words} shows what that would give."
    elif fixed:
        remedy = (
            "These sizes are computed in the graph: export with fixed sizes in --input. "
            "A size that data decide stays."
        )
    return RULES["T2M403"].found(
        onnx.place_of(first.node),
        f"{len(waiting)} nodes are not taken because a size may vary; first {first.reason}",
        remedy=remedy,
        target=target,
    )


def _named(verdicts: tuple[NodeVerdict, ...]) -> str:
    return some_of([f"{verdict.node.label} ({verdict.node.op})" for verdict in verdicts], _NAMED)
