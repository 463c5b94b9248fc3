"""The inside of ONNX Runtime's files: the same model, with the values of all nodes as outputs.

A copy is run where the file is, by what runs it there: on this machine, under an emulator, in Node.
"""

from __future__ import annotations

import graphlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch2mobile import onnx_files
from torch2mobile.exporter.targets import ort_canonical
from torch2mobile.exporter.targets.connected import INPUT, connected
from torch2mobile.onnx_graph import reads
from torch2mobile.records import Layer


@dataclass(frozen=True)
class Inside:
    """The nodes of a file, and the bytes of the one that gives their values besides its outputs."""

    layers: tuple[Layer, ...]
    data: bytes


def inside(path: Path) -> Inside:
    """What is in an .onnx or .ort file; its weights are in the copy, wherever they are kept."""
    return _of_ort(path) if onnx_files.is_ort(path) else _of_onnx(path)


def _of_onnx(path: Path) -> Inside:
    import onnx

    model = onnx_files.read_whole(path)
    graph = model.graph
    constant = {tensor.name for tensor in graph.initializer}
    nodes = [Layer(one.name, INPUT, (), (one.name,)) for one in graph.input]
    nodes = [one for one in nodes if one.name not in constant]
    nodes += [_layer(one.name, one.op_type, reads(one), one.output) for one in graph.node]
    outputs = [value.name for value in graph.output]
    layers = connected(nodes, outputs)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in _inner(layers, outputs))
    return Inside(layers, model.SerializeToString())


def _of_ort(path: Path) -> Inside:
    data = path.read_bytes()
    file = ort_canonical.parse(data)
    graph: Any = file.fields["Model"].fields["Graph"].fields  # type: ignore[union-attr]
    nodes = [Layer(name, INPUT, (), (name,)) for name in _texts(graph["Inputs"])]
    for one in graph["Nodes"]:
        told = one.fields
        name, kind = told.get("Name", b"").decode(), told["OpType"].decode()
        read = [*_texts(told.get("Inputs", ())), *_texts(told.get("ImplicitInputs", ()))]
        nodes.append(_layer(name, kind, read, _texts(told["Outputs"])))
    outputs = _texts(graph["Outputs"])
    layers = connected(_sorted(nodes), outputs)
    graph["Outputs"] += [name.encode() for name in _inner(layers, outputs)]
    return Inside(layers, bytes(ort_canonical.built(file, len(data))))


def _sorted(nodes: Sequence[Layer]) -> list[Layer]:
    """Each after those that it reads from: nodes that were fused stand at the end of an .ort."""
    makers = {name: one for one in nodes for name in one.outputs}
    above = {one: {makers[name] for name in one.inputs if name in makers} for one in nodes}
    return list(graphlib.TopologicalSorter(above).static_order())


def _texts(names: Any) -> list[str]:
    return [name.decode() for name in names]


def _layer(name: str, kind: str, read: Any, given: Any) -> Layer:
    given = tuple(filter(None, given))
    return Layer(name or given[0], kind, tuple(filter(None, read)), given, same_names=True)


def _inner(layers: tuple[Layer, ...], outputs: list[str]) -> Iterator[str]:
    """The values that are no outputs yet."""
    values = (name for one in layers if one.kind != INPUT for name in one.outputs)
    return (name for name in values if name not in outputs)
