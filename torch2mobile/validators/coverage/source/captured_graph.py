"""What the captured graph shows: dtypes, randomness, batch statistics, inputs that it ignores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from torch2mobile import sampling, user_code
from torch2mobile.records import Capture, Finding, InputSpec, Location, Severity
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.source import operations, syntax
from torch2mobile.validators.coverage.source.sightings import Observation

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Below these an operator gives NaN; the second number is where it does above.
_DOMAINS = {
    **dict.fromkeys(("sqrt", "rsqrt", "log", "log2", "log10"), (0.0, math.inf)),
    "log1p": (-1.0, math.inf),
    **dict.fromkeys(("acos", "asin", "atanh"), (-1.0, 1.0)),
    "acosh": (1.0, math.inf),
}
Given = list[tuple[str, InputSpec]]
"""The inputs that the graph takes from its caller, by the names that it has for them."""
_SHAPING = {"view", "reshape", "permute", "transpose", "squeeze", "unsqueeze", "flatten", "slice"}


def look(capture: Capture, program: ExportedProgram, seen: Observation) -> list[Finding]:
    """The findings of the graph, one of a rule at a place."""
    places: dict[tuple[object, ...], Finding] = {}
    given = _user_inputs(capture, program)
    found = (*_outputs(program), *_operators(program, given))
    for finding in (*found, *_inputs(capture, program, given, seen)):
        where = finding.location
        # Without a line, the module's path is the place.
        place = (where.file, where.line) if where.line else (where.module, where.op)
        places.setdefault((finding.code, *place), finding)
    return list(places.values())


def nodes(program: ExportedProgram) -> Iterator[Node]:
    """All nodes of a captured graph, those of its subgraphs included."""
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule):
            yield from module.graph.nodes


def _operators(program: ExportedProgram, given: Given) -> Iterator[Finding]:
    for node in nodes(program):
        if node.op == "call_function":
            where = user_code.of_node(node)
            for code, message in operations.found(
                node.target, node.args, node.kwargs, tree_leaves(node.meta.get("val"))
            ):
                yield RULES[code].found(where, message)
            yield from _domain(given, node, where)


def _outputs(program: ExportedProgram) -> Iterator[Finding]:
    """Complex numbers inside may become real ones; an output has no such type."""
    names = set(program.graph_signature.user_outputs)
    for node in program.graph.nodes:
        if node.name in names and any(dtype.is_complex for dtype in dtypes_of(node)):
            yield RULES["T2M111"].found(
                user_code.of_node(node),
                "an output is complex, and those of a file are real",
                severity=Severity.ERROR,
                remedy="Return torch.view_as_real(y), or its real and imaginary part.",
            )


def dtypes_of(node: Node) -> set[torch.dtype]:
    """The dtypes of what a node gives."""
    value = node.meta.get("val")
    found = value if isinstance(value, tuple | list) else [value]
    return {v.dtype for v in found if isinstance(v, torch.Tensor)}


def _name(node: Node) -> str:
    name: str = getattr(node.target, "__name__", str(node.target))
    return name.partition(".")[0]


def _inputs(
    capture: Capture, program: ExportedProgram, given: Given, seen: Observation
) -> Iterator[Finding]:
    """Inputs that nothing in the graph reads: never used, or fixed while exporting."""
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    forward = user_code.function(type(capture.loaded.module).forward)
    for name, spec in given:
        if nodes[name].users:
            continue
        lines = sorted(seen.uses.get(spec.name, ()))
        if forward and not lines:  # it stands in a branch that the call did not take, perhaps
            found = syntax.lines_reading(forward.tree, spec.name)
            lines = [(forward.file, line) for line in sorted(found)]
        for file, line in lines:
            where = user_code.location(file, line)
            yield RULES["T2M151"].found(where, f"the input {spec.name} is read here, yet fixed")
        if not lines:
            first = user_code.location(forward.file, forward.tree.lineno) if forward else None
            yield RULES["T2M150"].found(
                first or Location(), f"the input {spec.name} has no effect on any output"
            )


def _user_inputs(capture: Capture, program: ExportedProgram) -> Given:
    names = [str(name) for name in program.graph_signature.user_inputs]
    specs = capture.inputs
    return list(zip(names, specs, strict=True)) if len(names) == len(specs) else []


def lasting(program: ExportedProgram) -> set[str]:
    """The last names of buffers whose values reach an output."""
    buffers = program.graph_signature.inputs_to_buffers
    found = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in buffers and _reaches_output(node):
            found.add(buffers[node.name].rpartition(".")[2])
    return found


def _reaches_output(node: Node) -> bool:
    seen: set[Node] = set()
    queue = [node]
    while queue:
        current = queue.pop()
        if current.op == "output":
            return True
        fresh = [user for user in current.users if user not in seen]
        seen.update(fresh)
        queue += fresh
    return False


def _domain(given: Given, node: Node, where: Location) -> Iterator[Finding]:
    """An operator that is NaN for values that the input, as declared, may have."""
    bounds = _DOMAINS.get(_name(node))
    source = node.args[0] if node.args else None
    while isinstance(source, Node) and _name(source) in _SHAPING and source.args:
        source = source.args[0]
    if bounds is None or not isinstance(source, Node) or source.op != "placeholder":
        return
    spec = dict(given).get(source.name)
    if spec is None or spec.dtype == "bool" or spec.dtype.startswith("uint"):
        return
    low, high = -math.inf, math.inf
    if spec.values is not None and spec.values.kind != "normal":
        low, high = sampling.promised(spec) or (low, high)
    if low < bounds[0] or high > bounds[1]:
        declared = "declared" if spec.values else "not declared"
        yield RULES["T2M132"].found(
            where, f"{_name(node)} is NaN where {spec.name} is out of range ({declared})"
        )
