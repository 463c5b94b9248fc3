"""Where every ONNX value comes from: module paths, source file and line, also after rewriting.

torch.onnx writes this into the nodes' metadata, source lines and absolute paths included. Here it
is taken out of the model, so that the shipped file has none, and kept by value name beside it.
"""

from __future__ import annotations

import ast
import contextlib
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch2mobile import user_code
from torch2mobile.onnx_graph import Scope
from torch2mobile.records import Location, NodeOrigins, Origin, Provenance

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir
    import torch

Origins = Mapping[str, tuple[Origin, ...]]
_PREFIX = "pkg.torch.onnx."
# Their other inputs are sizes and axes.
_SHAPED = {"Reshape", "Expand", "Squeeze", "Unsqueeze", "Slice", "Split"}


def _origin(node: ir.Node) -> Origin | None:
    scopes_text = node.metadata_props.get(_PREFIX + "name_scopes")
    trace = node.metadata_props.get(_PREFIX + "stack_trace", "")
    if scopes_text is None and not trace:
        return None
    try:
        scopes = [str(scope) for scope in ast.literal_eval(scopes_text or "[]")]
    except (ValueError, SyntaxError):
        scopes = []
    # The last entry is the FX node itself; "inner" is the flat signature's own level.
    path = user_code.module_path(scopes[-2]) if len(scopes) > 1 else ""
    where = user_code.from_trace_text(trace)
    if where is None and path.startswith("_empty_nn_module_stack"):
        return None  # torch put the node in by itself, to read a size
    where = where or Location()
    return Origin((path,), where.file, where.line, where.code, where.caller, where.caller_line)


def collect(model: ir.Model) -> dict[str, tuple[Origin, ...]]:
    """The origin of every node's outputs, by value name; nodes without one take their inputs'."""
    origins: dict[str, tuple[Origin, ...]] = {}
    pending: list[ir.Node] = []
    for node in model.graph.all_nodes():
        found = _origin(node)
        for value in node.outputs:
            if value.name and found:
                origins[value.name] = (found,)
        if not found:
            pending.append(node)
    for node in pending:
        near = [v.name for v in node.inputs if v is not None and v.name]
        near += [u.node.outputs[0].name or "" for v in node.outputs for u in v.uses()]
        merged = merge([origins.get(name, ()) for name in near])
        for value in node.outputs:
            if value.name and merged:
                origins[value.name] = merged
    return origins


def restore(model: ir.Model, program: torch.export.ExportedProgram) -> None:
    """Give nodes their metadata back where a conversion to another opset has dropped it.

    ONNX values are named after the FX nodes they come from.
    """
    nodes = list(model.graph.all_nodes())
    if any(_PREFIX + "name_scopes" in node.metadata_props for node in nodes):
        return
    from torch2mobile.tensors import quiet

    with quiet():
        graphs = [program.graph, program.run_decompositions().graph]
    known = {fx.name: fx for graph in graphs for fx in graph.nodes if fx.meta.get("stack_trace")}
    for node in nodes:
        fx = next((known[str(v.name)] for v in node.outputs if v.name in known), None)
        if fx is not None:
            stack = fx.meta.get("nn_module_stack") or {}
            scopes = [str(path).removeprefix("L['self'].") for path, _ in stack.values()]
            node.metadata_props[_PREFIX + "name_scopes"] = repr([*scopes, fx.name])
            node.metadata_props[_PREFIX + "stack_trace"] = fx.meta["stack_trace"]


def complete(
    model: ir.Model, root: torch.nn.Module, origins: Origins
) -> dict[str, tuple[Origin, ...]]:
    """The origins, with the module's own forward for what has none, such as a copied input."""
    where = _nearest_forward(root, "")
    whole = (Origin(("",), where.file, where.line, where.code),)
    names = [v.name for node in model.graph.all_nodes() for v in node.outputs if v.name]
    return {name: origins.get(name) or whole for name in names}


def from_names(model: ir.Model, root: torch.nn.Module) -> dict[str, tuple[Origin, ...]]:
    """The origins of a traced model's values, from node names such as ``/inner/head/Conv``.

    A trace keeps no source lines: the line is where the module's own ``forward`` begins.
    """
    origins: dict[str, tuple[Origin, ...]] = {}
    for node in model.graph.all_nodes():
        path = user_code.module_path(".".join((node.name or "").split("/")[1:-1]))
        where = _nearest_forward(root, path)
        for value in node.outputs:
            if value.name:
                origins[value.name] = (Origin((path,), where.file, where.line, where.code),)
    return origins


def _nearest_forward(root: torch.nn.Module, path: str) -> Location:
    """The forward of the user's own module that holds this path; torch's layers are skipped."""
    parts = path.split(".") if path else []
    for length in range(len(parts), -1, -1):
        # A scripted module has no Python source any more, and a name may not be a module's.
        with contextlib.suppress(AttributeError, OSError, TypeError, RuntimeError):
            forward = type(root.get_submodule(".".join(parts[:length]))).forward
            found = user_code.function(forward)
            if found is not None:
                return user_code.location(found.file, found.tree.lineno)
    return Location()


def merge(groups: Sequence[tuple[Origin, ...]]) -> tuple[Origin, ...]:
    """All origins of several groups, each once, in order."""
    return tuple(dict.fromkeys(origin for group in groups for origin in group))


def strip(model: ir.Model) -> None:
    """Remove everything about the build machine and the source from the model itself."""
    model.metadata_props.clear()
    model.doc_string = None
    graphs = [model.graph, *[function.graph for function in model.functions.values()]]
    for graph in [inner for outer in graphs for inner in (outer, *outer.subgraphs())]:
        graph.metadata_props.clear()
        graph.doc_string = None
        for node in graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
                value.doc_string = None
        for value in [*graph.inputs, *graph.initializers.values()]:
            value.metadata_props.clear()
            value.doc_string = None


def strip_proto(model: onnx.ModelProto) -> None:
    """The same for a ModelProto (of a simplifier or of the TorchScript exporter)."""
    _strip_message(model)


def _strip_message(message: Any) -> None:
    """Whatever the message holds, subgraphs and functions included, loses its notes."""
    for note in ("doc_string", "metadata_props"):
        if note in message.DESCRIPTOR.fields_by_name:
            message.ClearField(note)
    for _, value in message.ListFields():
        if hasattr(value, "ListFields"):
            _strip_message(value)
        elif isinstance(value, Sequence) and value and hasattr(value[0], "ListFields"):
            for item in value:
                _strip_message(item)


def carry(
    before: onnx.ModelProto, after: onnx.ModelProto, origins: Origins
) -> dict[str, tuple[Origin, ...]]:
    """The origins of a rewritten model's values, by names that survived and by what was fused.

    A node whose output kept its name stands for all nodes of the old graph between that output
    and the next values that are still there: those it replaced. A value with a new name gets the
    origins of the nearest old values around it.
    """
    producers, now = Scope(before.graph).producers, Scope(after.graph)
    result: dict[str, tuple[Origin, ...]] = {}
    for node in after.graph.node:
        for name in node.output:
            if name in producers:
                result[name] = _span(name, now.producers, producers, origins)
    for name in now.producers:
        if not result.get(name):
            result[name] = _nearest(name, now, result)
    return {name: found for name, found in result.items() if found}


def _span(
    output: str, stops: Container[str], producers: Mapping[str, onnx.NodeProto], origins: Origins
) -> tuple[Origin, ...]:
    groups: list[tuple[Origin, ...]] = []
    queue, seen = [output], {output}
    while queue:
        name = queue.pop(0)
        groups.append(origins.get(name, ()))
        node = producers[name]
        # Where a shape was computed is no origin of what takes that shape.
        shaped = node.op_type in _SHAPED and not node.domain
        for source in node.input[:1] if shaped else node.input:
            if source in producers and source not in stops and source not in seen:
                seen.add(source)
                queue.append(source)
    return merge(groups)


def _nearest(name: str, scope: Scope, known: Origins) -> tuple[Origin, ...]:
    """The origins of the nearest values with any, first downstream, then upstream."""

    def downstream(value: str) -> list[str]:
        return [out for node in scope.uses.get(value, []) for out in node.output]

    def upstream(value: str) -> list[str]:
        return list(scope.producers[value].input) if value in scope.producers else []

    for step in (downstream, upstream):
        queue, seen = [name], {name}
        while queue:
            current = queue.pop(0)
            if known.get(current):
                return known[current]
            fresh = [value for value in step(current) if value and value not in seen]
            seen.update(fresh)
            queue += fresh
    return ()


def to_json(model: onnx.ModelProto, origins: Origins) -> str:
    """``provenance.json``: for every node its output values, operator and origins."""
    nodes = tuple(
        NodeOrigins(
            node.name,
            node.op_type,
            tuple(node.output),
            merge([origins.get(name, ()) for name in node.output]),
        )
        for node in model.graph.node
    )
    # Most lines are the user's own, and have no caller.
    tree = asdict(Provenance(1, nodes), dict_factory=lambda pairs: dict(filter(_told, pairs)))
    return json.dumps(tree, indent=1) + "\n"


def _told(pair: tuple[str, object]) -> bool:
    return bool(pair[1]) or not pair[0].startswith("caller")
