"""check as a whole: what fails to export is named at the same line, and nothing is written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import torch2mobile
from torch2mobile.errors import UsageError
from torch2mobile.exporter.translate import OpsetError
from torch2mobile.pipeline.check import check_request
from torch2mobile.pipeline.check_options import CheckOptions
from torch2mobile.pipeline.config import Export, read_export, read_selection
from torch2mobile.records import (
    Check,
    Finding,
    ParityOptions,
    Request,
    Severity,
    Status,
)
from torch2mobile.reporters import REPORTERS, codec
from torch2mobile.sample_models import SAMPLES
from torch2mobile.validators.coverage.selection import Selection, Suppression

ORDINARY = [name for name, sample in SAMPLES.items() if sample.ordinary]
AWKWARD = [name for name, sample in SAMPLES.items() if sample.expect_line]


@pytest.mark.slow
@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_samples_have_no_errors(name: str) -> None:
    result = torch2mobile.check(f"sample:{name}")
    assert result.passed
    assert [f for f in result.findings if f.severity is Severity.ERROR] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_samples_are_found_at_their_line(name: str) -> None:
    findings = torch2mobile.check(f"sample:{name}").findings
    assert any(SAMPLES[name].expect_line in finding.location.code for finding in findings)


# --- modules that cannot be captured ----------------------------------------------------------

FAILING = {
    "branch": ("if x.sum() > 0:\n            x = x * 2\n        return x", "T2M101"),
    "ternary": ("return x if x.mean() > 0 else -x", "T2M101"),
    "loop": ("while x.abs().max() > 1:\n            x = x / 2\n        return x", "T2M102"),
    "range": (
        "for _ in range(int(x.sum())):\n            x = x * 2\n        return x",
        "T2M102",
    ),
    "float": ("return x * float(x.max()) if float(x.max()) > 1 else x", "T2M101"),
    "numpy": ("return torch.from_numpy(np.interp(x.detach().numpy(), KNOTS, KNOTS))", "T2M105"),
    "tolist": ("return x * sum(x[0].tolist()) if x[0].tolist()[0] > 0 else x", "T2M101"),
    "sized": ("if len(x.nonzero()) > 3:\n            x = -x\n        return x", "T2M107"),
    "in": ("return x if 3 in x else -x", "T2M101"),
    "fixed": ("return x.reshape(2, 6) * 2", "T2M152"),
    "nested": ("return self.block(x)", "T2M101"),
    "helper": ("return helper(x)", "T2M101"),
}
TEXT = """\
import numpy as np
import torch
from torch import nn

KNOTS = (0.0, 0.5, 1.0)


def helper(x):
    if not x.sum() > 0:
        raise ValueError("not positive")
    return x


class Block(nn.Module):
    def forward(self, x):
        if x.max() > 3:
            return x * 2
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        {body}
"""


def refused(path: Path, body: str, given: str, *, mend: bool = True) -> tuple[Check, list[Finding]]:
    """The check at which the export of a module ends, and the errors that check finds in it."""
    from torch2mobile.pipeline.export import export_request

    path.write_text(TEXT.format(body=body), encoding="utf-8")
    request = Request(source=f"{path}:Net", inputs=(given,), simplify=False, mend=mend)
    exported = export_request(request, out=path.parent / "bundle").report.checks[-1]
    result = check_request(request, CheckOptions(mend=mend))
    assert result.exit_code == 1
    return exported, [f for f in result.findings if f.severity is Severity.ERROR]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAILING)
def test_the_line_that_export_blames_is_the_one_that_check_names(name: str, tmp_path: Path) -> None:
    body, code = FAILING[name]
    exported, errors = refused(tmp_path / f"failing_{name}.py", body, "x:float32[N=1..4,6]")
    assert (exported.name, exported.status) == ("capture", Status.ERROR)
    assert [f.location.line for f in errors] == [exported.locations[0].line]
    assert errors[0].location.code == exported.locations[0].code
    assert errors[0].code == code


LOST = {
    "airy": "return torch.special.airy_ai(x)",
    "inverse": "return torch.linalg.inv(x[:, :2] + torch.eye(2))",
    "bins": "return torch.histc(x, 4)",
    "weighted": "return torch.bincount(torch.tensor([1, 2]), x[0, :2])",
    "runs": "return x.unique_consecutive(dim=0)",
    "pools": (
        "p, x = torch.nn.functional.adaptive_max_pool2d, x.reshape(1, 1, 6, 2)\n"
        "        return p(x[:, :, :4], 2) + p(x[:, :, :5], 2)"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOST)
def test_the_line_that_translation_blames_is_the_one_that_check_names(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / f"lost_{name}.py"
    exported, errors = refused(path, LOST[name], "x:float32[2,6]", mend=False)
    assert (exported.name, exported.status) == ("translate", Status.ERROR)
    assert {f.code for f in errors} == {"T2M201"}
    assert {f.location.op for f in errors} >= {place.op for place in exported.locations}
    lines = {f.location.line for f in errors}
    assert {place.line for place in exported.locations} == lines


class Seven(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] == 7 else x * 2


def test_a_size_at_which_the_graph_is_another_function_is_an_error_at_its_line() -> None:
    # torch.export took it, with the guard N != 7 put off; an export's probes would fail there.
    result = torch2mobile.check(Seven(), inputs=["x:float32[N=2..99,3]"])
    (finding,) = result.findings
    assert (finding.code, result.exit_code) == ("T2M152", 1)
    assert "at N=7" in finding.message
    assert "== 7" in finding.location.code


def test_a_failure_that_no_rule_explains_is_still_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch2mobile.errors import CaptureError
    from torch2mobile.exporter import capture

    def refuse(*_: Any) -> None:
        raise CaptureError("no", "Do something.", (), ("non-strict: KeyError: something new",))

    monkeypatch.setattr(capture, "captures", refuse)
    result = torch2mobile.check(nn.Linear(6, 3), torch.ones(1, 6))
    (finding,) = result.findings
    assert (finding.code, finding.severity) == ("T2M100", Severity.ERROR)
    assert "KeyError: something new" in finding.message
    assert finding.remedy == "Do something."
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "names", [("t2m101", "t2m142"), ("data-dependent-branch", "PYTHON-SIDE-EFFECT")]
)
def test_a_rule_may_be_named_in_small_letters_or_by_its_name(names: tuple[str, ...]) -> None:
    suppress = [Suppression(name, "known", "test_check.py") for name in names]
    result = torch2mobile.check(Branches(), torch.ones(2, 3), suppress=suppress)
    assert {f.code: f.suppressed for f in result.findings} == {"T2M101": "known", "T2M142": "known"}
    assert Selection(select=("t2m1",), ignore=("t2m14",)) == Selection(("T2M1",), ("T2M14",))


# --- what counts ------------------------------------------------------------------------------


class Prints(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("forward")  # noqa: T201 (this is what is found)
        return x * 2


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("forward")  # noqa: T201 (this is what is found)
        if x.sum() > 0:
            return x * 2
        return x


def test_fail_on() -> None:
    x = torch.ones(2, 3)
    assert torch2mobile.check(Prints(), x).exit_code == 0
    assert torch2mobile.check(Prints(), x, fail_on="warning").exit_code == 1
    assert torch2mobile.check(Prints(), x, fail_on=Severity.WARNING).exit_code == 1
    assert torch2mobile.check(Branches(), x).exit_code == 1


@pytest.mark.parametrize(
    "options",
    [{"ignore": ["T2M101"]}, {"select": ["T2M4"]}, {"select": ["T2M4"], "providers": ["nnapi"]}],
)
def test_what_could_not_be_captured_has_not_passed_without_its_error(options: Any) -> None:
    result = torch2mobile.check(Branches(), torch.ones(2, 3), **options)
    source = result.report.checks[0]
    assert (source.name, source.status) == ("source", Status.SKIPPED)
    assert source.summary.startswith("not captured, and the error is left out: ")
    assert result.exit_code == 3


def test_what_is_not_translated_has_not_passed_without_its_error() -> None:
    class Lost(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.airy_ai(x)

    result = torch2mobile.check(Lost(), torch.ones(2, 3), ignore=["T2M2"], mend=False)
    aten = next(check for check in result.report.checks if check.name == "aten")
    assert aten.status is Status.SKIPPED
    assert "without translation" in aten.summary


def test_selection() -> None:
    def found(**options: list[str]) -> list[str]:
        result = torch2mobile.check(Branches(), torch.ones(2, 3), **options)
        assert [rule.code for rule in result.report.rules] == sorted(
            {f.code for f in result.findings}
        )
        return sorted(f.code for f in result.findings)

    assert found() == ["T2M101", "T2M142"]
    assert found(select=["T2M142"]) == ["T2M142"]
    assert found(select=["T2M1"]) == ["T2M101", "T2M142"]
    assert found(ignore=["T2M14"]) == ["T2M101"]
    assert found(select=["T2M142"], ignore=["T2M1"]) == ["T2M142"]
    assert found(select=["T2M1"], ignore=["T2M142"]) == ["T2M101"]
    assert found(select=["T2M142"], ignore=["T2M142"]) == []


def test_a_suppressed_finding_is_kept_and_does_not_count() -> None:
    suppress = [
        Suppression("T2M101", "bright images only", "test_check.py"),
        Suppression("T2M142", "elsewhere", "other/*.py"),
    ]
    result = torch2mobile.check(Branches(), torch.ones(2, 3), suppress=suppress)
    assert result.exit_code == 0
    suppressed = {f.code: f.suppressed for f in result.findings}
    assert suppressed == {"T2M101": "bright images only", "T2M142": ""}
    assert "1 suppressed" in str(result)
    assert "T2M101" not in str(result)
    assert "T2M101" in REPORTERS["json"](result.report)
    left = result.report.checks[-1]
    assert (left.name, left.status) == ("suppressions", Status.SKIPPED)
    assert left.notes == ("T2M142 in other/*.py (elsewhere)",)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Selection(select=("T2M9",)), "no rule's code is or begins with 'T2M9'"),
        (lambda: Selection(ignore=("",)), "no rule's code is or begins with ''"),
        (lambda: Selection(suppress=(Suppression("T2M1", "why"),)), "there is no rule 'T2M1'"),
        (lambda: Selection(suppress=(Suppression("T2M101", " "),)), "gives no reason"),
        (lambda: CheckOptions(targets=("android",)), "no target 'android'"),
        (lambda: CheckOptions(ort_version="latest"), "latest: no version"),
        (lambda: CheckOptions(ort_version="1"), "1: no version"),
        (lambda: CheckOptions(ort_version=1.17), "no version"),  # type: ignore[arg-type]
        (lambda: CheckOptions(fixed={"N": 1}), "none is asked for"),
        (lambda: CheckOptions(providers=("nnapi",), fixed={"N": 0}), "N=0: this is not"),
        (lambda: CheckOptions(providers=("nnapi",), fixed={"N": 1.5}), "N=1.5: this is not"),  # type: ignore[dict-item]
        (lambda: Selection(suppress=(1,)), "an? int was given"),  # type: ignore[arg-type]
        (lambda: torch2mobile.check("x", fail_on="nope"), "'nope'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_unknown_is_refused(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]


class Remembers(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.size = x.shape[0]
        self.kept = x.shape[1]
        return x * self.size


def test_an_attribute_that_nothing_reads_is_worth_a_note() -> None:
    findings = torch2mobile.check(Remembers(), torch.ones(2, 3)).findings
    assert [(f.code, f.severity.value) for f in findings] == [
        ("T2M124", "warning"),
        ("T2M124", "info"),
    ]


class Smooths(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.level = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        print("forward")  # noqa: T201 (which keeps nothing)
        self.level = 0.5 * self.level + x.mean()
        return x - self.level


class Gathers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        return x - self.seen[0]


class Begins(nn.Module):
    """State that the first call makes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x if self.hidden is None else self.hidden
        self.hidden = hidden * 0.9 + x
        return self.hidden


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * 2


class HandsOver(nn.Module):
    """What differs from call to call is not the attribute's fault."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.handed = x * 2
        return self.handed + time.perf_counter_ns() % 1000


class OneOfTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls, self.last = 0, torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.last = x.mean() + 0.5 * self.last
        return x - self.last


@pytest.mark.parametrize(
    ("module", "errors", "warnings"),
    [
        (HandsOver(), [], ["T2M124", "T2M143"]),
        (
            OneOfTwo(),
            [("T2M124", "self.last = x.mean() + 0.5 * self.last")],
            ["T2M124"],
        ),
        (Smooths(), [("T2M124", "self.level = 0.5 * self.level + x.mean()")], ["T2M142"]),
        (Gathers(), [("T2M142", "self.seen.append(x)")], []),
        (Begins(), [("T2M124", "self.hidden = hidden * 0.9 + x")], []),
        (Counts(), [], ["T2M124"]),
    ],
)
def test_state_is_an_error_where_a_later_call_follows_it(
    module: nn.Module, errors: list[tuple[str, str]], warnings: list[str]
) -> None:
    """As at export, where the check of the state fails; a counter hurts nobody."""
    result = torch2mobile.check(module, torch.ones(2, 3))
    found = [f for f in result.findings if f.severity is Severity.ERROR]
    assert [(f.code, f.location.code) for f in found] == errors
    assert [f.code for f in result.findings if f.severity is Severity.WARNING] == warnings
    assert all("an input and an output of forward" in f.remedy for f in found)
    assert result.exit_code == (1 if errors else 0)


class FirstWins(nn.Module):
    """The identifiers of the first call are kept for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[torch.Tensor] = []

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        self.kept.append(ids)
        return self.kept[0] * 2


class Spectrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x)


def test_an_output_is_never_complex() -> None:
    result = torch2mobile.check(Spectrum(), torch.ones(2, 8))
    errors = [f for f in result.findings if f.severity is Severity.ERROR]
    assert [(f.code, f.location.code) for f in errors] == [("T2M111", "return torch.fft.rfft(x)")]


def test_state_in_whole_numbers_counts_too() -> None:
    result = torch2mobile.check(FirstWins(), torch.tensor([[1, 2, 3]]))
    assert [f.code for f in result.findings if f.severity is Severity.ERROR] == ["T2M142"]


# --- configuration ----------------------------------------------------------------------------


def configure(folder: Path, text: str) -> Selection:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return read_selection(folder)


def test_configuration(tmp_path: Path) -> None:
    assert read_selection(tmp_path) == Selection()
    assert configure(tmp_path, "[project]\nname = 'x'\n") == Selection()
    text = """
    [tool.torch2mobile.check]
    select = ["T2M1"]
    ignore = ["T2M141"]
    suppress = [{code = "T2M142", path = "net.py", reason = "only while debugging"}]
    """
    suppressed = (Suppression("T2M142", "only while debugging", "net.py"),)
    assert configure(tmp_path, text) == Selection(("T2M1",), ("T2M141",), suppressed)
    given = read_selection(tmp_path, select=("T2M101",), ignore=("T2M102",))
    assert given == Selection(("T2M101",), ("T2M141", "T2M102"), suppressed)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("select = 'T2M1'", r"Expected `array`, got `str`"),
        ("selct = ['T2M1']", "no key 'selct'"),
        ("ignore = ['T2M999']", r"\[tool.torch2mobile.check\]: no rule's code .* 'T2M999'"),
        ("suppress = [{code = 'T2M142', path = 'x.py'}]", "gives no reason"),
        ("suppress = [{code = 'T2M142', reasn = 'x'}]", "no key 'reasn'"),
        ("suppress = [{path = 'x.py', reason = 'x'}]", "missing required field `code`"),
        ("select = [", "is not TOML"),
    ],
)
def test_a_wrong_configuration_is_refused(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        configure(tmp_path, f"[tool.torch2mobile.check]\n{table}\n")
    assert caught.value.remedy


# --- sizes that no input can have ---------------------------------------------------------------

SIZES = [
    ({"B": 1}, "--fix-dim B: no input has", "The model's dimensions are N, 8*h."),
    ({"h": 2}, "--fix-dim h: no input has", "The model's dimensions are N, 8*h."),
    ({"N": 9}, "--fix-dim N=9: N was declared as 1..4", "Give a size of that range"),
    ({"8*h": 8}, "--fix-dim 8*h=8: 8*h was declared as 16..256", "Give a size of that range"),
    ({"8*h": 264}, "8*h was declared as 16..256", "Give a size of that range"),
    ({"N": 4, "8*h": 20}, "--fix-dim 8*h=20: no whole h gives 20", "for example 8*h=16."),
]


class Twice(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize(("fixed", "message", "remedy"), SIZES)
def test_a_size_that_no_input_can_have_is_refused_before_the_capture(
    fixed: dict[str, int], message: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch2mobile.exporter.capture.capture", lambda _: pytest.fail("captured"))
    with pytest.raises(UsageError) as caught:
        torch2mobile.check(
            Twice(), inputs=["x:float32[N=1..4,8*h=2..32]"], providers=["nnapi"], fix_dims=fixed
        )
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_size_without_an_upper_bound() -> None:
    found = torch2mobile.check(
        Twice(), inputs=["x:float32[N=2..,4]"], providers=["nnapi"], fix_dims={"N": 900}
    )
    assert found.passed
    with pytest.raises(UsageError, match=r"N=1: N was declared as 2\.\.$"):
        torch2mobile.check(
            Twice(), inputs=["x:float32[N=2..,4]"], providers=["nnapi"], fix_dims={"N": 1}
        )


def test_a_bundle_has_the_ranges_and_a_bare_file_has_none(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    made = torch2mobile.export(Twice(), inputs=["x:float32[N=1..4,4]"], out=bundle)
    assert made.passed
    options = CheckOptions(providers=("nnapi",), fixed={"N": 9})
    with pytest.raises(UsageError, match=r"--fix-dim N=9: N was declared as 1\.\.4"):
        check_request(Request(str(bundle)), options)
    assert check_request(Request(str(bundle / "model.onnx")), options).passed


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def small_model(tmp_path: Path) -> Path:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"], "relu")], "g", [x], [y])
    path = tmp_path / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), path)
    return path


def test_a_file_is_checked_without_torch(small_model: Path) -> None:
    script = (
        "import sys, torch2mobile\n"
        f"result = torch2mobile.check({str(small_model)!r})\n"
        "print(result.report.checks[0].status.value, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["skipped", "False"]


def test_options_about_a_module_are_refused_for_a_file(small_model: Path) -> None:
    with pytest.raises(UsageError, match="--input says something about a module"):
        torch2mobile.check(small_model, inputs=["x:float32[N,3]"])
    with pytest.raises(UsageError, match="go with a module in memory"):
        torch2mobile.check(small_model, torch.ones(1, 3))


def test_what_a_file_cannot_follow_is_refused(small_model: Path) -> None:
    with pytest.raises(UsageError, match="--opset says something about a module"):
        torch2mobile.check(small_model, opset=18)
    seeded = Request(source=str(small_model), parity=ParityOptions(seed=3))
    with pytest.raises(UsageError, match="--seed says something about a module"):
        check_request(seeded, CheckOptions())


def test_the_opset_is_the_one_that_is_looked_at() -> None:
    x = torch.ones(2, 3)
    codes = {
        opset: {
            f.code
            for f in torch2mobile.check(nn.ReLU(), x, ort_version="1.16", opset=opset).findings
        }
        for opset in (18, 20)
    }
    assert "T2M311" in codes[20]
    assert "T2M311" not in codes[18]
    with pytest.raises(OpsetError, match="--opset 99"):
        torch2mobile.check(nn.ReLU(), x, opset=99)


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch2mobile.check(Branches(), torch.ones(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_the_same_from_json() -> None:
    report = torch2mobile.check(Branches(), torch.ones(2, 3)).report
    again = codec.from_json(codec.to_json(report))
    assert again == report
    for form in REPORTERS:
        assert REPORTERS[form](again) == REPORTERS[form](report)
    assert json.loads(codec.to_json(report))["checks"][0]["findings"][0]["severity"] == "warning"


def test_the_users_module_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), Branches()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch2mobile.check(module, torch.ones(2, 3))
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_what_a_library_does_is_shown_at_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "env" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    (folder / "some_library_of_theirs.py").write_text(
        "import torch\n\n\nclass Layer(torch.nn.Module):\n    def forward(self, x):\n"
        "        return x * 2 if x.sum() > 0 else x\n"
    )
    (tmp_path / "net.py").write_text(
        "import torch\nfrom some_library_of_theirs import Layer\n\n\n"
        "class Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.layer = Layer()\n\n    def forward(self, x):\n"
        "        y = x.relu()\n        return self.layer(y)\n"
    )
    result = check_request(Request(source="net.py:Net", inputs=("x:float32[2,3]",)), CheckOptions())
    (finding,) = [f for f in result.findings if f.severity is Severity.ERROR]
    assert finding.location.line == 6
    assert (finding.location.caller, finding.location.caller_line) == ("net.py", 12)


class Call(nn.Module):
    """What is called is no method: its code is found at the line that torch names."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def test_a_branch_is_no_size_wherever_it_stands() -> None:
    module = Call(lambda x: x * 2 if x.sum() > 0 else x - 1)
    result = torch2mobile.check(module, inputs=["x:float32[N,4]"])
    assert [f.code for f in result.findings if f.severity is Severity.ERROR] == ["T2M101"]


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3).bfloat16()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.bfloat16()).float()


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.layer(x)


IMAGE = "x:float32[N,3,8,8]"
AS_EXPORT = {
    "a set": (Call(lambda x: torch.isin(x, torch.tensor([1.0, 2.0]))), "x:float32[N,4]"),
    "scatter": (Call(lambda x: torch.diagonal_scatter(x.T @ x, x[0])), "x:float32[4,4]"),
    "gradient": (Call(torch.func.grad(lambda x: (x * x).sum())), "x:float32[N,4]"),
    "bfloat16 layer": (Half(), IMAGE),
    "bfloat16 module": (nn.Conv2d(3, 4, 3).bfloat16(), "x:bfloat16[N,3,8,8]"),
    "autocast": (Autocast(), IMAGE),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:A model attribute")  # torch about the gradient's own tensors
@pytest.mark.parametrize(("module", "spec"), AS_EXPORT.values(), ids=AS_EXPORT)
def test_what_export_refuses_fails_here_and_nothing_is_raised(
    module: nn.Module, spec: str, tmp_path: Path
) -> None:
    result = torch2mobile.check(module, inputs=[spec])
    errors = {f.code for f in result.findings if f.severity is Severity.ERROR}
    exported = torch2mobile.export(module, inputs=[spec], out=tmp_path / "out", simplify=False)
    assert result.passed == exported.passed
    # Where a translation came to be, there is nothing to report.
    assert exported.passed or errors


def test_a_project_says_what_export_always_does(tmp_path: Path) -> None:
    assert read_export(tmp_path) == Export()
    file = tmp_path / "pyproject.toml"
    file.write_text('[tool.torch2mobile.export]\nrewrite = ["T2M101", "T2M102"]\nstate = true\n')
    assert read_export(tmp_path) == Export(rewrite=("T2M101", "T2M102"), state=True)
    for line, message in (
        ("rewrite = 3", r"Expected `array`, got `int`.*rewrite"),
        ("state = 1", r"Expected `bool`, got `int`.*state"),
        ("rewrites = []", "no key 'rewrites'"),
    ):
        file.write_text(f"[tool.torch2mobile.export]\n{line}\n")
        with pytest.raises(UsageError, match=message) as caught:
            read_export(tmp_path)
        assert "takes state = true, rewrite" in caught.value.remedy
    file.write_text("[tool.torch2mobile]\nstate = true\n")
    with pytest.raises(UsageError, match=r"\[tool.torch2mobile\]: no key 'state'"):
        read_export(tmp_path)
