"""One graph from a module, by the first strategy that works; every attempt is kept."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import Any, ClassVar
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim as TorchDim
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch2mobile import user_code
from torch2mobile.errors import CaptureError, ExitCode, InputError, LostOutputError
from torch2mobile.exporter import assumptions, capture, dims, example_call
from torch2mobile.exporter.loading import source
from torch2mobile.exporter.strategies import STRATEGIES
from torch2mobile.records import Capture, Dim, LoadedModel, Request


def specified(module: nn.Module, *texts: str, values: tuple[str, ...] = ()) -> LoadedModel:
    """The module with inputs in the command line's grammar."""
    return source.from_specs("n", module, texts, values, Request(source=""), ())


def called(module: nn.Module, *args: Any, **options: Any) -> LoadedModel:
    return source.from_call("n", module, args, {}, **options)


def line_of(error: CaptureError | InputError) -> str:
    (place,) = error.locations
    assert place.file.endswith("test_capture.py")
    return place.code


def _halved(x: torch.Tensor) -> torch.Tensor:
    return x / 2


class Helped(nn.Module):
    def _block(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._block(_halved(x))
        return y.sum(-1)


class Twice(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


@pytest.mark.parametrize("strategy", ["non-strict", "strict"])
def test_a_node_has_the_line_of_the_helper_that_forward_calls(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = [(name, call) for name, call in STRATEGIES if name == strategy]
    monkeypatch.setattr(capture, "STRATEGIES", chosen)
    program = capture.capture(called(Helped(), torch.ones(2, 3))).program
    assert program is not None
    places = [user_code.of_node(n) for n in program.graph.nodes if n.op == "call_function"]
    lines = ["return x / 2", "return torch.relu(x)", "return y.sum(-1)"]
    assert [place.code for place in places] == lines
    assert all(place.file.endswith("test_capture.py") for place in places)


# --- strategies -------------------------------------------------------------------------------


def test_order_of_the_strategies() -> None:
    names = [name for name, _ in STRATEGIES]
    assert names == [
        *("non-strict", "non-strict from size 2", "non-strict, guards deferred"),
        *("non-strict, sizes as hints", "non-strict after a call"),
        *("non-strict, known values", "strict", "torchscript"),
    ]


def test_the_first_that_works_ends_the_search() -> None:
    found = capture.capture(specified(Twice(), "x:float32[N,3]"))
    assert found.strategy == "non-strict"
    assert [(a.strategy, a.succeeded) for a in found.attempts] == [("non-strict", True)]
    assert found.program is not None
    assert found.traced is None


def test_every_attempt_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(loaded: LoadedModel) -> Any:
        raise ValueError("not like this:\n\n  really not\n  see the log")

    strategies = (("first", failing), ("second", failing), *STRATEGIES[:1])
    monkeypatch.setattr(capture, "STRATEGIES", strategies)
    found = capture.capture(specified(Twice(), "x:float32[2]"))
    assert found.strategy == "non-strict"
    assert [a.succeeded for a in found.attempts] == [False, False, True]
    assert found.attempts[0].reason == "ValueError: really not see the log"
    assert found.attempts[0].locations[0].code.startswith("raise ValueError")


def test_when_all_fail_every_attempt_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(loaded: LoadedModel) -> Any:
        raise ValueError("no")

    monkeypatch.setattr(capture, "STRATEGIES", (("first", failing), ("second", failing)))
    with pytest.raises(CaptureError) as caught:
        capture.capture(specified(Twice(), "x:float32[2]"))
    assert caught.value.details == ("first: ValueError: no", "second: ValueError: no")
    assert caught.value.exit_code is ExitCode.STAGE
    assert caught.value.remedy


class SpecialOne(nn.Module):
    """What broadcasting code often does; torch would fix that a size is not 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[0] == 1 else x + 0


def test_size_one_as_a_special_case_is_left_out_in_the_second_attempt() -> None:
    found = capture.capture(specified(SpecialOne(), "x:float32[N=1..8,3]"))
    assert found.strategy == "non-strict from size 2"
    # What was declared stays declared: the probes then try size 1.
    assert found.inputs[0].dims[0] == Dim(symbol="N", least=1, greatest=8)


def test_the_line_is_known_without_another_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Mock(wraps=torch.export.export)
    monkeypatch.setattr(torch.export, "export", made)
    found = capture.capture(specified(SpecialOne(), "x:float32[N=1..8,3]"))
    assert made.call_count == 2
    (place,) = found.attempts[0].locations
    assert place.code == "return x if x.shape[0] == 1 else x + 0"


@pytest.mark.parametrize("greatest", [2, 3])
@pytest.mark.parametrize("rows", [1, 2])
def test_dims_in_torchs_own_form_are_captured_as_those_of_the_grammar(
    rows: int, greatest: int
) -> None:
    # A range of 1 to 2 leaves one size from 2 on, of which torch would make a constant.
    n = TorchDim("N", min=1, max=greatest)
    shapes = ({0: n, 1: 4 * TorchDim("h", min=1, max=2)},)
    by_torch = capture.capture(called(SpecialOne(), torch.rand(rows, 4), dynamic_shapes=shapes))
    text = f"x:float32[N=1..{greatest},4*h=1..2]"
    by_grammar = capture.capture(specified(SpecialOne(), text))
    for found in (by_torch, by_grammar):
        assert found.strategy == "non-strict from size 2"
        assert found.inputs[0].dims[0] == Dim(symbol="N", least=1, greatest=greatest)
        assert labels(found) == [["N", "4*h"]]
        assert "N >= 2" in [each.text for each, _ in assumptions.exceptions(found)]


RUNS: list[type] = []


class One(nn.Module):
    """Its code has a case of its own for size 1; the runs that go on after it are noted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with contextlib.suppress(Exception):  # what ends the capture is not for the module to catch
            x = x * 2 if x.shape[0] != 1 else x + x
        RUNS.append(type(x.shape[0]))
        return x


def test_a_size_without_a_declared_end_is_left_to_torch() -> None:
    RUNS.clear()
    found = capture.capture(specified(One(), "x:float32[N,3]"))
    assert RUNS.count(torch.SymInt) == 2
    assert "Constraints violated (N)" in found.attempts[0].reason


class Together(One):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x) + super().forward(y)


def test_so_is_a_size_that_several_inputs_share() -> None:
    RUNS.clear()
    found = capture.capture(specified(Together(), "x:float32[N=1..4,3]", "y:float32[N,3]"))
    assert RUNS.count(torch.SymInt) == 4
    assert not found.attempts[0].reason.startswith("Constraints violated at size 1")


class Caught(nn.Module):
    """What ends a capture is caught, and another way is gone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            y = x * 2 if x.shape[0] != 1 else x + x
        except:  # noqa: E722
            y = x * 0
        return y + 1


def test_a_module_that_catches_everything_is_not_captured_on_its_way_out() -> None:
    found = capture.capture(specified(Caught(), "x:float32[N=1..4,3]"))
    assert found.strategy == "non-strict from size 2"
    assert found.program is not None
    x = torch.ones(3, 3)
    assert torch.equal(found.program.module()(x)[0], x * 2 + 1)


class OneAndSix(One):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y * 3 if x.shape[1] != 6 else y - 1


def test_the_first_strategy_ends_where_size_1_is_lost() -> None:
    RUNS.clear()
    found = capture.capture(specified(One(), "x:float32[N=1..4,3]"))
    assert found.strategy == "non-strict from size 2"
    assert RUNS.count(torch.SymInt) == 1
    first = found.attempts[0]
    assert first.reason == (
        "Constraints violated at size 1: N != 1 is not so at every declared size"
    )
    assert first.locations[0].code == "x = x * 2 if x.shape[0] != 1 else x + x"


def test_it_says_all_where_size_1_is_not_the_only_reason() -> None:
    RUNS.clear()
    found = capture.capture(specified(OneAndSix(), "x:float32[N=1..4,C=2..8]"))
    assert found.strategy == "non-strict, guards deferred"
    assert RUNS.count(torch.SymInt) == 3
    first = found.attempts[0]
    assert first.strategy == "non-strict"
    assert "Constraints violated (C, N)" in first.reason
    assert [a.text for a, _ in assumptions.exceptions(found)] == ["N >= 2", "C != 6"]


class Rounded(nn.Module):
    """Guards that hold for every size, and that torch cannot prove."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.max_pool2d(x, 2, ceil_mode=True)
        return pooled.flatten(1).topk(min(3, x.shape[3]), dim=1).values


def test_a_guard_that_cannot_be_proven_is_put_off() -> None:
    found = capture.capture(specified(Rounded(), "x:float32[2,1,H=8..32,W=8..32]"))
    assert found.strategy == "non-strict, guards deferred"
    assert [a.succeeded for a in found.attempts] == [False, False, True]
    assert labels(found) == [[2, 1, "H", "W"]]
    assert len(assumptions.assumptions(found)) > 2
    # Tried at every size of the range: nothing is left for the probes to prove.
    assert assumptions.exceptions(found) == []


class Halves(nn.Module):
    """``(3 * n - 1) // n == 2``, which torch's solver takes for ``n == 2``."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        left, right = torch.cat([x, y]).chunk(2)
        return left - 2 * right


def test_halves_of_a_varying_size_are_captured() -> None:
    found = capture.capture(specified(Halves(), "x:float32[N=1..4,6]", "y:float32[N,6]"))
    assert found.strategy == "non-strict, sizes as hints"
    assert labels(found) == [["N", 6], ["N", 6]]
    # Captured from size 2 on: only 1 is left for the probes.
    assert {sizes["N"] for _, sizes in assumptions.exceptions(found)} == {1}


class Seven(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.shape[0] == 7 else x * 2


def test_a_guard_that_was_put_off_and_is_wrong_is_known_by_its_size() -> None:
    found = capture.capture(specified(Seven(), "x:float32[N=2..99,3]"))
    assert found.strategy == "non-strict, guards deferred"
    assert [(a.text, sizes) for a, sizes in assumptions.exceptions(found)] == [("N != 7", {"N": 7})]
    assert assumptions.broken(found, {"x": np.zeros((6, 3), "f4")}) == {}
    blamed = assumptions.broken(found, {"x": np.zeros((7, 3), "f4")})
    assert blamed["N != 7"].code == "return x + 1 if x.shape[0] == 7 else x * 2"


class Remembers(Seven):
    """Something is kept outside of the module."""

    kept: ClassVar[dict[int, torch.Tensor]] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if 3 not in self.kept:
            self.kept[3] = torch.ones(3)
        return super().forward(x * self.kept[3]) * x.sum().item()


def test_what_a_module_decides_by_sizes_is_found_without_a_capture() -> None:
    model = specified(Remembers(), "x:float32[N=2..99,3]")
    found = assumptions.decided(model)
    broken = assumptions.not_always_so(model.specs, model.tensors, found)
    assert [(each.text, sizes) for each, sizes in broken] == [("N != 7", {"N": 7})]
    assert type(Remembers.kept[3]) is torch.Tensor


def test_attention_is_captured_in_operators_and_the_switch_put_back() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    found = capture.capture(specified(layer, "src:float32[N=1..2,T=2..9,8]"))
    assert found.program is not None
    assert "_transformer_encoder_layer_fwd" not in str(found.program.graph)
    assert labels(found) == [["N", "T", 8]]
    assert torch.backends.mha.get_fastpath_enabled()


class ExactType(nn.Module):
    """Outside of dynamo the tensor is of another class while it is captured."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if type(x) is not torch.Tensor:
            raise TypeError("give a tensor")
        return 2 * x


def test_strict_where_only_dynamo_can() -> None:
    found = capture.capture(specified(ExactType(), "x:float32[N,3]"))
    assert found.strategy == "strict"
    assert [a.succeeded for a in found.attempts] == [False, False, True]
    assert "give a tensor" in found.attempts[0].reason
    assert found.attempts[0].locations[0].code == 'raise TypeError("give a tensor")'
    assert found.program is not None
    assert torch.equal(found.program.module()(torch.ones(5, 3))[0], torch.full((5, 3), 2.0))


class WholePatches(nn.Module):
    """``number`` makes one of a size, and more code that torch has read before follows."""

    def __init__(self, number: Any = int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.number = number

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x.unflatten(1, (-1, 4))).flatten(1)
        return y + torch.zeros(self.number(x.shape[1] // 4 * 4))


def test_strict_where_another_graph_is_for_one_size_alone() -> None:
    found = capture.capture(specified(WholePatches(), "x:float32[N=1..2,4*h]"))
    assert found.strategy == "strict"
    fixing = next(each for each in found.attempts if each.reason.startswith("captured for "))
    assert "self.number(" in fixing.locations[0].code
    assert not any(each.fixes for each, _ in assumptions.exceptions(found))


LOCK = threading.Lock()


class Locked(WholePatches):
    """What a library puts in on the first call, under a lock, which TorchDynamo refuses."""

    ready = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.ready:
            with LOCK:
                self.ready = True
        return super().forward(x)


def test_strict_leaves_out_what_a_first_call_alone_does() -> None:
    assert capture.capture(specified(Locked(), "x:float32[N=1..2,4*h]")).strategy == "strict"


def test_a_graph_for_one_size_alone_comes_last() -> None:
    fixing = WholePatches(lambda size: len(range(size)))
    attempts: list[Any] = []
    (found,) = capture.captures(specified(fixing, "x:float32[N=1..2,4*h]"), attempts)
    assert found.strategy != "strict"
    assert [a.strategy for a in found.attempts if "alone" in a.reason] == ["strict"]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() == 2:
            x = torch.relu(x)
        return x


class Scripted(nn.Module):
    """Neither torch.export nor dynamo looks into TorchScript; a trace takes it as it is."""

    def __init__(self, after: Any = None) -> None:
        super().__init__()
        self.part = torch.jit.script(Branching())
        self.after = after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.part(x) * 2
        return y if self.after is None else self.after(y)


jit_is_deprecated = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


@jit_is_deprecated
def test_torchscript_is_the_last_resort_and_noted() -> None:
    found = capture.capture(specified(Scripted(), "x:float32[N,3]"))
    assert found.strategy == "torchscript"
    assert [a.succeeded for a in found.attempts] == [False, False, False, True]
    assert found.program is None
    assert found.traced is not None
    assert "TorchScript trace" in found.notes[-1]
    x = torch.randn(5, 3)
    assert torch.equal(found.traced(x)[0], 2 * x.relu())


@jit_is_deprecated
def test_a_trace_that_would_fix_a_value_is_a_failure() -> None:
    module = Scripted(after=lambda y: y * float(y.sum()))
    with pytest.warns(torch.jit.TracerWarning, match="as a constant"):
        torch.jit.trace(module, torch.ones(2, 3), check_trace=False)
    with pytest.raises(CaptureError) as caught:
        capture.capture(specified(module, "x:float32[N,3]"))
    assert caught.value.details[-1].startswith("torchscript: ")
    assert "not tried" not in caught.value.details[-1]


class DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1


class ThroughNumpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.interp(x.numpy(), [0, 1], [0, 2]))


@pytest.mark.parametrize(
    ("module", "code", "remedy"),
    [
        (DataDependent(), "if x.sum() > 0:", "torch.where(condition, a, b)"),
        (
            ThroughNumpy(),
            "return torch.from_numpy(np.interp(x.numpy(), [0, 1], [0, 2]))",
            "Replace the NumPy part",
        ),
    ],
)
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_no_trace_of_what_depends_on_data(module: nn.Module, code: str, remedy: str) -> None:
    # A trace would succeed, and be wrong.
    assert torch.jit.trace(module, torch.ones(2), check_trace=False) is not None
    with pytest.raises(CaptureError) as caught:
        capture.capture(specified(module, "x:float32[2]"))
    assert caught.value.details[-1].startswith("torchscript: not tried")
    assert line_of(caught.value) == code
    assert code in caught.value.message
    assert remedy in caught.value.remedy


# --- sizes that got fixed ---------------------------------------------------------------------


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        return y.reshape(2, -1)


class FixedByAddition(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(2, 3)


class FewOnly(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[0] < 6
        return 2 * x


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (FixedBatch(), "return y.reshape(2, -1)"),
        (FixedByAddition(), "return x + torch.ones(2, 3)"),
        (FewOnly(), "assert x.shape[0] < 6"),
    ],
)
def test_a_dynamic_size_that_the_code_fixes_is_an_error_at_its_line(
    module: nn.Module, code: str
) -> None:
    fixed = capture.capture(specified(module, "x:float32[2,3]"))
    assert fixed.inputs[0].dims[0] == Dim(size=2)
    watched = (ShapeEnv._set_replacement, ShapeEnv._log_guard)
    with pytest.raises(CaptureError) as caught:
        capture.capture(specified(module, "x:float32[N=1..8,3]"))
    assert (ShapeEnv._set_replacement, ShapeEnv._log_guard) == watched
    assert line_of(caught.value) == code
    assert "x.shape[i]" in caught.value.remedy


class SeveralGuards(nn.Module):
    """Guards that hold for every size, before the one that does not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.topk(min(5, x.shape[1]), dim=1).values
        return self.few(x) + y.sum()

    def few(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[1] < 7 else x


def test_the_line_of_the_guard_that_is_broken_not_of_the_first() -> None:
    with pytest.raises(CaptureError) as caught:
        capture.capture(specified(SeveralGuards(), "x:float32[2,L=3..40]"))
    assert line_of(caught.value) == "return x * 2 if x.shape[1] < 7 else x"


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        return self.layer(packed)[1]


def test_lengths_fit_the_sizes_that_are_tried() -> None:
    """A module refuses lengths above the size, and no size for that."""
    inputs = "x:float32[N=1..4,T=1..8,4]", "lengths:int64[N]"
    found = capture.capture(specified(Packed(), *inputs, values=("lengths=lengths(T)",)))
    assert found.strategy == "non-strict from size 2"
    steps, lengths = assumptions.example_at(found.loaded, {"T": 1})
    assert steps.shape[1] == lengths.max() == 1


class Sizes(Packed):
    """What only data tell."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        return super().forward(x, lengths) * packed.batch_sizes[1]


class LastStep(Packed):
    """As the remedy says."""

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        steps = self.layer(x)[0]
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, steps.shape[2])
        return steps.gather(1, last).transpose(0, 1)


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_a_packed_sequence_is_named_and_its_remedy_works() -> None:
    given = (torch.rand(3, 6, 4), torch.tensor([4, 6, 1]))
    packed, sizes, last = Packed().eval(), Sizes().eval(), LastStep().eval()
    program = capture.capture(called(packed, *given)).program
    assert program is not None
    assert torch.allclose(program.module()(*given)[0], packed(*given), atol=1e-6)
    with pytest.raises(CaptureError) as caught:
        capture.capture(called(sizes, *given))
    assert "packed.batch_sizes[1]" in line_of(caught.value)
    assert "gather" in caught.value.remedy
    last.load_state_dict(packed.state_dict())
    assert torch.allclose(packed(*given), last(*given), atol=1e-6)
    found = capture.capture(called(last, *given, dynamic_shapes=({0: TorchDim("N")},) * 2))
    assert labels(found) == [["N", 6, 4], ["N"]]


def test_a_program_with_fewer_dynamic_dims_than_declared_is_refused() -> None:
    loaded = specified(Twice(), "x:float32[N=1..8,3]")
    static = torch.export.export(loaded.flat, loaded.tensors)
    with pytest.raises(CaptureError, match=r"dimension 0 of x was declared dynamic \(N\)"):
        dims.final_inputs(loaded.specs, static)


# --- dims and symbols -------------------------------------------------------------------------


class Pair(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x[..., ::2].sum() + y


def labels(found: Capture) -> list[list[int | str]]:
    return [[dim.label for dim in spec.dims] for spec in found.inputs]


def test_symbols_of_the_grammar() -> None:
    loaded = specified(Pair(), "x:float32[N=1..8,8*h=1..4]", "y:float32[N,W,3]")
    found = capture.capture(loaded)
    assert labels(found) == [["N", "8*h"], ["N", "W", 3]]
    assert found.inputs == loaded.specs
    assert sorted(found.symbols.values()) == ["N", "W", "h"]


@pytest.mark.parametrize("symbol", ["N", "E", "I", "S", "pi", "beta"])
def test_a_multiple_of_a_symbol_with_a_meaning_in_sympy(symbol: str) -> None:
    found = capture.capture(specified(Twice(), f"x:float32[8*{symbol}=1..4,3]"))
    assert found.strategy == "non-strict"
    assert labels(found) == [[f"8*{symbol}", 3]]


class Decoder(nn.Module):
    """One step of a decoder with a cache: the mask is as long as past and present together."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, past: torch.Tensor) -> Any:
        states = torch.cat([past, ids.float().unsqueeze(-1).expand(-1, -1, 4)], dim=1)
        return (states * mask.unsqueeze(-1)).sum(1), states


@pytest.mark.parametrize(
    ("ids", "mask", "label"),
    [
        ("ids:int64[N,1]", "mask:float32[N,P+1]", "P + 1"),
        ("ids:int64[N,T=1..4]", "mask:float32[N,P+T]", "P + T"),
        ("ids:int64[N,2*h+1=0..4]", "mask:float32[N,2*h+P+1]", "P + 2*h + 1"),
    ],
)
def test_sizes_that_are_linear_in_symbols(ids: str, mask: str, label: str) -> None:
    loaded = specified(Decoder(), ids, mask, "past:float32[N,P=0..16,4]")
    found = capture.capture(loaded)
    assert found.strategy == "non-strict"
    assert labels(found)[1] == ["N", label]
    assert found.inputs == loaded.specs


def test_dims_in_torchs_own_form() -> None:
    n, h = TorchDim("n", max=8), TorchDim("h", min=1, max=4)
    x, y = torch.rand(3, 8), torch.rand(3, 5)
    found = capture.capture(called(Pair(), x, y, dynamic_shapes=({0: n, 1: 4 * h}, {1: n + 2})))
    assert labels(found) == [["n", "4*h"], [3, "n + 2"]]
    assert found.inputs[1].dims[1].ends == (3, 10)


def test_dims_of_nested_inputs() -> None:
    class Nested(nn.Module):
        def forward(self, tree: Any, *rest: Any, **more: Any) -> Any:
            return {"a": tree["u"] + tree["v"][0], "b": rest[0] * 2 + more["z"]}

    n, k = TorchDim("n", max=9), TorchDim("k", max=7)
    x = torch.rand(3, 2)
    shapes = {
        "tree": {"u": {0: n}, "v": [{0: n}]}, "rest": ({0: k},), "more": {"z": {0: k}},
    }  # fmt: skip
    call: dict[str, Any] = {"z": torch.rand(5, 2)}
    args = ({"u": x, "v": [x]}, torch.rand(5, 2))
    loaded = source.from_call("n", Nested(), args, call, dynamic_shapes=shapes)
    found = capture.capture(loaded)
    assert [spec.name for spec in found.inputs] == ["tree_u", "tree_v_0", "rest_0", "z"]
    assert labels(found) == [["n", 2], ["n", 2], ["k", 2], ["k", 2]]


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (TorchDim.AUTO, Dim(symbol="x_dim0")),
        (TorchDim.DYNAMIC, Dim(symbol="x_dim0")),
        (TorchDim.AUTO(min=2, max=9), Dim(symbol="x_dim0", least=2, greatest=9)),
        (TorchDim.STATIC, Dim(size=3)),
    ],
)
def test_dims_left_to_torch_get_a_name(hint: Any, expected: Dim) -> None:
    found = capture.capture(called(Twice(), torch.rand(3, 8), dynamic_shapes=({0: hint},)))
    (spec,) = found.inputs
    assert spec.name == "x"
    assert spec.dims == (expected, Dim(size=8))


def test_auto_that_the_code_fixes_is_a_fixed_size() -> None:
    shapes = ({0: TorchDim.AUTO, 1: TorchDim.AUTO},)
    found = capture.capture(called(FixedByAddition(), torch.rand(2, 3), dynamic_shapes=shapes))
    assert labels(found) == [[2, 3]]


def test_auto_dims_that_must_be_equal_share_a_name() -> None:
    class Sum(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    auto = {0: TorchDim.AUTO}
    found = capture.capture(
        called(Sum(), torch.rand(3), torch.rand(3), dynamic_shapes=(auto, auto))
    )
    assert labels(found) == [["x_dim0"], ["x_dim0"]]


def test_a_saved_program_is_not_captured_again() -> None:
    program = torch.export.export(Twice(), (torch.rand(3),))
    loaded = source.from_program("n", program)
    found = capture.capture(loaded)
    assert found.strategy == "exported program"
    assert found.program is program
    assert found.attempts == ()
    assert found.outputs == ("output",)


def test_a_module_without_inputs() -> None:
    class Constant(nn.Module):
        def forward(self) -> torch.Tensor:
            return torch.arange(3)

    found = capture.capture(called(Constant()))
    assert (found.inputs, found.outputs) == ((), ("output",))


# --- the example ------------------------------------------------------------------------------


class Outputs(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(x)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda x: {"y": x + 1, "none": None}, ("y",)),
        (lambda x: {"x": x + 1, "x_out": x + 2}, ("x_out", "x_out_out")),
        (lambda x: {"a": {"b": x + 1}, "a_b": x + 2}, ("a_b", "a_b_out")),
        (lambda x: {"a": {"b": x}, "a_b": x + 2, "a_b_out": x}, ("a_b", "a_b_out", "a_b_out_out")),
    ],
)
def test_output_names_are_unique_among_inputs_and_outputs(make: Any, names: Any) -> None:
    assert example_call.check_example(called(Outputs(make), torch.ones(2)))[0] == names


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (AssertionError("Torch not compiled with CUDA enabled"), "x.device"),
        (ImportError("flash_attn needs CUDA 12"), "Mend that line"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "Give inputs"),
    ],
)
def test_what_the_module_raises_has_its_own_remedy(error: Exception, remedy: str) -> None:
    def raising(_: torch.Tensor) -> Any:
        raise error

    with pytest.raises(InputError) as caught:
        example_call.check_example(called(Outputs(raising), torch.ones(2)))
    assert remedy in caught.value.remedy


def test_notes_tell_what_is_left_out() -> None:
    module = Outputs(lambda x: (x + 1, None, 5)).train()
    loaded = called(module, torch.ones(2))
    with pytest.raises(LostOutputError, match=r"returns output_2 \(int\), which is no tensor"):
        capture.capture(loaded)
    loaded = called(module, torch.ones(2))
    loaded.flat.dropped = ("output_2",)
    found = capture.capture(loaded)
    assert found.notes == (
        "the output output_1 is None and was left out",
        "the output output_2 is left out, as asked for",
        "the module was in train mode; it was exported in eval mode",
    )
    loaded.flat.eval()
    assert capture.capture(loaded).notes == found.notes[:2]


class Refusing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ x


def test_an_example_that_the_module_refuses() -> None:
    with pytest.raises(InputError) as caught:
        capture.capture(called(Refusing(), torch.ones(2, 3)))
    assert "refuses the example input (x[2, 3]): RuntimeError" in caught.value.message
    assert line_of(caught.value) == "return x @ x"
    assert caught.value.exit_code is ExitCode.USAGE


class Misspelled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upp(x)


@pytest.mark.parametrize(
    ("module", "remedy"), [(Misspelled(), "Mend that line"), (Refusing(), "Give inputs that")]
)
def test_the_remedy_goes_by_whose_fault_it_is(module: nn.Module, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        capture.capture(called(module, torch.ones(2, 3)))
    assert caught.value.remedy.startswith(remedy)


@pytest.mark.parametrize("outputs", [None, (), {"a": 5}])
def test_a_module_that_returns_no_tensor(outputs: Any) -> None:
    with pytest.raises(InputError, match="returns no tensor"):
        capture.capture(called(Outputs(lambda x: outputs), torch.ones(2)))


def test_a_lazy_layer_that_never_ran_is_refused_where_no_copy_can_run() -> None:
    class NoCopy(nn.Sequential):
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError

    layers = nn.LazyLinear(2), nn.LazyBatchNorm1d()
    with pytest.raises(InputError, match=r"0\.weight has no values yet"):
        capture.capture(called(NoCopy(*layers).eval(), torch.ones(2, 3)))
    module = nn.Sequential(*layers).eval()
    assert capture.capture(called(module, torch.ones(2, 3))).strategy == "non-strict"
    assert nn.parameter.is_lazy(module[0].weight)


def test_the_example_is_not_written_to() -> None:
    given = torch.ones(2)
    loaded = called(Outputs(lambda x: x.add_(1)), given)
    capture.capture(loaded)
    assert torch.equal(given, torch.ones(2))
    assert torch.equal(loaded.tensors[0], torch.ones(2))


# --- what stood there before ------------------------------------------------------------------


class Restless(nn.Module):
    """Random, in train mode in part, and with buffers that change when it runs."""

    def __init__(self, error: str = "") -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("count", torch.zeros(1))
        self.register_buffer("steps", torch.zeros(1))
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.rand(3)
        self.count += 1
        self.steps = self.steps + 1
        if self.error == "example":
            raise ValueError("refused")
        if self.error == "capture" and x.sum() > 0:
            x = x + 1
        return self.norm(self.drop(x))


def state_of(module: nn.Module) -> str:
    return repr(
        (
            [child.training for child in module.modules()],
            [(name, id(buffer), buffer.tolist()) for name, buffer in module.named_buffers()],
            [(name, id(weight), weight.grad) for name, weight in module.named_parameters()],
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_default_dtype(),
        )
    )


@pytest.mark.parametrize(
    ("error", "raised"), [("", None), ("example", InputError), ("capture", CaptureError)]
)
def test_all_is_as_it_was(error: str, raised: type[Exception] | None) -> None:
    module = Restless(error).train()
    module.norm.eval()
    before = state_of(module)
    loaded = specified(module, "x:float32[N=1..8,3]")
    if raised is None:
        assert capture.capture(loaded).strategy == "non-strict"
    else:
        with pytest.raises(raised):
            capture.capture(loaded)
    assert state_of(module) == before


@jit_is_deprecated
def test_all_is_as_it_was_after_a_trace() -> None:
    module = nn.Sequential(Restless(), Scripted()).train()
    before = state_of(module[0])
    assert capture.capture(specified(module, "input:float32[4,3]")).strategy == "torchscript"
    assert state_of(module[0]) == before


class DownAndUp(nn.Module):
    """Halves an image twice and doubles it again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = nn.functional.max_pool2d(x, 2)
        quarter = nn.functional.max_pool2d(half, 2)
        up = nn.functional.interpolate(quarter, scale_factor=2) + half
        return nn.functional.interpolate(up, scale_factor=2) + x


@pytest.mark.parametrize(
    "dims", ["H=32..128,W=32..128", "2*H=16..64,2*W=16..64", "H=30..128,W=32..128"]
)
def test_the_multiples_that_a_module_takes_are_named(dims: str) -> None:
    with pytest.raises((CaptureError, InputError)) as caught:
        capture.capture(specified(DownAndUp(), f"x:float32[N=1..3,1,{dims}]"))
    words = r"it takes [\d, ]+: write (4\*H=8..32, 4\*W=8..32)\b"
    written = re.search(words, caught.value.remedy)
    assert written is not None
    found = capture.capture(specified(DownAndUp(), f"x:float32[N=1..3,1,{written[1]}]"))
    assert found.program is not None


def test_sizes_that_must_be_equal_are_no_multiples() -> None:
    class Sum(nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a + b

    specs = ["a:float32[N=2..9,4]", "b:float32[M=2..9,4]"]
    with pytest.raises(InputError) as caught:
        capture.capture(specified(Sum(), *specs))
    assert "one name for sizes that are equal" in caught.value.remedy


class NeverOdd(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[0] <= 40, "too many"
        return x + x.view(-1, 4).sum(0)


def test_a_module_that_takes_no_multiple_names_none() -> None:
    with pytest.raises(CaptureError) as caught:
        capture.capture(specified(NeverOdd(), "x:float32[N=2..64,4]"))
    assert "it takes" not in caught.value.remedy.partition(". ")[0]
