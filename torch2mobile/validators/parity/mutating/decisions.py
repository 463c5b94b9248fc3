"""Where a graph decides by its data, and which sides of each decision the inputs have taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from torch2mobile.onnx_graph import attribute
from torch2mobile.records import Check, Location, Status, Table
from torch2mobile.validators.parity.faults.graph_changes import Graph, input_at

_COMPARE = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_AT_ZERO = ("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Abs", "Sign")
# Their outputs hang on sizes alone.
_SIZES = ("Shape", "Size")
_PREFIX = "decision_"
_NEARLY = 1e-6


@dataclass(frozen=True)
class Condition:
    """A condition as a number at each place: above 0 where it is true, below where it is false.

    ``op`` is And, Or, Not, Less or Greater (equality is no matter here). Without it a search would
    see nothing of a conjunction until all of it is true at one place.
    """

    op: str
    of: str = ""
    minus: str = ""
    parts: tuple[Condition, ...] = ()

    def nodes(self, name: str) -> Iterator[onnx.NodeProto]:
        """The nodes that compute the number, under this name."""
        if self.of:
            first, second = (self.minus, self.of) if self.op == "Less" else (self.of, self.minus)
            yield from _difference_nodes(first, second, name)
            return
        names = [f"{name}_{number}" for number in range(len(self.parts))]
        for part, own in zip(self.parts, names, strict=True):
            yield from part.nodes(own)
        op = {"And": "Min", "Or": "Max", "Not": "Neg"}[self.op]
        yield helper.make_node(op, names, [name])


# What is reduced to its least and greatest: a value, a value minus another, or a condition.
Measured = tuple[str, str] | Condition


@dataclass(frozen=True)
class Decision:
    """One decision: the node, its first output, and the two sides that its data can take.

    It goes by a value of the graph (``of``, or ``of - minus``): the first side is taken where
    that is below ``threshold``, the second where it is above. ``guide`` tells how near a condition
    came to the side that it did not take. ``passes`` are the sides that have to be taken for a
    change of the node's input to go on to its output.
    """

    node: str
    output: str
    op: str
    sides: tuple[str, str]
    of: str
    minus: str = ""
    threshold: float = 0.0
    guide: Condition | None = None
    passes: tuple[int, ...] = ()

    def label(self, side: int) -> str:
        """A side in words: ``relu_3 below 0``."""
        return f"{self.output} {self.sides[side]}"


@dataclass(frozen=True)
class Instrumented:
    """A model that gives, in place of its outputs, how far each decision went to both sides."""

    model: onnx.ModelProto
    decisions: tuple[Decision, ...]
    measured: tuple[Measured, ...]

    def margins(self, outputs: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
        """By decision and side how far beyond its threshold a run went: above 0 where it was taken.

        A side that was not taken has how much was missing, as a number that is not above 0.
        """
        pairs = np.array([float(array.reshape(())) for _, array in outputs]).reshape(-1, 2)
        ends = dict(zip(self.measured, pairs, strict=True))
        margins = [_margins(decision, ends) for decision in self.decisions]
        return np.array(margins, dtype=np.float64).reshape(-1, 2)


def _margins(decision: Decision, ends: Mapping[Measured, np.ndarray]) -> list[float]:
    least, greatest = ends[decision.of, decision.minus]
    both = [decision.threshold - least, greatest - decision.threshold]
    if decision.guide is not None:
        least, greatest = ends[decision.guide]
        hints = (-least, greatest)
        both = [
            margin if margin > 0 else min(-_NEARLY, hint)
            for margin, hint in zip(both, hints, strict=True)
        ]
    return [-np.inf if np.isnan(margin) else float(margin) for margin in both]


def find(model: onnx.ModelProto, weights: Mapping[str, np.ndarray] | None = None) -> list[Decision]:
    """The decisions of a graph that hang on its inputs' values, in the graph's order."""
    graph = Graph(model, weights=weights)
    live = _live(graph)
    found: list[Decision] = []
    for address, node in graph.nodes:
        if len(address) == 1 and node.domain in {"", "ai.onnx"}:
            found += [
                decision
                for decision in _of_node(graph, node)
                if decision.of in live or decision.minus in live
            ]
    return found


def _live(graph: Graph) -> set[str]:
    """The values that hang on the values of an input, not on sizes alone."""
    live = {info.name for info in graph.model.graph.input if not graph.is_constant(info.name)}
    for _, node in graph.nodes:
        if node.op_type not in _SIZES and any(name in live for name in node.input):
            live.update(name for name in node.output if name)
    return live


def _of_node(graph: Graph, node: onnx.NodeProto) -> Iterator[Decision]:
    op, value = node.op_type, input_at(node, 0)
    if op in _AT_ZERO:
        yield _at(node, value, 0.0, {"Relu": (1,), "Sign": (0, 1)}.get(op, ()))
    elif op == "ThresholdedRelu":
        yield _at(node, value, attribute(node, "alpha", 1.0), (1,))
    elif op in {"HardSwish", "HardSigmoid"}:
        hard_swish = op == "HardSwish"
        alpha = 1 / 6 if hard_swish else attribute(node, "alpha", 0.2)
        beta = 0.5 if hard_swish else attribute(node, "beta", 0.5)
        yield _at(node, value, -beta / alpha, (1,))
        yield _at(node, value, (1 - beta) / alpha, () if hard_swish else (0,))
    elif op == "Clip":
        yield from _clip(graph, node)
    elif op in {"Max", "Min"} and len(node.input) == 2:
        sides = ("by input 1", "by input 0") if op == "Max" else ("by input 0", "by input 1")
        yield _difference(node, sides)
    elif op in _COMPARE:
        yield _difference(node, ("less", "greater"))
    elif op == "Equal":
        yield _truth(node, node.output[0], ("unequal", "equal"))
    elif op in {"Where", "If"}:
        maker = graph.producers.get(value)
        if maker is None or maker.op_type not in {*_COMPARE, "Equal"}:
            yield replace(_truth(node, value, ("false", "true")), guide=_condition(graph, value))


def _at(
    node: onnx.NodeProto, value: str, threshold: float, passes: tuple[int, ...] = ()
) -> Decision:
    text = f"{threshold:.4g}"
    sides = (f"below {text}", f"above {text}")
    name, op = node.output[0], node.op_type
    return Decision(node.name, name, op, sides, value, threshold=threshold, passes=passes)


def _difference(node: onnx.NodeProto, sides: tuple[str, str]) -> Decision:
    first, second = node.input[:2]
    name, op = node.output[0], node.op_type
    return Decision(node.name, name, op, sides, first, minus=second, passes=(0, 1))


def _truth(node: onnx.NodeProto, value: str, sides: tuple[str, str]) -> Decision:
    name, op = node.output[0], node.op_type
    return Decision(node.name, name, op, sides, value, threshold=0.5, passes=(0, 1))


def _condition(graph: Graph, value: str) -> Condition | None:
    """A condition as it is put together from comparisons; None where it is something else."""
    node = graph.producers.get(value)
    if node is None:
        return None
    if node.op_type in _COMPARE:
        return Condition(node.op_type.removesuffix("OrEqual"), node.input[0], node.input[1])
    if node.op_type not in {"And", "Or", "Not"}:
        return None
    parts = [_condition(graph, name) for name in node.input]
    known = tuple(part for part in parts if part is not None)
    return Condition(node.op_type, parts=known) if len(known) == len(parts) else None


def _clip(graph: Graph, node: onnx.NodeProto) -> Iterator[Decision]:
    value = node.input[0]
    for index, name, passes in ((1, "lower", (1,)), (2, "upper", (0,))):
        bound = input_at(node, index)
        given = graph.constant(bound) if bound else None
        if given is not None:
            yield _at(node, value, float(given.reshape(())), passes)
        elif bound:
            sides = (f"below its {name} bound", f"above its {name} bound")
            output = node.output[0]
            yield Decision(node.name, output, "Clip", sides, value, minus=bound, passes=passes)


def instrument(model: onnx.ModelProto, decisions: Sequence[Decision]) -> Instrumented:
    """A copy of the model whose outputs are the least and greatest of what its decisions go by."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    measured: dict[Measured, None] = {}
    for decision in decisions:
        measured[decision.of, decision.minus] = None
        if decision.guide is not None:
            measured[decision.guide] = None
    del graph.output[:]
    for number, each in enumerate(measured):
        prefix = f"{_PREFIX}{number}"
        graph.node.extend(_value_nodes(each, prefix))
        for op, end in (("ReduceMin", "least"), ("ReduceMax", "greatest")):
            name = f"{prefix}_{end}"
            graph.node.append(helper.make_node(op, [prefix], [name], keepdims=0))
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
    return Instrumented(copied, tuple(decisions), tuple(measured))


def _value_nodes(what: Measured, name: str) -> Iterator[onnx.NodeProto]:
    if isinstance(what, Condition):
        yield from what.nodes(name)
    elif what[1]:
        yield from _difference_nodes(*what, name)
    else:
        yield helper.make_node("Cast", [what[0]], [name], to=TensorProto.FLOAT)


def _difference_nodes(first: str, second: str, name: str) -> Iterator[onnx.NodeProto]:
    """The nodes of ``first - second`` in float32, whatever their type."""
    names = [f"{name}_a", f"{name}_b"]
    for value, own in zip((first, second), names, strict=True):
        yield helper.make_node("Cast", [value], [own], to=TensorProto.FLOAT)
    yield helper.make_node("Sub", names, [name])


def decisions_check(
    target: str,
    decisions: Sequence[Decision],
    best: np.ndarray,
    inputs: int,
    added: int,
    places: Mapping[str, Location],
) -> Check:
    """The share of decisions that were taken both ways, and those that were not.

    ``best`` is the greatest margin by decision and side over ``inputs`` inputs, of which a search
    has ``added`` some to the probes; ``places`` leads from a value to its source line. This
    informs; it is never a failure.
    """
    if not decisions:
        reason = "nothing in the graph is decided by the data"
        return Check("decisions", Status.SKIPPED, reason, target=target)
    both = int((best > 0).all(axis=1).sum())
    rows = []
    for decision, margins in zip(decisions, best, strict=True):
        for side in (0, 1):
            if margins[side] <= 0:
                place = places.get(decision.output, Location())
                line = f"{place.file}:{place.line}" if place.file else ""
                missing = -float(margins[side])
                row = (decision.op, decision.output, decision.sides[side], missing, place.module)
                rows.append((*row, line))
    columns = ("op", "output", "never", "missed by", "module", "line")
    table = (Table("decisions not taken both ways", columns, tuple(rows)),) if rows else ()
    return Check(
        "decisions",
        Status.PASSED,
        f"{both} of {len(decisions)} taken both ways on {inputs} inputs"
        + (f", {added} of them searched for" if added else ""),
        target=target,
        metrics={"decisions": len(decisions), "both": both, "inputs": inputs, "added": added},
        tables=table,
    )
