"""What is read out of the user's code, without capturing anything: milliseconds a snippet."""

from __future__ import annotations

import importlib.util
import itertools
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from torch2mobile.validators.coverage.source.code import Library
from torch2mobile.validators.coverage.source.values import Kind, Value
from torch2mobile.validators.coverage.source.walk import Sighting, Walker

HEAD = """\
import logging, math, os, random, time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
"""
NUMBERS = itertools.count()


def walk(folder: Path, text: str) -> Walker:
    """Net of a file, followed with a tensor for every parameter that has no default."""
    path = folder / f"net_{next(NUMBERS)}.py"
    path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    namespace: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(namespace)
    module = namespace.Net().eval()
    walker = Walker(module, Library())
    code = walker.library.find(type(module).forward)
    assert code
    names = [a.arg for a in code.tree.args.args[1:] if a.arg not in code.defaults]
    walker.module(module, [Value(Kind.TENSOR, inputs=frozenset({n})) for n in names], {})
    return walker


def forward(body: str, parameters: str = "x", init: str = "pass") -> str:
    inner = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    made = textwrap.indent(textwrap.dedent(init).strip(), " " * 8)
    return (
        "class Net(nn.Module):\n"
        f"    def __init__(self):\n        super().__init__()\n{made}\n"
        f"    def forward(self, {parameters}):\n{inner}\n"
    )


def codes(folder: Path, text: str) -> set[str]:
    return {sighting.code for sighting in walk(folder, text).sightings}


FOUND = {
    "if": ("if x.sum() > 0:\n    x = x + 1\nreturn x", "T2M101"),
    "elif": ("if x.ndim == 9:\n    pass\nelif x[0, 0]:\n    x = x + 1\nreturn x", "T2M101"),
    "ternary": ("return x if x.min() > 0 else -x", "T2M101"),
    "not": ("if not (x > 0).all():\n    x = -x\nreturn x", "T2M101"),
    "and": ("y = x.sum() and x.mean()\nreturn y", "T2M101"),
    "any()": ("if any(x):\n    x = -x\nreturn x", "T2M101"),
    "allclose": ("if torch.allclose(x, x.T):\n    x = -x\nreturn x", "T2M101"),
    "comprehension": ("return torch.stack([r for r in x.unbind(0) if r.sum() > 0])", "T2M101"),
    "in": ("if 3 in x:\n    x = -x\nreturn x", "T2M101"),
    "match": ("match x.max().item():\n    case 1:\n        x = -x\nreturn x", "T2M101"),
    "in a case": ("match x.ndim:\n    case 2:\n        x = x.unique()\nreturn x", "T2M106"),
    "branch on item": ("n = int(x.sum())\nif n > 3:\n    x = -x\nreturn x", "T2M101"),
    "while": ("while x.sum() > 0:\n    x = x - 1\nreturn x", "T2M102"),
    "while, later": (
        "go = True\nwhile go:\n    x = x / 2\n    go = x.max() > 1\nreturn x",
        "T2M102",
    ),
    "range of data": ("for _ in range(int(x[0, 0])):\n    x = x * 2\nreturn x", "T2M102"),
    "rows of an input": ("y = 0\nfor row in x:\n    y = y + row\nreturn y", "T2M102"),
    "assert": ("assert (x >= 0).all()\nreturn x", "T2M103"),
    "item": ("return x * x.max().item()", "T2M104"),
    "tolist": ("return x * sum(x.sum(0).tolist())", "T2M104"),
    "float()": ("return x * float(x.max())", "T2M104"),
    "int()": ("return x * int(x.max())", "T2M104"),
    "bool()": ("return x * bool(x.max() > 0)", "T2M104"),
    "numpy()": ("return torch.tensor(x.numpy())", "T2M105"),
    "np.f": ("return torch.tensor(np.exp(x))", "T2M105"),
    "mask": ("return x[x > 0].sum()", "T2M106"),
    "mask, named": ("keep = ~torch.isnan(x)\nreturn x[keep].sum()", "T2M106"),
    "nonzero": ("return torch.nonzero(x).sum()", "T2M106"),
    "unique": ("return x.unique().sum()", "T2M106"),
    "masked_select": ("return torch.masked_select(x, x > 0).sum()", "T2M106"),
    "where of one": ("return torch.where(x > 0)[0].sum()", "T2M106"),
    "repeats": ("return x.repeat_interleave(x[0].long(), 0)", "T2M106"),
    "len": ("return x * len(x.nonzero())", "T2M107"),
    "complex": ("return torch.fft.fft(x).abs()", "T2M111"),
    "complex dtype": ("return x.to(torch.complex64).abs()", "T2M111"),
    "sparse": ("return torch.sparse.mm(x.to_sparse(), x)", "T2M112"),
    "add to input": ("x += 1\nreturn x", "T2M120"),
    "in-place method": ("x.relu_()\nreturn x", "T2M120"),
    "in-place function": ("torch.relu_(x)\nreturn x", "T2M120"),
    "slice of input": ("x[:, 0] = 0\nreturn x", "T2M120"),
    "view of input": ("y = x.transpose(0, 1)\ny[0].zero_()\nreturn x", "T2M120"),
    "out=": ("torch.exp(x, out=x)\nreturn x", "T2M120"),
    "layer in forward": ("return nn.Linear(6, 6)(x)", "T2M123"),
    "attribute": ("self.last = x\nreturn x * 2", "T2M124"),
    "dropout": ("return F.dropout(x)", "T2M131"),
    "dropout, positional": ("return F.dropout(x, 0.5, True)", "T2M131"),
    "rand": ("return x + torch.rand(6)", "T2M131"),
    "no_grad": ("with torch.no_grad():\n    return x * 2", "T2M141"),
    "print": ("print(x.shape)\nreturn x", "T2M142"),
    "logging": ("logging.info('here')\nreturn x", "T2M142"),
    "global": ("global CALLS\nCALLS = 1\nreturn x", "T2M142"),
    "time": ("return x * time.time()", "T2M143"),
    "environment": ("return x * float(os.environ.get('SCALE', 1))", "T2M143"),
    "np.random": ("return x * np.random.rand()", "T2M143"),
    "try": ("try:\n    return x @ x\nexcept RuntimeError:\n    return x", "T2M144"),
    "exporting": ("if torch.onnx.is_in_onnx_export():\n    x = x * 1\nreturn x", "T2M145"),
    "library": ("return torch.ops.mylib.scale(x)", "T2M170"),
    "float64": ("return x.to(torch.float64).sum()", "T2M160"),
    "bfloat16": ("return x.to(dtype=torch.bfloat16).sum()", "T2M161"),
}


@pytest.mark.parametrize(("body", "code"), FOUND.values(), ids=list(FOUND))
def test_found(body: str, code: str, tmp_path: Path) -> None:
    assert code in codes(tmp_path, forward(body))


CLEAN = {
    "shapes": "if x.shape[0] > 3 and x.size(1) == 6:\n    x = x * 2\nreturn x",
    "ndim": "while x.dim() < 4:\n    x = x.unsqueeze(0)\nreturn x",
    "facts": "if x.is_cuda or x.dtype == torch.half or x.is_complex():\n    x = -x\nreturn x",
    "training": "if self.training:\n    print(x)\n    x = F.dropout(x)\nreturn x",
    "eval": "if not self.training:\n    return x\nreturn x[x > 0]",
    "dropout": "return F.dropout(x, 0.5, self.training) + F.dropout(x, training=False)",
    "isinstance": "if isinstance(x, torch.Tensor):\n    x = x * 2\nreturn x",
    "len": "for i in range(len(x)):\n    x = x + i\nreturn x",
    "math on sizes": "return x / math.sqrt(x.shape[-1]) * np.sqrt(6) * float(x.shape[0])",
    "assert of a shape": "assert x.shape[1] == 6, f'{x.shape}'\nreturn x",
    "where": "return torch.where(x > 0, x, 0.0)",
    "mask written": "y = x * 1\ny[y > 0] = 0\nreturn y",
    "own tensor": "y = x * 2\ny += 1\ny[:, 0] = 0\ny.relu_()\nreturn y",
    "copied input": "x = x.clone()\nx += 1\nreturn x",
    "chunks": "a, b = x.chunk(2, 1)\nfor part in x.split(2, 1):\n    a = a + part.sum()\nreturn a",
    "local list": "ys = []\nfor _ in range(3):\n    ys.append(x)\nreturn torch.stack(ys)",
    "local dict": "d = {}\nd['x'] = x\nd.update(y=x)\nreturn d['x'] + d['y']",
    "none": "y = None\nif y is None:\n    y = x\nreturn y",
    "scripting": "if torch.jit.is_scripting():\n    return x[x > 0]\nreturn x",
    "zip": "for a, b in zip(x.split(2, 1), x.split(2, 1)):\n    x = x + (a * b).sum()\nreturn x",
    "repeats of a number": "return x.repeat_interleave(2, 0)",
    "try without tensors": "try:\n    n = int('3')\nexcept ValueError:\n    n = 1\nreturn x * n",
    "raise": "if x.shape[0] == 0:\n    raise ValueError(f'{x.shape}')\nreturn x",
    "max of two": "y = torch.max(x, x * 2)\nv, i = y.max(1)\nreturn v * i",
    "finfo": "return x.masked_fill(x > 0, torch.finfo(x.dtype).min)",
    "walrus": "if (n := x.shape[0]) > 2:\n    x = x * n\nreturn x",
    "lambda": "f = lambda t: t * 2\nreturn f(x)",
    "arange": "return x + torch.arange(x.shape[1], device=x.device)",
    "float32": "return x.to(torch.float32).float()",
}


@pytest.mark.parametrize("body", CLEAN.values(), ids=list(CLEAN))
def test_clean(body: str, tmp_path: Path) -> None:
    assert walk(tmp_path, forward(body)).sightings == {}


def test_optional_inputs(tmp_path: Path) -> None:
    """A default of None is known; a branch that is not taken is not followed."""
    body = "if mask is not None:\n    x = x[mask > 0]\nreturn x"
    assert codes(tmp_path, forward(body, "x, mask=None")) == set()
    assert codes(tmp_path, forward(body, "x, mask")) == {"T2M106"}


def test_what_the_instance_says_decides_branches(tmp_path: Path) -> None:
    body = "if self.check:\n    assert x.sum() > 0\nreturn x"
    assert codes(tmp_path, forward(body, init="self.check = False")) == set()
    assert codes(tmp_path, forward(body, init="self.check = True")) == {"T2M103"}


def test_buffers(tmp_path: Path) -> None:
    init = "self.register_buffer('seen', torch.zeros(1))"
    for body in (
        "self.seen += 1\nreturn x",
        "self.seen = self.seen + 1\nreturn x",
        "self.seen.add_(1)\nreturn x",
        "self.seen[0] = 1\nreturn x",
        "seen = self.seen\nseen.add_(1)\nreturn x",
        "torch.add(self.seen, 1, out=self.seen)\nreturn x",
    ):
        assert codes(tmp_path, forward(body, init=init)) == {"T2M122"}, body
    assert codes(tmp_path, forward("y = self.seen + 1\ny += 1\nreturn x * y", init=init)) == set()


NESTED = """
def helper(x, scale=1):
    if x.sum() > scale:
        return x
    return -x

class Base(nn.Module):
    def forward(self, x):
        return x[x > 0].sum()

class Child(Base):
    def __init__(self):
        super().__init__()
        self.act = F.relu
    def forward(self, x):
        return super().forward(self.act(x))

class Block(nn.Module):
    @property
    def width(self):
        return 6
    @staticmethod
    def plain(x):
        return x * 2
    def inner(self, x):
        assert x.max() < 3
        return x
    def forward(self, x):
        return self.inner(self.plain(x)) * self.width

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.body = nn.Sequential(nn.Linear(6, 6), Child())
        self.table = nn.ModuleDict({"a": Block()})
        self.unused = Block()
    def forward(self, x):
        def local(t):
            return t.item()
        for number, block in enumerate(self.blocks):
            x = block(x)
        x = helper(x, scale=2)
        return self.body(x) * local(x.sum())
"""


def test_everything_that_forward_calls_is_followed(tmp_path: Path) -> None:
    walker = walk(tmp_path, NESTED)
    seen = {(s.code, s.module) for s in walker.sightings}
    assert seen == {
        ("T2M101", ""),
        ("T2M103", "blocks.0"),
        ("T2M103", "blocks.1"),
        ("T2M106", "body.1"),
        ("T2M104", ""),
    }


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    walker = walk(tmp_path, NESTED)
    for sighting in walker.sightings:
        line = Path(sighting.file).read_text("utf-8").splitlines()[sighting.line - 1]
        expected = {
            "T2M101": "if x.sum() > scale:",
            "T2M103": "assert x.max() < 3",
            "T2M104": "return t.item()",
            "T2M106": "return x[x > 0].sum()",
        }
        assert line.strip() == expected[sighting.code]


def test_strange_objects_are_read_without_being_run(tmp_path: Path) -> None:
    text = """
    import sys, types

    class Lazy(types.ModuleType):
        def __getattr__(self, name):
            raise ImportError("not now")

    lazy = Lazy("lazy")
    loop = []
    loop.append(loop)
    table = {"a": 2, (1, 2): 3}

    class Net(nn.Module):
        @property
        def costly(self):
            raise RuntimeError("run")
        def forward(self, x):
            y = lazy.function(x)
            for inner in loop:
                x = x + len(inner)
            del y
            return x * table["a"] * table[(1, 2)] * self.costly
    """
    assert codes(tmp_path, text) == set()


def test_recursion_ends(tmp_path: Path) -> None:
    text = """
    def down(x, n):
        return x if n == 0 else down(x * x.max().item(), n - 1)

    def forever(x):
        return forever(x + x)

    class Net(nn.Module):
        def forward(self, x):
            return down(x, 3) + forever(x)
    """
    assert codes(tmp_path, text) == {"T2M104"}


def test_decorated_and_closed_over(tmp_path: Path) -> None:
    text = """
    import functools

    def wrapped(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args)
        return inner

    LIMIT = None

    def make():
        limit = None
        class Net(nn.Module):
            @torch.no_grad()
            @wrapped
            def forward(self, x):
                if limit is None and LIMIT is None:
                    return x * 2
                return x[x > 0]
        return Net

    Net = make()
    """
    assert codes(tmp_path, text) == set()


def test_torchs_own_modules_are_no_concern_of_the_users(tmp_path: Path) -> None:
    init = "self.att = nn.MultiheadAttention(6, 2)\nself.lstm = nn.LSTM(6, 6)"
    body = "y, (h, c) = self.lstm(x)\ny, w = self.att(y, y, y)\nif w is None:\n    y = -y\nreturn y"
    assert codes(tmp_path, forward(body, init=init)) == set()


def test_many_blocks_of_one_class_cost_little(tmp_path: Path) -> None:
    text = """
    class Block(nn.Module):
        def forward(self, x):
            return x + self.scale(x)
        def scale(self, x):
            return x * x.max().item()
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(Block() for _ in range(60))
        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x
    """
    walker = walk(tmp_path, text)
    assert len(walker.sightings) == 60
    assert len({(s.file, s.line) for s in walker.sightings}) == 1


def test_uses_of_an_input_are_reads_of_its_values(tmp_path: Path) -> None:
    body = "n = gain.shape[0]\nif gain is None:\n    return x\nreturn x * n * gain"
    walker = walk(tmp_path, forward(body, "x, gain"))
    lines = {Path(f).read_text("utf-8").splitlines()[n - 1].strip() for f, n in walker.uses["gain"]}
    assert lines == {"return x * n * gain"}


def test_a_sighting_is_kept_once(tmp_path: Path) -> None:
    walker = walk(tmp_path, forward("return x * x.max().item() * x.max().item()"))
    assert len(walker.sightings) == 1
    assert isinstance(next(iter(walker.sightings)), Sighting)
    assert torch.is_grad_enabled()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("root", [True, False])
def test_what_is_compiled_is_not_followed(root: bool) -> None:
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.ReLU()))
    module = scripted if root else torch.nn.Sequential(scripted)
    result = Walker(module, Library()).module(module, [Value(Kind.TENSOR)], {})
    assert result.tensor
