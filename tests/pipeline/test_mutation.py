"""verify --mutants and --search: the whole way, on a bundle, a file and a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import torch2mobile
from torch2mobile.errors import ExitCode, UsageError
from torch2mobile.exporter.provenance import to_json
from torch2mobile.pipeline.mutation import places
from torch2mobile.records import Check, Origin, ParityOptions, Status, Tolerance

SPEC = "x:float32[N=1..5,6]"


def by_name(result: Any, name: str) -> Check:
    (check,) = [check for check in result.report.checks if check.name == name]
    return check  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def scrutinized(pair: Any) -> Any:
    """The exported Pair under 40 mutants."""
    return torch2mobile.verify(
        pair.path, pair.module, inputs=[SPEC], parity=ParityOptions(probes=6), mutants=40
    )


def test_mutants_of_a_bundle_are_caught(scrutinized: Any) -> None:
    assert scrutinized.exit_code is ExitCode.PASSED, str(scrutinized)
    check = by_name(scrutinized, "mutants")
    assert check.status is Status.PASSED
    assert check.target == "onnx"
    metrics = check.metrics
    assert metrics["asked"] == 40
    assert metrics["made"] == sum(
        int(metrics[name]) for name in ("caught", "missed", "unreached", "equivalent", "controls")
    )
    assert metrics["controls"] > 0
    assert metrics["false_alarms"] == 0
    assert metrics["share"] >= 0.95
    kinds = {row[0] for row in check.tables[0].rows}
    assert {"swish_form", "bias_lost", "weight_float16", "outputs_swapped", "dim_frozen"} <= kinds


def test_decisions_of_a_bundle_are_counted(scrutinized: Any) -> None:
    check = by_name(scrutinized, "decisions")
    assert check.status is Status.PASSED
    assert check.metrics["decisions"] == 2
    assert check.metrics["both"] == 2
    names = [check.name for check in scrutinized.report.checks]
    assert names.index("decisions") < names.index("parity") < names.index("mutants")


def test_without_being_asked_nothing_of_it_is_done(pair: Any) -> None:
    result = torch2mobile.verify(
        pair.path / "model.onnx", pair.module, inputs=[SPEC], parity=ParityOptions(probes=2)
    )
    assert {check.name for check in result.report.checks}.isdisjoint({"mutants", "decisions"})


def test_too_few_caught_is_a_failure_with_its_source_line(pair: Any) -> None:
    loose = ParityOptions(probes=2, tolerances={"": Tolerance(atol=1e3)})
    result = torch2mobile.verify(
        pair.path, pair.module, inputs=[SPEC], parity=loose, mutants=12, search=False
    )
    assert result.exit_code is ExitCode.FAILED
    check = by_name(result, "mutants")
    assert check.status is Status.FAILED
    assert check.metrics["missed"] > 0
    assert any("test" in place.file or place.module for place in check.locations)
    assert "missed" in [table.title for table in check.tables]
    least = float(check.metrics["share"])
    again = torch2mobile.verify(
        pair.path,
        pair.module,
        inputs=[SPEC],
        parity=loose,
        mutants=12,
        search=False,
        min_caught=least,
    )
    assert by_name(again, "mutants").status is Status.PASSED


def test_a_file_that_is_another_function_has_no_mutants(
    edited: Callable[..., Path], edits: Any, pair: Any
) -> None:
    path = edited(edits["relu_for_hardswish"]) / "model.onnx"
    result = torch2mobile.verify(
        path, pair.module, inputs=[SPEC], parity=ParityOptions(probes=2), mutants=5, search=False
    )
    assert result.exit_code is ExitCode.FAILED
    check = by_name(result, "mutants")
    assert check.status is Status.SKIPPED
    assert "does not pass" in check.summary


class Threshold(nn.Module):
    """Something else happens where nearly all of an input is bright, which no probe is."""

    def __init__(self, rare: bool) -> None:
        super().__init__()
        self.rare = rare

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = (x[:, :8].mean(dim=1, keepdim=True) > 0.9) & (
            x[:, 8:].mean(dim=1, keepdim=True) < 0.1
        )
        return torch.where(bright, -x, x) if self.rare else x


def threshold_file(path: Path) -> Path:
    """A file of the module, written by hand: its Where is a product of two comparisons."""
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2),
        helper.make_node("ReduceMean", ["a", "one"], ["ma"], keepdims=1),
        helper.make_node("ReduceMean", ["b", "one"], ["mb"], keepdims=1),
        helper.make_node("Greater", ["ma", "high"], ["ca"]),
        helper.make_node("Less", ["mb", "low"], ["cb"]),
        helper.make_node("And", ["ca", "cb"], ["bright"]),
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Where", ["bright", "n", "x"], ["y"], name="choice"),
    ]
    tensors = {"one": np.array([1]), "high": np.float32(0.9), "low": np.float32(0.1)}
    graph = helper.make_graph(
        nodes,
        "threshold",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.fixture
def unexplored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the inputs that the module suggests, which are probes of every verification."""
    exploring = "torch2mobile.validators.parity.exploring"
    monkeypatch.setattr(f"{exploring}.offers.offers", lambda *_: [])
    monkeypatch.setattr(f"{exploring}.sides.searched", lambda *_: [])


WIDE: dict[str, Any] = {
    "inputs": ["x:float32[N=1..3,16]"],
    "values": ["x=0..1"],
    "match": "position",
}


@pytest.mark.usefixtures("unexplored")
def test_an_input_is_searched_for_the_branch_that_no_probe_takes(tmp_path: Path) -> None:
    path = threshold_file(tmp_path / "model.onnx")
    without = torch2mobile.verify(path, Threshold(rare=True), **WIDE, mutants=1, search=False)
    before = by_name(without, "decisions")
    assert before.metrics["both"] < before.metrics["decisions"]
    assert ("Where", "y", "true") in [row[:3] for row in before.tables[0].rows]
    result = torch2mobile.verify(path, Threshold(rare=True), **WIDE, search=True)
    check = by_name(result, "decisions")
    assert check.metrics["both"] == check.metrics["decisions"]
    assert check.metrics["added"] > 0
    parity = by_name(result, "parity")
    assert parity.status is Status.PASSED
    assert parity.metrics["probes"] == by_name(without, "parity").metrics["probes"] + int(
        check.metrics["added"]
    )


@pytest.mark.usefixtures("unexplored")
def test_a_file_that_is_wrong_only_there_fails_with_the_search_alone(tmp_path: Path) -> None:
    path = threshold_file(tmp_path / "model.onnx")
    wrong = Threshold(rare=False)
    assert torch2mobile.verify(path, wrong, **WIDE).exit_code is ExitCode.PASSED
    result = torch2mobile.verify(path, wrong, **WIDE, search=True)
    assert result.exit_code is ExitCode.FAILED
    parity = by_name(result, "parity")
    assert parity.status is Status.FAILED
    assert parity.mismatches[0].probe.startswith("search y true")


FIXED = ["x:float32[2,6]"]


class Lossy(nn.Module):
    """Half of its digits are lost where the mean is far off 0, which no probe's is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        m = x.mean()
        high, low = torch.where(m > 2, 1e4, 0.0), torch.where(m < -2, 2e4, 0.0)
        return x * 1.5371 + high + low - high - low


def lossy_file(path: Path, error: float) -> Path:
    """A file of the module, written by hand, that is off by so much where an input is 1 or more."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "two"], ["is_high"]),
        helper.make_node("Less", ["m", "minus"], ["is_low"]),
        helper.make_node("Where", ["is_high", "ten", "zero"], ["high"]),
        helper.make_node("Where", ["is_low", "twenty", "zero"], ["low"]),
        helper.make_node("Mul", ["x", "k"], ["p0"]),
        helper.make_node("Add", ["p0", "high"], ["p1"]),
        helper.make_node("Add", ["p1", "low"], ["p2"]),
        helper.make_node("Sub", ["p2", "high"], ["p3"]),
        helper.make_node("Sub", ["p3", "low"], ["p4"]),
        helper.make_node("Mul", ["x", "error"], ["e0"]),
        helper.make_node("Clip", ["e0", "least", "error"], ["e1"]),
        helper.make_node("Add", ["p4", "e1"], ["y"]),
    ]
    tensors = {"two": 2, "minus": -2, "ten": 1e4, "twenty": 2e4, "zero": 0, "k": 1.5371}
    tensors |= {"error": error, "least": -error}
    graph = helper.make_graph(
        nodes,
        "lossy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("unexplored")
def test_a_search_makes_nothing_pass_that_fails_without(tmp_path: Path) -> None:
    wrong = lossy_file(tmp_path / "wrong.onnx", 4e-6)
    right = lossy_file(tmp_path / "right.onnx", 0.0)
    results = {}
    for path in (wrong, right):
        for search in (False, True):
            results[path, search] = torch2mobile.verify(
                path,
                Lossy(),
                inputs=FIXED,
                match="position",
                parity=ParityOptions(probes=4),
                search=search,
            )
    assert by_name(results[right, True], "decisions").metrics["added"] == 2
    assert results[right, False].exit_code is results[right, True].exit_code is ExitCode.PASSED
    assert results[wrong, False].exit_code is results[wrong, True].exit_code is ExitCode.FAILED


@pytest.mark.usefixtures("unexplored")
def test_a_search_leaves_every_limit_of_the_probes_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch2mobile.validators.parity import gate

    path = lossy_file(tmp_path / "model.onnx", 0.0)
    original = gate.limits_of
    seen: dict[bool, dict[str, list[np.ndarray]]] = {False: {}, True: {}}
    for search in (False, True):

        def watched(case: Any, *rest: Any, found: Any = seen[search]) -> Any:
            limits = original(case, *rest)
            found.setdefault(case.probe.label, []).extend(one.allowed for one in limits)
            return limits

        monkeypatch.setattr(gate, "limits_of", watched)
        torch2mobile.verify(
            path, Lossy(), inputs=FIXED, parity=ParityOptions(probes=4), search=search
        )
    assert len(set(seen[True]) - set(seen[False])) == 2
    for label, allowed in seen[False].items():
        assert all(map(np.array_equal, allowed, seen[True][label])), label


class Dead(nn.Module):
    """Something else happens where an input is greater than any float32 that occurs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rare = x.abs().amax(dim=1, keepdim=True) > 3e7
        return torch.where(rare, torch.relu(-x), x * 1.5)


def dead_file(path: Path) -> Path:
    """A file of the module, written by hand."""
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("ReduceMax", ["a", "one"], ["m"], keepdims=1),
        helper.make_node("Greater", ["m", "most"], ["rare"]),
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Mul", ["x", "k"], ["p"]),
        helper.make_node("Where", ["rare", "r", "p"], ["y"]),
    ]
    tensors = {"one": np.array([1]), "most": np.float32(3e7), "k": np.float32(1.5)}
    graph = helper.make_graph(
        nodes,
        "dead",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_faults_in_a_branch_that_no_input_takes_are_not_equivalent(tmp_path: Path) -> None:
    path = dead_file(tmp_path / "model.onnx")
    options = {"inputs": FIXED, "parity": ParityOptions(probes=2), "mutants": 40}
    result = torch2mobile.verify(path, Dead(), **options)
    assert result.exit_code is ExitCode.FAILED
    check = by_name(result, "mutants")
    assert check.metrics["unreached"] >= 2
    assert float(check.metrics["share"]) < 0.9
    assert "the Greater rare was never greater" in check.hint
    kinds = {row[0]: row[1:] for row in check.tables[0].rows}
    assert kinds["relu_slope"] == (0, 0, 1, 0)
    declared = torch2mobile.verify(path, Dead(), **options, values=["x=-4..4"])
    check = by_name(declared, "mutants")
    assert check.status is Status.PASSED
    assert check.metrics["unreached"] == 0


@pytest.mark.parametrize("asked", [{"mutants": 3}, {"search": True}])
def test_an_ort_has_no_graph_to_change(pair: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"model\.ort is no \.onnx"):
        torch2mobile.verify(pair.path / "model.ort", pair.module, inputs=[SPEC], **asked)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"mutants": 3, "min_caught": 1.5}, "1.5"),
        ({"min_caught": 0.5}, "no mutants were asked for"),
        ({"mutants": -1}, "-1"),
    ],
)
def test_what_cannot_be_meant_is_refused(pair: Any, asked: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        torch2mobile.verify(pair.path, pair.module, inputs=[SPEC], **asked)


def test_the_least_share_has_one_default() -> None:
    import inspect

    from torch2mobile import records
    from torch2mobile.cli_verify import verify
    from torch2mobile.records import Scrutiny

    (option,) = [each for each in verify.params if each.name == "min_caught"]
    signature = inspect.signature(torch2mobile.verify)
    given = [option.default, signature.parameters["min_caught"].default, Scrutiny().min_caught]
    assert all(each is records.MIN_CAUGHT for each in given)


def test_without_a_module_it_is_refused(pair: Any) -> None:
    with pytest.raises(UsageError, match="says something about probes"):
        torch2mobile.verify(pair.path, mutants=5)


def test_places_are_read_from_a_bundle_and_nowhere_else(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = places(pair.path)
    model = onnx.load(pair.path / "model.onnx")
    assert set(found) == {name for node in model.graph.node for name in node.output}
    assert all(place.file for place in found.values())
    assert places(tmp_path) == {}
    called = [Origin(("",), "lib.py", 9, "y", str(tmp_path / "net.py"), 7)]
    text = to_json(model, dict.fromkeys(found, called))
    (tmp_path / "provenance.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert {(p.caller, p.caller_line) for p in places(tmp_path).values()} == {("net.py", 7)}
    (tmp_path / "provenance.json").write_text("{}")
    assert places(tmp_path) == {}


def test_the_same_seed_makes_the_same_report(pair: Any, scrutinized: Any) -> None:
    again = torch2mobile.verify(
        pair.path, pair.module, inputs=[SPEC], parity=ParityOptions(probes=6), mutants=40
    )
    first, second = (by_name(result, "mutants") for result in (scrutinized, again))
    timeless = [replace(check, notes=(), seconds=None) for check in (first, second)]
    assert timeless[0] == timeless[1]
