"""The linter's command line: check, explain and rules."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from torch2mobile.cli import run
from torch2mobile.cli_options import FORMATS, parse_sizes
from torch2mobile.errors import UsageError
from torch2mobile.reporters import REPORTERS
from torch2mobile.validators.coverage.rules import RULES

NET = """\
from torch import nn


class Net(nn.Module):
    def forward(self, x):
        print(x.shape)
        return x * 2
"""
INPUT = ["--input", "x:float32[N=1..4,3]", "--quiet"]


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    return "net.py:Net"


def test_formats_are_those_of_the_reporters() -> None:
    assert sorted(FORMATS) == sorted(REPORTERS)


def test_exit_codes(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", net, *INPUT]) == 0
    out = capsys.readouterr().out
    assert "at net.py:6  print(x.shape)" in out
    assert "T2M142 warning: print() runs while exporting" in out
    assert run(["check", net, *INPUT, "--fail-on", "warning"]) == 1
    assert run(["check", net, *INPUT, "--fail-on", "warning", "--ignore", "T2M142"]) == 0
    assert run(["check", "nothing.py:Net", *INPUT]) == 2
    assert run(["check", net, "--quiet"]) == 2


def test_formats(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", net, *INPUT, "--format", "sarif", "--report", "r.json"]) == 0
    log = json.loads(capsys.readouterr().out)
    assert log["runs"][0]["results"][0]["ruleId"] == "T2M142"
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "net.py"
    assert run(["report", "r.json", "--format", "github"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("::warning file=net.py,line=6,title=T2M142::print() runs")


def test_configuration(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    suppress = '{code = "T2M142", path = "net.py", reason = "only for now"}'
    text = f"[tool.torch2mobile.check]\nsuppress = [{suppress}]\n"
    Path("pyproject.toml").write_text(text, encoding="utf-8")
    words = [word for word in INPUT if word != "--quiet"]
    assert run(["check", net, *words, "--fail-on", "warning", "-v"]) == 0
    captured = capsys.readouterr()
    assert "1 suppressed" in captured.out
    assert "T2M142" not in captured.out
    assert "suppressed T2M142 at net.py:6: only for now" in captured.err
    Path("pyproject.toml").write_text(text.replace("T2M142", "T2M9999"), encoding="utf-8")
    assert run(["check", net, *INPUT]) == 2
    assert "there is no rule 'T2M9999'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--select", "X1"], "no rule's code is or begins with 'X1'"),
        (["--ignore", "T2M1O1"], "Did you mean T2M1"),
        (["--provider", "fridge"], "check knows no provider 'fridge'"),
        (["--provider", "fridge"], "There is: coreml, coreml-nn, nnapi, xnnpack."),
        (["--provider", "CoreML"], "Did you mean coreml?"),
        (["--provider", "CoreML-NM"], "Did you mean coreml-nn or coreml?"),
        (["--ort-version", "new"], "--ort-version new"),
        (["--fix-dim", "N"], "--fix-dim N: no symbol and size"),
        (["--fix-dim", "N=0"], "N=0: this is not a whole number from 1"),
        (["--fix-dim", "N=1", "--fix-dim", "N=2"], "gives N two sizes"),
        (["--opset", "99"], "the installed onnx"),
        (["--fail-on", "info"], "'info' is not one of"),
    ],
)
def test_usage_errors(
    words: list[str], message: str, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", net, *INPUT, *words]) == 2
    assert message in capsys.readouterr().err


def test_parsing() -> None:
    assert parse_sizes(["N=1", "H=224", "N=1"]) == {"N": 1, "H": 224}
    with pytest.raises(UsageError):
        parse_sizes(["N=1", "N=2"])


@pytest.mark.parametrize("code", RULES)
def test_every_rule_is_explained(
    code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["explain", code]) == 0
    prose = "".join(capsys.readouterr().out.split("```")[::2])
    assert max(map(len, prose.splitlines())) <= 80 or "Both with" in prose
    monkeypatch.delenv("COLUMNS")
    assert run(["explain", code]) == 0
    text = capsys.readouterr().out
    assert RULES[code].reason in text
    assert run(["explain", RULES[code].name, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["code"] == code


def test_an_unknown_code_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", "T2M1011"]) == 2
    assert "T2M101" in capsys.readouterr().err
    assert run(["explain", "data-dependent-brunch"]) == 2
    assert "data-dependent-branch" in capsys.readouterr().err
    assert run(["explain", "?"]) == 2
    assert "torch2mobile rules" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("T2M999", "  'torch2mobile rules' lists them.\n"),
        ("T2M199", "  Did you mean T2M1"),
        ("t2m199", "  Did you mean T2M1"),
    ],
)
def test_no_rule_of_another_kind_is_suggested(
    code: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["explain", code]) == 2
    text = capsys.readouterr().err
    assert remedy in text
    assert not re.search(r"\bT2M[2-8]", text)


def test_export_says_that_a_target_is_one_of_check_only(
    net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", net, *INPUT, "--target", "nnapi"]) == 2
    text = capsys.readouterr().err
    assert "'nnapi' is a provider of ONNX Runtime" in text
    assert "Ask check --provider nnapi" in text
    assert run(["export", net, *INPUT, "--target", "ORT"]) == 2
    assert "Did you mean ort?" in capsys.readouterr().err


def test_rules_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rules", "--format", "json"]) == 0
    assert [row["code"] for row in json.loads(capsys.readouterr().out)] == list(RULES)
    assert run(["rules"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(RULES)


@pytest.mark.parametrize(
    "words", [["check", "--help"], ["rules"], ["explain", "T2M101"], ["check", "small.onnx"]]
)
def test_torch_is_not_loaded(words: list[str], tmp_path: Path) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, tmp_path / "small.onnx")
    script = (
        "import sys\n"
        "from torch2mobile.cli import run\n"
        f"run({words!r})\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("T2M103", "T2M103 (data-dependent-assert) has no rewrite"),
        ("T2M999", "there is no rule 'T2M999'"),
    ],
)
def test_export_refuses_codes_without_a_rewrite(
    code: str, message: str, net: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", net, *INPUT, "--rewrite", code]) == 2
    assert message in capsys.readouterr().err
    assert not Path("dist").exists()
