"""How much arithmetic a node does, to say what share of it an accelerator takes over."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch2mobile.onnx_types import ValueType
from torch2mobile.validators.coverage.graph import Node

_MOVES = frozenset(
    (
        *("Cast", "Concat", "Constant", "ConstantOfShape", "DepthToSpace", "Expand", "Flatten"),
        *("Gather", "GatherElements", "GatherND", "Identity", "If", "Loop", "Pad", "Reshape"),
        *("Scan", "Shape", "Size", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile"),
        *("Transpose", "Unsqueeze"),
    )
)
"""Operators that move data, or call others, and count as no arithmetic."""


def flops(node: Node) -> int | None:
    """Multiplications and additions of one node; None where a size is not known.

    A product of matrices and a convolution count two for each term of their sums; a recurrent layer
    those of its matrices; anything else one for each element it reads or writes, whichever is more.
    """
    kind = node.proto.op_type
    return 0 if kind in _MOVES else _RULES.get(kind, _elementwise)(node)


def _convolution(node: Node) -> int | None:
    weight = node.input_type(3 if node.proto.op_type == "QLinearConv" else 1)
    return _times(2, _count(node.output_type(0)), _tail(weight, 1))


def _transposed_convolution(node: Node) -> int | None:
    return _times(2, _count(node.input_type(0)), _tail(node.input_type(1), 1))


def _product_of_matrices(node: Node) -> int | None:
    left = node.input_type(0).dims
    inner = -2 if node.attributes.get("transA") else -1
    depth = left[inner] if left and len(left) >= -inner else None
    return _times(2, _count(node.output_type(0)), depth if isinstance(depth, int) else None)


def _elementwise(node: Node) -> int | None:
    read = [_count(node.input_type(n)) for n in range(len(node.proto.input)) if node.has_input(n)]
    written = [_count(node.output_type(n)) for n in range(len(node.proto.output))]
    known = [count for count in (*read, *written) if count is not None]
    return None if None in written[:1] else max(known, default=0)


def _recurrent(node: Node) -> int | None:
    """Each step multiplies the input and the last state by the weights of every gate."""
    data, weight = node.input_type(0).dims, node.input_type(1)
    hidden = _tail(node.input_type(2), 0)
    if data is None or len(data) != 3:
        return None
    steps = _product(data[:2])
    weights = _tail(weight, 0)
    if weights is None or hidden is None:
        return None
    return _times(2, steps, weights + hidden)


def _attention(node: Node) -> int | None:
    """Scores and the weighted sum: two products of length by length, for every channel."""
    query, key = node.input_type(0).dims, node.input_type(1).dims
    if query is None or key is None:
        return None
    length = key[-2] if len(key) >= 2 else None
    return _times(4, _product(query), length if isinstance(length, int) else None)


def _count(kind: ValueType) -> int | None:
    return None if kind.dims is None else _product(kind.dims)


def _tail(kind: ValueType, start: int) -> int | None:
    return None if kind.dims is None else _product(kind.dims[start:])


def _product(dims: tuple[int | str | None, ...]) -> int | None:
    sizes = [dim for dim in dims if isinstance(dim, int)]
    return math.prod(sizes) if len(sizes) == len(dims) else None


def _times(*factors: int | None) -> int | None:
    known = [factor for factor in factors if factor is not None]
    return math.prod(known) if len(known) == len(factors) else None


_RULES: dict[str, Callable[[Node], int | None]] = {
    **dict.fromkeys(("Conv", "FusedConv", "QLinearConv", "ConvInteger"), _convolution),
    "ConvTranspose": _transposed_convolution,
    **dict.fromkeys(
        ("MatMul", "MatMulInteger", "Gemm", "FusedMatMul", "QLinearMatMul"), _product_of_matrices
    ),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent),
    **dict.fromkeys(("Attention", "MultiHeadAttention"), _attention),
}
