"""The module's own outputs: as it gives them, in eval mode, and with nothing of it changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.records import LoadedModel, ParityOptions
from torch2mobile.validators.parity import gate, probes, reference, sums, truth
from torch2mobile.validators.parity.expected import typical_of
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.reference import Reference, evaluate, example_of

Load = Callable[..., LoadedModel]


def built(loaded: LoadedModel, **options: Any) -> list[Probe]:
    return probes.build(loaded.specs, example_of(loaded), ParityOptions(**options))


def evaluated(loaded: LoadedModel, *names: str, **options: Any) -> list[Reference]:
    return evaluate(loaded, names or ("output",), built(loaded, **options))


class Everything(nn.Module):
    """Dropout, batch norm, a counter and a cache: all that a forward in train mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.cache = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.drop(self.norm(self.linear(x)))


def state(module: nn.Module) -> dict[str, Any]:
    return {
        **{name: value.clone() for name, value in module.state_dict().items()},
        "modes": [child.training for child in module.modules()],
        "grads": [p.requires_grad for p in module.parameters()],
        "grad": [None if p.grad is None else p.grad.clone() for p in module.parameters()],
        "rng": torch.get_rng_state(),
        "dtype": torch.get_default_dtype(),
        "enabled": torch.is_grad_enabled(),
    }


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    def equal(a: Any, b: Any) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)

    return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("training", [True, False])
def test_the_modules_state_is_untouched(load: Load, training: bool) -> None:
    module = Everything().train(training)
    module.drop.eval()
    loaded = load(module, "x:float32[N,4]")
    before = state(module)
    found = evaluated(loaded)
    assert same(state(module), before)
    assert all(item.repeatable for item in found)
    # What was measured is what runs in eval mode.
    module.eval()
    x = torch.from_numpy(found[0].probe.feeds["x"])
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(found[0].outputs[0][1]), module(x))


def test_also_where_the_module_raises_halfway(load: Load) -> None:
    class Raises(Everything):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            torch.set_default_dtype(torch.float64)
            torch.rand(3)
            raise RuntimeError(f"no room for {len(y)}")

    module = Raises().train()
    loaded = load(module, "x:float32[N,4]")
    before = state(module)
    found = evaluated(loaded)
    assert same(state(module), before)
    assert found[0].refusal.startswith("RuntimeError: no room for ")
    assert found[0].outputs == []


def test_prints_and_warnings_of_the_module_stay_inside(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    class Talks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            import warnings

            print("here", x.shape)  # noqa: T201
            warnings.warn("there", stacklevel=1)
            return x

    assert evaluated(load(Talks(), "x:float32[N,4]"))[0].outputs
    assert capsys.readouterr() == ("", "")


def exact(item: Reference) -> Any:
    """The float64 truth, asked for where it was not evaluated at once."""
    truth = item.truth if item.later is None else item.later()
    assert truth is not None
    return truth


class TestTruth:
    def test_the_same_weights_in_float64(self, load: Load) -> None:
        module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
        found = evaluated(load(module, "x:float32[N,4]"))
        double = copy.deepcopy(module).double()
        truths = list(map(exact, found))
        for item, (wide,) in zip(found, truths, strict=True):
            assert wide.dtype == np.float64
            x = torch.from_numpy(item.probe.feeds["x"]).double()
            with torch.no_grad():
                assert np.array_equal(wide, double(x).numpy())
            noise = np.abs(wide - item.outputs[0][1]).max()
            assert 0 <= noise < 1e-5 * max(1.0, np.abs(wide).max())
        assert any((t[0] != i.outputs[0][1]).any() for i, t in zip(found, truths, strict=True))

    def test_integers_stay_integers(self, load: Load) -> None:
        loaded = load(nn.Embedding(10, 4), "ids:int64[N]", values=("ids=0..9",))
        found = evaluated(loaded)
        assert not any(item.refusal for item in found)
        assert all(len(exact(item)) == 1 for item in found)

    def test_there_is_none_for_a_dtype_hard_coded_in_forward(self, load: Load) -> None:
        class Hard(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.mm(x, torch.eye(4, dtype=torch.float32))

        found = evaluated(load(Hard(), "x:float32[N,4]"))
        assert all(item.truth is None and not item.refusal for item in found)

    def test_it_is_tried_once_only_where_it_fails(self, load: Load) -> None:
        tries = []

        class Hard(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if x.dtype == torch.float64:
                    tries.append(1)
                    raise TypeError("float32, please")
                return x

        assert len(evaluated(load(Hard(), "x:float32[N,4]"))) > 5
        assert len(tries) == 1

    def test_there_is_none_for_a_module_that_cannot_be_copied(self, load: Load) -> None:
        class Single(nn.Module):
            def __deepcopy__(self, memo: Any) -> Any:
                raise TypeError("there can be only one")

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x

        assert all(item.truth is None for item in evaluated(load(Single(), "x:float32[N,4]")))

    def test_nor_where_the_weights_do_not_fit_twice(
        self, load: Load, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(truth, "TRUTH_WEIGHT_BYTES", 50)
        loaded = load(nn.Linear(4, 4), "x:float32[N,4]")
        assert all(item.truth is None for item in evaluated(loaded))

    def test_nor_where_float64_gives_other_shapes(self, load: Load) -> None:
        class Wider(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x[:, : 2 if x.dtype == torch.float64 else 3]

        assert all(item.truth is None for item in evaluated(load(Wider(), "x:float32[N,4]")))


class TestRefusals:
    def test_a_refusal_is_kept_with_its_reason_and_the_rest_goes_on(self, load: Load) -> None:
        class Even(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if len(x) % 2:
                    raise ValueError(f"{len(x)} is odd\nand a long story follows")
                return x

        found = {item.probe.label: item for item in evaluated(load(Even(), "x:float32[N,4]"))}
        assert found["N=1"].refusal == "ValueError: 1 is odd"
        assert found["N=1"].outputs == []
        assert not found["example"].refusal
        assert found["zeros"].outputs

    def test_a_second_run_that_raises_is_a_refusal_too(self, load: Load) -> None:
        class Once(nn.Module):
            used = False

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if self.used:
                    raise RuntimeError("worn out")
                self.used = True
                return x

        assert evaluated(load(Once(), "x:float32[N,4]"))[0].refusal == "RuntimeError: worn out"

    def test_a_message_of_any_length_is_cut(self, load: Load) -> None:
        class Long(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise ValueError("x" * 10_000)

        assert len(evaluated(load(Long(), "x:float32[N,4]"))[0].refusal) == 300


class TestRepeatable:
    def repeatable(self, load: Load, module: nn.Module) -> bool:
        return all(item.repeatable for item in evaluated(load(module, "x:float32[N,4]")))

    def test_plain_modules_are(self, load: Load) -> None:
        assert self.repeatable(load, nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train())

    def test_randomness_in_forward_is_not(self, load: Load) -> None:
        class Noise(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x + torch.rand_like(x) * 1e-6

        assert not self.repeatable(load, Noise())

    def test_functional_dropout_left_on_is_not(self, load: Load) -> None:
        class Drops(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return nn.functional.dropout(x, 0.5)

        assert not self.repeatable(load, Drops())

    def test_a_module_that_counts_its_calls_in_python_is_not(self, load: Load) -> None:
        class Counts(nn.Module):
            calls = 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                return x + self.calls

        assert not self.repeatable(load, Counts())

    def test_nor_one_that_counts_in_a_buffer(self, load: Load) -> None:
        class Counts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("calls", torch.zeros(()))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                return x + self.calls

        module = Counts()
        assert not self.repeatable(load, module)
        assert module.calls == 0

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_nan_equals_nan_here(self, load: Load, dtype: str) -> None:
        class Nan(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * float("nan")

        found = evaluated(load(Nan(), f"x:{dtype}[N,4]"))
        assert all(item.repeatable for item in found)
        assert all(np.isnan(item.outputs[0][1].astype(np.float32)).all() for item in found)


class TestOutputs:
    def test_they_are_copies(self, load: Load) -> None:
        class Same(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("room", torch.zeros(2, 4))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.room.copy_(x)
                return self.room

        found = evaluated(load(Same(), "x:float32[2,4]"))
        for item in found:
            assert np.array_equal(item.outputs[0][1], item.probe.feeds["x"])

    def test_writing_into_the_input_changes_no_probe(self, load: Load) -> None:
        class Writes(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.mul_(2)

        loaded = load(Writes(), "x:float32[N,4]")
        found = evaluated(loaded)
        assert all(item.repeatable for item in found)
        for item in found:
            assert np.array_equal(item.outputs[0][1], item.probe.feeds["x"] * 2)

    def test_more_outputs_than_at_the_example_are_kept(self, load: Load) -> None:
        class Rows(nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return tuple(x.unbind())

        found = {i.probe.label: i for i in evaluated(load(Rows(), "x:float32[N=1..3,4]"), "a", "b")}
        assert [name for name, _ in found["example"].outputs] == ["a", "b"]
        assert [name for name, _ in found["N=1"].outputs] == ["a"]
        assert [name for name, _ in found["N=3"].outputs] == ["a", "b", "output number 2"]

    def test_dtypes_as_the_module_gives_them(self, load: Load) -> None:
        class Types(nn.Module):
            def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
                return x, x.half(), x.bfloat16(), x > 0, x.argmax(-1), x.to(torch.uint8)

        (first, *_) = evaluated(load(Types(), "x:float32[N,4]"), *"abcdef")
        dtypes = [array.dtype.name for _, array in first.outputs]
        assert dtypes == ["float32", "float16", "bfloat16", "bool", "int64", "uint8"]

    def test_several_inputs_in_the_order_of_the_specs(self, load: Load) -> None:
        class Minus(nn.Module):
            def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
                return a - b

        for item in evaluated(load(Minus(), "b:float32[N,3]", "a:float32[N,3]")):
            feeds = item.probe.feeds
            assert np.array_equal(item.outputs[0][1], feeds["a"] - feeds["b"])


class Reductions(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        flat = x.flatten(1)
        return {
            "sum": x.sum(),
            "sum_rows": flat.sum(1),
            "sum_kept": x.sum((1, 2), keepdim=True),
            "sum_negative": x.sum(-1),
            "sum_nothing": x.sum(()) if x.dim() == 0 else x.sum([]),
            "mean": x.mean(),
            "mean_rows": flat.mean(1, keepdim=True),
            "var": x.var(),
            "var_rows": flat.var(1, unbiased=False),
            "std": flat.std(1),
            "cumsum": flat.cumsum(1),
            "norm": flat.norm(dim=1),
            "logsumexp": flat.logsumexp(1),
            "layer_norm": nn.functional.layer_norm(flat, flat.shape[1:]),
            "group_norm": nn.functional.group_norm(x, 2),
            "instance_norm": nn.functional.instance_norm(x),
            "pooled": nn.functional.adaptive_avg_pool1d(x, 3),
            "softmax": x.softmax(-1),
            "scalar": x[0, 0, 0].sum(),
            "empty": x[:0].sum(0),
        }


class TestPlainSums:
    @pytest.mark.parametrize("shape", [(2, 4, 6), (1, 4, 9), (3, 2, 5)])
    def test_the_same_function_in_other_rounding(self, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        x = torch.randn(shape)
        with torch.no_grad():
            wanted = Reductions()(x)
            with sums.PlainSums():
                found = Reductions()(x)
        assert found.keys() == wanted.keys()
        for name, tensor in wanted.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-5, msg=name)

    def test_one_value_after_the_other(self) -> None:
        x = torch.full((50_000,), 0.1)
        with sums.PlainSums():
            plain = float(x.mean())
        in_turn = float(np.add.accumulate(x.numpy())[-1]) / 50_000
        assert plain == pytest.approx(in_turn, rel=1e-7)
        assert abs(plain - 0.1) > 10 * abs(float(x.mean()) - 0.1)

    def test_other_dtypes_and_operations_are_as_always(self) -> None:
        x = torch.arange(12.0)
        with sums.PlainSums():
            assert float(x.double().sum()) == 66
            assert int(x.long().sum()) == 66
            assert torch.equal(x.exp(), torch.arange(12.0).exp())

    def test_it_is_evaluated_when_asked_and_once(self, load: Load) -> None:
        calls = []

        class Mean(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                calls.append(1)
                return x.mean(-1)

        module = Mean().train()
        (first, *_) = evaluated(load(module, "x:float32[2,50000]"))
        before = len(calls)
        assert first.rough is not None
        rough = first.rough()
        assert rough is not None
        assert len(calls) == before + 1
        assert first.rough() is rough
        assert len(calls) == before + 1
        assert module.training
        assert first.truth is not None
        plain = np.abs(rough[0] - first.truth[0]).max()
        assert plain > 3 * np.abs(first.outputs[0][1] - first.truth[0]).max()

    def test_a_module_that_does_not_go_so_has_none(self, load: Load) -> None:
        class Picky(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                from torch.utils import _python_dispatch

                if _python_dispatch._get_current_dispatch_mode() is not None:
                    raise RuntimeError("not in here")
                return x

        (first, *_) = evaluated(load(Picky(), "x:float32[N,4]"))
        assert first.rough is not None
        assert first.rough() is None


class TestCoarseSums:
    """Where terms cancel, one kernel's error does not tell another's: the terms themselves do."""

    @pytest.mark.parametrize("shape", [(2, 4, 6), (3, 2, 5)])
    def test_the_same_function_in_other_rounding(self, shape: tuple[int, ...]) -> None:
        torch.manual_seed(0)
        layer = nn.Conv1d(shape[1], 3, 2)
        with torch.no_grad():
            x = torch.randn(shape)
            wanted = [layer(x), x @ x.transpose(1, 2), nn.functional.linear(x[0], x[0])]
            with sums.CoarseSums():
                found = [layer(x), x @ x.transpose(1, 2), nn.functional.linear(x[0], x[0])]
        for want, got in zip(wanted, found, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
            assert not torch.equal(got, want)

    def test_what_cancels_is_off_by_its_terms(self) -> None:
        terms = torch.full((1, 64), 100.0)
        signs = torch.tensor([1.0, -1.0]).repeat(32)[:, None]
        with sums.CoarseSums():
            off = abs(float(terms @ signs))
        eps = float(torch.finfo(torch.float32).eps)
        assert float(terms @ signs) == 0
        assert off == pytest.approx(eps / 2 * 100 * 8, rel=1e-5)

    @pytest.mark.parametrize(
        ("logit", "off"), [(0.0, 0.2 * 2**-23), (-8.0, 0.2 * 2**-23), (-20.0, 2.06e-12)]
    )
    def test_a_sigmoid_is_off_by_a_share_of_a_unit_of_one(self, logit: float, off: float) -> None:
        x = torch.full((64,), logit)
        with sums.CoarseSums():
            found = torch.sigmoid(x)
        errors = (found.double() - torch.sigmoid(x).double()).abs()
        assert float(errors.max()) == pytest.approx(off, rel=0.3)

    def test_it_is_the_same_each_time(self) -> None:
        x = torch.randn(3, 4)
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            with sums.CoarseSums():
                found.append(x @ x.T)
        assert torch.equal(*found)

    def test_other_dtypes_are_as_always(self) -> None:
        x = torch.arange(12.0).reshape(3, 4).double()
        with sums.CoarseSums():
            found = x @ x.T
        assert torch.equal(found, x @ x.T)


class TestLaterTruth:
    """The float64 run is made on a few probes at once, and on the others where it decides."""

    class Counts(nn.Module):
        """A layer that counts its calls, for all copies of it."""

        doubles: list[int]
        singles: ClassVar[list[int]] = []

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            ran = self.doubles if x.dtype == torch.float64 else self.singles
            ran.append(len(x))
            return self.layer(x)

    def test_a_few_probes_of_the_examples_size_are_measured_at_once(self, load: Load) -> None:
        self.Counts.doubles = []
        found = evaluated(load(self.Counts(), "x:float32[N=1..9,64]"))
        measured = [item for item in found if item.truth is not None]
        assert len(measured) == reference.MEASURED == len(self.Counts.doubles)
        assert found[0] in measured
        assert all(item.probe.magnitude == 1 for item in measured)
        size = found[0].probe.feeds["x"].size
        assert all(item.probe.feeds["x"].size <= size for item in measured)
        assert all((item.later is None) == (item in measured) for item in found)

    def test_a_module_that_takes_long_is_run_less_often(self, load: Load) -> None:
        loaded = load(self.Counts(), "x:float32[N=1..9,64]")
        ran: list[list[int]] = []
        for heavy in (False, True):
            self.Counts.doubles, self.Counts.singles = [], []
            evaluate(loaded, ["output"], built(loaded), heavy=heavy)
            ran.append([len(self.Counts.doubles), len(self.Counts.singles)])
        assert ran[1] == [reference.MEASURED_OF_HEAVY, ran[0][1] - 1]

    def test_an_answer_that_is_clearly_right_needs_no_more(self, load: Load) -> None:
        self.Counts.doubles = []
        cases = reference.accepted(evaluated(load(self.Counts(), "x:float32[N=1..9,64]")))
        usual = typical_of(cases)
        for case in cases:
            assert gate.judge_probe(case, list(case.outputs), usual, {})[1] == []
        assert len(self.Counts.doubles) == reference.MEASURED

    def test_and_one_that_is_not_is_judged_by_the_truth(self, load: Load) -> None:
        self.Counts.doubles = []
        cases = reference.accepted(evaluated(load(self.Counts(), "x:float32[N=1..9,64]")))
        usual = typical_of(cases)
        late = next(case for case in cases if case.later is not None)
        wrong = [(name, array + np.float32(1e-4)) for name, array in late.outputs]
        judged, mismatches = gate.judge_probe(late, wrong, usual, {})
        assert mismatches
        assert len(self.Counts.doubles) == reference.MEASURED + 1
        assert late.later is not None
        assert late.later.known is not None
        np.testing.assert_array_equal(
            late.case.known(0).truth, late.later.known[0], err_msg="the truth is what is judged by"
        )
        assert judged[0].rule == "measured"
        # What is usual does not depend on what was asked for.
        (name,) = usual
        assert np.array_equal(typical_of(cases)[name].noise, usual[name].noise)

    def test_without_a_truth_every_probe_is_measured_in_another_way(self, load: Load) -> None:
        class Fixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(64, 8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layer(x.float())

        found = evaluated(load(Fixed(), "x:float32[N=1..9,64]"))
        assert all(item.truth is None and item.later is None for item in found)
        assert all(item.roundings is not None for item in found)

    def test_nor_where_float64_is_another_function(self, load: Load) -> None:
        class Branches(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(64, 8)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.layer(x)
                return x * 1.001 if x.dtype == torch.float64 else x

        found = evaluated(load(Branches(), "x:float32[N=1..9,64]"))
        assert all(item.truth is None and item.later is None for item in found)
        assert all(item.roundings is not None for item in found)
