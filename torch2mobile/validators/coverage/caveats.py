"""The conditions in the accelerators' tables: by its text, each as a question to the node."""

from __future__ import annotations

from torch2mobile.validators.coverage import questions, resize
from torch2mobile.validators.coverage.questions import Question

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
    "Only 2D Pool is supported.": questions.pool,
    "Only 2D Conv is supported.": questions.conv(4),
    "Only 1D/2D Conv is supported.": questions.conv(3, 4),
    "Weights and bias should be constant.": questions.weights,
    "Only DCR mode DepthToSpace is supported.": questions.attribute("mode", "DCR", "DCR"),
    "All quantization scales and zero points should be constant.": questions.quantisation,
    "Input indices should be constant if not int32 type.": questions.constant_unless_int32,
    "If input B is not constant, transB should be 1.": questions.transposed_unless_constant,
    "Only constant mode Pad is supported.": questions.attribute("mode", "constant", "constant"),
    "Input pads and constant_value should be constant.": questions.constant(1, 2),
    "Input pads values should be non-negative.": questions.not_negative,
    "Only 2D Resize is supported.": resize.two_dimensional_resize,
    "Number of splits must evenly divide split axis size. Input split should be constant if "
    "provided.": questions.even_split,
    "Input axes should be constant.": questions.constant(1),
    "Input `indices` with scalar value is not supported.": questions.not_scalar(1),
    "Input B should be constant.": questions.constant(1),
    "Only constant mode and last two dim padding is supported.": questions.last_two_padded,
    "If provided, axes should be constant.": questions.constant(3),
    "Only supports cases when both inputs are fp32.": questions.kinds((0, 1), "float"),
    "Input slope should be constant.": questions.constant(1),
    "Input slope should either have shape [C, 1, 1] or have 1 element.": questions.slope,
    "4D input.": questions.rank(4),
    "`coordinate_transformation_mode` == `asymmetric`.": questions.every(
        questions.before_opset_11,
        questions.attribute("coordinate_transformation_mode", "half_pixel", "asymmetric"),
    ),
    "`mode` == `linear` or `nearest`.": questions.attribute("mode", "nearest", "linear", "nearest"),
    "`nearest_mode` == `floor`.": resize.nearest_floor,
    "`exclude_outside` == false": questions.attribute("exclude_outside", 0, 0),
    "`scales` or `sizes` must be constant.": resize.resize_sizes,
    "Attribute `start` with non-default value is not supported.": questions.attribute(
        "start", 0, 0
    ),
    "Attribute `end` is not supported.": questions.absent("end"),
    "Inputs `starts`, `ends`, `axes`, and `steps` should be constant. Empty slice is not "
    "supported.": questions.constant_slice,
    "If provided, `splits` must be constant.": questions.constant(1),
    # CoreML MLProgram
    "Both inputs must be bool.": questions.kinds((0, 1), "bool"),
    "Only 2D Pool is supported currently. 3D and 5D support can be added if needed.": (
        questions.pool
    ),
    "Bias if provided must be constant.": questions.constant(2),
    "Weight and bias must be constant.": questions.constant(1, 2),
    "padding_type of SAME_UPPER/SAME_LOWER is not supported.": questions.attribute(
        "auto_pad", "NOTSET", "NOTSET", "VALID"
    ),
    "kernel_shape must have default values.": questions.default_kernel,
    "output_shape is not supported.": questions.absent("output_shape"),
    "output_padding must have default values.": questions.zeros("output_padding"),
    "If 'mode' is 'CRD' the input must have a fixed shape.": questions.fixed_if_crd,
    "batch_dims must be 0.": questions.attribute("batch_dims", 0, 0),
    "Input B must be constant.": questions.constant(1),
    "'mode' of 'linear' or 'zeros'.": questions.grid_mode,
    "(mode==linear && padding_mode==reflection && align_corners==0) is not supported.": (
        questions.no_reflected_linear
    ),
    _PLAIN_MATRICES: questions.every(
        questions.attribute("transA", 0, 0),
        questions.attribute("alpha", 1.0, 1.0),
        questions.attribute("beta", 1.0, 1.0),
    ),
    # About how exact the result is: CoreML adds 1e-4 before it divides.
    "this ask for a `epislon` (default 1e-4) where onnx don't provide": questions.always,
    _COREML_RESIZE: resize.coreml_resize,
    "starts/ends/axes/steps must be constant initializers.": questions.constant(1, 2, 3, 4),
    "`repeats` may be a constant initializer or a runtime tensor (MLProgram only). Input rank up "
    "to 5.": questions.rank(0, 1, 2, 3, 4, 5),
    "`X`/`Y` branches must be float or float16.": questions.kinds((1, 2), "float", "float16"),
    "Produced by ORT's `QuickGeluFusion` optimizer pass. Decomposed into `mul` / `sigmoid` / "
    "`mul`.": questions.always,
    "Produced by ORT's `ConvActivationFusion` pass. Decomposed into `conv` + the fused activation "
    "(`Relu`, `Sigmoid`, `Tanh`, `LeakyRelu`, `Clip`, `HardSigmoid`).": questions.attribute(
        "activation", "Relu", "Relu", "Sigmoid", "Tanh", "LeakyRelu", "Clip", "HardSigmoid"
    ),
    # XNNPACK
    "Only 2D ConvTranspose is supported.": questions.conv(4),
    "all opset below 13 is supported, only support opset 13 when AXIS is the last dimension": (
        questions.last_axis_from_13
    ),
    "2D/4D Resize in `Bilinear mode` are supported": resize.bilinear,
    "Only 2D Op is supported": questions.matrices,
    CHANNELS_KNOWN: questions.channels_known,
    NO_CEILING: questions.no_ceiling,
    NO_PADDING_COUNTED: questions.attribute("count_include_pad", 0, 0),
    ONE_OUTPUT: questions.one_output,
    SINGLE: questions.kinds((0,), "float"),
}
"""Every condition of the tables by its text; a test holds the installed wheel's against it."""
