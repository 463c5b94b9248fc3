"""`check --target`: what another runtime's converter refuses, with the user's line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_nets import Looked

import torch2mobile
from torch2mobile.errors import ConversionError, NotApplicableError
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.exporter.targets.coreml import CoremlTarget
from torch2mobile.exporter.targets.ncnn import NcnnTarget
from torch2mobile.pipeline import check_targets
from torch2mobile.records import Artifact, Check, Job, Status
from torch2mobile.validators.coverage.rules import RULES


def check(**options: Any) -> dict[str, Check]:
    result = torch2mobile.check(Looked().eval(), inputs=["ids:int64[1,6]"], **options)
    return {found.target: found for found in result.report.checks if found.name == "target"}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NcnnTarget, "missing", lambda _: [])


def test_the_lines_of_the_operator_that_a_converter_names(
    there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> Artifact:
        raise ConversionError("wrote what does not load: layer Gather not exists or registered")

    monkeypatch.setattr(check_targets, "convert", refused)
    found = check(targets=["ncnn"])["ncnn"]
    assert found.status is Status.FAILED
    (finding,) = found.findings
    assert (finding.code, finding.target) == ("T2M501", "ncnn")
    assert (finding.location.module, finding.location.op) == ("table", "Gather")
    assert finding.location.code == "return self.table(ids).mean(1)"
    assert finding.remedy == RULES["T2M501"].remedy


def test_what_has_no_form_and_what_converts(
    there: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs: list[Job] = []

    def convert(job: Job, *_: Any) -> Artifact:
        jobs.append(job)
        if job.variant.lossy:
            raise NotApplicableError("ncnn gives float32 only, and y is int64")
        assert job.model.path.is_file()
        (tmp_path / "model.param").write_text("7767517")
        return Artifact(job.variant, (tmp_path / "model.param",))

    monkeypatch.setattr(check_targets, "convert", convert)
    found = check(targets=["ncnn", "ncnn-fp16", "ort"])
    assert found["ncnn"].status is Status.PASSED
    assert "converted in memory and loaded: model.param" in found["ncnn"].summary
    assert [finding.code for finding in found["ncnn-fp16"].findings] == ["T2M502"]
    assert set(found) == {"ncnn", "ncnn-fp16"}
    assert jobs[0].shapes == {"ids": (1, 6)}
    assert [output.dtype for output in jobs[0].model.outputs] == ["float32"]


def test_a_file_is_converted_at_sizes_that_it_takes_and_that_are_told(
    there: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jobs: list[Job] = []

    def convert(job: Job, *_: Any) -> Artifact:
        jobs.append(job)
        raise ConversionError("it does not know Gather")

    monkeypatch.setattr(check_targets, "convert", convert)
    monkeypatch.setattr(CoremlTarget, "missing", lambda _: [])
    out = tmp_path / "bundle"
    made = torch2mobile.export(
        Looked().eval(), inputs=["ids:int64[N=1..3,T=2..9]"], out=out, targets=[], simplify=False
    )
    assert made.passed, str(made)
    for source in (out, out / "model.onnx"):
        result = torch2mobile.check(source, targets=["ncnn", "coreml"])
        asked = {one.target: one for one in result.report.checks if one.name == "target"}
        (finding,) = asked["ncnn"].findings
        assert finding.location.op == "Gather"
        assert bool(finding.location.code) is source.is_dir()
        batch, length = jobs[-1].shapes["ids"]
        assert finding.message.endswith(
            f", at N=1, T={length} (a file of others: simplify --fix-dim)"
        )
        assert batch == 1
        assert not source.is_dir() or 2 <= length <= 9
        assert asked["coreml"].status is Status.SKIPPED
        assert "name the module, not a file" in asked["coreml"].summary


def test_what_is_not_installed_is_skipped_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NcnnTarget, "missing", lambda _: ["pip install 'torch2mobile[ncnn]'"])
    found = check(targets=["ncnn"])["ncnn"]
    assert found.status is Status.SKIPPED
    assert "pip install 'torch2mobile[ncnn]'" in found.summary


@pytest.mark.skipif(bool(TARGETS["ncnn"].missing()), reason="ncnn is not installed")
@pytest.mark.slow
def test_ncnn_itself() -> None:
    (finding,) = check(targets=["ncnn"])["ncnn"].findings
    assert (finding.code, finding.location.op) == ("T2M501", "Gather")
