"""The user's line behind a symptom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.exporter import capture, source, suspects
from torch2mobile.records import Capture


def captured(module: nn.Module, *args: Any) -> Capture:
    return capture.capture(source.from_call("n", module.eval(), args, {}))


def codes(places: Any) -> list[str]:
    assert all(place.file.endswith("test_suspects.py") and place.line for place in places)
    return [place.code for place in places]


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.root = Root()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = self.root(x + 1)
        return torch.log(z * y)


FINE = {"x": np.ones(2, "f4"), "y": np.ones(2, "f4")}


def test_first_nan_is_the_first_operator_that_makes_one() -> None:
    found = captured(Nested(), torch.ones(2), torch.ones(2))
    assert suspects.first_nan(found, FINE) == ()
    (place,) = suspects.first_nan(found, FINE | {"x": np.array([1, -2], "f4")})
    assert codes([place]) == ["return torch.sqrt(x)"]
    assert (place.module, place.op) == ("root", "aten.sqrt.default")
    (place,) = suspects.first_nan(found, FINE | {"y": np.array([1, -2], "f4")})
    assert codes([place]) == ["return torch.log(z * y)"]
    assert (place.module, place.op) == ("", "aten.log.default")


def test_inputs_that_do_not_fit_give_no_hint() -> None:
    found = captured(Nested(), torch.ones(2), torch.ones(2))
    assert suspects.first_nan(found, FINE | {"x": np.ones((3, 3), "f4")}) == ()


class Random(nn.Module):
    """Every other line is random."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop(x)
        x = F.dropout(x, training=True)
        x = F.rrelu(x)
        x = F.rrelu(x, training=True)
        x = F.scaled_dot_product_attention(x, x, x)
        x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)
        x = torch.empty_like(x).fill_(1) * x
        x = x + torch.normal(x, 1.0)
        x = torch.nn.functional.normalize(x)
        return x + torch.rand(2, 2)


def test_random_operators_are_named_and_no_others() -> None:
    found = suspects.random_operators(captured(Random(), torch.ones(1, 2, 2)))
    assert codes(found) == [
        "x = F.dropout(x, training=True)",
        "x = F.rrelu(x, training=True)",
        "x = F.scaled_dot_product_attention(x, x, x, dropout_p=0.5)",
        "x = x + torch.normal(x, 1.0)",
        "return x + torch.rand(2, 2)",
    ]
    assert found[0].op == "aten.dropout.default"


class Readers(nn.Module):
    def forward(self, image: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        gain = gain * 1.0
        factor = gain.mean()
        return image * factor


def test_readers_of_an_input() -> None:
    found = captured(Readers(), torch.ones(2), torch.ones(2))
    assert codes(suspects.readers_of(found, "gain")) == [
        "gain = gain * 1.0",
        "factor = gain.mean()",
    ]
    assert codes(suspects.readers_of(found, "image")) == ["return image * factor"]
    assert suspects.readers_of(found, "nothing") == ()


def test_readers_where_there_is_no_source() -> None:
    program = torch.export.export(Readers(), (torch.ones(2), torch.ones(2)))
    loaded = source.from_call(
        "n", program.module(), (torch.ones(2), torch.ones(2)), {}, program=program
    )
    assert suspects.readers_of(capture.capture(loaded), "gain") == ()


@pytest.mark.parametrize("name", ["first_nan", "random_operators"])
def test_a_trace_has_no_graph_to_look_at(name: str) -> None:
    found = replace(captured(Root(), torch.ones(2)), program=None)
    arguments = (FINE,) if name == "first_nan" else ()
    assert getattr(suspects, name)(found, *arguments) == ()
