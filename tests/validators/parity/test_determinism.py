"""Why a module gives something else the second time, and whether a file could follow it."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch2mobile.records import Check, LoadedModel, ParityOptions, Status
from torch2mobile.validators.parity import determinism, probes, reference_check
from torch2mobile.validators.parity.expected import Expected
from torch2mobile.validators.parity.reference import accepted, evaluate, example_of

Load = Callable[..., LoadedModel]
SPEC = "x:float32[N=2..5,4]"


class Dropped(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5)


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.empty_like(x).uniform_() * 1e-6


class ByNumpy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(np.random.rand())


class Outside(nn.Module):
    clock = itertools.count()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + next(self.clock)


class Counts(nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


class FirstSize(nn.Module):
    """Keeps the size of its first call, and computes with it in all others."""

    size: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.size is None:
            self.size = x.shape[0]
        return x * self.size


class Appends(nn.Module):
    """Keeps a list that grows in place."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(1)
        return x * len(self.seen)


class Narrow(nn.Module):
    """Keeps a plain tensor, which no float64 copy of the module has in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.kept = torch.zeros(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.kept = torch.tanh(self.layer(x[:2]) + torch.mm(self.kept, self.layer.weight))
        return self.kept


class Buffer(nn.Module):
    """The second call with the same input gives the same; one after another input does not."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.where(self.last.abs().sum() > 0, self.last, x.sum(0)) + x
        self.last.copy_(x.sum(0))
        return out


class Cache(nn.Module):
    """Keeps what it has seen in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: deque[torch.Tensor] = deque(maxlen=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = deque([*self.seen, x], maxlen=3)
        return torch.stack(list(self.seen)).sum(0)


class WearsOut(nn.Module):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 3:
            raise RuntimeError("no more room")
        return x + 1


class Telltale(nn.Module):
    """Counts, and nothing follows the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x.relu()


class Statistics(nn.Module):
    """Batch normalisation that eval() does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)


def expected_of(load: Load, module: nn.Module) -> tuple[LoadedModel, list[Expected]]:
    loaded = load(module, SPEC)
    built = probes.build(loaded.specs, example_of(loaded), ParityOptions())
    found = evaluate(loaded, ["y"], built)
    return loaded, accepted(found)


def state_of(load: Load, module: nn.Module) -> tuple[tuple[str, ...], Check]:
    loaded, expected = expected_of(load, module)
    changed = determinism.changed_state(loaded, expected[0].probe)
    return changed, reference_check.state_check(changed, *determinism.sequence(loaded, expected))


@pytest.mark.parametrize(
    ("module", "cause", "op"),
    [
        (Dropped, "random", "aten.bernoulli_.float"),
        (Noisy, "random", "aten.uniform_.default"),
        (ByNumpy, "random", "aten.mul.Tensor"),
        (Outside, "outside", "aten.add.Tensor"),
        (Counts, "state", "aten.mul.Tensor"),
        (Cache, "state", "aten.stack.default"),
        (Appends, "state", "aten.mul.Tensor"),
    ],
)
def test_the_cause_and_the_operation(load: Load, module: Any, cause: str, op: str) -> None:
    loaded, expected = expected_of(load, module())
    found = determinism.diagnose(loaded, expected[0].probe)
    assert found.cause == cause
    assert [step.op for step in found.steps] == [op]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (Counts, ("calls",)),
        (Buffer, ("last",)),
        (Cache, ("seen",)),
        (Appends, ("seen",)),
        (Narrow, ("kept",)),
        (Telltale, ("calls",)),
        (Statistics, ("norm.running_mean", "norm.running_var")),
        (Dropped, ()),
        (nn.Sequential, ()),
    ],
)
def test_what_a_call_leaves_changed(load: Load, module: Any, names: tuple[str, ...]) -> None:
    loaded = load(nn.Sequential(nn.Linear(4, 4)) if module is nn.Sequential else module(), SPEC)
    probe = probes.Probe("p", example_of(loaded))
    assert determinism.changed_state(loaded, probe) == names
    # And nothing of it is left.
    assert determinism.changed_state(loaded, probe) == names


@pytest.mark.parametrize("module", [Counts, Buffer, Cache, Appends, Narrow])
def test_a_file_cannot_follow_state_that_outputs_depend_on(load: Load, module: Any) -> None:
    changed, check = state_of(load, module())
    assert check.status is Status.FAILED
    assert changed[0] in check.summary
    assert "input and an output" in check.hint
    assert all("in a row" in mismatch.probe for mismatch in check.mismatches)


def test_what_is_kept_of_the_first_calls_sizes(load: Load) -> None:
    changed, check = state_of(load, FirstSize())
    assert check.status is Status.FAILED
    assert changed == ("size",)
    assert check.mismatches[0].probe.startswith("call 7 in a row")


def test_state_that_shows_only_after_another_input(load: Load) -> None:
    """Calls 1 and 2 are of the same input: no difference yet."""
    _, check = state_of(load, Buffer())
    assert next(m.probe.split(" (")[0] for m in check.mismatches) == "call 3 in a row"


def test_a_call_that_raises_later_is_a_mismatch(load: Load) -> None:
    _, check = state_of(load, WearsOut())
    assert check.status is Status.FAILED
    assert "no more room" in check.mismatches[0].problem
    assert check.mismatches[0].probe.startswith("call 4 in a row")


@pytest.mark.parametrize("module", [Telltale, Statistics])
def test_state_that_no_output_follows_passes(load: Load, module: Any) -> None:
    _, check = state_of(load, module())
    assert check.status is Status.PASSED
    assert "7 calls in a row" in check.summary


def test_the_operation_that_writes_a_buffer(load: Load) -> None:
    loaded, expected = expected_of(load, Telltale())
    found = determinism.writers(loaded, expected[0].probe, ["calls", "absent"])
    assert {name: step.op for name, step in found.items()} == {"calls": "aten.add_.Tensor"}
    assert loaded.module.calls == 0


def test_the_truth_starts_anew_on_every_probe_too(load: Load) -> None:
    _, expected = expected_of(load, Buffer())
    for case in expected:
        known = case.sure().case.known(0)
        assert known.truth is not None
        np.testing.assert_allclose(known.want, known.truth, rtol=1e-5, atol=1e-3)


def test_the_first_nan(load: Load) -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.log(x)

    loaded = load(nn.Sequential(nn.ReLU(), nn.Sequential(Inner(), nn.ReLU())), SPEC)
    probe = probes.Probe("p", {"x": np.ones((2, 4), np.float32)})
    assert determinism.first_nan(loaded, probe) is None
    inner = load(nn.Sequential(Inner(), nn.ReLU()), SPEC)
    step = determinism.first_nan(inner, probes.Probe("p", {"x": np.full((2, 4), -1, np.float32)}))
    assert step is not None
    assert (step.op, step.module) == ("aten.log.default", "0")


class Left(nn.Module):
    """A new head after eval(), as it happens."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.eval()
        self.head = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize(
    ("layers", "status"),
    [
        ((nn.Linear(4, 2),), Status.PASSED),
        ((nn.Dropout(0.5),), Status.FAILED),
        ((nn.BatchNorm1d(4),), Status.FAILED),
    ],
)
def test_a_part_left_in_train_mode_is_said_and_fails_where_outputs_follow(
    load: Load, layers: Any, status: Status
) -> None:
    loaded, expected = expected_of(load, Left(*layers))
    left = determinism.left_in_train_mode(loaded)
    assert left == ("head",)
    modes = determinism.in_its_own_modes(loaded, expected[0])
    check = reference_check.modes_check(left, expected, modes)
    assert check.status is status
    assert check.summary.startswith("head is in train mode")
    assert bool(check.mismatches) is (status is Status.FAILED)
    assert loaded.module.head.training


def test_modes_are_of_no_interest_where_all_are_one(load: Load) -> None:
    for module in (Left(nn.Dropout()).eval(), Left(nn.Dropout()).train()):
        assert determinism.left_in_train_mode(load(module, "x:float32[N,4]")) == ()
