"""Questions to a node of the graph, of which the accelerators' conditions are made.

Each gives the reason why the node does not meet it, or "" if it does. What cannot be seen (a rank,
a size) is a reason too: the runtime refuses the node for the same cause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch2mobile.validators.coverage.graph import Node

Question = Callable[[Node], str]


def rank(*ranks: int, index: int = 0) -> Question:
    """An input has one of these numbers of dimensions."""

    def ask(node: Node) -> str:
        rank = node.input_type(index).rank
        if rank is None:
            return "the rank of its input is not known"
        allowed = " or ".join(str(each) for each in ranks)
        return "" if rank in ranks else f"its input has {rank} dimensions, not {allowed}"

    return ask


def constant(*indices: int) -> Question:
    """Each of these inputs is constant, where it is given."""

    def ask(node: Node) -> str:
        for index in indices:
            if node.has_input(index) and not node.is_constant(index):
                return f"its input {node.proto.input[index]} is computed, not constant"
        return ""

    return ask


def attribute(name: str, default: Any, *allowed: Any) -> Question:
    """An attribute, or its default, is one of these values."""

    def ask(node: Node) -> str:
        value = node.attributes.get(name, default)
        return "" if value in allowed else f"{name} is {value!r}"

    return ask


def absent(name: str) -> Question:
    """An attribute is not given."""

    def ask(node: Node) -> str:
        return f"{name} is {node.attributes[name]!r}" if name in node.attributes else ""

    return ask


def kinds(indices: tuple[int, ...], *allowed: str) -> Question:
    """Inputs are of one of these types (float, float16, bool …)."""

    def ask(node: Node) -> str:
        for index in indices:
            text = node.input_type(index).text
            if text.removeprefix("tensor(").removesuffix(")") not in allowed:
                return f"its input {node.proto.input[index]} is {text or 'of unknown type'}"
        return ""

    return ask


def every(*questions: Question) -> Question:
    """All of these hold; the first that does not is the answer."""

    def ask(node: Node) -> str:
        return next((answer for question in questions if (answer := question(node))), "")

    return ask


def always(_: Node) -> str:
    """For a note that is no condition on the node."""
    return ""


def quantisation(node: Node) -> str:
    """Scales and zero points by their places in the operator's list of inputs."""
    places = {
        "DequantizeLinear": (1, 2),
        "QuantizeLinear": (1, 2),
        "QLinearConv": (1, 2, 4, 5, 6, 7),
        "QLinearMatMul": (1, 2, 4, 5, 6, 7),
        "QLinearAdd": (1, 2, 4, 5, 6, 7),
        "QLinearConvTranspose": (1, 2, 4, 5, 6, 7),
    }
    return constant(*places.get(node.proto.op_type, (1, 2, 3, 4)))(node)


def constant_unless_int32(node: Node) -> str:
    """The indices are int32, or constant."""
    if node.input_type(1).text == "tensor(int32)":
        return ""
    return constant(1)(node)


def transposed_unless_constant(node: Node) -> str:
    """B is constant, or stands transposed."""
    if node.is_constant(1) or node.attributes.get("transB", 0) == 1:
        return ""
    return "B is computed, and transB is 0"


def before_opset_11(node: Node) -> str:
    """A Pad or Resize was another then: ``GetMinSupportedOpSet`` of the accelerators' builders."""
    if node.opset >= 11:
        return ""
    return f"it is the {node.op} of opset {node.opset}, and taken from opset 11 on"


def not_negative(node: Node) -> str:
    """The pads are known, and none takes anything away."""
    pads, old = node.constant(1), before_opset_11(node)
    if old or pads is None:
        return old or "the pads are not known"
    return "" if (pads >= 0).all() else f"its pads are {pads.tolist()}"


def last_two_padded(node: Node) -> str:
    """Nothing but the last two dimensions is padded, with a constant."""
    wrong = attribute("mode", "constant", "constant")(node) or before_opset_11(node)
    pads, rank = node.constant(1), node.input_type(0).rank
    if wrong or pads is None or rank is None:
        return wrong or "the pads or the rank of its input are not known"
    axes = node.constant(3)
    each = range(rank) if axes is None else [int(axis) % rank for axis in axes.ravel()]
    half = pads.size // 2
    padded = {axis for n, axis in enumerate(each) if pads[n] != 0 or pads[half + n] != 0}
    other = sorted(axis for axis in padded if axis < rank - 2)
    return f"it pads dimension {other[0]}" if other else ""


def split_lengths(node: Node) -> tuple[list[int] | None, int | None]:
    """The lengths of the parts where they are given, and the size of the dimension that is cut."""
    data = node.input_type(0)
    axis = node.attributes.get("axis", 0)
    size = None
    if data.dims is not None and -len(data.dims) <= axis < len(data.dims):
        dim = data.dims[axis]
        size = dim if isinstance(dim, int) else None
    given = node.attributes.get("split") if node.opset < 13 else node.constant(1)
    return (None if given is None else [int(length) for length in given]), size


def even_split(node: Node) -> str:
    """The parts have the lengths of a constant, or are all of one length."""
    wrong = constant(1)(node)
    lengths, size = split_lengths(node)
    if wrong or lengths is not None:
        return wrong
    count = node.attributes.get("num_outputs", len(node.proto.output))
    if size is None:
        return "the size of the dimension that is split is not known"
    return f"{size} is not a multiple of {count}" if size % count else ""


def not_scalar(index: int) -> Question:
    """An input has at least one dimension."""

    def ask(node: Node) -> str:
        rank = node.input_type(index).rank
        if rank is None:
            return "the rank of the indices is not known"
        return "the indices are a scalar" if rank == 0 else ""

    return ask


def constant_slice(node: Node) -> str:
    """What the slice takes is constant, and not nothing."""
    wrong = constant(1, 2, 3, 4)(node)
    dims = node.output_type(0).dims
    if wrong or dims is None:
        return wrong
    return "the slice is empty" if 0 in dims else ""


def static(node: Node) -> str:
    """The shape of the first input is fixed."""
    data = node.input_type(0)
    return "" if data.static else "the shape of its input is not fixed"


def fixed_if_crd(node: Node) -> str:
    """The shape is fixed, unless the mode is DCR."""
    return static(node) if node.attributes.get("mode", "DCR") == "CRD" else ""


def zeros(name: str) -> Question:
    """An attribute is a list of zeros, or not given."""

    def ask(node: Node) -> str:
        value = node.attributes.get(name) or [0]
        return f"{name} is {value}" if any(value) else ""

    return ask


def no_reflected_linear(node: Node) -> str:
    """It is not linear with reflected padding and corners that are not aligned."""
    linear = node.attributes.get("mode", "linear") in ("linear", "bilinear")
    reflected = node.attributes.get("padding_mode", "zeros") == "reflection"
    aligned = node.attributes.get("align_corners", 0) != 0
    return (
        "it is linear, reflects, and does not align corners"
        if (linear and reflected and not aligned)
        else ""
    )


def grid_mode(node: Node) -> str:
    """The table says 'linear' or 'zeros'; these are values of two attributes."""
    return attribute("mode", "linear", "linear", "bilinear", "nearest")(node) or attribute(
        "padding_mode", "zeros", "zeros", "border", "reflection"
    )(node)


def last_axis_from_13(node: Node) -> str:
    """From opset 13 on, the axis is the last one."""
    if node.opset < 13:
        return ""
    axis, rank = node.attributes.get("axis", -1), node.input_type(0).rank
    return "" if axis == -1 or (rank is not None and axis == rank - 1) else f"its axis is {axis}"


def one_output(node: Node) -> str:
    """Nothing but the first output is asked for."""
    return "it gives indices too" if len([name for name in node.proto.output if name]) > 1 else ""


def matrices(node: Node) -> str:
    """A and B have at most two dimensions."""
    for index in range(len(node.proto.input[:2])):
        rank = node.input_type(index).rank
        if rank is None or rank > 2:
            shown = "an unknown number of" if rank is None else rank
            return f"its input {node.proto.input[index]} has {shown} dimensions"
    return ""
