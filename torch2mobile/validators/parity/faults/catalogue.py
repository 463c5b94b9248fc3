"""Small, realistic conversion faults, put into an ONNX model: the catalogue and the drawing.

Each kind knows where in a graph its fault can happen (its sites). A mutant has one fault, at one
node, and is otherwise the model. The control changes one constant by one unit in the last place,
which is no fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torch2mobile.validators.parity.faults import (
    functions,
    interface,
    layout,
    unusual,
    weight_faults,
)
from torch2mobile.validators.parity.faults.graph_changes import Graph, Maker, Patch

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Kind:
    """One kind of fault: the operators that can have it, and its faults at one node.

    Without operators it is a fault of the whole graph, and ``sites`` takes the graph alone. A
    control must not be noticed.
    """

    title: str
    sites: Callable[..., Iterator[Maker]]
    ops: tuple[str, ...] = ()
    control: bool = False


@dataclass(frozen=True)
class Mutation:
    """One fault: its kind, the ONNX node at fault and its first output, and what was done.

    Node and output are empty for a fault of the whole graph.
    """

    kind: str
    node: str
    output: str
    what: str
    op: str = ""
    control: bool = False


_RNN = ("LSTM", "GRU", "RNN")
_NORMS = (
    "BatchNormalization",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
)
_REDUCE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
_COMPARE = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_CONV = ("Conv", "ConvTranspose")
_LINEAR = (*_CONV, "Gemm", "MatMul", *_RNN)
_SMOOTH = ("Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "Tanh", "LogSoftmax")

KINDS: dict[str, Kind] = {
    "relu_slope": Kind(
        "Relu for LeakyRelu and back, PRelu for Relu",
        functions.relu_slope,
        ("Relu", "LeakyRelu", "PRelu"),
    ),
    "gelu_form": Kind("Gelu exact for tanh and back", functions.gelu_form, ("Gelu", "Erf")),
    "swish_form": Kind(
        "HardSwish for Swish and back", functions.swish_form, ("HardSwish", "Swish", "Mul")
    ),
    "sigmoid_form": Kind(
        "Sigmoid for HardSigmoid and back", functions.sigmoid_form, ("Sigmoid", "HardSigmoid")
    ),
    "smooth_form": Kind("another smooth activation", functions.smooth_form, _SMOOTH),
    "clip_bounds": Kind("a bound lost", functions.clip_bounds, ("Clip", "Min", "Max")),
    "operand_order": Kind(
        "two inputs swapped",
        functions.operand_order,
        ("Sub", "Div", "Pow", "Mod", "Where", "MatMul", *_COMPARE),
    ),
    "comparison_strictness": Kind(
        "with or without equality", functions.comparison_strictness, _COMPARE
    ),
    "rounding_mode": Kind(
        "rounded another way", functions.rounding_mode, ("Round", "Floor", "Ceil", "Resize")
    ),
    "integer_division": Kind(
        "integers divided another way", functions.integer_division, ("Div", "Mod")
    ),
    "scale_lost": Kind("a constant factor left out", functions.scale_lost, ("Mul", "Div")),
    "epsilon": Kind("another framework's epsilon", functions.epsilon, (*_NORMS, "Add")),
    "kernel_flip": Kind("a kernel turned round", weight_faults.kernel_flip, _CONV),
    "weight_transposed": Kind(
        "a square weight transposed", weight_faults.weight_transposed, (*_CONV, "Gemm", "MatMul")
    ),
    "bias_lost": Kind(
        "one channel's bias lost",
        weight_faults.bias_lost,
        (*_CONV, "Gemm", "Add", *_NORMS[:4], *_RNN),
    ),
    "weight_float16": Kind(
        "a weight in float16", weight_faults.weight_float16, (*_LINEAR, "Gather")
    ),
    "weight_bfloat16": Kind(
        "a weight in bfloat16", weight_faults.weight_bfloat16, (*_LINEAR, "Gather")
    ),
    "ulp": Kind(
        "a constant off by one ULP",
        weight_faults.ulp,
        (*_LINEAR, "Gather", "PRelu", *_NORMS[:4], "Add", "Mul"),
        control=True,
    ),
    "gate_order": Kind("two gates exchanged", weight_faults.gate_order, ("LSTM", "GRU")),
    "rnn_direction": Kind("time runs the other way", weight_faults.rnn_direction, _RNN),
    "gru_reset": Kind("GRU's reset gate elsewhere", weight_faults.gru_reset, ("GRU",)),
    "pad_side": Kind(
        "padding on the other side",
        layout.pad_side,
        (*_CONV, "MaxPool", "AveragePool", "LpPool"),
    ),
    "pad_mode": Kind("padded with something else", layout.pad_mode, ("Pad",)),
    "pool_border": Kind(
        "ceil_mode, count_include_pad", layout.pool_border, ("MaxPool", "AveragePool")
    ),
    "reduce_kind": Kind(
        "sum for mean, mean for max",
        layout.reduce_kind,
        (*_REDUCE, "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "AveragePool"),
    ),
    "axis": Kind(
        "the neighbouring axis",
        layout.axis,
        ("Softmax", "LogSoftmax", "Hardmax", "CumSum", *_REDUCE),
    ),
    "resize_coordinates": Kind("pixels counted otherwise", layout.resize_coordinates, ("Resize",)),
    "align_corners": Kind(
        "align_corners on or off", layout.align_corners, ("Resize", "GridSample", "AffineGrid")
    ),
    "resize_mode": Kind("nearest for linear and back", layout.resize_mode, ("Resize",)),
    "grid_mode": Kind("another interpolation or border", layout.mode_other, ("GridSample",)),
    "transpose_perm": Kind("two axes exchanged", layout.transpose_perm, ("Transpose",)),
    "pixel_shuffle": Kind("CRD for DCR and back", layout.pixel_shuffle, ("DepthToSpace",)),
    "gather_index": Kind("an index off by one", layout.gather_index, ("Gather",)),
    "concat_order": Kind("two inputs exchanged", layout.concat_order, ("Concat",)),
    "slice_bounds": Kind("one further or one back", layout.slice_bounds, ("Slice",)),
    "split_order": Kind("two parts exchanged", layout.split_order, ("Split",)),
    "cast_narrow": Kind(
        "a value in a narrower type",
        interface.cast_narrow,
        (*_LINEAR, *_NORMS, "Cast", "Softmax", "Add", "Mul"),
    ),
    "argmax_tie": Kind("the last of equal values", layout.argmax_tie, ("ArgMax", "ArgMin")),
    "topk_order": Kind("the least for the greatest", layout.topk_order, ("TopK",)),
    "triangle": Kind("another triangle", layout.triangle, ("Trilu",)),
    "cumsum_form": Kind("exclusive or reversed", layout.cumsum_form, ("CumSum",)),
    "shape_baked": Kind(
        "a size fixed at the example's", interface.shape_baked, ("Shape", "Reshape")
    ),
    "nan_ignored": Kind("NaN kept, or passed over", unusual.nan_ignored, ("Where", "Max", "Min")),
    "rows_swapped": Kind("two rows of a table exchanged", unusual.rows_swapped, ("Gather",)),
    "index_clamped": Kind("an index cut off", unusual.index_clamped, ("Gather",)),
    "int32_truncation": Kind(
        "int64 arithmetic in int32", unusual.int32_truncation, ("Add", "Sub", "Mul", "Div", "Mod")
    ),
    "window_lost": Kind("a choice that is never made", unusual.window_lost, ("Where",)),
    "one_size": Kind(
        "wrong at one size alone", unusual.one_size, (*_CONV, "Gemm", "MatMul", "Add")
    ),
    "outputs_swapped": Kind("two outputs exchanged", interface.outputs_swapped),
    "dim_frozen": Kind("a dynamic dimension declared fixed", interface.dim_frozen),
}


def plan(
    model: onnx.ModelProto,
    *,
    seed: int,
    count: int,
    kinds: Sequence[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> list[tuple[Mutation, Patch]]:
    """At most ``count`` faults, no two alike, drawn evenly over the kinds that have a site.

    ``sizes`` are the example's, by symbol. ``weights`` holds the tensors that the model names but
    does not carry. Fewer come back where the model has fewer sites.
    """
    graph = Graph(model, sizes, weights)
    names = list(KINDS if kinds is None else kinds)
    queues = {name: _drawn(graph, name, seed) for name in names}
    order = np.random.default_rng([seed, len(KINDS)]).permutation(len(names))
    found: list[tuple[Mutation, Patch]] = []
    while queues and len(found) < count:
        for number in order:
            name = names[number]
            if name in queues and len(found) < count:
                drawn = next(queues[name], None)
                if drawn is None:
                    del queues[name]
                else:
                    found.append(drawn)
    return found


def _drawn(graph: Graph, name: str, seed: int) -> Iterator[tuple[Mutation, Patch]]:
    """The faults of one kind in a random order; those that would change nothing are left out."""
    kind = KINDS[name]
    sites = list(_sites(graph, kind))
    stream = list(KINDS).index(name)
    rng = np.random.default_rng([seed, stream])
    for number in rng.permutation(len(sites)):
        address, node, make = sites[number]
        change = make(np.random.default_rng([seed, stream, int(number)]))
        if change is None:
            continue
        mutation = Mutation(
            kind=name,
            node=node.name if node is not None else "",
            output=node.output[0] if node is not None else "",
            what=change.what,
            op=node.op_type if node is not None else "",
            control=kind.control,
        )
        yield mutation, Patch(address, change)


def _sites(graph: Graph, kind: Kind) -> Iterator[tuple[Any, onnx.NodeProto | None, Maker]]:
    if not kind.ops:
        for make in kind.sites(graph):
            yield (), None, make
        return
    for address, node in graph.nodes:
        if node.op_type in kind.ops and node.domain in {"", "ai.onnx"}:
            for make in kind.sites(graph, node):
                yield address, node, make
