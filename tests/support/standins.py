"""Runtimes that are none of ONNX Runtime: numpy on a file of layers, each with one odd property.

What they convert is the .onnx: convolutions, ReLU, a mean over height and width, and a Gemm.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from torch2mobile.environments import Environment
from torch2mobile.records import Artifact, Job, Limits, OutputSpec, Variant

SEES_THIS = {"PYTHONPATH": str(Path(__file__).parent)}


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    size = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))
    windows = windows[:, :, ::stride, ::stride]
    y = np.einsum("nchwij,ocij->nohw", windows, weight, dtype=x.dtype)
    return y + bias[None, :, None, None]


class Interpreter:
    """The layers of a file, on numpy arrays."""

    def __init__(self, path: Path, variant: Variant) -> None:
        self.layers = json.loads(path.read_text())
        self.variant = variant
        self.precision = np.dtype(variant.precision)

    def inputs(self) -> tuple[OutputSpec, ...]:
        name, dims = self.layers["input"]
        dtype = self.variant.dtypes.get("float32", "float32")
        return (OutputSpec(name, dtype, self.laid(dims)),)

    def outputs(self) -> tuple[OutputSpec, ...]:
        name, dims = self.layers["output"]
        dtype = self.variant.dtypes.get("float32", "float32")
        return (OutputSpec(name, dtype, self.laid(dims)),)

    def laid(self, dims: list[Any]) -> tuple[Any, ...]:
        last = self.variant.layout == "NHWC" and len(dims) == 4
        return tuple(dims[axis] for axis in (0, 2, 3, 1)) if last else tuple(dims)

    def run(self, feeds: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        (x,) = (feeds[spec.name] for spec in self.inputs())
        given = x.dtype
        x = x.astype(self.precision)
        if self.variant.layout == "NHWC":
            x = x.transpose(0, 3, 1, 2)
        for op, stride, *weights in self.layers["layers"]:
            arrays = [np.array(weight, self.precision) for weight in weights]
            if op == "Conv":
                x = convolved(x, *arrays, stride)
            elif op == "Relu":
                x = np.maximum(x, 0)
            elif op == "ReduceMean":
                x = x.mean((2, 3), dtype=self.precision)
            else:
                x = x @ arrays[0].T + arrays[1]
        return [(self.layers["output"][0], x.astype(given))]


def layers_of(job: Job) -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(job.model.path)
    weights = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    layers = []
    for node in model.graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        used = [weights[name] for name in node.input[1:] if node.op_type in {"Conv", "Gemm"}]
        layers.append([node.op_type, attributes.get("strides", [1])[0], *used])
    (given,), (taken,) = job.model.inputs, job.model.outputs
    dims = [dim.label for dim in given.dims]
    if job.variant.static:
        dims = list(job.shapes[given.name])
    return {"input": [given.name, dims], "output": [taken.name, list(taken.dims)], "layers": layers}


class Plain:
    """The protocol, and nothing odd."""

    name = "plain"
    title = "numpy"
    environment = Environment(variables=SEES_THIS)
    packages: tuple[str, ...] = ()
    limits = Limits("all")
    refusal = ""

    def __init__(self, **odd: Any) -> None:
        self.name = odd.pop("name", self.name)
        self.environment = odd.pop("environment", self.environment)
        self.suffixes: tuple[str, ...] = (f".{self.name}",)
        self.variants: tuple[Variant, ...] = (Variant(self.name, self.name, **odd),)

    def missing(self) -> list[str]:
        return []

    def accepts(self, model: Any, variant: Variant) -> str:
        return self.refusal

    def convert(self, job: Job) -> Artifact:
        path, layers = job.path(self.suffixes[0]), layers_of(job)
        path.write_text(json.dumps(layers))
        shapes = dict(job.shapes) if job.variant.static else {}
        return Artifact(job.variant, (path,), {"numpy": np.__version__}, shapes=shapes)

    def load(self, path: Path, variant: Variant) -> Interpreter:
        return Interpreter(path, variant)


class Torch(Plain):
    def load(self, path: Path, variant: Variant) -> Interpreter:
        import torch

        assert torch.__version__
        return super().load(path, variant)


class Named(Plain):
    """It calls what goes in and comes out as it likes."""

    def convert(self, job: Job) -> Artifact:
        made = super().convert(job)
        layers = json.loads(made.files[0].read_text())
        names = {layers["input"][0]: "in0", layers["output"][0]: "out0"}
        layers["input"][0], layers["output"][0] = "in0", "out0"
        made.files[0].write_text(json.dumps(layers))
        return replace(made, names=names)


class Other(Plain):
    """Only in the Python that its environment names."""

    def load(self, path: Path, variant: Variant) -> Interpreter:
        if os.environ.get("STANDIN_PREFIX") != sys.prefix:
            raise ImportError(f"not for {sys.prefix}")
        return super().load(path, variant)


class Lies(Plain):
    def load(self, path: Path, variant: Variant) -> Interpreter:
        made = super().load(path, variant)
        made.layers["layers"][0][3][0] += 0.01
        return made


class Aborts(Plain):
    def load(self, path: Path, variant: Variant) -> Interpreter:
        os.kill(os.getpid(), signal.SIGABRT)
        raise AssertionError


class Hangs(Plain):
    def load(self, path: Path, variant: Variant) -> Interpreter:
        time.sleep(600)
        raise AssertionError


class Refuses(Plain):
    refusal = "it has no form for a mean"
