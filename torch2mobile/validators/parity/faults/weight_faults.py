"""Faults of weights: flipped, transposed, rounded, a bias lost, gates in another order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from torch2mobile.onnx_graph import attribute
from torch2mobile.validators.parity.faults.graph_changes import (
    Change,
    Graph,
    Maker,
    fixed,
    input_at,
    with_attributes,
    with_tensor,
)

if TYPE_CHECKING:
    from onnx import NodeProto

# What is multiplied with the data, and what is added to it, by operator.
_WEIGHTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "Gather": (0,),
    "PRelu": (1,),
}
_BIASES = {
    "Conv": (2,),
    "ConvTranspose": (2,),
    "Gemm": (2,),
    "Add": (0, 1),
    "LayerNormalization": (2,),
    "InstanceNormalization": (2,),
    "GroupNormalization": (2,),
    "BatchNormalization": (2, 3),
    "LSTM": (3,),
    "GRU": (3,),
    "RNN": (3,),
}
_NORMS = {
    "LayerNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
    "Mul": (0, 1),
    "Add": (0, 1),
}
_GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "hidden")}


def _constants(graph: Graph, node: NodeProto, indices: tuple[int, ...]) -> Iterator[int]:
    for index in indices:
        name = input_at(node, index)
        if name and graph.is_constant(name) and graph.is_float(name):
            yield index


def _read(graph: Graph, node: NodeProto, index: int) -> np.ndarray:
    array = graph.constant(node.input[index])
    assert array is not None
    return array


def kernel_flip(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A convolution's kernel turned round: correlation for convolution."""
    for index in _constants(graph, node, (1,)):
        dims = graph.dims(node.input[index]) or ()
        if any(size not in {1, None} for size in dims[2:]):
            yield partial(_changed, graph, node, index, _flipped, "flipped")


def _flipped(array: np.ndarray) -> np.ndarray:
    return np.flip(array, tuple(range(2, array.ndim)))


def _changed(
    graph: Graph,
    node: NodeProto,
    index: int,
    change: Callable[[np.ndarray], np.ndarray],
    what: str,
    _: np.random.Generator,
) -> Change | None:
    """The change of one constant, or None where it stays what it was."""
    array = _read(graph, node, index)
    changed = change(array).astype(array.dtype)
    if np.array_equal(changed, array):
        return None
    return with_tensor(node, index, changed, f"{node.input[index]} {what}")


def weight_transposed(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A weight of equal sizes transposed: its channels, or a kernel's height and width."""
    for index in _constants(graph, node, _WEIGHTS[node.op_type]):
        dims = graph.dims(node.input[index]) or ()
        pairs = ((0, 1), (2, 3)) if node.op_type.startswith("Conv") else ((-2, -1),)
        for a, b in pairs:
            if len(dims) > max(a, b) and len(dims) >= 2 and dims[a] == dims[b] != 1:
                transpose = partial(np.swapaxes, axis1=a, axis2=b)
                yield partial(
                    _changed, graph, node, index, transpose, f"with axes {a} and {b} exchanged"
                )


def bias_lost(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """One channel's bias, or running mean, set to zero."""
    for index in _constants(graph, node, _BIASES[node.op_type]):
        dims = graph.dims(node.input[index]) or ()
        # What is added to the data is a bias only where it is one number a channel.
        if node.op_type != "Add" or [size for size in dims if size != 1]:
            yield partial(_lost, graph, node, index)


def _lost(graph: Graph, node: NodeProto, index: int, rng: np.random.Generator) -> Change | None:
    array = _read(graph, node, index)
    places = np.flatnonzero(array)
    if not places.size:
        return None
    place = int(rng.choice(places))
    changed = array.copy()
    changed.flat[place] = 0
    what = f"{node.input[index]} lost at {place} of {array.size}"
    return with_tensor(node, index, changed, what)


def weight_float16(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A weight rounded to float16."""
    yield from _rounded(graph, node, np.float16, "float16")


def weight_bfloat16(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A weight rounded to bfloat16."""
    yield from _rounded(graph, node, ml_dtypes.bfloat16, "bfloat16")


def _rounded(graph: Graph, node: NodeProto, dtype: Any, name: str) -> Iterator[Maker]:
    for index in _constants(graph, node, _WEIGHTS[node.op_type]):
        yield partial(_changed, graph, node, index, partial(_cast, dtype), f"rounded to {name}")


def _cast(dtype: Any, array: np.ndarray) -> np.ndarray:
    return array.astype(dtype)


def ulp(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """The control: one number of a constant moved to its neighbour in float32.

    Only what is added to data or multiplied with it, so that no size or branch hangs on it.
    """
    roles = (_WEIGHTS, _BIASES, _NORMS)
    indices = sorted({index for role in roles for index in role.get(node.op_type, ())})
    for index in _constants(graph, node, tuple(indices)):
        yield partial(_neighbour, graph, node, index)


def _neighbour(
    graph: Graph, node: NodeProto, index: int, rng: np.random.Generator
) -> Change | None:
    array = _read(graph, node, index)
    # A number near the end of the range has an infinite neighbour; 0 has one that is no rounding.
    places = np.flatnonzero(np.isfinite(array) & (np.abs(array) > 1e-30) & (np.abs(array) < 1e30))
    if not places.size:
        return None
    place = int(rng.choice(places))
    changed = array.copy()
    changed.flat[place] = np.nextafter(array.flat[place], np.float32(0))
    what = f"{node.input[index]} off by one ULP at {place} of {array.size}"
    return with_tensor(node, index, changed, what)


def gate_order(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Two gates of an LSTM or GRU exchanged, as PyTorch and ONNX order them differently."""
    gates = _GATES[node.op_type]
    if all(graph.is_constant(name) for name in node.input[1:3]):
        for first, names in enumerate(itertools.pairwise(gates)):
            order = list(range(len(gates)))
            order[first], order[first + 1] = order[first + 1], order[first]
            what = "gates {} and {} exchanged".format(*names)
            yield partial(_each, graph, node, partial(_ordered, order), what)


def _ordered(order: Sequence[int], array: np.ndarray) -> np.ndarray:
    """The gates' blocks of ``[directions, gates * hidden, …]`` in this order; biases have two."""
    count = len(order)
    both = [*order, *(count + gate for gate in order)][: 2 * count if array.ndim == 2 else count]
    parts = np.split(array, len(both), axis=1)
    return np.concatenate([parts[gate] for gate in both], axis=1)


def _each(
    graph: Graph,
    node: NodeProto,
    change: Callable[[np.ndarray], np.ndarray],
    what: str,
    _: np.random.Generator,
) -> Change:
    """The same change of a recurrent layer's weights and biases."""
    changed = node
    tensors: dict[str, np.ndarray] = {}
    for index in _constants(graph, node, (1, 2, 3)):
        one = with_tensor(changed, index, change(_read(graph, node, index)), what)
        changed, tensors = one.nodes[0], {**tensors, **one.tensors}
    return Change(what, [changed], tensors)


def rnn_direction(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Time run backwards, or the weights of both directions exchanged."""
    direction = attribute(node, "direction", "forward")
    if direction == "bidirectional":
        if all(graph.is_constant(name) for name in node.input[1:3]):
            yield partial(_each, graph, node, np.flipud, "weights of both directions exchanged")
        return
    other = "reverse" if direction == "forward" else "forward"
    change = Change(f"direction {direction} to {other}", [with_attributes(node, direction=other)])
    yield fixed(change)


def gru_reset(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """GRU's reset gate before or after the linear layer."""
    other = 1 - attribute(node, "linear_before_reset", 0)
    change = Change(
        f"linear_before_reset to {other}", [with_attributes(node, linear_before_reset=other)]
    )
    yield fixed(change)
