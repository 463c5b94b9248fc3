"""What one watched call shows of the user's code, without capturing: milliseconds a snippet."""

from __future__ import annotations

import itertools
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import torch2mobile
from torch2mobile.exporter.loading import source
from torch2mobile.records import Finding, Request
from torch2mobile.validators.coverage.source import syntax
from torch2mobile.validators.coverage.source.observed import observe
from torch2mobile.validators.coverage.source.sightings import Observation

HEAD = """\
import logging, math, os, random, time
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
"""
NUMBERS = itertools.count()


def watch(folder: Path, text: str, inputs: tuple[str, ...] = ("x:float32[6,6]",)) -> Observation:
    """One call of the Net of a file."""
    path = folder / f"net_{next(NUMBERS)}.py"
    path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    return observe(source.load(Request(source=f"{path}:Net", inputs=inputs), {}))


def forward(body: str, parameters: str = "x", init: str = "pass") -> str:
    inner = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    made = textwrap.indent(textwrap.dedent(init).strip(), " " * 8)
    return (
        "class Net(nn.Module):\n"
        f"    def __init__(self):\n        super().__init__()\n{made}\n"
        f"    def forward(self, {parameters}):\n{inner}\n"
    )


def codes(folder: Path, text: str, inputs: tuple[str, ...] = ("x:float32[6,6]",)) -> set[str]:
    return {sighting.code for sighting in watch(folder, text, inputs).sightings}


def code_at(file: str, line: int) -> str:
    return Path(file).read_text("utf-8").splitlines()[line - 1].strip()


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
    "float64": ("return x.to(torch.float64).sum()", "T2M160"),
    "bfloat16": ("return x.to(dtype=torch.bfloat16).sum()", "T2M161"),
}


@pytest.mark.parametrize(("body", "code"), FOUND.values(), ids=list(FOUND))
def test_found(body: str, code: str, tmp_path: Path) -> None:
    assert code in codes(tmp_path, forward(body))


CLEAN = {
    "causal mask": "nn.modules.transformer._detect_is_causal_mask(x, None, 6)\nreturn x",
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
    assert watch(tmp_path, forward(body)).sightings == {}


def test_optional_inputs(tmp_path: Path) -> None:
    body = "if mask is not None:\n    x = x[mask > 0]\nreturn x"
    given = ("x:float32[6,6]", "mask:float32[6]")
    assert codes(tmp_path, forward(body, "x, mask=None")) == set()
    assert codes(tmp_path, forward(body, "x, mask"), given) == {"T2M106"}


def test_what_the_instance_says_decides_branches(tmp_path: Path) -> None:
    body = "if self.check:\n    assert x.sum() < 99\nreturn x"
    assert codes(tmp_path, forward(body, init="self.check = False")) == set()
    assert codes(tmp_path, forward(body, init="self.check = True")) == {"T2M103"}


@pytest.mark.parametrize(
    "body",
    [
        "self.seen += 1\nreturn x",
        "self.seen = self.seen + 1\nreturn x",
        "self.seen.add_(1)\nreturn x",
        "self.seen[0] = 1\nreturn x",
        "self.seen.data = self.seen + 1\nreturn x",
        "seen = self.seen.view(-1)\nseen.add_(1)\nreturn x",
        "torch.add(self.seen, 1, out=self.seen)\nreturn x",
    ],
)
def test_buffers(body: str, tmp_path: Path) -> None:
    init = "self.register_buffer('seen', torch.zeros(1))"
    assert codes(tmp_path, forward(body, init=init)) == {"T2M122"}


def test_what_is_computed_of_a_buffer_is_none(tmp_path: Path) -> None:
    init = "self.register_buffer('seen', torch.zeros(1))"
    assert codes(tmp_path, forward("y = self.seen + 1\ny += 1\nreturn x * y", init=init)) == set()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("self.kept.append(x)\nreturn x", "self.kept.append(x)"),
        ("self.named['x'] = x\nreturn x", "self.named['x'] = x"),
        ("named = self.named\nnamed.update(x=x)\nreturn x", "named.update(x=x)"),
        ("del self.named[0]\nreturn x", "del self.named[0]"),
        ("CACHE['x'] = x\nreturn x", "CACHE['x'] = x"),
        ("self.state.kept.append(x)\nreturn x", "self.state.kept.append(x)"),
    ],
)
def test_containers_that_outlive_the_call(body: str, said: str, tmp_path: Path) -> None:
    head = "CACHE = {}\nclass State:\n    def __init__(self):\n        self.kept = []\n"
    init = "self.kept = []\nself.named = {0: 1}\nself.state = State()"
    (sighting,) = watch(tmp_path, head + forward(body, init=init)).sightings
    assert sighting.code == "T2M142"
    assert code_at(sighting.place.file, sighting.place.line) == said


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
        assert x.max() < 300
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


def test_everything_that_forward_calls_is_seen_at_its_line(tmp_path: Path) -> None:
    seen = watch(tmp_path, NESTED).sightings
    found = {(s.code, s.place.module, code_at(s.place.file, s.place.line)) for s in seen}
    assert found == {
        ("T2M101", "", "if x.sum() > scale:"),
        ("T2M103", "blocks.0", "assert x.max() < 300"),
        ("T2M103", "blocks.1", "assert x.max() < 300"),
        ("T2M106", "body.1", "return x[x > 0].sum()"),
        ("T2M104", "", "return t.item()"),
    }


def found_in(folder: Path, text: str, inputs: tuple[str, ...] = ()) -> list[Finding]:
    path = folder / f"net_{next(NUMBERS)}.py"
    path.write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
    given = inputs or ("x:float32[6,6]",)
    return list(torch2mobile.check(f"{path}:Net", inputs=given, select=["T2M1"]).findings)


def test_what_a_library_does_is_blamed_on_the_line_that_calls_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "layers_of_mine"
    package.mkdir(parents=True)
    text = "def scaled(x):\n    y = x * 2\n    return y * y.max().item()\n"
    (package / "__init__.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(package.parent)
    text = "import layers_of_mine\n" + forward("return layers_of_mine.scaled(x)")
    (finding,) = found_in(tmp_path, text)
    assert (finding.code, finding.location.line) == ("T2M104", 3)
    assert code_at(finding.location.caller, finding.location.caller_line) == (
        "return layers_of_mine.scaled(x)"
    )


def test_what_torch_reads_itself_is_seen(tmp_path: Path) -> None:
    (sighting,) = watch(tmp_path, forward("return x * F.one_hot(x.long().abs()).sum()")).sightings
    assert (sighting.code, sighting.message) == (
        "T2M104",
        "one_hot reads a number out of a tensor",
    )


def test_an_operator_of_a_library_is_seen(tmp_path: Path) -> None:
    text = """
    @torch.library.custom_op("t2m_watched::scale", mutates_args=())
    def scale(x: torch.Tensor) -> torch.Tensor:
        return x * 2
    """
    seen = watch(tmp_path, textwrap.dedent(text) + forward("return scale(x)")).sightings
    assert {s.code for s in seen} == {"T2M170"}


def test_a_layer_that_works_in_place_changes_the_input(tmp_path: Path) -> None:
    init = "self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6))"
    (sighting,) = watch(tmp_path, forward("return self.body(x)", init=init)).sightings
    assert sighting.code == "T2M120"
    assert code_at(sighting.place.file, sighting.place.line) == "return self.body(x)"


def test_a_value_that_is_kept_decides_where_it_is_asked(tmp_path: Path) -> None:
    body = "n = int(x.sum())\ny = x * 2\nif n > 3:\n    y = -y\nreturn y"
    seen = watch(tmp_path, forward(body)).sightings
    found = {(s.code, code_at(s.place.file, s.place.line)) for s in seen}
    assert found == {("T2M104", "n = int(x.sum())"), ("T2M101", "if n > 3:")}


def test_an_input_that_another_branch_reads_is_fixed_there(tmp_path: Path) -> None:
    body = "if x.shape[0] > 99:\n    x = x * gain\nreturn x + gain.shape[0]"
    (finding,) = found_in(tmp_path, forward(body, "x, gain"), ("x:float32[6,6]", "gain:float32[6]"))
    assert (finding.code, finding.location.code) == ("T2M151", "x = x * gain")


def test_a_call_that_fails_shows_what_came_before(tmp_path: Path) -> None:
    body = "x = x * x.max().item()\nif x.sum() > -1e9:\n    raise KeyError('no')\nreturn x"
    seen = watch(tmp_path, forward(body))
    assert {sighting.code for sighting in seen.sightings} == {"T2M101", "T2M104"}
    assert seen.failure == "KeyError: 'no'"


def test_a_call_that_could_not_be_watched_to_its_end_is_told() -> None:
    class Shy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if sys.getprofile() is not None:
                raise RuntimeError("not while somebody looks")
            return x * 2

    result = torch2mobile.check(Shy(), torch.ones(6, 6), select=["T2M1"])
    assert "(RuntimeError: not while somebody looks)" in result.report.checks[0].notes[0]


def test_decorated_and_closed_over(tmp_path: Path) -> None:
    text = """
    import functools

    def wrapped(function):
        @functools.wraps(function)
        def inner(*args):
            return function(*args)
        return inner

    def make():
        limit = None
        class Net(nn.Module):
            @torch.no_grad()
            @wrapped
            def forward(self, x):
                if limit is None:
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


def test_uses_of_an_input_are_reads_of_its_values(tmp_path: Path) -> None:
    body = "n = gain.shape[0]\nif gain is None:\n    return x\nreturn x * n * gain"
    seen = watch(tmp_path, forward(body, "x, gain"), ("x:float32[6,6]", "gain:float32[6]"))
    assert {code_at(*line) for line in seen.uses["gain"]} == {"return x * n * gain"}
    (file, _), *_ = seen.uses["gain"]
    tree = syntax.tree_of(file)
    assert {code_at(file, line) for line in syntax.lines_reading(tree, "gain")} == {
        "return x * n * gain"
    }


def test_nothing_is_left_of_the_watching(tmp_path: Path) -> None:
    before = sys.getprofile()
    seen = watch(tmp_path, forward("return x * x.max().item() * x.max().item()"))
    assert len(seen.sightings) == 1
    assert sys.getprofile() is before
    assert torch.is_grad_enabled()
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("root", [True, False])
def test_what_is_compiled_is_not_followed(root: bool) -> None:
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.ReLU()))
    module = scripted if root else torch.nn.Sequential(scripted)
    assert torch2mobile.check(module, torch.ones(2, 3), select=["T2M12"]).findings == ()
