"""Files as they are found: weights beside them, other kinds of values, damage; never a bug."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damage
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from torch2mobile.cli import run
from torch2mobile.errors import UsageError
from torch2mobile.pipeline import inspection
from torch2mobile.pipeline.check import check_file
from torch2mobile.pipeline.check_options import CheckOptions
from torch2mobile.records import Severity, Status


def _by_onnx(model: Any, path: Path) -> None:
    onnx.save(
        model, path, save_as_external_data=True, location=path.name + ".data", size_threshold=0
    )


def _by_onnx_ir(model: Any, path: Path) -> None:
    """As torch.onnx.export does by default, but for the least size."""
    onnx_ir.save(
        onnx_ir.from_proto(model), path, external_data=path.name + ".data", size_threshold_bytes=0
    )


@pytest.mark.parametrize("save", [_by_onnx, _by_onnx_ir], ids=["ours", "torch.onnx"])
def test_weights_in_a_file_of_their_own_are_no_matter(
    save: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    model = damage.dense()
    model.graph.initializer.append(model.graph.node[0].attribute[0].t)
    del model.graph.node[0]
    save(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.data").stat().st_size >= 128
    options = CheckOptions(providers=("nnapi", "coreml"), fixed={"N": 2})
    result = check_file(tmp_path / "model.onnx", options)
    assert result.passed
    inside = tmp_path / "inside.onnx"
    onnx.save(model, inside)
    # The shape of a Reshape is read from the other file too: the findings are the same.
    assert result.findings == check_file(inside, options).findings
    (tmp_path / "model.onnx.data").unlink()
    broken = check_file(tmp_path / "model.onnx", options)
    assert {finding.code for finding in broken.findings} == {"T2M310"}
    assert "there is no such file beside the model" in broken.findings[0].message


def test_what_onnx_refuses_in_a_file_is_a_finding(tmp_path: Path) -> None:
    """It has two outputs, and onnx itself gives up over one that has not."""
    node = helper.make_node("CausalConvWithState", ["x", "w"], ["z"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2, 4]) for name in "xw"]
    out = [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)]
    body = helper.make_graph([node], "g", values, out)
    onnx.save(
        helper.make_model(body, opset_imports=[helper.make_opsetid("", 27)]), tmp_path / "m.onnx"
    )
    result = check_file(tmp_path / "m.onnx", CheckOptions())
    *_, check = result.report.checks
    (finding,) = check.findings
    assert (check.name, check.status) == ("file", Status.FAILED)
    assert (finding.code, finding.severity) == ("T2M310", Severity.ERROR)
    assert "out of bounds" in finding.message


def test_sequences_and_optionals_are_shown(tmp_path: Path) -> None:
    onnx.save(damage.sequences(), tmp_path / "m.onnx")
    found = inspection.inspect(tmp_path / "m.onnx")
    assert found.inputs == {"xs": "sequence(float32[N,3])"}
    assert found.outputs == {"ys": "sequence(float32[N,3])", "o": "optional(float32[N,3])"}
    assert check_file(tmp_path / "m.onnx", CheckOptions()).passed


def test_inspect_shows_what_it_cannot_name(tmp_path: Path) -> None:
    model = damage.dense()
    model.graph.input[0].type.tensor_type.elem_type = 999
    model.graph.output[0].ClearField("type")
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([2**40, 2**40])
    onnx.save(model, tmp_path / "m.onnx")
    found = inspection.inspect(tmp_path / "m.onnx")
    assert (found.inputs, found.outputs) == ({"x": "type 999[N,4]"}, {"y": "?"})
    assert found.parameters == 2**80


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"nodes": 1}', '{"schema_version": 1, "nodes": [{"node": "a"}]}', "[" * 100_000],
    ids=["empty", "list", "number", "node", "deep"],
)
def test_a_malformed_provenance_is_an_error_of_usage(text: str, tmp_path: Path) -> None:
    folder = damage.sound_bundle(tmp_path)
    assert inspection.origins_of(folder, "r")[0]["line"] == "net.py:7"
    (folder / "provenance.json").write_text(text)
    for look in (
        lambda: inspection.origins_of(folder, "r"),
        lambda: check_file(folder, CheckOptions()),
    ):
        with pytest.raises(UsageError, match=r"provenance\.json"):
            look()


@pytest.mark.parametrize("text", [f"a = {'[' * 100_000}", "a = " + "{b=" * 100_000])
def test_deeply_nested_settings_are_an_error_of_usage(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pyproject.toml").write_text(text)
    onnx.save(damage.dense(), "m.onnx")
    assert run(["check", "m.onnx"]) == 2
    assert "pyproject.toml is not TOML" in capsys.readouterr().err


def test_a_report_with_strange_contents_is_no_bug(tmp_path: Path) -> None:
    report = json.loads(damage.sound_report())
    for change in (
        lambda tree: tree["checks"][0].update(summary="\ud800"),
        lambda tree: tree["checks"][0]["tables"][0]["rows"].append(["more", 1, 2]),
        lambda tree: tree["checks"][0]["metrics"].update({"\ud800": 1}),
        lambda tree: tree.update(rules=[]),
    ):
        tree = json.loads(json.dumps(report))
        change(tree)
        path = tmp_path / "report.json"
        path.write_text(json.dumps(tree))
        for form in ("text", "json", "html", "sarif", "github"):
            assert run(["report", str(path), "--format", form]) in {0, 2}


def test_a_long_axis_does_not_hang(tmp_path: Path) -> None:
    """onnx propagates the elements of a vector one by one."""
    size = 2**62
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy"]
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "g", values[:1], values[1:]
    )
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "m")
    assert check_file(tmp_path / "m", CheckOptions()).passed
