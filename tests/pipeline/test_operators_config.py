"""One operators.config for several bundles."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.cli import run
from torch2mobile.errors import BundleError
from torch2mobile.pipeline.operators_config import operators_config
from torch2mobile.records import ParityOptions


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an operator that Pair has not."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("other") / "bundle"
    module = nn.Sequential(nn.Linear(3, 2), nn.Softmax(-1)).eval()
    parity = ParityOptions(probes=2)
    made = torch2mobile.export(
        module, inputs=["x:float32[N=1..5,3]"], out=path, parity=parity, simplify=False
    )
    assert made.passed, str(made)
    return path


def test_bundles_are_merged(
    pair: Any, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "operators.config"
    assert run(["operators-config", str(pair.path), str(other), "-o", str(out)]) == 0
    text = out.read_text()
    alone = (pair.path / "operators.config").read_text()
    assert "Softmax" in text
    assert "Softmax" not in alone
    assert "HardSigmoid" in text
    assert not capsys.readouterr().err
    old = ["operators-config", str(other), "-o", str(out), "--ort-version", "1.15.1"]
    assert run(old) == 0
    assert "reads .ort files up to format 5" in capsys.readouterr().err
    assert "HardSigmoid" not in out.read_text()


def test_a_bundle_that_is_not_as_it_was_is_refused(pair: Any, tmp_path: Path) -> None:
    changed = tmp_path / "bundle"
    shutil.copytree(pair.path, changed)
    (changed / "model.ort").write_bytes(b"other")
    out = tmp_path / "operators.config"
    with pytest.raises(BundleError, match=r"model\.ort"):
        operators_config([changed], out)
    with pytest.raises(BundleError, match="there is no bundle"):
        operators_config([tmp_path / "nothing"], out)
    assert not out.exists()
