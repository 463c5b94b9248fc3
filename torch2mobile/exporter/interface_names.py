"""The user's names in the exporter's graph: inputs, outputs, weights and sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from torch2mobile.errors import TranslateError
from torch2mobile.records import Capture

_SYMBOL = re.compile(r"\b[su]\d+\b")


def name_interface(model: ir.Model, capture: Capture) -> None:
    """Give inputs and outputs the user's names, weights the module's, all in the user's order."""
    graph = model.graph
    if len(graph.inputs) != len(capture.inputs) or len(graph.outputs) != len(capture.outputs):
        raise TranslateError(
            f"the exporter wrote {len(graph.inputs)} inputs and {len(graph.outputs)} outputs for a "
            f"module with {len(capture.inputs)} and {len(capture.outputs)}",
            "An input that is used by nothing, or an output that is no tensor, may be the cause.",
        )
    _separate_outputs(graph)
    _name_inner(graph, {spec.name for spec in capture.inputs} | set(capture.outputs))
    # Two rounds, since a user's name may be the exporter's name of another value.
    for number, value in enumerate([*graph.inputs, *graph.outputs]):
        value.name = f"torch2mobile_interface_{number}"
    for value, name in zip(
        [*graph.inputs, *graph.outputs],
        [*(spec.name for spec in capture.inputs), *capture.outputs],
        strict=True,
    ):
        value.name = name


def _name_inner(graph: ir.Graph, taken: set[str]) -> None:
    """Weights by the module's names, and every inner value by one that no other value has."""
    interface = {*graph.inputs, *graph.outputs}
    for value in list(values(graph)):
        if value in interface:
            continue
        name = str(value.name)
        owner = value.graph if value.is_initializer() else None
        if owner is not None:
            name = name.removeprefix("inner.")
        while name in taken:
            name += "_value"
        taken.add(name)
        if name != value.name and isinstance(owner, ir.Graph):
            del owner.initializers[str(value.name)]
            value.name = name
            owner.initializers[name] = value
        else:
            value.name = name


def values(graph: ir.Graph) -> Iterator[ir.Value]:
    """Every value of the graph and its subgraphs; weights come before what is computed."""
    for scope in (graph, *graph.subgraphs()):
        yield from scope.inputs
        yield from list(scope.initializers.values())
    for node in graph.all_nodes():
        yield from node.outputs


def _separate_outputs(graph: ir.Graph) -> None:
    """An output that is an input, a weight or another output as well needs a value of its own."""
    seen: set[int] = set()
    for index, value in enumerate(list(graph.outputs)):
        if value.producer() is None or id(value) in seen:
            node = ir.Node("", "Identity", [value], name=f"node_output_{index}")
            copy = node.outputs[0]
            copy.shape, copy.type = value.shape, value.type
            graph.append(node)
            graph.outputs[index] = copy
        seen.add(id(value))


def name_dims(model: ir.Model, capture: Capture) -> None:
    """Put the user's symbol names back in place of torch.export's ``s31`` and the like."""
    for value in values(model.graph):
        if value.shape is None:
            continue
        shape = []
        for dim in value.shape:
            text = dim.value if isinstance(dim, ir.SymbolicDim) else dim
            shape.append(_label(text, capture.symbols) if isinstance(text, str) else text)
        value.shape = ir.Shape(shape)
    for value, spec in zip(model.graph.inputs, capture.inputs, strict=True):
        value.shape = ir.Shape([dim.label for dim in spec.dims])


def _label(text: str, symbols: Any) -> str:
    if text in symbols:
        return str(symbols[text]).strip("()")
    return _SYMBOL.sub(lambda match: str(symbols.get(match.group(0), match.group(0))), text)
