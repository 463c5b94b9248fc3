"""The Python API: records come back, files are written, and nothing else in the process changes."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from rows import slow_but
from torch import nn

import torch2mobile
from torch2mobile.errors import (
    BundleError,
    ExitCode,
    InputError,
    Torch2MobileError,
    UsageError,
)
from torch2mobile.records import Check, ParityOptions, Report, Status

QUICK = ParityOptions(probes=2)


def export(module: nn.Module, *args: Any, out: Path, **options: Any) -> Any:
    """An export without what takes time and is tested elsewhere."""
    given = {"parity": QUICK, "simplify": False, "targets": (), **options}
    return torch2mobile.export(module, *args, out=out, **given)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def interface(folder: Path) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """Names and dims of the inputs and outputs of a bundle's model."""
    graph = onnx.load(folder / "model.onnx").graph
    inputs, outputs = (
        {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
        for values in (graph.input, graph.output)
    )
    return inputs, outputs


# --- the process is as it was -----------------------------------------------------------------


def everything(module: nn.Module) -> dict[str, Any]:
    """All that an export might leave changed."""
    return {
        "weights": {name: value.clone() for name, value in module.state_dict().items()},
        "modes": [child.training for child in module.modules()],
        "grads": [p.requires_grad for p in module.parameters()],
        "gradients": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "attributes": sorted(vars(module)),
        "hooks": [len(child._forward_hooks) for child in module.modules()],
        "torch_rng": torch.get_rng_state(),
        "numpy_rng": np.random.get_state()[1],
        "python_rng": random.getstate(),
        "grad_mode": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warnings": list(warnings.filters),
    }


def assert_same(first: Any, second: Any, where: str = "") -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, (torch.Tensor, np.ndarray)):
        assert np.array_equal(np.asarray(first), np.asarray(second)), where
    elif isinstance(first, list) and any(isinstance(each, torch.Tensor) for each in first):
        for one, other in zip(first, second, strict=True):
            assert_same(one, other, where)
    else:
        assert first == second, where


class Stateful(nn.Module):
    """Train mode, dropout, batch norm, a counter and gradients: all that may be disturbed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        return self.drop(self.norm(self.linear(x)))


class Refuses(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        torch.rand(2)
        raise RuntimeError(f"not {len(y)} rows")


class Branches(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


class Random(Stateful):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.rand(4)


@pytest.fixture
def unusual() -> Iterator[None]:
    """A process whose global state is not the default."""
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    torch.set_default_dtype(torch.bfloat16)
    torch.set_grad_enabled(False)
    yield
    torch.set_default_dtype(dtype)
    torch.set_grad_enabled(grad)


def made(kind: Any) -> nn.Module:
    torch.manual_seed(3)
    module = kind().to(torch.float32).train()
    module.drop.eval()
    module.linear.bias.requires_grad_(False)
    module.linear.weight.grad = torch.ones_like(module.linear.weight)
    return module


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        (Stateful, ExitCode.PASSED),
        (Refuses, InputError),
        (Branches, ExitCode.STAGE),
        pytest.param(Random, ExitCode.FAILED, marks=pytest.mark.slow),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_nothing_in_the_process_is_changed(
    kind: Any, outcome: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    module = made(kind)
    torch.manual_seed(5)
    before = everything(module)
    if isinstance(outcome, ExitCode):
        result = export(module, (torch.ones(2, 4),), out=tmp_path / "b")
        assert result.exit_code is outcome
        assert result.passed == (outcome is ExitCode.PASSED)
    else:
        with pytest.raises(outcome, match="not 2 rows"):
            export(module, (torch.ones(2, 4),), out=tmp_path / "b")
    assert_same(everything(module), before)
    assert capfd.readouterr() == ("", "")


def test_nor_where_the_globals_are_unusual(tmp_path: Path, unusual: None) -> None:
    module = made(Stateful)
    before = everything(module)
    result = export(module, (torch.ones(2, 4, dtype=torch.float32),), out=tmp_path / "b")
    assert result.passed, str(result)
    assert_same(everything(module), before)


def test_nor_by_a_verification(pair: Any, capfd: pytest.CaptureFixture[str]) -> None:
    module = pair.module
    module.train()
    try:
        before = everything(module)
        result = torch2mobile.verify(pair.path, against=module, args=(torch.zeros(2, 6),))
        assert result.passed, str(result)
        assert_same(everything(module), before)
    finally:
        module.eval()
    assert capfd.readouterr() == ("", "")


# --- what comes back --------------------------------------------------------------------------


class TestResult:
    def test_records(self, pair: Any) -> None:
        result = pair.result
        assert isinstance(result, torch2mobile.ExportResult)
        assert isinstance(result.report, Report)
        assert all(isinstance(check, Check) for check in result.report.checks)
        assert result.passed
        assert result.exit_code is ExitCode.PASSED
        assert result.bundle is not None
        assert result.bundle.path == pair.path
        assert torch2mobile.load_bundle(pair.path) == result.bundle
        assert torch2mobile.load_bundle(str(pair.path)).manifest.name == "Pair"

    def test_it_draws_itself(self, pair: Any) -> None:
        html = pair.result._repr_html_()
        assert html.lstrip().startswith("<")
        for text in (html, str(pair.result)):
            assert "parity" in text
            assert "passed" in text.lower()
            assert "float32 noise" in text

    def test_ipython_shows_the_text(self, pair: Any) -> None:
        shown: list[str] = []
        pair.result._repr_pretty_(SimpleNamespace(text=shown.append), cycle=False)
        assert shown == [str(pair.result)]
        # IPython asks each class in turn for one of these two.
        names = {"_repr_pretty_", "__repr__"}
        first = next(kind for kind in type(pair.result).__mro__ if names & {*vars(kind)})
        assert "_repr_pretty_" in vars(first)

    def test_ipython_shows_an_error_as_one_message(self) -> None:
        with pytest.raises(Torch2MobileError) as caught:
            torch2mobile.export(nn.Linear(3, 2), (torch.ones(2, 3),), inputs=("x:float32[",))
        first, *rest = caught.value._render_traceback_()
        assert first == f"{type(caught.value).__name__}: {caught.value.message}"
        assert rest == [f"  {caught.value.remedy}"]

    def test_an_observer_is_told_of_every_check(self, tmp_path: Path) -> None:
        seen: list[Check] = []

        class Notes:
            def started(self, stage: str) -> None:
                pass

            def finished(self, check: Check) -> None:
                seen.append(check)

        result = export(nn.Linear(3, 2), (torch.ones(2, 3),), out=tmp_path / "b", observer=Notes())
        assert tuple(seen) == result.report.checks

    def test_the_default_folder_is_named_after_the_class(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = torch2mobile.export(
            nn.Linear(3, 2), (torch.ones(2, 3),), parity=QUICK, simplify=False, targets=()
        )
        assert result.bundle.path == tmp_path / "dist" / "Linear"

    def test_nothing_is_written_where_a_check_did_not_pass(self, tmp_path: Path) -> None:
        result = export(made(Random), (torch.ones(2, 4),), out=tmp_path / "b")
        assert result.bundle is None
        assert list(tmp_path.iterdir()) == []

    def test_the_package_lists_what_it_has(self) -> None:
        assert {"export", "verify", "simplify", "load_bundle"} <= set(dir(torch2mobile))
        with pytest.raises(AttributeError, match="no attribute 'exprot'"):
            torch2mobile.exprot  # noqa: B018


@pytest.mark.slow
def test_the_same_request_gives_the_same_bytes(tmp_path: Path, pair: Any) -> None:
    again = torch2mobile.export(
        pair.module,
        inputs=["x:float32[N=1..5,6]"],
        out=tmp_path / "again",
        parity=ParityOptions(probes=6),
    )
    assert again.passed
    first, second = hashes(pair.path), hashes(tmp_path / "again")
    assert len(first) > 8
    assert first == second


# --- how a module can be called ---------------------------------------------------------------


class Scale(nn.Module):
    """One tensor, and things that are none."""

    def forward(
        self, x: torch.Tensor, *, by: float = 2.0, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        y = x * by
        return y if bias is None else y + bias


@dataclasses.dataclass
class Boxes:
    corners: torch.Tensor
    scores: torch.Tensor


class Nested(nn.Module):
    def forward(self, batch: dict[str, Any]) -> Any:
        a, (b, c) = batch["a"], batch["rest"]
        return {"sums": (a + b, a + c), "none": None, "boxes": Boxes(a * 2, c.sum(1))}


class TestCalls:
    def test_keyword_arguments_and_numbers(self, tmp_path: Path) -> None:
        result = export(
            Scale(),
            (torch.ones(2, 3),),
            {"by": 3.0, "bias": torch.ones(3)},
            out=tmp_path / "b",
        )
        assert result.passed, str(result)
        assert interface(tmp_path / "b") == (
            {"x": [2, 3], "bias": [3]},
            {"output": [2, 3]},
        )
        capture = next(check for check in result.report.checks if check.name == "capture")
        assert any("by is 3.0" in note for note in capture.notes)

    def test_an_optional_input_left_out(self, tmp_path: Path) -> None:
        result = export(Scale(), (torch.ones(2, 3),), {"bias": None}, out=tmp_path / "b")
        assert result.passed, str(result)
        assert list(interface(tmp_path / "b")[0]) == ["x"]

    def test_nested_inputs_and_dataclass_outputs(self, tmp_path: Path) -> None:
        batch = {"a": torch.ones(2, 3), "rest": [torch.rand(2, 3), torch.rand(2, 3)]}
        result = export(Nested(), (batch,), out=tmp_path / "b")
        assert result.passed, str(result)
        inputs, outputs = interface(tmp_path / "b")
        assert list(inputs) == ["batch_a", "batch_rest_0", "batch_rest_1"]
        assert list(outputs) == ["sums_0", "sums_1", "boxes_corners", "boxes_scores"]
        capture = next(check for check in result.report.checks if check.name == "capture")
        assert any("none is None" in note for note in capture.notes)

    def test_one_tensor_for_a_tuple_of_one(self, tmp_path: Path) -> None:
        assert export(nn.Linear(3, 2), torch.ones(2, 3), out=tmp_path / "b").passed

    def test_no_tensor_inputs_at_all_are_refused_or_exported_but_never_half(
        self, tmp_path: Path
    ) -> None:
        class Constant(nn.Module):
            def forward(self) -> torch.Tensor:
                return torch.ones(3)

        try:
            result = export(Constant(), out=tmp_path / "b")
        except Torch2MobileError:
            result = None
        assert result is None or result.passed == (tmp_path / "b").exists()

    @pytest.mark.parametrize(
        "values",
        [{"values": ["x=uniform(0,1)"]}, {"data": [{"x": np.full((2, 3), 0.25, np.float32)}]}],
        ids=["values", "data"],
    )
    def test_values_and_data(self, tmp_path: Path, values: Any) -> None:
        class Root(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return (x + 1e-3).abs().sqrt()

        result = export(Root(), (torch.ones(2, 3),), out=tmp_path / "b", **values)
        assert result.passed, str(result)
        if "data" in values:
            cases = (tmp_path / "b" / "golden").iterdir()
            assert any("data" in case.name for case in cases)

    def test_grammar_in_place_of_an_example(self, tmp_path: Path) -> None:
        result = export(nn.Linear(3, 2), inputs=["x:float32[N,3]"], out=tmp_path / "b")
        assert result.passed
        assert interface(tmp_path / "b") == ({"x": ["N", 3]}, {"output": ["N", 2]})

    def test_an_opset_is_honoured(self, tmp_path: Path) -> None:
        result = export(nn.Linear(3, 2), torch.ones(2, 3), out=tmp_path / "b", opset=18)
        assert result.passed
        (opset,) = [
            o for o in onnx.load(tmp_path / "b" / "model.onnx").opset_import if not o.domain
        ]
        assert opset.version == 18


Dim = torch.export.Dim


class Add(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


N = Dim("N", min=1, max=9)
UNBOUNDED = Dim("M")
SHAPES: dict[str, tuple[Any, list[Any]]] = {
    "by_name": ({"x": {0: N}, "y": {0: N}}, ["N", 4]),
    "by_position": (({0: N}, {0: N}), ["N", 4]),
    "as_lists": (([N, None], [N, None]), ["N", 4]),
    "static": ({"x": None, "y": None}, [2, 4]),
    "without_bounds": (({0: UNBOUNDED}, {0: UNBOUNDED}), ["M", 4]),
    "two_symbols": (
        ({0: N, 1: UNBOUNDED}, {0: N, 1: UNBOUNDED}),
        ["N", "M"],
    ),
}


class TestDynamicShapes:
    @pytest.mark.parametrize("form", slow_but(SHAPES, "by_name", "two_symbols"))
    def test_in_each_of_torchs_forms(self, tmp_path: Path, form: str) -> None:
        shapes, dims = SHAPES[form]
        pairs = (torch.ones(2, 4), torch.rand(2, 4))
        result = export(Add(), pairs, dynamic_shapes=shapes, out=tmp_path / "b")
        assert result.passed, str(result)
        inputs, outputs = interface(tmp_path / "b")
        assert inputs == {"x": dims, "y": dims}
        assert outputs == {"output": dims}

    def test_left_to_torch(self, tmp_path: Path) -> None:
        shapes = ({0: Dim.DYNAMIC}, {0: Dim.AUTO})
        pairs = (torch.ones(2, 4), torch.rand(2, 4))
        result = export(Add(), pairs, dynamic_shapes=shapes, out=tmp_path / "b")
        assert result.passed, str(result)
        inputs, _ = interface(tmp_path / "b")
        assert isinstance(inputs["x"][0], str)
        assert inputs["x"] == inputs["y"]
        assert inputs["x"][1] == 4

    def test_of_nested_inputs(self, tmp_path: Path) -> None:
        batch = {"a": torch.ones(2, 3), "rest": [torch.rand(2, 3), torch.rand(2, 3)]}
        shapes = {"batch": {"a": {0: N}, "rest": [{0: N}, {0: N}]}}
        result = export(Nested(), (batch,), dynamic_shapes=shapes, out=tmp_path / "b")
        assert result.passed, str(result)
        inputs, outputs = interface(tmp_path / "b")
        assert all(dims == ["N", 3] for dims in inputs.values())
        assert outputs["boxes_scores"] == ["N"]

    def test_a_range_that_is_not_true_fails(self, tmp_path: Path) -> None:
        class Fixed(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.reshape(2, 4)

        result = export(Fixed(), (torch.ones(2, 4),), dynamic_shapes=({0: N},), out=tmp_path / "b")
        assert not result.passed
        assert not (tmp_path / "b").exists()

    def test_a_size_that_the_module_refuses_fails(self, tmp_path: Path) -> None:
        class Even(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                torch._check(x.shape[0] % 2 == 0)
                return x * 2

        result = export(Even(), (torch.ones(2, 4),), dynamic_shapes=({0: N},), out=tmp_path / "b")
        assert not result.passed

    @pytest.mark.parametrize(
        "shapes",
        [{"z": {0: N}}, ({5: N}, {0: N}), {"x": {0: N, 1: {"deep": N}}, "y": {0: N}}],
        ids=["no_such_input", "no_such_dimension", "too_deep"],
    )
    def test_what_does_not_fit_the_inputs_is_a_usage_error(
        self, tmp_path: Path, shapes: Any
    ) -> None:
        pairs = (torch.ones(2, 4), torch.rand(2, 4))
        try:
            result = export(Add(), pairs, dynamic_shapes=shapes, out=tmp_path / "b")
        except UsageError:
            return
        assert not result.passed


# --- what is refused --------------------------------------------------------------------------


class TestRefused:
    def test_what_is_no_module(self, tmp_path: Path) -> None:
        for wrong in (torch.relu, nn.Linear, "model.py:net", None):
            with pytest.raises(UsageError, match=r"where a torch\.nn\.Module is needed"):
                export(wrong, torch.ones(2, 3), out=tmp_path / "b")  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"targets": ("abacus",)}, UsageError, "no target 'abacus'"),
            ({"inputs": ["x:float33[2,3]"]}, InputError, "float33"),
            ({"inputs": ["x:float32[2,3]"], "values": ["y=0..1"]}, UsageError, "y"),
            ({"opset": 3}, Torch2MobileError, "opset 3"),
        ],
    )
    def test_a_request_that_cannot_be_carried_out(
        self, tmp_path: Path, options: Any, error: Any, message: str
    ) -> None:
        args = () if "inputs" in options else (torch.ones(2, 3),)
        with pytest.raises(error, match=message):
            export(nn.Linear(3, 2), args, out=tmp_path / "b", **options)
        assert list(tmp_path.iterdir()) == []

    def test_a_call_that_does_not_fit_forward(self, tmp_path: Path) -> None:
        with pytest.raises(InputError):
            export(nn.Linear(3, 2), (torch.ones(2, 3), torch.ones(2)), out=tmp_path / "b")
        with pytest.raises(InputError):
            export(nn.Linear(3, 2), (torch.ones(2, 5),), out=tmp_path / "b")

    def test_a_folder_that_is_not_ours(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "thesis.txt").write_text("years of work")
        with pytest.raises(BundleError, match="not written by torch2mobile"):
            export(nn.Linear(3, 2), torch.ones(2, 3), out=tmp_path / "b")
        assert (tmp_path / "b" / "thesis.txt").read_text() == "years of work"

    def test_an_artefact_with_nothing_to_compare_it_with(self, pair: Any) -> None:
        with pytest.raises(UsageError, match="nothing to compare it with"):
            torch2mobile.verify(pair.path / "model.onnx")


def test_a_failed_export_leaves_the_bundle_that_stood_there(tmp_path: Path) -> None:
    export(nn.Linear(4, 2), torch.ones(2, 4), out=tmp_path / "b")
    before = hashes(tmp_path / "b")
    assert not export(made(Random), (torch.ones(2, 4),), out=tmp_path / "b").passed
    assert hashes(tmp_path / "b") == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_source_as_on_the_command_line(pair: Any, tmp_path: Path) -> None:
    folder = Path(__file__).parent
    source = tmp_path / "net.py"
    source.write_text(
        "import importlib.util, torch\n"
        f"spec = importlib.util.spec_from_file_location('c', {str(folder / 'conftest.py')!r})\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "import sys; sys.modules['c'] = module\n"
        "spec.loader.exec_module(module)\n"
        "def net():\n"
        "    torch.manual_seed(0)\n"
        "    return module.Pair()\n"
    )
    result = torch2mobile.verify(pair.path, against=f"{source}:net")
    assert result.passed, str(result)
    statuses = {check.name: check.status for check in result.report.checks}
    assert statuses["parity"] is Status.PASSED


class InstallsHooks(nn.Module):
    """The first call puts hooks in, and a mark that says so."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.seen: list[Any] = []

    def forward(self, x: Any) -> Any:
        if not getattr(self, "installed", False):
            for layer in self.layers:
                layer.register_forward_hook(lambda _m, _a, output: self.seen.append(output))
            self.installed = True
        self.seen.clear()
        for layer in self.layers:
            x = layer(x).relu()
        return self.seen[-2]


def test_hooks_that_a_first_call_puts_in_do_not_reach_the_reference(tmp_path: Path) -> None:
    import copy

    import onnxruntime

    torch.manual_seed(0)
    module, x = InstallsHooks().eval(), torch.randn(2, 8)
    with torch.no_grad():
        wanted = copy.deepcopy(module)(x)
    found = torch2mobile.export(module, (x,), out=tmp_path / "out", simplify=False, targets=())
    assert found.report.status.value == "passed"
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), wanted)
    again = torch2mobile.verify(tmp_path / "out", module, (x,))
    assert again.report.status.value == "passed"
    assert not hasattr(module, "installed")
    assert not module.seen
    assert not any(layer._forward_hooks for layer in module.layers)


@pytest.mark.parametrize("folder", ["site-packages", "mine"])
def test_a_hook_of_a_library_is_no_finding(tmp_path: Path, folder: str) -> None:
    import importlib.util

    path = tmp_path / folder / "hooks.py"
    path.parent.mkdir()
    path.write_text("def hook(module, args, output):\n    return output * 2\n")
    spec = importlib.util.spec_from_file_location("hooks_of_a_library", path)
    assert spec is not None
    assert spec.loader is not None
    library = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(library)
    module = nn.Sequential(nn.Linear(8, 8)).eval()
    module[0].register_forward_hook(library.hook)
    report = torch2mobile.check(module, (torch.ones(2, 8),)).report
    codes = {finding.code for check in report.checks for finding in check.findings}
    assert ("T2M140" in codes) is (folder == "mine")
