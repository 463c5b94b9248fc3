"""Which operators the exporter translates, as check says it without translating."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.exporter.recurrent import whole_recurrent_layers
from torch2mobile.tensors import quiet
from torch2mobile.validators.coverage import aten, translations
from torch2mobile.validators.coverage.rules.aten import REWRITTEN

X = torch.arange(10.0).reshape(2, 5) / 7


class _Calls(nn.Module):
    """One function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return self.function(*tensors)


def _program(module: Any, *tensors: torch.Tensor) -> torch.export.ExportedProgram:
    if not isinstance(module, nn.Module):
        module = _Calls(module)
    with whole_recurrent_layers():
        return torch.export.export(module.eval(), tensors or (X,))


def _names(module: Any, *tensors: torch.Tensor) -> list[str]:
    with quiet(), whole_recurrent_layers():
        return [item.name for item in aten.missing(_program(module, *tensors))]


def _in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y.add_(1.0)
    return y.relu_()


def _without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x.sin()
    return y + 1


# What check calls translated (None) or missing (its name); each is exported by a slow test.
CASES: dict[str, tuple[Any, str | None]] = {
    "plain": (lambda x: x.relu() + x.mean(), None),
    "in place": (_in_place, None),
    "batch norm": (nn.Sequential(nn.BatchNorm1d(5), nn.Hardswish()), None),
    "layer norm": (nn.LayerNorm(5), None),
    "no gradient": (_without_gradient, None),
    "to another type": (lambda x: x.to(torch.float64), None),
    "magnitude of complex": (lambda x: torch.fft.rfft(x).abs(), None),
    "branch": (
        lambda x: torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,)),
        None,
    ),
    "decomposed": (lambda x: torch.logcumsumexp(x, 1), None),
    "kthvalue": (lambda x: torch.kthvalue(x, 2).values, "aten::kthvalue"),
    "median": (lambda x: torch.median(x, 1).values, "aten::median.dim"),
    "cummax": (lambda x: torch.cummax(x, 1).values, "aten::cummax"),
    "of one size, and of another": (
        lambda x: (
            torch.nn.functional.adaptive_max_pool2d(x.reshape(1, 1, 2, 5)[..., :4], 2)
            + torch.nn.functional.adaptive_max_pool2d(x.reshape(1, 1, 2, 5), 2)
        ),
        "aten::adaptive_max_pool2d",
    ),
    "below another": (torch.special.i1, "prims::bessel_i1"),
    "complex": (lambda x: torch.fft.rfft(x).exp().abs(), "aten::exp"),
    "eigenvalues": (lambda x: torch.linalg.eigvalsh(x.T @ x), "aten::_linalg_eigh"),
    "sorted": (
        lambda x: torch.searchsorted(x[0].sort().values, x),
        "aten::searchsorted.Tensor",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing(case: str) -> None:
    module, missing = CASES[case]
    assert _names(module) == ([] if missing is None else [missing])


def _exports(module: Any) -> bool:
    program = _program(module)
    with quiet(), whole_recurrent_layers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(program, (), dynamo=True, verbose=False)
        except Exception:  # noqa: BLE001 (the exporter raises many kinds)
            return False
    return True


@pytest.mark.slow
@pytest.mark.usefixtures("_operators_read_once")
def test_the_exporter_does_as_said() -> None:
    wrong = [case for case, (module, name) in CASES.items() if _exports(module) is not (not name)]
    assert not wrong


def test_the_source_names_what_the_registry_has() -> None:
    """The quick look at the source finds nothing that the registry lacks, and nearly all it has."""
    with quiet():
        registered = {
            (translations.key(meta.fx_target), bool(meta.is_complex))
            for metas in translations.registry().functions.values()
            for meta in metas
        }
    extra = {name for name, _ in translations.written() - registered}
    # Of libraries that are not loaded, so that no graph has them; and Python's own, by other names.
    absent = ("torchvision::", "quantized_decomposed::", "_operator::__", "aten::getitem")
    assert all(name.startswith(absent) for name in extra), extra
    assert len(registered - translations.written()) < 10


def test_decorators_are_read_with_all_that_they_say() -> None:
    source = """
@torch_op("aten::one", trace_only=True)
def one(): ...

@torch_op(("aten::two.Tensor", "_operator::two"), complex=True)
def two(): ...

@torch_op("aten::three", private=True)
def three(): ...

@onnx_impl(aten.four.default, opset_introduced=23)
def four(): ...

@onnx_impl((aten.five.Scalar, operator.five))
@another
def five(): ...
"""
    assert translations.read_decorators(source) == {
        ("aten::one", False),
        ("aten::two.Tensor", True),
        ("_operator::two", True),
        ("aten::five.Scalar", False),
        ("_operator::five", False),
    }


def test_an_ordinary_model_needs_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError

    monkeypatch.setattr(translations, "registry", refuse)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1))
    assert _names(net, torch.ones(1, 1, 8, 8)) == []


def test_a_source_that_names_nothing_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an exporter that is written otherwise, the registry alone decides."""
    monkeypatch.setattr(translations, "written", frozenset)
    assert _names(CASES["batch norm"][0]) == []
    assert _names(CASES["kthvalue"][0]) == ["aten::kthvalue"]


def test_the_finding_names_what_was_called_and_where() -> None:
    with quiet():
        (found,) = aten.missing(_program(torch.special.i1))
    assert (found.called, found.name) == ("aten::special_i1", "prims::bessel_i1")
    assert found.overload == "torch.ops.prims.bessel_i1.default"
    assert "test_aten.py" in found.node.meta["stack_trace"]


REWRITES: dict[str, tuple[Any, Any]] = {
    "aten::kthvalue": (
        lambda x: torch.kthvalue(x, 2).values,
        lambda x: eval(REWRITTEN["aten::kthvalue"], {"torch": torch, "x": x, "k": 2}),
    ),
    "aten::median.dim": (
        lambda x: torch.median(x, -1).values,
        lambda x: eval(REWRITTEN["aten::median.dim"], {"torch": torch, "x": x}),
    ),
    "aten::_cdist_forward": (
        lambda x: torch.cdist(x, x + 1),
        lambda x: eval(REWRITTEN["aten::_cdist_forward"], {"a": x, "b": x + 1}),
    ),
    "aten::searchsorted.Tensor": (
        lambda x: torch.searchsorted(x.sort(-1).values, x),
        lambda x: eval(
            REWRITTEN["aten::searchsorted.Tensor"], {"edges": x.sort(-1).values, "x": x}
        ),
    ),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_what_to_write_instead_is_equal_and_translated(name: str) -> None:
    was, instead = REWRITES[name]
    x = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(instead(x), was(x))
    assert name in _names(was, x)
    assert _names(instead, x) == []
