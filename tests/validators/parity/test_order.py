"""Equal values in another order: what follows it is judged by the file's, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.records import Check, LoadedModel, ParityOptions, Status
from torch2mobile.validators.parity import gate, probes, reference
from torch2mobile.validators.parity.golden import taken_instead

Load = Callable[..., LoadedModel]

BOXES = torch.arange(12.0).reshape(6, 2)


class Best(nn.Module):
    """The boxes of the best scores, and where each stands in a row of three."""

    def __init__(self, order: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.order = order
        self.register_buffer("boxes", BOXES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows = self.order(x)
        return self.boxes[rows] * x.sum(), rows % 3


def best(x: torch.Tensor) -> torch.Tensor:
    return torch.topk(x, 3).indices


def judged(load: Load, scores: Any, rows: Any, order: Any = best, off: Any = 0) -> Check:
    """The verdict on a file that takes these rows; ``off`` is added to its boxes."""
    x = np.float32(scores)
    loaded = load(Best(order), f"x:float32[{len(x)}]")
    built = [probes.Probe("scores", {"x": x})]
    expected = reference.accepted(reference.evaluate(loaded, ["boxes", "column"], built))
    boxes = BOXES.numpy()[rows] * x.sum() + np.float32(off)
    answer = [("boxes", boxes), ("column", np.array(rows) % 3)]
    check = gate.parity_check("onnx", expected, [answer], ParityOptions())
    own = taken_instead(expected[0], answer)
    assert check.status is not Status.PASSED or (own == []) == (expected[0].order.taken == [])  # type: ignore[union-attr]
    return check


def passes(*args: Any, **kwargs: Any) -> bool:
    return judged(*args, **kwargs).status is Status.PASSED


def test_equal_values_in_order_of_index(load: Load) -> None:
    check = judged(load, [3, 1, 3, 0, 1, 3], [0, 2, 5])
    assert check.status is Status.PASSED
    assert "equal to within a rounding" in "".join(check.notes)
    assert "not compared" not in "".join(check.notes)
    assert judged(load, [3, 1, 4, 0, 2, 1], [2, 0, 4]).notes == ()


@pytest.mark.parametrize("order", [best, lambda x: torch.sort(x, descending=True).indices[:3]])
def test_in_any_order(load: Load, order: Any) -> None:
    for rows in ([5, 0, 2], [2, 5, 0]):
        assert passes(load, [3, 1, 3, 0, 1, 3], rows, order)
    assert not passes(load, [3, 1, 3, 0, 1, 3], [5, 4, 0], order), "another value"
    near = [1, 3, 3 + 3e-7, 2, 0, 0]
    assert passes(load, near, [1, 2, 3], order)
    assert passes(load, near, [2, 1, 3], order)


def test_what_does_not_follow_it_is_held_to(load: Load) -> None:
    scores = [4, 1, 3, 0, 1, 3]
    assert passes(load, scores, [0, 5, 2])
    assert not passes(load, scores, [1, 5, 2]), "another first"
    assert not passes(load, scores, [0, 5, 2], off=[[0.1, 0], [0, 0], [0, 0]])
    assert not passes(load, [5, 1, 4, 0, 1, 3], [0, 5, 2]), "the wrong order of unlike values"


def test_a_promised_order_is_held_to(load: Load) -> None:
    def stable(x: torch.Tensor) -> torch.Tensor:
        return torch.sort(x, stable=True, descending=True).indices[:3]

    assert passes(load, [4, 1, 3, 0, 1, 3], [0, 2, 5], stable)
    assert not passes(load, [4, 1, 3, 0, 1, 3], [0, 5, 2], stable)


class Many(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(float(x.numel()))[torch.topk(x, 8).indices]


def test_an_output_of_which_nothing_is_compared_is_no_pass(load: Load) -> None:
    loaded = load(Many(), "x:float32[40]")
    built = [probes.Probe("equal", {"x": np.ones(40, np.float32)})]
    expected = reference.accepted(reference.evaluate(loaded, ["y"], built))
    answer = [("y", np.arange(20, 28, dtype=np.float32))]
    check = gate.parity_check("onnx", expected, [answer], ParityOptions())
    assert check.status is Status.ERROR
    assert "order of equal values" in check.summary


def test_nothing_is_run_again_for_a_module_that_orders_nothing(load: Load) -> None:
    loaded = load(nn.Linear(4, 2), "x:float32[N,4]")
    built = [probes.Probe("example", {"x": np.ones((1, 4), np.float32)})]
    (case,) = reference.accepted(reference.evaluate(loaded, ["y"], built))
    assert case.order is not None
    assert case.order.first() is None


class Detector(nn.Module):
    """Boxes of the best of many scores, most of which a ReLU makes equal."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.box = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scores, rows = torch.relu(self.score(x)).flatten(1).topk(30, dim=1)
        boxes = self.box(x).flatten(2).transpose(1, 2)
        return scores, boxes.gather(1, rows.unsqueeze(-1).expand(-1, -1, 4))


def test_a_detector_and_its_bundle(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = torch2mobile.export(
        Detector().eval(), out=tmp_path / "out", inputs=["x:float32[N=1..2,3,8,8]"], simplify=False
    )
    assert made.report.status is Status.PASSED
    assert torch2mobile.verify(tmp_path / "out").report.status is Status.PASSED
