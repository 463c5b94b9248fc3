"""Which operators of a runtime's file are layers, and which of their values."""

from __future__ import annotations

from torch2mobile.exporter.targets.connected import INPUT, connected
from torch2mobile.records import Layer


def test_what_lies_between_inputs_and_outputs() -> None:
    x = Layer("x", INPUT, (), ("x",))
    operators = [
        x,
        Layer("w", "Const", (), ("w",)),
        Layer("t", "Transpose", ("w",), ("wt",)),
        Layer("norm", "LayerNorm", ("x", "wt"), ("y", "mean", "rstd")),
        # Its out-variant has what it gives among its arguments.
        Layer("add", "add.out", ("y", "x", "y", "z"), ("y", "x", "y", "z")),
        Layer("lost", "Exp", ("z",), ("e",)),
    ]
    assert connected(operators, {"z"}) == (
        x,
        Layer("norm", "LayerNorm", ("x",), ("y",)),
        Layer("add", "add.out", ("y", "x"), ("z",)),
    )
    assert connected(operators, {"e", "mean"})[-1] == Layer("lost", "Exp", ("z",), ("e",))
    assert connected(operators, {"w"}) == ()
