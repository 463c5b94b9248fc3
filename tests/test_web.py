"""onnxruntime-web under Node: what it gives, what it refuses, and how it is installed."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import torch2mobile
from torch2mobile import installing, web
from torch2mobile.errors import InstallError, MissingToolError, ModelFileError
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.pipeline import candidates
from torch2mobile.pipeline.candidates import runner_of
from torch2mobile.records import ParityOptions, Status

there = pytest.mark.skipif(web.installed() is None, reason=f"not there: {web.INSTALL}")


@there
@pytest.mark.slow
def test_arrays_of_all_kinds_and_a_call_that_fails(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("ArgMax", ["x"], ["i"], axis=1),
        helper.make_node("Not", ["b"], ["c"]),
        helper.make_node("Gather", ["x", "n"], ["g"]),
    ]
    given = [info("x", TensorProto.FLOAT, ["N", 3]), info("b", TensorProto.BOOL, [])]
    given += [info("n", TensorProto.INT64, ["M"])]
    found = [info("y", TensorProto.FLOAT, ["N", 3]), info("i", TensorProto.INT64, ["N", 1])]
    found += [info("c", TensorProto.BOOL, []), info("g", TensorProto.FLOAT, ["M", 3])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", given, found),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    feeds = {"x": x, "b": np.array(True), "n": np.array([1, 0, 1])}
    with runner_of(path, ONNX, 60.0, None, "web") as runner:
        # More than a pipe holds.
        large = np.ones((100_000, 3), np.float32)
        assert (dict(runner.run({**feeds, "x": large}))["y"] == 2).all()
        answers = dict(runner.run(feeds))
        with pytest.raises(Exception, match="onnxruntime-web stops"):
            runner.run({**feeds, "n": np.array([7])})
        again = dict(runner.run(feeds))
    np.testing.assert_array_equal(answers["y"], x + x)
    np.testing.assert_array_equal(answers["i"], [[2], [2]])
    np.testing.assert_array_equal(answers["g"], x[[1, 0, 1]])
    assert answers["c"] == np.array(False)
    assert answers["i"].dtype == np.int64
    assert all(np.array_equal(again[name], answers[name]) for name in answers)


@there
@pytest.mark.slow
def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    with (
        runner_of(path, ONNX, 60.0, None, "web") as runner,
        pytest.raises(ModelFileError, match=r"onnxruntime-web cannot load m\.onnx"),
    ):
        runner.load()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x))).relu()


@there
@pytest.mark.slow
def test_a_mismatch_of_the_web_alone_names_node_module_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    bias = net.last.bias.detach().numpy()

    def other(path: Path, *args: Any) -> Any:
        """In Node, the same file with another bias in its third layer."""
        if args[-1] == "web":
            raw = path.read_bytes().replace(bias.tobytes(), (bias + 0.05).tobytes())
            path = tmp_path / path.name
            path.write_bytes(raw)
        return runner_of(path, *args)

    monkeypatch.setattr(candidates, "runner_of", other)
    report = torch2mobile.export(
        net, inputs=["x:float32[N=1..3,3,8,8]"], targets=["ort"], devices=["web"], simplify=False,
        parity=ParityOptions(probes=2), out=tmp_path / "b",
    ).report  # fmt: skip
    found = {c.target: c for c in report.checks if (c.name, c.device) == ("parity", "web")}
    kinds = {"onnx": ("Conv", "last"), "ort": ("FusedConv", "")}
    assert {target: check.status for target, check in found.items()} == dict.fromkeys(
        kinds, Status.FAILED
    )
    for target, (kind, module) in kinds.items():
        check = found[target]
        assert check.metrics["layer kind"] == kind
        assert float(str(check.metrics["before"])) < 1e-5
        assert float(str(check.metrics["after"])) == pytest.approx(0.05, rel=0.01)
        (place, *_) = check.locations
        assert (place.module, place.op) == (module, kind)
        assert place.node == check.metrics["layer"]
        assert place.code == "return self.last(torch.tanh(self.first(x))).relu()"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_what_is_not_installed_names_the_command(empty: Path) -> None:
    assert web.installed() is None
    runner = runner_of(empty / "m.onnx", ONNX, 60.0, None, "web")
    with pytest.raises(MissingToolError) as caught:
        runner.load()
    assert caught.value.remedy == "Run: torch2mobile doctor --install web"


def test_without_npm_it_says_so(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(empty))
    with pytest.raises(InstallError, match="web needs node"):
        web.install(print)


@pytest.mark.parametrize("whole", [True, False])
def test_a_package_is_there_whole_or_not_at_all(
    empty: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    # Node at another place each time: what one has said is remembered.
    monkeypatch.setattr("shutil.which", lambda name: str(empty / name))
    asked: list[str] = []

    def packed(command: Any, what: str, *, cwd: Path | None = None) -> str:
        asked.append(command[1])
        if command[1] == "--version":
            return "v20.1.0\n"
        for name in ("onnxruntime-web", "onnxruntime-common"):
            with tarfile.open(Path(str(cwd)) / f"{name}-{web.VERSION}.tgz", "w:gz") as tar:
                for file in ("package.json", "dist/ort.node.min.mjs", "dist/ort.all.js", "../x"):
                    tar.addfile(tarfile.TarInfo(f"package/{file}"), io.BytesIO())
        if not whole:
            (Path(str(cwd)) / f"onnxruntime-web-{web.VERSION}.tgz").write_bytes(b"half")
        return ""

    monkeypatch.setattr(installing, "run", packed)
    if not whole:
        with pytest.raises(InstallError, match="is broken"):
            web.install(print)
        assert web.installed() is None
        return
    web.install(print)
    for _ in range(2):
        assert web.installed() == {"onnxruntime-web": web.VERSION, "node": "20.1.0"}
    assert asked.count("--version") == 1
    (folder,) = (empty / "torch2mobile" / "web").glob("onnxruntime-web-*")
    files = {path.name for path in (folder / "node_modules" / "onnxruntime-web").rglob("*.*s*")}
    assert files == {"package.json", "ort.node.min.mjs"}
    assert len(web.digest()) == 64
