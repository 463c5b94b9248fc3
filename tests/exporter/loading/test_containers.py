from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.errors import InputError
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.loading.containers import replace, walk
from torch2mobile.records import LoadedModel, ParityOptions, Request


class Layer:
    """As transformers has one: a key and a value, which grow."""

    def __init__(self) -> None:
        self.keys: Any = None
        self.values: Any = None
        self.is_initialized = False

    def update(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys = torch.cat([self.keys, key], dim=-2) if self.is_initialized else key
        self.values = torch.cat([self.values, value], dim=-2) if self.is_initialized else value
        self.is_initialized = True
        return self.keys, self.values


class DynamicCache:
    def __init__(self) -> None:
        self.layers: list[Layer] = []


class EncoderDecoderCache:
    def __init__(self, own: DynamicCache, cross: DynamicCache) -> None:
        self.self_attention_cache, self.cross_attention_cache = own, cross
        self.is_updated: dict[int, bool] = {}


STANDINS = (Layer, DynamicCache, EncoderDecoderCache)


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in STANDINS:
        monkeypatch.setattr(kind, "__module__", "transformers.cache_utils")
    library = SimpleNamespace(
        DynamicLayer=Layer, DynamicCache=DynamicCache, EncoderDecoderCache=EncoderDecoderCache
    )
    monkeypatch.setitem(sys.modules, "transformers.cache_utils", library)


class Decoder(nn.Module):
    def forward(
        self, ids: torch.Tensor, other: Any = None, cache: DynamicCache | None = None
    ) -> dict[str, Any]:
        assert other is None
        assert cache is not None
        state = ids.float()[:, None, :, None].expand(-1, 2, -1, 4)
        for layer in cache.layers:
            keys, values = layer.update(state, 2 * state)
            state = state + (keys * values).sum(2, keepdim=True)
        return {"logits": state, "cache": cache}


class Crossing(nn.Module):
    def forward(self, ids: torch.Tensor, cache: EncoderDecoderCache) -> Any:
        assert cache.is_updated == {0: True}
        cache.is_updated[0] = False  # a copy of the call's own
        cross = cache.cross_attention_cache.layers[0]
        return ids.sum() + cross.keys + cross.values, cache.self_attention_cache


def loaded_from(module: nn.Module, *texts: str) -> LoadedModel:
    request = Request(source="", parity=ParityOptions())
    return source.from_specs("m", module.eval(), texts, (), request, ())


KEYS = [f"past.{n}.{kind}:float32[N,2,P=0..8,4]" for n in (0, 1) for kind in ("key", "value")]


@pytest.mark.usefixtures("caches")
def test_a_cache_is_nested_inputs_and_outputs(tmp_path: Any) -> None:
    found = torch2mobile.export(
        Decoder().eval(),
        inputs=["ids:int64[N=1..4,1]", *KEYS],
        out=tmp_path / "out",
        simplify=False,
        targets=(),
    )
    assert found.report.exit_code == 0, [check.summary for check in found.report.checks]
    assert found.bundle is not None
    manifest = found.bundle.manifest
    assert [spec.name for spec in manifest.inputs][1:3] == ["past_0_key", "past_0_value"]
    assert manifest.inputs[1].path == ("cache", 0, "key")
    assert [(spec.name, spec.dims[2]) for spec in manifest.outputs][1:] == [
        (f"cache_{n}_{kind}", "P + 1") for n in (0, 1) for kind in ("key", "value")
    ]


@pytest.mark.usefixtures("caches")
def test_the_cache_of_an_example_stays_as_it_is() -> None:
    cache = DynamicCache()
    cache.layers.append(Layer())
    cache.layers[0].update(torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    found = source.from_call("m", Decoder().eval(), (torch.ones(1, 1),), {"cache": cache})
    assert [spec.name for spec in found.specs] == ["ids", "cache_0_key", "cache_0_value"]
    first, second = (found.flat.call(*found.tensors) for _ in range(2))
    assert first["cache"].layers[0].keys.shape == second["cache"].layers[0].keys.shape
    assert cache.layers[0].keys.shape == (1, 2, 3, 4)


@pytest.mark.usefixtures("caches")
def test_a_cache_of_encoder_and_decoder() -> None:
    sides = [f"cache.{side}.0.{k}:float32[N,2,S,4]" for side in ("decoder", "encoder")
             for k in ("key", "value")]  # fmt: skip
    found = loaded_from(Crossing(), "ids:int64[N,1]", *sides)
    for _ in range(2):
        _, own = found.flat.call(*found.tensors)
        assert own.layers[0].keys is found.tensors[1]


@dataclass
class Batch:
    x: torch.Tensor
    scale: torch.Tensor | None = None
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        raise AssertionError("nothing is computed anew")


class OfBatch(nn.Module):
    def forward(self, batch: Batch | None, more: Any = None) -> torch.Tensor:
        assert batch is not None
        assert batch.names == []
        return batch.x * (1 if batch.scale is None else batch.scale) + (0 if more is None else 1)


def test_a_dataclass_is_made_of_its_fields() -> None:
    found = loaded_from(OfBatch(), "batch.x:float32[N,3]")
    assert torch.equal(found.flat.call(*found.tensors), found.tensors[0])
    found = loaded_from(OfBatch(), "batch.x:float32[N,3]", "batch.scale:float32[3]")
    assert torch.equal(found.flat.call(*found.tensors), found.tensors[0] * found.tensors[1])


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["batch.y:float32[3]"], "batch is of type Batch, which has no field 'y'"),
        (["batch.scale:float32[3]"], "batch is of type Batch, whose field 'x' has no value"),
    ],
)
def test_fields_that_do_not_fit(texts: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        loaded_from(OfBatch(), *texts)


def test_what_is_no_container_is_a_leaf() -> None:
    assert walk({"a": [torch.Size([2])]}) == [(("a", 0), torch.Size([2]))]
    assert replace((1, {"b": 2}), lambda leaf: leaf + 1) == (2, {"b": 3})


# --- public architectures, where they are installed -------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("GPT2", 16), ("Llama", 8)])
def test_decoders_with_their_cache(name: str, size: int, tmp_path: Any) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 99, "bos_token_id": 0, "eos_token_id": 0}
    if name == "GPT2":
        config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, **small)
        module = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, **small,
        )  # fmt: skip
        module = transformers.LlamaForCausalLM(config)
    cache = [text.replace(",4]", f",{size}]") for text in KEYS]
    found = torch2mobile.export(
        module.eval(),
        inputs=["input_ids:int64[N=1..4,T=1..16]", "attention_mask:int64[N,P+T]", *cache],
        values=["input_ids=0..98"],
        out=tmp_path / "out",
        simplify=False,
    )
    assert found.report.exit_code == 0, [check.summary for check in found.report.checks]
