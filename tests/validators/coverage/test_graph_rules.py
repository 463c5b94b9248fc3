"""The rules of the graph's levels: each found where it should be, gone where it is mended."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models as models
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import torch2mobile
from torch2mobile.errors import UsageError
from torch2mobile.pipeline.check import check_file, check_loaded, check_request
from torch2mobile.pipeline.check_options import CheckOptions
from torch2mobile.pipeline.results import CheckResult
from torch2mobile.records import Finding, ParityOptions, Request, Severity, Status
from torch2mobile.validators.coverage import accelerators, level_runtime, releases, runtime
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.rules.rule import HERE, Rule
from torch2mobile.validators.coverage.selection import Selection

LEVELS = {"aten": "T2M2", "runtime": "T2M3", "accelerator": "T2M4"}
GRAPH = [rule for rule in RULES.values() if rule.level in LEVELS]
SHOWN = [rule for rule in GRAPH if rule.before]
F, D, INT = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def asked(target: str) -> dict[str, Any]:
    """What shows a rule: a provider, a target, or neither."""
    kind = "providers" if target in accelerators.ACCELERATORS else "targets"
    return {kind: (target,)} if target else {}


def _check(path: Path, rule: Rule) -> CheckResult:
    request = Request(source=f"{path}:Net", inputs=rule.inputs, values=rule.values)
    chosen = Selection(select=(LEVELS[rule.level],))
    return check_request(request, CheckOptions(**asked(rule.target), selection=chosen))


def _write(folder: Path, rule: Rule, text: str) -> Path:
    path = folder / f"graph_example_{rule.code}_{'before' if text == rule.before else 'after'}.py"
    path.write_text(text.lstrip(), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("rule", SHOWN, ids=lambda rule: rule.code)
def test_before_is_found_at_its_line_and_after_is_clean(rule: Rule, tmp_path: Path) -> None:
    path = _write(tmp_path, rule, rule.before)
    text = path.read_text("utf-8").splitlines()
    (wanted,) = [number for number, line in enumerate(text, 1) if line.endswith(HERE)]
    found = _check(path, rule).findings
    own = [finding for finding in found if finding.code == rule.code]
    assert {finding.code for finding in found} <= {rule.code, *rule.also}
    assert own
    for finding in own:
        assert (finding.location.line, finding.severity) == (wanted, rule.severity)
        assert finding.message
        assert finding.remedy
        assert finding.location.op
    after = _check(_write(tmp_path, rule, rule.after), rule)
    assert not [finding for finding in after.findings if finding.code == rule.code]
    assert after.passed, str(after)


class _All(nn.Module):
    """The mended module of every rule, side by side: one export proves them all."""

    def __init__(self, nets: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(nets)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {code: net(inputs[code]) for code, net in self.nets.items()}


@pytest.mark.slow
def test_after_exports_and_passes_parity(tmp_path: Path) -> None:
    nets, specs = {}, []
    for rule in SHOWN:
        path = _write(tmp_path, rule, rule.after)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        nets[rule.code] = module.Net()
        (wanted,) = rule.inputs
        specs.append(wanted.replace("x:", f"{rule.code}:"))
    result = torch2mobile.export(
        _All(nets).eval(),
        inputs=specs,
        out=tmp_path / "bundle",
        targets=(),
        simplify=False,
        parity=ParityOptions(probes=4),
    )
    assert result.passed, str(result)


# --- rules that no module shows ---------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A model with the finding, the same mended, and what check was asked."""

    before: onnx.ModelProto
    after: onnx.ModelProto
    options: CheckOptions = field(default_factory=CheckOptions)


def _lstm(layout: int) -> onnx.ModelProto:
    weights = {"w": np.zeros((1, 8, 3), np.float32), "r": np.zeros((1, 8, 2), np.float32)}
    return models.one("LSTM", [4, 1, 3], constants=weights, hidden_size=2, layout=layout)


def _of_dtype_999() -> onnx.ModelProto:
    model = models.one("Relu", [2])
    model.graph.input[0].type.tensor_type.elem_type = 999
    return model


def _unknown_type(known: bool) -> onnx.ModelProto:
    first = ("Relu", "") if known else ("Warp", "imaging")
    model = models.model(
        [
            helper.make_node(first[0], ["x"], ["h"], domain=first[1]),
            helper.make_node("Sin", ["h"], ["y"]),
        ],
        [("x", F, [2])],
        [],
        domains={"imaging": 1},
    )
    model.graph.output.add(name="y")
    return model


def _cast_before_sin(cast: bool) -> onnx.ModelProto:
    nodes = [helper.make_node("Sin", ["h" if cast else "x"], ["y"])]
    if cast:
        nodes.insert(0, helper.make_node("Cast", ["x"], ["h"], to=F))
    return models.model(nodes, [("x", INT, [2])], [("y", F if cast else INT, [2])])


OLD = CheckOptions(ort_version="1.15")
CASES: dict[str, Case] = {
    "T2M301": Case(
        models.one("Inverse", [1, 2, 2], domain="imaging"),
        models.one("Det", [1, 2, 2]),
    ),
    "T2M302": Case(
        models.one("ImageDecoder", [9], kind=TensorProto.UINT8),
        models.one("Identity", [9], kind=TensorProto.UINT8),
    ),
    "T2M304": Case(_cast_before_sin(False), _cast_before_sin(True)),
    "T2M305": Case(_lstm(1), _lstm(0)),
    "T2M306": Case(_unknown_type(False), _unknown_type(True)),
    "T2M307": Case(
        models.one("QuickGelu", [2], domain="com.microsoft", alpha=1.0),
        models.one("Relu", [2]),
    ),
    "T2M309": Case(models.one("Concat", [2]), models.one("Concat", [2], axis=0)),
    "T2M311": Case(models.one("Relu", [2], opset=20), models.one("Relu", [2], opset=19), OLD),
    "T2M312": Case(models.one("Gelu", [2], opset=20), models.one("Erf", [2], opset=19), OLD),
    "T2M313": Case(models.one("Relu", [2], opset=19), models.one("Relu", [2], opset=19), OLD),
    "T2M310": Case(_of_dtype_999(), models.one("Relu", [2])),
    "T2M314": Case(
        models.one("Relu", [2], opset=13),
        models.one("Relu", [2], opset=13),
        CheckOptions(ort_version="1.15"),
    ),
    "T2M403": Case(
        models.one("Relu", ["N", 2]), models.one("Relu", [1, 2]), CheckOptions(providers=("nnapi",))
    ),
    "T2M404": Case(
        models.one("Relu", [2]), models.one("Sin", [2]), CheckOptions(providers=("nnapi",))
    ),
}


def _of_file(model: onnx.ModelProto, options: CheckOptions, folder: Path) -> CheckResult:
    path = folder / "model.onnx"
    onnx.save(model, path)
    return check_file(path, options)


def _codes(result: CheckResult) -> list[str]:
    return [finding.code for finding in result.findings]


def test_every_rule_has_a_module_or_a_model() -> None:
    assert {rule.code for rule in SHOWN} | set(CASES) == {rule.code for rule in GRAPH}


@pytest.mark.parametrize("code", CASES)
def test_a_model_with_it_and_one_without(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[code]
    before, after, options = case.before, case.after, case.options
    if code == "T2M313":
        after = onnx.ModelProto.FromString(after.SerializeToString())
        after.ir_version = 8
    if code == "T2M404":
        listed = accelerators.read_table("|ai.onnx:Relu|Only on Sundays.|\n|ai.onnx:Sin||\n")
        monkeypatch.setattr(accelerators, "table", lambda _: listed)
    found = [f for f in _of_file(before, options, tmp_path).findings if f.code == code]
    assert found
    assert {finding.severity for finding in found} == {RULES[code].severity}
    mended = replace(options, ort_version="1.17") if code == "T2M314" else options
    assert code not in _codes(_of_file(after, mended, tmp_path))


@pytest.mark.parametrize("code", ["T2M301", "T2M302", "T2M304", "T2M305", "T2M309"])
def test_the_mended_model_loads_where_the_other_does_not(code: str) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4

    def loads(model: onnx.ModelProto) -> bool:
        try:
            onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # noqa: BLE001 (onnxruntime raises many kinds)
            return False
        return True

    assert not loads(CASES[code].before)
    assert loads(CASES[code].after)


# --- sections ---------------------------------------------------------------------------------


def test_an_error_fails_the_check_and_a_warning_does_not(tmp_path: Path) -> None:
    bad = _of_file(CASES["T2M301"].before, CheckOptions(), tmp_path)
    assert (bad.exit_code, bad.report.status) == (1, Status.FAILED)
    warned = _of_file(CASES["T2M403"].before, CASES["T2M403"].options, tmp_path)
    assert warned.exit_code == 0
    strict = replace(CASES["T2M403"].options, fail_on=Severity.WARNING)
    assert _of_file(CASES["T2M403"].before, strict, tmp_path).exit_code == 1


def test_fixed_sizes_are_shown_beside_the_model_as_it_is(tmp_path: Path) -> None:
    options = CheckOptions(providers=("nnapi",), fixed={"N": 1})
    result = _of_file(CASES["T2M403"].before, options, tmp_path)
    checks = {check.name: check for check in result.report.checks}
    assert checks["accelerator"].metrics["taken"] == 0
    assert checks["accelerator N=1"].metrics["taken"] == 1
    assert checks["accelerator N=1"].metrics["share of FLOPs"] == 1.0
    assert _codes(result) == []


def test_a_size_that_no_input_has_is_an_error_of_usage(tmp_path: Path) -> None:
    options = CheckOptions(providers=("nnapi",), fixed={"M": 1})
    with pytest.raises(UsageError, match="--fix-dim M"):
        _of_file(CASES["T2M403"].before, options, tmp_path)


def test_the_runtime_limits_are_warnings_where_they_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.one("Relu", [2], opset=24)
    found = _of_file(model, CheckOptions(ort_version="1.23"), tmp_path).findings
    assert {(f.code, f.severity) for f in found} >= {("T2M311", Severity.WARNING)}
    assert _of_file(model, CheckOptions(ort_version="1.21"), tmp_path).exit_code == 1


@pytest.mark.parametrize("version", ["1.5", "9.9", "0.5.0"])
def test_a_version_that_is_not_known_is_an_error_of_usage(version: str) -> None:
    with pytest.raises(UsageError, match="not known"):
        releases.find(version)


def test_the_installed_version_has_its_own_kernels() -> None:
    import onnxruntime

    assert releases.find(onnxruntime.__version__) is None


def test_the_releases_ascend_and_agree_with_onnx() -> None:
    """Each opset came with the IR version that onnx's own table has for it, or an earlier one."""
    rows = [(releases.numbers(r.version), r.opset, r.ir, r.ort_format) for r in releases.RELEASES]
    assert rows == sorted(rows)
    for column in (1, 2, 3):
        assert [row[column] for row in rows] == sorted(row[column] for row in rows)
    newest = {row[2]: row[1] for row in helper.VERSION_TABLE}
    for release in releases.RELEASES:
        assert release.ir >= newest[release.opset] - 1


def test_the_ort_format_is_what_the_installed_converter_writes(tmp_path: Path) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    onnxruntime.InferenceSession(models.one("Relu", [2]).SerializeToString(), options)
    text = (tmp_path / "model.ort").read_bytes()
    assert b"ORTM" in text[:16]
    from onnxruntime.tools.ort_format_model.ort_flatbuffers_py import fbs

    session = fbs.InferenceSession.InferenceSession.GetRootAs(text, 0)
    assert int(session.OrtVersion()) == releases.WRITTEN_ORT_FORMAT


class _Lost(nn.Module):
    """It is captured, and has no translation."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


def test_a_module_without_translation_says_so_for_every_target(load: Callable[..., Any]) -> None:
    options = CheckOptions(targets=("ort",), providers=("nnapi",), mend=False)
    result = check_loaded(lambda: load(_Lost(), "x:float32[2,5]"), options)
    skipped = [check for check in result.report.checks if check.status is Status.SKIPPED]
    assert {check.name for check in skipped} == {"onnxruntime", "accelerator"}
    assert all("cannot be translated" in check.summary for check in skipped)
    assert _codes(result) == ["T2M201"]


class _Bins(nn.Module):
    """Its operator has a translation, which refuses these arguments."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.histc(x, 4)


@pytest.mark.parametrize("targets", [(), ("ort",)])
@pytest.mark.parametrize("traced", [False, True])
def test_a_translation_that_refuses_its_arguments_is_an_error(
    traced: bool,
    targets: tuple[str, ...],
    load: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch2mobile.errors import TranslateError
    from torch2mobile.exporter import capture, translate

    if traced:
        whole = capture.captures

        def without_program(*given: Any) -> Any:
            return (replace(found, program=None) for found in whole(*given))

        def refuse(*_: Any, **__: Any) -> None:
            raise TranslateError("no translation", "Do something.")

        monkeypatch.setattr(capture, "captures", without_program)
        monkeypatch.setattr(translate, "in_memory", refuse)
    options = CheckOptions(targets=targets)
    result = check_loaded(lambda: load(_Bins(), "x:float32[2,4]"), options)
    (found,) = result.findings
    assert (found.code, found.severity, result.exit_code) == ("T2M201", Severity.ERROR, 1)
    assert traced or found.location.code == "return torch.histc(x, 4)"


def test_a_finding_of_a_bundle_names_the_line(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 3), nn.Hardswish())
    folder = tmp_path / "bundle"
    done = torch2mobile.export(
        net,
        inputs=["x:float32[1,1,8]"],
        out=folder,
        targets=(),
        simplify=False,
        parity=ParityOptions(probes=1),
    )
    assert done.passed, str(done)
    result = check_file(folder, CheckOptions(providers=("coreml",)))
    (found,) = [f for f in result.findings if f.code == "T2M401"]
    assert (found.location.module, found.location.op) == ("1", "HardSwish")


def test_contrib_operators_are_marked_and_no_error(tmp_path: Path) -> None:
    result = _of_file(CASES["T2M307"].before, CheckOptions(), tmp_path)
    assert [(f.code, f.severity) for f in result.findings] == [("T2M307", Severity.INFO)]
    assert result.passed


def test_every_outcome_but_a_kernel_has_a_rule_or_is_told_in_the_table() -> None:
    told = {runtime.Outcome.KERNEL, runtime.Outcome.FUNCTION}
    assert set(level_runtime._CODES) | told == set(runtime.Outcome)


def test_findings_are_values(tmp_path: Path) -> None:
    assert all(
        isinstance(f, Finding) for f in _of_file(_lstm(1), CheckOptions(), tmp_path).findings
    )


def test_a_file_is_checked_without_torch(tmp_path: Path) -> None:
    onnx.save(models.one("HardSwish", ["N", 2], opset=22), tmp_path / "model.onnx")
    words = ["check", "model.onnx", "-q", "--ort-version", "1.17", "--fix-dim", "N=1"]
    words += [word for name in accelerators.ACCELERATORS for word in ("--provider", name)]
    program = f"""
import subprocess
import sys
from torch2mobile.cli import run
code = run({words!r})
assert "torch" not in sys.modules
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "T2M311" in done.stdout
    assert "T2M401" in done.stdout
