"""What is in an .onnx file or a bundle, and where a node of it comes from."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch2mobile import json_files, limits
from torch2mobile.errors import UsageError, some_of
from torch2mobile.exporter.bundle import MODEL, load_bundle
from torch2mobile.onnx_files import own_files, read_model
from torch2mobile.records import NodeOrigins, Origin, Provenance
from torch2mobile.reporters.printable import one_line


@dataclass(frozen=True)
class Inspection:
    """The contents of one .onnx: sizes in bytes, parameters in elements."""

    file: str
    opsets: dict[str, int]
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    nodes: int
    parameters: int
    bytes: int


def _model_path(path: Path) -> Path:
    return load_bundle(path).file(MODEL) if path.is_dir() else path


def _interface(values: Any) -> dict[str, str]:
    return {value.name: _shown(value.type) for value in values}


def _shown(kind: Any) -> str:
    """``float32[N,3]``, ``sequence(float32[N,3])``; a ``?`` for what the file does not say."""
    which = kind.WhichOneof("value") or ""
    if which in {"sequence_type", "optional_type"}:
        return f"{which.removesuffix('_type')}({_shown(getattr(kind, which).elem_type)})"
    if which == "map_type":
        return f"map({_element(kind.map_type.key_type)}, {_shown(kind.map_type.value_type)})"
    if which not in {"tensor_type", "sparse_tensor_type"}:
        return "?"
    tensor = getattr(kind, which)
    element = _element(tensor.elem_type)
    if not tensor.HasField("shape"):
        return f"{element}[...]"
    dims = [
        str(d.dim_param or (d.dim_value if d.HasField("dim_value") else "?"))
        for d in tensor.shape.dim
    ]
    return f"{element}[{','.join(dims)}]"


def _element(code: int) -> str:
    import onnx

    try:
        # object is numpy's word for a text
        name = onnx.helper.tensor_dtype_to_np_dtype(code).name
    except KeyError:
        return f"type {code}" if code else "?"
    return "string" if name == "object" else str(name)


def inspect(path: Path) -> Inspection:
    """Read an .onnx (or a bundle's); ModelFileError for what is no ONNX file."""
    file = _model_path(path)
    model: Any = read_model(file)
    weights = model.graph.initializer
    counted = Counter(
        f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
    )
    return Inspection(
        file=str(file),
        opsets={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        inputs=_interface(model.graph.input),
        outputs=_interface(model.graph.output),
        operators=dict(counted.most_common()),
        nodes=len(model.graph.node),
        parameters=sum(math.prod(tensor.dims) for tensor in weights),
        bytes=sum(each.stat().st_size for each in own_files(file)),
    )


def render(found: Inspection, form: str) -> str:
    """An inspection as text or JSON."""
    if form == "json":
        return json.dumps(asdict(found), indent=2)
    lines = [found.file]
    lines.append("  opset       " + ", ".join(f"{d} {v}" for d, v in found.opsets.items()))
    for label, values in (("inputs", found.inputs), ("outputs", found.outputs)):
        for number, (name, kind) in enumerate(values.items()):
            lines.append(f"  {label if number == 0 else '':<10}  {name}: {kind}")
    operators = ", ".join(f"{name} x{count}" for name, count in found.operators.items())
    lines.append(f"  operators   {found.nodes} nodes: {operators}")
    lines.append(f"  parameters  {found.parameters:,}")
    lines.append(f"  size        {found.bytes:,} bytes")
    return "\n".join(map(one_line, lines))


def provenance_of(folder: Path) -> tuple[NodeOrigins, ...]:
    """The nodes of a bundle's provenance.json; UsageError where it cannot be read."""
    file, remedy = folder / "provenance.json", "Export again."
    try:
        raw = limits.read_regular(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", remedy) from error
    return json_files.decode(raw, Provenance, name=str(file), remedy=remedy).nodes


def stored_model(path: Path) -> tuple[Any, dict[str, tuple[Origin, ...]]]:
    """The ModelProto of an .onnx file or a bundle, and a bundle's origins by value name.

    Raises BundleError, ModelFileError, or UsageError for a bundle without its provenance.json.
    """
    model = read_model(_model_path(path))
    if not path.is_dir():
        return model, {}
    origins = {name: entry.origins for entry in provenance_of(path) for name in entry.outputs}
    return model, origins


def origins_of(path: Path, node: str) -> list[dict[str, Any]]:
    """Where a node (by its name, or a value it gives) comes from, from a bundle's provenance.

    Raises UsageError where there is no provenance, or no such node.
    """
    if not path.is_dir():
        raise UsageError(
            f"{path} is no bundle: a shipped .onnx does not say where its nodes come from",
            "Give the bundle's folder; its provenance.json does.",
        )
    load_bundle(path)
    entries = provenance_of(path)
    rows = [
        {
            "node": entry.node,
            "op": entry.op,
            "module": ", ".join(origin.modules) or "(root)",
            "line": f"{origin.file}:{origin.line}"
            + (f", called at {origin.caller}:{origin.caller_line}" if origin.caller else ""),
            "code": origin.code,
        }
        for entry in entries
        if node == entry.node or node in entry.outputs
        for origin in entry.origins
    ]
    if not rows:
        import difflib

        names = [entry.node for entry in entries]
        near = [name for name in names if node in name] or difflib.get_close_matches(node, names)
        raise UsageError(
            f"there is no node {node!r}",
            f"{'Near it are' if near else 'There is'}: {some_of(near or names, 5)}.",
        )
    return rows
