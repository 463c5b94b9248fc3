"""What runs are copies: in a fresh state each time, and never the module that was passed in."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import math
import os
import random
import sys
import threading
import types
import warnings
import weakref
import zlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torch2mobile.copies import Copies, calm, fresh
from torch2mobile.errors import InputError
from torch2mobile.exporter import assumptions, capture
from torch2mobile.exporter.loading import source
from torch2mobile.records import LoadedModel, ParityOptions, Request
from torch2mobile.sample_models import SAMPLES
from torch2mobile.snapshot import Snapshot
from torch2mobile.validators.parity import determinism, probes, reference

X = torch.linspace(-1, 1, 16).reshape(2, 8)


def loaded(module: nn.Module, *args: Any) -> LoadedModel:
    return source.from_call("model", module, args or (X,), {})


def called(module: nn.Module, *args: Any) -> torch.Tensor:
    """As a user calls it."""
    with torch.no_grad():
        found: torch.Tensor = module.eval()(*(args or (X,)))
    return found


def outputs(model: LoadedModel, times: int = 1) -> list[torch.Tensor]:
    with fresh(model) as own:
        return [own.flat(*(t.clone() for t in model.tensors))[0] for _ in range(times)]


def told(value: Any, depth: int = 9) -> Any:
    """What a value is and holds."""
    if isinstance(value, torch.Tensor):
        if nn.parameter.is_lazy(value):
            return "lazy"
        data = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        grad = told(value.grad) if value.is_leaf else None
        return id(value), zlib.crc32(data), value.requires_grad, grad
    if isinstance(value, bool | int | float | str | type(None)):
        return value
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes()
    if not depth or isinstance(value, nn.Module | type | types.ModuleType):
        return id(value)
    return id(value), [(repr(key), told(held, depth - 1)) for key, held in held_by(value)]


def held_by(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple | set | deque):
        return enumerate(value)
    if isinstance(value, types.FunctionType):
        return enumerate(cell.cell_contents for cell in value.__closure__ or ())
    slots = {name: getattr(value, name, None) for name in getattr(value, "__slots__", None) or ()}
    return {**getattr(value, "__dict__", {}), **slots}.items()


def digest(module: nn.Module) -> list[tuple[str, Any]]:
    """All that a module and its class hold, but by another way than the product's."""
    found = []
    for path, child in module.named_modules():
        own = [(k, told(v)) for k, v in vars(type(child)).items() if k != "__slotnames__"]
        found.append((f"class of {path}", own))
        found += [(f"{path}.{name}", told(value)) for name, value in vars(child).items()]
    return found


# TorchDynamo, where it is asked for the first time, replaces these of nn.Module for good.
DYNAMOS = {"___needs_generation_tag_patch", "__init__", "__setstate__"}


def surroundings() -> list[Any]:
    """What our tools patch while they run, hooks of all modules, seeds and modes."""
    places = (
        *(
            nn.Module,
            nn.functional,
            nn.modules.transformer,
            nn.modules.rnn,
            nn.utils.rnn,
            nn.RNNBase,
        ),
        *(nn.LSTM, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention),
        *(torch.Tensor, torch.fx.Graph),
        *(torch.fx.proxy.TracerBase, ShapeEnv, math),
    )
    hooks = nn.modules.module
    return [
        *[
            {name: id(value) for name, value in vars(place).items() if name not in DYNAMOS}
            for place in places
        ],
        {name: list(v) for name, v in vars(hooks).items() if name.startswith("_global") and v},
        list(warnings.filters),
        (torch.get_num_threads(), torch.backends.mkldnn.enabled, sys.path[:], dict(os.environ)),
        torch.get_rng_state().tolist(),
        str(np.random.get_state()),
        random.getstate(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.backends.mha.get_fastpath_enabled(),
    ]


class InstallsHooks(nn.Module):
    """The first call puts in hooks that hold the module, as some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not getattr(self, "installed", False):
            for layer in self.layers:
                layer.register_forward_hook(lambda _m, _a, output: self.seen.append(output))
            self.installed = True
        self.seen.clear()
        for layer in self.layers:
            x = layer(x).relu()
        return self.seen[-2]


class Features(nn.Module):
    """Hooks of all kinds that were put in when the module was built."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        self.kept: dict[str, torch.Tensor] = {}
        more: list[torch.Tensor] = []
        self.more = more

        def keep(_m: Any, _a: Any, output: torch.Tensor) -> None:
            more[:] = [output]

        self.handles = [
            self.body[0].register_forward_hook(lambda _m, _a, o: self.kept.update(first=o)),
            self.body[1].register_forward_hook(functools.partial(keep)),
            self.body[2].register_forward_hook(self.double),
        ]

    def double(self, _m: Any, _a: Any, output: torch.Tensor) -> torch.Tensor:
        return output * len(self.kept)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + 2 * self.kept["first"] + 3 * self.more[0]


class Patched(nn.Module):
    """A forward that was replaced on the object, by one that calls the old one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.calls = 0
        old = self.layer.forward

        def forward(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return old(x) * self.calls

        self.layer.forward = types.MethodType(forward, self.layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Settings:
    """An object of the user's."""

    def __init__(self) -> None:
        self.nested = {"scale": [1.0]}


class Slotted:
    __slots__ = ("scale",)

    def __init__(self) -> None:
        self.scale = 1.0


class Deep(nn.Module):
    """State where nobody looks: in an object's list, slots, closures, iterators, behind methods."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.settings, self.slotted = Settings(), Slotted()
        self.count, self.lock = itertools.count(1), threading.Lock()
        self.array = np.ones(1)
        self.history: list[float] = []
        self.push = self.history.append
        total = 0

        def add() -> int:
            nonlocal total
            total += 1
            return total

        self.add = add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            self.settings.nested["scale"][0] += 1
            self.slotted.scale += 1
            self.array += 1
            self.push(1.0)
        factor = self.settings.nested["scale"][0] + self.slotted.scale + float(self.array[0])
        return self.layer(x) * factor * self.add() * len(self.history) * next(self.count)


class WritesData(nn.Module):
    """What goes through .data raises no version counter."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer.weight.data.mul_(2)
        return self.layer(x)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.LSTM(8, 4), nn.BatchNorm1d(4)
        self.register_buffer("nan", torch.full((1,), float("nan")))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.layer(x)[0])


STRANGE: list[Callable[[], nn.Module]] = [
    InstallsHooks,
    Features,
    Patched,
    Deep,
    WritesData,
    Plain,
    lambda: nn.utils.weight_norm(nn.Linear(8, 4)),
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(8, 4)),
    lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 4)),
]
ignore_old = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@ignore_old
@pytest.mark.parametrize("make", STRANGE)
@pytest.mark.parametrize("used", [False, True], ids=["new", "called before"])
def test_each_call_is_what_the_users_own_next_call_gives(
    make: Callable[[], nn.Module], used: bool
) -> None:
    module, twin = seeded(make).eval(), seeded(make)
    if used:
        called(module), called(twin)
    before = digest(module)
    model = loaded(module)
    found = [outputs(model)[0] for _ in range(3)]
    assert digest(module) == before
    wanted = called(twin)
    assert all(torch.equal(one, wanted) for one in found)
    assert not model.copies.notes


@ignore_old
@pytest.mark.parametrize("make", STRANGE)
def test_calls_in_a_row_are_those_of_the_users_module(make: Callable[[], nn.Module]) -> None:
    twin = seeded(make)
    found = outputs(loaded(seeded(make)), times=3)
    assert all(torch.equal(one, called(twin)) for one in found)


def test_a_copy_that_nothing_changed_is_used_again() -> None:
    model = loaded(Plain())
    seen = []
    for _ in range(3):
        with fresh(model) as own:
            own.flat(X)
            seen.append(weakref.ref(own.module))
    assert seen[0]() is seen[1]() is seen[2]() is not None
    with fresh(model, "observed") as own:
        assert own.module is not seen[0]()
    for _ in range(2):
        with fresh(model, "scratch") as own:
            assert own.module is not seen[0]()
            assert own.module is not model.module
    assert not model.copies.changing


def test_the_memory_of_a_float64_copy_is_given_back_and_made_again() -> None:
    model = loaded(nn.Linear(8, 8))
    with fresh(model, "float64") as own:
        first = weakref.ref(own.flat)
    del own
    assert first() is not None
    model.copies.without_float64()
    gc.collect()
    assert first() is None
    with fresh(model, "float64") as own:
        assert own.flat(X.double())[0].dtype == torch.float64


def test_two_at_a_time_are_two() -> None:
    model = loaded(Plain())
    with fresh(model) as one, fresh(model) as other:
        assert one.module is not other.module


def test_weights_share_memory_among_copies_and_not_with_the_module() -> None:
    module = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    module[1].weight = module[0].weight
    model = loaded(module)
    with fresh(model) as one, fresh(model) as other:
        pairs = zip(one.module.parameters(), other.module.parameters(), strict=True)
        assert all(a.data_ptr() == b.data_ptr() and a is not b for a, b in pairs)
        assert one.module[0].weight.data_ptr() != module[0].weight.data_ptr()
        assert one.module[1].weight is one.module[0].weight
        assert type(one.module[0].weight) is nn.Parameter


def test_an_embedding_that_renormalises_its_weights() -> None:
    module = nn.Embedding(10, 4, max_norm=0.5)
    ids = torch.tensor([1, 2, 3])
    wanted, before = called(copy.deepcopy(module), ids), digest(module)
    model = loaded(module, ids)
    assert all(torch.equal(outputs(model)[0], wanted) for _ in range(3))
    assert digest(module) == before


def test_weights_that_are_too_large_to_copy_are_not_written_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch2mobile.copies.PRIVATE_WEIGHT_BYTES", 10)
    assert torch.equal(outputs(loaded(module := nn.Linear(8, 8)))[0], called(module))
    ids = torch.tensor([1, 2, 3])
    with pytest.raises(InputError, match="writes to its weights"):
        outputs(loaded(nn.Embedding(10, 4, max_norm=0.5), ids))


class HoldsItself(nn.Module):
    """A hook that names the module as a global variable: no copy can have a hook of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.layer(x)
        return self.seen[-1] * len(self.seen)


THE_ONE = HoldsItself()
THE_ONE.layer.register_forward_hook(lambda _m, _a, output: THE_ONE.seen.append(output))


class NoCopy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.calls = 0

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("not this one")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.layer.weight.data.mul_(2)
        return self.layer(x) * self.calls


@pytest.mark.parametrize(
    ("module", "why"), [(THE_ONE, "keeps a hold on the module"), (NoCopy(), "not this one")]
)
def test_a_module_without_a_copy_runs_itself_and_the_verdict_is_weaker(
    module: nn.Module, why: str
) -> None:
    before = digest(module)
    model = loaded(module)
    found = [outputs(model)[0] for _ in range(3)]
    assert digest(module) == before
    assert all(torch.equal(one, called(module)) for one in found[:1])
    assert all(torch.equal(one, found[0]) for one in found)
    assert len(model.copies.notes) == 1
    assert model.copies.notes[0].startswith("weaker: ")
    assert why in model.copies.notes[0]


def test_where_the_source_is_named_it_is_loaded_anew(tmp_path: Any) -> None:
    (tmp_path / "net.py").write_text(
        """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.calls = 0
    def __deepcopy__(self, memo):
        raise TypeError("not this one")
    def forward(self, x):
        self.calls += 1
        return self.layer(x) * self.calls

net = Net()
"""
    )
    request = Request(source=f"{tmp_path}/net.py:net", inputs=("x:float32[2,8]",))
    model = source.load(request, SAMPLES)
    first, second = (outputs(model)[0] for _ in range(2))
    assert model.module.calls == 0
    assert not model.copies.notes
    assert torch.equal(first, second)
    assert torch.equal(first, called(model.module, *model.tensors))


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_a_lazy_layer_is_warmed_up_by_one_call_of_a_copy() -> None:
    module = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.ReLU())
    before, seeds = digest(module), torch.get_rng_state()
    model = loaded(module)
    found = [outputs(model)[0] for _ in range(2)]
    assert torch.equal(*found)
    assert torch.equal(found[0], outputs(loaded(module))[0])
    assert digest(module) == before
    assert torch.equal(torch.get_rng_state(), seeds)
    assert "0.weight had no values yet" in model.copies.notes[0]


class Builds(nn.Module):
    """What is built at first cannot be captured; what is there can."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            self.table = torch.from_numpy(np.asarray(x.detach().numpy().shape, dtype=np.float32))
        return x * self.table.sum()


def test_what_a_first_call_builds_can_be_captured_after_it() -> None:
    found = capture.capture(loaded(Builds()))
    assert found.strategy == "non-strict after a call"
    assert [a.succeeded for a in found.attempts] == [False, False, True]
    assert not hasattr(found.loaded.module, "cache")
    assert found.loaded.module.table is None


def renormalising() -> nn.Module:
    return nn.Embedding(10, 4, max_norm=0.5)


@pytest.mark.parametrize("cls", [InstallsHooks, Features, Deep, Plain, renormalising])
def test_nothing_of_a_run_is_left_in_the_module(cls: Callable[[], nn.Module]) -> None:
    """Capture, reference, float64, coarse sums, recordings and the search for state."""
    module = seeded(cls).train()
    before, around = digest(module), surroundings()
    model = loaded(module, *([torch.tensor([1, 2, 3])] if cls is renormalising else []))
    capture.capture(model)
    built = probes.build(model.specs, reference.example_of(model), ParityOptions(probes=4))
    for item in reference.evaluate(model, ["output"], built):
        assert item.rough is not None
        item.rough()
        if item.later is not None:
            item.later()
    determinism.diagnose(model, built[0])
    determinism.writers(model, built[0], determinism.changed_state(model, built[0]))
    assumptions.decided(model)
    assert digest(module) == before
    assert surroundings() == around


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_no_sample_is_changed_by_an_export(name: str, tmp_path: Any) -> None:
    import torch2mobile

    sample = source.load(Request(source=f"sample:{name}"), SAMPLES)
    before, around = digest(sample.module), surroundings()
    torch2mobile.export(sample.module, sample.tensors, out=tmp_path / "out", simplify=False)
    torch2mobile.check(sample.module, sample.tensors)
    assert digest(sample.module) == before
    assert surroundings() == around


@pytest.mark.slow
@pytest.mark.parametrize("make", [InstallsHooks, Features, Deep, renormalising])
def test_no_strange_module_is_changed_by_any_command(make: Any, tmp_path: Any) -> None:
    import torch2mobile

    module = seeded(make)
    given = (torch.tensor([1, 2, 3]) if make is renormalising else X,)
    before, around = digest(module), surroundings()
    result = torch2mobile.export(module, given, out=tmp_path / "out", targets=[], simplify=False)
    torch2mobile.check(module, given)
    if result.passed:
        torch2mobile.verify(tmp_path / "out", module, given)
    assert digest(module) == before
    assert surroundings() == around


CHANGES: dict[str, Callable[[Any], Any]] = {
    "hook": lambda m: m.layer.register_forward_hook(lambda *_: None),
    "hook before": lambda m: m.layer.register_forward_pre_hook(lambda *_: None),
    "hook of gradients": lambda m: m.layer.register_full_backward_hook(lambda *_: None),
    "hook of states": lambda m: m.layer.register_state_dict_post_hook(lambda *_: None),
    "weight": lambda m: m.layer.weight.data.add_(1),
    "gradient": lambda m: setattr(m.layer.weight, "grad", torch.ones(8, 8)),
    "asks for gradients": lambda m: m.layer.weight.requires_grad_(requires_grad=False),
    "mode": lambda m: m.layer.eval(),
    "attribute of an object": lambda m: m.settings.nested["scale"].append(2.0),
    "slot": lambda m: setattr(m.slotted, "scale", 2.0),
    "array": lambda m: m.array.fill(3),
    "closure": lambda m: m.add(),
    "class": lambda m: type(m).shared.append(1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_of_these_tests_sees_a_change(change: str) -> None:
    class Shared(Deep):
        shared: ClassVar[list[int]] = []

    module = Shared()
    before = digest(module)
    assert digest(module) == before
    CHANGES[change](module)
    assert digest(module) != before


# --- snapshots --------------------------------------------------------------------------------


def test_a_snapshot_sees_a_change_at_any_depth() -> None:
    module = Deep()
    module.pair, module.last = ({"a": [1]}, frozenset({2})), deque([1], maxlen=2)
    module.table = OrderedDict(x={1, 2})

    changes: list[Callable[[], Any]] = [
        lambda: module.settings.nested["scale"].append(1),
        lambda: setattr(module.slotted, "scale", 3),
        module.add,
        lambda: module.array.__setitem__(0, 7),
        lambda: module.pair[0]["a"].append(1),
        lambda: module.last.append(2),
        lambda: module.table["x"].add(3),
        lambda: module.layer.register_forward_hook(lambda *_: None),
        lambda: module.layer.train(mode=not module.layer.training),
        lambda: module.layer.bias.detach().add_(1),
        lambda: setattr(module.layer, "extra", nn.ReLU()),
        lambda: setattr(module, "settings", Settings()),
    ]
    for change in changes:
        snapshot = Snapshot(module)
        assert not snapshot.changed()
        change()
        assert snapshot.changed()


def test_what_cannot_be_looked_into_is_told() -> None:
    assert not Snapshot(Deep()).seeing
    assert Snapshot(Plain()).seeing
    assert Snapshot(nn.TransformerEncoderLayer(8, 2)).seeing
    assert Snapshot(nn.Conv2d(1, 1, 1)).seeing


# --- surroundings -----------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_seeds_modes_and_dtype_are_put_back(fails: bool) -> None:
    around = surroundings()
    try:
        with calm():
            assert not torch.is_grad_enabled()
            torch.rand(1), np.random.rand(), random.random()
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(True)
            if fails:
                raise ZeroDivisionError
    except ZeroDivisionError:
        assert fails
    assert surroundings() == around


def test_training_goes_on_afterwards() -> None:
    module = nn.Linear(8, 2)
    assert not outputs(loaded(module))[0].requires_grad
    module(X).sum().backward()
    assert module.weight.grad is not None
    assert module.training


@ignore_old
def test_modules_with_a_mind_of_their_own() -> None:
    """A scripted module and a saved program copy themselves in their own ways."""
    scripted = torch.jit.script(nn.BatchNorm1d(8))
    program = torch.export.export(nn.BatchNorm1d(8).eval(), (X,)).module()
    for module in (nn.Sequential(scripted), program):
        copies = Copies(source.FlatModule(module, ((source.Slot(0),), {})))
        before = {key: value.clone() for key, value in module.named_buffers()}
        for _ in range(2):
            with calm(), copies.lend("reference") as flat:
                found = flat(X)[0]
                assert torch.equal(found, nn.BatchNorm1d(8).eval()(X))
                for buffer in flat.buffers():
                    buffer.fill_(9)
        torch.testing.assert_close(dict(module.named_buffers()), before, rtol=0, atol=0)
    assert scripted.training
