"""Every rule's text is whole, and its example is executed: found before, gone after, and equal."""

from __future__ import annotations

import importlib.util
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.pipeline.check import check_request
from torch2mobile.pipeline.check_options import CheckOptions
from torch2mobile.pipeline.results import CheckResult
from torch2mobile.records import ParityOptions, Request
from torch2mobile.validators.coverage.rules import RULES, pages
from torch2mobile.validators.coverage.rules.rule import HERE, Rule
from torch2mobile.validators.coverage.selection import Selection

ROOT = Path(__file__).parents[3]
LEVELS = {"source": "T2M1", "aten": "T2M2", "runtime": "T2M3", "accelerator": "T2M4"}
LEVELS |= {"target": "T2M5"}
SHOWN = [rule for rule in RULES.values() if rule.level == "source" and rule.before]
MENDED = [rule for rule in RULES.values() if rule.level == "source" and rule.after]


@pytest.fixture(autouse=True)
def _one_thread_and_quiet() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # torch's own modules for quantization say on import that they will go.
        warnings.filterwarnings("ignore", message=".*quantize")
        yield
    torch.set_num_threads(threads)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def write(folder: Path, rule: Rule, text: str) -> Path:
    path = folder / f"example_{rule.code}.py"
    path.write_text(text.lstrip(), encoding="utf-8")
    return path


def check(path: Path, rule: Rule) -> CheckResult:
    request = Request(source=f"{path}:Net", inputs=rule.inputs, values=rule.values)
    return check_request(request, CheckOptions(selection=Selection(select=("T2M1",))))


def test_the_registry() -> None:
    assert list(RULES) == sorted(RULES)
    assert len({rule.name for rule in RULES.values()}) == len(RULES)
    assert all(code == rule.code for code, rule in RULES.items())


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_the_text_is_whole(rule: Rule) -> None:
    assert re.fullmatch(rf"{LEVELS[rule.level]}\d\d", rule.code)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
    assert rule.summary
    assert not rule.summary.endswith(".")
    for text in (rule.reason, rule.remedy):
        assert text.endswith("."), text
    assert bool(rule.before) != bool(rule.no_example), "an example, or why there is none"
    assert set(rule.also) <= set(RULES)
    assert HERE not in rule.after
    if rule.before:
        assert rule.inputs
        assert "class Net(" in rule.before


@pytest.mark.parametrize("rule", SHOWN, ids=lambda rule: rule.code)
def test_before_is_found_at_its_line(rule: Rule, tmp_path: Path) -> None:
    path = write(tmp_path, rule, rule.before)
    text = path.read_text("utf-8").splitlines()
    wanted = {number for number, line in enumerate(text, 1) if line.endswith(HERE)}
    found = check(path, rule).findings
    assert {f.code for f in found} - set(rule.also) == {rule.code}
    lines = [f.location.line for f in found if f.code == rule.code]
    assert sorted(lines) == sorted(wanted or {0})
    for finding in found:
        assert finding.message
        assert finding.remedy
        if finding.location.line and finding.code == rule.code:
            assert finding.location.code == text[finding.location.line - 1].strip()
            assert Path(finding.location.file) == path


@pytest.mark.parametrize("rule", MENDED, ids=lambda rule: rule.code)
def test_after_is_clean(rule: Rule, tmp_path: Path) -> None:
    result = check(write(tmp_path, rule, rule.after), rule)
    assert result.findings == ()
    assert result.passed


class All(nn.Module):
    """The mended module of every rule, side by side: one export proves them all."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(modules)

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        results = {}
        for code, net in self.nets.items():
            own = [spec.partition(":")[0] for spec in RULES[code].inputs]
            results[code] = net(*(inputs[name] for name in own))
        return results


@pytest.mark.slow
def test_after_exports_and_passes_parity(tmp_path: Path) -> None:
    """Each on its own would cost seconds; an output's name says whose it is."""
    specs = {spec.partition(":")[0]: spec for rule in MENDED for spec in rule.inputs}
    specs["x"] = "x:float32[N=2..4,6]"  # of T2M130, which has batch statistics; a part of the rest
    for rule in MENDED:
        assert not rule.values
        assert {re.sub("N=1", "N=2", spec) for spec in rule.inputs} <= set(specs.values())
    nets = {rule.code: load(write(tmp_path, rule, rule.after)).Net() for rule in MENDED}
    result = torch2mobile.export(
        All(nets).eval(),
        inputs=list(specs.values()),
        out=tmp_path / "bundle",
        targets=(),
        simplify=False,
        parity=ParityOptions(probes=4),
    )
    assert result.passed, str(result)
    assert result.bundle
    assert [output.name for output in result.bundle.manifest.outputs] == list(nets)


# --- pages ------------------------------------------------------------------------------------


def test_the_pages_in_the_documentation_are_made_from_the_rules() -> None:
    path = ROOT / "scripts" / "rule_pages.py"
    script = load(path)
    kept = {page.name: page.read_text("utf-8") for page in script.FOLDER.glob("*.md")}
    assert kept == script.made(), "run: python scripts/rule_pages.py"


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_a_page_says_everything(rule: Rule) -> None:
    page = pages.page(rule)
    for text in (rule.code, rule.name, rule.summary, rule.reason, rule.remedy, rule.no_example):
        assert text in page
    for example in (rule.before, rule.after):
        assert example.strip() in page
