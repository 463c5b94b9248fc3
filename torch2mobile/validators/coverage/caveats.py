"""The conditions in the accelerators' operator tables, each as a question to the node itself.

A condition is known by its text. It gives the reason why a node does not meet it, or "" if it does.
What cannot be seen (a rank, a size) is a reason too: the runtime refuses it for the same cause.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch2mobile.validators.coverage.graph import Node

Question = Callable[[Node], str]


def _rank(*ranks: int, index: int = 0) -> Question:
    def ask(node: Node) -> str:
        rank = node.input_type(index).rank
        if rank is None:
            return "the rank of its input is not known"
        allowed = " or ".join(str(each) for each in ranks)
        return "" if rank in ranks else f"its input has {rank} dimensions, not {allowed}"

    return ask


def _constant(*indices: int) -> Question:
    """Each of these inputs is constant, where it is given."""

    def ask(node: Node) -> str:
        for index in indices:
            if node.has_input(index) and not node.is_constant(index):
                return f"its input {node.proto.input[index]} is computed, not constant"
        return ""

    return ask


def _attribute(name: str, default: Any, *allowed: Any) -> Question:
    def ask(node: Node) -> str:
        value = node.attributes.get(name, default)
        return "" if value in allowed else f"{name} is {value!r}"

    return ask


def _absent(name: str) -> Question:
    def ask(node: Node) -> str:
        return f"{name} is {node.attributes[name]!r}" if name in node.attributes else ""

    return ask


def _kinds(indices: tuple[int, ...], *allowed: str) -> Question:
    def ask(node: Node) -> str:
        for index in indices:
            text = node.input_type(index).text
            if text.removeprefix("tensor(").removesuffix(")") not in allowed:
                return f"its input {node.proto.input[index]} is {text or 'of unknown type'}"
        return ""

    return ask


def _all(*questions: Question) -> Question:
    def ask(node: Node) -> str:
        return next((answer for question in questions if (answer := question(node))), "")

    return ask


def _always(_: Node) -> str:
    """For a note that is no condition on the node."""
    return ""


def _quantisation(node: Node) -> str:
    """Scales and zero points by their places in the operator's list of inputs."""
    places = {
        "DequantizeLinear": (1, 2),
        "QuantizeLinear": (1, 2),
        "QLinearConv": (1, 2, 4, 5, 6, 7),
        "QLinearMatMul": (1, 2, 4, 5, 6, 7),
        "QLinearAdd": (1, 2, 4, 5, 6, 7),
        "QLinearConvTranspose": (1, 2, 4, 5, 6, 7),
    }
    return _constant(*places.get(node.proto.op_type, (1, 2, 3, 4)))(node)


def _weights(node: Node) -> str:
    return _constant(*((3, 8) if node.proto.op_type == "QLinearConv" else (1, 2)))(node)


def _conv(*ranks: int) -> Question:
    def ask(node: Node) -> str:
        return _rank(*ranks, index=3 if node.proto.op_type == "QLinearConv" else 1)(node)

    return ask


def _pool(node: Node) -> str:
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None and len(kernel) != 2:
        return f"its kernel has {len(kernel)} dimensions"
    return _rank(4)(node)


def _constant_unless_int32(node: Node) -> str:
    if node.input_type(1).text == "tensor(int32)":
        return ""
    return _constant(1)(node)


def _transposed_unless_constant(node: Node) -> str:
    if node.is_constant(1) or node.attributes.get("transB", 0) == 1:
        return ""
    return "B is computed, and transB is 0"


def _not_negative(node: Node) -> str:
    pads = node.constant(1)
    if pads is None:
        return "the pads are not known"
    return "" if (pads >= 0).all() else f"its pads are {pads.tolist()}"


def _last_two_padded(node: Node) -> str:
    wrong = _attribute("mode", "constant", "constant")(node)
    pads, rank = node.constant(1), node.input_type(0).rank
    if wrong or pads is None or rank is None:
        return wrong or "the pads or the rank of its input are not known"
    axes = node.constant(3)
    each = range(rank) if axes is None else [int(axis) % rank for axis in axes.ravel()]
    half = pads.size // 2
    padded = {axis for n, axis in enumerate(each) if pads[n] != 0 or pads[half + n] != 0}
    other = sorted(axis for axis in padded if axis < rank - 2)
    return f"it pads dimension {other[0]}" if other else ""


def _split_lengths(node: Node) -> tuple[list[int] | None, int | None]:
    """The lengths of the parts where they are given, and the size of the dimension that is cut."""
    data = node.input_type(0)
    axis = node.attributes.get("axis", 0)
    size = None
    if data.dims is not None and -len(data.dims) <= axis < len(data.dims):
        dim = data.dims[axis]
        size = dim if isinstance(dim, int) else None
    given = node.attributes.get("split") if node.opset < 13 else node.constant(1)
    return (None if given is None else [int(length) for length in given]), size


def _even_split(node: Node) -> str:
    wrong = _constant(1)(node)
    lengths, size = _split_lengths(node)
    if wrong or lengths is not None:
        return wrong
    count = node.attributes.get("num_outputs", len(node.proto.output))
    if size is None:
        return "the size of the dimension that is split is not known"
    return f"{size} is not a multiple of {count}" if size % count else ""


def _not_scalar(index: int) -> Question:
    def ask(node: Node) -> str:
        rank = node.input_type(index).rank
        if rank is None:
            return "the rank of the indices is not known"
        return "the indices are a scalar" if rank == 0 else ""

    return ask


def _slope(node: Node) -> str:
    dims = node.input_type(1).dims
    if dims is None or not all(isinstance(dim, int) for dim in dims):
        return "the shape of the slope is not known"
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if math.prod(sizes) == 1 or (len(sizes) == 3 and sizes[1:] == [1, 1]):
        return ""
    return f"the slope has the shape {sizes}"


def _constant_slice(node: Node) -> str:
    wrong = _constant(1, 2, 3, 4)(node)
    dims = node.output_type(0).dims
    if wrong or dims is None:
        return wrong
    return "the slice is empty" if 0 in dims else ""


def _static(node: Node) -> str:
    data = node.input_type(0)
    return "" if data.static else "the shape of its input is not fixed"


def _fixed_if_crd(node: Node) -> str:
    return _static(node) if node.attributes.get("mode", "DCR") == "CRD" else ""


def _default_kernel(node: Node) -> str:
    kernel, weight = node.attributes.get("kernel_shape"), node.input_type(1).dims
    if kernel is None or (weight is not None and list(weight[2:]) == list(kernel)):
        return ""
    return f"kernel_shape is {kernel}, and the weight's is {weight}"


def _zeros(name: str) -> Question:
    def ask(node: Node) -> str:
        value = node.attributes.get(name) or [0]
        return f"{name} is {value}" if any(value) else ""

    return ask


def _no_reflected_linear(node: Node) -> str:
    linear = node.attributes.get("mode", "linear") in ("linear", "bilinear")
    reflected = node.attributes.get("padding_mode", "zeros") == "reflection"
    aligned = node.attributes.get("align_corners", 0) != 0
    return (
        "it is linear, reflects, and does not align corners"
        if (linear and reflected and not aligned)
        else ""
    )


def _grid_mode(node: Node) -> str:
    """The table says 'linear' or 'zeros'; these are values of two attributes."""
    return _attribute("mode", "linear", "linear", "bilinear", "nearest")(node) or _attribute(
        "padding_mode", "zeros", "zeros", "border", "reflection"
    )(node)


def _two_dimensional_resize(node: Node) -> str:
    wrong = _rank(4)(node)
    factors = resize_factors(node)
    if wrong or factors is None:
        return wrong
    return "" if factors[0] == factors[1] == 1 else "it resizes the batch or the channels"


def resize_factors(node: Node) -> list[float] | None:
    """The factor of each dimension of a Resize, where its sizes or scales are constant."""
    dims = node.input_type(0).dims
    if dims is None:
        return None
    axes = node.attributes.get("axes") or range(len(dims))
    scales, sizes = node.constant(1 if node.opset < 11 else 2), node.constant(3)
    factors: list[float] = [1.0] * len(dims)
    if sizes is not None and sizes.size:
        for axis, size in zip(axes, sizes.ravel(), strict=False):
            dim = dims[axis]
            if not isinstance(dim, int) or dim <= 0:
                return None
            factors[axis] = float(size) / dim
        return factors
    if scales is None or not scales.size:
        return None
    for axis, scale in zip(axes, scales.ravel(), strict=False):
        factors[axis] = float(scale)
    return factors


def _resize_sizes(node: Node) -> str:
    given = [index for index in (2, 3) if node.has_input(index)]
    wrong = _constant(*given)(node)
    return wrong or ("" if given else "it has neither scales nor sizes")


def _nearest_floor(node: Node) -> str:
    """``nearest_mode`` means something for the mode ``nearest`` only."""
    if node.attributes.get("mode", "nearest") != "nearest":
        return ""
    return _attribute("nearest_mode", "round_prefer_floor", "floor")(node)


def _coreml_resize(node: Node) -> str:
    """What ``ResizeOpBuilder::IsOpSupportedImpl`` of ONNX Runtime asks of an ML Program."""
    wrong = _all(
        _rank(3, 4, 5),
        _attribute("antialias", 0, 0),
        _attribute("mode", "nearest", "nearest", "linear"),
        _nearest_floor,
        _attribute("exclude_outside", 0, 0),
        _attribute("keep_aspect_ratio_policy", "stretch", "stretch"),
        _resize_sizes,
    )(node)
    return wrong or _coreml_factors(node) or _coreml_coordinates(node)


def _coreml_factors(node: Node) -> str:
    factors = resize_factors(node)
    if factors is None:
        return "its factors are not known"
    *outer, high, wide = factors
    if any(factor != 1 for factor in outer):
        return "it resizes other dimensions than the last two"
    if _resized_by_sizes(node) or (high >= 1 and wide >= 1 and (high % 1, wide % 1) == (0, 0)):
        return ""
    if high >= 1 and wide >= 1:
        return f"it enlarges by {high:g} and {wide:g}, which are no whole numbers"
    return _shrinks_evenly(node, (high, wide))


def _shrinks_evenly(node: Node, factors: tuple[float, float]) -> str:
    if max(factors) > 1:
        return "it enlarges one side and shrinks the other"
    dims = node.input_type(0).dims or ()
    for size, factor in zip(dims[-2:], factors, strict=True):
        step = round(1 / factor)
        if not isinstance(size, int) or abs(step * factor - 1) > 1e-6 or size % step:
            return f"it shrinks {size} by {factor:g}, which is no whole part of it"
    return ""


def _resized_by_sizes(node: Node) -> bool:
    sizes = node.constant(3)
    return sizes is not None and sizes.size > 0


def _coreml_coordinates(node: Node) -> str:
    mode = node.attributes.get("coordinate_transformation_mode", "half_pixel")
    if node.attributes.get("mode", "nearest") == "nearest":
        return "" if mode == "asymmetric" else f"it is nearest, with coordinates {mode}"
    sizes = node.output_type(0).dims
    if mode == "pytorch_half_pixel" and sizes is not None:
        # The two differ in a dimension of size 1 only.
        mode = "half_pixel" if all(isinstance(s, int) and s > 1 for s in sizes[-2:]) else mode
    allowed = mode in ("half_pixel", "align_corners")
    allowed = allowed or (mode == "asymmetric" and _resized_by_sizes(node))
    return "" if allowed else f"it is linear, with coordinates {mode}"


def _last_axis_from_13(node: Node) -> str:
    if node.opset < 13:
        return ""
    axis, rank = node.attributes.get("axis", -1), node.input_type(0).rank
    return "" if axis == -1 or (rank is not None and axis == rank - 1) else f"its axis is {axis}"


def _channels_known(node: Node) -> str:
    """XNNPACK's kernels are made ahead of the first run, for everything but the batch."""
    dims = node.input_type(0).dims
    if dims is None or len(dims) != 4 or not all(isinstance(dim, int) for dim in dims[1:]):
        return "channels, height and width of its input are not all fixed"
    return ""


def _no_ceiling(node: Node) -> str:
    if all(size == 1 for size in node.attributes.get("kernel_shape", ())):
        return "its kernel is 1 by 1"
    return _attribute("ceil_mode", 0, 0)(node)


def _one_output(node: Node) -> str:
    return "it gives indices too" if len([name for name in node.proto.output if name]) > 1 else ""


def _matrices(node: Node) -> str:
    for index in range(len(node.proto.input[:2])):
        rank = node.input_type(index).rank
        if rank is None or rank > 2:
            shown = "an unknown number of" if rank is None else rank
            return f"its input {node.proto.input[index]} has {shown} dimensions"
    return ""


def _bilinear(node: Node) -> str:
    wrong = _all(
        _rank(4),
        _attribute("mode", "nearest", "linear"),
        _attribute("antialias", 0, 0),
        _absent("axes"),
        _attribute("keep_aspect_ratio_policy", "stretch", "stretch"),
        _attribute("exclude_outside", 0, 0),
        _resize_sizes,
    )(node)
    factors = resize_factors(node)
    if wrong or factors is None:
        return wrong or "its factors are not known"
    return "" if factors[1] == 1 else "it resizes the channels"


_COREML_RESIZE = (
    "See [resize_op_builder.cc](https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/"
    "providers/coreml/builders/impl/resize_op_builder.cc) implementation. There are too many "
    "permutations to describe the valid combinations."
)
CHANNELS_KNOWN = "Channels, height and width must be fixed."
NO_CEILING = "ceil_mode must be 0, and the kernel larger than 1 by 1."
NO_PADDING_COUNTED = "count_include_pad must be 0."
ONE_OUTPUT = "The indices must not be asked for."
SINGLE = "Its input must be float32."

QUESTIONS: dict[str, Question] = {
    # NNAPI and CoreML NeuralNetwork
    "Only 2D Pool is supported.": _pool,
    "Only 2D Conv is supported.": _conv(4),
    "Only 1D/2D Conv is supported.": _conv(3, 4),
    "Weights and bias should be constant.": _weights,
    "Only DCR mode DepthToSpace is supported.": _attribute("mode", "DCR", "DCR"),
    "All quantization scales and zero points should be constant.": _quantisation,
    "Input indices should be constant if not int32 type.": _constant_unless_int32,
    "If input B is not constant, transB should be 1.": _transposed_unless_constant,
    "Only constant mode Pad is supported.": _attribute("mode", "constant", "constant"),
    "Input pads and constant_value should be constant.": _constant(1, 2),
    "Input pads values should be non-negative.": _not_negative,
    "Only 2D Resize is supported.": _two_dimensional_resize,
    "Number of splits must evenly divide split axis size. Input split should be constant if "
    "provided.": _even_split,
    "Input axes should be constant.": _constant(1),
    "Input `indices` with scalar value is not supported.": _not_scalar(1),
    "Input B should be constant.": _constant(1),
    "Only constant mode and last two dim padding is supported.": _last_two_padded,
    "If provided, axes should be constant.": _constant(3),
    "Only supports cases when both inputs are fp32.": _kinds((0, 1), "float"),
    "Input slope should be constant.": _constant(1),
    "Input slope should either have shape [C, 1, 1] or have 1 element.": _slope,
    "4D input.": _rank(4),
    "`coordinate_transformation_mode` == `asymmetric`.": _attribute(
        "coordinate_transformation_mode", "half_pixel", "asymmetric"
    ),
    "`mode` == `linear` or `nearest`.": _attribute("mode", "nearest", "linear", "nearest"),
    "`nearest_mode` == `floor`.": _nearest_floor,
    "`exclude_outside` == false": _attribute("exclude_outside", 0, 0),
    "`scales` or `sizes` must be constant.": _resize_sizes,
    "Attribute `start` with non-default value is not supported.": _attribute("start", 0, 0),
    "Attribute `end` is not supported.": _absent("end"),
    "Inputs `starts`, `ends`, `axes`, and `steps` should be constant. Empty slice is not "
    "supported.": _constant_slice,
    "If provided, `splits` must be constant.": _constant(1),
    # CoreML MLProgram
    "Both inputs must be bool.": _kinds((0, 1), "bool"),
    "Only 2D Pool is supported currently. 3D and 5D support can be added if needed.": _pool,
    "Bias if provided must be constant.": _constant(2),
    "Weight and bias must be constant.": _constant(1, 2),
    "padding_type of SAME_UPPER/SAME_LOWER is not supported.": _attribute(
        "auto_pad", "NOTSET", "NOTSET", "VALID"
    ),
    "kernel_shape must have default values.": _default_kernel,
    "output_shape is not supported.": _absent("output_shape"),
    "output_padding must have default values.": _zeros("output_padding"),
    "If 'mode' is 'CRD' the input must have a fixed shape.": _fixed_if_crd,
    "batch_dims must be 0.": _attribute("batch_dims", 0, 0),
    "Input B must be constant.": _constant(1),
    "'mode' of 'linear' or 'zeros'.": _grid_mode,
    "(mode==linear && padding_mode==reflection && align_corners==0) is not supported.": (
        _no_reflected_linear
    ),
    # MatMul, on whose row this stands, has none of these; a fused one may.
    "Only support for transA == 0, alpha == 1.0 and beta == 1.0 is currently implemented.": _all(
        _attribute("transA", 0, 0), _attribute("alpha", 1.0, 1.0), _attribute("beta", 1.0, 1.0)
    ),
    # About how exact the result is: CoreML adds 1e-4 before it divides.
    "this ask for a `epislon` (default 1e-4) where onnx don't provide": _always,
    _COREML_RESIZE: _coreml_resize,
    "starts/ends/axes/steps must be constant initializers.": _constant(1, 2, 3, 4),
    "`repeats` may be a constant initializer or a runtime tensor (MLProgram only). Input rank up "
    "to 5.": _rank(0, 1, 2, 3, 4, 5),
    "`X`/`Y` branches must be float or float16.": _kinds((1, 2), "float", "float16"),
    "Produced by ORT's `QuickGeluFusion` optimizer pass. Decomposed into `mul` / `sigmoid` / "
    "`mul`.": _always,
    "Produced by ORT's `ConvActivationFusion` pass. Decomposed into `conv` + the fused activation "
    "(`Relu`, `Sigmoid`, `Tanh`, `LeakyRelu`, `Clip`, `HardSigmoid`).": _attribute(
        "activation", "Relu", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"
    ),
    # XNNPACK
    "Only 2D ConvTranspose is supported.": _conv(4),
    "all opset below 13 is supported, only support opset 13 when AXIS is the last dimension": (
        _last_axis_from_13
    ),
    "2D/4D Resize in `Bilinear mode` are supported": _bilinear,
    "Only 2D Op is supported": _matrices,
    CHANNELS_KNOWN: _channels_known,
    NO_CEILING: _no_ceiling,
    NO_PADDING_COUNTED: _attribute("count_include_pad", 0, 0),
    ONE_OUTPUT: _one_output,
    SINGLE: _kinds((0,), "float"),
}
"""Every condition of the tables by its text; a test holds the installed wheel's against it."""
