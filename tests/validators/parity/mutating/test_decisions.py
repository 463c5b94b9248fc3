"""Decisions: found where the data decides, measured on both sides, and searched for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from torch2mobile.records import Location, Status
from torch2mobile.validators.parity.mutating import decisions

ROWS = ("x:float32[N=1..3,4]",)
LINE = "(float[N,4] x) => (float[N,4] y)"
ZERO = np.zeros((1, 4), np.float32)


def at(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def measured(model: onnx.ModelProto, run_onnx: Any, **feeds: Any) -> tuple[list[Any], np.ndarray]:
    found = decisions.find(model)
    made = decisions.instrument(model, found)
    onnx.checker.check_model(made.model)
    return found, made.margins(run_onnx(made.model, feeds))


# Nodes, what each decision is called, an input, and how far it goes to both sides.
CASES: list[tuple[str, dict[str, Any], list[str], Any, list[list[float]]]] = [
    ("y = Relu(x)", {}, ["y below 0", "y above 0"], at(-1, 0, 1, 3), [[1, 3]]),
    ("y = Abs(x)", {}, ["y below 0", "y above 0"], at(1, 2, 3, 4), [[-1, 4]]),
    ("y = ThresholdedRelu<alpha=2.0>(x)", {}, ["y below 2", "y above 2"], at(1, 2, 3, 4), [[1, 2]]),
    (
        "y = HardSwish(x)",
        {},
        ["y below -3", "y above -3", "y below 3", "y above 3"],
        at(-5, 0, 1, 2),
        [[2, 5], [8, -1]],
    ),
    (
        "y = HardSigmoid<alpha=0.2, beta=0.5>(x)",
        {},
        ["y below -2.5", "y above -2.5", "y below 2.5", "y above 2.5"],
        at(0, 0, 0, 3),
        [[-2.5, 5.5], [2.5, 0.5]],
    ),
    (
        "y = Clip(x, low, high)",
        {"low": np.float32(0), "high": np.float32(6)},
        ["y below 0", "y above 0", "y below 6", "y above 6"],
        at(1, 2, 3, 8),
        [[-1, 8], [5, 2]],
    ),
    ("y = Clip(x, low)", {"low": np.float32(0)}, ["y below 0", "y above 0"], ZERO, [[0, 0]]),
    (
        "h = ReduceMax<keepdims=0>(x) n = Neg(x) y = Clip(n, , h)",
        {},
        ["y below its upper bound", "y above its upper bound"],
        at(1, 2, 3, 4),
        [[8, -5]],
    ),
    ("y = Max(x, a)", {"a": at(1, 1, 1, 1)}, ["y by input 1", "y by input 0"], ZERO, [[1, -1]]),
    ("y = Min(x, a)", {"a": at(1, 1, 1, 1)}, ["y by input 0", "y by input 1"], ZERO, [[1, -1]]),
    (
        "c = Greater(x, a) y = Where(c, x, a)",
        {"a": np.float32(20)},
        ["c less", "c greater"],
        at(0, 1, 2, 3),
        [[20, -17]],
    ),
    (
        "c = IsNaN(x) y = Where(c, a, x)",
        {"a": np.float32(0)},
        ["y false", "y true"],
        at(0, 1, 2, np.nan),
        [[0.5, 0.5]],
    ),
    (
        "i = Cast<to=7>(x) c = Equal(i, a) y = Where(c, x, f)",
        {"a": np.int64(3), "f": np.float32(0)},
        ["c unequal", "c equal"],
        at(0, 1, 2, 4),
        [[0.5, -0.5]],
    ),
]


@pytest.mark.parametrize(("nodes", "tensors", "labels", "x", "margins"), CASES)
def test_a_decision_is_measured_on_both_sides(
    tiny: Callable[..., Any],
    run_onnx: Any,
    nodes: str,
    tensors: dict[str, Any],
    labels: list[str],
    x: Any,
    margins: list[list[float]],
) -> None:
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, **tensors).model
    found, got = measured(model, run_onnx, x=x)
    assert [each.label(side) for each in found for side in (0, 1)] == labels
    np.testing.assert_allclose(got, margins, rtol=1e-6)


BY_SIZE = (
    "s = Shape(x) c = Greater(s, k) f = Cast<to=1>(c) m = ReduceMax<keepdims=0>(f) y = Add(x, m)"
)


@pytest.mark.parametrize(
    ("nodes", "tensors"),
    [
        ("r = Relu(w) y = Add(x, r)", {"w": np.float32(1)}),
        (BY_SIZE, {"k": np.int64(2)}),
        ("y = Tanh(x)", {}),
    ],
)
def test_what_does_not_hang_on_the_data_is_no_decision(
    tiny: Callable[..., Any], nodes: str, tensors: dict[str, Any]
) -> None:
    assert decisions.find(tiny(f"{LINE} {{ {nodes} }}", ROWS, **tensors).model) == []


@pytest.mark.parametrize(
    ("nodes", "x", "margins"),
    [
        ("c = And(p, q)", at(2, 2, 2, 2), [0.5, -3]),
        ("c = And(p, q)", at(0, 0, 0, 0), [0.5, -5]),
        ("c = And(p, q)", at(6, 6, 6, 6), [-1, 0.5]),
        ("c = And(p, r)", at(0, 0, 2, 2), [0.5, -1]),
        ("c = Or(p, q)", at(0, 0, 0, 0.5), [0.5, -0.5]),
        ("d = Or(p, q) c = Not(d)", at(3, 3, 3, 4), [0.5, -2]),
    ],
)
def test_a_condition_of_parts_tells_how_near_it_was(
    tiny: Callable[..., Any], run_onnx: Any, nodes: str, x: Any, margins: list[float]
) -> None:
    parts = "p = Greater(x, one) q = GreaterOrEqual(x, five) r = Less(x, one)"
    text = f"{LINE} {{ {parts} {nodes} y = Where(c, one, x) }}"
    tensors = {"one": np.float32(1), "five": np.float32(5)}
    found, got = measured(tiny(text, ROWS, **tensors).model, run_onnx, x=x)
    (row,) = [number for number, each in enumerate(found) if each.op == "Where"]
    # What was taken is plainly so; what was not has what its nearest number missed by.
    np.testing.assert_allclose(got[row], margins, atol=1e-6)


def test_an_if_is_a_decision(run_onnx: Any) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]> g (bool c, float[4] x) => (float[4] y) {'
        " y = If (c) <then_branch = a () => (float[4] p) { p = Relu(x) },"
        " else_branch = b () => (float[4] q) { q = Neg(x) }> }"
    )
    found, margins = measured(model, run_onnx, c=np.array(True), x=np.zeros(4, np.float32))
    assert [each.op for each in found] == ["If"]
    assert margins.tolist() == [[-0.5, 0.5]]


def test_two_nodes_on_one_value_are_measured_once(tiny: Callable[..., Any]) -> None:
    model = tiny(f"{LINE} {{ a = Relu(x) b = Abs(x) y = Add(a, b) }}", ROWS).model
    made = decisions.instrument(model, decisions.find(model))
    assert len(made.decisions) == 2
    assert len(made.model.graph.output) == 2


def test_the_check_names_what_was_never_taken_and_where(tiny: Callable[..., Any]) -> None:
    model = tiny(f"{LINE} {{ a = Relu(x) y = HardSwish(a) }}", ROWS).model
    found = decisions.find(model)
    best = np.array([[1.0, 1.0], [-3.0, 4.0], [1.0, -0.25]])
    place = Location(module="gate", file="net.py", line=7)
    check = decisions.decisions_check("onnx", found, best, 12, 2, {"y": place})
    assert check.status is Status.PASSED
    assert check.summary == "1 of 3 taken both ways on 12 inputs, 2 of them searched for"
    assert check.metrics == {"decisions": 3, "both": 1, "inputs": 12, "added": 2}
    (table,) = check.tables
    assert table.rows == (
        ("HardSwish", "y", "below -3", 3.0, "gate", "net.py:7"),
        ("HardSwish", "y", "above 3", 0.25, "gate", "net.py:7"),
    )


def test_without_a_decision_the_check_is_skipped() -> None:
    check = decisions.decisions_check("onnx", [], np.zeros((0, 2)), 3, 0, {})
    assert check.status is Status.SKIPPED
