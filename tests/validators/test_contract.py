"""The file against the request: each property that can differ is changed, and found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from torch2mobile.isolation import IsolatedRunner
from torch2mobile.records import Check, Dim, InputSpec, OnnxModel, OutputSpec, Status
from torch2mobile.validators.contract import (
    checker_problems,
    contract_check,
    file_opset,
    interface_problems,
    load_warnings,
)

INPUTS = (
    InputSpec("x", ("x",), "float32", (Dim(symbol="N"), Dim(size=3), Dim(symbol="h", factor=8))),
    InputSpec("y", ("y",), "float32", (Dim(symbol="N"), Dim(size=3), Dim(symbol="h", factor=8))),
)
OUTPUTS = (
    OutputSpec("sum", "float32", ("N", 3, "8*h")),
    OutputSpec("largest", "float32", ("N", 3)),
)
OPSET = 18
ORT = "torch2mobile.exporter.targets.ort:OrtRunner"


def base() -> Any:
    """A model that is exactly as asked for."""
    dims = ["N", 3, "8*h"]
    nodes = [
        helper.make_node("Add", ["x", "y"], ["added"], name="add"),
        helper.make_node("Mul", ["added", "scale"], ["sum"], name="scale_it"),
        helper.make_node("ReduceMax", ["added", "axes"], ["largest"], name="max", keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in "xy"],
        [
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, dims),
            helper.make_tensor_value_info("largest", TensorProto.FLOAT, dims[:2]),
        ],
        [
            numpy_helper.from_array(np.float32(2.0), "scale"),
            numpy_helper.from_array(np.array([2]), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


class InProcess:
    """The part of IsolatedRunner that the contract needs, without a process."""

    def __init__(self, path: Path) -> None:
        self.path, self.load_log = path, ""

    def load(self) -> None:
        from torch2mobile.exporter.targets.ort import OrtRunner

        self.session = OrtRunner(self.path)

    def inputs(self) -> Any:
        return self.session.inputs()

    def outputs(self) -> Any:
        return self.session.outputs()


def check(proto: Any, folder: Path, *, isolated: bool = False, opset: int | None = None) -> Check:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    model = OnnxModel(path, OPSET, INPUTS, OUTPUTS, {})
    if not isolated:
        runner: Any = InProcess(path)
        return contract_check(model, INPUTS, OUTPUTS, opset, runner)
    with IsolatedRunner(ORT, path, timeout=60) as runner:
        return contract_check(model, INPUTS, OUTPUTS, opset, runner)


def test_a_model_as_asked_for_passes(tmp_path: Path) -> None:
    found = check(base(), tmp_path, isolated=True)
    assert found.status is Status.PASSED
    assert found.summary == "opset 18, 2 inputs, 2 outputs, 4 dynamic dims"


def rename(proto: Any, old: str, new: str) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        value.name = new if value.name == old else value.name
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def swap(values: Any) -> None:
    kept = [type(value).FromString(value.SerializeToString()) for value in values]
    del values[:]
    values.extend(reversed(kept))


def dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def renamed_input(proto: Any) -> None:
    rename(proto, "x", "input_1")


def swapped_inputs(proto: Any) -> None:
    swap(proto.graph.input)


def added_input(proto: Any) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))


def input_of_another_dtype(proto: Any) -> None:
    for value in proto.graph.input:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float64(2.0), "scale"))
    for value in proto.graph.output:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE


def frozen_batch(proto: Any) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        dims(value)[0].dim_value = 2


def frozen_multiple(proto: Any) -> None:
    for value in [*proto.graph.input, proto.graph.output[0]]:
        dims(value)[2].dim_value = 32


def renamed_symbol(proto: Any) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        dims(value)[0].dim_param = "batch"


def freed_dimension(proto: Any) -> None:
    for value in proto.graph.input:
        dims(value)[1].dim_param = "C"


def another_fixed_size(proto: Any) -> None:
    for value in [*proto.graph.input, *proto.graph.output]:
        dims(value)[1].dim_value = 4


def another_rank(proto: Any) -> None:
    for value in [*proto.graph.input, proto.graph.output[0]]:
        dims(value).add().dim_value = 1
    dims(proto.graph.output[1]).add().dim_value = 1


def renamed_output(proto: Any) -> None:
    rename(proto, "sum", "output_0")


def swapped_outputs(proto: Any) -> None:
    swap(proto.graph.output)


def dropped_output(proto: Any) -> None:
    del proto.graph.output[1]
    del proto.graph.node[2]
    del proto.graph.initializer[1]


def output_of_another_dtype(proto: Any) -> None:
    rename(proto, "sum", "float_sum")
    proto.graph.output[0].name = "sum"
    cast = helper.make_node("Cast", ["float_sum"], ["sum"], to=TensorProto.DOUBLE)
    proto.graph.node.append(cast)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def another_opset(proto: Any) -> None:
    proto.opset_import[0].version = 19


def frozen_output(proto: Any) -> None:
    dims(proto.graph.output[0])[2].dim_value = 32


def wrong_attribute(proto: Any) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("speed", 11))


def unsorted_nodes(proto: Any) -> None:
    swap(proto.graph.node)


def unknown_operator(proto: Any) -> None:
    proto.graph.node[0].op_type = "Plus"


def undefined_value(proto: Any) -> None:
    proto.graph.node[1].input[1] = "nowhere"


def wrong_shape_inside(proto: Any) -> None:
    info = helper.make_tensor_value_info("added", TensorProto.FLOAT, [7])
    proto.graph.value_info.append(info)


EDITS: dict[Callable[[Any], None], str] = {
    renamed_input: "inputs are ['input_1', 'y'], asked for ['x', 'y']",
    swapped_inputs: "inputs are ['y', 'x'], asked for ['x', 'y']",
    added_input: "inputs are ['x', 'y', 'z']",
    input_of_another_dtype: "x is float64, asked for float32",
    frozen_batch: "dimension 0 of x was declared dynamic (N) and is fixed to 2",
    frozen_multiple: "dimension 2 of x was declared dynamic (8*h) and is fixed to 32",
    renamed_symbol: "dimension 0 of x is called batch, asked for N",
    freed_dimension: "dimension 1 of x is C, asked for 3",
    another_fixed_size: "dimension 1 of x is 4, asked for 3",
    another_rank: "x has 4 dims, asked for 3",
    renamed_output: "outputs are ['output_0', 'largest'], asked for ['sum', 'largest']",
    swapped_outputs: "outputs are ['largest', 'sum'], asked for ['sum', 'largest']",
    dropped_output: "outputs are ['sum'], asked for ['sum', 'largest']",
    output_of_another_dtype: "the output sum is float64, asked for float32",
    frozen_output: "dimension 2 of the output sum is fixed to 32",
    another_opset: "the opset is 19, asked for 18",
    wrong_attribute: "onnx.checker: Unrecognized attribute: speed",
    unsorted_nodes: "onnx.checker: Nodes in a graph must be topologically sorted",
    unknown_operator: "onnx.checker: No Op registered for Plus",
    undefined_value: "onnx.checker: Nodes in a graph must be topologically sorted",
    wrong_shape_inside: "onnx.checker: ",
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_each_difference_is_found(edit: Callable[[Any], None], tmp_path: Path) -> None:
    proto = base()
    edit(proto)
    found = check(proto, tmp_path)
    assert found.status is Status.FAILED
    problems = [found.summary, *found.notes]
    assert any(EDITS[edit] in problem for problem in problems), problems
    assert found.summary.startswith(f"{len(problems)} of the things asked for are not so")


def test_several_differences_are_all_named(tmp_path: Path) -> None:
    proto = base()
    renamed_input(proto)
    swapped_outputs(proto)
    another_opset(proto)
    found = check(proto, tmp_path)
    assert found.summary.startswith("3 of the things asked for are not so")
    assert len(found.notes) == 2


class TestOpset:
    def test_it_is_read_from_the_file_and_not_from_the_record(self, tmp_path: Path) -> None:
        proto = base()
        another_opset(proto)
        found = check(proto, tmp_path, opset=OPSET)
        assert found.status is Status.FAILED
        assert "the opset is 19, asked for 18" in found.summary
        assert file_opset(tmp_path / "model.onnx") == 19

    def test_asked_for(self, tmp_path: Path) -> None:
        assert check(base(), tmp_path, opset=18).status is Status.PASSED
        assert check(base(), tmp_path, opset=17).status is Status.FAILED

    def test_other_domains_have_their_own(self, tmp_path: Path) -> None:
        proto = base()
        proto.opset_import.insert(0, helper.make_opsetid("org.example", 99))
        (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
        assert file_opset(tmp_path / "model.onnx") == OPSET


class TestLoading:
    def test_a_model_that_the_runtime_refuses(self, tmp_path: Path) -> None:
        # Valid ONNX: the reference has bfloat16 products, the runtime's CPU has no kernel.
        proto = base()
        for value in [*proto.graph.input, *proto.graph.output]:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
        scale = helper.make_tensor("scale", TensorProto.BFLOAT16, [], [2.0])
        proto.graph.initializer[0].CopyFrom(scale)
        assert checker_problems_of(proto, tmp_path) == []
        found = check(proto, tmp_path, isolated=True)
        assert found.status is Status.FAILED
        assert "does not load in ONNX Runtime" in found.summary

    def test_a_weight_that_nothing_uses_is_warned_of(self, tmp_path: Path) -> None:
        proto = base()
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unused"))
        found = check(proto, tmp_path, isolated=True)
        assert found.status is Status.FAILED
        assert "onnxruntime warns: " in found.summary
        assert "unused" in found.summary

    def test_a_weight_that_is_an_input_too_is_warned_of(self, tmp_path: Path) -> None:
        proto = base()
        proto.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, []))
        found = check(proto, tmp_path, isolated=True)
        assert found.status is Status.FAILED
        assert any(
            "scale appears in graph inputs" in line for line in (found.summary, *found.notes)
        )

    def test_what_is_said_of_the_machine_is_not_of_the_model(self) -> None:
        log = (
            "2026 [W:onnxruntime:Default, device_discovery.cc:164 Get] no GPU\n"
            "2026 [E:onnxruntime:Default, env.cc:254] pthread_setaffinity_np failed\n"
            "2026 [I:onnxruntime:, session.cc:1 f] nothing\n"
            "plain text\n"
        )
        assert load_warnings(log) == []

    def test_each_warning_and_error_of_the_model_is_kept(self) -> None:
        log = (
            "2026 [W:onnxruntime:, graph.cc:4885 Clean] Removing initializer 'a'.\n"
            "2026 [E:onnxruntime:, session.cc:9 Load] no kernel\n"
        )
        assert load_warnings(log) == [
            "onnxruntime warns: Removing initializer 'a'.",
            "onnxruntime warns: no kernel",
        ]


def checker_problems_of(proto: Any, folder: Path) -> list[str]:
    path = folder / "checked.onnx"
    path.write_bytes(proto.SerializeToString())
    return checker_problems(path)


def test_an_interface_is_equal_to_itself() -> None:
    found = [OutputSpec(s.name, s.dtype, tuple(d.label for d in s.dims)) for s in INPUTS]
    assert interface_problems(INPUTS, OUTPUTS, found, OUTPUTS) == []


def test_an_unknown_dimension_is_no_symbol() -> None:
    found = [OutputSpec(s.name, s.dtype, ("?", 3, "?")) for s in INPUTS]
    assert len(interface_problems(INPUTS, OUTPUTS, found, OUTPUTS)) == 4


def test_outputs_whose_size_the_exporter_does_not_know_may_be_anything() -> None:
    found = [OutputSpec(s.name, s.dtype, tuple(d.label for d in s.dims)) for s in INPUTS]
    unknown = [replace(OUTPUTS[0], dims=("?", "?", "?")), OUTPUTS[1]]
    assert interface_problems(INPUTS, unknown, found, OUTPUTS) == []


def test_a_real_export_keeps_the_contract(export: Callable[..., Any]) -> None:
    class Two(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"cut": a[:, ::2], "both": torch.cat([a, b], 1), "index": a.argmax(1)}

    artefact = export(Two(), "a:float32[N,8*h]", "b:float32[N,W=2..9]")
    model = artefact.model
    with IsolatedRunner(ORT, model.path, timeout=60) as runner:
        found = contract_check(model, artefact.capture.inputs, model.outputs, None, runner)
    assert found.status is Status.PASSED, (found.summary, found.notes)


@pytest.mark.parametrize(
    ("dim", "problems"),
    [
        ("u0", 0),
        ("2*u1 + 1", 0),
        ("Reshapey_dim_0", 0),
        ("N", 1),
        ("8*h", 1),
        ("floor(N/2)", 1),
        ("?", 0),
        (3, 0),
    ],
)
def test_a_size_that_data_decide_may_be_fixed_in_the_file(dim: int | str, problems: int) -> None:
    """Where a constant decides it, the file says so; where data do, parity sees it change."""
    wanted = [OutputSpec(name="y", dtype="float32", dims=(dim, 4))]
    found = [OutputSpec(name="y", dtype="float32", dims=(3, 4))]
    given = [
        OutputSpec(spec.name, spec.dtype, tuple(d.label for d in spec.dims)) for spec in INPUTS
    ]
    assert len(interface_problems(INPUTS, wanted, given, found)) == problems


def test_a_users_own_name_is_no_symbol_of_torchs() -> None:
    dims = (Dim(2, symbol="u1"), Dim(4))
    inputs = [InputSpec(name="x", dtype="float32", dims=dims, path=("x",))]
    wanted = [OutputSpec(name="y", dtype="float32", dims=("u1", 4))]
    found = [OutputSpec(name="y", dtype="float32", dims=(2, 4))]
    given = [OutputSpec(name="x", dtype="float32", dims=("u1", 4))]
    (problem,) = interface_problems(inputs, wanted, given, found)
    assert "dimension 0 of the output y is fixed to 2" in problem


def pooling(size: int, ceil_mode: int, shown: int) -> Any:
    """A pooling by 2 every 3 over an image that is padded by one, and the size that is shown."""
    node = helper.make_node(
        "MaxPool",
        ["x"],
        ["y"],
        name="pool",
        kernel_shape=[2, 2],
        strides=[3, 3],
        pads=[1, 1, 1, 1],
        ceil_mode=ceil_mode,
    )
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, size, size])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, shown, shown])
    graph = helper.make_graph([node], "g", [image], [out])
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


@pytest.mark.parametrize(
    ("ceil_mode", "shown", "status"),
    [(1, 3, Status.PASSED), (0, 4, Status.FAILED)],
)
def test_shape_inference_that_counts_a_window_in_the_padding_is_noted(
    tmp_path: Path, ceil_mode: int, shown: int, status: Status
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(pooling(8, ceil_mode, shown).SerializeToString())
    (problem,) = checker_problems(path)
    assert "Inferred shape and existing shape differ" in problem
    dims = (Dim(size=1), Dim(size=1), Dim(size=8), Dim(size=8))
    inputs = (InputSpec("x", ("x",), "float32", dims),)
    outputs = (OutputSpec("y", "float32", (1, 1, shown, shown)),)
    model = OnnxModel(path, OPSET, inputs, outputs, {})
    with IsolatedRunner(ORT, path, timeout=60) as runner:
        found = contract_check(model, inputs, outputs, None, runner)
    assert found.status is status, found
    assert any("starts no window in the padding" in note for note in found.notes) == (
        status is Status.PASSED
    )
