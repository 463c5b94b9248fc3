from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional as F

from torch2mobile.pipeline import finding_words
from torch2mobile.records import ParityOptions, Request
from torch2mobile.sample_models import SAMPLES
from torch2mobile.validators.parity import localise, probes, reference
from torch2mobile.validators.parity.evidence import closeness
from torch2mobile.validators.parity.expected import Expected, typical_of
from torch2mobile.validators.parity.locating import pieces, slices
from torch2mobile.validators.parity.locating.suspects import Located, Question


class Net(nn.Module):
    """One of most things: a convolution that swallows its norm, a branch, a sum, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.norm = nn.LayerNorm(4, eps=1e-3)
        self.head, self.side = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        h = F.hardswish(self.bn(self.conv(x)))
        h = torch.cond(h.sum() > 1e6, lambda t: t * 2.0, lambda t: t + 1.0, (h,))
        h = torch.tanh(h) + h
        pooled = self.norm(h.mean((2, 3)))
        scores = torch.softmax(self.head(pooled), -1)
        return {"scores": scores, "classes": self.side(pooled).argmax(-1)}


@dataclass(frozen=True)
class Subject:
    """An exported module and its expected outputs, ready to be asked about."""

    artefact: Any
    translation: Any
    expected: list[Expected]

    def ask(self, path: Path, case: Expected | None = None, **changes: Any) -> Located:
        question = Question(
            artifact=path,
            program=self.translation.program,
            twins=self.translation.twins,
            inputs=tuple(spec.name for spec in self.artefact.capture.inputs),
            case=case or self.expected[0],
            usual=typical_of(self.expected),
            tolerances={},
            fresh=self.translation.model.path,
        )
        return localise.localise(replace(question, **changes))


@pytest.fixture(scope="module")
def net(export: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Subject:
    from torch2mobile.exporter import translate

    # torch.cond compiles itself, and may find its limit of recompilations used up by other tests.
    torch._dynamo.reset()
    torch.manual_seed(1)
    module = Net()
    for value in module.bn.buffers():
        value.data = value + torch.rand_like(value.float()).to(value.dtype)
    nn.init.normal_(module.norm.weight)
    artefact = export(module.eval(), "x:float32[N=1..4,2,6,5]")
    path = tmp_path_factory.mktemp("net") / "model.onnx"
    translation = translate.translation(artefact.capture, path)
    return Subject(artefact, translation, artefact.expected(probes=4))


@pytest.fixture
def broken(net: Subject, tmp_path: Path) -> Callable[[Callable[[Any], None]], Path]:
    """The net's file after an edit of its graph."""

    def make(edit: Callable[[Any], None]) -> Path:
        model = onnx.load(net.translation.model.path)
        before = model.SerializeToString()
        edit(model.graph)
        assert model.SerializeToString() != before
        path = tmp_path / "broken.onnx"
        onnx.save(model, path)
        return path

    return make


def node_of(graph: Any, op_type: str) -> Any:
    return next(node for node in graph.node if node.op_type == op_type)


def weight(graph: Any, name: str) -> Any:
    return next(tensor for tensor in graph.initializer if tensor.name == name)


def named(finding: Located) -> list[str]:
    return [node.op_type for node in finding.suspects[0].nodes]


# --- faults -----------------------------------------------------------------------------------


def another_operator(graph: Any) -> None:
    node_of(graph, "HardSwish").op_type = "Relu"


def one_weight(graph: Any) -> None:
    tensor = weight(graph, "conv.weight")
    values = numpy_helper.to_array(tensor).copy()
    values.flat[7] *= 1.01
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def epsilon(graph: Any) -> None:
    node = node_of(graph, "LayerNormalization")
    next(a for a in node.attribute if a.name == "epsilon").f = 1e-5


def not_a_number(graph: Any) -> None:
    tensor = weight(graph, "head.bias")
    tensor.CopyFrom(numpy_helper.from_array(np.full(3, np.nan, np.float32), tensor.name))


def other_branch(graph: Any) -> None:
    node = node_of(graph, "If")
    inner = next(a for a in node.attribute if a.name == "else_branch").g
    node_of(inner, "Add").op_type = "Sub"


def axis(graph: Any) -> None:
    next(a for a in node_of(graph, "Softmax").attribute if a.name == "axis").i = 0


def other_index(graph: Any) -> None:
    node_of(graph, "ArgMax").op_type = "ArgMin"


def swapped_inputs(graph: Any) -> None:
    node = node_of(graph, "Gemm")
    other = [n for n in graph.node if n.op_type == "Gemm"][1]
    node.input[1], node.input[2] = other.input[1], other.input[2]


def inserted_cast(graph: Any) -> None:
    node = node_of(graph, "Tanh")
    number, name = list(graph.node).index(node), node.output[0]
    node.output[0] = "before_cast"
    casts = [
        helper.make_node("Cast", ["before_cast"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], [name], to=TensorProto.FLOAT),
    ]
    for cast in reversed(casts):
        graph.node.insert(number + 1, cast)


FAULTS: dict[str, tuple[Callable[[Any], None], list[str], str]] = {
    "another operator": (another_operator, ["HardSwish", "Relu"], "Relu where"),
    "one weight": (one_weight, ["Conv"], "differs in 1 of 72 values"),
    "epsilon": (epsilon, ["LayerNormalization"], "epsilon 1e-05 instead of 0.001"),
    "NaN": (not_a_number, ["Gemm"], "is [nan, nan, nan]"),
    "a branch": (other_branch, ["If"], "a subgraph of"),
    "axis": (axis, ["Softmax"], "axis 0 instead of -1"),
    "integers": (other_index, ["ArgMax", "ArgMin"], "ArgMin where"),
    "another weight": (swapped_inputs, ["Gemm"], "differs in"),
    "a cast put in": (inserted_cast, ["Cast", "Cast"], "Cast, Cast, which the module's own"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_faulty_node_is_named(name: str, net: Subject, broken: Any) -> None:
    edit, operators, difference = FAULTS[name]
    finding = net.ask(broken(edit))
    assert finding.verdict == "node"
    suspect = finding.suspects[0]
    assert set(named(finding)) <= set(operators)
    assert len(suspect.nodes) == (2 if operators == ["Cast", "Cast"] else 1)
    assert suspect.error > suspect.allowed
    assert suspect.fault == "graph"
    assert difference in "; ".join(suspect.differences)
    # What comes before it is right, what comes after is not.
    assert suspect.before is not None
    assert suspect.after is not None
    assert suspect.before < 1e-5 < suspect.after


@pytest.mark.parametrize("name", ["one weight", "epsilon", "a branch"])
def test_without_a_translation_to_compare_with(name: str, net: Subject, broken: Any) -> None:
    edit, operators, _ = FAULTS[name]
    finding = net.ask(broken(edit), fresh=None)
    assert set(named(finding)) == set(operators)
    assert finding.suspects[0].fault == "graph"
    assert not finding.suspects[0].differences


def test_a_clean_file_has_nothing(net: Subject) -> None:
    for case in net.expected:
        finding = net.ask(net.translation.model.path, case)
        assert (finding.verdict, finding.suspects) == ("nothing", ()), case.probe.label
        assert finding.compared > 8


def shifted(graph: Any) -> None:
    """What softmax takes out again, as simplifying may move a factor past a value."""
    tensor = weight(graph, "head.bias")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + 1, tensor.name))


def test_another_value_within_is_nothing_where_the_whole_is_right(
    net: Subject, broken: Any
) -> None:
    finding = net.ask(broken(shifted))
    assert (finding.verdict, finding.suspects) == ("nothing", ())


def test_slices_of_any_size_find_the_same(
    net: Subject, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = broken(axis)
    whole = net.ask(path)
    runs: list[list[int]] = []
    run = pieces.Pieces.compared

    def watch(self: Any, numbers: Any, *args: Any) -> Any:
        runs.append(list(numbers))
        return run(self, numbers, *args)

    monkeypatch.setattr(pieces.Pieces, "compared", watch)
    monkeypatch.setattr(localise, "SLICE_BYTES", 1)
    finding = net.ask(path)
    assert (finding.verdict, finding.suspects) == (whole.verdict, whole.suspects)
    assert len(runs) > 5
    everything = net.ask(net.translation.model.path)
    assert everything.verdict == "nothing"


def test_values_are_dropped_when_their_slice_is_done(
    net: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    sweep = localise.Tape.sweep

    def watch(self: Any) -> None:
        sweep(self)
        weights = {node for node in self.nodes if node.op == "placeholder"}
        held.append(len(set(self._values) - weights))

    monkeypatch.setattr(localise.Tape, "sweep", watch)
    monkeypatch.setattr(localise, "SLICE_BYTES", 1)
    net.ask(net.translation.model.path)
    assert len(held) > 5
    assert max(held) <= 4


# --- files that do not run, or lost their names -----------------------------------------------


def test_a_node_that_raises(net: Subject, broken: Any) -> None:
    def edit(graph: Any) -> None:
        tensor = weight(graph, "head.bias")
        tensor.CopyFrom(numpy_helper.from_array(np.zeros(5, np.float32), tensor.name))

    finding = net.ask(broken(edit))
    assert (finding.verdict, named(finding)) == ("node", ["Gemm"])
    assert "does not run" in finding.suspects[0].problem
    assert "head.bias is float32[5], not float32[3]" in finding.suspects[0].differences


def test_a_wrong_shape(net: Subject, broken: Any) -> None:
    def edit(graph: Any) -> None:
        node = node_of(graph, "Softmax")
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "zero"))
        node.op_type, node.input[:] = "Unsqueeze", [node.input[0], "zero"]
        del node.attribute[:]

    finding = net.ask(broken(edit))
    assert named(finding) == ["Unsqueeze"]
    assert "shape: expected" in finding.suspects[0].problem
    assert finding.suspects[0].error == float("inf")


def test_other_outputs_are_no_nodes_fault(net: Subject, broken: Any) -> None:
    finding = net.ask(broken(lambda graph: graph.output.pop()))
    assert finding.verdict == "interface"
    assert not finding.suspects


def renamed(graph: Any, keep: set[str]) -> None:
    """Other names for all inner values but some."""
    interface = {value.name for value in (*graph.input, *graph.output)}
    names = [name for node in graph.node for name in node.output]
    new = {name: f"t{n}" for n, name in enumerate(names) if name not in interface | keep}
    branches = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    for scope in (graph, *branches):
        for node in scope.node:
            node.output[:] = [new.get(name, name) for name in node.output]
            node.input[:] = [new.get(name, name) for name in node.input]
    del graph.value_info[:]


def test_where_names_are_lost_the_span_is_reported(net: Subject, broken: Any) -> None:
    def edit(graph: Any) -> None:
        axis(graph)
        renamed(graph, {"layer_norm"})

    path = broken(edit)
    finding = net.ask(path, fresh=None)
    assert finding.verdict == "node"
    assert named(finding) == ["Gemm", "Softmax"]
    assert finding.suspects[0].value == "scores"
    assert finding.compared < finding.values
    # The values of a translation tell that the Gemm, whatever its name, is as it should be.
    assert named(net.ask(path)) == ["Softmax"]


def test_a_foreign_file_is_one_span_from_inputs_to_outputs(net: Subject, broken: Any) -> None:
    def edit(graph: Any) -> None:
        another_operator(graph)
        renamed(graph, set())

    finding = net.ask(broken(edit), fresh=None)
    assert {"Conv", "Relu", "If", "Softmax"} <= set(named(finding))
    assert finding.suspects[0].before == 0.0


def test_names_that_only_a_simplified_translation_has(
    net: Subject, broken: Any, tmp_path: Path
) -> None:
    model = onnx.load(net.translation.model.path)
    renamed(model.graph, set())
    simplified = tmp_path / "simplified.onnx"
    onnx.save(model, simplified)

    def edit(graph: Any) -> None:
        axis(graph)
        renamed(graph, set())

    finding = net.ask(broken(edit), simplify=lambda: simplified)
    assert named(finding) == ["Softmax"]
    assert "axis 0 instead of -1" in finding.suspects[0].differences


# --- whose fault ------------------------------------------------------------------------------


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Another runtime in the worker: the body of a class derived from Sliced."""

    def make(body: str) -> None:
        code = """
        import os, numpy as np
        from torch2mobile.validators.parity.locating.slices import Sliced

        class Other(Sliced):
            def has(self, numbers, op_type):
                return any(self._nodes[number].op_type == op_type for number in numbers)
        """
        text = textwrap.dedent(code) + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "other_runtime.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(pieces, "LOADER", "other_runtime:Other")

    return make


def test_a_bad_kernel_is_told_from_a_bad_graph(net: Subject, runtime: Any) -> None:
    runtime("""
    def run(self, numbers, feeds, wanted):
        found = super().run(numbers, feeds, wanted)
        return {n: a * 1.01 if n == "tanh" else a for n, a in found.items()}

    def whole(self, feeds, exposed=(), optimised=True):
        found = super().whole(feeds, exposed, optimised)
        return {n: a * 1.01 if n == "tanh" else a for n, a in found.items()}
    """)
    finding = net.ask(net.translation.model.path)
    assert named(finding) == ["Tanh"]
    assert finding.suspects[0].fault == "kernel"
    assert not finding.suspects[0].differences


def test_a_kernel_that_crashes(net: Subject, runtime: Any) -> None:
    runtime("""
    def run(self, numbers, feeds, wanted):
        if self.has(numbers, "LayerNormalization"):
            os.abort()
        return super().run(numbers, feeds, wanted)
    """)
    finding = net.ask(net.translation.model.path)
    assert named(finding) == ["LayerNormalization"]
    assert "SIGABRT" in finding.suspects[0].problem


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ("optimised", "optimizer"),
        ("True", "accumulated"),
        ("1 / 0", "refused"),
    ],
)
def test_each_node_is_right_but_not_the_whole(
    wrong: str, verdict: str, net: Subject, runtime: Any
) -> None:
    runtime(f"""
    def whole(self, feeds, exposed=(), optimised=True):
        found = super().whole(feeds, exposed, optimised)
        return {{n: a + a.dtype.type(1) if {wrong} else a for n, a in found.items()}}
    """)
    finding = net.ask(net.translation.model.path)
    assert finding.verdict == verdict
    shares = [closeness(suspect) for suspect in finding.suspects]
    assert shares == sorted(shares, reverse=True)
    assert bool(shares) == (verdict == "accumulated")


def test_a_nan_that_no_node_gives_alone_is_no_matter_of_tolerance(
    net: Subject, runtime: Any
) -> None:
    runtime("""
    def whole(self, feeds, exposed=(), optimised=True):
        found = super().whole(feeds, exposed, optimised)
        return {n: a * a.dtype.type("nan") if a.dtype.kind == "f" else a for n, a in found.items()}
    """)
    finding = net.ask(net.translation.model.path)
    assert finding.verdict == "unstable"
    check = finding_words.localise_check(finding, {})
    assert "NaN" in check.summary
    assert "clamp" in check.hint
    assert "tolerance" not in check.hint


def test_a_capture_that_is_another_function(net: Subject) -> None:
    first = net.expected[0]
    (name, array), *rest = first.outputs
    other = replace(first, outputs=[(name, array + 1), *rest], truth=None, rough=None)
    finding = net.ask(net.translation.model.path, other)
    assert finding.verdict == "capture"
    assert "scores" in finding.detail


def test_a_program_that_refuses_the_probe(net: Subject) -> None:
    first = net.expected[0]
    feeds = {"x": np.zeros((1, 3, 6, 5), np.float32)}
    finding = net.ask(
        net.translation.model.path, replace(first, probe=replace(first.probe, feeds=feeds))
    )
    assert finding.verdict == "capture"
    assert "raises" in finding.detail


# --- real models ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, sample in SAMPLES.items() if sample.ordinary])
def test_no_node_of_a_sample_is_above_its_floor(name: str, tmp_path: Path) -> None:
    from torch2mobile.exporter import capture, translate
    from torch2mobile.exporter.loading import source

    loaded = source.load(Request(source=f"sample:{name}"), SAMPLES)
    captured = capture.capture(loaded)
    translation = translate.translation(captured, tmp_path / "model.onnx")
    built = probes.build(
        captured.inputs, reference.example_of(loaded), ParityOptions(probes=1), loaded.data
    )
    found = reference.evaluate(loaded, captured.outputs, built[:2])
    expected = reference.accepted(found)
    for case in expected:
        question = Question(
            artifact=translation.model.path,
            program=translation.program,
            twins=translation.twins,
            inputs=tuple(spec.name for spec in captured.inputs),
            case=case,
            usual=typical_of(expected),
            tolerances={},
        )
        finding = localise.localise(question)
        assert finding.verdict == "nothing", finding
        assert finding.compared


@pytest.mark.parametrize(
    ("want", "got", "right"),
    [
        ([1.0, -2.0], [1.0, -2.0 + 1e-6], True),
        ([1.0, -2.0], [1.0, -2.0 + 1e-5], False),
        ([1.0, np.nan], [1.0, np.nan], False),
        ([1.0, np.inf], [1.0, np.inf], False),
        ([1.0, 2.0], [1.0], False),
        ([], [], True),
        ([1, 2], [1, 2], True),
        ([1, 2], [1, 3], False),
        ([1, 2], [1.0, 2.0], False),
    ],
)
def test_a_glance_is_enough_only_for_what_every_limit_allows(
    want: list[float], got: list[float], right: bool
) -> None:
    """What the process of the file judges itself; all else is sent and looked at closely."""
    floats = np.float32 if any(isinstance(x, float) for x in want) or not want else np.int64
    others = np.float32 if any(isinstance(x, float) for x in got) or not got else np.int64
    glance = slices.at_a_glance(np.array(want, floats), np.array(got, others))
    assert (glance is not None) is right
    assert glance is None or glance[0] <= glance[1]


def test_a_small_channel_does_not_hide_beside_a_large_one() -> None:
    want = np.stack([np.full((4, 4), 1e-3, np.float32), np.full((4, 4), 1e4, np.float32)])[None]
    lost = want.copy()
    lost[0, 0] = 0
    assert slices.at_a_glance(want, want * np.float32(1 + 2**-22)) is not None
    assert slices.at_a_glance(want, lost) is None
    assert slices.at_a_glance(want.transpose(0, 2, 3, 1), lost.transpose(0, 2, 3, 1)) is None


def test_a_single_number_is_seen_at_a_glance() -> None:
    assert slices.at_a_glance(np.array(2, np.float32), np.array(2, np.float32)) is not None
    assert slices.at_a_glance(np.array(2, np.float32), np.array(3, np.float32)) is None
