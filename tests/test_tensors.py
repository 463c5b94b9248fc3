"""torch at arm's length: numpy in and out, and the process left as it was."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from collections import deque
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from torch2mobile.errors import InputError
from torch2mobile.tensors import dtype_name, quiet, to_numpy, to_torch, untouched

DTYPES = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.int8: np.int8,
    torch.int16: np.int16,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.uint8: np.uint8,
    torch.bool: np.bool_,
}


# --- conversions ------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "numpy"), DTYPES.items(), ids=str)
def test_there_and_back(dtype: torch.dtype, numpy: Any) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 4, 100]]).to(dtype)
    array = to_numpy(tensor)
    assert array.dtype == np.dtype(numpy)
    assert dtype_name(tensor) == dtype_name(array) == np.dtype(numpy).name
    back = to_torch(array)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_bfloat16_keeps_every_bit() -> None:
    values = [1 / 3, -0.0, 3e38, 1e-40, float("inf"), float("-inf")]
    tensor = torch.tensor(values, dtype=torch.bfloat16)
    assert torch.equal(to_torch(to_numpy(tensor)).view(torch.int16), tensor.view(torch.int16))


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(2, dtype=torch.complex64),
        np.ones(2, np.complex64),
        np.ones(2, np.uint16),
        np.ones(2, ">f4"),
        np.array(["a"]),
        np.array([{}], dtype=object),
    ],
    ids=lambda value: str(value.dtype),
)
def test_other_dtypes_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="cannot be exported") as caught:
        dtype_name(value)
    assert "float32" in caught.value.remedy


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.ones(2, requires_grad=True), id="with gradient"),
        pytest.param(torch.arange(6.0).reshape(2, 3).T, id="not contiguous"),
        pytest.param(torch.ones(1).expand(3), id="expanded"),
        pytest.param(torch.tensor([1 + 2j]).conj().imag, id="neg"),
        pytest.param(torch.tensor(2.5), id="scalar"),
        pytest.param(torch.ones(0, 3), id="empty"),
        pytest.param(nn.Parameter(torch.ones(2)), id="parameter"),
    ],
)
def test_any_tensor_becomes_a_plain_array(tensor: torch.Tensor) -> None:
    array = to_numpy(tensor)
    assert array.flags.c_contiguous
    assert array.shape == tuple(tensor.shape)
    assert array.tolist() == tensor.tolist()


def test_to_torch_copies() -> None:
    array = np.arange(6.0)[::-2]
    array.flags.writeable = False
    tensor = to_torch(array)
    tensor += 1
    assert array.tolist() == [5, 3, 1]
    assert tensor.tolist() == [6, 4, 2]


# --- quiet ------------------------------------------------------------------------------------


def test_quiet_keeps_everything_from_the_user(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("somebody.else")
    with quiet():
        sys.stdout.write("printed\n")
        sys.stderr.write("on stderr\n")
        warnings.warn("warned", stacklevel=1)
        log.error("logged")
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []
    # And afterwards all of it is heard again.
    sys.stdout.write("printed\n")
    log.error("logged")
    with pytest.warns(match="warned"):
        warnings.warn("warned", stacklevel=1)
    assert capsys.readouterr().out == "printed\n"
    assert len(caplog.records) == 1


def test_quiet_lets_errors_through_and_is_undone() -> None:
    disabled, filters = logging.root.manager.disable, list(warnings.filters)
    with pytest.raises(ZeroDivisionError), quiet():
        1 / 0  # noqa: B018
    assert logging.root.manager.disable == disabled
    assert list(warnings.filters) == filters


def test_quiet_keeps_a_threshold_that_the_user_set() -> None:
    logging.disable(logging.INFO)
    try:
        with quiet():
            assert logging.root.manager.disable == logging.ERROR
        assert logging.root.manager.disable == logging.INFO
    finally:
        logging.disable(logging.NOTSET)


# --- untouched --------------------------------------------------------------------------------


class Restless(nn.Module):
    """Changes all that untouched() promises to restore."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout()
        self.norm = nn.BatchNorm1d(3)
        self.calls = 0
        self.register_buffer("replaced", torch.zeros(3))
        self.register_buffer("written", torch.tensor([1.0, float("nan")]))
        self.register_buffer("removed", torch.zeros(1))
        self.register_buffer("empty", None)

    def disturb(self) -> None:
        self.cache = torch.ones(1)
        self.calls = 5
        random.random()
        np.random.rand()
        self.train()
        self.norm(torch.rand(4, 3))
        self.replaced = torch.ones(3)
        self.written.fill_(5)
        del self.removed
        self.empty = torch.ones(1)
        self.register_buffer("added", torch.zeros(1))
        torch.rand(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(True)


def state_of(module: nn.Module) -> dict[str, Any]:
    return {
        "modes": [child.training for child in module.modules()],
        "buffers": {key: value.tolist() for key, value in module.named_buffers()},
        "identities": [id(buffer) for buffer in module.buffers()],
        "names": {name: list(child._buffers) for name, child in module.named_modules()},
        "attributes": {name: set(vars(child)) for name, child in module.named_modules()},
        "calls": getattr(module, "calls", 0),
        "torch": torch.get_rng_state().tolist(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_all_is_as_it_was(fails: bool, grad: bool) -> None:
    module = Restless()
    module.norm.eval()
    before = repr(state_of(module))
    with torch.set_grad_enabled(grad):
        expected = repr(state_of(module))
        try:
            with untouched(module):
                assert not any(child.training for child in module.modules())
                assert not torch.is_grad_enabled()
                module.disturb()
                assert repr(state_of(module)) != expected
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert fails
        assert repr(state_of(module)) == expected
    assert repr(state_of(module)) == before


def test_a_module_can_be_made_fresh_in_between() -> None:
    module = Restless()
    with untouched(module) as freshen:
        start = repr(state_of(module))
        for _ in range(2):
            module.disturb()
            assert repr(state_of(module)) != start
            freshen()
            assert repr(state_of(module)) == start
    assert module.training


def test_weights_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recurrent layers keep a list of theirs beside torch's own."""
    copied: list[torch.Tensor] = []
    clone = torch.Tensor.clone

    def spy(tensor: torch.Tensor) -> torch.Tensor:
        copied.append(tensor)
        return clone(tensor)

    monkeypatch.setattr(torch.Tensor, "clone", spy)
    module = nn.Sequential(nn.LSTM(2, 3), nn.BatchNorm1d(3))
    with untouched(module):
        pass
    assert len(copied) == 3


def test_training_goes_on_afterwards() -> None:
    module = nn.Linear(3, 2)
    with untouched(module):
        assert not module(torch.rand(1, 3)).requires_grad
    module(torch.rand(1, 3)).sum().backward()
    assert module.weight.grad is not None


class Collector(nn.Module):
    """Keeps things in all kinds of containers, also in each other."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = [1, torch.zeros(2)]
        self.table: dict[str, Any] = {"a": [1], "b": 2}
        self.names = {"x"}
        self.last: deque[int] = deque([1, 2, 3], maxlen=3)
        self.pair = ([1], {"k": 1})
        self.both = (torch.zeros(2), torch.ones(1))
        self.weights = [nn.Parameter(torch.zeros(2))]
        self.table["array"] = np.zeros(3)
        self.register_buffer("grows", torch.zeros(2))
        self.layer: nn.Module = nn.Linear(1, 1)
        self.plain = torch.zeros(3)

    def collect(self) -> None:
        self.seen.append(2)
        self.seen[1].add_(1)
        self.table["a"].append(2)
        self.table["c"] = 3
        del self.table["b"]
        self.names.add("y")
        self.last.append(4)
        self.pair[0].clear()
        self.pair[1]["k"] = 2
        self.plain[1] = 5
        self.both[0].fill_(7)
        self.weights[0].data.fill_(3)
        self.table["array"][1] = 4
        self.grows.resize_(3)
        self.layer = nn.ReLU()


def test_what_containers_hold_is_put_back_in_place() -> None:
    module = Collector()
    before, seen, last = repr(vars(module)), module.seen, module.last
    with untouched(module):
        module.collect()
        assert repr(vars(module)) != before
    assert repr(vars(module)) == before
    assert module.seen is seen
    assert module.last is last
    assert module.last.maxlen == 3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_modules_with_a_mind_of_their_own() -> None:
    """Neither lets its buffers be put back by hand; the program's refuses eval()."""
    scripted = torch.jit.script(nn.BatchNorm1d(3))
    program = torch.export.export(nn.BatchNorm1d(3).eval(), (torch.rand(2, 3),)).module()
    for module in (scripted, program):
        before = {key: value.clone() for key, value in module.named_buffers()}
        with untouched(module):
            for buffer in module.buffers():
                buffer.fill_(9)
        torch.testing.assert_close(dict(module.named_buffers()), before, rtol=0, atol=0)
    assert scripted.training
