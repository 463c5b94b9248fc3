"""Views in fewer nodes: the same elements at every size, and what cannot be said is left."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import parser

from torch2mobile.exporter import axis_factors, view_chains

# The graph's body, and the operators that are left of it. The first input is x[N,L,12]; another
# use of a value is a Neg, which is no view.
CASES: dict[str, tuple[str, list[str]]] = {
    "turned_back": (
        "a = Transpose<perm=[1,0,2]>(x) b = Transpose<perm=[1,0,2]>(a) y = Neg(b)",
        ["Neg"],
    ),
    "turned_twice": (
        "a = Transpose<perm=[1,0,2]>(x) b = Transpose<perm=[0,2,1]>(a) y = Neg(b)",
        ["Transpose", "Neg"],
    ),
    "a_one_that_comes_and_goes": (
        """
        zero = Constant<value_ints=[0]>() three = Constant<value_ints=[3]>()
        a = Unsqueeze(x, zero) b = Transpose<perm=[2,1,3,0]>(a) c = Squeeze(b, three) y = Neg(c)
        """,
        ["Transpose", "Neg"],
    ),
    "heads_split_after_the_turn": (
        """
        s = Constant<value_ints=[0, 0, 4, 3]>() a = Reshape(x, s)
        b = Transpose<perm=[0,2,1,3]>(a) c = Transpose<perm=[0,1,3,2]>(b) y = Neg(c)
        """,
        ["Transpose", "Reshape", "Neg"],
    ),
    "heads_in_the_batch": (
        """
        n = Shape<start=0,end=1>(x) l = Shape<start=1,end=2>(x) four = Constant<value_ints=[4]>()
        three = Constant<value_ints=[3]>() many = Mul(n, four)
        t = Transpose<perm=[1,0,2]>(x)
        s1 = Concat<axis=0>(l, many, three) a = Reshape(t, s1)
        b = Transpose<perm=[1,0,2]>(a)
        s2 = Concat<axis=0>(n, four, l, three) c = Reshape(b, s2) y = Neg(c)
        """,
        ["Reshape", "Transpose", "Neg"],
    ),
    "the_shape_is_computed": (
        """
        n = Shape<start=0,end=1>(x) l = Shape<start=1,end=2>(x) f = Constant<value_ints=[2, 6]>()
        s = Concat<axis=0>(n, l, f) a = Reshape(x, s) y = Neg(a)
        """,
        ["Reshape", "Neg"],
    ),
    "used_on_the_way": (
        """
        a = Transpose<perm=[1,0,2]>(x) b = Transpose<perm=[1,0,2]>(a)
        c = Sum(a) y = Neg(b) z = Neg(c)
        """,
        ["Transpose", "Transpose", "Sum", "Neg", "Neg"],
    ),
    "axes_that_do_not_fit": (
        """
        s1 = Constant<value_ints=[0, 0, 4, 3]>() a = Reshape(x, s1)
        b = Transpose<perm=[0,1,3,2]>(a)
        s2 = Constant<value_ints=[0, 0, 2, 6]>() c = Reshape(b, s2) y = Neg(c)
        """,
        ["Reshape", "Transpose", "Reshape", "Neg"],
    ),
    "slices_that_cut_an_axis": (
        """
        i0 = Constant<value_ints=[0]>() i6 = Constant<value_ints=[6]>()
        i12 = Constant<value_ints=[12]>() axis = Constant<value_ints=[2]>()
        a = Slice(x, i0, i6, axis) b = Slice(x, i6, i12, axis) c = Neg(b)
        y = Concat<axis=2>(c, a)
        """,
        ["Split", "Neg", "Concat"],
    ),
    "slices_of_two_sizes": (
        """
        i0 = Constant<value_ints=[0]>() i5 = Constant<value_ints=[5]>()
        i12 = Constant<value_ints=[12]>() axis = Constant<value_ints=[2]>()
        a = Slice(x, i0, i5, axis) b = Slice(x, i5, i12, axis) c = Neg(b)
        y = Concat<axis=2>(c, a)
        """,
        ["Slice", "Slice", "Neg", "Concat"],
    ),
    "slices_with_a_gap": (
        """
        i0 = Constant<value_ints=[0]>() i5 = Constant<value_ints=[5]>()
        i6 = Constant<value_ints=[6]>() i12 = Constant<value_ints=[12]>()
        axis = Constant<value_ints=[2]>()
        a = Slice(x, i0, i5, axis) b = Slice(x, i6, i12, axis) y = Concat<axis=2>(a, b)
        """,
        ["Slice", "Slice", "Concat"],
    ),
}


def outputs(model: onnx.ModelProto, **sizes: int) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    shape = [sizes.get(str(dim), dim) for dim in session.get_inputs()[0].shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return list(session.run(None, {"x": x}))


def read(body: str) -> onnx.ModelProto:
    """A graph with the shapes that symbolic inference gives it, constants as initializers."""
    gives = "float[] y, float[] z" if " z =" in body else "float[] y"
    text = f'<ir_version: 10, opset_import: ["" : 18]> g (float[N,L,12] x) => ({gives}) {{{body}}}'
    model = parser.parse_model(text)
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    known = {"c": ["N", 4, "L", 3]} if "many" in body else {}
    known |= {"a": ["L", "4*N", 3], "b": ["4*N", "L", 3]} if "many" in body else {}
    for name, dims in known.items():
        kept = [value for value in model.graph.value_info if value.name != name]
        del model.graph.value_info[:]
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, dims)
        model.graph.value_info.extend([*kept, info])
    lifted = ir.from_proto(model)
    ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(lifted)
    return ir.to_proto(lifted)


@pytest.mark.parametrize("name", CASES)
def test_fewer_nodes_give_the_same(name: str) -> None:
    body, left = CASES[name]
    before = read(body)
    model = ir.from_proto(before)
    changed = view_chains.merge(model)
    after = ir.to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert [node.op_type for node in after.graph.node] == left
    assert changed is (len(before.graph.node) != len(left) or "Split" in left)
    assert [value.name for value in after.graph.output] == [v.name for v in before.graph.output]
    for sizes in ({"N": 1, "L": 1}, {"N": 3, "L": 5}, {"N": 4, "L": 4}):
        for was, now in zip(outputs(before, **sizes), outputs(after, **sizes), strict=True):
            np.testing.assert_array_equal(was, now)


def test_an_older_opset_is_left() -> None:
    model = ir.from_proto(read(CASES["turned_back"][0]))
    model.opset_imports[""] = 11
    assert not view_chains.merge(model)


def test_a_size_without_a_name_is_left() -> None:
    before = read(CASES["turned_back"][0])
    before.graph.input[0].type.tensor_type.shape.dim[0].Clear()
    del before.graph.value_info[:]
    model = ir.from_proto(before)
    assert not view_chains.merge(model)


@pytest.mark.parametrize(
    ("size", "other", "quotient"),
    [
        (axis_factors.Size(12, ("N",)), axis_factors.Size(4), axis_factors.Size(3, ("N",))),
        (
            axis_factors.Size(4, ("h", "w")),
            axis_factors.Size(2, ("w",)),
            axis_factors.Size(2, ("h",)),
        ),
        (axis_factors.Size(4, ("N",)), axis_factors.Size(1, ("L",)), None),
        (axis_factors.Size(4), axis_factors.Size(3), None),
    ],
)
def test_a_size_divided(
    size: axis_factors.Size, other: axis_factors.Size, quotient: axis_factors.Size | None
) -> None:
    assert size.over(other) == quotient
