"""What the pipeline's tests share: one small module, exported once, and edits of its model."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from rows import slow_but
from torch import nn
from torch.nn import functional as F

import torch2mobile
from torch2mobile.pipeline.results import ExportResult
from torch2mobile.records import ParityOptions


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """The models are tiny, and threads that wait for work take it from other tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Pair(nn.Module):
    """Two outputs of the same shape, a hard activation and a dynamic batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = F.hardswish(self.first(x))
        return {"left": self.left(h), "right": self.right(h)}


SPEC = "x:float32[N=1..5,6]"


@dataclass(frozen=True)
class Exported:
    """A module and the bundle it was exported to."""

    module: nn.Module
    result: ExportResult
    path: Path


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The exported Pair; not to be changed."""
    torch.manual_seed(0)
    module = Pair().eval()
    path = tmp_path_factory.mktemp("pair") / "bundle"
    parity = ParityOptions(probes=6)
    result = torch2mobile.export(module, inputs=[SPEC], out=path, parity=parity)
    assert result.passed, str(result)
    return Exported(module, result, path)


def rehash(folder: Path) -> None:
    """Write the manifest that the files as they are now would have."""
    from torch2mobile.exporter import bundle, bundle_writer

    manifest = bundle.load_bundle(folder).manifest
    files = {
        name: replace(
            entry,
            sha256=bundle.file_sha256(folder / name),
            size=(folder / name).stat().st_size,
        )
        for name, entry in manifest.files.items()
    }
    text = bundle_writer.encode_manifest(replace(manifest, files=files))
    (folder / bundle.MANIFEST).write_bytes(text)
    assert bundle.tampered_files(bundle.load_bundle(folder)) == []


Edit = Callable[[Any], None]


@pytest.fixture
def edited(pair: Exported, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the bundle with an edited model.onnx, its manifest made to fit."""

    def make(edit: Edit | None = None) -> Path:
        folder = tmp_path / "bundle"
        shutil.copytree(pair.path, folder)
        if edit is not None:
            proto = onnx.load(folder / "model.onnx")
            before = proto.SerializeToString()
            edit(proto)
            assert proto.SerializeToString() != before
            onnx.save(proto, folder / "model.onnx")
            rehash(folder)
        return folder

    return make


# --- edits ------------------------------------------------------------------------------------


def _weight(proto: Any, size: int) -> Any:
    return next(t for t in proto.graph.initializer if int(np.prod(list(t.dims))) == size)


def _change(tensor: Any, change: Callable[[np.ndarray], None]) -> None:
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _replace_output(proto: Any, number: int, node_of: Callable[[str, str], Any]) -> None:
    """Put a node between an output and what gives it."""
    name = proto.graph.output[number].name
    for node in proto.graph.node:
        node.output[:] = [f"{name}_inner" if value == name else value for value in node.output]
        node.input[:] = [f"{name}_inner" if value == name else value for value in node.input]
    proto.graph.node.append(node_of(f"{name}_inner", name))


def relu_for_hardswish(proto: Any) -> None:
    (node,) = [node for node in proto.graph.node if node.op_type == "HardSwish"]
    node.op_type = "Relu"


def weight_by_one_percent(proto: Any) -> None:
    def change(values: np.ndarray) -> None:
        values.flat[5] *= 1.01

    _change(_weight(proto, 6 * 8), change)


def bias_by_one_percent(proto: Any) -> None:
    def change(values: np.ndarray) -> None:
        values.flat[0] *= 1.01

    _change(_weight(proto, 3), change)


def weight_to_half(proto: Any) -> None:
    def change(values: np.ndarray) -> None:
        values[:] = values.astype(np.float16)

    _change(_weight(proto, 6 * 8), change)


def nan_output(proto: Any) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "not_a_number"))
    _replace_output(proto, 1, lambda a, b: helper.make_node("Add", [a, "not_a_number"], [b]))


def nan_in_one_value(proto: Any) -> None:
    mask = np.array([0, 0, np.nan], np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    _replace_output(proto, 0, lambda a, b: helper.make_node("Add", [a, "mask"], [b]))


def dropped_output(proto: Any) -> None:
    del proto.graph.output[1]


def added_output(proto: Any) -> None:
    info = helper.make_tensor_value_info("more", TensorProto.FLOAT, ["N", 3])
    proto.graph.node.append(helper.make_node("Identity", ["left"], ["more"]))
    proto.graph.output.append(info)


def swapped_values(proto: Any) -> None:
    other = {"left": "right", "right": "left"}
    for node in proto.graph.node:
        node.output[:] = [other.get(value, value) for value in node.output]


def swapped_order(proto: Any) -> None:
    kept = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in proto.graph.output]
    del proto.graph.output[:]
    proto.graph.output.extend(reversed(kept))


def float64_output(proto: Any) -> None:
    _replace_output(
        proto, 1, lambda a, b: helper.make_node("Cast", [a], [b], to=TensorProto.DOUBLE)
    )
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.DOUBLE


def frozen_batch(proto: Any) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 2


def baked_input(proto: Any) -> None:
    """The input is read, and times zero."""
    for node in proto.graph.node:
        node.input[:] = ["baked" if value == "x" else value for value in node.input]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    one = numpy_helper.from_array(np.float32(1), "one")
    proto.graph.initializer.extend([zero, one])
    nodes = [
        helper.make_node("Mul", ["x", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "one"], ["baked"]),
    ]
    for node in reversed(nodes):
        proto.graph.node.insert(0, node)


EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        relu_for_hardswish,
        weight_by_one_percent,
        bias_by_one_percent,
        weight_to_half,
        nan_output,
        nan_in_one_value,
        dropped_output,
        added_output,
        swapped_values,
        swapped_order,
        float64_output,
        frozen_batch,
        baked_input,
    )
}


@pytest.fixture(scope="session")
def edits() -> dict[str, Edit]:
    """The ways to break the model, by name."""
    return EDITS


REPRESENTATIVE = ("weight_by_one_percent", "nan_output", "dropped_output", "frozen_batch")


@pytest.fixture(params=slow_but(EDITS, *REPRESENTATIVE))
def edit(request: pytest.FixtureRequest) -> Edit:
    """Each way to break the model, in turn."""
    return EDITS[request.param]
