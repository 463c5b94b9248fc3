"""Modules that keep state, carried by the app: found, exported, proven over calls in a row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import torch2mobile
from torch2mobile.errors import InputError, UsageError
from torch2mobile.records import ParityOptions, Status

FAST: dict[str, Any] = {"simplify": False, "targets": (), "parity": ParityOptions(probes=2)}


class Cell(nn.Module):
    """A hidden state in a plain attribute."""

    INPUTS = ("x:float32[1,4]",)
    STATE = ("hidden",)

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(4, 5)
        self.hidden = torch.zeros(1, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.hidden = self.cell(x, self.hidden)
        return self.hidden * 2


class Chunks(nn.Module):
    """A buffer written in place, a counter beside it, a submodule, and a varying size."""

    INPUTS = ("x:float32[1,2,T=1..9]",)
    STATE = ("conv_tail", "conv_seen")

    def __init__(self) -> None:
        super().__init__()
        self.conv = Tail()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Tail(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(2, 3, 3)
        self.register_buffer("tail", torch.zeros(1, 2, 2))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.tail, x], -1)
        self.tail.copy_(x[..., -2:])
        self.seen += 1
        return self.layer(x) / self.seen


class Pair(nn.Module):
    """Two tensors of one shape in a tuple, which start out equal."""

    INPUTS = ("x:float32[1,3,4]",)
    STATE = ("hidden_0", "hidden_1")

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.hidden = (torch.zeros(1, 1, 5), torch.zeros(1, 1, 5))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        y, self.hidden = self.lstm(x, self.hidden)
        return y


class Cached(nn.Module):
    """Keys and values of a fixed length, and where the next ones go."""

    INPUTS = ("x:float32[1,1,6]",)
    STATE = ("keys", "values", "position")

    def __init__(self, length: int = 12, width: int = 6) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.register_buffer("keys", torch.zeros(1, length, width))
        self.register_buffer("values", torch.zeros(1, length, width))
        self.register_buffer("position", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("places", torch.arange(length))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.keys.index_copy_(1, self.position, self.key(x))
        self.values.index_copy_(1, self.position, self.value(x))
        scores = self.query(x) @ self.keys.mT
        scores = scores.masked_fill(self.places > self.position, -1e9)
        self.position += 1
        return scores.softmax(-1) @ self.values


KINDS = (Cell, Chunks, Pair, Cached)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[nn.Module]], Path]:
    """The bundle of a module, made once."""
    made: dict[type[nn.Module], Path] = {}

    def bundle(kind: Any) -> Path:
        if kind not in made:
            out = tmp_path_factory.mktemp("state") / kind.__name__
            torch.manual_seed(0)
            result = torch2mobile.export(
                kind().eval(), inputs=kind.INPUTS, state=True, out=out, **FAST
            )
            assert result.report.status is Status.PASSED, result.report
            made[kind] = out
        return made[kind]

    return bundle


def manifest_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_an_app_gives_what_the_module_gives_in_a_row(
    kind: Any, exported: Callable[[Any], Path]
) -> None:
    bundle = exported(kind)
    manifest = manifest_of(bundle)
    entries = manifest["state"]
    assert tuple(entry["input"] for entry in entries) == kind.STATE
    data = (bundle / "state.bin").read_bytes()
    state = {
        e["input"]: np.frombuffer(data[e["offset"] :][: e["size"]], e["dtype"]).reshape(e["shape"])
        for e in entries
    }
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    torch.manual_seed(0)
    module = kind().eval()
    for number in range(8):
        shape = [4 if dim == "T" else dim for dim in session.get_inputs()[0].shape]
        x = np.random.default_rng(number).standard_normal(shape, np.float32)
        found = dict(zip(names, session.run(None, {"x": x, **state}), strict=True))
        state = {e["input"]: found[e["output"]] for e in entries}
        with torch.no_grad():
            wanted = module(torch.from_numpy(x))
        np.testing.assert_allclose(found["output"], wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_what_was_passed_in_has_kept_its_state() -> None:
    module = Cell().eval()
    torch2mobile.check(module, inputs=Cell.INPUTS, state=True)
    assert not module.hidden.any()


def test_calls_in_a_row_are_golden(exported: Callable[[Any], Path]) -> None:
    cases = manifest_of(exported(Chunks))["golden"]
    rows = [case for case in cases if "in a row" in case["probe"]]
    assert len(rows) == 12
    carried = {"conv_tail": "conv_tail_next", "conv_seen": "conv_seen_next"}
    assert [case["carries"] for case in rows] == 2 * [{}, *[carried] * 5]
    result = torch2mobile.verify(exported(Chunks))
    assert result.report.status is Status.PASSED


# --- faults in the file, and in what is beside it -------------------------------------------------


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[-1]


def _swap_state(model: onnx.ModelProto) -> None:
    names = dict(zip(Pair.STATE, reversed(Pair.STATE), strict=True))
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = names.get(name, name)


def _swap_outputs(model: onnx.ModelProto) -> None:
    first, second = (output.name for output in list(model.graph.output)[-2:])
    names = {first: second, second: first}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for number, name in enumerate(values):
                values[number] = names.get(name, name)


def _count_by_two(model: onnx.ModelProto) -> None:
    """The position moves on by two, in the state alone."""
    last = model.graph.output[-1].name
    for node in model.graph.node:
        for number, name in enumerate(node.output):
            if name == last:
                node.output[number] = "one_on"
    two = onnx.numpy_helper.from_array(np.ones(1, np.int64), "one_more")
    model.graph.initializer.append(two)
    model.graph.node.append(onnx.helper.make_node("Add", ["one_on", "one_more"], [last]))


FAULTS = [
    (Cell, _drop_output),
    (Pair, _swap_state),
    (Pair, _swap_outputs),
    (Cached, _count_by_two),
]


@pytest.mark.parametrize(("kind", "fault"), FAULTS)
def test_a_fault_in_the_state_fails_the_replay_and_parity(
    kind: Any, fault: Any, exported: Callable[[Any], Path], tmp_path: Path
) -> None:
    bundle = exported(kind)
    model = onnx.load(bundle / "model.onnx")
    fault(model)
    onnx.save(model, tmp_path / "model.onnx")
    torch.manual_seed(0)
    options = {"inputs": kind.INPUTS, "state": True, "parity": FAST["parity"]}
    report = torch2mobile.verify(tmp_path / "model.onnx", kind().eval(), **options).report
    assert report.status is Status.FAILED
    copy = tmp_path / "bundle"
    copy.mkdir()
    for path in bundle.rglob("*"):
        if path.is_file():
            (copy / path.relative_to(bundle)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(bundle)).write_bytes(path.read_bytes())
    (copy / "model.onnx").write_bytes((tmp_path / "model.onnx").read_bytes())
    checks = torch2mobile.verify(copy).report.checks
    failed = {check.name for check in checks if check.status is Status.FAILED}
    assert failed > {"integrity"}


def test_another_start_fails_the_replay(exported: Callable[[Any], Path], tmp_path: Path) -> None:
    bundle = exported(Cached)
    for path in bundle.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(bundle)).parent.mkdir(exist_ok=True)
            (tmp_path / path.relative_to(bundle)).write_bytes(path.read_bytes())
    data = bytearray((bundle / "state.bin").read_bytes())
    data[-8] = 3  # the position
    (tmp_path / "state.bin").write_bytes(bytes(data))
    checks = torch2mobile.verify(tmp_path).report.checks
    (golden,) = [check for check in checks if check.name == "golden"]
    assert golden.status is Status.FAILED
    assert "call 1 in a row" in {item.probe for item in golden.mismatches}


# --- what cannot be state -------------------------------------------------------------------------


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


class Late(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = torch.zeros_like(x) if self.last is None else self.last
        self.last = x
        return x + last


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.past = torch.zeros(1, 0, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.past = torch.cat([self.past, x[:, None]], 1)
        return self.past.sum(1)


class Following(nn.Module):
    """Its state takes the input's batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.zeros(1, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = self.mean * 0.5 + x
        return self.mean * 1


@pytest.mark.parametrize(
    ("module", "batch", "words"),
    [
        (Counting(), "1", "calls is a Python number that changes (0 at first, then 1)"),
        (Late(), "1", "last is None at first and a tensor after a call"),
        (Growing(), "1", "past is float32[1, 0, 4] at first and float32[1, 1, 4] after a call"),
        (Following(), "N=1..3", "mean is float32[1, 4] at first and float32["),
        (nn.Linear(4, 4), "1", "Linear keeps no state"),
    ],
)
def test_what_cannot_be_state_is_named(
    module: nn.Module, batch: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        torch2mobile.export(
            module.eval(), inputs=[f"x:float32[{batch},4]"], state=True, out=tmp_path / "out"
        )
    assert words in caught.value.message
    assert caught.value.remedy
    if isinstance(module, Late):
        assert 'self.register_buffer("last", torch.zeros(1, 4))' in caught.value.remedy


def test_a_refused_example_is_told_as_without_the_option(tmp_path: Path) -> None:
    told = []
    for state in (False, True):
        with pytest.raises(InputError) as caught:
            torch2mobile.export(
                Cell().eval(), inputs="x:float32[1,7]", state=state, out=tmp_path / "out", **FAST
            )
        told.append((caught.value.message, caught.value.remedy, caught.value.locations))
    assert told[0] == told[1]
    assert "(x[1, 7])" in told[1][0]
    assert "self.cell(x, self.hidden)" in str(told[1][2][0])


def test_a_saved_program_has_no_state_to_carry(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(4, 4).eval(), (torch.ones(1, 4),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(UsageError, match="captured already"):
        torch2mobile.check(tmp_path / "net.pt2", state=True)


def test_without_the_option_the_refusal_names_it(tmp_path: Path) -> None:
    report = torch2mobile.export(
        Cell().eval(), inputs=Cell.INPUTS, out=tmp_path / "out", **FAST
    ).report
    (check,) = [check for check in report.checks if check.name == "state"]
    assert check.status is Status.FAILED
    assert "--state" in check.hint


def test_values_of_a_state_can_be_declared(exported: Callable[[Any], Path], tmp_path: Path) -> None:
    def declared(bundle: Path) -> tuple[int, int]:
        spec = next(s for s in manifest_of(bundle)["inputs"] if s["name"] == "position")
        return spec["values"]["low"], spec["values"]["high"]

    assert declared(exported(Cached)) == (0, 6)
    out = tmp_path / "out"
    options = {"inputs": Cached.INPUTS, "values": ["position=0..11"], "state": True, "out": out}
    assert torch2mobile.export(Cached().eval(), **options, **FAST).report.status is Status.PASSED
    assert declared(out) == (0, 11)


def test_check_has_no_finding_for_state_that_is_carried() -> None:
    found = torch2mobile.check(Chunks().eval(), inputs=Chunks.INPUTS).report
    assert found.status is Status.FAILED
    carried = torch2mobile.check(Chunks().eval(), inputs=Chunks.INPUTS, state=True).report
    assert carried.status is Status.PASSED
    assert not [f for check in carried.checks for f in check.findings]


def test_a_misspelt_state_is_looked_for_among_the_states() -> None:
    with pytest.raises(InputError, match="unknown input 'hiden'") as caught:
        torch2mobile.export(Cell(), inputs=Cell.INPUTS, values=["hiden=0..1"], state=True, **FAST)
    assert caught.value.remedy == "Did you mean hidden?"


class LazyMemory(nn.Module):
    """A layer that the first call makes, with weights or without, and what it keeps."""

    def __init__(self, weights: int) -> None:
        super().__init__()
        self.weights, self.memory = weights, None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.memory is None:
            self.memory = nn.Module()
            self.memory.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(self.weights)])
            self.memory.register_buffer("kept", torch.zeros(4))
        self.memory.kept = self.memory.kept / 2 + x.mean(0)
        for layer in self.memory.layers:
            x = layer(x)
        return x + self.memory.kept


@pytest.mark.parametrize("weights", [0, 1])
def test_a_layer_made_in_forward_is_told_from_state_made_there(
    weights: int, tmp_path: Path
) -> None:
    module = LazyMemory(weights)
    result = torch2mobile.export(module, inputs="x:float32[2,4]", out=tmp_path / "b", **FAST)
    (state,) = [check for check in result.report.checks if check.name == "state"]
    assert ("Make that layer in __init__" in state.hint) == bool(weights)
    assert "memory.kept" in state.summary
    assert "_hooks" not in state.summary
