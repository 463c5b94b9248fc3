"""Artefacts on other processors: here the launcher is `env`, and what it runs is this machine."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile import devices, web
from torch2mobile.environments import Environment
from torch2mobile.errors import UsageError
from torch2mobile.exporter.targets import TARGETS, find_variant
from torch2mobile.interfaces import SilentObserver
from torch2mobile.pipeline import candidates, enough, on_devices
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import (
    ArtifactEntry,
    Check,
    Mismatch,
    ParityOptions,
    Request,
    Status,
    Table,
    Tolerance,
)

A53, A76, LATEST = devices.DEVICES
emulated = pytest.mark.skipif(
    devices.installed(("onnxruntime", "numpy")) is None, reason=f"not there: {devices.INSTALL}"
)
on_x86 = pytest.mark.skipif(devices.find("all") == ["arm64"], reason="this machine is ARM")
pytestmark = on_x86


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two devices are this machine, and the third is one whose emulator dies."""

    def environment(label: str, packages: Sequence[str]) -> Environment:
        last = ("sh", "-c", "echo 'signal 11' >&2; exit 139") if label == LATEST else ("env",)
        return Environment(label, launcher=last, install="make it")

    monkeypatch.setattr(devices, "environment", environment)


def on(report: Any, name: str) -> dict[tuple[str, str], Check]:
    found = [check for check in report.checks if check.name == name]
    return {(check.target, check.device): check for check in found}


def test_a_bundle_is_replayed_side_by_side(pair: Any, pretended: None) -> None:
    report = torch2mobile.verify(pair.path, devices=["arm64:cortex-a53", "arm64"]).report
    golden = on(report, "golden")
    wanted = {(label, device) for label in ("onnx", "ort") for device in ("", A53, A76)}
    assert set(golden) == wanted
    assert {check.status for check in golden.values()} == {Status.PASSED}
    (table,) = on(report, "devices")["", ""].tables
    assert [row[:2] for row in table.rows] == [
        (label, device) for label in ("onnx", "ort") for device in ("this machine", A53, A76)
    ]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert all(isinstance(row["error"], float) for row in rows)
    assert all(0 < row["load s"] < 60 for row in rows)
    files = {"onnx": ["model.onnx"], "ort": ["model.ort", "operators.config"]}
    sizes = {
        label: sum((pair.path / name).stat().st_size for name in names)
        for label, names in files.items()
    }
    assert [row["bytes"] for row in rows] == [sizes[row["artefact"]] for row in rows]


@pytest.mark.parametrize("there", [None, {"onnxruntime-web": "1"}])
@pytest.mark.parametrize(
    ("machine", "processors"), [("x86_64", devices.DEVICES), ("aarch64", ("arm64",))]
)
def test_all_are_the_processors_and_web_where_it_is_installed(
    there: Any, machine: str, processors: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "installed", lambda: there)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert on_devices.find(["all"]) == (*processors, *(["web"] if there else []))
    request = Request("", devices=("all",))
    assert on_devices.settled(request).devices == on_devices.find(["all"])
    # Only who asks for all is told what they are without.
    for asked, told in ((["all"], not there), (processors, False)):
        stages = Stages(SilentObserver())
        on_devices.side_by_side(stages, asked)
        assert [web.INSTALL in note for note in stages.checks[0].notes] == [True] * told


def table(*rows: tuple[str, float, float]) -> Table:
    columns = ("output", "error", "noise", "allowed", "least atol")
    return Table("by output", columns, tuple((n, e, 1e-7, a, e) for n, e, a in rows))


def test_the_table_has_the_error_that_the_line_of_the_check_names() -> None:
    """That of the output which is closest to its limit; of a replay the greatest difference."""
    stages = Stages(SilentObserver())
    both = table(("boxes", 1.0, 100.0), ("scores", 0.25, 0.5))
    stages.add(Check("parity", Status.PASSED, "", target="mnn", tables=(both,)))
    stages.add(
        Check("golden", Status.PASSED, "", target="mnn", tables=(both,), metrics={"error": 1})
    )
    on_devices.side_by_side(stages, [], several=True)
    (shown,) = stages.checks[-1].tables
    assert [row[2] for row in shown.rows] == [0.25, 1]


@pytest.mark.parametrize(
    ("label", "asked", "told"),
    [
        ("ncnn-fp16", [], True),
        ("mnn-fp16", ["web"], True),
        ("ncnn-fp16", [A53], True),  # it has no arithmetic in float16 either
        ("ncnn-fp16", [A53, "arm64:cortex-a76"], False),
        ("ncnn", [], False),
        ("litert-fp16", [], False),  # its arithmetic is float32 everywhere
        ("qnn", [], False),
    ],
)
def test_float16_that_no_arm_processor_computed_has_a_note(
    label: str, asked: list[str], told: bool
) -> None:
    process: Any = SimpleNamespace(load_seconds=None)
    entry, check = ArtifactEntry(find_variant(label)), Check("golden", Status.SKIPPED, "")
    for device, besides in (("", asked), ("", None), (A53, asked)):
        found = candidates.Candidate(entry, process, process, device, besides=besides)
        notes = found.verdict(check, ParityOptions()).notes
        here = told and not device and besides is not None
        assert any("--device arm64" in note for note in notes) is here


@pytest.mark.parametrize(
    ("found", "options"),
    [
        (table(("y", 0.12345, 0.1)), "--atol @ncnn-fp16=0.124"),
        (
            table(("boxes", 1.0, 0.1), ("scores", 0.25, 0.1), ("same", 0.0, 0.1)),
            "--atol boxes@ncnn-fp16=1 --atol scores@ncnn-fp16=0.25",
        ),
        (table(("y", math.inf, 0.1)), ""),
        (replace(table(("y", 1.0, 0.1)), rows=(("y", 1.0, None, 0.1, None),)), ""),
    ],
)
def test_the_options_to_pass_have_their_numbers(found: Table, options: str) -> None:
    check = Check("parity", Status.FAILED, "", target="ncnn-fp16", tables=(found,))
    assert enough.to_pass(check) == options


def test_an_output_with_a_tolerance_of_its_own_is_named() -> None:
    """A tolerance of all outputs would not overrule it."""
    found = table(("y", 0.12345, 0.1))
    wrong = Mismatch("y", "p", "off", (0,), least_rtol=0.001)
    check = Check("parity", Status.FAILED, "", target="t", tables=(found,), mismatches=(wrong,))
    assert "--atol y@t=0.124." in enough.allowing(check, {"y": None})
    assert "--rtol y@t=0.00101," in enough.rounded(check, "float16", {"y": None})
    assert "--rtol @t=0.00101," in enough.rounded(check, "float16", {"": None})


def test_a_device_that_dies_is_an_error_and_stops_no_other(pair: Any, pretended: None) -> None:
    report = torch2mobile.verify(pair.path, devices=[LATEST, A53]).report
    golden = on(report, "golden")
    assert golden["ort", LATEST].status is Status.ERROR
    assert "signal 11" in golden["ort", LATEST].summary
    assert golden["ort", A53].status is Status.PASSED
    assert report.exit_code == 3


def test_a_file_that_does_not_load_there_is_a_failure(
    pair: Any, pretended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = candidates.runner_of

    def broken(*args: Any) -> Any:
        found = real(*args)
        if args[-1] == A53:
            found._loader, found._args = "torch2mobile.onnx_files:read_model", (Path("no.onnx"),)
        return found

    monkeypatch.setattr(candidates, "runner_of", broken)
    report = torch2mobile.verify(pair.path, devices=[A53]).report
    check = on(report, "golden")["ort", A53]
    assert check.status is Status.FAILED
    assert "--atol" not in check.hint


def test_an_unknown_device_is_refused_before_any_work(pair: Any) -> None:
    with pytest.raises(UsageError, match="there is no device 'pixel'"):
        torch2mobile.verify(pair.path, devices=["pixel"])
    with pytest.raises(UsageError, match="there is no device 'pixel'"):
        torch2mobile.export(pair.module, inputs=["x:float32[N=1..5,6]"], devices=["pixel"])


@pytest.mark.slow
def test_export_and_verify_against_compare_on_the_probes(
    pair: Any, pretended: None, tmp_path: Path
) -> None:
    common: dict[str, Any] = {"inputs": ["x:float32[N=1..5,6]"], "devices": [A53]}
    few = ParityOptions(probes=30)
    made = torch2mobile.export(
        pair.module, **common, parity=few, simplify=False, out=tmp_path / "b"
    )
    parity = on(made.report, "parity")
    assert parity["onnx", A53].status is parity["ort", A53].status is Status.PASSED
    assert any("the first 20 of" in note for note in parity["ort", A53].notes)
    assert made.bundle is not None
    for artifact in (made.bundle.path, made.bundle.file("model.onnx")):
        report = torch2mobile.verify(artifact, pair.module, **common, parity=few).report
        assert on(report, "parity")["onnx", A53].status is Status.PASSED
        assert "devices" in {check.name for check in report.checks}


@pytest.mark.slow
@pytest.mark.skipif(web.installed() is None, reason=f"not there: {web.INSTALL}")
def test_the_same_files_in_webassembly_and_a_weight_changed_in_one(pair: Any) -> None:
    report = torch2mobile.verify(pair.path, devices=["web"]).report
    golden = on(report, "golden")
    assert golden["onnx", "web"].status is golden["ort", "web"].status is Status.PASSED
    assert "onnxruntime-web" in report.environment["web"]
    runtime = candidates.runner_of(pair.path / "model.ort", TARGETS["ort"].variants[0], 60.0)
    there = candidates.runner_of(
        pair.path / "model.ort", TARGETS["ort"].variants[0], 60.0, None, "web"
    )
    x = {"x": np.random.default_rng(0).random((2, 6), np.float32)}
    with runtime, there:
        assert there.inputs() == runtime.inputs()
        assert [spec.name for spec in there.outputs()] == [s.name for s in runtime.outputs()]
        for (name, here), (other, wasm) in zip(runtime.run(x), there.run(x), strict=True):
            assert name == other
            np.testing.assert_allclose(wasm, here, atol=1e-5)


class Winograd(nn.Module):
    """Convolutions of 3x3, which ncnn's float16 kernels transform."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.slow
@emulated
@pytest.mark.skipif(bool(TARGETS["ncnn"].missing()), reason="ncnn is not installed")
@pytest.mark.skipif(devices.installed(("ncnn",)) is None, reason="no ncnn for ARM64 is there")
def test_float16_arithmetic_is_seen_where_the_processor_has_it(tmp_path: Path) -> None:
    loose = ParityOptions(probes=1, tolerances={"@ncnn-fp16": Tolerance(atol=1.0)})
    made = torch2mobile.export(
        Winograd().eval(), inputs=["x:float32[1,16,16,16]"], values=["x=uniform(-1,1)"],
        targets=["ncnn-fp16"], devices=[A53, A76], simplify=False, parity=loose, out=tmp_path / "b",
    )  # fmt: skip
    assert made.passed, str(made)
    (table,) = on(made.report, "devices")["", ""].tables
    error = {row[:2]: float(str(row[2])) for row in table.rows}
    assert error["onnx", A76] < 1e-5
    assert error["ncnn-fp16", A76] > 2 * error["ncnn-fp16", A53]
    assert made.report.environment["arm64"].startswith("python 3")
