"""Pieces of an .onnx, run on inputs of one's own: the side of localising that lives in a worker.

A piece is some of the graph's nodes. A value that is fed as well as computed is cut: consumers
read what is fed, and what was computed is an output of the piece beside it. So one session gives
the own error of every node in it. Nothing here knows torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper

from torch2mobile.onnx_graph import array_of, constant_value, reads
from torch2mobile.validators.parity.channels import LEAST, SCALE_STEP, is_float
from torch2mobile.validators.parity.locating.portrait import Portrait, attribute_of
from torch2mobile.validators.parity.tolerance import USUAL

if TYPE_CHECKING:
    from torch2mobile.interfaces import Feeds


_OWN = "//own"
# No message of protobuf is larger, the graph included; such a model is run from its file only.
_LIMIT = 2**31 - 2**24


@dataclass(frozen=True)
class NodeInfo:
    """One node of the main graph. ``inputs`` has what its subgraphs read from outside as well.

    ``weights`` is the size in bytes of the constants that it reads.
    """

    index: int
    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: int = 0


@dataclass(frozen=True)
class Topology:
    """The main graph: its inputs and outputs, and its nodes in the order of the file."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[NodeInfo, ...]


Glance = tuple[float, float, float, str]
"""An error, what is allowed, the noise, and the rule, as a Judged has them."""


def at_a_glance(want: np.ndarray, got: np.ndarray) -> Glance | None:
    """That a value is right, where no channel is more off than the dtype's usual rtol of its scale.

    Each limit allows that, so that most values need no second evaluation in float64. None for all
    that wants a closer look: other dtypes or shapes, NaN and infinities.
    """
    if (want.dtype, want.shape) != (got.dtype, got.shape):
        return None
    if not is_float(want):
        return (0.0, 0.0, 0.0, "exact") if np.array_equal(want, got) else None
    if not want.size:
        return 0.0, 0.0, 0.0, "usual"
    rtol = USUAL.get(want.dtype.name, USUAL["float32"]).rtol
    with np.errstate(all="ignore"):
        # One array for both: fresh memory costs more than the arithmetic.
        scratch = np.subtract(got, want, out=np.empty_like(want))
        off = list(_peaks(np.abs(scratch, out=scratch)))
        size = list(_peaks(np.abs(want, out=scratch)))
        error, scale = float(off[0].max()), float(size[0].max())
        right = error <= rtol * scale and all(
            (peaks <= rtol * _scales(own, scale)).all()
            for peaks, own in zip(off, size, strict=True)
        )
    return (error, rtol * scale, 0.0, "usual") if right else None


def _scales(own: np.ndarray, scale: float) -> np.ndarray:
    """What the limits of channels go by, at least: those of about the greatest scale go by that.

    So do those that are 0. On whichever axis the channels are.
    """
    large = (own * SCALE_STEP > scale) | (own == 0)
    return np.where(large, scale, np.maximum(own, scale * LEAST))


def _peaks(array: np.ndarray) -> Iterator[np.ndarray]:
    """For each axis the greatest value at each of its indices; the value itself without axes."""
    if not array.ndim:
        yield array.copy()
    else:
        inner = array.max(axis=-1)
        for axis in range(inner.ndim):
            yield inner.max(axis=tuple(x for x in range(inner.ndim) if x != axis))
        yield array.max(axis=tuple(range(array.ndim - 1)))


class Sliced:
    """An .onnx whose nodes can be run piece by piece (the loader that a worker calls by name)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model: Any = onnx.load(path)
        graph = self._model.graph
        self._constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
        self._constant_nodes = {
            node.output[0]: node for node in graph.node if node.op_type == "Constant"
        }
        self._nodes = [node for node in graph.node if node.op_type != "Constant"]

    def topology(self) -> Topology:
        """Inputs, outputs and nodes; Constant nodes count as weights, not as nodes."""
        graph = self._model.graph
        nodes = []
        for index, node in enumerate(self._nodes):
            names = reads(node)
            weights = sum(_size(self._constants[n]) for n in names if n in self._constants)
            inputs = tuple(name for name in names if not self._is_constant(name))
            outputs = tuple(name for name in node.output if name)
            nodes.append(NodeInfo(index, node.name, node.op_type, inputs, outputs, weights))
        return Topology(
            tuple(value.name for value in graph.input if value.name not in self._constants),
            tuple(value.name for value in graph.output),
            tuple(nodes),
        )

    def _is_constant(self, name: str) -> bool:
        return name in self._constants or name in self._constant_nodes

    def _piece(self, numbers: Sequence[int], feeds: Feeds, wanted: Sequence[str]) -> Any:
        """These nodes as a model of their own, and the names under which it gives ``wanted``."""
        graph = onnx.GraphProto(name="piece")
        needed: dict[str, None] = {}
        for number in numbers:
            node = onnx.NodeProto()
            node.CopyFrom(self._nodes[number])
            needed.update(dict.fromkeys(reads(node)))
            node.output[:] = [name + _OWN if name in feeds else name for name in node.output]
            graph.node.append(node)
        constant_nodes = [self._constant_nodes[n] for n in needed if n in self._constant_nodes]
        for node in reversed(constant_nodes):
            graph.node.insert(0, node)
        graph.initializer.extend(self._constants[n] for n in needed if n in self._constants)
        graph.input.extend(_input(name, value) for name, value in feeds.items() if name in needed)
        for name in wanted:
            graph.output.append(onnx.ValueInfoProto(name=_own(name, feeds)))
        return onnx.ModelProto(
            ir_version=self._model.ir_version,
            opset_import=self._model.opset_import,
            functions=self._model.functions,
            graph=graph,
        )

    def run(
        self, numbers: Sequence[int], feeds: Feeds, wanted: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """What these nodes compute, by ONNX Runtime without its graph optimisations."""
        piece = self._piece(numbers, feeds, wanted)
        return _run_session(
            piece.SerializeToString(),
            {value.name: feeds[value.name] for value in piece.graph.input},
            {_own(name, feeds): name for name in wanted},
            optimised=False,
        )

    def compared(
        self, numbers: Sequence[int], feeds: Feeds, wanted: Sequence[str]
    ) -> tuple[dict[str, Glance], dict[str, np.ndarray]]:
        """What :meth:`run` gives: compared here where that is easy, to send less, and the rest.

        A value that a later node of these is fed with is there to be compared with.
        """
        clear: dict[str, Glance] = {}
        rest: dict[str, np.ndarray] = {}
        for name, got in self.run(numbers, feeds, wanted).items():
            glance = at_a_glance(feeds[name], got) if name in feeds else None
            if glance is None:
                rest[name] = got
            else:
                clear[name] = glance
        return clear, rest

    def evaluate(
        self, numbers: Sequence[int], feeds: Feeds, wanted: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """The same by onnx's own reference implementation; raises where an operator is missing."""
        from onnx.reference import ReferenceEvaluator

        piece = self._piece(numbers, feeds, wanted)
        evaluator = ReferenceEvaluator(piece)
        own = {value.name: feeds[value.name] for value in piece.graph.input}
        with np.errstate(all="ignore"):
            arrays: Any = evaluator.run(None, own)
        return dict(zip(wanted, arrays, strict=True))

    def whole(
        self, feeds: Feeds, exposed: Sequence[str] = (), optimised: bool = True
    ) -> dict[str, np.ndarray]:
        """The file's outputs, and inner values beside them, all nodes fed by one another."""
        graph = self._model.graph
        # The file may have lost inputs that nothing in it reads.
        feeds = {value.name: feeds[value.name] for value in graph.input if value.name in feeds}
        names = [value.name for value in graph.output]
        extra = [name for name in exposed if name not in names]
        if not extra:
            return _run_session(str(self._path), feeds, {n: n for n in names}, optimised=optimised)
        # Not ByteSize(), which writes the whole message.
        if sum(map(_size, self._constants.values())) > _LIMIT:
            raise ValueError("too large to be run with inner values as outputs")
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        try:
            data = self._model.SerializeToString()
        finally:
            del graph.output[len(names) :]
        wanted = {name: name for name in [*names, *extra]}
        return _run_session(data, feeds, wanted, optimised=optimised)

    def portrait(self, value: str) -> Portrait | None:
        """The node that gives a value, as it can be compared with another."""
        node = next((node for node in self._nodes if value in node.output), None)
        if node is None:
            return None
        attributes = {a.name: attribute_of(a) for a in node.attribute}
        inputs = tuple("" if self._is_constant(name) else name for name in node.input)
        arrays = ((place, self._array(name)) for place, name in enumerate(node.input))
        constants = {place: array for place, array in arrays if array is not None}
        names = {place: node.input[place] for place in constants}
        return Portrait(node.op_type, attributes, inputs, constants, names)

    def forget(self) -> None:
        """Give the model's memory back; nothing can be asked of it any more."""
        self._model, self._constants, self._constant_nodes, self._nodes = None, {}, {}, []

    def _array(self, name: str) -> np.ndarray | None:
        node = self._constant_nodes.get(name)
        return array_of(self._constants.get(name) if node is None else constant_value(node))


def _size(tensor: Any) -> int:
    width: int = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(math.prod(tensor.dims)) * width


def _own(name: str, feeds: Feeds) -> str:
    return name + _OWN if name in feeds else name


def _input(name: str, value: Any) -> Any:
    if isinstance(value, list):
        element = helper.np_dtype_to_tensor_dtype(value[0].dtype) if value else 1
        return helper.make_tensor_sequence_value_info(name, element, None)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)


def _run_session(
    model: bytes | str, feeds: Feeds, wanted: Mapping[str, str], *, optimised: bool
) -> dict[str, np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    arrays = session.run(list(wanted), dict(feeds))
    return dict(zip(wanted.values(), arrays, strict=True))
