"""Which operators the exporter translates, as check says it without translating."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from torch2mobile.exporter.recurrent_layers import whole_recurrent_layers
from torch2mobile.tensors import quiet
from torch2mobile.validators.coverage import arguments, aten, translations
from torch2mobile.validators.coverage.parts import parts_of
from torch2mobile.validators.coverage.rules.untranslated import REWRITTEN

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
        return [item.name for item in aten.survey(_program(module, *tensors)).missing]


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
def test_the_exporter_does_as_said() -> None:
    wrong = [case for case, (module, name) in CASES.items() if _exports(module) is not (not name)]
    assert not wrong


F = nn.functional
# Translations that can refuse something, with arguments that they take, and that they may not.
TAKEN: dict[str, tuple[Any, Any]] = {
    "aten::bitwise_and.Tensor": (lambda x: torch.bitwise_and(x > 0, x < 1), None),
    "aten::bitwise_not": (lambda x: ~(x > 0), None),
    "aten::bitwise_or.Tensor": (
        lambda x: torch.bitwise_or(x.int(), x.int()),
        lambda x: torch.bitwise_or(x.int(), x.long()),
    ),
    "aten::bitwise_xor.Tensor": (
        lambda x: torch.bitwise_xor(x > 0, x < 1),
        lambda x: torch.bitwise_xor(x.int(), x.long()),
    ),
    "aten::cat": (lambda x: torch.cat([x, x]), lambda x: torch.cat([x[0, :0], x[0, :0]])),
    "aten::div.Tensor_mode": (lambda x: torch.div(x, x + 1, rounding_mode="floor"), None),
    "aten::floor_divide": (lambda x: x // (x + 1), None),
    "aten::index_put": (lambda x: x.index_put((torch.tensor([0]),), x[:1]), None),
    "aten::linear": (
        lambda x: F.linear(x, x[:, :5], x[0, :2]),
        lambda x: F.linear(x, x[0]),
    ),
    "aten::logical_and": (
        lambda x: torch.logical_and(x > 0, x < 1),
        lambda x: torch.logical_and(x > 0, x),
    ),
    "aten::logical_or": (
        lambda x: torch.logical_or(x, x + 1),
        lambda x: torch.logical_or(x > 0, x),
    ),
    "aten::logical_xor": (
        lambda x: torch.logical_xor(x > 0, x < 1),
        lambda x: torch.logical_xor(x > 0, x),
    ),
    "aten::pad": (lambda x: F.pad(x, (1, 2), value=0.5), None),
    "aten::roll": (lambda x: x.roll((1, 2), (0, 1)) + x.roll(3), None),
    "aten::scaled_dot_product_attention": (
        lambda x: F.scaled_dot_product_attention(x.view(1, 1, 2, 5), *[x.view(1, 1, 2, 5)] * 2),
        lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    ),
    "aten::scatter_reduce.two": (
        lambda x: x.scatter_reduce(0, torch.zeros(2, 5, dtype=torch.int64), x, "sum"),
        None,
    ),
    "aten::upsample_bilinear2d.vec": (
        lambda x: F.interpolate(x.view(1, 1, 2, 5), scale_factor=2, mode="bilinear"),
        None,
    ),
    "aten::upsample_nearest1d.vec": (lambda x: F.interpolate(x[None], size=7), None),
    "aten::upsample_nearest2d.vec": (
        lambda x: F.interpolate(x.view(1, 1, 2, 5), scale_factor=2),
        None,
    ),
    "aten::upsample_nearest3d.vec": (
        lambda x: F.interpolate(x.view(1, 1, 1, 2, 5), size=(2, 3, 4)),
        None,
    ),
}
REFUSED: dict[str, Any] = {
    "an argument that has a default elsewhere": lambda x: (x * 2).amax(),
    "one that is refused in the body": lambda x: torch.histc(x, 4),
    "weights": lambda x: torch.bincount(torch.tensor([1, 2]), x[0, :2]),
    "below another": lambda x: torch.std(x).amax(),
    "in the body of another function": lambda x: torch.fake_quantize_per_tensor_affine(
        x, 0.1, 0, -7, 8
    ),
}


def _doubtful(module: Any) -> bool:
    with quiet(), whole_recurrent_layers():
        return aten.survey(_program(module)).doubtful


@pytest.mark.parametrize("name", arguments._ACCEPTED)
def test_frequent_operators_are_sure(name: str) -> None:
    """Each entry is of a translation that can refuse, and doubts what it does not know."""
    texts = translations.written()[name, False]
    assert any(arguments._form(text).refuses for text in texts)
    taken, other = TAKEN[name]
    called = {translations.key(node.target) for node in aten.calls(_program(taken))}
    assert name in called or "floor_divide" in name
    assert not _doubtful(taken)
    assert other is None or _doubtful(other)


@pytest.mark.slow
@pytest.mark.parametrize("name", arguments._ACCEPTED)
def test_what_is_sure_is_exported(name: str) -> None:
    assert _exports(TAKEN[name][0])


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_be_refused_is_a_doubt(case: str) -> None:
    assert _names(REFUSED[case]) == []
    assert _doubtful(REFUSED[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", REFUSED)
def test_the_exporter_does_refuse_it(case: str) -> None:
    assert not _exports(REFUSED[case])


def test_looking_leaves_no_trace_in_the_program() -> None:
    """Sizes that data decide, met while looking at parts, must not be looked for in the graph."""
    program = _program(lambda x: x.repeat_interleave(torch.tensor([1, 2]), 0).relu())
    with quiet():
        assert aten.survey(program).doubtful
        assert len(program.run_decompositions().graph.nodes) > 3


VARYING: dict[str, Any] = {
    "roll": lambda x: x.roll(x.shape[1] // 2, 1),
    "padding": lambda x: F.conv1d(x[None], torch.ones(1, 2, 3), padding=x.shape[1] // 4),
    "parts": lambda x: torch.cat([part * 2 for part in x.split(2, 1)], 1),
}


@pytest.mark.parametrize("case", VARYING)
def test_a_size_that_varies_is_no_attribute(case: str) -> None:
    """Fixed, each of them is sure."""
    sizes = ({1: torch.export.Dim.AUTO},)
    with quiet(), whole_recurrent_layers():
        program = torch.export.export(_Calls(VARYING[case]), (X,), dynamic_shapes=(sizes,))
        assert aten.survey(program).doubtful
    assert not _doubtful(VARYING[case])


def test_an_attribute_has_to_have_a_value() -> None:
    text = "def f(x: T, axis: int, y: T, *, mode: str, z: T = None):\n    return x\n"
    call: tuple[Any, ...] = (1, 2, None)
    assert arguments.taken("f", [text], call, {"mode": "a"})
    assert not arguments.taken("f", [text], call, {})
    assert not arguments.taken("f", [text], call, {"mode": None})
    assert not arguments.taken("f", [text], (1, None, 3), {"mode": "a"})
    assert not arguments.taken("f", [text], call[:2], {"mode": "a"})
    assert not arguments.taken("f", [text, text + "    assert x\n"], call, {"mode": "a"})


def test_the_source_names_what_the_registry_has() -> None:
    """The quick look at the source finds nothing that the registry lacks, and nearly all it has."""
    with quiet():
        registered = {
            (translations.key(meta.fx_target), bool(meta.is_complex))
            for metas in translations.registry().functions.values()
            for meta in metas
        }
    extra = {name for name, _ in set(translations.written()) - registered}
    # Of libraries that are not loaded, so that no graph has them; and Python's own, by other names.
    absent = ("torchvision::", "quantized_decomposed::", "_operator::__", "aten::getitem")
    assert all(name.startswith(absent) for name in extra), extra
    assert len(registered - set(translations.written())) < 10


def test_decorators_are_read_with_all_that_they_say() -> None:
    source = """
@torch_op("aten::one", trace_only=True)
def one(): ...

@torch_op(("aten::two.Tensor", "_operator::two"), complex=True)
def two(
    x,
) -> int:
    return 2

@torch_op("aten::three", private=True)
def three(): ...

@onnx_impl(aten.four.default, opset_introduced=23)
def four(): ...

@onnx_impl((aten.five.Scalar, operator.five))
@another
def five(): ...
"""
    texts = {
        ("aten::one", False): "def one(): ...",
        ("aten::two.Tensor", True): "def two(\n    x,\n) -> int:\n    return 2",
        ("_operator::two", True): "def two(\n    x,\n) -> int:\n    return 2",
        ("aten::five.Scalar", False): "def five(): ...",
        ("_operator::five", False): "def five(): ...",
    }
    found = translations.read_decorators(source)
    assert {name: [text.strip() for text in each] for name, each in found.items()} == {
        name: [text] for name, text in texts.items()
    }


def test_an_ordinary_model_needs_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError

    monkeypatch.setattr(translations, "registry", refuse)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU6(), nn.AdaptiveAvgPool2d(1))
    assert _names(net, torch.ones(1, 1, 8, 8)) == []


def test_normalisations_of_any_size_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    real = parts_of

    def watch(node: torch.fx.Node, *rest: Any) -> Any:
        looked.append(translations.key(node.target))
        return real(node, *rest)

    monkeypatch.setattr(aten, "parts_of", watch)
    net = nn.Sequential(nn.BatchNorm2d(1), nn.MaxPool2d(2), nn.BatchNorm2d(1))
    assert _names(net, torch.ones(2, 1, 8, 8)) == []
    assert looked.count("aten::batch_norm") == 1


def test_a_source_that_names_nothing_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an exporter that is written otherwise, the registry alone decides."""
    monkeypatch.setattr(translations, "written", dict)
    assert _names(CASES["batch norm"][0]) == []
    assert _names(CASES["kthvalue"][0]) == ["aten::kthvalue"]


def test_the_finding_names_what_was_called_and_where() -> None:
    with quiet():
        (found,) = aten.survey(_program(torch.special.i1)).missing
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
