"""What each target refuses before it converts, and what it says of a package that it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from torch2mobile.errors import NotApplicableError
from torch2mobile.exporter.loading.grammar import parse_input
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.records import InputSpec, Job, OnnxModel, OutputSpec

ROWS = "x:float32[N=1..8,4]"


def model(given: str = ROWS, dtype: str = "float32", dims: tuple[Any, ...] = (4,)) -> OnnxModel:
    spec = parse_input(given)
    assert isinstance(spec, InputSpec)
    return OnnxModel(Path("m.onnx"), 20, (spec,), (OutputSpec("y", dtype, dims),), {})


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("coreml", model(), ""),
        ("coreml", model("mask:bool[N=1..8,2*h=4..8]", "int64"), ""),
        ("coreml", model("x:float32[N,4]"), "N of x has none: declare one"),
        ("coreml", model(dtype="float16"), "Core ML has no float16 here, and y is float16"),
        ("coreml", model("x:float32[]"), "no numbers without dimensions"),
        ("coreml", model("x:float32[1,1,1,1,1,1]"), "at most 5 dimensions"),
        ("executorch", model(), ""),
        ("executorch", model("x:float32[N=1..8,2*h=4..8]"), "x has 2*h"),
        ("executorch", model("x:float32[N,4]"), "N of x has none: declare one"),
        ("executorch", model(dtype="bfloat16"), "ExecuTorch has no bfloat16, and y is bfloat16"),
        ("litert", model("x:float32[N,2*h]", "int64"), ""),
        ("litert", model("x:float16[2,4]"), "converter has no float16, and x is float16"),
        ("litert", model(dtype="float64"), "LiteRT's converter has no float64, and y is float64"),
        ("mnn", model(), ""),
        ("mnn", model("ids:int64[N,4]", "int64"), ""),
        ("mnn", model("mask:bool[1,4]"), "mask is bool"),
        ("mnn", model("x:float32[4]", "bool"), "y is bool"),
        ("mnn", model("x:float32[]"), "no numbers without dimensions"),
        ("ncnn", model(dims=("N", 4)), ""),
        ("ncnn", model("ids:int64[N,4]", dims=("N", 4)), ""),
        ("ncnn", model("mask:bool[1,4]", dims=(1, 4)), "mask is bool"),
        ("ncnn", model("x:float32[]", dims=(1, 4)), "1 to 4 dimensions"),
        ("ncnn", model("x:float32[N=2..8,4]"), "first dimension of x is never 1"),
        ("ncnn", model(dtype="int64", dims=("N",)), "y is int64"),
        ("ncnn", model(dims=()), "y is one"),
        ("qnn", model("x:float32[N,4]"), ""),
        ("qnn", model("x:float32[N,4]", "int64"), ""),
        ("qnn", model("x:float32[N,4]", "float64"), "the NPU has no float64"),
    ],
)
def test_refused_before_conversion(
    name: str, given: OnnxModel, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given.path.write_bytes(b"x")
    target = TARGETS[name]
    said = target.accepts(given, target.variants[0])
    assert words in said
    assert bool(said) is bool(words)


@pytest.mark.parametrize("name", ["coreml", "executorch"])
def test_a_traced_module_has_no_program(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    with pytest.raises(NotApplicableError, match="was traced"):
        target.convert(Job(model(), target.variants[0], None, tmp_path))
    with pytest.raises(NotApplicableError, match=r"LiteRT's converter .* was traced"):
        Job(model(), target.variants[0], None, tmp_path).captured("LiteRT's converter")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("coreml", "pip install 'torch2mobile[coreml]'"),
        ("executorch", "pip install 'torch2mobile[executorch]'"),
        ("litert", "torch2mobile doctor --install litert"),
        ("mnn", "pip install 'torch2mobile[mnn]'"),
        ("ncnn", "pip install 'torch2mobile[ncnn]'"),
        ("qnn", "pip install 'torch2mobile[qnn]'"),
    ],
)
def test_what_is_not_installed_names_the_command(
    name: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    target = TARGETS[name]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert target.missing() == [command]
