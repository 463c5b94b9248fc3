"""Between which ends a graph's values stay for all declared inputs, by interval arithmetic.

See Moore, Interval Analysis (1966). What shows here that a side of a decision cannot be taken is no
matter of how long one searched for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile import sampling
from torch2mobile.records import InputSpec
from torch2mobile.validators.parity.faults.graph import Graph, input_at

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
_MEANS = ("ReduceMean", "GlobalAveragePool")
# Their values are some of the first input's.
_SAME = (
    *("Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Expand"),
    *("Tile", "Split", "Gather", "GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"),
    *("ReduceMax", "ReduceMin", "MaxPool", "GlobalMaxPool", "TopK"),
)


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
        least, greatest = _of_node(node, given)
        found = _ANY if np.isnan(least) or np.isnan(greatest) else (least, greatest)
        for name in node.output:
            known[name] = found
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
    if not array.size or array.dtype.kind not in "biuf":
        return _ANY
    return float(array.min()), float(array.max())


def _of_node(node: onnx.NodeProto, given: Sequence[Range]) -> Range:
    op = node.op_type
    if op in _BETWEEN:
        return _BETWEEN[op]
    known = _FROM_INPUTS.get(op)
    return known(node, given) if known is not None and given else _ANY


def _first(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    return given[0]


def _mean(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    low, high = given[0]
    return low - _SLACK * abs(low), high + _SLACK * abs(high)


def _clip(node: onnx.NodeProto, given: Sequence[Range]) -> Range:
    low, high = (
        given[at] if input_at(node, at) else (other, other)
        for at, other in ((1, -np.inf), (2, np.inf))
    )
    first = given[0]
    return min(max(first[0], low[0]), high[0]), min(max(first[1], low[1]), high[1])


def _hull(given: Sequence[Range]) -> Range:
    return min(each[0] for each in given), max(each[1] for each in given)


def _relu(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    low, high = given[0]
    return max(low, 0.0), max(high, 0.0)


def _neg(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    low, high = given[0]
    return -high, -low


def _abs(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    low, high = given[0]
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return least, max(abs(low), abs(high))


def _greatest(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    return max(each[0] for each in given), max(each[1] for each in given)


def _least(_: onnx.NodeProto, given: Sequence[Range]) -> Range:
    return min(each[0] for each in given), min(each[1] for each in given)


def _product(node: onnx.NodeProto, given: Sequence[Range]) -> Range:
    """With room for rounding. A square is never below 0."""
    with np.errstate(invalid="ignore"):
        ends = np.multiply.outer(*given).ravel()
    # 0 times what has no bound is 0 here.
    ends = np.where(np.isnan(ends), 0.0, ends)
    low, high = float(ends.min()), float(ends.max())
    if node.input[0] == node.input[1]:
        low = max(low, 0.0)
    return low - _SLACK * abs(low), high + _SLACK * abs(high)


def _sum(node: onnx.NodeProto, given: Sequence[Range]) -> Range:
    """A sum or difference, with room for its rounding."""
    first, second = given
    if node.op_type == "Sub":
        second = -second[1], -second[0]
    room = _SLACK * (_size(first) + _size(second))
    return first[0] + second[0] - room, first[1] + second[1] + room


def _size(given: Range) -> float:
    return max((abs(end) for end in given if np.isfinite(end)), default=0.0)


_FROM_INPUTS: Mapping[str, Callable[[onnx.NodeProto, Sequence[Range]], Range]] = {
    **dict.fromkeys(_SAME, _first),
    **dict.fromkeys(_MEANS, _mean),
    "Concat": lambda _, given: _hull(given),
    "Where": lambda _, given: _hull(given[1:]),
    "Clip": _clip,
    "Relu": _relu,
    "Neg": _neg,
    "Abs": _abs,
    "Max": _greatest,
    "Min": _least,
    "Mul": _product,
    "Add": _sum,
    "Sub": _sum,
}
