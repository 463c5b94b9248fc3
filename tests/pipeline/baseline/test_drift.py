"""A bundle against an earlier one: what moved, what changed, and what is blamed for it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import torch2mobile
from torch2mobile.cli import run
from torch2mobile.errors import BundleError, ExitCode, UsageError
from torch2mobile.exporter import bundle as bundles
from torch2mobile.exporter import bundle_writer
from torch2mobile.pipeline.results import VerifyResult
from torch2mobile.records import Check, Fingerprint, Manifest, ParityOptions, Status, Tolerance

EXAMPLE = (torch.zeros(2, 6),)
SPEC = "x:float32[N=1..5,6]"
TARGETS = ("onnx", "ort")


def of(result: VerifyResult, target: str = "") -> Check:
    (check,) = [c for c in result.report.checks if (c.name, c.target) == ("baseline", target)]
    return check


def row(check: Check, output: str = "left", title: str = "drift by output") -> dict[str, Any]:
    (table,) = [table for table in check.tables if table.title == title]
    (cells,) = [cells for cells in table.rows if cells[0] == output]
    return dict(zip(table.columns, cells, strict=True))


def change(folder: Path, **fields: Any) -> Manifest:
    """Write a manifest with other fields, with hashes of the files as they are now."""
    manifest = bundles.load_bundle(folder).manifest
    files = {
        name: replace(
            entry,
            sha256=bundles.file_sha256(folder / name),
            size=(folder / name).stat().st_size,
        )
        for name, entry in manifest.files.items()
    }
    manifest = replace(manifest, **{"files": files, **fields})
    (folder / bundles.MANIFEST).write_bytes(bundle_writer.encode_manifest(manifest))
    return manifest


def with_versions(folder: Path, **versions: str) -> Path:
    given = bundles.load_bundle(folder).manifest.versions
    change(folder, versions={**given, **versions})
    return folder


def move_golden(folder: Path, by: float, output: str = "left") -> Path:
    """As if the module had given something else then."""
    for case in bundles.load_bundle(folder).manifest.golden:
        feeds, outputs = bundles.read_case(folder / case.file)
        moved = [(name, a + np.float32(by) if name == output else a) for name, a in outputs]
        bundles.write_case(folder / case.file, feeds, moved)
    change(folder)
    return folder


@pytest.fixture
def earlier(pair: Any, tmp_path: Path) -> Path:
    """A copy of the bundle, to be made another one."""
    return shutil.copytree(pair.path, tmp_path / "earlier")


@pytest.fixture(scope="module")
def other(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """The same module with one weight changed, and its bundle."""
    module = type(pair.module)().eval()
    module.load_state_dict(pair.module.state_dict())
    with torch.no_grad():
        module.left.weight[1, 2] *= 1.01
    path = tmp_path_factory.mktemp("other") / "bundle"
    parity = ParityOptions(probes=6)
    result = torch2mobile.export(module, inputs=[SPEC], out=path, parity=parity, simplify=False)
    assert result.passed, str(result)
    return module, path


# --- what is measured -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "manifest"])
def test_the_same_bundle_has_not_moved(pair: Any, form: str) -> None:
    baseline = pair.path if form == "folder" else pair.path / "manifest.json"
    result = torch2mobile.verify(pair.path, baseline=baseline)
    assert result.passed, str(result)
    assert "nothing has changed since" in of(result).summary
    assert of(result).tables == ()
    for target in TARGETS:
        check = of(result, target)
        figures = row(check)
        assert figures["files"] == figures["modules"] == 0
        assert figures["earlier then"] == figures["earlier now"] == figures["this now"]
        assert check.notes == ()
        assert figures["cause"] is None
        assert check.metrics["left.drift"] <= check.metrics["left.allowed"]


def test_the_manifest_records_each_artefacts_own_error(pair: Any) -> None:
    manifest = bundles.load_bundle(pair.path).manifest
    for target in TARGETS:
        (replayed,) = [
            c
            for c in torch2mobile.verify(pair.path).report.checks
            if (c.name, c.target) == ("golden", target)
        ]
        recorded = [case.errors[target] for case in manifest.golden]
        assert all(set(errors) == {"left", "right"} for errors in recorded)
        worst = max(error for errors in recorded for error in errors.values())
        assert 0 < worst < 1e-6
        assert float(replayed.metrics["error"]) == pytest.approx(worst, rel=0.5)


def test_the_same_bytes_with_other_results_are_not_the_commit(pair: Any, earlier: Path) -> None:
    with_versions(move_golden(earlier, 1e-3), onnxruntime="1.30.0")
    result = torch2mobile.verify(pair.path, baseline=earlier)
    assert result.exit_code is ExitCode.FAILED
    for target in TARGETS:
        check = of(result, target)
        assert check.status is Status.FAILED
        assert "left moved by 0.001 (" in check.summary
        assert "onnxruntime 1.30.0 -> " in check.summary
        assert check.summary.endswith("not your commit")
        assert row(check)["cause"] == "runtime"
        assert row(check)["files"] == 0
        assert row(check, "right")["cause"] is None
        assert {m.output for m in check.mismatches} == {"left"}
        assert "Pin what changed" in check.hint
    assert row(of(result), "onnxruntime", "what changed")["earlier bundle"] == "1.30.0"


def test_another_machine_is_named(pair: Any, earlier: Path) -> None:
    given = bundles.load_bundle(earlier).manifest.machine
    move_golden(earlier, 1e-3)
    change(earlier, machine={**given, "instructions": "asimd fphp"})
    check = of(torch2mobile.verify(pair.path, baseline=earlier), "onnx")
    assert "the machine (instructions asimd fphp -> " in check.summary
    assert check.summary.endswith("not your commit")


def test_nothing_recorded_changed_is_said_as_that(pair: Any, earlier: Path) -> None:
    check = of(torch2mobile.verify(pair.path, baseline=move_golden(earlier, 1e-3)), "onnx")
    assert "onnxruntime and the machine are as recorded" in check.summary


def test_a_small_change_of_the_same_bytes_is_a_note(pair: Any, earlier: Path) -> None:
    given = bundles.load_bundle(earlier).manifest.golden
    errors = {target: {"left": 1e-9, "right": 0.0} for target in TARGETS}
    change(earlier, golden=tuple(replace(case, errors=errors) for case in given))
    with_versions(earlier, onnxruntime="1.30.0")
    result = torch2mobile.verify(pair.path, baseline=earlier)
    assert result.passed
    (note,) = of(result, "ort").notes
    assert "the same bytes, gives other results" in note
    assert "off by 1e-09 then" in note
    assert "onnxruntime 1.30.0 -> " in note


def test_other_weights_are_the_commit(pair: Any, other: tuple[Any, Path]) -> None:
    result = torch2mobile.verify(other[1], baseline=pair.path)
    assert result.exit_code is ExitCode.FAILED
    assert of(result).status is Status.PASSED
    assert "weights, request" in of(result).summary
    assert row(of(result), "request: simplify", "what changed")["this bundle"] == "no"
    for target in TARGETS:
        check = of(result, target)
        assert check.summary.endswith("your commit: 1 of 6 weights (left.weight) changed")
        figures = row(check)
        assert figures["cause"] == "commit"
        assert figures["files"] == pytest.approx(figures["modules"], rel=0.01)
        assert figures["earlier now"] < 1e-6
        assert row(check, "right")["cause"] is None


def test_an_edited_file_is_the_conversion(
    edited: Callable[..., Path], edits: Mapping[str, Any], pair: Any
) -> None:
    folder = edited(edits["weight_by_one_percent"])
    result = torch2mobile.verify(folder, baseline=pair.path)
    check = of(result, "onnx")
    assert row(check)["cause"] == "conversion"
    assert row(check)["modules"] == 0
    assert "the module itself has not moved: all is as recorded" in check.summary
    assert of(result, "ort").status is Status.PASSED


@pytest.mark.parametrize("name", ["nan_in_one_value", "float64_output", "dropped_output"])
def test_what_is_no_number_fails_too(
    edited: Callable[..., Path], edits: Mapping[str, Any], pair: Any, name: str
) -> None:
    check = of(torch2mobile.verify(edited(edits[name]), baseline=pair.path), "onnx")
    lost = name == "dropped_output"
    assert check.status is (Status.PASSED if lost else Status.FAILED)
    if not lost:
        found = row(check, check.mismatches[0].output)
        assert isinstance(found["this now"], str)
        assert found["allowed"] is None


def test_a_file_that_does_not_load_has_moved(edited: Callable[..., Path], pair: Any) -> None:
    folder = edited()
    (folder / "model.onnx").write_bytes(b"garbage")
    change(folder)
    check = of(torch2mobile.verify(folder, baseline=pair.path), "onnx")
    assert check.status is Status.FAILED
    assert "gives no outputs" in check.summary


def test_runtime_and_commit_together(pair: Any, other: tuple[Any, Path], earlier: Path) -> None:
    with_versions(move_golden(earlier, 1e-3), onnxruntime="1.30.0")
    check = of(torch2mobile.verify(other[1], baseline=earlier), "onnx")
    assert row(check)["cause"] == "runtime, commit"
    assert "onnxruntime 1.30.0 -> " in check.summary
    assert "your commit: 1 of 6 weights (left.weight) changed" in check.summary


def test_a_users_tolerance_decides(pair: Any, other: tuple[Any, Path]) -> None:
    wide = ParityOptions(tolerances={"": Tolerance(atol=1e-2)})
    assert torch2mobile.verify(other[1], baseline=pair.path, parity=wide).passed


# --- torch or the commit ----------------------------------------------------------------------


def test_torch_alone(pair: Any, other: tuple[Any, Path], earlier: Path) -> None:
    made = bundles.load_bundle(other[1]).manifest
    change(earlier, weights=made.weights)
    with_versions(earlier, torch="2.12.0")
    check = of(torch2mobile.verify(other[1], baseline=earlier), "onnx")
    assert "torch 2.12.0 -> " in check.summary
    assert check.summary.endswith("the same weights and source")
    assert row(check)["cause"] == "torch"


def test_torch_and_the_commit_are_not_told_apart(other: tuple[Any, Path], earlier: Path) -> None:
    with_versions(earlier, torch="2.12.0")
    check = of(torch2mobile.verify(other[1], baseline=earlier), "onnx")
    assert "1 of 6 weights (left.weight) changed, or torch 2.12.0 -> " in check.summary
    assert "export the earlier commit with this torch" in check.hint


def test_the_module_today_tells_more(pair: Any, other: tuple[Any, Path], earlier: Path) -> None:
    # A bundle with other probes: without the module, its outputs on these inputs are not known.
    change(other_copy := shutil.copytree(other[1], earlier.parent / "new"), golden=())
    unknown = of(torch2mobile.verify(other_copy, baseline=earlier), "onnx")
    assert row(unknown)["modules"] is None
    assert row(unknown)["cause"] == "file"
    result = torch2mobile.verify(other_copy, against=other[0], args=EXAMPLE, baseline=earlier)
    check = of(result, "onnx")
    assert row(check)["modules"] == pytest.approx(row(check)["files"], rel=0.01)
    assert check.summary.endswith("your commit: 1 of 6 weights (left.weight) changed")
    assert any(c.name == "parity" for c in result.report.checks)


def test_a_module_that_is_as_it_was(pair: Any) -> None:
    result = torch2mobile.verify(pair.path, against=pair.module, args=EXAMPLE, baseline=pair.path)
    assert result.passed
    assert "nothing has changed since" in of(result).summary
    assert row(of(result, "ort"))["modules"] == 0


# --- older manifests, other interfaces --------------------------------------------------------


def test_a_manifest_from_before_these_fields(pair: Any, earlier: Path) -> None:
    path = earlier / bundles.MANIFEST
    content = json.loads(path.read_text())
    for name in ("weights", "sources", "machine"):
        del content[name]
    for case in content["golden"]:
        del case["errors"]
    path.write_text(json.dumps(content))
    result = torch2mobile.verify(pair.path, baseline=earlier)
    assert result.passed
    assert of(result).notes == ("not recorded in the earlier bundle: machine, weights, source",)
    assert row(of(result, "onnx"))["earlier then"] is None
    assert row(of(result), "weights", "what changed")["earlier bundle"] == "unknown"
    check = of(torch2mobile.verify(pair.path, baseline=move_golden(earlier, 1e-3)), "onnx")
    assert "machine (not recorded then), not your commit" in check.summary


def test_an_old_manifest_blames_no_commit(other: tuple[Any, Path], earlier: Path) -> None:
    change(earlier, weights=Fingerprint(), sources=Fingerprint())
    check = of(torch2mobile.verify(other[1], baseline=earlier), "onnx")
    assert "the module gives other results: weights, source (not recorded then)" in check.summary
    assert "your commit" not in check.summary


def test_other_inputs_are_an_interface_change(pair: Any, earlier: Path) -> None:
    manifest = bundles.load_bundle(earlier).manifest
    renamed = tuple(replace(spec, name="image") for spec in manifest.inputs)
    for case in manifest.golden:
        feeds, outputs = bundles.read_case(earlier / case.file)
        bundles.write_case(earlier / case.file, {"image": feeds["x"]}, outputs)
    change(earlier, inputs=renamed)
    result = torch2mobile.verify(pair.path, baseline=earlier)
    assert result.exit_code is ExitCode.FAILED
    check = of(result)
    assert "input image, input x" in check.summary
    assert row(check, "input x", "interface") == {
        "what": "input x",
        "then": None,
        "now": "float32 ['N=1..5', 6]",
    }
    assert of(result, "onnx").status is Status.SKIPPED


def test_a_narrower_range_of_sizes_is_an_interface_change(pair: Any, earlier: Path) -> None:
    (spec,) = bundles.load_bundle(earlier).manifest.inputs
    wider = replace(spec, dims=(replace(spec.dims[0], greatest=8), *spec.dims[1:]))
    change(earlier, inputs=(wider,))
    check = of(torch2mobile.verify(pair.path, baseline=earlier))
    assert check.status is Status.FAILED
    assert row(check, "input x", "interface")["then"] == "float32 ['N=1..8', 6]"


@pytest.mark.parametrize("part", ["dims", "dtype", "order"])
def test_other_outputs_are_an_interface_change(pair: Any, earlier: Path, part: str) -> None:
    outputs = list(bundles.load_bundle(earlier).manifest.outputs)
    if part == "order":
        outputs.reverse()
    else:
        value: Any = {"dims": (2, 3), "dtype": "float16"}[part]
        outputs[0] = replace(outputs[0], **{part: value})
    change(earlier, outputs=tuple(outputs))
    result = torch2mobile.verify(pair.path, baseline=earlier)
    assert of(result).status is Status.FAILED
    assert ("their order" if part == "order" else "output left") in of(result).summary
    # What is still there is compared nevertheless.
    assert of(result, "onnx").status is Status.PASSED


def test_a_target_that_was_not_there(pair: Any, earlier: Path) -> None:
    change(earlier, targets={})
    result = torch2mobile.verify(pair.path, baseline=earlier)
    assert result.passed
    assert of(result, "ort").notes == ("the earlier bundle has no file for ort",)
    assert row(of(result, "ort"))["earlier now"] is None


def test_an_earlier_file_that_does_not_load_here(
    pair: Any, other: tuple[Any, Path], earlier: Path
) -> None:
    (earlier / "model.ort").write_bytes(b"garbage")
    change(earlier)
    assert torch2mobile.verify(pair.path, baseline=earlier).passed
    check = of(torch2mobile.verify(other[1], baseline=earlier), "ort")
    assert row(check)["cause"] == "unknown"
    assert "not told apart" in check.summary
    assert any("does not load here" in note for note in check.notes)


# --- what is refused --------------------------------------------------------------------------


def garbage(folder: Path) -> Path:
    (folder / bundles.MANIFEST).write_text("{}")
    return folder


def newer(folder: Path) -> Path:
    change(folder, schema_version=2)
    return folder


def without_golden(folder: Path) -> Path:
    change(folder, golden=())
    return folder


def lost_golden(folder: Path) -> Path:
    shutil.rmtree(folder / "golden")
    return folder / bundles.MANIFEST


def lost_model(folder: Path) -> Path:
    (folder / "model.onnx").unlink()
    return folder


def edited_golden(folder: Path) -> Path:
    path = next((folder / "golden").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "nowhere", "there is no bundle"),
    "missing manifest": (
        lambda folder: folder / "golden" / "manifest.json",
        "and no manifest.json",
    ),
    "another file": (lambda folder: folder / "model.onnx", "is no manifest.json"),
    "no manifest": (garbage, "its schema"),
    "newer": (newer, "version 2"),
    "no golden data": (without_golden, "holds no golden data"),
    "lost golden data": (lost_golden, "is missing"),
    "lost model": (lost_model, "model.onnx is missing"),
    "edited golden data": (edited_golden, "bytes, the manifest says"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_baseline(pair: Any, earlier: Path, name: str) -> None:
    make, text = BAD[name]
    with pytest.raises(BundleError, match=text) as caught:
        torch2mobile.verify(pair.path, baseline=make(earlier))
    assert "baseline" in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE


def test_files_that_are_not_run_may_be_missing(pair: Any, earlier: Path) -> None:
    for name in ("report.json", "provenance.json"):
        (earlier / name).unlink()
    assert torch2mobile.verify(pair.path, baseline=earlier).passed


def test_a_file_has_no_baseline(pair: Any) -> None:
    with pytest.raises(UsageError, match="is no bundle"):
        torch2mobile.verify(
            pair.path / "model.onnx", against=pair.module, inputs=[SPEC], baseline=pair.path
        )


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., tuple[int, str]]]:
    def call(*words: Any) -> tuple[int, str]:
        code = run([*map(str, words), "--quiet"])
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return call  # type: ignore[return-value]


def test_the_command(pair: Any, other: tuple[Any, Path], earlier: Path, printed: Any) -> None:
    code, text = printed("verify", pair.path, "--baseline", pair.path / "manifest.json")
    assert (code, "nothing has changed since" in text) == (0, True)
    code, text = printed("verify", other[1], "--baseline", pair.path)
    assert code == 1
    assert "drift by output" in text
    assert "what changed" in text
    code, text = printed("verify", pair.path, "--baseline", garbage(earlier))
    assert code == 2
    assert "the baseline cannot be used" in text
    code, text = printed("verify", pair.path / "model.ort", "--baseline", pair.path)
    assert code == 2
    assert "only bundles can be compared" in text


def test_without_torch_and_onnx(pair: Any) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
        "import torch2mobile\n"
        f"path = {str(pair.path)!r}\n"
        "assert torch2mobile.verify(path, baseline=path).passed"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
