"""Runtimes with odd properties, through export, verify and debug, each with the right verdict."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import standins
import torch
from torch import nn

import torch2mobile
from torch2mobile.environments import Environment
from torch2mobile.errors import UsageError
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.records import Check, ParityOptions, Status, Tolerance

pytestmark = pytest.mark.slow

SPEC = "image:float32[N=1..4,3,H=8..16,W=8..16]"
FAST = ParityOptions(probes=2, timeout=20)
SEES = standins.SEES_THIS


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(image).relu().mean((2, 3)))


@dataclass(frozen=True)
class Row:
    """A runtime, what the user adds for it, and the status of each of its checks."""

    target: Any
    convert: Status | None = Status.PASSED
    contract: Status | None = Status.PASSED
    parity: Status | None = Status.PASSED
    golden: Status | None = Status.PASSED
    tolerances: dict[str, Tolerance] = field(default_factory=dict)
    note: str = ""


PASSED, FAILED, ERROR, SKIPPED = Status.PASSED, Status.FAILED, Status.ERROR, Status.SKIPPED
NHWC = {"layout": "NHWC", "own_names": True}
ROWS = {
    "plain": Row(standins.Plain()),
    "torch": Row(standins.Torch(name="torch", environment=Environment(variables=SEES, torch=True))),
    "without-torch": Row(
        standins.Torch(name="without-torch"), contract=ERROR, parity=None, golden=ERROR
    ),
    "half": Row(
        standins.Plain(name="half", precision="float16", dtypes={"float32": "float16"}),
        tolerances={"@half": Tolerance(atol=0.02)},
    ),
    "half-without-gate": Row(
        standins.Plain(name="half-without-gate", precision="float16"),
        parity=SKIPPED,
        golden=SKIPPED,
    ),
    "static": Row(
        standins.Plain(name="static", static=True, batch=False),
        note="its sizes are fixed, image to",
    ),
    "single": Row(standins.Plain(name="single", batch=False), note="it takes no batch"),
    "named": Row(standins.Named(name="named", **NHWC)),
    "other": Row(standins.Other(name="other")),
    "nowhere": Row(
        standins.Plain(
            name="nowhere",
            environment=Environment("a Python of its own", "/no/such/python", install="make it"),
        ),
        convert=ERROR,
        contract=None,
        parity=None,
    ),
    "aborts": Row(standins.Aborts(name="aborts"), contract=ERROR, parity=None, golden=FAILED),
    "hangs": Row(standins.Hangs(name="hangs"), contract=ERROR, parity=None, golden=FAILED),
    "lies": Row(standins.Lies(name="lies"), parity=FAILED, golden=FAILED),
    "refuses": Row(standins.Refuses(name="refuses"), convert=SKIPPED, contract=None, parity=None),
}
RIGHT = [name for name, row in ROWS.items() if row.parity in {PASSED, SKIPPED}]
LOADS = [name for name, row in ROWS.items() if row.contract is PASSED]


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Another Python, which sees this one's libraries."""
    folder = tmp_path_factory.mktemp("python") / "own"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    paths = [str(Path(standins.__file__).parent), *(p for p in sys.path if "site-packages" in p)]
    own = {"PYTHONPATH": ":".join(paths), "STANDIN_PREFIX": str(folder)}
    return Environment("a Python of its own", str(folder / "bin" / "python"), variables=own)


@pytest.fixture(scope="module")
def registered(other_python: Environment) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, row in ROWS.items():
            patch.setitem(TARGETS, name, row.target)
        patch.setattr(ROWS["other"].target, "environment", other_python)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Net().eval()


def options(name: str) -> ParityOptions:
    timeout = 4.0 if name == "hangs" else FAST.timeout
    return replace(FAST, tolerances=ROWS[name].tolerances, timeout=timeout)


def found(report: Any, label: str) -> dict[str, Check]:
    return {check.name: check for check in report.checks if check.target == label}


@pytest.fixture(scope="module")
def exported(
    registered: None, module: nn.Module, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """One export of all that are right, and one of each that is not."""
    folder, results = tmp_path_factory.mktemp("bundles"), {}
    tolerances = {k: v for row in ROWS.values() for k, v in row.tolerances.items()}
    common: dict[str, Any] = {"inputs": [SPEC], "simplify": False}
    results["right"] = torch2mobile.export(
        module, **common, targets=RIGHT, out=folder / "right",
        parity=replace(FAST, tolerances=tolerances),
    )  # fmt: skip
    wrong = [name for name in ROWS if name not in RIGHT]
    results["wrong"] = torch2mobile.export(
        module, **common, targets=wrong, out=folder / "wrong",
        parity=replace(FAST, timeout=15.0),
    )  # fmt: skip
    return results


@pytest.mark.parametrize("name", ROWS)
def test_export(exported: dict[str, Any], name: str) -> None:
    row = ROWS[name]
    checks = found(exported["right" if name in RIGHT else "wrong"].report, name)
    statuses = {kind: check.status for kind, check in checks.items()}
    wanted = {"convert": row.convert, "contract": row.contract, "parity": row.parity}
    assert {kind: statuses.get(kind) for kind in wanted} == wanted
    if row.note:
        assert any(row.note in note for note in checks["parity"].notes)


def test_one_failure_stops_no_other_and_no_bundle_is_written(exported: dict[str, Any]) -> None:
    assert exported["right"].report.status is Status.PASSED
    assert exported["wrong"].report.status is Status.FAILED
    assert exported["wrong"].bundle is None
    assert {c.target for c in exported["wrong"].report.checks} >= {"lies", "hangs", "aborts"}


def test_what_a_report_and_a_manifest_say_of_a_variant(exported: dict[str, Any]) -> None:
    manifest = exported["right"].bundle.manifest
    entry = manifest.artifacts["static"]
    assert (entry.variant.static, entry.shapes) == (True, {"image": (1, 3, 9, 10)})
    assert manifest.artifacts["named"].names == {"image": "in0", "output": "out0"}
    made = found(exported["right"].report, "half")["convert"].metrics
    assert made["precision"] == "float16"


@pytest.mark.parametrize("name", RIGHT)
def test_verify_a_bundle(exported: dict[str, Any], replayed: Any, name: str) -> None:
    row = ROWS[name]
    statuses = {kind: check.status for kind, check in found(replayed, name).items()}
    assert statuses == {"contract": PASSED, "golden": row.golden}


@pytest.fixture(scope="module")
def replayed(exported: dict[str, Any]) -> Any:
    report = torch2mobile.verify(exported["right"].bundle.path).report
    assert report.status is Status.PASSED
    return report


@pytest.fixture(scope="module")
def alone(registered: None, module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with the plain one only."""
    out = tmp_path_factory.mktemp("alone") / "bundle"
    common: dict[str, Any] = {"inputs": [SPEC], "simplify": False, "parity": FAST}
    assert torch2mobile.export(module, **common, targets=["plain"], out=out).passed
    return out


@pytest.mark.parametrize("name", ["lies", "without-torch", "aborts", "hangs"])
def test_a_bundle_whose_runtime_went_wrong_later(
    alone: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the plain one under another runtime, as after an update of it."""
    row = ROWS[name]
    monkeypatch.setitem(TARGETS, "plain", type(row.target)(name="plain"))
    timeout = 4.0 if name == "hangs" else 20.0
    parity = ParityOptions(timeout=timeout)
    result = torch2mobile.verify(alone, parity=parity)
    assert found(result.report, "plain")["golden"].status is row.golden


@pytest.mark.parametrize("name", LOADS)
def test_verify_a_file_against_its_module(
    exported: dict[str, Any], module: nn.Module, tmp_path: Path, name: str
) -> None:
    path = artifact(exported, name, tmp_path)
    result = torch2mobile.verify(path, module, inputs=[SPEC], parity=options(name))
    assert found(result.report, name)["parity"].status is ROWS[name].parity
    if ROWS[name].parity is SKIPPED:
        assert result.exit_code == 3


@pytest.mark.parametrize(("name", "place"), [("plain", ""), ("lies", "in the conversion")])
def test_debug(
    exported: dict[str, Any], module: nn.Module, tmp_path: Path, name: str, place: str
) -> None:
    path = artifact(exported, name, tmp_path)
    result = torch2mobile.debug(path, module, inputs=[SPEC], parity=options(name))
    checks = found(result.report, name)
    assert checks["parity"].status is ROWS[name].parity
    assert place in checks.get("localise", checks["parity"]).summary


def test_a_tolerance_of_one_artefact_holds_no_other(
    registered: None, module: nn.Module, tmp_path: Path
) -> None:
    loose = {"output@lies": Tolerance(atol=1.0)}
    result = torch2mobile.export(
        module, inputs=[SPEC], targets=["lies", "plain"], simplify=False, out=tmp_path / "b",
        parity=replace(FAST, tolerances=loose),
    )  # fmt: skip
    assert result.passed
    cases = result.bundle.manifest.golden if result.bundle else ()
    assert all(case.limits["lies"]["output"] >= 1 for case in cases)
    assert all(case.allowed["output"] < 1e-3 for case in cases)
    # It is held to the same where the bundle is compared with the module, unless told otherwise.
    assert torch2mobile.verify(tmp_path / "b", against=module, inputs=[SPEC], parity=FAST).passed
    tight = replace(FAST, tolerances={"@lies": Tolerance(atol=1e-6)})
    found = torch2mobile.verify(tmp_path / "b", against=module, inputs=[SPEC], parity=tight)
    assert [c.target for c in found.report.checks if c.status is Status.FAILED] == ["lies"]
    with pytest.raises(UsageError, match="no output and no artefact") as caught:
        torch2mobile.export(
            module, inputs=[SPEC], parity=ParityOptions(tolerances={"ort": Tolerance()})
        )
    assert "Did you mean @ort?" in caught.value.remedy
    with pytest.raises(UsageError, match="no output and no artefact"):
        torch2mobile.export(
            module, inputs=[SPEC], parity=ParityOptions(tolerances={"@lies": Tolerance()})
        )


def artifact(exported: dict[str, Any], name: str, folder: Path) -> Path:
    """The file of one variant: of the bundle, or converted as the plain one's was."""
    bundle = exported["right"].bundle
    if name in bundle.manifest.targets:
        return Path(bundle.file(bundle.manifest.targets[name][0]))
    path = folder / f"model.{name}"
    path.write_bytes(bundle.file("model.plain").read_bytes())
    return path
