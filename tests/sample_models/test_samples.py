"""Every sample is what its row says, and the ordinary ones survive the bare exporter."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.utils import _pytree as pytree

from torch2mobile.records import Sample
from torch2mobile.sample_models import SAMPLES

ORDINARY = [sample for sample in SAMPLES.values() if sample.ordinary]

# torch.export unrolls a recurrent layer over the example's time steps. What torch2mobile does
# about that is tested there; here the TorchScript exporter, which does not, stands in for it.
UNROLLED = {"recurrent"}

DIM = re.compile(r"(?:(\d+)\*)?([A-Za-z]\w*)(?:=(\d+)\.\.(\d+))?|(\d+)")


@pytest.fixture(params=list(SAMPLES.values()), ids=list(SAMPLES))
def sample(request: pytest.FixtureRequest) -> Sample:
    found: Sample = request.param
    return found


def module_of(sample: Sample) -> Any:
    return importlib.import_module(sample.module)


def example_of(sample: Sample) -> dict[str, torch.Tensor]:
    """The example inputs by the names that INPUTS gives them."""
    module = module_of(sample)
    example = module.example_inputs()
    names = [name for name, _, _ in specs(module.INPUTS)]
    if isinstance(example, dict):
        return {name: example[name] for name in names}
    return dict(zip(names, example, strict=True))


def specs(inputs: tuple[str, ...]) -> list[tuple[str, str, list[re.Match[str]]]]:
    """Name, dtype and matched dimensions of each input."""
    found = []
    for text in inputs:
        whole = re.fullmatch(r"(\w+):(\w+)\[(.*)\]", text)
        assert whole, text
        dims = [DIM.fullmatch(dim) for dim in whole[3].split(",")]
        assert all(dims), text
        found.append((whole[1], whole[2], [dim for dim in dims if dim]))
    return found


def ranges(inputs: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """The declared range of each symbol."""
    dims = [dim for _, _, dims in specs(inputs) for dim in dims]
    return {dim[2]: (int(dim[3]), int(dim[4])) for dim in dims if dim[3]}


def shape_at(dims: list[re.Match[str]], sizes: dict[str, int]) -> list[int]:
    return [int(dim[5]) if dim[5] else int(dim[1] or 1) * sizes[dim[2]] for dim in dims]


def values_like(tensor: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """The example's own values, over and over, in another shape."""
    flat = tensor.flatten()
    return flat.repeat(math.ceil(math.prod(shape) / flat.numel()))[: math.prod(shape)].view(shape)


def test_registry_needs_no_torch() -> None:
    code = "import sys, torch2mobile.sample_models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_file_has_a_row() -> None:
    folder = Path(inspect.getfile(importlib.import_module("torch2mobile.sample_models"))).parent
    files = {path.stem for path in folder.rglob("*.py") if not path.stem.startswith("_")}
    assert files == set(SAMPLES)


def test_row(sample: Sample) -> None:
    module = module_of(sample)
    assert SAMPLES[sample.name] is sample
    assert sample.name == sample.module.rpartition(".")[2]
    assert module.__doc__
    assert module.__doc__.startswith("Awkward: ") is not sample.ordinary
    assert isinstance(getattr(module, sample.attr), Callable)  # type: ignore[arg-type]
    assert sample.expect_exit in {0, 1, 3}


def test_expected_line_is_one_line(sample: Sample) -> None:
    if sample.ordinary:
        assert not sample.expect_line
    else:
        source = Path(module_of(sample).__file__).read_text(encoding="utf-8")
        assert len([line for line in source.splitlines() if sample.expect_line in line]) == 1


def test_build_is_repeatable_and_in_eval_mode(sample: Sample) -> None:
    module = module_of(sample)
    first, second = module.build(), module.build()
    assert not any(child.training for child in first.modules())
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_random_state_is_left_alone(sample: Sample) -> None:
    module = module_of(sample)
    before = torch.get_rng_state()
    model, example = module.build(), module.example_inputs()
    assert torch.equal(torch.get_rng_state(), before)
    del model
    again = module.example_inputs()
    for left, right in zip(pytree.tree_leaves(example), pytree.tree_leaves(again), strict=True):
        assert torch.equal(left, right)


def test_weights_are_small(sample: Sample) -> None:
    tensors = module_of(sample).build().state_dict().values()
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) < 1_000_000


def test_example_fits_the_declared_inputs(sample: Sample) -> None:
    module = module_of(sample)
    example, declared = example_of(sample), ranges(module.INPUTS)
    sizes: dict[str, int] = {}
    for name, dtype, dims in specs(module.INPUTS):
        tensor = example[name]
        assert str(tensor.dtype) == f"torch.{dtype}"
        assert tensor.dim() == len(dims)
        for dim, size in zip(dims, tensor.shape, strict=True):
            if dim[2]:
                assert size % int(dim[1] or 1) == 0
                assert sizes.setdefault(dim[2], size // int(dim[1] or 1)) * int(dim[1] or 1) == size
            else:
                assert size == int(dim[5])
    assert sizes.keys() == declared.keys()
    assert all(low <= sizes[name] <= high for name, (low, high) in declared.items())
    # A size of 1, or one that two symbols share, would be taken for a constant or for one symbol.
    assert min(sizes.values()) >= 2
    assert len(set(sizes.values())) == len(sizes)


def test_values_are_of_inputs(sample: Sample) -> None:
    module = module_of(sample)
    number = r"-?\d+(?:\.\d+)?"
    kinds = rf"{number}\.\.{number}|(?:uniform|normal)\({number},{number}\)"
    for text in module.VALUES:
        name, _, kind = text.partition("=")
        assert name in {name for name, _, _ in specs(module.INPUTS)}
        assert re.fullmatch(kinds, kind), text


@torch.no_grad()
def test_runs_at_the_example(sample: Sample) -> None:
    outputs = pytree.tree_leaves(module_of(sample).build()(**example_of(sample)))
    assert outputs
    for output in outputs:
        assert torch.isfinite(output).all()
        assert output.std() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("sample", ORDINARY, ids=lambda sample: str(sample.name))
def test_each_example_of_the_batch_counts(sample: Sample) -> None:
    """A model that ignored its input would pass any parity check."""
    model, example = module_of(sample).build(), example_of(sample)
    for output in pytree.tree_leaves(model(**example)):
        assert not torch.allclose(output[0], output[1], rtol=0, atol=1e-4)


@dataclass(frozen=True)
class Case:
    """Where to compare: all symbols at their least, or half way."""

    name: str
    pick: Callable[[int, int], int]


CASES = (Case("least", min), Case("middle", lambda low, high: (low + high) // 2))


def bare_export(sample: Sample, path: Path) -> None:
    module = module_of(sample)
    model, example = module.build(), example_of(sample)
    axes = {
        name: {axis: dim[2] for axis, dim in enumerate(dims) if dim[2]}
        for name, _, dims in specs(module.INPUTS)
    }
    if sample.name in UNROLLED:
        torch.onnx.export(
            model,
            tuple(example.values()),
            path,
            dynamo=False,
            input_names=list(example),
            dynamic_axes=axes,
        )
        return
    symbols = {
        name: torch.export.Dim(name, min=low, max=high)
        for name, (low, high) in ranges(module.INPUTS).items()
    }
    dynamic = {
        name: {
            axis: int(dim[1]) * symbols[dim[2]] if dim[1] else symbols[dim[2]]
            for axis, dim in enumerate(dims)
            if dim[2]
        }
        for name, _, dims in specs(module.INPUTS)
    }
    captured = torch.export.export(model, (), example, dynamic_shapes=dynamic)
    program = torch.onnx.export(captured, dynamo=True, verbose=False)
    assert program is not None
    program.save(path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporters' own, and none of them about the samples
@pytest.mark.parametrize("sample", ORDINARY, ids=lambda sample: str(sample.name))
def test_bare_export_agrees_at_other_sizes(sample: Sample, tmp_path: Path) -> None:
    module = module_of(sample)
    bare_export(sample, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    model, example = module.build(), example_of(sample)
    for case in CASES:
        sizes = {name: case.pick(low, high) for name, (low, high) in ranges(module.INPUTS).items()}
        inputs = {
            name: values_like(example[name], shape_at(dims, sizes))
            for name, _, dims in specs(module.INPUTS)
        }
        with torch.no_grad():
            expected = pytree.tree_leaves(model(**inputs))
        outputs = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        for output, reference in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(
                output, reference.numpy(), rtol=1e-4, atol=1e-4, err_msg=case.name
            )
