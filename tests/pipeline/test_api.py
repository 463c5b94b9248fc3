"""The Python API: records out, nothing printed, nothing global changed."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.errors import InputError, UsageError
from torch2mobile.records import ParityOptions, Status, Tolerance

FEW = ParityOptions(probes=2)


@dataclasses.dataclass
class Found:
    boxes: torch.Tensor
    extra: torch.Tensor | None
    scores: tuple[torch.Tensor, torch.Tensor]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.layer = nn.Linear(4, 3)
        self.cache: torch.Tensor | None = None
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor, *, scale: float = 1.0, state: Any = None) -> Found:
        self.cache = x
        self.calls += 1
        y = self.layer(self.norm(x)) * scale
        if state is not None:
            y = y + state["h"][0]
        return Found(boxes=y, extra=None, scores=(y.sigmoid(), y.argmax(-1)))


def everything(net: Net) -> list[Any]:
    """All that an export must leave as it was."""
    return [
        {key: value.clone() for key, value in net.state_dict().items()},
        [child.training for child in net.modules()],
        net.cache,
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.random.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    ]


def same(first: list[Any], second: list[Any]) -> bool:
    weights = first[0].keys() == second[0].keys() and all(
        torch.equal(first[0][key], second[0][key]) for key in first[0]
    )
    return weights and first[1:] == second[1:]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Net, Path, Any]:
    torch.manual_seed(0)
    net = Net()
    out = tmp_path_factory.mktemp("api") / "net"
    call = {"scale": 0.5, "state": {"h": [torch.randn(2, 3)]}}
    batch = torch.export.Dim("N", min=1, max=6)
    result = torch2mobile.export(
        net,
        (torch.randn(2, 4),),
        call,
        {"x": {0: batch}, "scale": None, "state": {"h": [{0: batch}]}},
        out=out,
        parity=FEW,
    )
    assert result.passed, str(result)
    return net, out, result


def test_export_returns_the_records(exported: tuple[Net, Path, Any]) -> None:
    _, out, result = exported
    assert result.bundle.path == out
    manifest = result.bundle.manifest
    assert [spec.name for spec in manifest.inputs] == ["x", "state_h_0"]
    assert [spec.name for spec in manifest.outputs] == ["boxes", "scores_0", "scores_1"]
    assert [dim.label for dim in manifest.inputs[1].dims] == ["N", 3]
    notes = [note for check in result.report.checks for note in check.notes]
    assert any("extra is None" in note for note in notes)
    assert any("scale is 0.5" in note for note in notes)
    assert torch2mobile.load_bundle(out) == result.bundle
    assert result.exit_code == 0


def test_a_notebook_draws_the_report(exported: tuple[Net, Path, Any]) -> None:
    result = exported[2]
    assert "<table" in result._repr_html_()
    assert "parity [onnx]" in str(result)


def test_nothing_is_printed_and_nothing_is_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    net = Net()
    net.layer.eval()
    before = everything(net)
    result = torch2mobile.export(
        net, (torch.randn(2, 4, generator=torch.Generator()),), out=tmp_path / "a", parity=FEW
    )
    assert result.bundle is not None
    assert same(everything(net), before)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


class Refuses(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        self.cache = x
        self.calls += 1
        torch.manual_seed(3)
        random.seed(3)
        torch.set_default_dtype(torch.float64)
        raise ValueError("not today")


def test_nothing_is_changed_after_an_error_either(tmp_path: Path) -> None:
    net = Refuses()
    before = everything(net)
    with pytest.raises(InputError, match="not today"):
        torch2mobile.export(net, (torch.ones(2, 4),), out=tmp_path / "a")
    assert same(everything(net), before)
    assert list(tmp_path.iterdir()) == []


def test_the_state_check_itself_bites() -> None:
    net = Net()
    before = everything(net)
    net.eval()
    assert not same(everything(net), before)
    net.train()
    assert same(everything(net), before)
    net.calls += 1
    assert not same(everything(net), before)


def test_verify_against_the_module_in_memory(exported: tuple[Net, Path, Any]) -> None:
    net, out, _ = exported
    call = ((torch.randn(3, 4),), {"scale": 0.5, "state": {"h": [torch.randn(3, 3)]}})
    assert torch2mobile.verify(out).passed
    good = torch2mobile.verify(out, net, *call, parity=ParityOptions(probes=3, seed=4))
    assert good.passed, str(good)
    other = Net()
    other.layer.load_state_dict(net.layer.state_dict())
    with torch.no_grad():
        other.layer.bias[1] += 0.01
    bad = torch2mobile.verify(out, other, *call, parity=FEW)
    assert bad.exit_code == 1
    (parity, *_) = [check for check in bad.report.checks if check.status is Status.FAILED]
    assert parity.mismatches[0].index[-1] == 1
    least = parity.mismatches[0].least_atol
    assert least == pytest.approx(0.005, rel=0.1)
    enough = {"": Tolerance(atol=2 * 0.01)}
    tolerant = ParityOptions(probes=2, tolerances=enough)
    assert torch2mobile.verify(out, other, *call, parity=tolerant).passed


def test_a_bare_onnx_needs_a_module(exported: tuple[Net, Path, Any]) -> None:
    net, out, _ = exported
    with pytest.raises(UsageError, match="nothing to compare"):
        torch2mobile.verify(out / "model.onnx")
    call = ((torch.randn(3, 4),), {"scale": 0.5, "state": {"h": [torch.randn(3, 3)]}})
    assert torch2mobile.verify(out / "model.onnx", net, *call, parity=FEW).passed


def test_simplify(exported: tuple[Net, Path, Any], tmp_path: Path) -> None:
    result = torch2mobile.simplify(exported[1] / "model.onnx", tmp_path / "s.onnx", parity=FEW)
    assert result.passed, str(result)
    assert result.path == tmp_path / "s.onnx"


def test_inputs_in_the_grammar_and_two_exports_with_the_same_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.GELU())
    for name in ("a", "b"):
        result = torch2mobile.export(
            net, inputs=["rows:float32[N=1..5,4]"], out=tmp_path / name, parity=FEW
        )
        assert result.passed
    files = sorted(
        p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()
    )
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_what_is_no_module_or_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"torch\.nn\.Module"):
        torch2mobile.export(torch.relu, (torch.ones(2),), out=tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="dynamic_shapes"):
        torch2mobile.export(
            nn.ReLU(), (torch.ones(2),), None, {"input": None}, inputs=["x:float32[2]"]
        )


def test_progress_is_told_to_the_observer(tmp_path: Path) -> None:
    told: list[str] = []

    class Listener:
        def started(self, stage: str) -> None:
            told.append(stage)

        def finished(self, check: Any) -> None:
            told.append(f"{check.name} {check.status.value}")

    torch2mobile.export(
        nn.ReLU(), (torch.ones(2, 3),), out=tmp_path / "a", parity=FEW, observer=Listener()
    )
    assert told[:2] == ["capture", "capture passed"]
    assert told[-1] == "bundle passed"
