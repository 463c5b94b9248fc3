"""Verification: every edit of a finished model is found, with torch and without."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from artifacts import artifact_of
from onnx import TensorProto, helper
from torch import nn

import torch2mobile
from torch2mobile import isolation
from torch2mobile.errors import (
    BundleError,
    ExitCode,
    InputError,
    ModelFileError,
    UsageError,
)
from torch2mobile.exporter import bundle as bundles
from torch2mobile.exporter import bundle_writer
from torch2mobile.pipeline import candidates, judging
from torch2mobile.pipeline import verify as verification
from torch2mobile.pipeline.replay import verify_bundle
from torch2mobile.pipeline.results import VerifyResult
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import Check, LoadedModel, ParityOptions, Request, Status, Tolerance
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.probes import Probe

EXAMPLE = (torch.zeros(2, 6),)
SPEC = "x:float32[N=1..5,6]"


def statuses(result: VerifyResult) -> dict[tuple[str, str], Status]:
    found = {(check.name, check.target): check.status for check in result.report.checks}
    assert len(found) == len(result.report.checks)
    return found


def checks(result: VerifyResult, status: Status) -> list[Check]:
    return [check for check in result.report.checks if check.status is status]


def loosely(result: VerifyResult, *names: str) -> bool:
    return any(check.name in names for check in checks(result, Status.FAILED))


class TestBundle:
    def test_as_it_was_exported_it_passes(self, pair: Any) -> None:
        result = torch2mobile.verify(pair.path)
        assert result.exit_code is ExitCode.PASSED
        assert statuses(result) == {
            ("integrity", ""): Status.PASSED,
            ("contract", "onnx"): Status.PASSED,
            ("golden", "onnx"): Status.PASSED,
            ("contract", "ort"): Status.PASSED,
            ("golden", "ort"): Status.PASSED,
        }

    def test_what_is_not_there_is_said_to_be_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"there is no .*none"):
            torch2mobile.verify(tmp_path / "none")

    def test_an_edit_is_found_although_the_manifest_fits(
        self, edited: Callable[..., Path], edit: Any
    ) -> None:
        result = torch2mobile.verify(edited(edit))
        assert result.exit_code is ExitCode.FAILED
        assert statuses(result)["integrity", ""] is Status.PASSED
        assert loosely(result, "contract", "golden")
        # The .ort beside it was not touched, and is not blamed.
        assert statuses(result)["golden", "ort"] is Status.PASSED

    @pytest.mark.parametrize(
        ("name", "check"),
        [
            ("relu_for_hardswish", "golden"),
            ("weight_by_one_percent", "golden"),
            ("nan_in_one_value", "golden"),
            ("swapped_values", "golden"),
            ("frozen_batch", "contract"),
            ("float64_output", "contract"),
        ],
    )
    def test_by_the_check_that_is_meant_to(
        self, edited: Callable[..., Path], edits: dict[str, Any], name: str, check: str
    ) -> None:
        result = torch2mobile.verify(edited(edits[name]))
        assert statuses(result)[check, "onnx"] is Status.FAILED

    def test_an_edit_without_a_new_hash_is_named(self, edited: Callable[..., Path]) -> None:
        folder = edited()
        data = bytearray((folder / "model.ort").read_bytes())
        data[len(data) // 2] ^= 1
        (folder / "model.ort").write_bytes(data)
        (failed, *_) = checks(torch2mobile.verify(folder), Status.FAILED)
        assert failed.name == "integrity"
        assert "model.ort was changed" in failed.summary

    @pytest.mark.parametrize("name", ["model.onnx", "model.ort", "provenance.json"])
    def test_a_missing_file_is_named(self, edited: Callable[..., Path], name: str) -> None:
        folder = edited()
        (folder / name).unlink()
        result = torch2mobile.verify(folder)
        assert result.exit_code is ExitCode.FAILED
        assert f"{name} is missing" in checks(result, Status.FAILED)[0].summary

    @pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
    @pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "cut"])
    def test_an_artefact_that_does_not_load_is_a_failure_of_the_bundle(
        self, edited: Callable[..., Path], pair: Any, name: str, content: bytes | None
    ) -> None:
        folder = edited()
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
        rehash_of(folder)
        result = torch2mobile.verify(folder)
        assert result.exit_code is ExitCode.FAILED
        other = {"model.onnx": "ort", "model.ort": "onnx"}[name]
        assert statuses(result)["golden", other] is Status.PASSED

    def test_golden_data_that_cannot_be_read_is_no_pass(self, edited: Callable[..., Path]) -> None:
        folder = edited()
        for path in (folder / "golden").iterdir():
            path.write_bytes(b"not a zip")
        rehash_of(folder)
        result = torch2mobile.verify(folder)
        assert not result.passed
        assert "nothing was compared" in str(result)

    def test_one_golden_case_that_cannot_be_read_is_no_pass(
        self, edited: Callable[..., Path]
    ) -> None:
        folder = edited()
        next((folder / "golden").iterdir()).write_bytes(b"not a zip")
        rehash_of(folder)
        assert not torch2mobile.verify(folder).passed

    def test_a_manifest_without_golden_data_is_no_pass(self, edited: Callable[..., Path]) -> None:
        folder = edited()
        manifest = replace(bundles.load_bundle(folder).manifest, golden=())
        (folder / bundles.MANIFEST).write_bytes(bundle_writer.encode_manifest(manifest))
        assert not torch2mobile.verify(folder).passed

    def test_a_users_tolerance(self, edited: Callable[..., Path]) -> None:
        def little(proto: Any) -> None:
            bias = next(t for t in proto.graph.initializer if list(t.dims) == [3])
            values = onnx.numpy_helper.to_array(bias) + np.float32(1e-3)
            bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))

        folder = edited(little)
        assert not torch2mobile.verify(folder).passed
        wide = ParityOptions(tolerances={"": Tolerance(atol=2e-3)})
        assert torch2mobile.verify(folder, parity=wide).passed
        narrow = ParityOptions(tolerances={"": Tolerance(atol=5e-4)})
        assert not torch2mobile.verify(folder, parity=narrow).passed

    def test_a_tolerance_for_an_output_that_is_not_there_is_refused(self, pair: Any) -> None:
        parity = ParityOptions(tolerances={"middle": Tolerance(1)})
        with pytest.raises(UsageError, match="'middle', which is no output"):
            torch2mobile.verify(pair.path, parity=parity)

    def test_what_is_no_bundle(self, tmp_path: Path, pair: Any) -> None:
        with pytest.raises(BundleError):
            torch2mobile.verify(tmp_path)
        with pytest.raises(UsageError, match=r"there is no .*nowhere"):
            torch2mobile.verify(tmp_path / "nowhere")
        with pytest.raises(UsageError, match="no bundle"):
            torch2mobile.verify(pair.path / "model.onnx")

    def test_a_target_that_this_version_does_not_know(self, edited: Callable[..., Path]) -> None:
        folder = edited()
        manifest = bundles.load_bundle(folder).manifest
        targets = {**manifest.targets, "abacus": ("model.ort",)}
        changed = bundle_writer.encode_manifest(replace(manifest, targets=targets))
        (folder / bundles.MANIFEST).write_bytes(changed)
        with pytest.raises(UsageError, match="'abacus'"):
            torch2mobile.verify(folder)

    def test_without_torch_and_onnx(self, pair: Any) -> None:
        program = (
            "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
            "import torch2mobile\n"
            f"assert torch2mobile.verify({str(pair.path)!r}).passed"
        )
        subprocess.run([sys.executable, "-c", program], check=True)

    def test_the_observer_is_told_what_is_going_on(self, pair: Any) -> None:
        told: list[str] = []

        class Notes:
            def started(self, stage: str) -> None:
                told.append(stage)

            def finished(self, check: Check) -> None:
                told.append(f"{check.name} {check.target} {check.status.value}".replace("  ", " "))

        verify_bundle(pair.path, observer=Notes())
        assert told.index("golden onnx") < told.index("golden onnx passed")
        assert told.index("golden onnx passed") < told.index("golden ort")
        assert "integrity passed" in told


def rehash_of(folder: Path) -> None:
    manifest = bundles.load_bundle(folder).manifest
    files = {
        name: replace(
            entry,
            sha256=bundles.file_sha256(folder / name),
            size=(folder / name).stat().st_size,
        )
        for name, entry in manifest.files.items()
    }
    text = bundle_writer.encode_manifest(replace(manifest, files=files))
    (folder / bundles.MANIFEST).write_bytes(text)


@pytest.mark.parametrize("name", ["", bundles.MODEL])
def test_runtimes_start_while_the_module_loads_and_end_with_it(
    pair: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made: list[isolation.Worker] = []

    class Recorded(isolation.Worker):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    def load(_: Request) -> LoadedModel:
        assert [worker.alive for worker in made] == [True] * (1 if name else 2)
        raise InputError("it takes nothing", "")

    monkeypatch.setattr(isolation, "Worker", Recorded)
    with pytest.raises(InputError):
        verification.verify(pair.path / name, Request("nets.py:Net"), load=load)
    assert made
    assert not any(worker.alive for worker in made)


def test_a_verdict_knows_the_devices_that_were_asked_for(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = candidates.Candidate
    monkeypatch.setattr(known, "_otherwise", lambda found: iter([f"besides {found.besides}"]))
    for result in (
        verify_bundle(pair.path),
        torch2mobile.verify(pair.path, against=pair.module, args=EXAMPLE),
        torch2mobile.verify(pair.path / bundles.MODEL, against=pair.module, args=EXAMPLE),
    ):
        judged = [c for c in result.report.checks if c.name in {"golden", "parity"}]
        assert judged
        assert all("besides ()" in check.notes for check in judged)


class TestBundleAgainst:
    def test_its_own_module_passes(self, pair: Any) -> None:
        result = torch2mobile.verify(pair.path, against=pair.module, args=EXAMPLE)
        assert result.passed, str(result)
        names = {name for name, _ in statuses(result)}
        assert {"integrity", "reference", "parity", "baked"} <= names
        assert statuses(result)["parity", "ort"] is Status.PASSED

    def test_an_edit_is_found(self, edited: Callable[..., Path], edit: Any, pair: Any) -> None:
        result = torch2mobile.verify(edited(edit), against=pair.module, args=EXAMPLE)
        assert result.exit_code is ExitCode.FAILED
        assert statuses(result)["integrity", ""] is Status.PASSED
        assert loosely(result, "contract", "parity", "baked")
        assert statuses(result)["parity", "ort"] is Status.PASSED

    def test_a_baked_input_is_called_that(
        self, edited: Callable[..., Path], edits: dict[str, Any], pair: Any
    ) -> None:
        folder = edited(edits["baked_input"])
        result = torch2mobile.verify(folder, against=pair.module, args=EXAMPLE)
        assert statuses(result)["baked", "onnx"] is Status.FAILED
        assert statuses(result)["baked", "ort"] is Status.PASSED

    def test_another_seed_and_more_probes(self, pair: Any) -> None:
        few, many = (
            torch2mobile.verify(
                pair.path,
                against=pair.module,
                args=EXAMPLE,
                parity=ParityOptions(probes=probes, seed=5),
            )
            for probes in (2, 12)
        )
        assert few.passed
        assert many.passed

        def count(result: VerifyResult) -> int:
            parity = next(check for check in result.report.checks if check.name == "parity")
            return int(parity.metrics["probes"])

        assert count(many) == count(few) + 10

    def test_another_module_of_the_same_interface_fails(self, pair: Any) -> None:
        torch.manual_seed(7)
        other = type(pair.module)()
        result = torch2mobile.verify(pair.path, against=other, args=EXAMPLE)
        assert result.exit_code is ExitCode.FAILED
        failed = {check.target for check in checks(result, Status.FAILED)}
        assert failed == {"onnx", "ort"}

    def test_a_module_with_other_inputs_is_refused(self, pair: Any) -> None:
        class Other(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x + y

        with pytest.raises(UsageError, match="the bundle"):
            torch2mobile.verify(
                pair.path, against=Other(), args=EXAMPLE * 2, inputs=[SPEC, "y:float32[N,6]"]
            )

    def test_a_module_with_other_outputs_fails(self, pair: Any) -> None:
        class Fewer(nn.Module):
            def __init__(self, inner: Any) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.inner(x)["left"]

        result = torch2mobile.verify(pair.path, against=Fewer(pair.module), args=EXAMPLE)
        assert result.exit_code is ExitCode.FAILED

    def test_a_random_module_is_no_reference(self, pair: Any) -> None:
        class Noisy(nn.Module):
            def __init__(self, inner: Any) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: torch.Tensor) -> Any:
                return self.inner(x + torch.rand_like(x) * 1e-3)

        result = torch2mobile.verify(pair.path, against=Noisy(pair.module), args=EXAMPLE)
        assert result.exit_code is ExitCode.FAILED
        assert statuses(result)["reference", ""] is Status.FAILED
        assert statuses(result)["parity", ""] is Status.SKIPPED
        (place,) = next(c for c in result.report.checks if c.name == "reference").locations
        assert "torch.rand_like(x)" in place.code

    def test_a_module_that_remembers_is_compared_from_a_fresh_start_and_in_a_row(
        self, pair: Any
    ) -> None:
        class Remembers(nn.Module):
            calls = 0

            def __init__(self, inner: Any) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: torch.Tensor) -> Any:
                result = self.inner(x + self.calls)
                self.calls += 1
                return result

        result = torch2mobile.verify(pair.path, against=Remembers(pair.module), args=EXAMPLE)
        assert result.exit_code is ExitCode.FAILED
        assert statuses(result)["parity", "onnx"] is Status.PASSED
        assert statuses(result)["state", ""] is Status.FAILED
        lines = [p.code for c in result.report.checks if c.name == "state" for p in c.locations]
        assert lines[0] == "self.calls += 1"


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A module, and an .onnx that another exporter might have written of it."""
    torch.manual_seed(0)
    module = nn.Bilinear(3, 4, 2, bias=False)
    weight = module.weight.detach().numpy()
    nodes = [helper.make_node("Einsum", ["in.0", "in.1", "w"], ["out.0"], equation="ni,nj,oij->no")]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("in.0", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("in.1", TensorProto.FLOAT, ["batch", 4]),
        ],
        [helper.make_tensor_value_info("out.0", TensorProto.FLOAT, ["batch", 2])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 18)]
    path = tmp_path_factory.mktemp("foreign") / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return module.eval(), path


class TestModelAgainst:
    inputs = ("input1:float32[N,3]", "input2:float32[N,4]")

    def test_other_names_break_the_contract(self, linear: tuple[nn.Module, Path]) -> None:
        module, path = linear
        result = torch2mobile.verify(path, against=module, inputs=self.inputs)
        assert result.exit_code is ExitCode.FAILED
        (failed,) = checks(result, Status.FAILED)
        assert (failed.name, failed.target) == ("contract", "onnx")
        assert failed.summary.endswith(": input1 as in.0, input2 as in.1, output as out.0")
        assert "--match position" in failed.hint

    def test_unless_they_are_matched_by_position(self, linear: tuple[nn.Module, Path]) -> None:
        module, path = linear
        result = torch2mobile.verify(path, against=module, inputs=self.inputs, match="position")
        assert result.passed, str(result)
        contract = next(check for check in result.report.checks if check.name == "contract")
        assert contract.summary.startswith("matched by position: input1 as in.0")

    def test_one_renamed_output_of_two_is_matched_too(self, tmp_path: Path, pair: Any) -> None:
        proto = onnx.load(pair.path / "model.onnx")
        name = proto.graph.output[1].name
        proto.graph.output[1].name = "another"
        for node in proto.graph.node:
            node.input[:] = ["another" if value == name else value for value in node.input]
            node.output[:] = ["another" if value == name else value for value in node.output]
        onnx.save(proto, tmp_path / "renamed.onnx")
        given = {"against": pair.module, "inputs": [SPEC]}
        result = torch2mobile.verify(tmp_path / "renamed.onnx", **given)
        assert statuses(result)["contract", "onnx"] is Status.FAILED
        assert torch2mobile.verify(tmp_path / "renamed.onnx", **given, match="position").passed

    def test_a_bundle_has_its_own_names(self, pair: Any) -> None:
        for given in ({}, {"against": pair.module, "args": EXAMPLE}):
            with pytest.raises(UsageError):
                torch2mobile.verify(pair.path, **given, match="position")

    def test_another_module_fails(self, linear: tuple[nn.Module, Path]) -> None:
        torch.manual_seed(1)
        other = nn.Bilinear(3, 4, 2, bias=False)
        assert torch2mobile.verify(linear[1], against=other, inputs=self.inputs).exit_code is (
            ExitCode.FAILED
        )

    def test_the_number_of_inputs_must_fit(self, linear: tuple[nn.Module, Path]) -> None:
        with pytest.raises(UsageError, match="takes 2 inputs"):
            torch2mobile.verify(linear[1], against=nn.Linear(3, 2), args=(torch.zeros(2, 3),))

    def test_the_bundles_own_files_alone(self, pair: Any) -> None:
        for name in ("model.onnx", "model.ort"):
            result = torch2mobile.verify(pair.path / name, against=pair.module, inputs=[SPEC])
            assert result.passed, str(result)
            assert {target for _, target in statuses(result)} == {"", name.split(".")[1]}
            (check,) = [check for check in result.report.checks if check.name == "parity"]
            assert check.metrics["bytes"] == (pair.path / name).stat().st_size

    @pytest.mark.parametrize("content", [b"", b"garbage"])
    @pytest.mark.parametrize("name", ["model.onnx", "model.ort"])
    def test_what_is_no_model(self, tmp_path: Path, pair: Any, content: bytes, name: str) -> None:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            torch2mobile.verify(path, against=pair.module, inputs=[SPEC])

    def test_a_missing_file(self, tmp_path: Path, pair: Any) -> None:
        with pytest.raises(ModelFileError, match="there is no file"):
            torch2mobile.verify(tmp_path / "no.onnx", against=pair.module, inputs=[SPEC])

    def test_external_data_that_leads_out_of_its_folder_is_refused(
        self, tmp_path: Path, pair: Any
    ) -> None:
        (tmp_path / "models").mkdir()
        path = tmp_path / "models" / "model.onnx"
        proto = onnx.load(pair.path / "model.onnx")
        onnx.save(proto, path, save_as_external_data=True, location="w", size_threshold=0)
        result = torch2mobile.verify(path, against=pair.module, inputs=[SPEC])
        assert result.passed
        (check,) = [check for check in result.report.checks if check.name == "parity"]
        assert check.metrics["bytes"] == sum(p.stat().st_size for p in path.parent.iterdir())
        shutil.move(tmp_path / "models" / "w", tmp_path / "w")
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = "../w"
        onnx.save(proto, path)
        with pytest.raises(BundleError, match="leads out"):
            torch2mobile.verify(path, against=pair.module, inputs=[SPEC])


class TestJudging:
    """What becomes of a runtime that hangs or dies."""

    @pytest.fixture
    def stages(self) -> Stages:
        from torch2mobile.interfaces import SilentObserver

        return Stages(SilentObserver())

    def expected(self) -> list[Expected]:
        x = np.ones((2, 6), np.float32)
        return [Expected(Probe(f"p{n}", {"x": x * n}), [("y", x * n)], [x * n]) for n in range(3)]

    def test_a_time_out_is_an_error_not_a_failure(self, stages: Stages) -> None:
        from torch2mobile.errors import WorkerTimeoutError

        class Hangs:
            def run(self, feeds: Any) -> Any:
                raise WorkerTimeoutError("gave no answer within 1 s and was stopped", "Wait.")

        runner = artifact_of("ort", Hangs())
        assert not judging.judge(stages, runner, self.expected(), ParityOptions(), None)
        (check,) = stages.checks
        assert (check.name, check.target, check.status) == ("parity", "ort", Status.ERROR)
        assert "gave no answer" in check.summary

    def test_a_crash_is_a_failure(self, stages: Stages) -> None:
        from torch2mobile.errors import WorkerCrashError

        class Dies:
            load_seconds = None

            def run(self, feeds: Any) -> Any:
                raise WorkerCrashError("the worker process died of SIGILL")

        runner = artifact_of("ort", Dies())
        assert not judging.judge(stages, runner, self.expected(), ParityOptions(), None)
        assert stages.checks[0].status is Status.FAILED
        assert "SIGILL" in stages.checks[0].mismatches[0].problem

    def test_an_artefact_that_is_right_passes(self, stages: Stages) -> None:
        class Right:
            load_seconds = None

            def run(self, feeds: Any) -> Any:
                return [("y", feeds["x"])]

        runner = artifact_of("ort", Right())
        assert judging.judge(stages, runner, self.expected(), ParityOptions(), None)
        assert [check.status for check in stages.checks] == [Status.PASSED, Status.PASSED]

    @pytest.mark.parametrize("right", [True, False])
    def test_answers_that_are_known_are_judged_without_a_run(
        self, stages: Stages, right: bool
    ) -> None:
        class Runs:
            load_seconds = None

            def run(self, feeds: Any) -> Any:
                raise AssertionError("it ran")

        expected = self.expected()
        known: Any = [[("y", case.outputs[0][1] + (not right))] for case in expected]
        runner = artifact_of("ort", Runs())
        passed = judging.judge(stages, runner, expected, ParityOptions(), None, known=known)
        assert passed == right
