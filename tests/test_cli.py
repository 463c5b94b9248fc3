"""The command line: every command, its help, its exit codes, and only the report on stdout."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import click
import onnx
import pytest
from onnx import helper

from torch2mobile import __version__, cli_progress
from torch2mobile.cli import cli, run
from torch2mobile.cli_support import echo_table
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.reporters import REPORTERS
from torch2mobile.sample_models import SAMPLES

SOURCE = """
import torch

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x).relu()

class Strict(Tiny):
    def forward(self, x):
        if x.shape[0] > 3:
            raise ValueError("at most three rows")
        return super().forward(x)

def model():
    torch.manual_seed(0)
    return Tiny()

def broken():
    raise RuntimeError("no such luck")

def number():
    return 3

not_callable = 5
"""
INPUT = "x:float32[N=1..6,4]"
AGAINST = ["--against", "nets.py:model", "--input", INPUT]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory with one file of models."""
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(SOURCE)
    before = dict(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - set(before):
        if name.startswith("torch2mobile_source_"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One exported bundle of the tiny model."""
    place = tmp_path_factory.mktemp("tiny")
    (place / "nets.py").write_text(SOURCE)
    out = place / "dist"
    source = f"{place / 'nets.py'}:model"
    assert run(["export", source, "--input", INPUT, "--out", str(out), "-q"]) == 0
    return out


COMMANDS = sorted(cli.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_in_80_columns(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"torch2mobile {name}" in text
    assert "Example:" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


def test_what_n_of_mutants_counts_is_said_where_it_is_asked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["verify", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Needs --against: put N small faults, controls among them, into the .onnx" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["samples"], ["targets"], ["export", "--help"]])
def test_light_commands_load_no_heavy_module(arguments: list[str]) -> None:
    code = (
        "import sys; from torch2mobile.cli import run; code = run(sys.argv[1:]); "
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnxsim', 'numpy'} & set(sys.modules); "
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_verify_of_a_bundle_imports_neither_torch_nor_onnx(bundle: Path) -> None:
    code = (
        "import sys; from torch2mobile.cli import run; code = run(sys.argv[1:]); "
        "print({'torch', 'onnx'} & set(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "verify", str(bundle), "-q"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "set()"


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        (["verify", "{dist}", "--against", "{source}", "--input", INPUT], "torch._dynamo"),
        (["check", "{source}", "--input", INPUT], "onnxscript"),
    ],
)
def test_commands_load_only_what_they_need(bundle: Path, command: list[str], heavy: str) -> None:
    code = (
        "import sys; from torch2mobile.cli import run; code = run(sys.argv[2:]); "
        "print(sys.argv[1] in sys.modules, file=sys.stderr); sys.exit(code)"
    )
    source = f"{bundle.parent / 'nets.py'}:model"
    words = [word.replace("{dist}", str(bundle)).replace("{source}", source) for word in command]
    done = subprocess.run(
        [sys.executable, "-c", code, heavy, *words, "-q"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (0, "False")


def test_export_prints_only_the_report_on_stdout(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "nets.py:model", "--input", INPUT]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("export nets.py:model")
    assert "PASSED: " in captured.out
    assert "parity onnx" in captured.err
    assert (folder / "dist" / "nets" / "manifest.json").is_file()


def test_quiet_and_verbose(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    given = ["export", "nets.py:model", "--input", INPUT, "--no-simplify", "--probes=1"]
    assert run([*given, "-q"]) == 0
    assert capfd.readouterr().err == ""
    assert run([*given, "-v"]) == 0
    assert "passed capture" in capfd.readouterr().err


def test_json_is_a_report(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle), "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["command"] == "verify"
    assert {check["status"] for check in report["checks"]} == {"passed"}


@pytest.mark.parametrize("name", ["check", "debug", "export", "report", "simplify", "verify"])
def test_what_gives_a_report_gives_it_in_every_format(name: str) -> None:
    (form,) = (option for option in cli.commands[name].params if option.name == "form")
    assert list(cast("click.Choice[str]", form.type).choices) == [*REPORTERS]


@pytest.mark.parametrize("form", REPORTERS)
def test_verify_in_every_format(
    bundle: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert run(["verify", str(bundle), "--format", form, "-q"]) == 0
    assert capsys.readouterr().out.strip()


def test_report_renders_what_was_saved(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "verify.json"
    assert run(["verify", str(bundle), "--report", str(saved), "--format", "json"]) == 0
    printed = capsys.readouterr().out
    assert saved.read_text() == printed
    for form, mark in (("text", "golden [onnx]"), ("html", "<table"), ("json", '"golden"')):
        assert run(["report", str(saved), "--format", form]) == 0
        assert mark in capsys.readouterr().out
    assert run(["report", str(bundle / "report.json")]) == 0
    printed = capsys.readouterr().out
    assert run(["report", str(bundle)]) == 0
    assert capsys.readouterr().out == printed
    assert "parity [ort]" in printed


def test_a_failing_check_exits_1_and_still_reports(
    folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bundle.parent / "copy"
    model.mkdir()
    for path in bundle.rglob("*"):
        target = model / path.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            target.write_bytes(path.read_bytes())
    (model / "operators.config").write_text("tampered\n")
    saved = folder / "failed.json"
    assert run(["verify", str(model), "--report", str(saved)]) == 1
    assert "operators.config" in capsys.readouterr().out
    assert json.loads(saved.read_text())["checks"][0]["status"] == "failed"


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_lists_every_sample(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["samples"]) == 0
    assert f"sample:{name}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["samples", "targets", "doctor"])
def test_lists_as_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(isinstance(row, dict) for row in rows)


def test_targets_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["targets"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.split() == ["name", "title", "precision", "sizes", "batch", "state"]
    assert first.index("state") == second.index("ready")
    assert run(["targets"]) == 0
    limits = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert limits[0].split() == ["target", "dtypes", "dimensions", "float16", "operators"]
    assert [line.split()[0] for line in limits[1:]] == list(TARGETS)
    assert run(["targets", "--format", "json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert told["ncnn-fp16"]["dtypes"] == TARGETS["ncnn"].limits.dtypes
    monkeypatch.setattr(type(TARGETS["ort"]), "missing", lambda _: ["pip install onnxruntime"])
    assert run(["targets"]) == 0
    assert "missing: pip install onnxruntime" in capsys.readouterr().out


def test_doctor_exits_3_where_a_tool_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert re.search(rf"^torch2mobile +{re.escape(__version__)}$", printed, re.MULTILINE)
    assert re.search(r"^\[ncnn\] +(ncnn|not installed +pip install 'torch2mobile)", printed, re.M)
    monkeypatch.setattr("torch2mobile.pipeline.installed_tools.TOOLS", ("no-such-tool",))
    assert run(["doctor"]) == 3
    assert "pip install -c constraints.txt no-such-tool" in capsys.readouterr().out


def test_inspect_shows_what_is_in_a_bundle(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "x: float32[N,4]" in text
    assert "Gemm" in text
    assert run(["inspect", str(bundle / "model.onnx"), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 15
    assert found["outputs"] == {"output": "float32[N,3]"}


def test_inspect_says_where_a_node_comes_from(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", str(bundle), "--node", "output", "--format", "json"]) == 0
    (row, *_) = json.loads(capsys.readouterr().out)
    assert row["code"] == "return self.layer(x).relu()"
    assert run(["inspect", str(bundle), "--node", "nope"]) == 2
    assert run(["inspect", str(bundle / "model.onnx"), "--node", "output"]) == 2


def test_shell_completion_knows_the_samples() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch2mobile"],
        env={
            "_TORCH2MOBILE_COMPLETE": "bash_complete",
            "COMP_WORDS": "torch2mobile export sample:super",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "sample:super_resolution" in done.stdout


def test_colour_only_on_a_terminal_and_never_with_no_color(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(["verify", str(bundle)]) == 0
    assert "\x1b[" not in capsys.readouterr().out
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["verify", str(bundle)]) == 0
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(["verify", str(bundle)]) == 0
    assert "\x1b[" not in capsys.readouterr().out


Change = Callable[[Path], Any]


def _npz(content: bytes) -> Change:
    return lambda folder: (folder / "data.npz").write_bytes(content)


def _write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def _folder_with_a_file(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("do not lose")


_ORT = _write("m.ort", b"junk")

BAD = [
    (["export", "sample:super_resolutoin"], 2, "super_resolution", None),
    (["export", "nowhere.module:Net"], 2, "no module 'nowhere.module'", None),
    (["export", "nets.py"], 2, "names no model", None),
    (["export", "none.py:Net"], 2, "no file none.py", None),
    (["export", "nets.py:modle", "--input", INPUT], 2, "Did you mean model", None),
    (["export", "nets.py:broken", "--input", INPUT], 2, "no such luck", None),
    (["export", "nets.py:number", "--input", INPUT], 2, "but something of type int", None),
    (["export", "nets.py:not_callable", "--input", INPUT], 2, "no torch.nn.Module", None),
    (["export", "gone.pt2"], 2, "no file gone.pt2", None),
    (["export", "bad.pt2"], 2, "no ExportedProgram", _write("bad.pt2", b"PK rubbish")),
    (["export", "nets.py:model", "--input", INPUT, "--trust"], 2, "--trust", None),
    (["check", "m.onnx", "--trust"], 2, "--trust", _write("m.onnx", b"")),
    (["verify", ".", "--trust"], 2, "--trust", None),
    (["verify", ".", "--drop-output", "y"], 2, "--drop-output says something about", None),
    (
        ["verify", ".", "--accept-constant"],
        2,
        "--accept-constant says something about",
        None,
    ),
    (["check", "m.onnx", "--drop-output", "y"], 2, "--drop-output", _write("m.onnx", b"")),
    (["export", "bad.py:Net"], 2, "SyntaxError", _write("bad.py", b"def (:\n")),
    (["export", "nets.py:model"], 2, "nothing says how to call", None),
    (["export", "nets.py:model", "--input", "x:float33[N,4]"], 2, "float33", None),
    (["export", "nets.py:model", "--input", "x:float32[N,4"], 2, "^", None),
    (["export", "nets.py:model", "--input", "x:float32[N=3..1,4]"], 2, "^", None),
    (["export", "nets.py:model", "--input", "x:float32[N,5]"], 2, "refuses the example", None),
    (["export", "nets.py:model", "--input", INPUT, "--input", "y:int64[N]"], 2, "no place", None),
    (["export", "nets.py:model", "--input", INPUT, "--values", "y=0..1"], 2, "unknown input", None),
    (["export", "nets.py:model", "--input", INPUT, "--values", "x=1..0"], 2, "x=1..0", None),
    (["export", "nets.py:model", "--input", INPUT, "--data", "d.npz"], 2, "no file d.npz", None),
    (["export", "nets.py:model", "--input", INPUT, "--data", "data.npz"], 2, "npz", _npz(b"")),
    (["export", "nets.py:model", "--input", INPUT, "--data", "data.npz"], 2, "npz", _npz(b"PK\3")),
    (
        ["export", "nets.py:model", "--input", INPUT, "--weights", "w.pt"],
        2,
        "no weights file",
        None,
    ),
    (
        ["export", "nets.py:model", "--input", INPUT, "--weights", "w.safetensors"],
        2,
        "cannot be read as safetensors",
        _write("w.safetensors", b"12"),
    ),
    (["export", "nets.py:model", "--input", INPUT, "--opset", "999"], 2, "knows opsets", None),
    (
        ["export", "nets.py:model", "--input", INPUT, "--target", "tpu"],
        2,
        "There is: coreml, coreml-fp16, executorch, executorch-portable, litert,",
        None,
    ),
    (
        ["export", "nets.py:model", "--input", INPUT, "--atol", "x"],
        2,
        "not a number from 0 up",
        None,
    ),
    (["export", "nets.py:model", "--input", INPUT, "--atol", "y=1"], 2, "no output", None),
    (["export", "nets.py:model", "--input", INPUT, "--probes", "-1"], 2, "--probes", None),
    (
        ["export", "nets.py:model", "--input", INPUT, "--out", "mine"],
        2,
        "not empty",
        _folder_with_a_file,
    ),
    (["export", "nets.py:model", "--input", INPUT, "--out", "nets.py"], 2, "no folder", None),
    (["export", "nets.py:model", "--input", INPUT, "--out", "nets.py/x"], 2, "cannot write", None),
    (["verify", "nowhere"], 2, "there is no nowhere", None),
    (["verify", "mine"], 2, "manifest.json", _folder_with_a_file),
    (["verify", "m.onnx"], 2, "--against", _write("m.onnx", b"")),
    (
        ["verify", "m.onnx", "--against", "nets.py:model", "--input", INPUT],
        2,
        "empty",
        _write("m.onnx", b""),
    ),
    (
        ["verify", "m.onnx", "--against", "nets.py:model", "--input", INPUT],
        2,
        "m.onnx",
        _write("m.onnx", b"\x08\x01junk"),
    ),
    (["verify", "gone.onnx", "--against", "nets.py:model", "--input", INPUT], 2, "no file", None),
    (["verify", "m.ort", "--against", "nets.py:model", "--mutants", "5"], 2, "no .onnx", _ORT),
    (["verify", "m.ort", "--against", "nets.py:model", "--search"], 2, "no .onnx", _ORT),
    (["verify", "m.onnx", "--against", "nets.py:model", "--mutants", "-5"], 2, "--mutants", None),
    (
        ["verify", "m.onnx", "--against", "nets.py:model", "--min-caught", "0.9"],
        2,
        "--mutants N",
        None,
    ),
    (["simplify", "gone.onnx", "out.onnx"], 2, "no file", None),
    (["simplify", "m.onnx", "out.onnx"], 2, "empty", _write("m.onnx", b"")),
    (["simplify", "m.onnx", "out.onnx"], 2, "no ONNX file", _write("m.onnx", b"\xff\xff\xff")),
    (["inspect", "m.onnx"], 2, "empty", _write("m.onnx", b"")),
    (["inspect", "nowhere.onnx"], 2, "no file", None),
    (["report", "gone.json"], 2, "cannot read", None),
    (["report", "r.json"], 2, "r.json", _write("r.json", b"{")),
    (["report", "r.json"], 2, "r.json", _write("r.json", b"")),
    (["export", "gone.py:x", "--report", "gone/r.json"], 2, "cannot write into gone", None),
    (["export", "gone.py:x", "--report", "."], 2, ". is a folder", None),
    (["check", "gone.py:x", "--report", "/dev/null"], 2, "/dev/null is a device", None),
    (
        ["verify", "gone", "--report", "r.json"],
        2,
        "r.json is a FIFO",
        lambda folder: os.mkfifo(folder / "r.json"),
    ),
    (
        ["debug", "gone.onnx", "--against", "gone.py:x", "--report", "r.json"],
        2,
        "r.json is a link",
        lambda folder: (folder / "r.json").symlink_to("nets.py"),
    ),
    (["simplify", "gone.onnx", "out.onnx", "--report", "/dev/full"], 2, "is a device", None),
    (
        ["export", "nets.py:model", "--input", INPUT, "--out", "\udcff"],
        2,
        "\\xff is no UTF-8",
        None,
    ),
    (["verify", "\udcff"], 2, "\\xff is no UTF-8", None),
    (["verify", "\udcff.onnx", *AGAINST], 2, "\\xff.onnx is no UTF-8", None),
    (["nonsense"], 2, "nonsense", None),
    (["export"], 2, "SOURCE", None),
]


@pytest.mark.parametrize(
    ("arguments", "code", "message", "prepare"),
    BAD,
    ids=[f"{number} {' '.join(row[0])}"[:60] for number, row in enumerate(BAD)],
)
def test_bad_input_gets_one_clear_error(
    arguments: list[str],
    code: int,
    message: str,
    prepare: Change | None,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if prepare:
        prepare(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(arguments) == code
    captured = capfd.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    left = {path for path in after if "__pycache__" not in path.parts}
    assert {path: after[path] for path in left} == before


@pytest.mark.parametrize(
    "words", [["inspect"], ["check"], ["verify", *AGAINST], ["debug", *AGAINST], ["simplify"]]
)
def test_every_command_says_the_same_of_a_file_that_is_no_model(
    words: list[str], folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["out.onnx"] if words == ["simplify"] else []
    Path("empty.onnx").touch()
    Path("cut.onnx").write_bytes((bundle / "model.onnx").read_bytes()[:200])
    for name, message in (
        ("empty.onnx", "empty.onnx is empty: it has 0 bytes, and no model in it"),
        ("cut.onnx", "cut.onnx is no ONNX file, or is truncated: its 200 bytes are no whole model"),
    ):
        assert run([words[0], name, *more, *words[1:], "-q"]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Copy it anew, or export the model again." in error
        assert "format" not in error


@pytest.mark.parametrize("command", ["verify", "debug"])
def test_a_file_that_does_not_load_is_blamed_on_its_node(
    command: str, folder: Path, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(bundle / "model.onnx")
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    node.attribute.append(onnx.helper.make_attribute("alpha", 1.0))
    onnx.save(model, "odd.onnx")
    assert run([command, "odd.onnx", *AGAINST, "-q"]) == 2
    error = capfd.readouterr().err
    problem = f"the Relu node {node.name}: Unrecognized attribute: alpha for operator Relu"
    assert f"error: ONNX Runtime cannot load odd.onnx: {problem}\n" in error
    assert "Run 'torch2mobile check odd.onnx', which looks at every node." in error
    assert run(["check", "odd.onnx", "-q"]) == 1
    assert "Relu has no attribute alpha" in capfd.readouterr().out


def test_inspect_says_how_many_nodes_it_does_not_list(
    folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(bundle, folder / "copy"))
    names = [*(f"conv_{n}" for n in range(28)), "relu", "relu_1"]
    entries = [{"node": name, "op": "", "outputs": [], "origins": []} for name in names]
    (copy / "provenance.json").write_text(json.dumps({"schema_version": 1, "nodes": entries}))
    first = "conv_0, conv_1, conv_2, conv_3, conv_4 and"
    for node, listed in (
        ("conv", f"Near it are: {first} 23 more."),
        ("relu_", "Near it are: relu_1."),
        ("rleu_1", "Near it are: relu_1, relu."),
        ("?", f"There is: {first} 25 more."),
    ):
        assert run(["inspect", str(copy), "--node", node]) == 2
        assert listed in capsys.readouterr().err


def test_inspect_says_what_it_reads(
    folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["inspect", "nets.py"]) == 2
    error = capsys.readouterr().err
    assert "nets.py is no ONNX file\n  What is read here are .onnx files and bundles." in error
    for command in ("inspect", "check"):
        assert run([command, str(bundle / "model.ort")]) == 2
        error = capsys.readouterr().err
        assert "is in the .ort format, and what is read here are .onnx files and bundles" in error
        assert f"Give {bundle / 'model.onnx'}." in error
    Path("alone.ort").write_bytes((bundle / "model.ort").read_bytes())
    assert run(["inspect", "alone.ort"]) == 2
    assert "Give the .onnx that it was made from." in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        "--weights=w.pt",
        f"--input={INPUT}",
        "--values=x=0..1",
        "--data=d.npz",
        "--probes=3",
        "--seed=1",
        "--mutants=5",
        "--search",
        "--no-search",
        "--min-caught=0.5",
    ],
)
def test_an_option_that_a_replay_would_ignore_is_refused(
    bundle: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(bundle), option]) == 2
    assert "--against" in capsys.readouterr().err


def test_a_declared_size_that_the_module_refuses_fails_the_check(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del folder
    given = ["export", "nets.py:Strict", "--no-simplify", "--probes=2", "-q", "--input"]
    assert run([*given, "x:float32[N=1..3,4]"]) == 0
    code = run([*given, INPUT])
    assert code in {1, 3}
    assert "PASSED: " not in capsys.readouterr().out.split("Strict")[-1]


def test_debug_shows_the_traceback(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del folder
    assert run(["export", "nets.py:broken", "--input", INPUT, "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_of_ours_exits_4(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del folder

    def explode(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("our own fault")

    monkeypatch.setattr("torch2mobile.pipeline.export.export_request", explode)
    assert run(["export", "nets.py:model"]) == 4
    assert "bug in torch2mobile" in capsys.readouterr().err


def test_interrupted_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torch2mobile.pipeline.export.export_request", interrupt)
    assert run(["export", "sample:detector"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_user_tolerances_are_honoured(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(bundle), "--atol", "1e-3"]) == 0
    assert run(["verify", str(bundle), "--atol", "output=0", "--rtol", "output=1e-12"]) in {0, 1}
    capsys.readouterr()


def test_simplify_alone(bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "small.onnx"
    assert run(["simplify", str(bundle / "model.onnx"), str(out), "-q"]) == 0
    assert "PASSED" in capsys.readouterr().out
    assert out.stat().st_size > 0
    assert run(["simplify", str(out), str(out)]) == 2
    assert run(["simplify", str(out), str(folder / "no.onnx"), "--fix-dim", "Q=1"]) == 2
    assert not (folder / "no.onnx").exists()


def test_verify_an_onnx_against_its_source(
    bundle: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del folder
    against = ["--against", "nets.py:model", "--input", INPUT, "-q"]
    assert run(["verify", str(bundle / "model.onnx"), *against]) == 0
    assert run(["verify", str(bundle / "model.ort"), *against]) == 0
    assert run(["verify", str(bundle), "--against", "nets.py:model", "-q"]) == 0
    capsys.readouterr()
    other = ["--against", "nets.py:Tiny", "--input", INPUT, "-q", "--seed", "3"]
    assert run(["verify", str(bundle / "model.onnx"), *other]) == 1
    assert "FAILED" in capsys.readouterr().out


EVIL = "a\n::error::b\x1b[31m ##[error]c"


def _evil_model(folder: Path) -> None:
    node = helper.make_node(f"Op{EVIL}", ["x"], [EVIL], domain=f"dom{EVIL}")
    info = [helper.make_tensor_value_info(name, 1, [EVIL]) for name in ("x", EVIL)]
    graph = helper.make_graph([node], "graph", info[:1], info[1:])
    opsets = [helper.make_opsetid(f"dom{EVIL}", 1), helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "evil.onnx")


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "evil.onnx"],
        ["check", "evil.onnx", "-v"],
        ["simplify", "evil.onnx", "out.onnx", "-v"],
        ["inspect", f"gone{EVIL}.onnx"],
        ["export", f"{EVIL}.py:Net"],
        ["report", f"{EVIL}.json"],
    ],
)
def test_names_of_others_are_one_printable_line(
    words: list[str], folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _evil_model(folder)
    run(words)
    text = "".join(capfd.readouterr())
    assert "a" in text
    assert not any(line.lstrip().startswith("::") for line in text.splitlines())
    assert "##[" not in text
    assert "\x1b[31m" not in text


PIPE_IN_BUNDLE = ["model.onnx", "model.ort", "manifest.json", "golden/0_example.npz"]


@contextlib.contextmanager
def _in_time(seconds: int) -> Iterator[None]:
    """Fails in place of waiting for ever."""

    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", PIPE_IN_BUNDLE)
def test_a_pipe_in_a_bundle_is_refused(
    name: str, folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(bundle, folder / "copy")
    (folder / "copy" / name).unlink()
    os.mkfifo(folder / "copy" / name)
    for words in (["verify", "copy"], ["inspect", "copy"], ["check", "copy"]):
        with _in_time(60):
            assert run(words) == 2
        assert "no regular file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "pipe.onnx"],
        ["check", "pipe.onnx"],
        ["verify", "pipe.onnx", "--against", "nets.py:model"],
        ["verify", "pipe.ort", "--against", "nets.py:model"],
        ["simplify", "pipe.onnx", "out.onnx"],
        ["report", "pipe.json"],
        ["export", "pipe.pt2"],
        ["export", "pipe.py:Net"],
        ["export", "pipe.py"],
        ["export", "nets.py:model", "--input", INPUT, "--data", "pipe.npz"],
        ["export", "nets.py:model", "--input", INPUT, "--weights", "pipe.pt"],
        ["export", "nets.py:model", "--input", INPUT, "--weights", "pipe.safetensors"],
        ["check", "nets.py:model", "--input", INPUT, "pyproject.toml"],
    ],
    ids=" ".join,
)
def test_a_pipe_is_refused(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [word.partition(":")[0] for word in words if "pipe" in word or word.endswith(".toml")]
    os.mkfifo(folder / names[0])
    with _in_time(60):
        assert run([word for word in words if not word.endswith(".toml")]) == 2
    assert names[0] in capsys.readouterr().err


def test_progress_has_stage_probes_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    piped = cli_progress.ProgressObserver(0)
    piped.started("capture")
    piped.probed(3, 18)
    assert stream.getvalue() == "[  0 s] import ...\n[  0 s] capture ...\n"
    stream.isatty = lambda: True  # type: ignore[method-assign]
    live = cli_progress.ProgressObserver(0)
    live.started("parity onnx")
    live.probed(3, 18)
    assert stream.getvalue().endswith("\r\x1b[Kparity onnx, probe 4 of 18 ... 0 s")
    live.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_errors_fit_a_reader_and_stay_whole_in_a_log(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del folder
    words = ["verify", "nowhere"]
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(words) == 2
    whole = capsys.readouterr().err.splitlines()[-2:]
    monkeypatch.setenv("COLUMNS", "30")
    assert run(words) == 2
    wrapped = capsys.readouterr().err.partition("error:")[2].splitlines()
    assert max(map(len, wrapped)) <= 30 < max(map(len, whole))
    assert " ".join("".join(f" {line}" for line in wrapped).split()) == " ".join(
        " ".join(whole).removeprefix("error:").split()
    )


def test_a_table_that_does_not_fit_a_terminal_is_told_in_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [{"name": "ncnn", "title": "t" * 30, "state": "ready to take " * 6}]
    echo_table(rows, "text")
    assert len(capsys.readouterr().out.splitlines()) == 2  # a pipe takes the columns
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    echo_table(rows, "text")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"ncnn: title {'t' * 30}, state ready")
    assert max(map(len, lines)) <= 80
    echo_table([{"name": "n" * 38, "state": "s" * 40}], "text")  # as wide as the terminal
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [45, 80]
    echo_table([{"name": "n" * 60, "state": ""}, {"name": "m", "state": "s" * 60}], "text")
    assert capsys.readouterr().out == f"{'n' * 60}\nm: state {'s' * 60}\n"
