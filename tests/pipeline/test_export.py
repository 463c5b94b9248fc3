"""The stages of an export, in order: each can fail, and then nothing is written."""

from __future__ import annotations

import hashlib
import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rows import slow_but
from torch import nn
from torch.nn import functional as F

import torch2mobile
from torch2mobile.errors import ExitCode, UsageError
from torch2mobile.exporter import targets as target_registry
from torch2mobile.exporter.bundle import load_bundle, read_case, tampered_files
from torch2mobile.pipeline import artifacts, conversion, golden_cases
from torch2mobile.pipeline.export import export_request
from torch2mobile.pipeline.results import ExportResult
from torch2mobile.records import Check, ParityOptions, Request, Status, Tolerance
from torch2mobile.validators.parity.expected import Expected, Rough
from torch2mobile.validators.parity.probes import Probe

QUICK = ParityOptions(probes=2)
X = torch.ones(2, 4)


def export(module: nn.Module, out: Path, *, example: Any = X, **options: Any) -> ExportResult:
    given = {"parity": QUICK, "simplify": False, "targets": (), **options}
    return torch2mobile.export(module, (example,), out=out, **given)


def statuses(result: ExportResult) -> dict[str, Status]:
    found = {f"{c.name} {c.target}".strip(): c.status for c in result.report.checks}
    assert len(found) == len(result.report.checks)
    return found


def check(result: ExportResult, name: str) -> Check:
    return next(c for c in result.report.checks if f"{c.name} {c.target}".strip() == name)


class TestStages:
    def test_all_of_them_in_order(self, pair: Any) -> None:
        assert list(statuses(pair.result)) == [
            "capture",
            "translate",
            "reference",
            "simplify",
            "contract onnx",
            "parity onnx",
            "baked onnx",
            "provenance",
            "convert ort",
            "contract ort",
            "parity ort",
            "baked ort",
            "bundle",
        ]
        assert set(statuses(pair.result).values()) == {Status.PASSED}

    def test_the_files_of_a_bundle(self, pair: Any) -> None:
        names = {str(p.relative_to(pair.path)) for p in pair.path.rglob("*") if p.is_file()}
        fixed = {name for name in names if not name.startswith("golden")}
        assert fixed == {
            "model.onnx",
            "model.ort",
            "operators.config",
            "provenance.json",
            "report.json",
            "manifest.json",
        }
        most = golden_cases.GOLDEN_CASES + golden_cases.MORE_CASES
        assert 1 <= len(names - fixed) <= most
        assert tampered_files(load_bundle(pair.path)) == []
        assert [path.name for path in pair.path.parent.iterdir()] == [pair.path.name]

    def test_a_stage_that_was_turned_off_is_skipped_and_not_passed(self, tmp_path: Path) -> None:
        result = export(nn.Linear(4, 2), tmp_path / "b")
        assert result.passed
        assert statuses(result)["simplify"] is Status.SKIPPED
        assert "--no-simplify" in check(result, "simplify").summary
        assert not load_bundle(tmp_path / "b").manifest.simplified

    def test_the_request_is_kept(self, pair: Any) -> None:
        manifest = load_bundle(pair.path).manifest
        assert manifest.request is not None
        assert manifest.request.inputs == ("x:float32[N=1..5,6]",)
        assert manifest.request.parity.probes == 6
        report = json.loads((pair.path / "report.json").read_text())
        assert report["command"] == "export"

    def test_the_report_in_the_bundle_counts_as_the_result_does(self, pair: Any) -> None:
        saved = json.loads((pair.path / "report.json").read_text())["checks"]
        assert [c["name"] for c in saved] == [c.name for c in pair.result.report.checks]
        count = len([path for path in pair.path.rglob("*") if path.is_file()])
        assert saved[-1]["summary"] == f"{count} files"
        assert f"({count} files, " in pair.result.report.checks[-1].summary

    def test_a_module_that_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "net.py").write_text("import torch\nnet = torch.nn.Linear(4, 2)\n")
        request = Request(
            source=f"{tmp_path / 'net.py'}:net",
            inputs=("x:float32[N,4]",),
            simplify=False,
            targets=(),
            parity=QUICK,
        )
        result = export_request(request, out=tmp_path / "b")
        assert result.passed, str(result)
        assert result.report.subject == request.source
        assert load_bundle(tmp_path / "b").manifest.source == request.source


class Seven(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] == 7 else x * 2


class One(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] == 1 else x * 2


class TestSizesTheCaptureDidNotAssume:
    """torch cannot prove them, or was told not to look: the probes decide."""

    @pytest.mark.parametrize(
        ("module", "declared", "size", "code"),
        [(Seven(), "N=2..99", "N=7", "== 7"), (One(), "N=1..2", "N=1", "== 1")],
    )
    def test_a_module_that_is_another_one_there_fails(
        self, tmp_path: Path, module: nn.Module, declared: str, size: str, code: str
    ) -> None:
        result = torch2mobile.export(
            module,
            inputs=[f"x:float32[{declared},3]"],
            out=tmp_path / "bundle",
            parity=QUICK,
            simplify=False,
            targets=(),
        )
        assert check(result, "capture").status is Status.PASSED
        assert any(f"not so at {size}" in note for note in check(result, "reference").notes)
        parity = check(result, "parity onnx")
        assert parity.status is Status.FAILED
        assert {mismatch.probe for mismatch in parity.mismatches} >= {size}
        assert code in parity.locations[0].code


class TestGolden:
    def test_the_modules_own_outputs(self, pair: Any) -> None:
        manifest = load_bundle(pair.path).manifest
        batches = set()
        for case in manifest.golden:
            feeds, outputs = read_case(pair.path / case.file)
            with torch.no_grad():
                wanted = pair.module(torch.from_numpy(feeds["x"]))
            assert [name for name, _ in outputs] == ["left", "right"]
            for name, array in outputs:
                assert np.array_equal(array, wanted[name].numpy())
                assert 0 < case.allowed[name] < 1e-4 * max(1.0, float(np.abs(array).max()))
            batches.add(len(feeds["x"]))
        assert manifest.golden[0].probe == "example"
        assert {1, 5} <= batches

    def case(self, number: int, size: int, label: str = "") -> Expected:
        x = np.full((number % 3 + 1, size), number, np.float32)
        return Expected(Probe(label or f"p{number}", {"x": x}), [("y", x)], [x])

    def test_large_cases_are_left_out(self, tmp_path: Path) -> None:
        large = golden_cases.GOLDEN_BYTES
        cases = [self.case(0, 4, "example"), self.case(1, large), self.case(2, 4)]
        written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [])
        assert [case.probe for case in written] == ["example", "p2"]

    def test_but_never_all(self, tmp_path: Path) -> None:
        cases = [self.case(number, golden_cases.GOLDEN_BYTES // 4) for number in range(3)]
        written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [])
        assert [case.probe for case in written] == ["p0"]

    def test_the_example_then_other_sizes_then_other_values(self, tmp_path: Path) -> None:
        cases = [self.case(number, 4) for number in (0, 3, 6, 1, 4, 2, 5)]
        written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [])
        assert [case.probe for case in written] == ["p0", "p1", "p2", "p3", "p6", "p4"]
        assert len({case.file for case in written}) == golden_cases.GOLDEN_CASES

    def test_two_more_of_the_users_data_come_before_other_sizes(self, tmp_path: Path) -> None:
        cases = [self.case(number, 4) for number in range(12)]
        real = [replace(case, probe=replace(case.probe, real=True)) for case in cases[8:]]
        cases[8:] = real
        cases[9] = self.case(9, golden_cases.GOLDEN_BYTES)
        written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [])
        # p8 and p10 have the sizes of p2 and p1.
        assert [case.probe for case in written] == ["p0", "p8", "p10", "p1", "p2", "p3"]

    def test_then_what_takes_decisions_as_none_of_these_does(self, tmp_path: Path) -> None:
        cases = [self.case(number, 4) for number in (0, 3, 6, 9, 12, 15, 18, 21)]
        written = golden_cases.write_golden(
            tmp_path,
            cases,
            ParityOptions(),
            {},
            [],
            sides=lambda feeds: {"all", feeds["x"].max() > 20},
        )
        assert [case.probe for case in written] == ["p0", "p3", "p6", "p9", "p12", "p15", "p21"]

    def test_of_a_heavy_module_what_has_a_truth_and_no_run_more(self, tmp_path: Path) -> None:
        def case(number: int, *, known: bool = False) -> Expected:
            x = np.zeros((number, 4), np.float32)
            found: Any = {"truth": [x]} if known else {"later": Rough(runs)}
            return Expected(Probe(f"N={number}", {"x": x}), [("y", x)], heavy=True, **found)

        def runs(*_: object) -> Any:
            raise AssertionError("a run")

        cases = [case(4, known=True), case(1), case(4), case(3, known=True), case(2), case(5)]
        written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [], sides=runs)
        assert [each.probe for each in written] == ["N=4", "N=3"]

    def test_and_small_further_sizes(self, tmp_path: Path) -> None:
        def case(number: int, size: int) -> Expected:
            x = np.zeros((number, size), np.float32)
            return Expected(Probe(f"N={number}", {"x": x}), [("y", x)], [x])

        cases = [case(2, 9), *(case(number, 9) for number in range(3, 30)), case(30, 9000)]
        written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [])
        assert [each.probe for each in written] == [f"N={number}" for number in range(2, 30)]

    def test_ties_are_left_out_or_stored_as_the_artefacts_have_them(self, tmp_path: Path) -> None:
        cases = [self.case(number, 4) for number in range(3)]
        cases = [replace(c, outputs=[("y", np.array([n]))]) for n, c in enumerate(cases)]
        other, none = [("y", np.array([7]))], []
        for tied, probes, first in (
            ({0: other}, ["p1", "p2"], 1),
            ({0: other, 1: none, 2: other}, ["p0", "p2"], 7),
        ):
            written = golden_cases.write_golden(tmp_path, cases, ParityOptions(), {}, [], tied)
            assert [case.probe for case in written] == probes
            assert read_case(tmp_path / written[0].file)[1][0][1][0] == first

    def test_a_bundle_whose_probes_all_tie_is_verified(self, tmp_path: Path) -> None:
        class Ties(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.topk(torch.cat([x * 0, x[:, :1].round()], 1), 3).indices

        out = tmp_path / "b"
        result = torch2mobile.export(
            Ties(), inputs=["x:float32[N=1..3,64]"], out=out, simplify=False, targets=[],
            parity=ParityOptions(probes=2),
        )  # fmt: skip
        assert [c.summary for c in result.report.checks if c.status is Status.FAILED] == []
        assert torch2mobile.verify(out).passed

    def test_a_label_makes_no_path(self, tmp_path: Path) -> None:
        (written,) = golden_cases.write_golden(
            tmp_path, [self.case(0, 4, "../../N=1 a/b")], ParityOptions(), {}, []
        )
        assert Path(written.file).parent == Path("golden")
        assert (tmp_path / written.file).is_file()
        assert written.probe == "../../N=1 a/b"

    def test_a_users_tolerance_holds_for_the_replay(self, tmp_path: Path) -> None:
        parity = ParityOptions(probes=2, tolerances={"output": Tolerance(atol=0.125)})
        assert export(nn.Linear(4, 2), tmp_path / "b", parity=parity).passed
        golden = load_bundle(tmp_path / "b").manifest.golden
        assert {case.allowed["output"] for case in golden} == {0.125}


# --- each stage fails ---------------------------------------------------------------------------


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x
        return -x


class Airy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Root(nn.Module):
    """NaN on the example too, not only on values that nobody declared."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(-1 - x.abs())


class OnlyWhileExporting(nn.Module):
    """A branch that is taken while exporting alone: the file is another function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x) if torch.compiler.is_exporting() else F.relu(x)


class Unrelated(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, 2.0) if torch.compiler.is_exporting() else x * 2.0


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = x + self.last
        self.last.copy_(x.sum(0))
        return out


FAILURES: dict[str, tuple[type[nn.Module], str, Status, ExitCode]] = {
    "capture": (Branch, "capture", Status.ERROR, ExitCode.STAGE),
    "translate": (Airy, "translate", Status.ERROR, ExitCode.STAGE),
    "random": (Noise, "reference", Status.FAILED, ExitCode.FAILED),
    "nan": (Root, "reference", Status.FAILED, ExitCode.FAILED),
    "state": (Remembers, "state", Status.FAILED, ExitCode.FAILED),
    "parity": (OnlyWhileExporting, "parity onnx", Status.FAILED, ExitCode.FAILED),
    "baked": (Unrelated, "baked onnx", Status.FAILED, ExitCode.FAILED),
}


@pytest.mark.parametrize("name", slow_but(FAILURES, "capture", "translate", "random", "parity"))
def test_a_stage_that_fails_is_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    kind, stage, status, code = FAILURES[name]
    result = export(kind(), tmp_path / "b")
    assert result.exit_code is code
    assert statuses(result)[stage] is status
    assert result.bundle is None
    assert {path.name for path in tmp_path.iterdir()} <= {"b.failed"}
    assert check(result, stage).hint
    places = check(result, stage).locations
    assert any(place.file.endswith("test_export.py") and place.line > 0 for place in places)
    assert name != "random" or statuses(result)["parity"] is Status.SKIPPED
    assert name != "random" or "baked onnx" not in statuses(result)


def test_a_simplified_file_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is judged as simplified and as shipped, and the file before it is not run at all."""
    from torch2mobile.isolation import IsolatedRunner

    original, ran = IsolatedRunner.run, []

    def run(self: IsolatedRunner, feeds: Any) -> Any:
        ran.append(1)
        return original(self, feeds)

    monkeypatch.setattr(IsolatedRunner, "run", run)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = export(module, tmp_path / "b", example=torch.rand(2, 5, 8), simplify=True)
    checks = {check.name: check for check in found.report.checks}
    assert checks["simplify"].metrics["nodes_after"] < checks["simplify"].metrics["nodes_before"]
    assert len(ran) == checks["parity"].metrics["probes"]


def test_a_mismatch_says_which_probe_and_value(tmp_path: Path) -> None:
    result = export(OnlyWhileExporting(), tmp_path / "b", parity=ParityOptions(probes=8))
    found = check(result, "parity onnx")
    probes = {mismatch.probe for mismatch in found.mismatches}
    assert "normal" in probes
    assert "zeros" not in probes
    for mismatch in found.mismatches:
        assert mismatch.output == "output"
        assert len(mismatch.index) == 2
        assert float(mismatch.expected) == 0.0
        assert float(mismatch.actual) < 0.0
        assert mismatch.least_atol == pytest.approx(-float(mismatch.actual))


def test_a_users_tolerance_lets_it_pass_and_the_replay_too(tmp_path: Path) -> None:
    loose = ParityOptions(probes=2, tolerances={"": Tolerance(atol=1.0)})
    assert export(OnlyWhileExporting(), tmp_path / "b", parity=loose).passed
    assert torch2mobile.verify(tmp_path / "b").passed


@pytest.mark.slow
def test_the_onnx_that_was_judged_is_kept_until_a_bundle_is_written(tmp_path: Path) -> None:
    loose = ParityOptions(probes=2, tolerances={"": Tolerance(atol=1.0)})
    kept = tmp_path / "b.failed" / "model.onnx"
    skipped = check(export(OnlyWhileExporting(), tmp_path / "b"), "bundle")
    assert kept.is_file()
    assert any(
        note.endswith("b.failed/model.onnx, for torch2mobile debug") for note in skipped.notes
    )
    assert "older" not in skipped.summary
    assert export(OnlyWhileExporting(), tmp_path / "b", parity=loose).passed
    assert not kept.parent.exists()
    again = check(export(OnlyWhileExporting(), tmp_path / "b"), "bundle")
    assert "is an older one" in again.summary


def test_a_tolerance_for_no_output_is_refused(tmp_path: Path) -> None:
    wrong = ParityOptions(tolerances={"logits": Tolerance(1.0)})
    with pytest.raises(UsageError, match="'logits', which is no output"):
        export(nn.Linear(4, 2), tmp_path / "b", parity=wrong)
    assert list(tmp_path.iterdir()) == []


def test_what_stood_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    export(nn.Linear(4, 2), tmp_path / "b", parity=ParityOptions(probes=6))
    before = {p.name for p in (tmp_path / "b" / "golden").iterdir()}
    export(nn.Linear(4, 3), tmp_path / "b", parity=ParityOptions(probes=1))
    after = {p.name for p in (tmp_path / "b" / "golden").iterdir()}
    assert len(after) < len(before)
    assert tampered_files(load_bundle(tmp_path / "b")) == []
    assert torch2mobile.verify(tmp_path / "b").passed


# --- simplification within an export ------------------------------------------------------------


class TestSimplify:
    def test_it_is_adopted_with_its_origins(self, tmp_path: Path) -> None:
        class Wordy(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.cat([x[:, 2:], x[:, :2]], 1) * 2

        result = export(Wordy(), tmp_path / "b", simplify=True)
        assert result.passed, str(result)
        found = check(result, "simplify")
        assert found.status is Status.PASSED
        graph = onnx.load(tmp_path / "b" / "model.onnx").graph
        assert len(graph.node) == found.metrics["nodes_after"] < found.metrics["nodes_before"]
        assert check(result, "provenance").status is Status.PASSED
        assert load_bundle(tmp_path / "b").manifest.simplified
        assert not list((tmp_path / "b").glob("simplified*"))

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            pytest.param("time.sleep(60)", "no answer within 1 s", marks=pytest.mark.slow),
            ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
            pytest.param("raise ValueError('no idea')", "no idea", marks=pytest.mark.slow),
            ("model.graph.node[0].op_type = 'Elu'", "changed the results"),
            pytest.param(
                "model.graph.output[0].name = 'z'", "the simplified model", marks=pytest.mark.slow
            ),
        ],
    )
    def test_where_it_goes_wrong_the_model_is_kept_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
    ) -> None:
        from torch2mobile.pipeline import export as exporting
        from torch2mobile.pipeline import simplify_search

        (tmp_path / "modules").mkdir()
        (tmp_path / "modules" / "odd_simplifier.py").write_text(
            "import os, signal, time, onnx\n"
            "def run(name, source, target, external_data):\n"
            "    model = onnx.load(source)\n"
            f"    {body}\n"
            "    onnx.save(model, target)\n"
            "    return {'before': 2, 'after': 1}\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))

        class Odd(exporting.Worker):  # type: ignore[name-defined, misc]
            def submit(self, function: str, *args: Any) -> None:
                odd = function.endswith(":candidate")
                super().submit("odd_simplifier:run" if odd else function, *args)

        for module in (exporting, simplify_search):
            monkeypatch.setattr(module, "Worker", Odd)
        patience = 1.0 if "sleep" in body else 60.0
        result = export(nn.ReLU(), tmp_path / "b", simplify=True, simplify_timeout=patience)
        assert result.passed, str(result)
        found = check(result, "simplify")
        assert found.status is Status.SKIPPED
        assert "dropped" in found.summary
        assert reason in found.summary
        (node,) = onnx.load(tmp_path / "b" / "model.onnx").graph.node
        assert node.op_type == "Relu"
        assert not load_bundle(tmp_path / "b").manifest.simplified
        assert not list((tmp_path / "b").glob("simplified*"))


# --- targets ------------------------------------------------------------------------------------

TARGETS = """
import os, signal, time
from torch2mobile.environments import HERE
from torch2mobile.exporter.targets.ort import OrtRunner
from torch2mobile.records import Artifact, Variant

class Copy:
    name = "copy"
    title = "a copy of the model"
    environment = HERE

    @property
    def suffixes(self):
        return (f".{self.name}",)

    @property
    def variants(self):
        return (Variant(self.name, self.name),)

    def missing(self):
        return []

    def accepts(self, model, variant):
        return ""

    def convert(self, job):
        path = job.path(f".{self.name}")
        self.write(job.model.path.read_bytes(), path)
        return Artifact(job.variant, (path,), {})

    def write(self, data, path):
        path.write_bytes(data)

    def load(self, path, variant):
        return OrtRunner(path)

class Dies(Copy):
    name = "dies"
    def write(self, data, path):
        os.kill(os.getpid(), signal.SIGSEGV)

class Raises(Copy):
    name = "raises"
    def write(self, data, path):
        raise ValueError("unsupported layer")

class Missing(Copy):
    name = "missing"
    def missing(self):
        return ["pip install nothing"]

class Lies(Copy):
    name = "lies"
    def write(self, data, path):
        import onnx
        model = onnx.load_from_string(data)
        model.graph.node[-1].op_type = "Elu"
        path.write_bytes(model.SerializeToString())

class Crashes(Copy):
    name = "crashes"
    def load(self, path, variant):
        return CrashingRunner(path)

class CrashingRunner(OrtRunner):
    def run(self, feeds):
        if abs(feeds["input"]).max() == 0:
            os.kill(os.getpid(), signal.SIGFPE)
        return super().run(feeds)

class Hangs(Copy):
    name = "hangs"
    def load(self, path, variant):
        time.sleep(60)

ALL = {kind.name: kind() for kind in (Copy, Dies, Raises, Missing, Lies, Crashes, Hangs)}
"""


@pytest.fixture
def other_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """More targets than are there, in a module that the worker process can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "odd_targets.py").write_text(textwrap.dedent(TARGETS))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "odd_targets", raising=False)
    import odd_targets  # type: ignore[import-not-found]

    for name, target in odd_targets.ALL.items():
        monkeypatch.setitem(target_registry.TARGETS, name, target)
    assert conversion.TARGETS is target_registry.TARGETS
    return tmp_path / "b"


class TestTargets:
    PARITY = ParityOptions(probes=3)

    def test_several(self, other_targets: Path) -> None:
        names = ("copy", "ort", "copy")
        result = export(nn.ReLU(), other_targets, targets=names, parity=self.PARITY)
        assert result.passed, str(result)
        manifest = load_bundle(other_targets).manifest
        assert list(manifest.targets) == ["copy", "ort"]
        assert torch2mobile.verify(other_targets).passed

    @pytest.mark.parametrize(
        ("name", "stage", "status", "reason"),
        [
            ("dies", "convert", Status.ERROR, "SIGSEGV"),
            pytest.param(
                "raises", "convert", Status.ERROR, "unsupported layer", marks=pytest.mark.slow
            ),
            ("lies", "parity", Status.FAILED, "not the same function"),
            pytest.param(
                "crashes", "parity", Status.FAILED, "not the same function", marks=pytest.mark.slow
            ),
        ],
    )
    def test_one_that_fails_stops_no_other(
        self, other_targets: Path, name: str, stage: str, status: Status, reason: str
    ) -> None:
        result = export(nn.ReLU(), other_targets, targets=(name, "copy"), parity=self.PARITY)
        found = check(result, f"{stage} {name}")
        assert found.status is status
        assert reason in found.summary
        assert statuses(result)["parity onnx"] is Status.PASSED
        assert statuses(result)["parity copy"] is Status.PASSED
        # A bundle without one of its targets is not what was asked for.
        assert result.bundle is None
        assert not other_targets.exists()
        assert result.exit_code is (ExitCode.FAILED if status is Status.FAILED else ExitCode.STAGE)
        # The .onnx is right: debug has nothing to find in it.
        bundle = check(result, "bundle")
        assert bundle.hint == f"For a bundle of the rest leave out --target {name}."
        assert bundle.notes[0].endswith("b.failed/model.onnx; it passed")

    @pytest.mark.parametrize(
        ("failed", "hint"),
        [
            (
                [("parity", "a", ""), ("parity", "a", "d"), ("parity", "b", "d")],
                "--target a --device d",
            ),
            ([("convert", "ort", "")], ""),
            ([("parity", "ort", "d")], "--device d"),
        ],
    )
    def test_what_to_leave_out_is_named_once_and_not_the_default(
        self, failed: list[tuple[str, str, str]], hint: str
    ) -> None:
        checks = [Check(n, Status.FAILED, "", target=t, device=d) for n, t, d in failed]
        said = f"For a bundle of the rest leave out {hint}." if hint else ""
        assert artifacts.left_out(checks) == (said, "; it passed")

    def test_the_command_that_installs_what_is_missing(self, other_targets: Path) -> None:
        asked = ("missing", "copy")
        result = export(nn.ReLU(), other_targets, targets=asked, parity=self.PARITY)
        found = check(result, "convert missing")
        assert found.status is Status.SKIPPED
        assert found.summary == "missing is not installed"
        assert "pip install nothing" in found.hint
        # The bundle is one of what is installed.
        assert list(load_bundle(other_targets).manifest.targets) == ["copy"]
        assert result.exit_code is ExitCode.PASSED
        (table,) = check(result, "devices").tables
        rows = {row[0]: row for row in table.rows}
        assert rows["missing"][1:] == (
            "this machine", None, None, None, None, "skipped", "convert: missing is not installed"
        )  # fmt: skip
        size = sum(path.stat().st_size for path in other_targets.glob("model.*copy*"))
        load = rows["copy"][5]
        assert rows["copy"][1:] == ("this machine", *rows["onnx"][2:4], size, load, "passed", "")
        assert isinstance(load, float)
        assert 0 < load < 60
        # The same request gives the same bytes: a bundle has no seconds.
        assert "load s" not in (other_targets / "report.json").read_text()

    def test_a_bundle_whose_runtime_is_not_installed_is_verified_by_the_rest(
        self, other_targets: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        export(nn.ReLU(), other_targets, targets=("copy",), parity=self.PARITY)
        kind = type(target_registry.TARGETS["copy"])
        monkeypatch.setattr(kind, "missing", lambda _: ["pip install copies"])
        against: dict[str, Any] = {"against": nn.ReLU(), "args": (X,), "parity": self.PARITY}
        debugged = torch2mobile.debug(other_targets, nn.ReLU(), (X,), parity=self.PARITY)
        for result, name in (
            (torch2mobile.verify(other_targets), "golden"),
            (torch2mobile.verify(other_targets, **against), "parity"),
            (debugged, "parity"),
        ):
            assert result.exit_code is ExitCode.PASSED, str(result)
            skipped = check(result, f"{name} copy")
            assert skipped.status is Status.SKIPPED
            assert skipped.hint == "Run: pip install copies"
        strict = torch2mobile.verify(other_targets, strict=True)
        assert strict.exit_code is ExitCode.STAGE

    def test_strict_wants_every_target_that_was_asked_for(self, other_targets: Path) -> None:
        result = export(nn.ReLU(), other_targets, targets=("missing",), strict=True)
        assert result.exit_code is ExitCode.STAGE
        assert not export(nn.ReLU(), other_targets, targets=("copy",), strict=True).exit_code

    def test_all_targets(self, other_targets: Path) -> None:
        labels = [variant.label for variant in conversion.find_variants(["copy", "all"])]
        assert labels[0] == "copy"
        assert sorted(labels) == sorted(target_registry.variants())

    def test_a_crash_names_the_signal_and_the_other_probes_still_ran(
        self, other_targets: Path
    ) -> None:
        result = export(nn.ReLU(), other_targets, targets=("crashes",), parity=self.PARITY)
        found = check(result, "parity crashes")
        (mismatch,) = found.mismatches
        assert mismatch.probe == "zeros"
        assert "SIGFPE" in mismatch.problem
        assert f"on 1 of {found.metrics['probes']} probes" in found.summary

    @pytest.mark.slow
    def test_a_runtime_that_hangs_is_an_error(self, other_targets: Path) -> None:
        parity = ParityOptions(probes=1, timeout=8.0)
        result = export(nn.ReLU(), other_targets, targets=("hangs", "copy"), parity=parity)
        found = check(result, "contract hangs")
        assert found.status is Status.ERROR
        assert "no answer within 8 s" in found.summary
        assert statuses(result)["parity copy"] is Status.PASSED
        assert result.exit_code is ExitCode.STAGE


def test_a_size_that_a_constant_decides(tmp_path: Path) -> None:
    class Repeats(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat_interleave(torch.tensor([1, 2]), 0)

    result = export(Repeats(), tmp_path, example=torch.rand(2, 3))
    assert check(result, "contract onnx").status is Status.PASSED
    assert result.exit_code == 0


def test_outputs_that_pass_through_or_repeat(tmp_path: Path) -> None:
    class Same(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = x + 1
            return x, y, y, torch.ones(2)

    result = export(Same(), tmp_path / "b", simplify=True)
    assert result.passed, str(result)
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    import onnxruntime

    found = onnxruntime.InferenceSession(tmp_path / "b" / "model.onnx").run(None, {"x": x})
    for array, wanted in zip(found, (x, x + 1, x + 1, np.ones(2)), strict=True):
        assert np.array_equal(array, wanted)


def test_integer_and_boolean_outputs_are_proven_exactly(tmp_path: Path) -> None:
    class Whole(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"top": x.argmax(1), "positive": x > 0, "count": (x > 0).sum(1)}

    result = export(Whole(), tmp_path / "b")
    assert result.passed, str(result)
    assert check(result, "parity onnx").metrics["count.rule"] == "exact"


def test_the_bundle_is_proven_by_its_own_bytes(pair: Any) -> None:
    """What was judged is what was written: the manifest's hashes are of these files."""
    manifest = load_bundle(pair.path).manifest
    for name in ("model.onnx", "model.ort"):
        digest = hashlib.sha256((pair.path / name).read_bytes()).hexdigest()
        assert manifest.files[name].sha256 == digest


def test_a_helper_that_only_calls_a_library_is_among_the_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "site-packages/lib_of_it.py": "import torch\ndef f(x):\n    return torch.relu(x) - 0.25",
        "helper_of_it.py": "import lib_of_it\ndef g(x):\n    return lib_of_it.f(x)",
        "net_of_it.py": "import torch, helper_of_it\nclass Net(torch.nn.Module):\n"
        "    def forward(self, x):\n        return helper_of_it.g(x)",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    request = Request("net_of_it.py:Net", inputs=("x:float32[2,4]",), targets=(), parity=QUICK)
    result = export_request(request, out=tmp_path / "out")
    assert result.bundle is not None
    assert {"net_of_it.py", "helper_of_it.py"} <= set(result.bundle.manifest.sources.parts)


def test_time_outs_are_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2mobile.pipeline import candidates

    seen: list[float] = []
    real: Callable[..., Any] = candidates.runner_of

    def watched(path: Path, variant: Any, timeout: float, *rest: Any) -> Any:
        seen.append(timeout)
        return real(path, variant, timeout, *rest)

    monkeypatch.setattr(candidates, "runner_of", watched)
    export(nn.ReLU(), tmp_path / "b", parity=ParityOptions(probes=1, timeout=77.0))
    assert set(seen) == {77.0}
