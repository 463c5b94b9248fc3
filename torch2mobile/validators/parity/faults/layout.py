"""Faults of layout: padding, pooling, resizing, axes, orders, indices, types, sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from torch2mobile.onnx_graph import attribute
from torch2mobile.validators.parity.faults.graph_changes import (
    Change,
    Graph,
    Maker,
    fixed,
    input_at,
    swapped,
    with_attributes,
    with_inputs,
    with_tensor,
)

_SHAPE_KEEPERS = {"Add", "Sub", "Mul", "Div"}


def pad_side(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Padding moved from the start to the end, as "same" padding of another framework has it."""
    pads = list(attribute(node, "pads", ()))
    half = len(pads) // 2
    for axis in range(half):
        if pads[axis] > 0:
            moved = [*pads]
            moved[axis] -= 1
            moved[half + axis] += 1
            what = f"pads {pads} to {moved}"
            yield fixed(Change(what, [with_attributes(node, pads=moved, auto_pad=None)]))


def pad_mode(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Pad with another mode, or with another value."""
    mode = attribute(node, "mode", "constant")
    whole = graph.elem_type(node.input[0])
    if mode != "constant":
        other = "edge" if mode == "reflect" else "reflect"
        yield fixed(Change(f"Pad mode {mode} to {other}", [with_attributes(node, mode=other)]))
        return
    if whole == TensorProto.BOOL:
        given = graph.constant(input_at(node, 2)) if input_at(node, 2) else np.asarray(False)
        if given is not None:
            yield fixed(with_tensor(node, 2, ~given, f"Pad with {not bool(given)}"))
    else:
        edge = with_inputs(with_attributes(node, mode="edge"), {2: ""})
        yield fixed(Change("Pad mode constant to edge", [edge]))


def pool_border(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Pooling's border: ceil_mode, and whether the padding counts in a mean."""
    ceil = 1 - attribute(node, "ceil_mode", 0)
    yield fixed(Change(f"ceil_mode to {ceil}", [with_attributes(node, ceil_mode=ceil)]))
    if node.op_type == "AveragePool":
        count = 1 - attribute(node, "count_include_pad", 0)
        change = Change(
            f"count_include_pad to {count}", [with_attributes(node, count_include_pad=count)]
        )
        yield fixed(change)


def reduce_kind(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Another reduction over the same axes: sum for mean, mean for max."""
    name = node.op_type
    if name in {"GlobalAveragePool", "GlobalMaxPool"}:
        other = "GlobalMaxPool" if name == "GlobalAveragePool" else "GlobalAveragePool"
    elif name in {"MaxPool", "AveragePool"}:
        other = "AveragePool" if name == "MaxPool" else "MaxPool"
        lost = ("storage_order", "dilations") if name == "MaxPool" else ("count_include_pad",)
        if len(node.output) == 1:
            bare = with_attributes(node, **dict.fromkeys(lost))
            bare.op_type = other
            yield fixed(Change(f"{name} for {other}", [bare]))
        return
    else:
        other = {
            "ReduceMean": "ReduceSum",
            "ReduceSum": "ReduceMean",
            "ReduceMax": "ReduceMean",
            "ReduceMin": "ReduceMax",
            "ReduceL2": "ReduceL1",
            "ReduceL1": "ReduceSum",
        }[name]
        if graph.opset < 18:  # axes became an input of one after the other
            return
    changed = with_attributes(node)
    changed.op_type = other
    yield fixed(Change(f"{name} for {other}", [changed]))


def axis(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """The neighbouring axis, where the shape stays or broadcasting hides that it does not."""
    rank = graph.type(node.input[0]).rank
    if rank is None or rank < 2:
        return
    if node.op_type.startswith("Reduce"):
        yield from _reduced_axis(graph, node, rank)
    elif node.op_type == "CumSum":
        given = graph.constant(node.input[1])
        if given is not None:
            other = _neighbour(int(given.reshape(())), rank)
            array = np.full(given.shape, other, given.dtype)
            yield fixed(with_tensor(node, 1, array, f"axis to {other}"))
    else:
        other = _neighbour(attribute(node, "axis", -1), rank)
        yield fixed(Change(f"axis to {other}", [with_attributes(node, axis=other)]))


def _neighbour(axis_: int, rank: int) -> int:
    positive = axis_ % rank
    return positive - 1 if positive else 1


def _reduced_axis(graph: Graph, node: NodeProto, rank: int) -> Iterator[Maker]:
    given = graph.constant(input_at(node, 1)) if input_at(node, 1) else None
    users = graph.uses.get(node.output[0], [])
    kept = bool(attribute(node, "keepdims", 1)) and {u.op_type for u in users} <= _SHAPE_KEEPERS
    dims = graph.dims(node.input[0]) or ()
    if given is None or given.size != 1 or not users:
        return
    own = int(given.reshape(())) % rank
    other = _neighbour(own, rank)
    if kept or dims[own] == dims[other]:
        array = np.full(given.shape, other, given.dtype)
        yield fixed(with_tensor(node, 1, array, f"axis {own} to {other}"))


def resize_coordinates(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Resize with pixels counted from another place."""
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    other = "half_pixel" if mode == "asymmetric" else "asymmetric"
    what = f"coordinate_transformation_mode {mode} to {other}"
    yield fixed(Change(what, [with_attributes(node, coordinate_transformation_mode=other)]))


def align_corners(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """align_corners on or off, in Resize, GridSample and AffineGrid."""
    if node.op_type == "Resize":
        name = "coordinate_transformation_mode"
        mode = attribute(node, name, "half_pixel")
        other = "half_pixel" if mode == "align_corners" else "align_corners"
        change = Change(f"{name} {mode} to {other}", [with_attributes(node, **{name: other})])
        yield fixed(change)
        return
    flag = 1 - attribute(node, "align_corners", 0)
    yield fixed(Change(f"align_corners to {flag}", [with_attributes(node, align_corners=flag)]))


def resize_mode(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Resize between other neighbours: nearest for linear, linear for nearest and cubic."""
    mode = attribute(node, "mode", "nearest")
    other = "nearest" if mode == "linear" else "linear"
    yield fixed(Change(f"mode {mode} to {other}", [with_attributes(node, mode=other)]))
    if mode == "cubic":
        usual = attribute(node, "cubic_coeff_a", -0.75)
        coefficient = -0.5 if abs(usual + 0.75) < 1e-3 else -0.75
        changed = with_attributes(node, cubic_coeff_a=coefficient)
        yield fixed(Change(f"cubic_coeff_a to {coefficient}", [changed]))


def transpose_perm(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Two axes exchanged in a Transpose, where sizes are equal or a Reshape hides it."""
    perm, dims = list(attribute(node, "perm", ())), graph.dims(node.input[0])
    users = graph.uses.get(node.output[0], [])
    hidden = bool(users) and {user.op_type for user in users} <= {"Reshape", "Flatten"}
    for a, b in itertools.combinations(range(len(perm)), 2):
        alike = dims is not None and dims[perm[a]] is not None and dims[perm[a]] == dims[perm[b]]
        if alike or (hidden and b == a + 1):
            other = [*perm]
            other[a], other[b] = perm[b], perm[a]
            yield fixed(Change(f"perm {perm} to {other}", [with_attributes(node, perm=other)]))


def pixel_shuffle(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """DepthToSpace's other order of channels."""
    other = "DCR" if attribute(node, "mode", "DCR") == "CRD" else "CRD"
    yield fixed(Change(f"DepthToSpace mode to {other}", [with_attributes(node, mode=other)]))


def gather_index(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A constant index off by one."""
    given, dims = graph.constant(input_at(node, 1)), graph.dims(node.input[0])
    which = attribute(node, "axis", 0)
    size = dims[which] if dims else None
    if given is None or not given.size:
        return
    # Of an unknown size, 0 and -1 have one neighbour each that is there if anything is.
    for step in (1, -1):
        moved = given + step
        inside = isinstance(size, int) and bool(((moved >= -size) & (moved < size)).all())
        same_sign = bool(((moved < 0) == (given < 0)).all())
        if same_sign and (inside or (size is None or isinstance(size, str))):
            yield fixed(with_tensor(node, 1, moved, f"index {step:+d}"))
            return


def concat_order(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """Two neighbouring inputs of Concat exchanged."""
    for first, second in itertools.pairwise(range(len(node.input))):
        if node.input[first] != node.input[second]:
            what = f"inputs {first} and {second} of Concat exchanged"
            yield fixed(Change(what, [swapped(node, first, second)]))


def slice_bounds(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """A Slice of the same length, one further or one back."""
    starts, ends = (graph.constant(input_at(node, index)) for index in (1, 2))
    if starts is None or ends is None or starts.size != 1:
        return
    axes, steps = (graph.constant(input_at(node, index)) for index in (3, 4))
    dims = graph.dims(node.input[0])
    size = dims[0 if axes is None else int(axes.reshape(-1)[0])] if dims else None
    if not isinstance(size, int) or (steps is not None and int(steps.reshape(-1)[0]) != 1):
        return
    start, end = (_index(int(bound.reshape(-1)[0]), size) for bound in (starts, ends))
    for step in (1, -1):
        if 0 <= start + step < end + step <= size:
            moved = with_tensor(node, 1, np.full_like(starts, start + step), "")
            both = with_tensor(moved.nodes[0], 2, np.full_like(ends, end + step), "")
            tensors = {**moved.tensors, **both.tensors}
            what = f"[{start}:{end}] to [{start + step}:{end + step}]"
            yield fixed(Change(what, both.nodes, tensors))


def _index(bound: int, size: int) -> int:
    return min(max(bound + size if bound < 0 else bound, 0), size)


def split_order(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """Two parts of a Split exchanged; their sizes too, where they differ."""
    for first, second in itertools.pairwise(range(len(node.output))):
        outputs = list(node.output)
        outputs[first], outputs[second] = outputs[second], outputs[first]
        changed = with_attributes(node)
        changed.output[:] = outputs
        sizes = graph.constant(input_at(node, 1))
        what = f"outputs {first} and {second} of Split exchanged"
        if sizes is not None and sizes[first] != sizes[second]:
            # The values keep their sizes, and are cut off in the other order.
            order = list(range(len(sizes)))
            order[first], order[second] = second, first
            yield fixed(with_tensor(changed, 1, sizes[order], what))
        else:
            yield fixed(Change(what, [changed]))


def argmax_tie(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """The last instead of the first of equal values."""
    other = 1 - attribute(node, "select_last_index", 0)
    changed = with_attributes(node, select_last_index=other)
    yield fixed(Change(f"select_last_index to {other}", [changed]))


def topk_order(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """The least for the greatest values."""
    other = 1 - attribute(node, "largest", 1)
    yield fixed(Change(f"TopK largest to {other}", [with_attributes(node, largest=other)]))


def triangle(graph: Graph, node: NodeProto) -> Iterator[Maker]:
    """The other triangle, or one diagonal further: a causal mask off by one."""
    upper = 1 - attribute(node, "upper", 1)
    yield fixed(Change(f"Trilu upper to {upper}", [with_attributes(node, upper=upper)]))
    k = graph.constant(input_at(node, 1)) if input_at(node, 1) else np.asarray(np.int64(0))
    if k is not None:
        yield fixed(with_tensor(node, 1, k + 1, "Trilu one diagonal further"))


def cumsum_form(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """A running sum without the number itself, or from the end."""
    for name in ("exclusive", "reverse"):
        other = 1 - attribute(node, name, 0)
        change = Change(f"CumSum {name} to {other}", [with_attributes(node, **{name: other})])
        yield fixed(change)


def mode_other(_: Graph, node: NodeProto) -> Iterator[Maker]:
    """GridSample's other interpolation or border."""
    mode = attribute(node, "mode", "linear")
    other = (
        "nearest" if mode in {"linear", "bilinear"} else ("linear" if mode != "bilinear" else mode)
    )
    yield fixed(Change(f"mode {mode} to {other}", [with_attributes(node, mode=other)]))
    border = attribute(node, "padding_mode", "zeros")
    outside = "border" if border == "zeros" else "zeros"
    changed = with_attributes(node, padding_mode=outside)
    yield fixed(Change(f"padding_mode {border} to {outside}", [changed]))
