"""Hashes of weights and sources: the same for the same, another for any change."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.exporter import fingerprint
from torch2mobile.exporter.loading import source
from torch2mobile.records import LoadedModel, Request


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)
        self.small = nn.Parameter(torch.randn(5).to(torch.bfloat16))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("hidden", torch.randn(2, 3).T, persistent=False)
        self.register_buffer("empty", torch.zeros(0, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * self.count


def change_one_bit(net: Any) -> None:
    net.linear.weight.data.view(torch.int32)[1, 1] ^= 1


def change_a_buffer(net: Any) -> None:
    net.count += 1


def change_what_is_not_saved(net: Any) -> None:
    net.hidden[0, 0] = 9


def change_the_dtype(net: Any) -> None:
    net.small.data = net.small.data.view(torch.float16)


def change_the_shape(net: Any) -> None:
    net.linear.weight.data = net.linear.weight.data.reshape(4, 3)


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (change_one_bit, "linear.weight"),
        (change_a_buffer, "count"),
        (change_what_is_not_saved, "hidden"),
        (change_the_dtype, "small"),
        (change_the_shape, "linear.weight"),
    ],
)
def test_any_change_of_the_weights_is_seen(edit: Callable[[Any], None], name: str) -> None:
    net = Net()
    before = fingerprint.weights_of(net)
    edit(net)
    after = fingerprint.weights_of(net)
    assert after.sha256 != before.sha256
    assert [n for n in before.parts if before.parts[n] != after.parts[n]] == [name]


def test_the_same_weights_have_the_same_hash_however_they_lie_in_memory() -> None:
    net, other = Net(), Net()
    other.linear.weight.data = other.linear.weight.data.T.contiguous().T
    assert fingerprint.weights_of(net) == fingerprint.weights_of(other)
    assert len(fingerprint.weights_of(net).parts) == 6
    assert fingerprint.weights_of(nn.ReLU()).sha256 == ""


def test_names_belong_to_the_weights() -> None:
    class Renamed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.other = Net().linear

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = Net().linear

    first, second = fingerprint.weights_of(Named()), fingerprint.weights_of(Renamed())
    assert set(first.parts.values()) == set(second.parts.values())
    assert first.sha256 != second.sha256


def test_a_tensor_without_bytes_has_no_hash() -> None:
    class Meta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(3, device="meta"))

    found = fingerprint.weights_of(Meta())
    assert (found.sha256, found.parts) == ("", {"weight": ""})


BLOCK = "from torch import nn\n\n\nclass Block(nn.Linear):\n    def forward(self, x):\n"
NET = (
    "from torch import nn\nfrom blocks_of_it import Block\nfrom more_of_it import twice\n\n\n"
    "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.block = Block(4, 4)\n\n    def forward(self, x):\n"
    "        return twice(self.block(x))\n"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LoadedModel]:
    """Three files: a module, a class that it is made of, and a function that it calls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def make(block: str = "super().forward(x)", more: str = "x * 2") -> LoadedModel:
        import linecache

        (tmp_path / "blocks_of_it.py").write_text(f"{BLOCK}        return {block}\n")
        (tmp_path / "more_of_it.py").write_text(f"def twice(x):\n    return {more}\n")
        (tmp_path / "net_of_it.py").write_text(NET)
        for name in ("blocks_of_it", "more_of_it", "net_of_it"):
            sys.modules.pop(name, None)
        linecache.clearcache()
        request = Request(source="net_of_it.py:Net", inputs=("x:float32[2,4]",))
        return source.load(request, {})

    return make


def sources(loaded: LoadedModel, *files: str) -> Any:
    return fingerprint.sources_of(loaded, "net_of_it.py:Net", files)


def test_the_files_of_all_classes_and_those_named(project: Callable[..., LoadedModel]) -> None:
    found = sources(project(), "more_of_it.py")
    assert list(found.parts) == ["blocks_of_it.py", "more_of_it.py", "net_of_it.py"]
    assert list(sources(project()).parts) == ["blocks_of_it.py", "net_of_it.py"]
    assert found.sha256 == sources(project(), "more_of_it.py", "lost.py").sha256


def test_a_change_of_any_of_them_is_seen(project: Callable[..., LoadedModel]) -> None:
    before = sources(project(), "more_of_it.py")
    for changed in (project(block="x"), project(more="x + x")):
        assert sources(changed, "more_of_it.py").sha256 != before.sha256


def test_the_folder_plays_no_part(
    project: Callable[..., LoadedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = project()
    before = sources(loaded)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    after = fingerprint.sources_of(loaded, str(tmp_path / "net_of_it.py:Net"), ())
    assert after == before
    assert not any(str(tmp_path) in name for name in after.parts)


def test_what_is_only_torchs_own_has_no_source(load_any: Callable[..., LoadedModel]) -> None:
    assert fingerprint.sources_of(load_any(nn.Linear(4, 3)), "", ()).parts == {}


@pytest.fixture
def load_any() -> Callable[..., LoadedModel]:
    def make(module: nn.Module) -> LoadedModel:
        return source.from_call("m", module, (torch.zeros(2, 4),), {})

    return make


def test_a_saved_program_is_its_own_source(load_any: Callable[..., LoadedModel]) -> None:
    from dataclasses import replace

    programs = [torch.export.export(m, (torch.zeros(2, 4),)) for m in (nn.ReLU(), nn.Tanh())]
    loaded = load_any(nn.ReLU())
    first, second = (
        fingerprint.sources_of(replace(loaded, program=program), "net.pt2", ())
        for program in programs
    )
    assert list(first.parts) == ["exported program"]
    assert first.sha256 != second.sha256
