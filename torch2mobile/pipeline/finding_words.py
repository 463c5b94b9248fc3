"""What localising found, as a check: the verdict in words, the suspects as a table and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from torch2mobile.records import Check, Location, Metric, Origin, Status, Table

if TYPE_CHECKING:
    from torch2mobile.exporter.provenance import Origins
    from torch2mobile.validators.parity.locating.suspects import Located, Suspect

_COLUMNS = (
    *("operator", "layer", "line", "span", "own error", "allowed", "before", "after"),
    *("after / floor", "at fault"),
)
# No node is at fault alone.
_SUMMED = ("accumulated", "unstable")
_OF_OPERATORS = {
    "as_strided": (
        "as_strided reads memory as PyTorch happens to lay it out, which no file knows: write it "
        "with unfold (a library may by its config: onnx_export=True in transformers' Longformer)."
    ),
    "nms": (
        "ONNX takes the corners of a box in any order, torchvision only x1 <= x2, y1 <= y2: where "
        "some are not so, order them before nms with torch.minimum and torch.maximum, or give "
        "boxes as they occur with --data."
    ),
}
# So many nodes of a span are named with their lines; the table has all.
_PLACES = 6


def join(check: Check, found: Check) -> Check:
    """A failed check with what was found: the first suspect's lines, a table, what it means."""
    from torch2mobile.validators.parity import gate

    return replace(
        check,
        locations=(*check.locations, *found.locations),
        metrics={**check.metrics, **_suspects(found.metrics)},
        tables=(*check.tables, *found.tables),
        notes=(*check.notes, found.summary, *found.notes),
        # What the mismatches show by themselves says more than what goes for all such nodes.
        hint=(found.hint or check.hint) if check.hint in {"", gate.LOOK} else check.hint,
    )


def _suspects(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    return {name: value for name, value in metrics.items() if name.startswith("suspect")}


def localise_check(
    finding: Located, origins: Origins, operators: Mapping[str, str] | None = None
) -> Check:
    """The finding as a check of its own; PASSED where nothing differs.

    ``operators`` has what the user's line calls, by the value that it gives. The names of the
    nodes are metrics: there may be dozens.
    """
    named = finding.suspects if finding.verdict in {"node", "capture", *_SUMMED} else ()
    blamed = named[:1] if finding.verdict == "node" else ()
    metrics: dict[str, Metric] = {"values": finding.values, "compared": finding.compared}
    called = [_called(suspect, operators or {}) for suspect in named]
    return Check(
        "localise",
        Status.PASSED if finding.verdict == "nothing" else Status.FAILED,
        sentence(finding, *called[:1]),
        target="onnx",
        hint=_hint(finding, *called[:1]),
        metrics=metrics | _nodes(named),
        locations=tuple(place for suspect in blamed for place in _places(suspect, origins)),
        tables=(_table(finding, named, called, origins),) if named else (),
        notes=tuple(_lined_up(finding)),
    )


def _called(suspect: Suspect, operators: Mapping[str, str]) -> str:
    """What the user calls there; empty where no value of it has a name."""
    outputs = [name for node in reversed(suspect.nodes) for name in node.outputs]
    return next((operators[name] for name in (suspect.value, *outputs) if name in operators), "")


def _nodes(suspects: Sequence[Suspect]) -> dict[str, Metric]:
    """By suspect its value, nodes, their operators, and the noise of that value."""
    found: dict[str, Metric] = {}
    for number, one in enumerate(suspects, 1):
        found |= {
            f"suspect {number}.value": one.value,
            f"suspect {number}.nodes": ", ".join(node.name for node in one.nodes),
            f"suspect {number}.operators": ", ".join(node.op_type for node in one.nodes),
            f"suspect {number}.floor": one.floor or 0.0,
        }
    return found


def _places(suspect: Suspect, origins: Origins) -> list[Location]:
    from torch2mobile.exporter import provenance

    found: dict[Location, None] = {}
    for node in reversed(suspect.nodes):
        of_node = provenance.merge([origins.get(name, ()) for name in node.outputs])
        places = [one.place(node.name, node.op_type) for one in of_node or (_NOWHERE,)]
        found.update(dict.fromkeys(places))
    return list(found)[:_PLACES]


_NOWHERE = Origin((), "", 0, "")


def _table(
    finding: Located, suspects: Sequence[Suspect], called: Sequence[str], origins: Origins
) -> Table:
    title = f"where it starts, on probe {finding.probe}"
    if finding.verdict in _SUMMED:
        title = f"the largest errors of nodes on their own, on probe {finding.probe}"
    pairs = zip(suspects, called, strict=True)
    return Table(title, _COLUMNS, tuple(_row(one, name, origins) for one, name in pairs))


def _row(suspect: Suspect, called: str, origins: Origins) -> tuple[str | float | None, ...]:
    after, floor = suspect.after, suspect.floor
    place = next(iter(_places(suspect, origins)), Location())
    return (
        called or suspect.nodes[-1].op_type,
        place.module or None,
        f"{PurePath(place.file).name}:{place.line}" if place.file else None,
        _span(suspect),
        suspect.error,
        suspect.allowed,
        suspect.before,
        after,
        after / floor if after is not None and floor else None,
        suspect.fault or None,
    )


def _span(suspect: Suspect) -> str:
    """The nodes in words: their number, and the operators at both ends."""
    first, last = suspect.nodes[0].op_type, suspect.nodes[-1].op_type
    return last if len(suspect.nodes) == 1 else f"{len(suspect.nodes)} nodes, {first} to {last}"


def _hint(finding: Located, called: str = "") -> str:
    """What to do; what goes for an operator only where its node says what the module's does."""
    first = finding.suspects[0] if finding.suspects else None
    own = finding.verdict not in _SUMMED and first and first.runs and not first.differences
    return (own and _OF_OPERATORS.get(called)) or _HINTS.get(_cause(finding), "")


def _cause(finding: Located) -> str:
    fault = finding.suspects[0].fault if finding.suspects else ""
    if finding.verdict == "node" and not finding.suspects[0].runs:
        fault = "stops"
    if finding.verdict == "capture" and "program raises linalg" in finding.detail:
        return "raises"
    return f"node {fault}".strip() if finding.verdict == "node" else finding.verdict


_HINTS = {
    "node stops": "ONNX Runtime cannot run this node: compute it in another dtype (x.float()), or "
    "write the line in other operators.",
    "node": "Look at the node and the source line named above.",
    "node graph": "The file says something else than the module at this node: export it again, "
    "or look at what changed it. If it is fresh from export, the operator's translation is at "
    "fault: write the line in other operators.",
    "node kernel": "ONNX Runtime computes this node otherwise than ONNX defines it: try another "
    "version of it, or write the line in other operators.",
    "optimizer": "An optimisation of ONNX Runtime's changes the result: try another version, or "
    "set graph_optimization_level lower in the app.",
    "capture": "torch.export fixed what depends on the call: Python that depends on sizes, values, "
    "earlier calls, or on being exported. Write one formula for all sizes (min, max, F.pad by 0 or "
    "more), torch.where for values.",
    "raises": "A file raises nothing that code could catch: decide by values, as l, info = "
    "torch.linalg.cholesky_ex(x) and torch.where(info > 0, other, l).",
    "accumulated": "Each node is as exact as it can be. Give your own tolerance if this error is "
    "acceptable, or make the module less sensitive to rounding.",
    "unstable": "Each node is as exact as it can be, but a later one turns on the last bits, as a "
    "root near 0 or a comparison does: clamp what goes into it, or move its threshold.",
}


def sentence(finding: Located, called: str = "") -> str:
    """The finding in one sentence; ``called`` is what the user's line calls there."""
    if finding.verdict != "node":
        return _OTHERS[finding.verdict].format(probe=finding.probe, detail=finding.detail)
    suspect = finding.suspects[0]
    last = suspect.nodes[-1]
    what = f"the {last.op_type} node {last.name}".strip()
    if len(suspect.nodes) > 1:
        what = f"the {len(suspect.nodes)} nodes up to {suspect.value} (their names were lost)"
    of = f" of {called}" if called else ""
    return f"it starts in {what}{of}: {_symptom(suspect)}{_fault(suspect)}"


def _symptom(suspect: Suspect) -> str:
    from torch2mobile.validators.parity.locating.suspects import DOES_NOT_RUN

    if not suspect.runs:
        return f"given the module's own values it {suspect.problem[:300]}"
    text = f"given the module's own values, {suspect.value} {suspect.problem or DOES_NOT_RUN}"
    if suspect.before is not None and suspect.after is not None:
        text += f"; in the file, the error is {suspect.before:.3g} before it"
        text += f" and {suspect.after:.3g} after it"
    return text


def _fault(suspect: Suspect) -> str:
    if suspect.differences:
        # "it has Relu where …", but "first.weight differs in …".
        first = suspect.differences[0]
        verb = "" if " differs in " in first else "it has "
        return f"; {verb}{'; '.join(suspect.differences)}"
    if suspect.fault == "kernel":
        return "; onnx's reference implementation agrees with the module, not with ONNX Runtime"
    if suspect.fault == "graph":
        return "; onnx's reference implementation agrees with ONNX Runtime, not with the module"
    return ""


_OTHERS = {
    "capture": "it starts in the capture: on probe {probe} the captured program itself gives "
    "something else than the module ({detail})",
    "optimizer": "it starts in ONNX Runtime's graph optimisations: on probe {probe} every node is "
    "right on its own, and so is the file without them ({detail})",
    "accumulated": "it starts nowhere: on probe {probe} every node is within its own limit, and "
    "their rounding adds up ({detail})",
    "unstable": "it starts nowhere: on probe {probe} every node is within its own limit, and a "
    "later one turns on their rounding ({detail})",
    "refused": "every node runs on its own on probe {probe}, but not the file: {detail}",
    "interface": "it starts in the file's interface: {detail}",
    "nothing": "on probe {probe} every node is within its own limit, and so is the whole",
}


def _lined_up(finding: Located) -> list[str]:
    """How much of the file could be lined up, where that bears on the finding."""
    if finding.compared == finding.values or finding.verdict in {"node", "interface", "capture"}:
        return []
    counts = f"{finding.compared} of the file's {finding.values} values are also the module's"
    return [f"{counts}; what lies between them was judged as one"]
