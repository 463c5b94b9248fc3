"""Whether a fault was looked for where it shows: the decisions that it may be hidden behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch2mobile.onnx_graph import Address, Graph, reads
from torch2mobile.validators.parity.mutating.decisions import Decision

if TYPE_CHECKING:
    import onnx

# A mask goes through these on its way from the decision to what it masks.
_CARRY = (
    *("Cast", "Not", "And", "Or", "Xor", "Identity", "Reshape", "Transpose", "Squeeze", "Expand"),
    *("Unsqueeze", "Flatten", "Tile", "Mul", "Sub", "Where", "ReduceMax", "ReduceMin", "Slice"),
)


@dataclass(frozen=True)
class Untaken:
    """A side of a decision that no input took, though declared values may."""

    decision: Decision
    side: int

    @property
    def label(self) -> str:
        """In words: ``the Relu relu_3 was never below 0``."""
        decision = self.decision
        return f"the {decision.op} {decision.output} was never {decision.sides[self.side]}"


class Reach:
    """The nodes of a graph, and the sides of its decisions that no input took."""

    def __init__(self, graph: Graph, untaken: Sequence[Untaken]) -> None:
        self._nodes = [node for address, node in graph.nodes if len(address) == 1]
        self._producers = graph.producers
        self._untaken: dict[str, list[Untaken]] = {}
        for each in untaken:
            self._untaken.setdefault(each.decision.output, []).append(each)

    def hidden(self, address: Address) -> Untaken | None:
        """What may keep a changed value of this node from the outputs; None for nothing.

        Decisions that the change has to pass, and masks that it is multiplied by.
        """
        if not self._untaken:
            return None
        if not address:
            return next(iter(self._untaken.values()))[0]
        start = self._nodes[int(address[0])]
        own = next(self._at(start, address), None)
        if own is not None:
            return own
        changed = set(start.output)
        for node in self._nodes[int(address[0]) + 1 :]:
            names = set(reads(node))
            if changed & names:
                found = next(self._passing(node, changed), None)
                if found is not None:
                    return found
                changed.update(name for name in node.output if name)
        return None

    def unfed(self, address: Address) -> Untaken | None:
        """What may keep data from this node on which its fault would show; None for nothing."""
        if not self._untaken or not address:
            return self.hidden(address)
        start = self._nodes[int(address[0])]
        own = next(self._at(start, address), None)
        if own is not None:
            return own
        return next(self._upstream(reads(start), reads), None)

    def _upstream(
        self, names: Iterable[str], onward: Callable[[onnx.NodeProto], Iterable[str]]
    ) -> Iterator[Untaken]:
        """What was never taken of the sides that pass data on, of all nodes behind these values."""
        waiting, seen = list(names), set[str]()
        while waiting:
            name = waiting.pop()
            node = self._producers.get(name)
            if name in seen or node is None:
                continue
            seen.add(name)
            for each in self._of(node):
                if each.side in each.decision.passes:
                    yield each
            waiting += onward(node)

    def _of(self, node: onnx.NodeProto) -> Iterator[Untaken]:
        for name in node.output:
            yield from self._untaken.get(name, ())

    def _at(self, node: onnx.NodeProto, address: Address) -> Iterator[Untaken]:
        """What was never taken of the node at fault itself; of an If only the branch it is in."""
        if len(address) > 1 and node.op_type == "If":
            side = int(address[1] == "then_branch")
            yield from self._chosen(node, {side})
        else:
            yield from self._of(node)

    def _passing(self, node: onnx.NodeProto, changed: set[str]) -> Iterator[Untaken]:
        """What was never taken of the sides that let a change through a node."""
        if node.op_type in {"Where", "If"}:
            yield from self._chosen(node, _sides_read(node, changed))
            return
        inputs = list(node.input)
        for each in self._of(node):
            sides = set(each.decision.passes)
            if node.op_type in {"Max", "Min"} and len(changed & set(inputs)) == 1:
                first = inputs[0] in changed
                sides = {int(first == (node.op_type == "Max"))}
            if each.side in sides:
                yield each
        if node.op_type in {"Mul", "And"}:
            for name in inputs:
                if name not in changed:
                    yield from self._mask(name)

    def _chosen(self, node: onnx.NodeProto, sides: set[int]) -> Iterator[Untaken]:
        """What was never taken of a Where or If, of these: 1 where its condition is true."""
        for each in self._of(node):
            if each.side in sides:
                yield each
        for each in self._untaken.get(node.input[0], ()):
            turned = each.decision.op.startswith("Less")
            if (each.side ^ int(turned)) in sides:
                yield each

    def _mask(self, name: str) -> Iterator[Untaken]:
        """What was never taken of the decisions that a mask is made of."""

        def carry(node: onnx.NodeProto) -> Iterable[str]:
            return node.input if node.op_type in _CARRY else ()

        yield from self._upstream([name], carry)


def _sides_read(node: onnx.NodeProto, changed: set[str]) -> set[int]:
    """The sides on which a Where or If uses what has changed."""
    if node.input[0] in changed:
        return {0, 1}
    if node.op_type == "Where":
        return {side for side, name in ((1, node.input[1]), (0, node.input[2])) if name in changed}
    return {
        int(attribute.name == "then_branch")
        for attribute in node.attribute
        if any(changed & set(reads(inner)) for inner in attribute.g.node)
        or changed & {info.name for info in attribute.g.output}
    }
