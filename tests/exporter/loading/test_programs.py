"""Saved programs: what would run code when torch loads it is refused, and nothing of it is run."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.errors import SourceError
from torch2mobile.exporter.loading.programs import load_program
from torch2mobile.tensors import quiet

MODEL = "models/model.json"
INPUTS = "data/sample_inputs/model.pt"


class Sized(nn.Module):
    """Dims, guards, a symbol of data, a subgraph, constants: all that an expression stands in."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.ones(3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        branch = torch.cond(x.sum() > 0, lambda a: a.sin(), lambda a: a.cos(), (x,))
        halves = x.view(x.shape[0] // 2, -1) if x.shape[0] % 2 == 0 else x
        found = torch.nonzero(y > 0)[:, 0] * 2 + self.scale.sum().int()
        return branch, halves.relu(), found, torch.cat([x, y]).reshape(-1, 4).amax(0)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "sized.pt2"
    half = torch.export.Dim("half", min=2, max=40)
    example = (torch.rand(8, 4), torch.rand(8, 4))
    dims = ({0: 2 * half}, {0: 2 * half})
    torch.export.save(torch.export.export(Sized(), example, dynamic_shapes=dims), path)
    return path


class Touch:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


# From a record's bytes, none for a new one, and the folder to make, to other bytes.
Change = Callable[[bytes, str], bytes]


def changed(good: Path, bad: Path, records: dict[str, Change], mark: Path) -> None:
    """A copy of an archive with other records, or more of them; MARK stands for the folder."""
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        held = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
        for name, change in records.items():
            held[name] = change(held.get(name, b""), str(mark)).replace(b"MARK", bytes(mark))
        for name, content in held.items():
            new.writestr(name if name == "version" else f"{root}/{name}", content)


def edit(change: Callable[[Any], None]) -> Change:
    def edited(raw: bytes, mark: str) -> bytes:
        tree = json.loads(raw)
        change(tree)
        return json.dumps(tree).encode()

    return edited


def replaced(old: str, new: str) -> Change:
    def edited(raw: bytes, mark: str) -> bytes:
        assert old.encode() in raw
        return raw.replace(old.encode(), new.encode())

    return edited


def fresh(content: bytes) -> Change:
    return lambda raw, mark: content


def nodes(tree: Any) -> list[Any]:
    return tree["graph_module"]["graph"]["nodes"]


def use_pickle(tree: Any) -> None:
    (entry,) = tree["config"].values()
    entry["use_pickle"] = True


def own_object(tree: Any) -> None:
    (entry,) = tree["config"].values()
    entry.update(path_name="opaque_obj_0", use_pickle=True)


def call_of_python(tree: Any) -> None:
    node = next(node for node in nodes(tree) if node["target"] == "torch.ops.aten.sum.default")
    text = {"name": "", "arg": {"as_string": "MARK"}, "kind": 1}
    node.update(target="torch.serialization.os.mkdir", inputs=[text])


def spec_of(key: str, context: Any) -> Callable[[Any], None]:
    def change(tree: Any) -> None:
        signature = tree["graph_module"]["module_call_graph"][0]["signature"]
        spec = json.loads(signature[key])
        spec[1]["children_spec"].append(
            {"type": "builtins.dict", "context": json.dumps(context), "children_spec": []}
        )
        signature[key] = json.dumps(spec)

    return change


CODE = "().__class__.__base__.__subclasses__()"
# By name: the records to change, and what is said of it.
ATTACKS: dict[str, tuple[dict[str, Change], str]] = {
    "example inputs": ({INPUTS: lambda raw, mark: pickled(((Touch(mark),), {}))}, r"posix\.mkdir"),
    "a pickled constant": (
        {
            "data/constants/model_constants_config.json": edit(use_pickle),
            "data/constants/tensor_0": lambda raw, mark: pickled(Touch(mark)),
        },
        r"posix\.mkdir",
    ),
    "weights in the old form": (
        {"data/weights/model.pt": lambda raw, mark: pickled({"w": Touch(mark)})},
        r"posix\.mkdir",
    ),
    "an object of its own": (
        {
            "data/constants/model_constants_config.json": edit(own_object),
            "data/constants/opaque_obj_0": lambda raw, mark: pickle.dumps(Touch(mark)),
        },
        "a class of its own",
    ),
    "a guard": (
        {MODEL: edit(lambda t: t["guards_code"].append("__import__('os').mkdir('MARK')"))},
        "for a size",
    ),
    "a size": (
        {MODEL: replaced("\"Symbol('u0', integer=True)\"", "\"__import__('os').mkdir('MARK')\"")},
        "for a size",
    ),
}
# What need not run anything with this torch, and is refused all the same.
STRANGE: dict[str, tuple[dict[str, Change], str]] = {
    "compiled code": ({"data/aotinductor/model/lib.so": fresh(b"ELF")}, "compiled code"),
    "the form of old": ({"version": fresh(b"8.0")}, "torch 2.7 and older"),
    "an attribute in a size": ({MODEL: replaced("Symbol('u0', integer=True)", CODE)}, "for a size"),
    "a comment in a guard": ({MODEL: edit(lambda t: t["guards_code"].append("1 #"))}, "for a size"),
    "a function for an operator": ({MODEL: edit(call_of_python)}, "for an operator"),
    "an operator that opens files": (
        {MODEL: replaced("torch.ops.aten.sin.default", "torch.ops.aten.from_file.default")},
        "for an operator",
    ),
    "a loader for an operator": (
        {MODEL: replaced("torch.ops.aten.sin.default", "torch.ops.load_library")},
        "for an operator",
    ),
    "a name with code": ({MODEL: replaced('"name": "y"', '"name": "y=print()"')}, "for a name"),
    "a parameter with code": (
        {MODEL: replaced('["x", "y"]', '["x", "y=print()"]')},
        "for a name",
    ),
    "an import of an enum": (
        {MODEL: edit(spec_of("in_spec", {"__enum__": True, "fqn": "this:x", "name": "a"}))},
        "an import of this:x",
    ),
    "an import of a factory": (
        {MODEL: edit(spec_of("out_spec", {"default_factory_module": "this"}))},
        "an import of this",
    ),
}


def test_an_ordinary_program_is_loaded(good: Path) -> None:
    program = load_program(good)
    example = (torch.rand(6, 4), torch.rand(6, 4))
    for ours, own in zip(program.module()(*example), Sized()(*example), strict=True):
        torch.testing.assert_close(ours, own)


@pytest.mark.parametrize("name", ATTACKS)
def test_code_is_refused_and_not_run(name: str, good: Path, tmp_path: Path) -> None:
    records, reason = ATTACKS[name]
    mark, bad = tmp_path / "made", tmp_path / "bad.pt2"

    changed(good, bad, records, mark)
    with pytest.raises(SourceError, match=reason) as caught:
        load_program(bad)
    assert "--trust" in caught.value.remedy
    assert not mark.exists()
    # The attack is one: torch itself runs it, and so does whoever asks for it.
    with quiet(), contextlib.suppress(Exception):
        load_program(bad, trust=True).module()(torch.rand(6, 4), torch.rand(6, 4))
    assert mark.exists()


@pytest.mark.parametrize("name", STRANGE)
def test_what_may_run_is_refused(name: str, good: Path, tmp_path: Path) -> None:
    records, reason = STRANGE[name]
    changed(good, tmp_path / "bad.pt2", records, tmp_path)
    with pytest.raises(SourceError, match=reason):
        load_program(tmp_path / "bad.pt2")
