"""How a graph falls into pieces between an accelerator and the CPU, and what would join them.

ONNX Runtime (``CreateSupportedPartitionNodeGroups``) hands out nodes in rounds: whatever is ready
goes into the current piece if the accelerator takes it, or is passed over if it does not; a node
that it does not take and that reads from the current piece waits for the next round. So a node's
round is the greatest over the nodes it reads from, plus one where it is not taken and that one is;
the pieces are the rounds that hold any node that is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch2mobile.onnx_graph import reads

Edges = Sequence[Sequence[int]]


def edges(nodes: Sequence[Any]) -> list[list[int]]:
    """For every NodeProto the numbers of those it reads from, by itself or in its subgraphs.

    The nodes must be in topological order, as ONNX demands.
    """
    made: dict[str, int] = {}
    found = []
    for number, node in enumerate(nodes):
        found.append(sorted({made[name] for name in reads(node) if name in made}))
        made.update((name, number) for name in node.output if name)
    return found


def rounds(sources: Edges, taken: Sequence[bool]) -> list[int]:
    """The round in which each node is handed out; see the module's text."""
    found: list[int] = []
    for number, read in enumerate(sources):
        waits = not taken[number]
        found.append(max((found[s] + (waits and taken[s]) for s in read), default=0))
    return found


def sizes(sources: Edges, taken: Sequence[bool]) -> list[int]:
    """The number of nodes in each piece that goes to the accelerator, in order."""
    counted: dict[int, int] = {}
    for number, when in enumerate(rounds(sources, taken)):
        if taken[number]:
            counted[when] = counted.get(when, 0) + 1
    return [counted[when] for when in sorted(counted)]


def between(sources: Edges, taken: Sequence[bool]) -> list[int]:
    """The smallest set of nodes that must be taken too for there to be one piece only.

    There is one piece if and only if no path leads from a taken node over others to a taken node.
    On such a path every node in between has to go: while one of them is left, it still has taken
    nodes before and after it. All such nodes are enough: a node outside has none before it, or none
    after it, and gets none. So the set is unique, and found by looking from both ends.
    """
    count = len(taken)
    before, after = [False] * count, [False] * count
    for number, read in enumerate(sources):
        before[number] = any(taken[s] or before[s] for s in read)
    for number in range(count - 1, -1, -1):
        for source in sources[number]:
            after[source] = after[source] or taken[number] or after[number]
    return [n for n in range(count) if not taken[n] and before[n] and after[n]]
