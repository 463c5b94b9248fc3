"""The first capture that translates: a translation that fails is an attempt too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.errors import ExitCode, TranslateError
from torch2mobile.exporter import capture
from torch2mobile.exporter.loading import source
from torch2mobile.pipeline.capturing import captured
from torch2mobile.records import Capture, LoadedModel, Location, Request


class Half(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def loaded(module: nn.Module) -> LoadedModel:
    return source.from_specs("n", module, ["x:float32[2]"], (), Request(source=""), ())


def exported(module: nn.Module) -> Any:
    return lambda given: torch.export.export(loaded(module).flat, given.tensors)  # type: ignore[arg-type]


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """Strategies that give one graph, the same once more, and another."""
    graphs = (("first", Half()), ("again", Half()), ("other", Twice()))
    strategies = tuple((name, exported(module)) for name, module in graphs)
    monkeypatch.setattr(capture, "STRATEGIES", strategies)
    return loaded(Half())


LINE = Location(file="net.py", line=7)


def refuse(made: Capture) -> str:
    raise TranslateError(f"no {made.strategy}", "", (LINE,))


def test_the_next_strategy_is_tried(three: LoadedModel) -> None:
    made = captured(three, lambda one: "file" if one.strategy == "other" else refuse(one))
    assert (made.given(), made.capture.strategy, made.refusal) == ("file", "other", None)
    first, again, other = made.capture.attempts
    assert (first.reason, first.locations) == ("it does not translate: no first", (LINE,))
    assert again.reason == "the same graph: it does not translate"
    assert other.succeeded


def test_where_none_translates_the_first_refusal_counts_and_all_are_told(
    three: LoadedModel,
) -> None:
    made = captured(three, refuse)
    assert (made.translation, made.capture.strategy) == (None, "first")
    with pytest.raises(TranslateError, match="no first") as caught:
        made.given()
    assert [line.partition(":")[0] for line in caught.value.details] == ["first", "again", "other"]


def test_an_error_of_usage_ends_the_search(three: LoadedModel) -> None:
    def translate(made: Capture) -> str:
        error = TranslateError("no such opset")
        error.exit_code = ExitCode.USAGE
        raise error

    with pytest.raises(TranslateError, match="no such opset"):
        captured(three, translate)
