"""ExecuTorch: files that do not load, and a weight that changed in the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_nets import Perceptron
from torch import nn
from torch.export import Dim

from torch2mobile.environments import Worker
from torch2mobile.errors import ModelFileError
from torch2mobile.exporter.targets import executorch, variant_of
from torch2mobile.exporter.targets.executorch import ExecutorchTarget
from torch2mobile.pipeline.candidates import candidate, runner_of
from torch2mobile.pipeline.conversion import convert, convert_check, program_file
from torch2mobile.records import ArtifactEntry, Job, OnnxModel

TARGET = ExecutorchTarget()
WAIT = 120.0
installed = pytest.mark.skipif(bool(TARGET.missing()), reason=f"{TARGET.missing()}")


@pytest.fixture(scope="module")
def made(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    return export(Perceptron().eval(), (torch.rand(2, 16),))


@installed
@pytest.mark.slow
@pytest.mark.parametrize("variant", TARGET.variants, ids=lambda variant: variant.label)
def test_a_weight_changed_in_the_file_changes_the_answer(
    made: Any, tmp_path: Path, variant: Any
) -> None:
    (tmp_path / "out").mkdir()
    program = program_file(made.capture, tmp_path)
    with Worker() as tools:
        artifact = convert(Job(made.model, variant, program, tmp_path / "out"), tools, WAIT)
    path, entry = artifact.files[0], ArtifactEntry(variant, {}, artifact.names)
    assert variant_of(path) == variant
    assert "executorch" in convert_check(artifact).metrics

    def run() -> np.ndarray:
        found = candidate(path, entry, made.model.inputs, made.model.outputs, WAIT)
        with found.process:
            ((_, answer),) = found.runner.run({"x": x.numpy()})
        return answer

    x = torch.rand(2, 16)
    wanted = made.loaded.module(x).detach().numpy()
    np.testing.assert_allclose(run(), wanted, atol=1e-6)
    bias = made.loaded.module.state_dict()
    (weights,) = [value for name, value in bias.items() if name.endswith("layers.2.bias")]
    raw = path.read_bytes()
    assert raw.count(weights.numpy().tobytes()) == 1
    path.write_bytes(raw.replace(weights.numpy().tobytes(), (weights + 0.01).numpy().tobytes()))
    np.testing.assert_allclose(run() - wanted, 0.01, atol=1e-4)


@installed
@pytest.mark.slow
def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    path.write_bytes(b"no model")
    with (
        runner_of(path, TARGET.variants[0], WAIT) as runner,
        pytest.raises(ModelFileError, match=r"ExecuTorch cannot load model\.pte"),
    ):
        runner.load()


@pytest.fixture(scope="module")
def at_most_two(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    shapes = ({0: Dim("N", min=1, max=2)},)
    return export(net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=shapes)


def test_a_size_of_one_or_two_still_varies_in_the_saved_program(
    at_most_two: Any, tmp_path: Path
) -> None:
    own = dict(at_most_two.capture.program.range_constraints)
    program = torch.export.load(program_file(at_most_two.capture, tmp_path))
    (name,) = program.graph_signature.user_inputs
    (given,) = (node for node in program.graph.nodes if node.name == name)
    assert given.meta["val"].shape[0].node.maybe_as_int() is None
    assert [(found.lower, found.upper) for found in own.values()] == [(1, 2)]
    assert at_most_two.capture.program.range_constraints == own


@installed
@pytest.mark.slow
@pytest.mark.parametrize("variant", TARGET.variants, ids=lambda variant: variant.label)
def test_a_batch_of_one_where_there_are_at_most_two(
    at_most_two: Any, tmp_path: Path, variant: Any
) -> None:
    (tmp_path / "out").mkdir()
    model, program = at_most_two.model, program_file(at_most_two.capture, tmp_path)
    with Worker() as tools:
        artifact = convert(Job(model, variant, program, tmp_path / "out"), tools, WAIT)
    entry = ArtifactEntry(variant, {}, artifact.names)
    found = candidate(artifact.files[0], entry, model.inputs, model.outputs, WAIT)
    with found.process:
        for size in (2, 1, 2, 1):
            x = torch.rand(size, 3, 8, 8)
            ((_, answer),) = found.runner.run({model.inputs[0].name: x.numpy()})
            wanted = at_most_two.loaded.module(x).detach().numpy()
            np.testing.assert_allclose(answer, wanted, atol=1e-6)


def test_variants_are_told_apart_by_their_files() -> None:
    for variant in TARGET.variants:
        job = Job(OnnxModel(Path("m.onnx"), 20, (), (), {}), variant, None, Path())
        assert variant_of(job.path(".pte")) == variant


def test_its_advice_to_its_own_developers_is_left_out() -> None:
    told = "Operator torch._ops.aten.erfinv.default is not in Core ATen opset (https://p.org). Try"
    found = executorch.lacking(told)
    assert found is not None
    assert found.message == "stopped: it has no aten.erfinv.default"
    assert executorch.lacking("something else") is None
