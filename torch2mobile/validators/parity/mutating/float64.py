"""An ONNX model in float64, by onnx's own reference evaluator: what a change does without rounding.

ONNX Runtime has few kernels for float64, and its fusions round in other places once a constant is
another one. So a fault that is no fault can move the last bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from torch2mobile.onnx_graph import walk

if TYPE_CHECKING:
    from torch2mobile.interfaces import Feeds


# A float64 copy of the weights has to fit beside everything else.
_WEIGHT_BYTES = 1 << 30


class Wide:
    """A model with every float32 in float64; see :func:`widened`."""

    def __init__(self, model: onnx.ModelProto, weights: Feeds) -> None:
        from onnx.reference import ReferenceEvaluator

        self._names = [info.name for info in model.graph.output]
        self._evaluator = ReferenceEvaluator(widened(model, weights))

    def run(self, feeds: Feeds) -> list[tuple[str, np.ndarray]]:
        """All outputs, floats in float64."""
        wide = {name: _double(array) for name, array in feeds.items()}
        with np.errstate(all="ignore"):
            return list(zip(self._names, self._evaluator.run(None, wide), strict=True))


def outputs(
    model: onnx.ModelProto, weights: Feeds, feeds: Feeds
) -> list[tuple[str, np.ndarray]] | None:
    """The outputs of a model in float64; None where it is too large, or onnx cannot evaluate it."""
    if sum(array.nbytes for array in weights.values()) > _WEIGHT_BYTES:
        return None
    try:
        return Wide(model, weights).run(feeds)
    except Exception:  # noqa: BLE001 (operators of other domains, types that it does not take)
        return None


def widened(model: onnx.ModelProto, weights: Feeds) -> onnx.ModelProto:
    """A copy of a model that computes in float64; ``weights`` are those that it does not carry."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    del copied.graph.value_info[:]
    for tensor in copied.graph.initializer:
        if tensor.name in weights:
            array = _double(weights[tensor.name])
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        else:
            _widen(tensor)
    _widen_nodes(copied.graph)
    for info in (*copied.graph.input, *copied.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.DOUBLE
    return copied


def _widen_nodes(graph: onnx.GraphProto) -> None:
    for _, node in walk(graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.name in {"to", "dtype"} and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _double(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype == np.float32 else array
