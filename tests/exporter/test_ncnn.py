"""ncnn: ranks, files that do not load, and samples through the console script."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_nets import Looked, Perceptron
from torch.export import Dim as TorchDim

import torch2mobile
from torch2mobile.environments import HERE, Worker
from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.exporter.loading.grammar import parse_input
from torch2mobile.exporter.targets import TARGETS, variant_of
from torch2mobile.exporter.targets.ncnn import NcnnTarget, remedy
from torch2mobile.pipeline.candidates import candidate
from torch2mobile.pipeline.conversion import convert
from torch2mobile.records import ArtifactEntry, InputSpec, Job, OnnxModel, Status

TARGET = NcnnTarget()
EXACT, HALF = TARGET.variants
WAIT = 120.0
installed = pytest.mark.skipif(bool(TARGET.missing()), reason=f"{TARGET.missing()}")


def job(made: Any, out: Path, shape: tuple[int, ...], variant: Any = EXACT) -> Job:
    return Job(made.model, variant, None, out, {made.model.inputs[0].name: shape})


def converted(made: Job) -> Any:
    with Worker() as tools:
        return convert(made, tools, WAIT)


@installed
@pytest.mark.parametrize("variant", [EXACT, HALF], ids=lambda variant: variant.label)
def test_a_net_of_which_the_batch_is_a_dimension(
    export: Callable[..., Any], tmp_path: Path, variant: Any
) -> None:
    torch.manual_seed(0)
    shapes = ({0: TorchDim("n", min=1, max=8)},)
    made = export(Perceptron().eval(), (torch.rand(2, 16),), dynamic_shapes=shapes)
    artifact = converted(job(made, tmp_path, (1, 16), variant))
    assert artifact.names == {"x": "in0", made.model.outputs[0].name: "out0"}
    assert variant_of(artifact.files[0]) == variant
    x = torch.rand(1, 16)
    wanted = made.loaded.module(x).detach().numpy()
    entry = ArtifactEntry(variant, {}, artifact.names)
    found = candidate(artifact.files[0], entry, made.model.inputs, made.model.outputs, WAIT)
    with found.process:
        ((_, answer),) = found.runner.run({"x": x.numpy()})
    np.testing.assert_allclose(answer, wanted, atol=1e-6 if variant == EXACT else 1e-2)


@installed
def test_a_layer_that_ncnn_does_not_have(export: Callable[..., Any], tmp_path: Path) -> None:
    made = export(Looked().eval(), (torch.zeros(1, 6, dtype=torch.int64),))
    with pytest.raises(
        ConversionError, match=r"does not load: .*layer Gather not exists"
    ) as caught:
        converted(job(made, tmp_path, (1, 6)))
    assert caught.value.remedy.startswith("ncnn has no look-up in a table: look up in the app")


@installed
@pytest.mark.parametrize("rows", [1, 7])
def test_a_table_shorter_than_the_integers_that_pnnx_tries(tmp_path: Path, rows: int) -> None:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "x"], ["y"])],
        "g",
        [info("x", TensorProto.INT64, [1, 6])],
        [info("y", TensorProto.FLOAT, [1, 6, 4])],
        [numpy_helper.from_array(np.ones((rows, 4), np.float32), "w")],
    )
    path = tmp_path / "model.onnx"
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    given = parse_input("x:int64[1,6]")
    assert isinstance(given, InputSpec)
    model = OnnxModel(path, 18, (given,), (), {})
    with pytest.raises(ConversionError) as caught:
        converted(Job(model, EXACT, None, tmp_path, {"x": (1, 6)}))
    said = "with 7 in all integers that it takes, and a Gather looks them up in a table of"
    assert f"{said} {rows} rows" in caught.value.message
    assert caught.value.remedy.startswith("ncnn has no look-up in a table: look up in the app")


@installed
def test_what_pnnx_cannot_read(export: Callable[..., Any], tmp_path: Path) -> None:
    made = export(Perceptron().eval(), (torch.rand(1, 16),))
    broken = tmp_path / "model.onnx"
    broken.write_bytes(made.model.path.read_bytes()[:200])
    made = replace(made, model=replace(made.model, path=broken))
    with pytest.raises(ConversionError, match=r"converter for ncnn .*pnnx (exited|died)"):
        converted(job(made, tmp_path, (1, 16)))


@installed
@pytest.mark.skipif(os.name == "nt", reason="a script stands in for pnnx")
def test_what_pnnx_said_before_it_was_stopped(
    export: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = export(Perceptron().eval(), (torch.rand(1, 16),))
    (tmp_path / "pnnx").mkdir()
    (tmp_path / "pnnx/__init__.py").touch()
    script = tmp_path / "pnnx/pnnx"
    script.write_text("#!/bin/sh\necho '##### pass_level2' >&2\nsleep 60\n", encoding="utf-8")
    script.chmod(0o755)
    # What is installed beside this package comes before PYTHONPATH in a worker; and ncnn's own,
    # in place of which this one is taken, loads nothing that could change that.
    first = f"import sys; sys.path.insert(0, {str(tmp_path)!r})"
    (tmp_path / "stand_in_first.py").write_text(first, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(NcnnTarget, "environment", HERE)
    with Worker(preload=["stand_in_first", "torch2mobile.exporter.targets"]) as tools:
        tools.call("os:getpid", timeout=60)  # it has started
        with pytest.raises(ConversionError, match=r"stopped \(##### pass_level2\)"):
            convert(job(made, tmp_path, (1, 16)), tools, 5)


def test_listing_targets_loads_nothing_of_it() -> None:
    code = (
        "import sys; from torch2mobile.exporter.targets import TARGETS\n"
        "[target.missing() for target in TARGETS.values()]\n"
        "assert not {'ncnn', 'pnnx', 'torch', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("name", ["super_resolution", "mobile_cnn"])
def test_samples(name: str, tmp_path: Path) -> None:
    tool = Path(sys.executable).with_name("torch2mobile")
    command = [tool, "export", f"sample:{name}", "--target", "ncnn", "--target", "ncnn-fp16"]
    command += ["--atol", "@ncnn-fp16=0.01", "--no-simplify", "--probes", "2", "--out", "bundle"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = tmp_path / "bundle"
    exact, half = (bundle / f"model.{label}.bin" for label in ("ncnn", "ncnn-fp16"))
    assert half.stat().st_size < 0.6 * exact.stat().st_size
    report = torch2mobile.verify(bundle).report
    assert report.status is Status.PASSED
    assert {c.target for c in report.checks if c.name == "golden"} == {"onnx", "ncnn", "ncnn-fp16"}

    weights = np.fromfile(exact, dtype=np.float32)
    weights[5] += 0.01
    weights.tofile(exact)
    checks = torch2mobile.verify(bundle).report.checks
    golden = {check.target: check.status for check in checks if check.name == "golden"}
    assert golden == {"onnx": Status.PASSED, "ncnn": Status.FAILED, "ncnn-fp16": Status.PASSED}
    command = [tool, "verify", "bundle/model.ncnn.param", "--against", f"sample:{name}"]
    command += ["--probes", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr

    exact.unlink()
    with pytest.raises(ModelFileError, match=r"there is no model\.ncnn\.bin"):
        TARGETS["ncnn"].load(bundle / "model.ncnn.param", EXACT)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("layer load_param 5 LSTM_1 failed", "MNN, ExecuTorch and ONNX Runtime run it"),
        ("layer load_param 11 GRU_5 failed", "MNN, ExecuTorch and ONNX Runtime run it"),
        ("layer nn.InstanceNorm1d not exists or registered", "pnnx did not translate"),
    ],
)
def test_what_to_do_about_a_layer_that_does_not_load(said: str, told: str) -> None:
    assert told in remedy(f"ncnn cannot load model.ncnn.param: {said}")
