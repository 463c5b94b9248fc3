"""LiteRT: kernels and names, files that do not load, and faults put into the .tflite."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile import devices
from torch2mobile.environments import Worker
from torch2mobile.errors import (
    ConversionError,
    ModelFileError,
    ProbeRefusedError,
)
from torch2mobile.exporter.targets import variant_of
from torch2mobile.exporter.targets.litert import LitertRunner, LitertTarget
from torch2mobile.pipeline.candidates import candidate, runner_of
from torch2mobile.pipeline.conversion import convert, convert_check, program_file
from torch2mobile.records import (
    Artifact,
    ArtifactEntry,
    Job,
    OutputSpec,
    ParityOptions,
    Status,
    Tolerance,
)

TARGET = LitertTarget()
VARIANT, HALF = TARGET.variants
WAIT = 300.0
installed = pytest.mark.skipif(bool(TARGET.missing()), reason=f"{TARGET.missing()}")


class Net(nn.Module):
    """Names that have an order of their own, every dtype, a value twice and an input given back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        y = self.layer(x) * mask
        out = {f"b{n}": y[:, n] + n for n in range(3)}
        return {"z": y, **out, "again": y, "x": x, "ids": ids + 1, "a": y.argmax(1), "mask": ~mask}


@pytest.fixture(scope="module")
def made(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    n = torch.export.Dim("n", min=1, max=8)
    args = torch.rand(2, 16), torch.arange(2), torch.ones(2, 4, dtype=torch.bool)
    return export(Net().eval(), args, dynamic_shapes=({0: n}, {0: n}, {0: n}))


@pytest.fixture(scope="module")
def artifact(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("litert")
    (folder / "out").mkdir()
    shapes = {"x": (2, 16), "ids": (2,), "mask": (2, 4)}
    job = Job(made.model, VARIANT, program_file(made.capture, folder), folder / "out", shapes)
    with Worker() as tools:
        return convert(job, tools, WAIT)


@installed
@pytest.mark.slow
def test_names_dtypes_and_sizes_are_the_contracts(
    made: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (path,) = artifact.files
    assert (path.name, variant_of(path)) == ("model.tflite", VARIANT)
    assert {"litert-torch", "ai-edge-litert"} <= convert_check(artifact).metrics.keys()
    runner = TARGET.load(path, VARIANT)
    assert [spec.name for spec in runner.inputs()] == ["x", "ids", "mask"]
    names = [spec.name for spec in made.model.outputs]
    # Two names of one value come in any order, and the contract's is what an app sees.
    assert sorted(spec.name for spec in runner.outputs()) == sorted(names)
    assert [spec.dtype for spec in runner.inputs()] == ["float32", "int32", "bool"]
    assert str(path.parent).encode() not in path.read_bytes()

    entry = ArtifactEntry(VARIANT, {}, artifact.names, artifact.shapes)
    found = candidate(path, entry, made.model.inputs, made.model.outputs, WAIT)
    assert [spec.name for spec in found.runner.outputs()] == names
    feeds = (torch.randn(2, 16), torch.tensor([5, -7]), torch.rand(2, 4) > 0.5)
    named = dict(zip(("x", "ids", "mask"), (tensor.numpy() for tensor in feeds), strict=True))
    with found.process:
        answers = found.runner.run(named)
        with pytest.raises(ProbeRefusedError, match="its sizes are fixed, x to 2x16"):
            found.runner.run({**named, "x": np.zeros((3, 16), np.float32)})
        with pytest.raises(ProbeRefusedError, match="do not fit into int32"):
            found.runner.run({**named, "ids": np.array([2**40, 0])})
    assert [name for name, _ in answers] == names
    for (name, array), wanted in zip(answers, made.loaded.module(*feeds).values(), strict=True):
        torch.testing.assert_close(torch.from_numpy(array), wanted.detach(), msg=name)


@installed
@pytest.mark.skipif(
    devices.installed(TARGET.packages) is None, reason=f"not there: {devices.INSTALL}"
)
@pytest.mark.slow
def test_it_runs_on_the_kernels_of_a_phones_processor(made: Any, artifact: Artifact) -> None:
    x, ids, mask = torch.randn(2, 16), torch.tensor([5, -7]), torch.rand(2, 4) > 0.5
    feeds = {"x": x.numpy(), "ids": ids.numpy(), "mask": mask.numpy()}
    entry = ArtifactEntry(VARIANT, {}, artifact.names, artifact.shapes)
    given = artifact.files[0], entry, made.model.inputs, made.model.outputs, WAIT
    found = candidate(*given, device="arm64:cortex-a53")
    with found.process:
        answers = dict(found.runner.run(feeds))
    wanted = made.loaded.module(x, ids, mask)["z"].detach()
    torch.testing.assert_close(torch.from_numpy(answers["z"]), wanted)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("cut", [0, 100, -2000])
def test_a_file_that_is_not_whole(artifact: Artifact, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(artifact.files[0].read_bytes()[:cut])
    with (
        runner_of(path, VARIANT, WAIT) as runner,
        pytest.raises(ModelFileError, match=r"LiteRT cannot load model\.tflite"),
    ):
        runner.load()


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["super_resolution", "transformer"])
def test_samples(name: str, tmp_path: Path) -> None:
    from torch2mobile.pipeline.export import export_request
    from torch2mobile.records import Request

    parity = ParityOptions(probes=2, tolerances={f"@{HALF.label}": Tolerance(atol=0.02)})
    labels = VARIANT.label, HALF.label
    asked = Request(f"sample:{name}", targets=labels, simplify=False, parity=parity)
    result = export_request(asked, out=tmp_path / "bundle")
    assert result.report.status is Status.PASSED
    compared = [c for c in result.report.checks if c.name == "parity" and c.target in labels]
    assert len(compared) == 2
    for check in compared:
        assert any("its sizes are fixed" in note for note in check.notes)
    exact, half = (tmp_path / "bundle" / f"model{own}.tflite" for own in ("", ".litert-fp16"))
    assert half.stat().st_size < 0.7 * exact.stat().st_size
    assert [variant_of(path) for path in (exact, half)] == [VARIANT, HALF]


class Ruled(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))


@installed
@pytest.mark.slow
def test_what_it_cannot_convert_is_named(export: Callable[..., Any], tmp_path: Path) -> None:
    made = export(Ruled().eval(), (torch.rand(2, 3),))
    (tmp_path / "out").mkdir()
    program = program_file(made.capture, tmp_path)
    shapes = {made.model.inputs[0].name: (2, 3)}
    with Worker() as tools, pytest.raises(ConversionError) as caught:
        convert(Job(made.model, VARIANT, program, tmp_path / "out", shapes), tools, WAIT)
    assert str(caught.value.message).endswith("litert stopped: Lowering not found: cond")


def test_the_order_is_the_files_and_a_value_has_every_name() -> None:
    from torch2mobile.exporter.targets import litert

    told = [{"index": 7, "name": "t7"}, {"index": 3, "name": "t3"}, {"index": 7, "name": "t7"}]
    found = litert._tensors(told, {"again": 7, "first": 7})
    assert [(name, each["index"]) for name, each in found] == [
        ("again", 7), ("first", 7), ("t3", 3),
    ]  # fmt: skip
    spec = litert._spec("x", {"shape_signature": [-1, 3], "dtype": np.bool_})
    assert spec == OutputSpec("x", "bool", ("?", 3))


def test_weights_and_delegates_are_no_layers() -> None:
    runner = object.__new__(LitertRunner)
    operators = [
        {"index": 0, "op_name": "CONV_2D", "inputs": [0, 9, -1], "outputs": [1]},
        {"index": 1, "op_name": "ADD", "inputs": [1, 0], "outputs": [2]},
        {"index": 2, "op_name": "DEQUANTIZE", "inputs": [9], "outputs": [3]},
        {"index": 3, "op_name": "DELEGATE", "inputs": [0, 9], "outputs": [2]},
    ]
    runner._plain = Namespace(_get_ops_details=lambda: operators)
    runner._inputs, runner._outputs = [("x", {"index": 0})], [("y", {"index": 2})]
    assert [(each.kind, each.inputs, each.outputs) for each in runner.layers()] == [
        ("Input", (), ("0",)), ("CONV_2D", ("0",), ("1",)), ("ADD", ("1", "0"), ("2",)),
    ]  # fmt: skip
