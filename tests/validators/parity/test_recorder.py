"""Two runs are the same, or the operation is named with which they part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.records import LoadedModel
from torch2mobile.validators.parity import recorder

Load = Callable[..., LoadedModel]


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x + 1) * 2


def line_of(step: recorder.Step) -> str:
    own = [(file, line) for file, line in step.frames if file == __file__]
    return Path(__file__).read_text().splitlines()[own[-1][1] - 1].strip()


class TestRecording:
    def test_every_operation_with_its_line_and_module(self, load: Load) -> None:
        loaded = load(Outer(), "x:float32[2,3]")
        steps = recorder.record(loaded, [torch.ones(2, 3)]).steps
        assert [step.op for step in steps] == [
            "aten.add.Tensor",
            "aten.sqrt.default",
            "aten.mul.Tensor",
        ]
        assert [step.module for step in steps] == ["", "inner", ""]
        assert line_of(steps[1]) == "return torch.sqrt(x)"
        assert line_of(steps[2]) == "return self.inner(x + 1) * 2"

    def test_the_same_run_gives_the_same(self, load: Load) -> None:
        loaded = load(Outer(), "x:float32[2,3]")
        first, again = (recorder.record(loaded, [torch.ones(2, 3)]) for _ in range(2))
        assert recorder.first_difference(first, again) is None

    @pytest.mark.parametrize("change", [1e-7, float("nan"), -0.0])
    def test_one_value_in_one_place_is_seen(self, load: Load, change: float) -> None:
        loaded = load(Outer(), "x:float32[2,3]")
        other = torch.zeros(2, 3)
        other[1, 2] = change
        pair = recorder.first_difference(
            recorder.record(loaded, [torch.zeros(2, 3)]), recorder.record(loaded, [other])
        )
        if change == 0:  # the sum with 1 is the same
            assert pair is None
        else:
            assert pair is not None
            assert [step.op for step in pair if step] == ["aten.add.Tensor"] * 2

    def test_a_run_that_ends_early(self, load: Load) -> None:
        class Ends(nn.Module):
            left = 2

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = x + 1
                self.left -= 1
                if not self.left:
                    raise RuntimeError("worn out")
                return x * 2

        loaded = load(Ends(), "x:float32[2,3]")
        first, again = (recorder.record(loaded, [torch.ones(2, 3)]) for _ in range(2))
        assert (first.failure, again.failure) == ("", "RuntimeError: worn out")
        pair = recorder.first_difference(first, again)
        assert pair is not None
        assert pair[0] is not None
        assert pair[0].op == "aten.mul.Tensor"
        assert pair[1] is None

    def test_nan_is_marked_where_it_is_made(self, load: Load) -> None:
        loaded = load(Outer(), "x:float32[2,3]")
        steps = recorder.record(loaded, [torch.full((2, 3), -2.0)]).steps
        assert [step.nan for step in steps] == [False, True, False]

    @pytest.mark.parametrize(
        "dtype", [torch.bool, torch.int8, torch.float16, torch.bfloat16, torch.complex64]
    )
    def test_values_of_any_dtype(self, dtype: torch.dtype) -> None:
        one, other = torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)
        assert recorder.digest(one) != recorder.digest(other)
        assert recorder.digest(one) == recorder.digest(one.clone())
        assert recorder.digest(one) != recorder.digest(one[None])
        assert recorder.digest(other[:0]) != recorder.digest(other[0])

    def test_what_has_no_plain_values_does_not_stop_it(self) -> None:
        assert recorder.digest(torch.eye(3).to_sparse()) == recorder.digest(
            torch.zeros(3, 3).to_sparse()
        )


class TestRandom:
    """Every other line is random; what only could be is not marked."""

    class Random(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.drop(x)
            x = F.dropout(x, training=True)
            x = F.rrelu(x)
            x = F.rrelu(x - 1, training=True)
            x = F.scaled_dot_product_attention(x, x, x)
            x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
            x = torch.empty_like(x).fill_(1) * x
            x = x + torch.normal(x, 1.0)
            x = torch.nn.functional.normalize(x)
            return x + torch.rand(2, 2)

    def test_and_no_others(self, load: Load) -> None:
        loaded = load(self.Random().eval(), "x:float32[1,8,8]")
        steps = recorder.record(loaded, [torch.randn(1, 8, 8)]).steps
        assert list(dict.fromkeys(line_of(step) for step in steps if step.random)) == [
            "x = F.dropout(x, training=True)",
            "x = F.rrelu(x - 1, training=True)",
            "x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)",
            "x = x + torch.normal(x, 1.0)",
            "return x + torch.rand(2, 2)",
        ]


class TestProgram:
    def test_a_faithful_graph_never_departs(self, load: Load) -> None:
        from torch2mobile.exporter import capture

        loaded = load(Outer(), "x:float32[N=1..5,3]")
        program = capture.capture(loaded).program
        assert program is not None
        for size in (1, 2, 5):
            feeds = {"x": np.ones((size, 3), np.float32)}
            assert recorder.departure(loaded, program, feeds) is None

    def test_and_one_that_took_another_branch_is_caught_with_both_lines(self, load: Load) -> None:
        class Branches(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = x + 1
                if torch.compiler.is_exporting():
                    return x * 2
                return x * 3

        from torch2mobile.exporter import capture

        loaded = load(Branches(), "x:float32[N=1..5,3]")
        program = capture.capture(loaded).program
        assert program is not None
        pair = recorder.departure(loaded, program, {"x": np.ones((2, 3), np.float32)})
        assert pair is not None
        mine, graphs = pair
        assert mine is not None
        assert graphs is not None
        assert line_of(mine) == "return x * 3"
        assert line_of(graphs) == "return x * 2"
        assert mine.op == graphs.op == "aten.mul.Tensor"

    def test_a_graph_that_does_not_get_through_departs_where_it_stops(self, load: Load) -> None:
        class Reshaped(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                # Not the same operation at one row, and yet not what is wrong.
                x = x + 1 if x.shape[0] == 4 else x.add(1.0)
                return x.reshape(int(x.shape[0]), 3) * 2

        from torch2mobile.exporter import capture

        loaded = load(Reshaped(), "x:float32[2,3]")
        program = capture.capture(loaded).program
        assert program is not None
        pair = recorder.departure(loaded, program, {"x": np.ones((4, 3), np.float32)})
        assert pair is not None
        mine, graphs = pair
        assert mine is None
        assert graphs is not None
        assert line_of(graphs) == "return x.reshape(int(x.shape[0]), 3) * 2"

    def test_a_graph_as_the_module_keeps_its_lines(self, load: Load) -> None:
        from torch2mobile.exporter.loading import source

        program = torch.export.export(Outer(), (torch.ones(2, 3),))
        loaded = source.from_program("n", program)
        steps = recorder.record(loaded, [torch.ones(2, 3)]).steps
        (sqrt,) = [step for step in steps if step.op == "aten.sqrt.default"]
        assert sqrt.module == "inner"
        assert line_of(sqrt) == "return torch.sqrt(x)"


def test_watched_tensors_name_the_operation_that_writes(load: Load) -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("other", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x * 2
            self.calls.add_(1)
            return x + self.calls

    module: Any = Counts()
    loaded = load(module, "x:float32[2,3]")
    watched = [("calls", module.calls), ("other", module.other)]
    steps = recorder.record(loaded, [torch.ones(2, 3)], watched=watched).steps
    assert [(step.op, step.wrote) for step in steps if step.wrote] == [
        ("aten.add_.Tensor", ("calls",))
    ]
