"""What one run tells of a module: how much work it is, and which operations it is made of."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from torch2mobile.exporter.loading import source
from torch2mobile.records import LoadedModel, ParityOptions, Request
from torch2mobile.validators.parity import reference
from torch2mobile.validators.parity.exploring import flow, offers, sides


def loaded_of(module: nn.Module, spec: str) -> LoadedModel:
    return source.from_specs("m", module.eval(), [spec], (), Request(source=""), ())


def followed(module: nn.Module, spec: str) -> flow.Flow:
    loaded = loaded_of(module, spec)
    return flow.follow(loaded, reference.example_of(loaded))


class TestWork:
    def test_a_product_has_two_operations_for_each_of_its_terms(self) -> None:
        assert followed(nn.Linear(5, 7, bias=False), "x:float32[3,5]").work == 2 * 3 * 5 * 7

    def test_a_convolution(self) -> None:
        module = nn.Conv2d(3, 4, 3, bias=False)
        assert followed(module, "x:float32[1,3,6,6]").work == 2 * 4 * (3 * 3 * 3) * (4 * 4)

    def test_an_encoder_that_torch_runs_as_one_operator(self) -> None:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        found = followed(nn.TransformerEncoder(layer, 2), "x:float32[2,5,8]")
        assert found.work > 2 * (2 * 5) * (4 * 8 * 8 + 2 * 8 * 16) * 2 * 0.9
        assert torch.backends.mha.get_fastpath_enabled()

    def test_attention_alone(self) -> None:
        class Attends(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return nn.functional.scaled_dot_product_attention(x, x, x)

        found = followed(Attends(), "x:float32[2,3,16,8]")
        assert found.work == 2 * (2 * 2 * 3 * 16 * 16 * 8)

    def test_where_there_is_none(self) -> None:
        assert followed(nn.ReLU(), "x:float32[3]").work == 0


def test_a_search_is_not_begun_where_nothing_is_compared() -> None:
    loaded = loaded_of(nn.ReLU(), "x:float32[3]")
    found = flow.follow(loaded, reference.example_of(loaded))
    assert found.operations == {"relu"}
    assert sides.searched(loaded, [], 0, found.operations) == []


def test_sides_are_looked_at_as_long_as_that_is_quick() -> None:
    loaded = loaded_of(nn.ReLU(), "x:float32[1000,1000]")
    feeds, of = reference.example_of(loaded), sides.quickly(loaded)
    found = [bool(of(feeds)) for _ in range(80)]
    assert found[0]
    assert not found[-1]


def test_the_rows_of_a_table_are_visited_less_where_a_run_takes_long() -> None:
    loaded = loaded_of(nn.Embedding(5000, 4), "ids:int64[N=1..8,T=1..64]")
    example = reference.example_of(loaded)
    found = flow.follow(loaded, example)
    visited = []
    for work in (0, 10**10):
        seen = replace(found, work=work)
        given = offers.offers(loaded, loaded.specs, example, ParityOptions(), seen)
        visited.append([probe for probe in given if probe.label.startswith("rows of")])
    assert len(visited[0]) > len(visited[1]) == 1
    (first,) = visited[1]
    assert {0, 4999} <= set(first.feeds["ids"].ravel().tolist())
