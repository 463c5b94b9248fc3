"""Every ONNX value leads back to a module and a source line, and the file itself tells nothing."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from rows import slow_but
from torch import nn

from torch2mobile.environments import Worker
from torch2mobile.exporter import capture, provenance, translate
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.simplify import CANDIDATES
from torch2mobile.pipeline.simplified import adopt
from torch2mobile.records import LoadedModel, Location, OnnxModel, Origin, Request
from torch2mobile.sample_models import SAMPLES

ORDINARY = [name for name, sample in SAMPLES.items() if sample.ordinary]


def origin(name: str, line: int = 1) -> Origin:
    return Origin((name,), "net.py", line, f"code of {name}")


# --- all samples, raw and simplified ----------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """A sample's two files with their origins."""

    loaded: LoadedModel
    raw: OnnxModel
    simplified: OnnxModel


@pytest.fixture(scope="module")
def simplifier() -> Iterator[Worker]:
    with Worker(preload=["onnx", "onnxsim"]) as worker:
        yield worker


@pytest.fixture(scope="module", params=slow_but(ORDINARY, "recurrent", "super_resolution"))
def written(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    simplifier: Worker,
) -> Written:
    folder = tmp_path_factory.mktemp(request.param)
    loaded = source.load(Request(source=f"sample:{request.param}"), SAMPLES)
    raw = translate.translation(capture.capture(loaded), folder / "model.onnx").model
    kept = folder / "raw.onnx"
    kept.write_bytes(raw.path.read_bytes())
    counts = simplifier.call(
        "torch2mobile.exporter.simplify:candidate", next(iter(CANDIDATES)),
        str(raw.path), str(folder / "simplified.onnx"), False, timeout=300,
    )  # fmt: skip
    simplified = raw if counts["same"] else adopt(raw, folder / "simplified.onnx")
    return Written(loaded, OnnxModel(kept, raw.opset, (), (), raw.origins), simplified)


@pytest.mark.parametrize("which", ["raw", "simplified"])
def test_every_node_of_every_sample_has_module_and_line(written: Written, which: str) -> None:
    model: OnnxModel = getattr(written, which)
    file = sys.modules[f"torch2mobile.sample_models.{written.loaded.name}"].__file__
    modules = {name for name, _ in written.loaded.module.named_modules()}
    lines = Path(str(file)).read_text().splitlines()
    nodes = list(onnx.load(model.path).graph.node)
    assert nodes
    for node in nodes:
        for name in filter(None, node.output):
            found = model.origins[name]
            # A few at most: the origin of everything would be no origin.
            assert 1 <= len(found) <= 4, node.name
            for place in found:
                assert Path(place.file).name == Path(str(file)).name, node.name
                assert set(place.modules) <= modules, node.name
                assert place.code
                assert lines[place.line - 1].strip() == place.code


@pytest.mark.parametrize("which", ["raw", "simplified"])
def test_no_file_tells_where_it_was_made(written: Written, which: str) -> None:
    model: OnnxModel = getattr(written, which)
    assert telltale(model.path) == []
    parsed = ir.load(model.path)
    assert all(not node.metadata_props and not node.doc_string for node in parsed.graph.all_nodes())


def telltale(path: Path, *more: str) -> list[str]:
    """What of the build machine and the source stands in a file's bytes."""
    package = Path(provenance.__file__).parents[1]
    words = [
        str(package), str(Path.cwd()), str(Path.home()), "site-packages", "sample_models", ".py",
        "stack_trace", "def forward", "return ", "self.", os.uname().nodename, *more,
    ]  # fmt: skip
    content = path.read_bytes()
    return [word for word in words if len(word) > 2 and word.encode() in content]


# --- a module of one's own --------------------------------------------------------------------


class Inner(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


class Outer(nn.Module):
    """With branches, whose nodes stand in subgraphs of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 3), Inner())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return torch.cond(y.sum() > 1, lambda v: v.sin(), lambda v: v.cos(), (y,))


def test_nested_modules_and_branches(export: Callable[..., Any]) -> None:
    exported = export(Outer(), (torch.rand(2, 3),))
    places = {
        (node.op_type, place.modules[0], place.code)
        for node in ir.load(exported.model.path).graph.all_nodes()
        for place in exported.model.origins[str(node.outputs[0].name)]
    }
    assert ("Gemm", "body.0", "y = self.body(x)") in places
    assert ("Relu", "body.1", "return torch.relu(x)") in places
    branch = "return torch.cond(y.sum() > 1, lambda v: v.sin(), lambda v: v.cos(), (y,))"
    for op in ("Sin", "Cos", "If", "ReduceSum"):
        assert (op, "", branch) in places
    assert telltale(exported.model.path, "test_provenance", "lambda", "torch.cond") == []
    exported.check()


def test_without_the_stripping_the_file_would_tell(
    export: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "strip", lambda model: None)
    exported = export(Inner(), (torch.rand(2, 3),))
    found = telltale(exported.model.path, "test_provenance", "torch.relu(x)")
    assert {"stack_trace", ".py", "test_provenance", "torch.relu(x)"} <= set(found)


# --- collecting -------------------------------------------------------------------------------


def traced(op: str, inputs: Any, name: str, scopes: list[str], line: int) -> ir.Node:
    metadata = {"pkg.torch.onnx.name_scopes": repr(scopes)}
    if line:
        metadata["pkg.torch.onnx.stack_trace"] = f'File "{__file__}", line {line}, in forward'
    node = ir.Node("", op, inputs, name=f"node_{name}", metadata_props=metadata)
    node.outputs[0].name = name
    return node


def bare(op: str, inputs: Any, name: str) -> ir.Node:
    node = ir.Node("", op, inputs, name=f"node_{name}")
    node.outputs[0].name = name
    return node


def test_collect_reads_scopes_and_fills_gaps_from_neighbours() -> None:
    x = ir.Value(name="x")
    first = traced("Relu", [x], "first", ["", "inner", "inner.body.0", "relu"], 1)
    between = bare("Shape", first.outputs, "between")
    size = traced("Squeeze", between.outputs, "size", ["", "_empty_nn_module_stack_hook", "s"], 0)
    second = traced("Reshape", [first.outputs[0], size.outputs[0]], "second", ["", "inner", "v"], 3)
    garbled = traced("Abs", second.outputs, "garbled", [], 5)
    garbled.metadata_props["pkg.torch.onnx.name_scopes"] = "not [a list"
    graph = ir.Graph([x], [garbled.outputs[0]], nodes=[first, between, size, second, garbled])
    found = provenance.collect(ir.Model(graph, ir_version=10))
    one, three = found["first"][0], found["second"][0]
    assert (one.modules, one.line) == (("body.0",), 1)
    assert one.code == '"""' + str(__doc__) + '"""'
    assert (three.modules, three.line) == (("",), 3)
    assert found["between"] == (one,)
    assert set(found["size"]) == {one, three}
    assert found["garbled"][0].modules == ("",)


def test_a_line_of_a_library_has_the_users_line_that_calls_it() -> None:
    node = traced("Relu", [ir.Value(name="x")], "y", ["", "inner", "relu"], 1)
    library = "/env/site-packages/torchvision/ops/boxes.py"
    node.metadata_props["pkg.torch.onnx.stack_trace"] += f'\n  File "{library}", line 54, in nms'
    whole = ir.Graph([], [node.outputs[0]], nodes=[node])
    ((found,),) = provenance.collect(ir.Model(whole, ir_version=10)).values()
    place = found.place()
    assert (place.file, place.line, place.caller_line) == (library, 54, 1)
    assert place.caller.endswith("test_provenance.py")
    written = json.loads(provenance.to_json(graph(("Relu", "x", "y")), {"y": (found,)}))
    assert written["nodes"][0]["origins"][0]["caller_line"] == 1


# --- carrying across a rewrite ----------------------------------------------------------------


def graph(*nodes: tuple[str, str, str]) -> onnx.ModelProto:
    """A graph from ``(op, inputs, outputs)``, names parted by blanks."""
    made = [helper.make_node(op, i.split(), o.split(), name=f"n_{o}") for op, i, o in nodes]
    return helper.make_model(helper.make_graph(made, "graph", [], []))


CONV = (
    ("Conv", "x w", "conv"),
    ("BatchNormalization", "conv s b m v", "norm"),
    ("Relu", "norm", "relu"),
    ("MatMul", "relu w2", "product"),
    ("Add", "product b2", "sum"),
)
ORIGINS = {outputs: (origin(outputs),) for _, _, outputs in CONV}


def test_a_fused_node_stands_for_all_that_it_replaced() -> None:
    after = graph(("FusedConv", "x w", "relu"), ("Gemm", "relu w2 b2", "sum"))
    assert provenance.carry(graph(*CONV), after, ORIGINS) == {
        "relu": (origin("relu"), origin("norm"), origin("conv")),
        "sum": (origin("sum"), origin("product")),
    }


def test_untouched_nodes_keep_their_own_alone() -> None:
    assert provenance.carry(graph(*CONV), graph(*CONV), ORIGINS) == ORIGINS


def test_a_renamed_value_takes_after_what_it_leads_to() -> None:
    after = graph(
        ("Conv", "x w", "new_1"), ("Relu", "new_1", "new_2"), ("MatMul", "new_2 w2", "product"),
        ("Add", "product b2", "sum"),
    )  # fmt: skip
    found = provenance.carry(graph(*CONV), after, ORIGINS)
    everything = tuple(origin(name) for name in ("product", "relu", "norm", "conv"))
    assert found["new_1"] == found["new_2"] == found["product"] == everything
    assert found["sum"] == (origin("sum"),)


def test_a_value_that_leads_nowhere_known_takes_after_its_sources() -> None:
    after = graph(("Conv", "x w", "conv"), ("Exp", "conv", "new_1"), ("Abs", "new_1", "new_2"))
    found = provenance.carry(graph(*CONV), after, ORIGINS)
    assert found["new_2"] == found["new_1"] == (origin("conv"),)


def test_what_has_no_origin_at_all_gets_none() -> None:
    after = graph(("Exp", "y", "other"))
    assert provenance.carry(graph(*CONV), after, ORIGINS) == {}


# --- stripping --------------------------------------------------------------------------------


def noted(message: Any, *but: str) -> Any:
    """Fill in every note of a message and of all within it, but not those of some types."""
    fields = {} if message.DESCRIPTOR.name in but else message.DESCRIPTOR.fields_by_name
    if "doc_string" in fields:
        message.doc_string = "SECRET"
    if "metadata_props" in fields:
        message.metadata_props.add(key="SECRET", value="SECRET")
    for field, value in message.ListFields():
        inner = [value] if hasattr(value, "ListFields") else value
        if field.message_type is not None and field.name != "metadata_props":
            for item in inner:
                noted(item, *but)
    return message


def full_model() -> onnx.ModelProto:
    """A model with a subgraph, a function, weights and sizes of inner values."""
    info = helper.make_tensor_value_info
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    branch = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["b"])], "branch", [], [info("b", 1, [1])], [weight]
    )
    main = helper.make_graph(
        [
            helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch),
            helper.make_node("F", ["y"], ["z"], domain="d"),
        ],
        "main", [info("x", 1, [1]), info("c", TensorProto.BOOL, [])], [info("z", 1, [1])], [weight],
        value_info=[info("y", 1, [1])],
    )  # fmt: skip
    opset = helper.make_opsetid("", 20)
    function = helper.make_function(
        "d", "F", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [opset]
    )
    opsets = [opset, helper.make_opsetid("d", 1)]
    return helper.make_model(main, functions=[function], opset_imports=opsets, ir_version=10)


def test_stripping_leaves_the_model_and_none_of_its_notes() -> None:
    model = noted(full_model())
    assert model.SerializeToString().count(b"SECRET") > 30
    provenance.strip_proto(model)
    assert model == full_model()


def test_stripping_the_exporters_form_does_the_same() -> None:
    # It has no notes at attributes, and its tensors are torch's.
    model = ir.from_proto(noted(full_model(), "AttributeProto", "TensorProto"))
    assert b"SECRET" in ir.to_proto(model).SerializeToString()
    provenance.strip(model)
    assert b"SECRET" not in ir.to_proto(model).SerializeToString()
    onnx.checker.check_model(ir.to_proto(model))


# --- what is written beside -------------------------------------------------------------------


def test_json_has_every_node_in_order() -> None:
    origins = {"relu": (origin("a", 4), origin("b")), "product": (origin("a", 4),)}
    model = graph(("Relu", "x", "relu"), ("Split", "relu", "product other"), ("Abs", "other", "z"))
    written = json.loads(provenance.to_json(model, origins))
    assert written["schema_version"] == 1
    first, second, third = written["nodes"]
    assert first == {
        "node": "n_relu",
        "op": "Relu",
        "outputs": ["relu"],
        "origins": [
            {"modules": ["a"], "file": "net.py", "line": 4, "code": "code of a"},
            {"modules": ["b"], "file": "net.py", "line": 1, "code": "code of b"},
        ],
    }
    assert [place["modules"] for place in second["origins"]] == [["a"]]
    assert third["origins"] == []


def test_an_origin_as_a_location() -> None:
    expected = Location(module="a", file="net.py", line=1, code="code of a", node="n", op="Relu")
    assert origin("a").place("n", "Relu") == expected
    assert Origin((), "", 0, "").place() == Location()


def test_metadata_are_restored_without_a_word() -> None:
    """torch warns of its own call specifications, which it copies where it decomposes a program."""
    program = torch.export.export(torch.nn.Identity(), (torch.ones(2, 3),))
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        provenance.restore(model, program)
