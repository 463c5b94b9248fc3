"""Tiny ONNX models from text, and what they give on probes, for mutants, decisions and search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from torch2mobile.records import InputSpec, ParityOptions


@dataclass(frozen=True)
class Tiny:
    """A model, the specifications of its inputs, and itself as its own reference on probes."""

    model: onnx.ModelProto
    specs: Sequence[InputSpec]
    expected: Sequence[Any]
    options: ParityOptions

    def copy(self) -> onnx.ModelProto:
        copied = onnx.ModelProto()
        copied.CopyFrom(self.model)
        return copied

    def evaluate(self, probes: Sequence[Any]) -> list[Any]:
        return [_expected(self.model, probe) for probe in probes]


def outputs(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[tuple[str, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    return list(zip(names, session.run(None, dict(feeds)), strict=True))


@pytest.fixture(scope="session")
def run_onnx() -> Callable[..., list[tuple[str, Any]]]:
    """A model's outputs in ONNX Runtime, in this process and thread."""
    return outputs


def _expected(model: onnx.ModelProto, probe: Any) -> Any:
    from torch2mobile.validators.parity.expected import Expected
    from torch2mobile.validators.parity.mutating import float64

    exact = float64.outputs(model, {}, probe.feeds)
    assert exact is not None
    return Expected(probe, outputs(model, probe.feeds), [array for _, array in exact])


def parse(text: str, tensors: Mapping[str, Any], opset: int = 20) -> onnx.ModelProto:
    """``(inputs) => (outputs) { nodes }`` in ONNX's own text form, with these initializers."""
    head = f'<ir_version: 10, opset_import: ["" : {opset}]> tiny '
    model = onnx.parser.parse_model(head + text)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"n{number}"
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()
    )
    return onnx.shape_inference.infer_shapes(model)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Tiny]:
    """A model from text, on the probes of its inputs; inputs and values in the grammar."""
    from torch2mobile import sampling, sizing
    from torch2mobile.exporter.loading import inputs
    from torch2mobile.validators.parity import probes

    def make(text: str, given: Sequence[str], values: Sequence[str] = (), **tensors: Any) -> Tiny:
        model = parse(text, tensors)
        onnx.checker.check_model(model, full_check=True)
        specs, _ = inputs.resolve(given, values)
        options = ParityOptions()
        sizes = sizing.example_sizes(specs)
        rng = np.random.default_rng(0)
        example = {s.name: sampling.draw(s, sizes, "example", rng) for s in specs}
        built = probes.build(specs, example, options)
        return Tiny(model, specs, [_expected(model, probe) for probe in built], options)

    return make
