"""Interval arithmetic on graphs: no value that a run gives lies outside of its range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from torch2mobile.validators.parity.faults.graph_changes import Graph
from torch2mobile.validators.parity.mutating import decisions
from torch2mobile.validators.parity.mutating.equivalence import exposed
from torch2mobile.validators.parity.mutating.ranges import impossible, ranges_of

ROWS = ("x:float32[N=1..3,4]",)
LINE = "(float[N,4] x) => (float[N,4] y)"
C = np.array([-3, -0.5, 0, 2], np.float32)

# Nodes, and the range of y where x is in -2..3.
CASES: list[tuple[str, tuple[float, float]]] = [
    ("y = Relu(x)", (0, 3)),
    ("y = Abs(x)", (0, 3)),
    ("y = Neg(x)", (-3, 2)),
    ("y = Clip(x, low, high)", (-1, 1)),
    ("y = Clip(x, , high)", (-2, 1)),
    ("y = Clip(x, low)", (-1, 3)),
    ("y = Add(x, c)", (-5, 5)),
    ("y = Sub(c, x)", (-6, 4)),
    ("y = Mul(x, c)", (-9, 6)),
    ("y = Mul(x, x)", (0, 9)),
    ("y = Max(x, low)", (-1, 3)),
    ("y = Min(x, c)", (-3, 2)),
    # By its corners it would take a day.
    (f"y = Max({', '.join(['x', 'low'] * 20)})", (-1, 3)),
    ("a = ReduceMean(x, k) y = Sub(a, x)", (-5, 5)),
    ("b = Greater(x, low) y = Where(b, x, c)", (-3, 3)),
    ("b = Less(x, low) y = Cast<to=1>(b)", (-np.inf, np.inf)),
    ("y = Sigmoid(x)", (0, 1)),
    ("y = Softmax(x)", (0, 1)),
    ("a = MatMul(x, w) y = Relu(a)", (0, np.inf)),
    ("y = MatMul(x, w)", (-np.inf, np.inf)),
]


@pytest.mark.parametrize(("nodes", "ends"), CASES)
def test_a_range_holds_all_that_a_run_gives(
    tiny: Callable[..., Any], run_onnx: Any, nodes: str, ends: tuple[float, float]
) -> None:
    given = {"low": np.float32(-1), "high": np.float32(1), "c": C, "k": np.array([1])}
    given["w"] = np.ones((4, 4), np.float32)
    used = {name: array for name, array in given.items() if name in nodes.replace("(", " ")}
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, ["x=-2..3"], **used)
    known = ranges_of(Graph(model.model), model.specs)
    np.testing.assert_allclose(known["y"], ends, rtol=1e-4, atol=1e-3)
    for case in model.expected:
        for name, array in run_onnx(exposed(model.model), case.probe.feeds):
            low, high = known[name]
            assert (low <= array).all(), name
            assert (array <= high).all(), name


def test_what_is_not_declared_has_no_ends(tiny: Callable[..., Any]) -> None:
    model = tiny(f"{LINE} {{ y = Neg(x) }}", ROWS)
    assert ranges_of(Graph(model.model), model.specs)["y"] == (-np.inf, np.inf)
    model = tiny(f"{LINE} {{ y = Neg(x) }}", ROWS, ["x=normal(0, 1)"])
    assert ranges_of(Graph(model.model), model.specs)["y"] == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("nodes", "sides"),
    [
        ("y = Relu(x)", []),
        ("a = Abs(x) y = Relu(a)", [0]),
        ("a = Abs(x) n = Neg(a) y = Relu(n)", [1]),
        ("g = Greater(x, big) y = Where(g, x, x)", [1]),
        ("g = Less(x, big) y = Where(g, x, x)", [1]),
        ("a = Abs(x) y = Max(a, x)", []),
    ],
)
def test_a_side_that_cannot_be_taken_is_shown(
    tiny: Callable[..., Any], nodes: str, sides: list[int]
) -> None:
    tensors = {"big": np.float32(10)} if "big" in nodes else {}
    model = tiny(f"{LINE} {{ {nodes} }}", ROWS, ["x=-2..3"], **tensors)
    known = ranges_of(Graph(model.model), model.specs)
    found = [each for each in decisions.find(model.model) if each.op != "Abs"]
    assert impossible(found[-1], known) == sides
