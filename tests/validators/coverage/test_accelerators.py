"""Every condition of the accelerators' lists, met and not met, on a node of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models as models
import onnxruntime
import pytest
from onnx import TensorProto, helper

from torch2mobile.errors import MissingToolError
from torch2mobile.validators.coverage import accelerators, flops, graph, provider_conditions
from torch2mobile.validators.coverage.accelerators import ACCELERATORS, Accelerator, Answer

F, H, INT = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
BOOL, UINT8, INT32 = TensorProto.BOOL, TensorProto.UINT8, TensorProto.INT32
IMAGE = [1, 4, 8, 8]


def f(*dims: int) -> np.ndarray:
    return np.ones(dims, np.float32)


def i(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def _conv(rank: int = 2, **options: Any) -> onnx.ModelProto:
    return models.one("Conv", [1, 4, *[8] * rank], constants={"w": f(2, 4, *[3] * rank)}, **options)


def _transposed(**options: Any) -> onnx.ModelProto:
    weights = {"constants": {"w": f(4, 2, 3, 3)}, **options}
    return models.one("ConvTranspose", IMAGE, **weights)


def _computed(op: str, dims: Any, other: Any, kind: int = F, **options: Any) -> onnx.ModelProto:
    return models.one(op, dims, more=[("z", kind, other)], **options)


def _resize(coordinates: str = "asymmetric", **options: Any) -> onnx.ModelProto:
    given = {"mode": "nearest", "nearest_mode": "floor", **options}
    scales = given.pop("scales", [1, 1, 2, 2])
    dims = given.pop("dims", IMAGE)
    return models.one(
        "Resize",
        dims,
        constants={"s": np.array(scales, np.float32)},
        order=["x", "", "s"],
        coordinate_transformation_mode=coordinates,
        **given,
    )


def _resized_to(*sizes: int, coordinates: str = "half_pixel", **options: Any) -> onnx.ModelProto:
    return models.one(
        "Resize",
        IMAGE,
        constants={"s": i(*sizes)},
        order=["x", "", "", "s"],
        coordinate_transformation_mode=coordinates,
        **{"mode": "linear", **options},
    )


def _pad(*pads: int, rank: int = 4, **options: Any) -> onnx.ModelProto:
    return models.one("Pad", [2] * rank, constants={"p": i(*pads)}, **options)


def _quantised(constant: bool) -> onnx.ModelProto:
    scale = {"s": np.float32(0.1), "z": np.uint8(3)}
    if constant:
        return models.one("QuantizeLinear", [4], constants=scale, out=UINT8)
    return models.one("QuantizeLinear", [4], more=[("s", F, []), ("z", UINT8, [])], out=UINT8)


def _split(axis_size: int, parts: int, lengths: Any = None) -> onnx.ModelProto:
    if lengths is None:
        return models.one("Split", [axis_size], outputs=parts, num_outputs=parts)
    if isinstance(lengths, str):
        return models.one("Split", [axis_size], outputs=parts, more=[("n", INT, [parts])])
    return models.one("Split", [axis_size], outputs=parts, constants={"n": i(*lengths)})


def _gather(indices: Any, kind: int = INT) -> onnx.ModelProto:
    if indices is None:
        return _computed("Gather", [4, 4], [2], kind=kind)
    return models.one("Gather", [4, 4], constants={"n": np.array(indices, np.int64)})


def _where(kind: int) -> onnx.ModelProto:
    more = [("a", kind, [4]), ("b", kind, [4])]
    return models.one("Where", [4], kind=BOOL, out=kind, more=more)


def _grid(**options: Any) -> onnx.ModelProto:
    rank = options.pop("rank", 4)
    return models.one(
        "GridSample",
        [1, 1, *[4] * (rank - 2)],
        more=[("g", F, [1, *[4] * (rank - 2), rank - 2])],
        **options,
    )


def _matmul(constant: bool, rank: int = 2) -> onnx.ModelProto:
    dims = [*[1] * (rank - 2), 4, 4]
    if constant:
        return models.one("MatMul", dims, constants={"b": f(4, 4)})
    return _computed("MatMul", dims, [4, 4])


# (accelerator, a node that meets all conditions, one that does not, a word of the reason)
CASES: dict[str, tuple[str, onnx.ModelProto, onnx.ModelProto, str]] = {
    "pool": (
        "nnapi",
        models.one("MaxPool", IMAGE, kernel_shape=[2, 2]),
        models.one("MaxPool", [1, 4, 8], kernel_shape=[2]),
        "1 dimensions",
    ),
    "global pool": (
        "nnapi",
        models.one("GlobalAveragePool", IMAGE),
        models.one("GlobalAveragePool", [1, 4, 8]),
        "3 dimensions",
    ),
    "2-D convolution": ("nnapi", _conv(2), _conv(1), "not 4"),
    "constant weights": ("nnapi", _conv(2), _computed("Conv", IMAGE, [2, 4, 3, 3]), "computed"),
    "1-D convolution": ("coreml-nn", _conv(1), _conv(3), "not 3 or 4"),
    "DCR": (
        "nnapi",
        models.one("DepthToSpace", IMAGE, blocksize=2),
        models.one("DepthToSpace", IMAGE, blocksize=2, mode="CRD"),
        "CRD",
    ),
    "quantisation": ("nnapi", _quantised(True), _quantised(False), "computed"),
    "int32 indices": ("nnapi", _gather(None, INT32), _gather(None), "computed"),
    "constant indices": ("nnapi", _gather([1]), _gather(None), "computed"),
    "Gemm": (
        "nnapi",
        _computed("Gemm", [2, 4], [3, 4], transB=1),
        _computed("Gemm", [2, 4], [4, 3]),
        "transB is 0",
    ),
    "Gemm's B": (
        "coreml-nn",
        models.one("Gemm", [2, 4], constants={"b": f(4, 3)}),
        _computed("Gemm", [2, 4], [4, 3]),
        "computed",
    ),
    "Gemm's B in a program": (
        "coreml",
        models.one("Gemm", [2, 4], constants={"b": f(4, 3)}),
        _computed("Gemm", [2, 4], [4, 3]),
        "computed",
    ),
    "MatMul's B": ("coreml-nn", _matmul(True), _matmul(False), "computed"),
    "padding mode": (
        "nnapi",
        _pad(*[0, 0, 1, 1] * 2),
        _pad(*[0, 0, 1, 1] * 2, mode="edge"),
        "edge",
    ),
    "constant pads": (
        "nnapi",
        _pad(*[0, 0, 1, 1] * 2),
        _computed("Pad", [2] * 4, [8], INT),
        "computed",
    ),
    "negative pads": ("nnapi", _pad(*[0, 0, 1, 1] * 2), _pad(0, 0, -1, 0, *[0] * 4), "-1"),
    "last two": (
        "coreml-nn",
        _pad(0, 0, 1, 0, *[0] * 4),
        _pad(0, 1, 0, 0, *[0] * 4),
        "dimension 1",
    ),
    "an older Pad": (
        "nnapi",
        _pad(*[0, 0, 1, 1] * 2),
        models.one("Pad", [2] * 4, pads=[0, 0, 1, 1] * 2, opset=10),
        "taken from opset 11",
    ),
    "an older Pad for CoreML": (
        "coreml-nn",
        _pad(*[0, 0, 1, 1] * 2),
        models.one("Pad", [2] * 4, pads=[0, 0, 1, 1] * 2, opset=10),
        "taken from opset 11",
    ),
    "an older Resize": (
        "coreml-nn",
        _resize(),
        models.one("Resize", IMAGE, constants={"s": f(4)}, mode="nearest", opset=10),
        "taken from opset 11",
    ),
    "padded axes": (
        "coreml-nn",
        models.one("Pad", IMAGE, constants={"p": i(1, 1), "a": i(3)}, order=["x", "p", "", "a"]),
        models.one(
            "Pad",
            IMAGE,
            constants={"p": i(0, 0, 0, 1, 0, 0, 0, 1)},
            more=[("a", INT, [4])],
            order=["x", "p", "", "a"],
        ),
        "computed",
    ),
    "2-D resize": ("nnapi", _resize(), _resize(scales=[1, 2, 2, 2]), "channels"),
    "even split": ("nnapi", _split(6, 3), _split(7, 3), "not a multiple of 3"),
    "constant split": ("nnapi", _split(6, 2, [2, 4]), _split(6, 2, "computed"), "computed"),
    "split of CoreML": ("coreml", _split(6, 2, [2, 4]), _split(6, 2, "computed"), "computed"),
    "axes": (
        "nnapi",
        models.one("Squeeze", [1, 4], constants={"a": i(0)}),
        _computed("Squeeze", [1, 4], [1], INT),
        "computed",
    ),
    "scalar indices": ("coreml-nn", _gather([1]), _gather(1), "scalar"),
    "float32 powers": (
        "coreml-nn",
        _computed("Pow", [4], [4]),
        _computed("Pow", [4], [4], INT),
        "int64",
    ),
    "slope": (
        "coreml-nn",
        models.one("PRelu", IMAGE, constants={"s": f(4, 1, 1)}),
        models.one("PRelu", IMAGE, constants={"s": f(4, 8, 8)}),
        "[4, 8, 8]",
    ),
    "constant slope": (
        "coreml-nn",
        models.one("PRelu", IMAGE, constants={"s": f(1)}),
        _computed("PRelu", IMAGE, [1]),
        "computed",
    ),
    "coordinates": ("coreml-nn", _resize(), _resize("half_pixel"), "half_pixel"),
    "resize mode": (
        "coreml-nn",
        _resize(mode="linear", coordinates="asymmetric"),
        models.one(
            "Resize",
            IMAGE,
            constants={"s": f(4)},
            order=["x", "", "s"],
            coordinate_transformation_mode="asymmetric",
            mode="cubic",
        ),
        "cubic",
    ),
    "nearest mode": ("coreml-nn", _resize(), _resize(nearest_mode="ceil"), "ceil"),
    "exclude outside": ("coreml-nn", _resize(), _resize(exclude_outside=1), "exclude_outside"),
    "constant scales": (
        "coreml-nn",
        _resize(),
        models.one(
            "Resize",
            IMAGE,
            more=[("s", F, [4])],
            order=["x", "", "s"],
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
        "computed",
    ),
    "4-D resize": ("coreml-nn", _resize(), _resize(dims=[1, 4, 8], scales=[1, 1, 2]), "not 4"),
    "Shape's start": (
        "coreml-nn",
        models.one("Shape", [4], out=INT),
        models.one("Shape", [4], out=INT, start=1),
        "start",
    ),
    "Shape's end": (
        "coreml-nn",
        models.one("Shape", [4], out=INT),
        models.one("Shape", [4, 4], out=INT, end=1),
        "end",
    ),
    "slice": (
        "coreml-nn",
        models.one("Slice", [4], constants={"a": i(0), "b": i(2)}),
        models.one("Slice", [4], constants={"a": i(2), "b": i(2)}),
        "empty",
    ),
    "constant slice": (
        "coreml",
        models.one("Slice", [4], constants={"a": i(0), "b": i(2)}),
        models.one("Slice", [4], more=[("a", INT, [1]), ("b", INT, [1])]),
        "computed",
    ),
    "bool": (
        "coreml",
        models.one("And", [4], kind=BOOL, more=[("z", BOOL, [4])]),
        # ONNX allows And nothing else: a type that is not known is the only other.
        models.one("And", None, kind=TensorProto.UNDEFINED, out=BOOL, more=[("z", BOOL, [4])]),
        "",
    ),
    "pool of a program": (
        "coreml",
        models.one("AveragePool", IMAGE, kernel_shape=[2, 2]),
        models.one("AveragePool", [1, 4, 8], kernel_shape=[2]),
        "1 dimensions",
    ),
    "bias": (
        "coreml",
        models.one("Conv", IMAGE, constants={"w": f(2, 4, 3, 3), "b": f(2)}),
        models.one("Conv", IMAGE, constants={"w": f(2, 4, 3, 3)}, more=[("b", F, [2])]),
        "computed",
    ),
    "transposed weight": (
        "coreml",
        _transposed(),
        _computed("ConvTranspose", IMAGE, [4, 2, 3, 3]),
        "computed",
    ),
    "auto_pad": ("coreml", _transposed(), _transposed(auto_pad="SAME_UPPER"), "SAME_UPPER"),
    "kernel_shape": (
        "coreml",
        _transposed(kernel_shape=[3, 3]),
        _transposed(kernel_shape=[2, 2]),
        "kernel_shape",
    ),
    "output_shape": ("coreml", _transposed(), _transposed(output_shape=[10, 10]), "output_shape"),
    "output_padding": (
        "coreml",
        _transposed(output_padding=[0, 0]),
        _transposed(strides=[2, 2], output_padding=[1, 1]),
        "output_padding",
    ),
    "batch_dims": (
        "coreml",
        models.one("GatherND", [2, 4], constants={"n": np.array([[1]])}),
        models.one("GatherND", [2, 4], constants={"n": np.array([[1], [0]])}, batch_dims=1),
        "batch_dims",
    ),
    "grid rank": ("coreml", _grid(), _grid(rank=5), "5 dimensions"),
    "grid mode": ("coreml", _grid(), _grid(mode="cubic"), "cubic"),
    "grid reflection": (
        "coreml",
        _grid(padding_mode="reflection", align_corners=1),
        _grid(padding_mode="reflection"),
        "reflects",
    ),
    "MatMul's attributes": ("coreml", _matmul(False), _matmul(False, 2), ""),
    "program's resize": (
        "coreml",
        _resize("half_pixel", mode="linear"),
        _resize("half_pixel"),
        "nearest, with coordinates half_pixel",
    ),
    "whole factors": (
        "coreml",
        _resize(scales=[1, 1, 2, 3]),
        _resize(scales=[1, 1, 1.5, 1.5]),
        "no whole numbers",
    ),
    "shrinking": (
        "coreml",
        _resize(scales=[1, 1, 0.5, 0.5]),
        _resize(scales=[1, 1, 0.3, 0.3]),
        "no whole part",
    ),
    "one up, one down": ("coreml", _resize(), _resize(scales=[1, 1, 2, 0.5]), "enlarges one"),
    "asymmetric sizes": (
        "coreml",
        _resized_to(1, 4, 16, 16, coordinates="asymmetric"),
        _resize("asymmetric", mode="linear"),
        "linear, with coordinates",
    ),
    "pytorch_half_pixel": (
        "coreml",
        _resized_to(1, 4, 16, 16, coordinates="pytorch_half_pixel"),
        _resized_to(1, 4, 1, 1, coordinates="pytorch_half_pixel"),
        "pytorch",
    ),
    "antialias": (
        "coreml",
        _resized_to(1, 4, 4, 4),
        _resized_to(1, 4, 4, 4, antialias=1),
        "antialias",
    ),
    "tile": (
        "coreml",
        models.one("Tile", [2], constants={"r": i(2)}),
        models.one("Tile", [1] * 6, constants={"r": i(*[1] * 6)}),
        "6 dimensions",
    ),
    "where": ("coreml", _where(F), _where(INT), "int64"),
    "fused activation": (
        "coreml",
        models.one(
            "FusedConv",
            IMAGE,
            domain="com.microsoft",
            constants={"w": f(2, 4, 3, 3)},
            activation="Relu",
        ),
        models.one(
            "FusedConv",
            IMAGE,
            domain="com.microsoft",
            constants={"w": f(2, 4, 3, 3)},
            activation="Softplus",
        ),
        "Softplus",
    ),
    "XNNPACK's sizes": (
        "xnnpack",
        models.one("MaxPool", ["N", 4, 8, 8], kernel_shape=[2, 2]),
        models.one("MaxPool", [1, 4, "H", 8], kernel_shape=[2, 2]),
        "not all fixed",
    ),
    "XNNPACK's rounding": (
        "xnnpack",
        models.one("MaxPool", IMAGE, kernel_shape=[2, 2]),
        models.one("MaxPool", IMAGE, kernel_shape=[2, 2], ceil_mode=1),
        "ceil_mode",
    ),
    "XNNPACK's average": (
        "xnnpack",
        models.one("AveragePool", IMAGE, kernel_shape=[2, 2]),
        models.one("AveragePool", IMAGE, kernel_shape=[2, 2], count_include_pad=1),
        "count_include_pad",
    ),
    "XNNPACK's indices": (
        "xnnpack",
        models.one("MaxPool", IMAGE, kernel_shape=[2, 2]),
        models.one("MaxPool", IMAGE, kernel_shape=[2, 2], outputs=2),
        "indices",
    ),
    "XNNPACK's softmax": (
        "xnnpack",
        models.one("Softmax", [2, 4], axis=-1),
        models.one("Softmax", [2, 4], axis=0),
        "axis is 0",
    ),
    "XNNPACK's resize": ("xnnpack", _resized_to(1, 4, 16, 16), _resize(), "nearest"),
    "XNNPACK's matrices": ("xnnpack", _matmul(True), _matmul(True, 3), "3 dimensions"),
    "XNNPACK's transposed": (
        "xnnpack",
        _transposed(),
        models.one("ConvTranspose", [1, 4, 8], constants={"w": f(4, 2, 3)}),
        "not 4",
    ),
    "XNNPACK's types": (
        "xnnpack",
        models.one("Softmax", [2, 4]),
        models.one("Softmax", [2, 4], kind=H),
        "float16",
    ),
}
VACUOUS = {"bool", "MatMul's attributes"}
"""Conditions that no valid node breaks: And takes nothing but bool, MatMul has no attributes."""


def _answer(model: onnx.ModelProto, name: str) -> accelerators.NodeVerdict:
    return accelerators.place(graph.read(model), ACCELERATORS[name]).verdicts[0]


@pytest.mark.parametrize("case", CASES)
def test_a_node_that_meets_the_conditions_is_taken(case: str) -> None:
    name, good, _, _ = CASES[case]
    found = _answer(good, name)
    assert found.answer.taken, found.reason


@pytest.mark.parametrize("case", [case for case in CASES if case not in VACUOUS])
def test_a_node_that_does_not_is_not_taken_and_the_reason_said(case: str) -> None:
    name, _, bad, word = CASES[case]
    found = _answer(bad, name)
    assert not found.answer.taken
    assert word in found.reason
    if found.answer is Answer.CONDITION_NOT_MET:
        assert found.condition in provider_conditions.QUESTIONS


@pytest.mark.parametrize(
    ("dims", "answer"),
    [([1, 4, "H", 8], Answer.NOT_STATIC), ([1, 4, 8], Answer.CONDITION_NOT_MET)],
)
def test_sizes_that_vary_are_told_of_xnnpack_as_of_the_others(
    dims: list[int | str], answer: Answer
) -> None:
    model = models.one("MaxPool", dims, kernel_shape=[2] * (len(dims) - 2))
    assert _answer(model, "xnnpack").answer is answer


def _conditions() -> set[str]:
    tables = [accelerators.table(found) for found in ACCELERATORS.values()]
    return {condition for table in tables for row in table.values() for condition in row}


def test_every_condition_in_the_installed_lists_has_an_evaluator() -> None:
    assert _conditions() <= set(provider_conditions.QUESTIONS)


def test_no_evaluator_is_left_over() -> None:
    assert set(provider_conditions.QUESTIONS) <= _conditions()


def test_every_condition_that_a_node_can_break_is_broken_by_a_case() -> None:
    broken = {_answer(bad, name).condition for name, _, bad, _ in CASES.values()}
    asked = provider_conditions.QUESTIONS
    notes = {text for text, ask in asked.items() if ask.__name__ == "always"}
    # CRD with a varying size and a rank beyond CoreML's five are refused before these are asked.
    before = {
        "If 'mode' is 'CRD' the input must have a fixed shape.",
        next(text for text in provider_conditions.QUESTIONS if text.startswith("`repeats`")),
    }
    vacuous = {
        "Both inputs must be bool.",
        next(text for text in asked if text.startswith("Only support for transA")),
    }
    assert set(asked) - broken - notes - before - vacuous == set()


def test_every_row_of_the_lists_is_read() -> None:
    folder = Path(onnxruntime.__file__).parent / "tools" / "mobile_helpers"
    for accelerator in ACCELERATORS.values():
        if accelerator.table:
            text = (folder / accelerator.table).read_text(encoding="utf-8")
            rows = [line for line in text.splitlines() if line.startswith(("|ai", "|com"))]
            assert len(accelerators.table(accelerator)) == len(rows)


def test_a_condition_of_a_newer_wheel_is_never_taken_on_trust() -> None:
    listed = accelerators.read_table("|ai.onnx:Relu|Only on Sundays.|\n|ai.onnx:Sin||\n")
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Sin", ["h"], ["y"]),
    ]
    model = graph.read(models.model(nodes, [("x", F, [2])], [("y", F, [2])]))
    found = [accelerators._judge(node, ACCELERATORS["nnapi"], listed) for node in model.nodes]
    assert found[0].answer is Answer.NOT_EVALUATED
    assert not found[0].answer.taken
    assert "Only on Sundays." in found[0].reason
    assert found[1].answer is Answer.SUPPORTED


def test_a_wheel_without_the_list_is_an_error_with_a_remedy() -> None:
    with pytest.raises(MissingToolError, match="no_such_table"):
        accelerators.table(Accelerator("new", "New", "no_such_table.md"))


@pytest.mark.parametrize(
    ("model", "name", "answer"),
    [
        (models.one("HardSwish", [2]), "nnapi", Answer.NOT_LISTED),
        (models.one("Relu", ["N", 2]), "nnapi", Answer.NOT_STATIC),
        (models.one("Relu", [1] * 6), "coreml", Answer.RANK),
        (models.one("Relu", [2], kind=TensorProto.DOUBLE), "coreml", Answer.TYPE),
        (models.one("ArgMax", [2], out=INT), "coreml", Answer.SUPPORTED),
        (models.one("ReduceSum", [2]), "coreml-nn", Answer.SUPPORTED),
    ],
)
def test_the_other_answers(model: onnx.ModelProto, name: str, answer: Answer) -> None:
    assert _answer(model, name).answer is answer


def test_the_share_counts_the_arithmetic() -> None:
    """3·3·4 products and sums for each of 2·6·6 numbers, and one HardSwish for each of these."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"]),
        helper.make_node("HardSwish", ["h"], ["y"]),
    ]
    proto = models.model(nodes, [("x", F, IMAGE)], [("y", F, None)], constants={"w": f(2, 4, 3, 3)})
    found = accelerators.place(graph.read(proto), ACCELERATORS["nnapi"])
    conv, other = 2 * 2 * 6 * 6 * 4 * 3 * 3, 2 * 6 * 6
    assert found.share == pytest.approx(conv / (conv + other))
    assert found.pieces == (1,)
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    assert accelerators.place(graph.read(proto), ACCELERATORS["nnapi"]).share is None


def test_a_model_without_arithmetic_has_a_share_too() -> None:
    for mode, share in (("DCR", 1.0), ("CRD", 0.0)):
        model = models.one("DepthToSpace", IMAGE, blocksize=2, mode=mode)
        assert accelerators.place(graph.read(model), ACCELERATORS["nnapi"]).share == share


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (_matmul(True), 2 * 4 * 4 * 4),
        (models.one("Gemm", [4, 2], constants={"b": f(4, 3)}, transA=1), 2 * 2 * 3 * 4),
        (_transposed(), 2 * 4 * 8 * 8 * 2 * 3 * 3),
        (models.one("Relu", IMAGE), 4 * 8 * 8),
        (models.one("ReduceSum", [2, 5]), 10),
        (models.one("Transpose", [2, 5]), 0),
        (models.one("Relu", ["N"]), None),
        (
            models.one(
                "LSTM",
                [5, 2, 3],
                constants={"w": f(1, 16, 3), "r": f(1, 16, 4)},
                hidden_size=4,
            ),
            2 * 5 * 2 * (16 * 3 + 16 * 4),
        ),
    ],
)
def test_flops_of_a_node(model: onnx.ModelProto, expected: int | None) -> None:
    assert flops.flops(graph.read(model).nodes[0]) == expected
