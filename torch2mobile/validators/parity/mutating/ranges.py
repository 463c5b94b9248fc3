"""Between which ends a graph's values stay for all declared inputs, by interval arithmetic.

See Moore, Interval Analysis (1966). What shows here that a side of a decision cannot be taken is no
matter of how long one searched for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from torch2mobile import sampling
from torch2mobile.records import InputSpec
from torch2mobile.validators.parity.faults.graph_changes import Graph

if TYPE_CHECKING:
    import onnx

    from torch2mobile.validators.parity.mutating.decisions import Decision

Range = tuple[float, float]

_ANY: Range = (-np.inf, np.inf)
# More than float32 rounds off in a sum of some terms.
_SLACK = 1e-5
_CONDITIONS = ("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal", "And", "Or", "Not")
_BETWEEN: Mapping[str, Range] = {
    **dict.fromkeys(_CONDITIONS, (0, 1)),
    "Sigmoid": (0, 1),
    "HardSigmoid": (0, 1),
    "Softmax": (0, 1 + _SLACK),
    "Tanh": (-1, 1),
    "Erf": (-1, 1),
    "Softplus": (0, np.inf),
    "Exp": (0, np.inf),
    "Sqrt": (0, np.inf),
    "ReduceL1": (0, np.inf),
    "ReduceL2": (0, np.inf),
    "ReduceSumSquare": (0, np.inf),
    "Shape": (0, np.inf),
    "Size": (0, np.inf),
    "Sign": (-1, 1),
    "Sin": (-1, 1),
    "Cos": (-1, 1),
}
# Their values are some of the first input's.
_SAME = (
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand"),
    *("Tile", "Split", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"),
    *("ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool", "TopK"),
)


# What is least and greatest at ends of the inputs.
_AT_CORNERS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("ReduceMean", "GlobalAveragePool"), lambda data, *_: data),
    "Clip": lambda data, low=-np.inf, high=np.inf: min(max(data, low), high),
    "Relu": lambda data: max(data, 0.0),
    "Neg": lambda data: -data,
    "Abs": abs,
    "Max": lambda *data: max(data),
    "Min": lambda *data: min(data),
    "Mul": np.multiply,
    "Add": np.add,
    "Sub": np.subtract,
}
_SUMS = ("Add", "Sub")
_ROUNDED = (*_SUMS, "Mul", "ReduceMean", "GlobalAveragePool")


def ranges_of(graph: Graph, specs: Sequence[InputSpec]) -> dict[str, Range]:
    """The least and greatest that each value can be, infinite where nothing is known."""
    known: dict[str, Range] = {spec.name: _declared(spec) for spec in specs}

    def at(name: str) -> Range:
        if name not in known:
            array = graph.constant(name)
            known[name] = _ends_of(array) if array is not None else _ANY
        return known[name]

    for address, node in graph.nodes:
        if len(address) > 1:
            continue
        given = [at(name) if name else _ANY for name in node.input]
        known.update(dict.fromkeys(node.output, _of_node(node, given)))
        if node.op_type == "TopK" and len(node.output) > 1:
            known[node.output[1]] = (0, np.inf)
    return known


def impossible(decision: Decision, known: Mapping[str, Range]) -> list[int]:
    """The sides of a decision that no declared input takes."""
    least, greatest = known.get(decision.of, _ANY)
    if decision.minus:
        low, high = known.get(decision.minus, _ANY)
        least, greatest = least - high, greatest - low
    return [
        side
        for side, never in ((0, least >= decision.threshold), (1, greatest <= decision.threshold))
        if never
    ]


def _declared(spec: InputSpec) -> Range:
    if spec.dtype == "bool":
        return 0, 1
    if spec.values is not None and spec.values.kind == "normal":
        return _ANY
    return sampling.promised(spec) or _ANY


def _ends_of(array: np.ndarray) -> Range:
    if not array.size or array.dtype.kind not in "biuf" or np.isnan(array.min()):
        return _ANY
    return float(array.min()), float(array.max())


def _of_node(node: onnx.NodeProto, given: Sequence[Range]) -> Range:
    op = node.op_type
    if op in _BETWEEN:
        return _BETWEEN[op]
    if not given:
        return _ANY
    if op in _SAME:
        return given[0]
    if op in {"Concat", "Where"}:
        lows, highs = zip(*given[op == "Where" :], strict=True)
        return min(lows), max(highs)
    if op not in _AT_CORNERS:
        return _ANY
    # These rise with each of any number of inputs.
    corners = zip(*given, strict=True) if op in {"Max", "Min"} else itertools.product(*given)
    with np.errstate(invalid="ignore"):
        found = [_AT_CORNERS[op](*corner) for corner in corners]
    # 0 times what has no bound is 0 here.
    ends = [0.0 if np.isnan(end) else float(end) for end in found]
    least, greatest = min(ends), max(ends)
    squared = op == "Mul" and node.input[0] == node.input[1]
    if (op == "Abs" or squared) and given[0][0] < 0 < given[0][1]:
        least = 0.0
    # A sum is rounded at the size of its terms, a product or mean at its own.
    sizes = [abs(end) for end in itertools.chain(*given) if np.isfinite(end)]
    terms = 2 * max(sizes, default=0.0) if op in _SUMS else 0.0
    room = [_SLACK * (terms or abs(end)) if op in _ROUNDED else 0.0 for end in (least, greatest)]
    return least - room[0], greatest + room[1]
