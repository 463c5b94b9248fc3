"""The user's line behind a symptom."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.exporter import attribute_access, capture
from torch2mobile.exporter.loading import source
from torch2mobile.records import Capture


def captured(module: nn.Module, *args: Any) -> Capture:
    return capture.capture(source.from_call("n", module.eval(), args, {}))


def codes(places: Any) -> list[str]:
    assert all(place.file.endswith("test_attribute_access.py") and place.line for place in places)
    return [place.code for place in places]


class Readers(nn.Module):
    def forward(self, image: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        gain = gain * 1.0
        factor = gain.mean()
        return image * factor


def test_readers_of_an_input() -> None:
    found = captured(Readers(), torch.ones(2), torch.ones(2))
    assert codes(attribute_access.readers_of(found, "gain")) == [
        "gain = gain * 1.0",
        "factor = gain.mean()",
    ]
    assert codes(attribute_access.readers_of(found, "image")) == ["return image * factor"]
    assert attribute_access.readers_of(found, "nothing") == ()


def test_readers_where_there_is_no_source() -> None:
    program = torch.export.export(Readers(), (torch.ones(2), torch.ones(2)))
    loaded = source.from_program("n", program)
    assert attribute_access.readers_of(capture.capture(loaded), "gain") == ()


class Base(nn.Module):
    def note(self, x: torch.Tensor) -> None:
        self.inherited = x


class Writers(Base):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.seen: list[int] = []
        self.last: deque[int] = deque()
        self.table: dict[str, int] = {}
        self.a, self.b = 0, 0
        self.untouched = 0
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += self.untouched
        self.seen.append(self.count)
        self.last.appendleft(1)
        self.table["x"] = 1
        self.a, self.b = 1, 2
        self.total.data[0] = x.sum()
        self.total.clamp_(0, 1)
        other = self.untouched
        return x + other + self.total.sum()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("count", ["self.count += self.untouched"]),
        ("seen", ["self.seen.append(self.count)"]),
        ("last", ["self.last.appendleft(1)"]),
        ("table", ['self.table["x"] = 1']),
        ("a", ["self.a, self.b = 1, 2"]),
        ("b", ["self.a, self.b = 1, 2"]),
        ("total", ["self.total.data[0] = x.sum()", "self.total.clamp_(0, 1)"]),
        ("inherited", ["self.inherited = x"]),
        ("untouched", []),
        ("absent", []),
    ],
)
def test_writers_of_an_attribute(name: str, lines: list[str]) -> None:
    whole = nn.Sequential(nn.ReLU(), Writers())
    found = attribute_access.writers_of(whole, [f"1.{name}"])
    assert codes(found) == lines
    assert {place.module for place in found} <= {"1"}


def test_writers_in_layers_of_torch_are_not_the_users() -> None:
    assert attribute_access.writers_of(nn.BatchNorm1d(3), ["num_batches_tracked"]) == ()


class Lazy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.head = nn.Linear(3, 2)
        y: torch.Tensor = self.head(x)
        return y


def test_the_weights_of_a_layer_that_a_call_makes_are_written_where_it_is_made() -> None:
    found = attribute_access.writers_of(Lazy(), ["head.weight", "head.bias"])
    assert codes(found) == ["self.head = nn.Linear(3, 2)"]
