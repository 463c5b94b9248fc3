"""Indices of equal values: any will do where PyTorch promises none, and no others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.records import LoadedModel, ParityOptions, Status
from torch2mobile.validators.parity import gate, probes, reference

Load = Callable[..., LoadedModel]


class Of(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


TIED = np.float32([[3, 1, 3, 0, 1, 3]])


def judged(load: Load, function: Callable[..., Any], got: Any, x: Any = TIED) -> Status:
    """The verdict on an artefact that gives ``got`` for the indices."""
    loaded = load(Of(function), f"x:float32{list(x.shape)}")
    built = [probes.Probe("tied", {"x": x})]
    expected = reference.accepted(reference.evaluate(loaded, ["y"], built))
    array = np.asarray(got).astype(expected[0].outputs[0][1].dtype)
    array = array.reshape(expected[0].outputs[0][1].shape)
    return gate.parity_check("onnx", expected, [[("y", array)]], ParityOptions()).status


def passes(*args: Any) -> bool:
    return judged(*args) is Status.PASSED


class TestTies:
    @pytest.mark.parametrize("more", [lambda i: i, lambda i: i.int(), lambda i: i.view(-1)])
    def test_the_largest_in_another_order(self, load: Load, more: Any) -> None:
        def top(x: torch.Tensor) -> torch.Tensor:
            return more(torch.topk(x, 4).indices)

        assert passes(load, top, [2, 5, 0, 4])
        assert passes(load, top, [0, 2, 5, 1])
        assert not passes(load, top, [0, 2, 5, 3]), "another value"
        assert not passes(load, top, [0, 2, 2, 1]), "one value twice"
        assert not passes(load, top, [0, 2, 9, 1]), "no value"

    def test_a_sort(self, load: Load) -> None:
        def order(x: torch.Tensor) -> torch.Tensor:
            return torch.argsort(x, descending=True)

        assert passes(load, order, [5, 2, 0, 4, 1, 3])
        assert not passes(load, order, [5, 2, 4, 0, 1, 3])

    def test_what_is_promised_is_held_to(self, load: Load) -> None:
        def stable(x: torch.Tensor) -> torch.Tensor:
            return torch.sort(x, stable=True, descending=True).indices

        assert passes(load, stable, [0, 2, 5, 1, 4, 3])
        assert not passes(load, stable, [2, 0, 5, 1, 4, 3])
        assert passes(load, lambda x: x.argmax(-1), [0])
        assert not passes(load, lambda x: x.argmax(-1), [2])

    def test_within_a_rounding_any_will_do(self, load: Load) -> None:
        near = np.float32([[1, 3, 3 + 3e-7, 2]])
        for function in (lambda x: x.argmax(1), lambda x: x.max(1).indices, torch.argmax):
            assert passes(load, function, [1], near)
            assert not passes(load, function, [0], near)

    @pytest.mark.parametrize("mask", [-1e9, torch.finfo(torch.float32).min, -torch.inf])
    def test_what_masks_others_is_no_scale_of_theirs(self, load: Load, mask: float) -> None:
        x = np.float32([[0.1, 3, 7, -1], [3, 0.1, 7, 3 + 3e-7]])

        def best(x: torch.Tensor) -> torch.Tensor:
            return x.masked_fill(x == 7, mask).argmax(-1)

        assert passes(load, best, [1, 0], x)
        assert not passes(load, best, [3, 0], x)

    def test_another_row_is_no_scale(self, load: Load) -> None:
        x = np.float32([[1e8, 0, 1, 2], [0.1, 3, 2, -1]])
        assert not passes(load, lambda x: x.argmax(-1), [0, 3], x)

    def test_whole_numbers_round_nothing(self, load: Load) -> None:
        def top(x: torch.Tensor) -> torch.Tensor:
            return torch.sort((1e6 * x).long(), descending=True).indices

        assert passes(load, top, [1, 0, 2], np.float32([[2, 2, 1]]))
        assert not passes(load, top, [1, 0, 2], np.float32([[2, 1.999999, 1]]))

    def test_conditions(self, load: Load) -> None:
        def order(x: torch.Tensor) -> torch.Tensor:
            return torch.sort(x > 1, descending=True).indices

        assert passes(load, order, [5, 2, 0, 4, 1, 3])
        assert not passes(load, order, [5, 2, 1, 4, 0, 3])

    def test_indices_that_are_written_to_are_none_any_more(self, load: Load) -> None:
        def after(x: torch.Tensor) -> torch.Tensor:
            return torch.topk(x, 1).indices.add_(1)

        x = np.float32([[5, 1, 0, 1]])
        assert passes(load, after, [1], x)
        assert not passes(load, after, [3], x)

    def test_along_another_axis(self, load: Load) -> None:
        x = np.float32([[1, 2], [1, 5], [0, 5]])
        assert passes(load, lambda x: x.topk(2, 0).indices, [[1, 2], [0, 1]], x)
        assert not passes(load, lambda x: x.topk(2, 0).indices, [[1, 0], [0, 1]], x)


def test_other_whole_numbers_have_to_be_equal(load: Load) -> None:
    assert passes(load, lambda x: torch.topk(x, 4).indices + 1, [3, 6, 1, 5])
    assert not passes(load, lambda x: torch.topk(x, 4).indices + 1, [3, 6, 1, 4])
    assert not passes(load, lambda x: (x > 1).long(), [1, 0, 1, 0, 0, 0])
