"""Nothing leaves the machine, and nothing is left on it but what was asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from torch2mobile.environments import Worker
from torch2mobile.isolation import IsolatedRunner

PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR")

EVERYTHING = """
import torch, torch2mobile as t
net, call = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()), (torch.zeros(2, 4),)
assert t.export(net, call, out="out").passed
assert t.verify("out").passed
assert t.verify("out", net, call, mutants=2, min_caught=0).passed
assert t.debug("out", net, call).report.checks
assert t.check(net, call, providers=["nnapi"]).report.checks
assert t.check("out/model.onnx").passed
assert t.simplify("out/model.onnx", "small.onnx").passed
"""


def test_a_session_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime's own telemetry would leave a device id, a database and a session file."""
    model = tmp_path / "model.onnx"
    onnx.save(onnx_models.one("Relu", ["N"]), model)
    for place in PLACES:
        (tmp_path / place).mkdir()
        monkeypatch.setenv(place, str(tmp_path / place))
    loader = "torch2mobile.exporter.targets.ort:OrtRunner"
    with IsolatedRunner(loader, model, timeout=60) as runner:
        assert runner.run({"x": np.ones(3, "f4")})
    assert [path for place in PLACES for path in (tmp_path / place).rglob("*")] == []


@pytest.mark.parametrize("own", ["0", None])
def test_telemetry_is_off_unless_the_caller_decides(
    own: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if own is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", own)
    with Worker() as worker:
        assert worker.call("os:getenv", "ORT_DISABLE_TELEMETRY", timeout=60) == (own or "1")
    here = "import torch2mobile, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", here], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (own or "1")


@pytest.mark.slow
def test_no_verb_leaves_or_sends_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All verbs under strace, where there is one; what they leave is looked at in any case."""
    strace, work = shutil.which("strace"), tmp_path / "work"
    work.mkdir()
    for place in PLACES:
        (tmp_path / place).mkdir()
        monkeypatch.setenv(place, str(tmp_path / place))
    command = [sys.executable, "-c", EVERYTHING]
    if strace is not None:
        command = [strace, "-f", "-e", "trace=%network", "-o", str(tmp_path / "calls"), *command]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in work.iterdir()) == ["out", "small.onnx"]
    left = [path for place in PLACES for path in (tmp_path / place).rglob("*")]
    # torch makes this folder as soon as it captures, and puts nothing into it.
    assert [path for path in left if not path.name.startswith("torchinductor_")] == []
    if strace is not None:
        calls = (tmp_path / "calls").read_text(errors="replace")
        assert re.findall(r".*AF_INET.*", calls) == []
        # The C library asks a local daemon for the user's name.
        assert [c for c in re.findall(r"connect\(.*", calls) if "nscd" not in c] == []


WITHOUT_NETWORK = """
import torch, torch2mobile as t
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.records import ParityOptions, Tolerance
there = [v for target in TARGETS.values() if not target.missing() for v in target.variants]
loose = {f"@{v.label}": Tolerance(atol=0.1) for v in there if v.lossy}
net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
asked = {"inputs": ["x:float32[1,3,8,8]"], "targets": [v.label for v in there]}
made = t.export(net, **asked, out="out", parity=ParityOptions(2, 0, loose))
assert made.passed, str(made)
assert t.verify("out", strict=True).passed
print(*(v.label for v in there))
"""


@pytest.mark.slow
def test_every_target_that_is_installed_is_made_and_run_without_a_network(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    apart = [unshare or "unshare", "--user", "--map-root-user", "--net"]
    if unshare is None or subprocess.run([*apart, "true"], capture_output=True).returncode:  # noqa: PLW1510
        pytest.skip("this system makes no namespace without a network")
    command = [*apart, sys.executable, "-c", WITHOUT_NETWORK]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "ort" in done.stdout.split()
