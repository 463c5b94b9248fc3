"""The inside of a .pte: the same program and weights, with every value as an output.

Its memory is planned anew, without places that values share, so that each outlives the run. What
XNNPACK computes is a graph of its own within the file, whose values become outputs as well.
"""

from __future__ import annotations

import importlib.util
import math
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch2mobile.exporter.targets.connected import INPUT, connected
from torch2mobile.records import Layer

_XNNPACK, _GRAPH = "XnnpackBackend", b"XN01"
# XNNPACK's flag of a value that its caller reads.
_EXTERNAL_OUTPUT = 2
# Enough for a number of any dtype, and for any alignment; XNNPACK reads a little behind the end.
_BYTES, _ALIGNED = 8, 128


@dataclass(frozen=True)
class Inside:
    """The operators of a program, and the .pte whose outputs are the values of these names."""

    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    data: bytes


def inside(path: Path) -> Inside:
    """The method ``forward`` of a .pte; no layers where it branches."""
    from executorch.exir import schema
    from executorch.exir._serialize._program import deserialize_pte_binary, serialize_pte_binary

    file = deserialize_pte_binary(path.read_bytes())
    (plan,) = (each for each in file.program.execution_plan if each.name == "forward")
    steps = [step.instr_args for step in plan.chains[0].instructions]
    if any(isinstance(step, schema.JumpFalseCall) for step in steps):
        return Inside((), (), b"")
    layers = connected(_operators(file.program, plan, steps), {str(one) for one in plan.outputs})
    names = tuple(name for layer in layers for name in layer.outputs)
    plan.outputs = [int(name) for name in names]
    _plan_memory(plan)
    data = bytes(serialize_pte_binary(file, extract_delegate_segments=True))
    return Inside(layers, names, data)


def _operators(program: Any, plan: Any, steps: Iterable[Any]) -> Iterator[Layer]:
    """All operators in order; of the program's own, outputs are among what they take."""
    from executorch.exir import schema

    for at, number in enumerate(plan.inputs):
        if isinstance(plan.values[number].val, schema.Tensor):
            yield Layer(f"in{at}", INPUT, (), (str(number),))
    for at, step in enumerate(steps):
        if isinstance(step, schema.KernelCall):
            names = tuple(_tensors(plan, step.args))
            operator = plan.operators[step.op_index]
            yield Layer(str(at), operator.name, names, names)
        elif isinstance(step, schema.DelegateCall):
            delegate = plan.delegates[step.delegate_index]
            if delegate.id == _XNNPACK:
                yield from _delegated(program, plan, step, str(at))
            else:
                names = tuple(_tensors(plan, step.args))
                yield Layer(str(at), delegate.id, names, names)


def _tensors(plan: Any, numbers: Iterable[int]) -> Iterator[str]:
    """The names of the values among arguments that the run makes."""
    from executorch.exir import schema

    for number in numbers:
        value = plan.values[number].val
        if isinstance(value, schema.TensorList | schema.OptionalTensorList):
            yield from _tensors(plan, (one for one in value.items if one >= 0))
        elif (
            isinstance(value, schema.Tensor) and value.allocation_info and not value.data_buffer_idx
        ):
            yield str(number)


def _delegated(program: Any, plan: Any, call: Any, at: str) -> Iterator[Layer]:
    """The operators of a graph of XNNPACK's, whose values become arguments of its call."""
    classes = _graph_classes()
    kept = program.backend_delegate_data[plan.delegates[call.delegate_index].processed.index]
    graph, constants = _unpacked(kept.data, classes)
    made = {number for node in graph.xnodes for number in _ids(node, given=True)}
    names: dict[int, str] = {}
    added = []
    for one in graph.xvalues:
        value = getattr(one.xvalueUnion, "tensorValue", one.xvalueUnion)
        plain = value.datatype == classes.XNNDatatype.xnn_datatype_fp32
        if plain and value.flags == 0 and value.idOut in made:
            value.externalId, value.flags = len(call.args), _EXTERNAL_OUTPUT
            added.append(value.idOut)
            call.args.append(len(plan.values))
            plan.values.append(_value(value.dims))
        if value.flags:
            names[value.idOut] = str(call.args[value.externalId])
    graph.numExterns, graph.outputIds = len(call.args), [*graph.outputIds, *added]
    kinds = {number: kind for kind, number in vars(classes.XNodeUnion).items()}
    for place, node in enumerate(graph.xnodes):
        read, given = (
            tuple(names[number] for number in _ids(node, given=which) if number in names)
            for which in (False, True)
        )
        kind = kinds[node.xnodeUnionType]
        yield Layer(f"{at}.{place}", kind, read, given, channels_last=True)
    kept.data = _packed(graph, constants)


def _ids(node: Any, *, given: bool) -> list[int]:
    """The values that an operator of XNNPACK's gives, or those that it takes."""
    return [
        number
        for field, number in vars(node.xnodeUnion).items()
        if field.endswith("Id") and field.startswith("output") is given
    ]


def _graph_classes() -> Any:
    """XNNPACK's graphs as classes, which ExecuTorch's own tool writes of the schema."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as xnnpack
    from executorch.exir._serialize import _flatbuffer

    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as name:
        schema = Path(name) / "graph.fbs"
        schema.write_bytes(xnnpack._get_schema_bytes())
        made = ["--python", "--gen-object-api", "--gen-onefile", "-o", name, str(schema)]
        _flatbuffer._run_flatc(made)
        (module,) = Path(name).rglob("*_generated.py")
        # A union's function is defined and called in two spellings.
        code = re.sub(r"\w+Creator\b", lambda found: found[0].lower(), module.read_text())
        module.write_text(code)
        spec = importlib.util.spec_from_file_location("torch2mobile_xnnpack_graph", module)
        assert spec is not None
        assert spec.loader is not None
        classes = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(classes)
    return classes


def _unpacked(data: bytes, classes: Any) -> tuple[Any, bytes]:
    """A graph of XNNPACK's, and the weights behind it."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    told = XNNHeader.from_bytes(data[: XNNHeader.EXPECTED_LENGTH])
    graph = data[told.flatbuffer_offset :][: told.flatbuffer_size]
    constants = data[told.constant_data_offset :][: told.constant_data_size]
    return classes.XNNGraphT.InitFromPackedBuf(graph), constants


def _packed(graph: Any, constants: bytes) -> bytes:
    import flatbuffers  # type: ignore[import-untyped]
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    builder = flatbuffers.Builder()
    builder.Finish(graph.Pack(builder), _GRAPH)
    packed = bytes(builder.Output())
    start, end = _ALIGNED, _ALIGNED + -(-len(packed) // _ALIGNED) * _ALIGNED
    header: bytes = XNNHeader(start, len(packed), end, len(constants)).to_bytes()
    return header.ljust(start, b"\0") + packed.ljust(end - start, b"\0") + constants


def _value(dims: Iterable[int]) -> Any:
    """A tensor of float32 at most so large, whose place :func:`_plan_memory` gives."""
    from executorch.exir import schema

    sizes = [int(size) for size in dims]
    return schema.EValue(
        schema.Tensor(
            scalar_type=schema.ScalarType.FLOAT, storage_offset=0, sizes=sizes,
            dim_order=list(range(len(sizes))), requires_grad=False, layout=0, data_buffer_idx=0,
            allocation_info=schema.AllocationDetails(1, 0, 0),
            shape_dynamism=schema.TensorShapeDynamism.DYNAMIC_BOUND,
        )
    )  # fmt: skip


def _plan_memory(plan: Any) -> None:
    """A place of its own for each value, in the order of the values."""
    from executorch.exir import schema

    end = 0
    for one in plan.values:
        if isinstance(one.val, schema.Tensor) and one.val.allocation_info:
            one.val.allocation_info = schema.AllocationDetails(1, end & 0xFFFFFFFF, end >> 32)
            end += (math.prod(one.val.sizes) * _BYTES // _ALIGNED + 1) * _ALIGNED
    plan.non_const_buffer_sizes[1:] = [end]
