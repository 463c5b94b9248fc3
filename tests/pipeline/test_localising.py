from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.cli import run
from torch2mobile.errors import CaptureError, ExitCode, UsageError
from torch2mobile.pipeline import finding_words, localising
from torch2mobile.pipeline.results import Result
from torch2mobile.records import Check, ParityOptions, Status
from torch2mobile.validators.parity.locating.slices import NodeInfo
from torch2mobile.validators.parity.locating.suspects import Located, Suspect

FEW = ParityOptions(probes=1)
EXAMPLE = (torch.linspace(-3, 3, 12).reshape(2, 6),)
VERDICTS = ("capture", "optimizer", "accumulated", "unstable", "refused", "interface", "nothing")


def find(result: Result, name: str, target: str = "onnx") -> Check:
    return next(c for c in result.report.checks if (c.name, c.target) == (name, target))


def verify(folder: Path, module: Any) -> Result:
    return torch2mobile.verify(folder, against=module, args=EXAMPLE, parity=FEW)


def debug(path: Path, module: Any, **options: Any) -> Result:
    return torch2mobile.debug(path, module, EXAMPLE, parity=FEW, **options)


class TestVerify:
    def test_a_failure_names_the_node_and_the_module(
        self, edited: Callable[..., Path], edits: dict[str, Any], pair: Any
    ) -> None:
        result = verify(edited(edits["weight_by_one_percent"]), pair.module)
        parity = find(result, "parity")
        assert parity.status is Status.FAILED
        place = parity.locations[-1]
        assert (place.module, place.op) == ("first", "Gemm")
        assert Path(place.file).name == "conftest.py"
        assert "self.first(x)" in place.code
        assert any("first.weight differs in 1 of 48 values" in note for note in parity.notes)
        (table,) = [t for t in parity.tables if t.title.startswith("where it starts")]
        row = dict(zip(table.columns, table.rows[0], strict=True))
        assert parity.metrics["suspect 1.nodes"] == place.node
        line = f"{Path(place.file).name}:{place.line}"
        assert (row["operator"], row["layer"], row["line"]) == ("linear", "first", line)
        assert row["span"] == "Gemm"
        assert row["at fault"] == "graph"
        assert row["before"] == 0
        assert row["own error"] > row["allowed"] > parity.metrics["suspect 1.floor"] > 0
        assert row["after / floor"] > 10
        assert "export it again" in parity.hint
        assert "where it starts" in str(result)
        assert "where it starts" in result._repr_html_()

    def test_a_passing_bundle_is_not_captured(
        self, pair: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delattr(localising, "_translated")
        result = verify(pair.path, pair.module)
        assert result.passed
        titles = {table.title for check in result.report.checks for table in check.tables}
        assert titles == {"by output"}

    def test_a_target_alone_is_the_conversions_fault(self, pair: Any, tmp_path: Path) -> None:
        torch.manual_seed(9)
        other = torch2mobile.export(
            type(pair.module)().eval(), EXAMPLE, out=tmp_path / "other", parity=FEW
        )
        assert other.bundle is not None
        file = other.bundle.file("model.ort")
        result = torch2mobile.verify(file, against=pair.module, args=EXAMPLE, parity=FEW)
        note = find(result, "parity", "ort").notes[-1]
        assert "debug the .onnx" in note

    def test_a_search_that_fails_changes_no_verdict(
        self,
        edited: Callable[..., Path],
        edits: dict[str, Any],
        pair: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def refuse(*_: Any) -> None:
            raise CaptureError("could not be captured")

        monkeypatch.setattr(localising, "_translated", refuse)
        result = verify(edited(edits["relu_for_hardswish"]), pair.module)
        parity = find(result, "parity")
        assert parity.status is Status.FAILED
        assert "could not be found: could not be captured" in parity.notes[-1]


def test_notes_on_other_targets(pair: Any) -> None:
    class Observer:
        def started(self, stage: str) -> None:
            raise AssertionError

    def explain(onnx_status: Status) -> str:
        localiser = localising.Localiser(Path(), lambda: 1 / 0, FEW, Observer())  # type: ignore[arg-type,return-value]
        localiser._passed = onnx_status is Status.PASSED
        return localiser.explain(Check("parity", Status.FAILED, "", target="ort"), ()).notes[-1]

    assert "starts in the conversion to ort" in explain(Status.PASSED)
    assert "model.onnx fails as well" in explain(Status.FAILED)


def test_an_export_that_fails_says_where(
    pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch2mobile.exporter import translate

    save = translate._save

    def wrong(model: Any, path: Path, **options: Any) -> None:
        save(model, path, **options)
        proto = onnx.load(path)
        node = next(node for node in proto.graph.node if node.op_type == "HardSwish")
        node.op_type = "Relu"
        onnx.save(proto, path)

    monkeypatch.setattr(translate, "_save", wrong)
    result = torch2mobile.export(pair.module, EXAMPLE, out=tmp_path / "out", parity=FEW)
    assert result.exit_code is ExitCode.FAILED
    parity = find(result, "parity")
    assert parity.locations[-1].op == "Relu"
    assert "F.hardswish" in parity.locations[-1].code
    assert any("reference implementation agrees with ONNX Runtime" in n for n in parity.notes)
    assert "model.onnx fails as well" in find(result, "parity", "ort").notes[-1]


class TestDebug:
    def test_a_bundle_as_it_was_exported(self, pair: Any) -> None:
        result = debug(pair.path, pair.module)
        assert result.exit_code is ExitCode.PASSED
        assert find(result, "localise").status is Status.PASSED
        assert result.report.command == "debug"

    def test_a_file_with_a_fault(
        self, edited: Callable[..., Path], edits: dict[str, Any], pair: Any
    ) -> None:
        path = edited(edits["relu_for_hardswish"]) / "model.onnx"
        result = debug(path, pair.module)
        assert result.exit_code is ExitCode.FAILED
        check = find(result, "localise")
        assert "Relu where the module's own translation has HardSwish" in check.summary
        assert check.locations[0].op == "Relu"

    def test_a_simplified_file_from_elsewhere(self, pair: Any, tmp_path: Path) -> None:
        """Names of inputs, outputs and values are others, and the last layer is at fault."""
        proto = onnx.load(pair.path / "model.onnx")
        names = [v.name for v in proto.graph.input] + [n.output[0] for n in proto.graph.node]
        new = {name: f"/{number}" for number, name in enumerate(names)}
        for node in proto.graph.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new[name] for name in node.output]
        for value in (*proto.graph.input, *proto.graph.output):
            value.name = new[value.name]
        del proto.graph.value_info[:]
        next(node for node in proto.graph.node if node.op_type == "HardSwish").op_type = "Relu"
        onnx.save(proto, tmp_path / "foreign.onnx")
        result = debug(tmp_path / "foreign.onnx", pair.module)
        check = find(result, "localise")
        assert result.exit_code is ExitCode.FAILED
        assert "nodes up to" in check.summary
        assert check.metrics["suspect 1.operators"] == "Gemm, Relu, Gemm"
        row = dict(zip(check.tables[0].columns, check.tables[0].rows[0], strict=True))
        assert row["span"] == "3 nodes, Gemm to Gemm"

    def test_a_file_that_lost_an_input(self, tmp_path: Path) -> None:
        """As verify has it: a failed check, and not a slip of the user's."""

        class Shifts(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x * 2 + y.sum()

        two = onnx.numpy_helper.from_array(np.float32(2), "two")
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [onnx.helper.make_node("Mul", ["x", "two"], ["output"], name="twice")],
            "lost",
            [info("x", 1, ["N", 3])],
            [info("output", 1, ["N", 3])],
            [two],
        )
        opset = [onnx.helper.make_opsetid("", 20)]
        model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
        onnx.save(model, tmp_path / "lost.onnx")
        specs = ["x:float32[N=1..4,3]", "y:float32[2]"]
        for judge in (torch2mobile.debug, torch2mobile.verify):
            result = judge(tmp_path / "lost.onnx", against=Shifts(), inputs=specs)
            assert result.exit_code is ExitCode.FAILED
            assert find(result, "contract").summary.startswith("the module takes y, and the file")

    def test_on_a_probe_of_choice(self, pair: Any) -> None:
        result = debug(pair.path, pair.module, probe="N=5")
        assert "on probe N=5" in find(result, "localise").summary
        with pytest.raises(UsageError, match="no probe 'N=6'") as caught:
            debug(pair.path, pair.module, probe="N=6")
        assert "'example'" in caught.value.remedy

    def test_an_ort_file_that_is_right(self, pair: Any) -> None:
        result = debug(pair.path / "model.ort", pair.module)
        assert {c.status for c in result.report.checks if c.target == "ort"} == {Status.PASSED}

    def test_an_ort_file_that_is_another_function(self, pair: Any) -> None:
        class Other(nn.Module):
            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                return {name: value + 1 for name, value in pair.module(x).items()}

        result = debug(pair.path / "model.ort", Other())
        assert result.exit_code is ExitCode.FAILED
        (found,) = (check for check in result.report.checks if check.name == "localise")
        assert "in the conversion from ONNX to ort" in found.summary

    def test_a_module_that_is_random(self, pair: Any) -> None:
        class Random(nn.Module):
            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                noise = torch.rand(x.shape[0], 3)
                return {"left": noise + x[:, :3], "right": noise}

        result = debug(pair.path, Random())
        assert result.exit_code is ExitCode.FAILED
        assert find(result, "localise").status is Status.SKIPPED


SOURCE = """
import torch
from torch.nn import functional as F

class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.left, self.right = (torch.nn.Linear(*s) for s in ((6, 8), (8, 3), (8, 3)))

    def forward(self, x):
        h = F.hardswish(self.first(x))
        return {"left": self.left(h), "right": self.right(h)}

def model():
    torch.manual_seed(0)
    return Pair()
"""


def test_the_command(
    edited: Callable[..., Path],
    edits: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "nets.py").write_text(SOURCE)
    report = tmp_path / "report.json"
    options = ["--input", "x:float32[N=1..5,6]", "--probes", "1", "-q", "--format", "json"]
    against = ["--against", f"{tmp_path / 'nets.py'}:model", *options]
    path = str(edited(edits["bias_by_one_percent"]))
    assert run(["debug", path, *against, "--report", str(report)]) == ExitCode.FAILED
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(report.read_text())
    check = next(c for c in printed["checks"] if c["name"] == "localise")
    assert check["locations"][0]["op"] == "Gemm"
    assert check["locations"][0]["file"].endswith("nets.py")
    assert run(["debug", path]) == ExitCode.USAGE
    assert "--against" in capsys.readouterr().err
    assert run(["debug", str(tmp_path / "gone.onnx"), *against]) == ExitCode.USAGE


@pytest.mark.parametrize("verdict", VERDICTS)
def test_each_verdict_has_its_words(verdict: str) -> None:
    finding = Located(verdict, "N=1", detail="y: differs", compared=3, values=4)
    check = finding_words.localise_check(finding, {})
    assert (check.status is Status.PASSED) == (verdict == "nothing")
    assert ("N=1" in check.summary) == (verdict != "interface")
    assert ("y: differs" in check.summary) == (verdict != "nothing")
    described = finding_words.join(Check("parity", Status.FAILED, "no"), check)
    assert described.notes[0] == check.summary
    assert described.status is Status.FAILED
    assert replace(described, notes=(), hint="") == Check("parity", Status.FAILED, "no")


def test_a_hint_may_be_about_what_the_line_calls() -> None:
    node = NodeInfo(0, "n", "NonMaxSuppression", ("boxes",), ("kept",))
    finding = Located(
        "node", "N=1", suspects=(Suspect((node,), "kept", 1.0, 0.0, None, "y: differs"),)
    )
    assert "source line" in finding_words.localise_check(finding, {}).hint
    assert "x1 <= x2" in finding_words.localise_check(finding, {}, {"kept": "nms"}).hint
    changed = replace(finding.suspects[0], fault="graph", differences=("it has Relu",))
    finding = replace(finding, suspects=(changed,))
    assert "export it again" in finding_words.localise_check(finding, {}, {"kept": "nms"}).hint


class WholePatches(nn.Module):
    """``len`` makes a number of a size, and more code that torch has read before follows."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x.unflatten(1, (-1, 4))).flatten(1)
        return y + torch.zeros(len(range(x.shape[1] // 4 * 4)))  # HERE


def test_a_size_that_the_code_fixes_is_blamed_at_its_line(tmp_path: Path) -> None:
    result = torch2mobile.export(
        WholePatches(),
        inputs=["x:float32[N=1..2,4*h]"],
        out=tmp_path / "out",
        targets=[],
        simplify=False,
        parity=FEW,
    )
    parity = find(result, "parity")
    assert parity.status is Status.FAILED
    assert [place.code[-4:] for place in parity.locations] == ["HERE"]
    assert any("starts in the capture" in note for note in parity.notes)
    assert any(note.startswith("captured for ") and "h" in note for note in parity.notes)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 8, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]


@pytest.mark.filterwarnings("ignore")
def test_a_trace_that_is_wrong_shows_where_torch_export_stopped(tmp_path: Path) -> None:
    example = (torch.rand(2, 5, 8), torch.tensor([5, 3]))
    result = torch2mobile.export(
        Packed().eval(), example, out=tmp_path / "b", targets=[], simplify=False, mend=False
    )
    parity = find(result, "parity")
    assert parity.status is Status.FAILED
    assert any("pack_padded_sequence" in place.code for place in parity.locations)
    assert "padded batch" in parity.hint
