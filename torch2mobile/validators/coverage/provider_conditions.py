"""The conditions in the accelerators' tables: by its text, each as a question to the node."""

from __future__ import annotations

from torch2mobile.validators.coverage import layer_predicates, node_predicates, resize
from torch2mobile.validators.coverage.node_predicates import Question

_COREML_RESIZE = (
    "See [resize_op_builder.cc](https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/"
    "providers/coreml/builders/impl/resize_op_builder.cc) implementation. There are too many "
    "permutations to describe the valid combinations."
)
# MatMul, on whose row this stands, has none of these attributes; a fused one may.
_PLAIN_MATRICES = (
    "Only support for transA == 0, alpha == 1.0 and beta == 1.0 is currently implemented."
)
CHANNELS_KNOWN = "Channels, height and width must be fixed."
NO_CEILING = "ceil_mode must be 0, and the kernel larger than 1 by 1."
NO_PADDING_COUNTED = "count_include_pad must be 0."
ONE_OUTPUT = "The indices must not be asked for."
SINGLE = "Its input must be float32."

QUESTIONS: dict[str, Question] = {
    # NNAPI and CoreML NeuralNetwork
    "Only 2D Pool is supported.": layer_predicates.pool,
    "Only 2D Conv is supported.": layer_predicates.conv(4),
    "Only 1D/2D Conv is supported.": layer_predicates.conv(3, 4),
    "Weights and bias should be constant.": layer_predicates.weights,
    "Only DCR mode DepthToSpace is supported.": node_predicates.attribute("mode", "DCR", "DCR"),
    "All quantization scales and zero points should be constant.": node_predicates.quantisation,
    "Input indices should be constant if not int32 type.": node_predicates.constant_unless_int32,
    "If input B is not constant, transB should be 1.": node_predicates.transposed_unless_constant,
    "Only constant mode Pad is supported.": node_predicates.attribute(
        "mode", "constant", "constant"
    ),
    "Input pads and constant_value should be constant.": node_predicates.constant(1, 2),
    "Input pads values should be non-negative.": node_predicates.not_negative,
    "Only 2D Resize is supported.": resize.two_dimensional_resize,
    "Number of splits must evenly divide split axis size. Input split should be constant if "
    "provided.": node_predicates.even_split,
    "Input axes should be constant.": node_predicates.constant(1),
    "Input `indices` with scalar value is not supported.": node_predicates.not_scalar(1),
    "Input B should be constant.": node_predicates.constant(1),
    "Only constant mode and last two dim padding is supported.": node_predicates.last_two_padded,
    "If provided, axes should be constant.": node_predicates.constant(3),
    "Only supports cases when both inputs are fp32.": node_predicates.kinds((0, 1), "float"),
    "Input slope should be constant.": node_predicates.constant(1),
    "Input slope should either have shape [C, 1, 1] or have 1 element.": layer_predicates.slope,
    "4D input.": node_predicates.rank(4),
    "`coordinate_transformation_mode` == `asymmetric`.": node_predicates.every(
        node_predicates.before_opset_11,
        node_predicates.attribute("coordinate_transformation_mode", "half_pixel", "asymmetric"),
    ),
    "`mode` == `linear` or `nearest`.": node_predicates.attribute(
        "mode", "nearest", "linear", "nearest"
    ),
    "`nearest_mode` == `floor`.": resize.nearest_floor,
    "`exclude_outside` == false": node_predicates.attribute("exclude_outside", 0, 0),
    "`scales` or `sizes` must be constant.": resize.resize_sizes,
    "Attribute `start` with non-default value is not supported.": node_predicates.attribute(
        "start", 0, 0
    ),
    "Attribute `end` is not supported.": node_predicates.absent("end"),
    "Inputs `starts`, `ends`, `axes`, and `steps` should be constant. Empty slice is not "
    "supported.": node_predicates.constant_slice,
    "If provided, `splits` must be constant.": node_predicates.constant(1),
    # CoreML MLProgram
    "Both inputs must be bool.": node_predicates.kinds((0, 1), "bool"),
    "Only 2D Pool is supported currently. 3D and 5D support can be added if needed.": (
        layer_predicates.pool
    ),
    "Bias if provided must be constant.": node_predicates.constant(2),
    "Weight and bias must be constant.": node_predicates.constant(1, 2),
    "padding_type of SAME_UPPER/SAME_LOWER is not supported.": node_predicates.attribute(
        "auto_pad", "NOTSET", "NOTSET", "VALID"
    ),
    "kernel_shape must have default values.": layer_predicates.default_kernel,
    "output_shape is not supported.": node_predicates.absent("output_shape"),
    "output_padding must have default values.": node_predicates.zeros("output_padding"),
    "If 'mode' is 'CRD' the input must have a fixed shape.": node_predicates.fixed_if_crd,
    "batch_dims must be 0.": node_predicates.attribute("batch_dims", 0, 0),
    "Input B must be constant.": node_predicates.constant(1),
    "'mode' of 'linear' or 'zeros'.": node_predicates.grid_mode,
    "(mode==linear && padding_mode==reflection && align_corners==0) is not supported.": (
        node_predicates.no_reflected_linear
    ),
    _PLAIN_MATRICES: node_predicates.every(
        node_predicates.attribute("transA", 0, 0),
        node_predicates.attribute("alpha", 1.0, 1.0),
        node_predicates.attribute("beta", 1.0, 1.0),
    ),
    # About how exact the result is: CoreML adds 1e-4 before it divides.
    "this ask for a `epislon` (default 1e-4) where onnx don't provide": node_predicates.always,
    _COREML_RESIZE: resize.coreml_resize,
    "starts/ends/axes/steps must be constant initializers.": node_predicates.constant(1, 2, 3, 4),
    "`repeats` may be a constant initializer or a runtime tensor (MLProgram only). Input rank up "
    "to 5.": node_predicates.rank(0, 1, 2, 3, 4, 5),
    "`X`/`Y` branches must be float or float16.": node_predicates.kinds((1, 2), "float", "float16"),
    "Produced by ORT's `QuickGeluFusion` optimizer pass. Decomposed into `mul` / `sigmoid` / "
    "`mul`.": node_predicates.always,
    "Produced by ORT's `ConvActivationFusion` pass. Decomposed into `conv` + the fused activation "
    "(`Relu`, `Sigmoid`, `Tanh`, `LeakyRelu`, `Clip`, `HardSigmoid`).": node_predicates.attribute(
        "activation", "Relu", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"
    ),
    # XNNPACK
    "Only 2D ConvTranspose is supported.": layer_predicates.conv(4),
    "all opset below 13 is supported, only support opset 13 when AXIS is the last dimension": (
        node_predicates.last_axis_from_13
    ),
    "2D/4D Resize in `Bilinear mode` are supported": resize.bilinear,
    "Only 2D Op is supported": node_predicates.matrices,
    CHANNELS_KNOWN: layer_predicates.channels_known,
    NO_CEILING: layer_predicates.no_ceiling,
    NO_PADDING_COUNTED: node_predicates.attribute("count_include_pad", 0, 0),
    ONE_OUTPUT: node_predicates.one_output,
    SINGLE: node_predicates.kinds((0,), "float"),
}
"""Every condition of the tables by its text; a test holds the installed wheel's against it."""
