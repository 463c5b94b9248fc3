"""The noise of a module without a float64 truth: other roundings, and what they catch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.records import ParityOptions, Status
from torch2mobile.validators.parity import gate, probes, reference
from torch2mobile.validators.parity.compensated import Widened, evaluate, one_thread
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.sums import ReversedSums

Load = Callable[..., Any]
NARROW = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.no_grad():
        yield


def by_chance(seed: int = 0) -> Widened:
    return Widened(torch.Generator().manual_seed(seed))


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


class TestWidened:
    @pytest.mark.parametrize("dtype", NARROW)
    @pytest.mark.parametrize(
        "function",
        [torch.exp, lambda x: x @ x.T, lambda x: x.sum(1), lambda x: F.softmax(x, 1), torch.var],
    )
    def test_it_is_the_function_in_float64_rounded_once(
        self, dtype: torch.dtype, function: Any
    ) -> None:
        x = normal(6, 50, dtype=dtype)
        with Widened():
            found = function(x)
        assert found.dtype == dtype
        assert torch.equal(found, function(x.double()).to(dtype))

    def test_each_operation_is_rounded(self) -> None:
        x = normal(100)
        with Widened():
            found = (x + 1e4) - 1e4
        assert torch.equal(found, (x + 1e4) - 1e4)
        assert not torch.equal(found, ((x.double() + 1e4) - 1e4).float())

    def test_writing_in_place_and_into_views(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[:, 0] = y.sum(1)
            y[:, 1].mul_(3).add_(y[:, 0])
            y.t_().relu_()
            y.masked_fill_(y > 2, float("inf"))
            return torch.cat([y.reshape(-1), y.t()[0]])

        x = normal(5, 7)
        before = x.clone()
        for mode in (Widened(), by_chance()):
            with mode:
                found = function(x)
            assert torch.allclose(found, function(x))
            assert torch.equal(x, before)

    def test_casts_whole_numbers_and_mixed_dtypes_stay(self) -> None:
        x = normal(20) * 100
        with Widened():
            assert torch.equal(x.to(torch.float16), x.half())
            assert torch.equal(x.long() // 3, x.long() // 3)
            assert x.sum(dtype=torch.float64).dtype == torch.float64
            assert (x + x.double()).dtype == torch.float64
            assert (x * 2).argmax().dtype == torch.int64

    @pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
    def test_recurrent_layers(self, layer: Any) -> None:
        torch.manual_seed(0)
        module = layer(4, 6, batch_first=True, bidirectional=True)
        x = normal(2, 9, 4)
        want = module(x)[0]
        for mode in (Widened(), by_chance()):
            with one_thread(), mode:
                found = module(x)[0]
            assert 0 < (found - want).abs().max() < 1e-6


class TestChance:
    @pytest.mark.parametrize("dtype", NARROW)
    def test_to_either_neighbour_in_proportion(self, dtype: torch.dtype) -> None:
        eps = torch.finfo(dtype).eps
        ones, part = torch.ones(20_000, dtype=dtype), torch.tensor(eps / 4, dtype=dtype)
        with by_chance():
            found = (ones + part).double()
        assert set(found.unique().tolist()) == {1.0, 1.0 + eps}
        assert found.sub(1).mean().item() == pytest.approx(eps / 4, rel=0.05)

    @pytest.mark.parametrize("dtype", NARROW)
    def test_what_needs_no_rounding_is_not_moved(self, dtype: torch.dtype) -> None:
        tiny = torch.finfo(dtype).smallest_normal
        values = [0.0, -0.0, 1.0, 0.5, -2.0, tiny, tiny / 2, torch.finfo(dtype).max]
        x = torch.tensor([*values, float("inf"), -float("inf")], dtype=dtype)
        for seed in range(5):
            with by_chance(seed):
                assert torch.equal(x * 1, x)
                assert torch.equal(F.relu(x), x.clamp(min=0))
                assert torch.equal(torch.stack([x, x])[1], x)
                assert torch.isnan(x[-1:] + x[-2:-1]).all()

    def test_small_values_are_moved_by_their_own_unit(self) -> None:
        x = torch.full((1000,), 2e-39)
        with by_chance():
            found = (x * (1 / 3)).double() - 2e-39 / 3
        assert found.abs().max() <= 2**-149

    def test_the_same_each_time(self) -> None:
        x = normal(50, 50)
        with by_chance():
            first = x @ x
        with by_chance():
            assert torch.equal(x @ x, first)

    def test_random_operations_draw_what_they_always_draw(self) -> None:
        torch.manual_seed(3)
        want = F.dropout(torch.ones(50), 0.5, training=True)
        torch.manual_seed(3)
        with by_chance():
            assert torch.equal(F.dropout(torch.ones(50), 0.5, training=True) > 0, want > 0)


def test_one_thread_and_back() -> None:
    before = torch.get_num_threads(), torch.backends.mkldnn.enabled
    torch.set_num_threads(2)
    found = []

    def fail() -> None:
        with one_thread():
            found.extend((torch.get_num_threads(), torch.backends.mkldnn.enabled))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert found == [1, False]
    assert (torch.get_num_threads(), torch.backends.mkldnn.enabled) == (2, before[1])
    torch.set_num_threads(before[0])


REVERSIBLE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mm": lambda x: x[0] @ x[0].T,
    "bmm": lambda x: x @ x.mT,
    "linear": lambda x: F.linear(x[0], x[1], x[0, :, 0]),
    "conv": lambda x: F.conv2d(x[None, :3], normal(4, 3, 3, 3)),
    "conv transposed": lambda x: F.conv_transpose1d(x, normal(40, 4, 3)),
    "conv by groups": lambda x: F.conv1d(x, normal(40, 4, 3), groups=10),
    "softmax": lambda x: F.softmax(x, -1),
    "log softmax": lambda x: F.log_softmax(x, 1),
    "sum": lambda x: x.sum((0, 2), keepdim=True),
    "sum of all": lambda x: x.sum(),
    "mean": lambda x: x.mean(-1),
    "var": lambda x: x.var(1),
    "layer norm": lambda x: F.layer_norm(x, x.shape[-1:]),
}


@pytest.mark.parametrize("name", REVERSIBLE)
def test_reversed_sums_are_the_same_function_in_other_rounding(name: str) -> None:
    function = REVERSIBLE[name]
    x = normal(8, 40, 300)
    want = function(x)
    with ReversedSums():
        found = function(x)
    assert found.shape == want.shape
    assert torch.allclose(found, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    # Convolutions by groups stay as they are.
    assert torch.equal(found, want) == (name == "conv by groups")


def _within(call: Callable[[], Any]) -> Callable[[Any], Any]:
    def run(mode: Any) -> Any:
        with mode:
            return call()

    return run


class TestEvaluate:
    def test_what_storage_alone_loses_is_seen_by_chance(self) -> None:
        x = normal(100)
        want = [((x + 1e4) - 1e4).numpy()]
        found = evaluate(_within(lambda: [((x + 1e4) - 1e4).numpy()]), want)
        assert found is not None
        assert np.array_equal(found.least[0], want[0])
        spread = max(np.abs(other[0] - want[0]).max() for other in found.others)
        assert 5e-4 < spread < 2e-3

    def test_a_module_that_does_not_run_so_has_none(self) -> None:
        def refuse() -> Any:
            raise ValueError

        assert evaluate(_within(refuse), []) is None

    def test_nor_one_of_other_shapes(self) -> None:
        assert evaluate(_within(lambda: [np.zeros(3)]), [np.zeros(2)]) is None
        assert evaluate(_within(lambda: [np.zeros(3)]), [np.zeros(3), np.zeros(3)]) is None
        assert evaluate(_within(lambda: [np.zeros(3)]), [np.zeros(3)]) is not None

    def test_with_the_least_rounding_only(self) -> None:
        runs: list[int] = []
        found = evaluate(
            _within(lambda: runs.append(1) or [np.ones(2)]), [np.ones(2)], others=False
        )
        assert found is not None
        assert not found.others
        assert len(runs) == 1


class Hard(nn.Module):
    """float32 in forward, so no truth; a norm, a convolution, a sum over many values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 8, 3), nn.LayerNorm(8)
        self.last = nn.Linear(8, 5)
        self.register_buffer("mix", torch.randn(8, 8, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(F.gelu(self.conv(x)).transpose(1, 2))
        h = h.to(torch.float32) @ torch.eye(8, dtype=torch.float32)
        return self.last(h @ self.mix)


def half_weight(module: Hard) -> None:
    module.conv.weight.copy_(module.conv.weight.half().float())


def epsilon(module: Hard) -> None:
    module.norm.eps = 1e-6


def lost_bias(module: Hard) -> None:
    module.last.bias[2] = 0


def exact_gelu(module: Hard) -> None:
    module.forward = Approximate.forward.__get__(module)  # type: ignore[method-assign]


class Approximate(Hard):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm(F.gelu(self.conv(x), approximate="tanh").transpose(1, 2))
        h = h.to(torch.float32) @ torch.eye(8, dtype=torch.float32)
        return self.last(h @ self.mix)


FAULTS = [half_weight, epsilon, lost_bias, exact_gelu]


@pytest.fixture(scope="module")
def hard(export: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    return export(Hard().eval(), "x:float32[N,3,L=3..40]")


class TestRule:
    def test_a_true_copy_passes_by_the_compensated_rule(self, hard: Any) -> None:
        for seed in range(3):
            judged = hard.judged(seed=seed)
            assert {one.rule for one in judged} == {"compensated"}
            assert not [one for one in judged if one.mismatch]
            assert all(one.floor > 0 for one in judged)

    def test_it_is_not_much_looser_than_the_measured_one(self, hard: Any, load: Load) -> None:
        class Soft(Hard):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                h = self.norm(F.gelu(self.conv(x)).transpose(1, 2))
                return self.last(h @ self.mix)

        module = copy.deepcopy(hard.loaded.module)
        module.__class__ = Soft
        measured = hard.judged(load(module, "x:float32[N,3,L]"), sure=True)
        assert {one.rule for one in measured} == {"measured"}
        for one, other in zip(hard.judged(), measured, strict=True):
            assert 0.3 < one.allowed / other.allowed < 3

    @pytest.mark.parametrize("fault", FAULTS)
    def test_small_faults_are_caught(self, hard: Any, load: Load, fault: Any) -> None:
        module = copy.deepcopy(hard.loaded.module)
        fault(module)
        judged = hard.judged(load(module, "x:float32[N,3,L]"))
        assert {one.rule for one in judged} == {"compensated"}
        assert any(one.mismatch for one in judged)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_modules(dtype: str, load: Load) -> None:
    """A true copy passes with and without a truth, and infinity is where it overflows."""
    from torch2mobile.records import ParityOptions, Status
    from torch2mobile.validators.parity import gate, probes, reference

    class Half(nn.Module):
        def __init__(self, hard: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.hard = nn.Linear(8, 4).to(getattr(torch, dtype)), hard

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x.to(getattr(torch, dtype)) if self.hard else x)
            return y * y

    rules = {}
    for hard in (True, False):
        loaded = load(Half(hard).eval(), f"x:{dtype}[N,8]")
        built = probes.build(loaded.specs, reference.example_of(loaded), ParityOptions())
        cases = [
            Expected(i.probe, i.outputs, i.truth, i.rough, i.roundings)
            for i in reference.evaluate(loaded, ["y"], built)
        ]
        overflows = [not np.isfinite(c.outputs[0][1].astype(np.float32)).all() for c in cases]
        assert any(overflows) == (dtype == "float16")
        answers: list[Any] = [[(name, array.copy()) for name, array in c.outputs] for c in cases]
        check = gate.parity_check("onnx", cases, answers, ParityOptions())
        assert check.status is Status.PASSED
        rules[hard] = check.metrics["y.rule"]
        if any(overflows):
            ((_, array),) = answers[overflows.index(True)]
            array[~np.isfinite(array)] = np.finfo(array.dtype).max
            check = gate.parity_check("onnx", cases, answers, ParityOptions())
            assert check.status is Status.FAILED
            assert "inf on one side only" in check.mismatches[0].problem
    assert rules == {True: "compensated", False: "measured"}


class Halved(nn.Module):
    """float16 within a float32 module, which ONNX Runtime may compute in float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.half() * 2).float() + x


def test_float16_within_float32_is_noise_that_is_measured(load: Any) -> None:
    loaded = load(Halved(), "x:float32[N=1..4,16]")
    built = probes.build(loaded.specs, reference.example_of(loaded), ParityOptions())
    found = reference.evaluate(loaded, ["y"], built)
    assert found[0].lack is not None
    assert found[0].lack.reason == "it computes in float16 within"
    expected = reference.accepted(found)

    def verdict(function: Any) -> Status:
        answers = [[("y", np.float32(function(c.probe.feeds["x"])))] for c in expected]
        return gate.parity_check("onnx", expected, answers, ParityOptions()).status

    assert verdict(lambda x: x * 3) is Status.PASSED
    assert verdict(lambda x: x * 3.1) is Status.FAILED
    assert verdict(lambda x: x * 3 + 0.05) is Status.FAILED
