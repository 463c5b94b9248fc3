"""The schema of a file: what in a model no reader can make out."""

from __future__ import annotations

import graphlib
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.onnx_files import leads_out, locations, reading, tensors
from torch2mobile.onnx_graph import subgraphs, walk

if TYPE_CHECKING:
    import onnx

# With functions written out: several times what the largest models have.
MOST_NODES = 200_000


@dataclass(frozen=True)
class Problem:
    """One thing that ONNX does not allow, with the node it is in, if it is in one."""

    text: str
    node: str = ""
    op: str = ""


def problems(model: onnx.ModelProto, folder: Path) -> list[Problem]:
    """What no reader of this model can make out; ``folder`` is where its external data lies."""
    found = [Problem(text) for text in (*_imports(model), *_functions(model))]
    found += _graph(model.graph, folder)
    for function in model.functions:
        found += [problem for node in function.node for problem in _node(node, folder)]
    return list(dict.fromkeys(found))


def _imports(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        if not 1 <= entry.version < 2**31:
            yield f"opset {entry.version} of {entry.domain or 'ai.onnx'} is no version of operators"


def _functions(model: onnx.ModelProto) -> Iterator[str]:
    """Functions that no reader can write out: a few that call each other may be 2^60 nodes."""
    functions = {(each.domain, each.name, each.overload): each for each in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}
    graph = graphlib.TopologicalSorter(
        {key: [_key(n) for _, n in walk(each)] for key, each in functions.items()}
    )
    try:
        order = [key for key in graph.static_order() if key in functions]
    except graphlib.CycleError as error:
        yield f"the function {error.args[1][0][1]} calls itself"
        return
    for key in order:
        sizes[key] = sum(sizes.get(_key(node), 1) for _, node in walk(functions[key]))
    total = sum(sizes.get(_key(node), 1) for _, node in walk(model.graph))
    if functions and total > MOST_NODES:
        count = f"{total:,}" if total < 10**9 else f"some 2^{total.bit_length() - 1}"
        yield f"its functions, written out, are {count} nodes: at most {MOST_NODES:,} are looked at"


def _key(node: onnx.NodeProto) -> tuple[str, str, str]:
    return node.domain, node.op_type, node.overload


def _graph(graph: onnx.GraphProto, folder: Path) -> Iterator[Problem]:
    for value in (*graph.input, *graph.output, *graph.value_info):
        for text in _type(value.type):
            yield Problem(f"the value {value.name!r} {text}")
    sparse = [part for each in graph.sparse_initializer for part in (each.values, each.indices)]
    for tensor in (*graph.initializer, *sparse):
        for text in _tensor(tensor, folder):
            yield Problem(f"the weight {tensor.name!r} {text}")
    for node in graph.node:
        yield from _node(node, folder)


def _node(node: onnx.NodeProto, folder: Path) -> Iterator[Problem]:
    label = node.name or next(iter(node.output), "")
    for text in _attributes(node, folder):
        yield Problem(f"{node.op_type}: {text}", label, node.op_type)
    if node.op_type == "Constant" and len(node.output) != 1:
        yield Problem(f"Constant has {len(node.output)} outputs, and needs 1", label, node.op_type)
    for _, graph in subgraphs(node):
        yield from _graph(graph, folder)


def _attributes(node: onnx.NodeProto, folder: Path) -> Iterator[str]:
    import onnx

    counted = Counter(attribute.name for attribute in node.attribute)
    yield from (f"the attribute {name} is there twice" for name, n in counted.items() if n > 1)
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            continue
        if attribute.type not in onnx.AttributeProto.AttributeType.values() or not attribute.type:
            yield f"the attribute {attribute.name} is of no type that there is"
            continue
        if attribute.type == onnx.AttributeProto.STRING:
            yield from _utf8(attribute.name, attribute.s)
        for kind in (attribute.tp, *attribute.type_protos):
            yield from (f"the attribute {attribute.name} {text}" for text in _type(kind))
        for tensor in _own_tensors(attribute):
            yield from (
                f"the attribute {attribute.name} {text}" for text in _tensor(tensor, folder)
            )


def _own_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    """Those of the attribute itself, and not of a subgraph."""
    import onnx

    if attribute.type == onnx.AttributeProto.TENSOR:
        yield attribute.t
    yield from attribute.tensors
    for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
        yield from (part for part in (sparse.values, sparse.indices) if part.ByteSize())


def _utf8(name: str, raw: bytes) -> Iterator[str]:
    try:
        raw.decode()
    except UnicodeDecodeError:
        yield f"the attribute {name} is a text that is no UTF-8"


def _type(kind: onnx.TypeProto) -> Iterator[str]:
    """What is wrong with a type, those inside of it included."""
    import onnx

    which = kind.WhichOneof("value")
    if which in {"tensor_type", "sparse_tensor_type"}:
        tensor = getattr(kind, which)
        if tensor.elem_type not in onnx.TensorProto.DataType.values():
            yield f"is of the element type {tensor.elem_type}, which there is not"
        yield from (
            f"has a dimension of {dim.dim_value}"
            for dim in tensor.shape.dim
            if dim.HasField("dim_value") and dim.dim_value < 0
        )
    elif which in {"sequence_type", "optional_type"}:
        yield from _type(getattr(kind, which).elem_type)
    elif which == "map_type":
        yield from _type(kind.map_type.value_type)


def _tensor(tensor: onnx.TensorProto, folder: Path) -> Iterator[str]:
    import onnx

    if tensor.data_type not in onnx.TensorProto.DataType.values() or not tensor.data_type:
        yield f"is of the element type {tensor.data_type}, which there is not"
        return
    negative = [dim for dim in tensor.dims if dim < 0]
    if negative:
        yield f"has a dimension of {negative[0]}"
        return
    if external(tensor):
        yield from _beside(tensor, folder)
    elif tensor.HasField("raw_data"):
        size, wanted = len(tensor.raw_data), bytes_of(tensor)
        if size != wanted:
            yield f"has {size:,} bytes of values, and its type and size need {wanted:,}"
    else:
        try:
            onnx.numpy_helper.to_array(tensor)
        except Exception:  # noqa: BLE001 (numpy and onnx raise many kinds)
            yield f"has not the values that its size needs: {math.prod(tensor.dims):,}"


def _beside(tensor: onnx.TensorProto, folder: Path) -> Iterator[str]:
    """What is wrong with values that are in a file of their own."""
    named = locations(tensor)
    if len(named) != 1:
        yield "has its values in another file, and does not say in which"
        return
    if leads_out(folder, named[0]):
        yield f"has its values in {named[0]!r}, which leads out of the model's folder"
        return
    given = {entry.key: entry.value for entry in tensor.external_data}
    texts = [given[key] for key in ("offset", "length") if key in given]
    # More digits are no place in a file; int() has a limit of its own.
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in texts):
        yield f"has its values in {named[0]!r} at a place that is no number"
        return
    wanted, start = bytes_of(tensor), int(given.get("offset", "0"))
    size = int(given.get("length", wanted))
    try:
        there = (folder / named[0]).stat().st_size if (folder / named[0]).is_file() else None
    except OSError:
        there = None
    if there is None:
        yield f"has its values in {named[0]!r}, and there is no such file beside the model"
    elif size != wanted:
        yield f"has {size:,} bytes of values, and its type and size need {wanted:,}"
    elif start + size > there:
        yield f"has its values at {start:,} to {start + size:,} in {named[0]!r} of {there:,} bytes"


def load_small(model: onnx.ModelProto, folder: Path, most: int) -> None:
    """Take tensors of at most so many elements into a sound model: axes, pads and sizes."""
    for tensor in tensors(model):
        if external(tensor) and math.prod(tensor.dims) <= most:
            place = folder / locations(tensor)[0]
            start = next((int(e.value) for e in tensor.external_data if e.key == "offset"), 0)
            with reading(place), place.open("rb") as file:
                file.seek(start)
                tensor.raw_data = file.read(bytes_of(tensor))
            tensor.ClearField("data_location")
            del tensor.external_data[:]


# Bits of an element where they are less than those of the numpy type that holds it.
_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


def external(tensor: onnx.TensorProto) -> bool:
    """Whether its values are in a file of their own."""
    return bool(tensor.HasField("data_location") and tensor.data_location == tensor.EXTERNAL)


def bytes_of(tensor: onnx.TensorProto) -> int:
    """What its values take in bytes, by type and size."""
    import onnx

    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    size: int = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    count: int = math.prod(tensor.dims)
    return -(-count * _BITS.get(name, 8 * size) // 8)
