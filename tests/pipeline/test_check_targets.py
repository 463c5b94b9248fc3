"""`check --target`: what another runtime's converter refuses, with the user's line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from small_nets import Looked

import torch2mobile
from torch2mobile.errors import (
    ConversionError,
    NotApplicableError,
    UsageError,
    WorkerCallError,
    WorkerCrashError,
)
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.exporter.targets.coreml import CoremlTarget
from torch2mobile.exporter.targets.mnn import MnnTarget
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


@pytest.mark.parametrize(
    "said",
    [
        "stopped: Lowering not found: aten.embedding.default",
        "NotImplementedError: Unsupported fx node embedding, kind embedding",
    ],
)
def test_the_lines_of_the_operator_of_pytorch_that_a_converter_names(
    there: None, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    def refused(*_: Any) -> Artifact:
        raise ConversionError(said)

    monkeypatch.setattr(check_targets, "convert", refused)
    (finding,) = check(targets=["ncnn"])["ncnn"].findings
    assert finding.location.op == "aten.embedding.default"
    assert finding.location.code == "return self.table(ids).mean(1)"


def test_the_web_is_a_device() -> None:
    with pytest.raises(UsageError, match="'web' is a device") as caught:
        check(targets=["web"])
    assert "--device web" in caught.value.remedy


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (WorkerCrashError("the worker process died of SIGABRT"), "for ncnn died of SIGABRT"),
        (WorkerCallError("KeyError: 'x'"), "for ncnn: KeyError: 'x'"),
        (ConversionError("wrote nothing"), "for ncnn wrote nothing"),
    ],
)
def test_what_a_converter_did_is_a_sentence(
    there: None, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def call(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("torch2mobile.environments.Worker.call", call)
    assert told in check(targets=["ncnn"])["ncnn"].findings[0].message


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
        raise ConversionError("it does not know Gather" if job.variant.target == "ncnn" else "no")

    monkeypatch.setattr(check_targets, "convert", convert)
    monkeypatch.setattr(CoremlTarget, "missing", lambda _: [])
    monkeypatch.setattr(MnnTarget, "missing", lambda _: [])
    out = tmp_path / "bundle"
    made = torch2mobile.export(
        Looked().eval(), inputs=["ids:int64[N=1..3,Gather=2..9]"], out=out, targets=[],
        simplify=False,
    )  # fmt: skip
    assert made.passed, str(made)
    for source in (out, out / "model.onnx"):
        result = torch2mobile.check(source, targets=["ncnn", "coreml"])
        asked = {one.target: one for one in result.report.checks if one.name == "target"}
        (finding,) = asked["ncnn"].findings
        assert finding.location.op == "Gather"
        assert bool(finding.location.code) is source.is_dir()
        batch, length = jobs[-1].shapes["ids"]
        assert finding.message.endswith(
            f", at N=1, Gather={length} (a file of others: simplify --fix-dim)"
        )
        assert batch == 1
        assert not source.is_dir() or 2 <= length <= 9
        assert asked["coreml"].status is Status.SKIPPED
        assert "name the module, not a file" in asked["coreml"].summary

        fixed = {"N": 3, "Gather": 7}
        result = torch2mobile.check(source, targets=["ncnn", "mnn"], fix_dims=fixed)
        asked = {one.target: one for one in result.report.checks if one.name == "target"}
        (finding,) = asked["ncnn"].findings
        assert finding.code == "T2M502"
        assert finding.message.endswith("the first dimension of ids is fixed to 3")
        (finding,) = asked["mnn"].findings
        assert jobs[-1].shapes == {"ids": (3, 7)}
        assert ", at N=3, Gather=7 (" in finding.message
        # That a size is called as an operator says nothing about this.
        assert not finding.location.op
        with pytest.raises(UsageError, match="no input has a dimension of that name"):
            torch2mobile.check(source, targets=["ncnn"], fix_dims={"H": 3})
    with pytest.raises(UsageError, match="about an accelerator"):
        check(targets=["ncnn"], fix_dims={"N": 3})


def test_an_input_that_no_target_takes_has_no_form(there: None, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT8E4M3FN, [1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "m.onnx")
    result = torch2mobile.check(tmp_path / "m.onnx", targets=["ncnn"])
    (found,) = [one for one in result.report.checks if one.name == "target"]
    assert [(one.code, "float8" in one.message) for one in found.findings] == [("T2M502", True)]


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
