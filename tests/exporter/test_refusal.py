"""What is said of a graph that the exporter refuses: operator, line, and what is missing."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.errors import ExitCode, TranslateError
from torch2mobile.exporter import refusal
from torch2mobile.records import Attempt, Location

Export = Callable[..., Any]


class Solving(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        return torch.linalg.qr(y)[0]


class Eigen(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        return torch.linalg.eigvals(y).real


class Bins(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.histc(x, 4)


class Cepstrum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).log().real


class Diagonal(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.diagonal_scatter(x.T @ x, x[0])


@pytest.mark.parametrize(
    ("module", "op", "code", "said", "remedy"),
    [
        pytest.param(
            Diagonal(),
            "aten.diagonal_scatter.default",
            "return torch.diagonal_scatter(x.T @ x, x[0])",
            "has no ONNX translation for these arguments at ",
            "ONNX has",
            marks=pytest.mark.slow,
        ),
        (
            Solving(),
            "aten.linalg_qr.default",
            "return torch.linalg.qr(y)[0]",
            "has no ONNX translation at ",
            "ONNX has",
        ),
        pytest.param(
            Eigen(),
            "aten.linalg_eig.default",
            "return torch.linalg.eigvals(y).real",
            "has no ONNX translation at ",
            "ONNX has",
            marks=pytest.mark.slow,
        ),
        (
            Bins(),
            "aten.histc.default",
            "return torch.histc(x, 4)",
            "has no ONNX translation for these arguments",
            "ONNX has",
        ),
        (
            Cepstrum(),
            "aten.log.default",
            "return torch.fft.rfft(x).log().real",
            "has no ONNX translation for complex numbers at ",
            "two real tensors",
        ),
    ],
)
def test_an_operator_without_a_translation_is_named_with_its_line(
    export: Export,
    tmp_path: Path,
    module: nn.Module,
    op: str,
    code: str,
    said: str,
    remedy: str,
) -> None:
    with pytest.raises(TranslateError) as caught:
        export(module, (torch.rand(3, 3),), path=tmp_path / "m.onnx")
    (place,) = caught.value.locations
    assert (place.op, place.code) == (op, code)
    assert place.file.endswith("test_refusal.py")
    assert f"the operator {op} {said}" in caught.value.message
    assert code in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code is ExitCode.STAGE
    assert list(tmp_path.iterdir()) == []


def test_an_operator_whose_shape_depends_on_data(export: Export) -> None:
    class Repeated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            return y.repeat_interleave(x[0].int(), 0)

    capture = export(nn.ReLU(), (torch.rand(3, 3),)).capture
    program = torch.export.export(Repeated(), (torch.ones(3, 3),))
    error = RuntimeError("Pending unbacked symbols {u7} not in returned outputs []")
    found = refusal.explain(replace(capture, program=program), error)
    assert found.locations[0].code == "return y.repeat_interleave(x[0].int(), 0)"
    assert "its result depends on data at " in found.message


def test_what_an_earlier_attempt_ended_at_is_not_what_a_captured_program_ends_at(
    export: Export,
) -> None:
    capture = export(nn.ReLU(), (torch.rand(3, 3),)).capture
    place = Location("", "m.py", 3, "n = x.shape[0]")
    attempt = Attempt("non-strict", False, "Constraints violated: aten.expand.default", (place,))
    found = refusal.explain(replace(capture, attempts=(attempt,)), RuntimeError("above 2 GB"))
    assert "expand" not in found.message
    assert found.locations == ()


def test_a_traced_operator_of_a_library_is_not_at_the_caller_of_the_export(
    export: Export, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to leave these layers out one day
        quantized = nn.Sequential(torch.ao.nn.quantized.dynamic.Linear(3, 3)).eval()
    with pytest.raises(TranslateError, match="quantized") as caught:
        export(quantized, (torch.rand(3, 3),), path=tmp_path / "m.onnx")
    assert caught.value.locations == ()


@pytest.mark.parametrize(
    ("operator", "begins"),
    [
        ("aten._weight_int8pack_mm.default", "Write it with operators that ONNX has"),
        ("aten.height_of.default", "Write it with operators that ONNX has"),
        ("aten._linalg_eigh.default", "Iterate a fixed number of times"),
        ("aten._linalg_svd.default", "Iterate a fixed number of times"),
    ],
)
def test_an_operator_is_known_by_its_whole_name(operator: str, begins: str) -> None:
    assert refusal._remedy(operator).startswith(begins)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("cell.parametrizations.weight_hh_l0.0", "get_submodule('cell'), 'weight_hh_l0')"),
        ("parametrizations.weight", "get_submodule(''), 'weight')"),
        ("0.a.parametrizations.bias.0", "get_submodule('0.a'), 'bias')"),
        ("my_parametrizations.first", ""),
    ],
)
def test_a_parametrized_weight_is_named(
    export: Export, monkeypatch: pytest.MonkeyPatch, module: str, call: str
) -> None:
    capture = export(nn.ReLU(), (torch.rand(3, 3),)).capture
    place = Location(module, "m.py", 3, "return self.cell(x)", op="aten.linalg_matrix_exp")
    monkeypatch.setattr(refusal, "_operator_location", lambda *_: place)
    told = refusal.explain(capture, RuntimeError("No ONNX function found")).remedy
    assert ("remove_parametrizations" in told) == bool(call)
    assert call in told
