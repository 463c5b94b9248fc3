"""Every target keeps the promises of the protocol, and the .ort file those of its own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pickle
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from rows import slow_but
from torch import nn
from torch.export import Dim as TorchDim

from torch2mobile.environments import Environment, Worker
from torch2mobile.errors import MissingToolError, ModelFileError, ProbeRefusedError
from torch2mobile.exporter.targets import TARGETS, load
from torch2mobile.exporter.targets import ort as ort_target
from torch2mobile.exporter.targets.ort import OrtRunner, OrtTarget
from torch2mobile.interfaces import Target
from torch2mobile.pipeline.candidates import candidate, interface
from torch2mobile.records import Artifact, ArtifactEntry, Job, OutputSpec, Status, Variant

CONVERT = "torch2mobile.exporter.targets:convert"
WAIT = 120.0
PLAIN = ({0: TorchDim("n", min=1, max=8), 2: TorchDim("h", min=4, max=32)},)
SHAPES = ({0: TorchDim("n", min=1, max=8), 2: 2 * TorchDim("h", min=2, max=16)},)

# onnxruntime's tool does not close the file that it reads; elsewhere it runs in a worker.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ort' mode='rb':pytest.PytestUnraisableExceptionWarning"
)


class Net(nn.Module):
    """With channels in the numbers that x86 likes to have in a layout of its own."""

    def __init__(self, *, indices: bool = True) -> None:
        super().__init__()
        self.indices = indices
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip

    def forward(self, image: torch.Tensor) -> Any:
        features = self.body(image)
        found = {"features": features, "mean": features.mean((2, 3))}
        return found | {"brightest": features.flatten(1).argmax(1)} if self.indices else found


@pytest.fixture(scope="module")
def net(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    return export(Net().eval(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=SHAPES)


@pytest.fixture(scope="module")
def given(target: Target, net: Any, export: Callable[..., Any]) -> Any:
    """The net that a target is given: without integers or multiples where it has none of them."""
    if not target.accepts(net.model, target.variants[0]):
        return net
    for indices, shapes in ((False, SHAPES), (True, PLAIN)):
        torch.manual_seed(0)
        one = Net(indices=indices).eval()
        found = export(one, (torch.rand(2, 3, 8, 8),), dynamic_shapes=shapes)
        if not target.accepts(found.model, target.variants[0]):
            return found
    pytest.fail(target.accepts(found.model, target.variants[0]))


@pytest.fixture(scope="module")
def program(given: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "program.pt2"
    torch.export.save(given.capture.program, path)
    return path


@pytest.fixture(
    params=slow_but(TARGETS.values(), TARGETS["ort"]), ids=list(TARGETS), scope="module"
)
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.param
    if found.missing():
        pytest.skip(f"{found.name} is not installed: {found.missing()}")
    return found


def job(net: Any, variant: Variant, program: Path | None, out: Path) -> Job:
    model = replace(net.model, origins={})
    shapes = {"image": (2 if variant.batch else 1, 3, 8, 8)}
    return Job(model, variant, program if variant.source == "program" else None, out, shapes)


def convert(target: Target, net: Any, program: Path, out: Path) -> Artifact:
    """As the pipeline does: in a fresh process of the target's environment."""
    out.mkdir(exist_ok=True)
    variant = target.variants[0]
    with Worker(environment=target.environment) as worker:
        found = worker.call(CONVERT, target, job(net, variant, program, out), timeout=WAIT)
    assert isinstance(found, Artifact)
    return found


@pytest.fixture(scope="module")
def converted(
    target: Target, given: Any, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    return convert(target, given, program, tmp_path_factory.mktemp("converted"))


# --- all targets ------------------------------------------------------------------------------


each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@each_target
def test_the_protocol(target: Target) -> None:
    assert TARGETS[target.name] is target
    assert target.title
    assert target.suffixes
    assert target.variants[0].label == target.name
    assert {variant.target for variant in target.variants} == {target.name}
    assert isinstance(target.environment, Environment)
    for name in ("missing", "accepts", "convert", "load"):
        wanted = inspect.signature(getattr(Target, name)).parameters
        found = inspect.signature(getattr(type(target), name)).parameters
        assert list(found) == list(wanted)
        assert getattr(type(target), name).__doc__


@each_target
def test_it_travels_to_a_worker(target: Target) -> None:
    again = pickle.loads(pickle.dumps(target))
    assert (type(again), again.name) == (type(target), target.name)


def test_what_it_writes(target: Target, converted: Artifact) -> None:
    assert converted.variant == target.variants[0]
    shared = Path(os.path.commonpath(converted.files))
    folder = shared if shared.is_dir() else shared.parent
    assert set(converted.files) == {path for path in folder.rglob("*") if path.is_file()}
    assert all(path.stat().st_size for path in converted.files)
    assert converted.tools
    assert all(version[0].isdigit() for version in converted.tools.values())


def test_the_same_bytes_again(
    target: Target, given: Any, program: Path, converted: Artifact, tmp_path: Path
) -> None:
    again = convert(target, given, program, tmp_path / "elsewhere")
    for first, second in zip(converted.files, again.files, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


def test_no_path_of_this_machine(converted: Artifact, given: Any) -> None:
    words = [
        converted.files[0].parent,
        given.model.path.parent,
        Path.cwd(),
        Path.home(),
        sys.prefix,
    ]
    for path in converted.files:
        content = path.read_bytes()
        assert not [word for word in words if str(word).encode() in content]


def test_it_is_the_module_at_every_size(target: Target, converted: Artifact, given: Any) -> None:
    torch.manual_seed(1)
    model, variant = given.model, converted.variant
    entry = ArtifactEntry(variant, converted.tools, converted.names, converted.shapes)
    found = candidate(converted.files[0], entry, model.inputs, model.outputs, WAIT)
    with found.process:
        check = interface(found, model.inputs, model.outputs)
        assert check.status is Status.PASSED, check
        for batch, height in ((2, 8), (1, 4), (1, 8), (5, 14)):
            image = torch.randn(batch, 3, height, 8)
            if batch != 1 and not variant.batch:
                with pytest.raises(ProbeRefusedError, match="no batch"):
                    found.runner.run({"image": image.numpy()})
                continue
            if variant.static and (batch, height) != (2, 8):
                with pytest.raises(ProbeRefusedError, match="its sizes are fixed"):
                    found.runner.run({"image": image.numpy()})
                continue
            near = {"rtol": 0.01, "atol": 0.01} if variant.lossy else {}
            wanted = given.loaded.module(image)
            answers = found.runner.run({"image": image.numpy()})
            assert [name for name, _ in answers] == list(wanted)
            for name, array in answers:
                right = wanted[name].detach()
                torch.testing.assert_close(torch.from_numpy(np.array(array)), right, **near)


# --- .ort -------------------------------------------------------------------------------------

X86 = pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="the layout is that of x86"
)


def ort_artifact(net: Any, folder: Path) -> Artifact:
    return OrtTarget().convert(job(net, TARGETS["ort"].variants[0], None, folder))


@X86
def test_no_layouts_of_one_processor(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They make a file that no phone can load; ONNX Runtime puts them in unless forbidden."""
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    good = ort_artifact(net, tmp_path / "good")
    monkeypatch.setattr(ort_target, "_PLATFORM_OPTIMIZERS", [])
    bad = ort_artifact(net, tmp_path / "bad")
    assert ("com.microsoft.nchwc", "Conv") in operators(bad.files[1])
    assert {domain for domain, _ in operators(good.files[1])} == {"ai.onnx", "com.microsoft"}


def operators(config: Path) -> set[tuple[str, str]]:
    """The domain and name of every operator, as onnxruntime's tool read them from the .ort."""
    found = set()
    for line in config.read_text().splitlines():
        domain, _, rest = line.split(";", 2)
        found |= {(domain, name) for name in re.sub(r"{.*?}}", "", rest).split(",")}
    return found


def test_operators_config_names_operators_and_their_types(net: Any, tmp_path: Path) -> None:
    model, config = ort_artifact(net, tmp_path).files
    assert (model.name, config.name) == ("model.ort", "operators.config")
    text = config.read_text()
    assert "#" not in text
    assert "/" not in text
    wanted = {("ai.onnx", "MaxPool"), ("ai.onnx", "ArgMax"), ("com.microsoft", "FusedConv")}
    assert operators(config) >= wanted
    # The types, by which a reduced build leaves out the kernels for all others.
    assert 'ArgMax{"inputs": {"0": ["float"]}}' in text


def test_a_model_beyond_the_formats_limit_is_not_for_it(
    net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = net.model.path.stat().st_size
    (variant,) = OrtTarget.variants
    monkeypatch.setattr(ort_target, "_FORMAT_LIMIT", size)
    assert OrtTarget().accepts(net.model, variant) == ""
    monkeypatch.setattr(ort_target, "_FORMAT_LIMIT", size - 1)
    assert "ends at 2 GB" in OrtTarget().accepts(net.model, variant)


def test_missing_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OrtTarget().missing() == []
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "flatbuffers" else real(name)
    )
    assert OrtTarget().missing() == ["pip install flatbuffers"]


@pytest.mark.parametrize(
    ("name", "package"), [("coreml", "coremltools"), ("qnn", "onnxruntime_qnn")]
)
def test_a_runtime_that_is_not_there_says_nothing_about_the_file(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"{package}.proto.Model_pb2", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    target = TARGETS[name]
    with pytest.raises(MissingToolError, match=package) as told:
        load(target, tmp_path / "model", target.variants[0])
    assert told.value.remedy == f"Run: pip install 'torch2mobile[{name}]'"


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
@pytest.mark.parametrize("cut", [0, 100, -100])
def test_a_file_that_is_not_whole_does_not_load(
    net: Any, tmp_path: Path, suffix: str, cut: int
) -> None:
    source = net.model.path if suffix == ".onnx" else ort_artifact(net, tmp_path).files[0]
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(source.read_bytes()[:cut])
    with pytest.raises(ModelFileError, match=rf"cannot load cut\{suffix}"):
        OrtRunner(path)


def test_types_and_dims_as_the_runtime_has_them(tmp_path: Path) -> None:
    kinds = {
        "f": TensorProto.FLOAT, "d": TensorProto.DOUBLE, "h": TensorProto.FLOAT16,
        "b": TensorProto.BFLOAT16, "i": TensorProto.INT64, "u": TensorProto.UINT8,
        "t": TensorProto.BOOL,
    }  # fmt: skip
    dims: list[Any] = ["N", 3, None]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in kinds],
        "graph",
        [helper.make_tensor_value_info(name, kind, dims) for name, kind in kinds.items()],
        [helper.make_tensor_value_info(f"{name}_out", kind, dims) for name, kind in kinds.items()],
    )
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "m.onnx")
    runner = OrtRunner(tmp_path / "m.onnx")
    dtypes = ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"]
    expected = [OutputSpec(n, d, ("N", 3, "?")) for n, d in zip(kinds, dtypes, strict=True)]
    assert list(runner.inputs()) == expected
    assert [spec.dtype for spec in runner.outputs()] == dtypes


def test_the_version_is_that_of_the_runtime(net: Any, tmp_path: Path) -> None:
    assert ort_artifact(net, tmp_path).tools == {"onnxruntime": onnxruntime.__version__}
