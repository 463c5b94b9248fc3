"""The catalogue of faults: each has a place in some model, keeps it valid, and shows."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from torch2mobile.records import ParityOptions
from torch2mobile.validators.parity import mutants
from torch2mobile.validators.parity.faults import catalogue
from torch2mobile.validators.parity.faults.catalogue import KINDS, Mutation, plan
from torch2mobile.validators.parity.faults.graph_changes import Graph, apply

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((3, 3, 3, 3)).astype(np.float32)
BIAS = np.array([0.5, -0.3, 0.2], np.float32)
LINE = "(float[N,4] x) => (float[N,4] y)"
ROWS = ("x:float32[N=1..3,4]",)
IMAGE = ("x:float32[N=1..2,3,H=4..8,W=4..8]",)
CONV = "(float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Conv<pads=[1,1,1,1]>(x, w, b) }"
RESIZE = '(float[N,1,4,4] x) => (float[N,1,8,8] y) { y = Resize<mode="%s">(x, , s) }'
SCALES = {"s": np.array([1, 1, 2, 2], np.float32)}
SMALL_IMAGE = ("x:float32[N=1..2,1,4,4]",)
WHOLE = ("x=-5..5",)
LSTM = "(float[T,N,2] x) => (float[T,1,N,2] y) { y = LSTM<hidden_size=2>(x, w, r, b) }"
GRU = (
    "(float[T,N,2] x) => (float[T,1,N,2] y) "
    "{ y = GRU<hidden_size=2, linear_before_reset=1>(x, w, r, b) }"
)


def array(*shape: int) -> Any:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def mutate(model: Any, **asked: Any) -> Iterator[tuple[Mutation, Any]]:
    """Each planned fault, in a copy of the model."""
    for mutation, patch in plan(model, seed=0, **asked):
        mutant = copy.deepcopy(model)
        apply(mutant, patch)
        yield mutation, mutant


@dataclass(frozen=True)
class Case:
    text: str
    inputs: tuple[str, ...] = ROWS
    values: tuple[str, ...] = ()
    tensors: dict[str, Any] = field(default_factory=dict)


def line(nodes: str, **tensors: Any) -> Case:
    return Case(f"{LINE} {{ {nodes} }}", tensors=tensors)


IMAGES = Case(CONV, IMAGE, tensors={"w": WEIGHT, "b": BIAS})
TIME = ("x:float32[T=2..6,N=1..2,2]",)
PARTS = {"w": array(1, 8, 2), "r": array(1, 8, 2), "b": array(1, 16)}
GRU_PARTS = {"w": array(1, 6, 2), "r": array(1, 6, 2), "b": array(1, 12)}
ROW = np.arange(4, dtype=np.float32) / 3

# One model or more for every kind, on which each of its faults is caught.
CASES: dict[str, list[Case]] = {
    "relu_slope": [
        line("y = Relu(x)"),
        line("y = LeakyRelu(x)"),
        line("y = PRelu(x, s)", s=ROW),
    ],
    "gelu_form": [
        line("y = Gelu(x)"),
        line('y = Gelu<approximate="tanh">(x)'),
        line(
            "u = Mul(x, r) v = Erf(u) w = Add(v, one) y = Mul(x, w)",
            r=np.float32(0.70710677),
            one=np.float32(1),
        ),
    ],
    "swish_form": [
        line("y = HardSwish(x)"),
        line("s = Sigmoid(x) y = Mul(x, s)"),
        line("s = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(s, x)"),
    ],
    "sigmoid_form": [line("y = Sigmoid(x)"), line("y = HardSigmoid(x)")],
    "smooth_form": [
        line(f"y = {op}(x)")
        for op in ("Elu", "Selu", "Celu", "Softplus", "Softsign", "Mish", "Tanh", "LogSoftmax")
    ],
    "clip_bounds": [
        line("y = Clip(x, low, high)", low=np.float32(-1), high=np.float32(1)),
        line("y = Max(x, low)", low=np.float32(-1)),
    ],
    "operand_order": [
        line("y = Sub(x, a)", a=ROW),
        line("c = Greater(x, a) y = Where(c, x, a)", a=ROW),
    ],
    "comparison_strictness": [
        Case(
            f"(int64[N,4] x) => (bool[N,4] y) {{ y = {op}(x, a) }}",
            ("x:int64[N=1..3,4]",),
            tensors={"a": np.int64(1)},
        )
        for op in ("Less", "GreaterOrEqual")
    ],
    "rounding_mode": [
        Case(
            "(int64[N,4] x) => (float[N,4] y) { h = Cast<to=1>(x) d = Mul(h, half) y = Round(d) }",
            ("x:int64[N=1..3,4]",),
            WHOLE,
            {"half": np.float32(0.5)},
        ),
        line("y = Floor(x)"),
        Case(RESIZE % "nearest", SMALL_IMAGE, tensors=SCALES),
    ],
    "integer_division": [
        Case(
            f"(int64[N,4] x) => (int64[N,4] y) {{ y = {op}(x, three) }}",
            ("x:int64[N=1..3,4]",),
            WHOLE,
            {"three": np.int64(3)},
        )
        for op in ("Div", "Mod")
    ],
    "scale_lost": [
        line("y = Mul(x, s)", s=np.float32(0.5)),
        line("y = Div(x, s)", s=np.array([2], np.float32)),
    ],
    "epsilon": [
        line("y = LayerNormalization(x, a, b)", a=ROW + 1, b=ROW),
        line(
            "q = Mul(x, x) m = ReduceMean(q, k) e = Add(m, eps) r = Sqrt(e) y = Div(x, r)",
            k=np.array([1]),
            eps=np.float32(1e-5),
        ),
    ],
    "kernel_flip": [IMAGES],
    "weight_transposed": [
        IMAGES,
        line("y = MatMul(x, w)", w=array(4, 4)),
        line("y = Gemm<transB=1>(x, w)", w=array(4, 4)),
    ],
    "bias_lost": [
        IMAGES,
        line("h = MatMul(x, w) y = Add(h, b)", w=array(4, 4), b=ROW),
        Case(LSTM, TIME, tensors=PARTS),
    ],
    "weight_float16": [
        IMAGES,
        Case(GRU, TIME, tensors=GRU_PARTS),
        # Probabilities of many classes are small, and so is what is wrong with them.
        Case(
            "(float[N,4] x) => (float[N,20000] y) { h = MatMul(x, w) y = Softmax(h) }",
            tensors={"w": array(4, 20000)},
        ),
    ],
    "weight_bfloat16": [IMAGES, line("y = MatMul(x, w)", w=array(4, 4))],
    "ulp": [
        IMAGES,
        line("h = MatMul(x, w) y = Add(h, b)", w=array(4, 4), b=ROW),
        Case(LSTM, TIME, tensors=PARTS),
    ],
    "gate_order": [Case(LSTM, TIME, tensors=PARTS), Case(GRU, TIME, tensors=GRU_PARTS)],
    "rnn_direction": [
        Case(LSTM, TIME, tensors=PARTS),
        Case(
            LSTM.replace("[T,1,", "[T,2,").replace("=2>", '=2, direction="bidirectional">'),
            TIME,
            tensors={"w": array(2, 8, 2), "r": array(2, 8, 2), "b": array(2, 16)},
        ),
    ],
    "gru_reset": [Case(GRU, TIME, tensors=GRU_PARTS)],
    "pad_side": [IMAGES],
    "pad_mode": [
        Case(
            "(float[N,4] x) => (float[N,6] y) { y = Pad(x, p) }",
            tensors={"p": np.array([0, 1, 0, 1])},
        ),
        Case(
            "(bool[N,4] x) => (bool[N,6] y) { y = Pad(x, p, v) }",
            ("x:bool[N=1..3,4]",),
            tensors={"p": np.array([0, 1, 0, 1]), "v": np.True_},
        ),
        Case(
            '(float[N,4] x) => (float[N,6] y) { y = Pad<mode="reflect">(x, p) }',
            tensors={"p": np.array([0, 1, 0, 1])},
        ),
    ],
    "pool_border": [
        Case(
            "(float[N,3,6,6] x) => (float[N,3,h,w] y) { y = AveragePool<kernel_shape=[2,2], "
            "strides=[2,2], pads=[1,1,0,0], ceil_mode=1>(x) }",
            ("x:float32[N=1..2,3,6,6]",),
        ),
    ],
    "reduce_kind": [
        Case(
            f"(float[N,4] x) => (float[N,1] y) {{ y = {op}(x, k) }}",
            tensors={"k": np.array([1])},
        )
        for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2")
    ]
    + [
        Case(
            "(float[N,3,H,W] x) => (float[N,3,h,w] y) { y = MaxPool<kernel_shape=[2,2]>(x) }", IMAGE
        ),
        Case("(float[N,3,H,W] x) => (float[N,3,1,1] y) { y = GlobalAveragePool(x) }", IMAGE),
    ],
    "axis": [
        Case(
            "(float[N,3,4] x) => (float[N,3,4] y) { y = Softmax<axis=-1>(x) }",
            ("x:float32[N=1..3,3,4]",),
        ),
        Case(
            "(float[N,3,4] x) => (float[N,3,4] y) { m = ReduceMean(x, k) y = Sub(x, m) }",
            ("x:float32[N=1..3,3,4]",),
            tensors={"k": np.array([-1])},
        ),
    ],
    "resize_coordinates": [Case(RESIZE % "linear", SMALL_IMAGE, tensors=SCALES)],
    "align_corners": [Case(RESIZE % "linear", SMALL_IMAGE, tensors=SCALES)],
    "resize_mode": [
        Case(RESIZE % mode, SMALL_IMAGE, tensors=SCALES) for mode in ("linear", "nearest", "cubic")
    ],
    "grid_mode": [
        Case(
            "(float[N,1,4,4] x, float[N,3,3,2] g) => (float[N,1,3,3] y) { y = GridSample(x, g) }",
            ("x:float32[N=1..2,1,4,4]", "g:float32[N,3,3,2]"),
        ),
    ],
    "transpose_perm": [
        Case(
            "(float[N,3,3] x) => (float[N,3,3] y) { y = Transpose<perm=[0,2,1]>(x) }",
            ("x:float32[N=1..3,3,3]",),
        ),
        Case(
            "(float[N,2,3] x) => (float[N,6] y) "
            "{ t = Transpose<perm=[0,2,1]>(x) y = Reshape(t, s) }",
            ("x:float32[N=1..3,2,3]",),
            tensors={"s": np.array([-1, 6])},
        ),
    ],
    "pixel_shuffle": [
        Case(
            "(float[N,8,2,2] x) => (float[N,2,4,4] y) "
            '{ y = DepthToSpace<blocksize=2, mode="CRD">(x) }',
            ("x:float32[N=1..2,8,2,2]",),
        ),
    ],
    "gather_index": [
        Case(
            "(float[N,4] x) => (float[N] y) { y = Gather<axis=1>(x, i) }",
            tensors={"i": np.int64(3)},
        ),
    ],
    "concat_order": [
        Case("(float[N,4] x) => (float[N,8] y) { m = Neg(x) y = Concat<axis=1>(x, m) }"),
    ],
    "slice_bounds": [
        Case(
            "(float[N,4] x) => (float[N,2] y) { y = Slice(x, a, b, k) }",
            tensors={"a": np.array([0]), "b": np.array([2]), "k": np.array([1])},
        ),
    ],
    "split_order": [
        Case(
            "(float[N,4] x) => (float[N,2] y) "
            "{ a, b = Split<axis=1, num_outputs=2>(x) y = Sub(a, b) }"
        ),
    ],
    "cast_narrow": [
        line("y = MatMul(x, w)", w=array(4, 4)),
        Case(
            "(int64[N,4] x) => (int64[N,4] y) { f = Cast<to=1>(x) y = Cast<to=7>(f) }",
            ("x:int64[N=1..3,4]",),
            ("x=0..5000",),
        ),
    ],
    "argmax_tie": [Case("(float[N,4] x) => (int64[N,1] y) { y = ArgMax<axis=1>(x) }")],
    "topk_order": [
        Case(
            "(float[N,4] x) => (float[N,2] y) { y, i = TopK(x, k) }", tensors={"k": np.array([2])}
        ),
    ],
    "nan_ignored": [
        line("u = Log(x) y = Max(u, x)"),
        line("u = Log(x) n = IsNaN(u) y = Where(n, c, u)", c=np.float32(7)),
    ],
    "rows_swapped": [
        Case(
            "(int64[N,4] x) => (float[N,4,3] y) { y = Gather(t, x) }",
            ("x:int64[N=1..3,4]",),
            ("x=0..8",),
            {"t": array(9, 3)},
        )
    ],
    "index_clamped": [
        Case(
            "(int64[N,4] x) => (float[N,4,3] y) { y = Gather(t, x) }",
            ("x:int64[N=1..3,4]",),
            ("x=0..8",),
            {"t": array(9, 3)},
        )
    ],
    "int32_truncation": [
        Case(
            "(int64[N,4] x) => (int64[N,4] y) { y = Mul(x, k) }",
            ("x:int64[N=1..3,4]",),
            WHOLE,
            {"k": np.int64(2**31)},
        )
    ],
    "window_lost": [
        line(
            "a = Less(x, b) c = Greater(x, d) e = And(a, c) z = Neg(x) y = Where(e, z, x)",
            b=np.float32(1),
            d=np.float32(0),
        )
    ],
    "one_size": [line("y = Add(x, b)", b=ROW)],
    "triangle": [Case("(float[4,4] x) => (float[4,4] y) { y = Trilu(x) }", ("x:float32[4,4]",))],
    "cumsum_form": [line("y = CumSum(x, k)", k=np.int64(1))],
    "shape_baked": [
        line("s = Shape(x) e = Expand(one, s) y = Add(x, e)", one=np.ones(1, np.float32)),
        Case(
            "(float[N,2,2] x) => (float[N,4] y) { y = Reshape(x, s) }",
            ("x:float32[N=1..3,2,2]",),
            tensors={"s": np.array([-1, 4])},
        ),
    ],
    "outputs_swapped": [
        Case("(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Neg(x) z = Exp(x) }"),
        Case(
            "(float[N,4] x) => (float[N,4] y, float[N,2] z) { y = Neg(x) z = Slice(x, a, b, k) }",
            tensors={"a": np.array([0]), "b": np.array([2]), "k": np.array([1])},
        ),
    ],
    "dim_frozen": [line("y = Neg(x)")],
}
ALL = [(kind, number) for kind, cases in CASES.items() for number in range(len(cases))]

# The same faults where they are none.
EQUIVALENT: dict[str, Case] = {
    "relu_slope": line("a = Abs(x) y = Relu(a)"),
    "clip_bounds": line(
        "s = Sigmoid(x) y = Clip(s, low, high)", low=np.float32(-1), high=np.float32(2)
    ),
    "comparison_strictness": line("g = Greater(x, a) y = Where(g, x, a)", a=np.float32(0.1234)),
    "integer_division": Case(
        "(int64[N,4] x) => (int64[N,4] y) { y = Div(x, three) }",
        ("x:int64[N=1..3,4]",),
        ("x=0..9",),
        {"three": np.int64(3)},
    ),
    "epsilon": line(
        "h = Mul(x, c) y = LayerNormalization(h, a, b)",
        c=np.full(4, 1e6, np.float32),
        a=ROW + 1,
        b=ROW,
    ),
    "bias_lost": line(
        "h = MatMul(x, w) s = Add(h, b) y = Relu(s)",
        w=np.zeros((4, 4), np.float32),
        b=np.full(4, -1, np.float32),
    ),
    "pixel_shuffle": Case(
        '(float[N,4,2,2] x) => (float[N,1,4,4] y) { y = DepthToSpace<blocksize=2, mode="CRD">(x) }',
        ("x:float32[N=1..2,4,2,2]",),
    ),
    "pool_border": Case(
        "(float[N,3,H,W] x) => (float[N,3,h,w] y) "
        "{ y = MaxPool<kernel_shape=[1,1], strides=[1,1]>(x) }",
        IMAGE,
    ),
    "cast_narrow": Case(
        "(int64[N,4] x) => (float[N,4] y) { y = Cast<to=1>(x) }", ("x:int64[N=1..3,4]",)
    ),
}


@pytest.fixture(scope="session")
def built(tiny: Callable[..., Any]) -> Callable[[Case], Any]:
    made: dict[int, Any] = {}

    def get(case: Case) -> Any:
        if id(case) not in made:
            made[id(case)] = tiny(case.text, case.inputs, case.values, **case.tensors)
        return made[id(case)]

    return get


def trial(model: Any, kind: str, **options: Any) -> Any:
    return mutants.run(
        model.copy(),
        model.specs,
        model.expected,
        ParityOptions(**options),
        count=100,
        kinds=[kind],
        evaluate=model.evaluate,
        budget=24,
    )


def test_every_kind_has_a_model_here() -> None:
    assert set(CASES) == set(KINDS)
    assert [kind for kind, found in KINDS.items() if found.control] == ["ulp"]


def test_every_kind_is_on_its_page() -> None:
    page = Path(__file__).parents[4] / "docs" / "explanation" / "mutants.md"
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", page.read_text(), re.MULTILINE)
    assert rows == [(name, kind.title) for name, kind in KINDS.items()]


@pytest.mark.parametrize(
    ("kind", "number"),
    [pytest.param(*row, marks=pytest.mark.slow if row[1] else ()) for row in ALL],
)
def test_a_fault_is_caught_and_a_control_is_not(
    built: Callable[[Case], Any], kind: str, number: int
) -> None:
    found = trial(built(CASES[kind][number]), kind)
    assert found.verdicts
    wanted = "passed" if KINDS[kind].control else "caught"
    others = [verdict for verdict in found.verdicts if verdict.outcome != wanted]
    assert not others
    assert found.share == 1


@pytest.mark.parametrize("kind", EQUIVALENT)
def test_a_fault_that_is_none_is_equivalent_for_a_reason(
    built: Callable[[Case], Any], kind: str
) -> None:
    found = trial(built(EQUIVALENT[kind]), kind)
    assert [v for v in found.verdicts if v.outcome == "equivalent"]
    assert not found.count("missed", "false alarm")
    for verdict in found.verdicts:
        if verdict.outcome == "equivalent":
            assert "probes and 24 searched inputs" in verdict.reason


@pytest.mark.parametrize(("kind", "number"), ALL)
def test_mutants_stay_valid_models_with_the_same_outputs(
    built: Callable[[Case], Any], kind: str, number: int
) -> None:
    model = built(CASES[kind][number]).model
    before = model.SerializeToString()
    names = [info.name for info in model.graph.output]
    found = list(mutate(model, count=100, kinds=[kind], sizes={"N": 2, "T": 3}))
    assert found
    assert len({(m.kind, m.node, m.what) for m, _ in found}) == len(found)
    for mutation, mutant in found:
        onnx.checker.check_model(mutant)
        assert [info.name for info in mutant.graph.output] == names
        assert mutant.SerializeToString() != before
        assert mutation.what
        if mutation.node:
            assert mutation.node in {node.name for node in model.graph.node}
            assert mutation.output in {o for node in model.graph.node for o in node.output}
    assert model.SerializeToString() == before


def test_a_weight_that_is_its_own_transpose_gives_no_mutant(
    built: Callable[[Case], Any],
) -> None:
    case = line("y = MatMul(x, w)", w=np.eye(4, dtype=np.float32))
    assert plan(built(case).model, seed=0, count=9, kinds=["weight_transposed"]) == []
    assert plan(built(case).model, seed=0, count=9, kinds=["weight_float16"]) == []


BIG = line(
    "h = MatMul(x, w) s = Add(h, b) r = Relu(s) t = MatMul(r, v) u = Add(t, b) y = Relu(u)",
    w=array(4, 4),
    v=array(4, 4) + 1,
    b=ROW,
)


def test_drawn_evenly_over_the_kinds_and_again_for_the_same_seed(
    built: Callable[[Case], Any],
) -> None:
    model = built(BIG).model
    every = plan(model, seed=3, count=1000)
    kinds = Counter(mutation.kind for mutation, _ in every)
    few = Counter(m.kind for m, _ in plan(model, seed=3, count=2 * len(kinds)))
    assert max(few.values()) <= 2 + sum(count < 2 for count in kinds.values())
    assert set(few) == set(kinds)
    again = [mutation for mutation, _ in plan(model, seed=3, count=1000)]
    assert again == [mutation for mutation, _ in every]
    other = [mutation for mutation, _ in plan(model, seed=4, count=1000)]
    assert other != again
    assert {(m.kind, m.node) for m in other} == {(m.kind, m.node) for m in again}


def test_a_shared_weight_is_changed_for_one_reader_only(built: Callable[[Case], Any]) -> None:
    case = line("h = MatMul(x, w) y = MatMul(h, w)", w=array(4, 4))
    for _, mutant in mutate(built(case).model, count=9, kinds=["weight_transposed"]):
        weights = [node.input[1] for node in mutant.graph.node]
        assert len(set(weights)) == 2
        assert "w" in weights


def test_a_fault_inside_a_branch_is_found_and_put_in_place(run_onnx: Any) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (bool c, float[4] x) => (float[4] y) {'
        " y = If (c) <then_branch = a () => (float[4] p) { p = Relu(x) },"
        " else_branch = b () => (float[4] q) { q = Neg(x) }> }"
    )
    ((mutation, mutant),) = mutate(model, count=9, kinds=["relu_slope"])
    assert mutation.output == "p"
    x = np.array([-1, 0, 1, 2], np.float32)
    for flag, same in ((True, False), (False, True)):
        feeds = {"c": np.array(flag), "x": x}
        (_, before), (_, after) = run_onnx(model, feeds)[0], run_onnx(mutant, feeds)[0]
        assert np.array_equal(before, after) is same


def test_sizes_of_symbols_are_read_from_labels() -> None:
    graph = Graph(onnx.ModelProto(), {"h": 3, "L": 5})
    assert [graph.size(x) for x in (7, "h", "8*h", "L + 1", "L - 2")] == [7, 3, 24, 6, 3]
    assert [graph.size(x) for x in (None, "k", "h*L", "((h - 1)//2)")] == [None] * 4


def test_unread_constants_leave_with_the_fault_that_replaced_them(
    built: Callable[[Case], Any],
) -> None:
    model = built(line("y = MatMul(x, w)", w=array(4, 4))).model
    ((_, patch),) = plan(model, seed=0, count=1, kinds=["weight_float16"])
    mutant = onnx.ModelProto()
    mutant.CopyFrom(model)
    apply(mutant, patch)
    assert [tensor.name for tensor in mutant.graph.initializer] == [mutant.graph.node[0].input[1]]


def test_an_unknown_kind_is_an_error(built: Callable[[Case], Any]) -> None:
    with pytest.raises(KeyError):
        plan(built(BIG).model, seed=0, count=1, kinds=["nope"])
    assert "nope" not in catalogue.KINDS
