"""Damaged and unusual files, made from a seed: models, bundles, reports, settings.

Every case is a command line over files in a folder of its own. What is expected of all is the same:
an exit code that is no bug, within seconds, in little memory.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from torch2mobile.exporter import bundle, bundle_writer
from torch2mobile.records import (
    Check,
    Dim,
    FileEntry,
    Finding,
    GoldenCase,
    InputSpec,
    Location,
    Manifest,
    Mismatch,
    OutputSpec,
    Report,
    Severity,
    Status,
    Table,
)

Arguments = list[str]
Float = TensorProto.FLOAT


@dataclass(frozen=True)
class Case:
    """A command line on files that ``make`` writes into an empty folder."""

    name: str
    make: Callable[[Path, random.Random], Arguments]


# --- sound files ------------------------------------------------------------------------------


def _value(name: str, dims: Sequence[int | str], kind: int = Float) -> Any:
    return helper.make_tensor_value_info(name, kind, dims)


def _of(nodes: Sequence[Any], inputs: Any, outputs: Any, weights: Any = (), **more: Any) -> Any:
    graph = helper.make_graph(list(nodes), "graph", inputs, outputs, list(weights))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], **more)


def dense() -> Any:
    """One layer of weights, a shape that is computed, and a Constant."""
    weight = np.arange(32, dtype=np.float32).reshape(4, 8) / 32
    shape = helper.make_node(
        "Constant", [], ["shape"], value=numpy_helper.from_array(np.array([-1, 8]), "shape")
    )
    nodes = [
        shape,
        helper.make_node("MatMul", ["x", "w"], ["h"], name="matmul"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Reshape", ["r", "shape"], ["y"], name="reshape"),
    ]
    weights = [numpy_helper.from_array(weight, "w")]
    return _of(nodes, [_value("x", ["N", 4])], [_value("y", ["N", 8])], weights)


def branching() -> Any:
    """An If whose branches read a value from outside."""

    def branch(name: str, op: str) -> Any:
        return helper.make_graph(
            [helper.make_node(op, ["x"], [name])], name, [], [_value(name, ["N"])]
        )

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node(
            "If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")
        ),
    ]
    weights = [numpy_helper.from_array(np.float32(0), "zero")]
    return _of(nodes, [_value("x", ["N"])], [_value("y", ["N"])], weights)


def functional() -> Any:
    """A function of the model's own."""
    body = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 20)],
    )
    graph = helper.make_graph(
        [helper.make_node("Twice", ["x"], ["y"], domain="own")],
        "graph",
        [_value("x", ["N"])],
        [_value("y", ["N"])],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, functions=[body])


def sequences() -> Any:
    """A sequence goes in, an optional comes out."""
    kind = helper.make_tensor_type_proto(Float, ["N", 3])
    many = helper.make_sequence_type_proto(kind)
    nodes = [
        helper.make_node("SequenceAt", ["xs", "first"], ["x"]),
        helper.make_node("Optional", ["x"], ["o"]),
        helper.make_node("Identity", ["xs"], ["ys"]),
    ]
    weights = [numpy_helper.from_array(np.int64(0), "first")]
    return _of(
        nodes,
        [helper.make_value_info("xs", many)],
        [
            helper.make_value_info("ys", many),
            helper.make_value_info("o", helper.make_optional_type_proto(kind)),
        ],
        weights,
    )


def sparse() -> Any:
    """A weight of which only what is not zero is kept."""
    values = numpy_helper.from_array(np.ones(2, np.float32), "w")
    indices = numpy_helper.from_array(np.array([1, 5]), "indices")
    model = _of(
        [helper.make_node("Mul", ["x", "w"], ["y"])], [_value("x", [2, 4])], [_value("y", [2, 4])]
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 4]))
    return model


def external(folder: Path, location: str = "model.onnx.data") -> Any:
    """The weights in a file of their own, as written beside the model."""
    model = dense()
    (folder / "model.onnx.data").write_bytes(
        numpy_helper.to_array(model.graph.initializer[0]).tobytes()
    )
    _outside(model.graph.initializer[0], location)
    return model


def _outside(tensor: Any, location: str, **more: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))


MODELS: dict[str, Callable[[], Any]] = {
    made.__name__: made for made in (dense, branching, functional, sequences, sparse)
}


def sound_bundle(folder: Path) -> Path:
    """A small bundle, written without an export."""
    place = folder / "bundle"
    (place / "golden").mkdir(parents=True)
    onnx.save(dense(), place / "model.onnx")
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    weight = np.arange(32, dtype=np.float32).reshape(4, 8) / 32
    bundle.write_case(place / "golden/0.npz", {"x": x}, [("y", np.maximum(x @ weight, 0))])
    provenance = {
        "schema_version": 1,
        "nodes": [
            {
                "node": "relu",
                "op": "Relu",
                "outputs": ["r"],
                "origins": [{"modules": ["act"], "file": "net.py", "line": 7, "code": "h.relu()"}],
            }
        ],
    }
    (place / "provenance.json").write_text(json.dumps(provenance))
    names = ("model.onnx", "golden/0.npz", "provenance.json")
    manifest = Manifest(
        name="net",
        source="net.py:Net",
        strategy="declared",
        opset=20,
        simplified=False,
        seed=0,
        inputs=(InputSpec("x", ("x",), "float32", (Dim(symbol="N", least=1), Dim(size=4))),),
        outputs=(OutputSpec("y", "float32", ("N", 8)),),
        targets={},
        golden=(GoldenCase("golden/0.npz", "example", {"y": 1e-5}, {"onnx": {"y": 0.0}}),),
        versions={"torch": "2.13.0", "onnxruntime": "1.32.0"},
        files={
            name: FileEntry(bundle.file_sha256(place / name), (place / name).stat().st_size)
            for name in names
        },
    )
    (place / bundle.MANIFEST).write_bytes(bundle_writer.encode_manifest(manifest))
    return place


def sound_report() -> str:
    """A report with something in every field."""
    from torch2mobile.reporters.codec import to_json

    where = Location("body", "net.py", 3, "if x > 0:", "node", "If")
    check = Check(
        "parity",
        Status.FAILED,
        "differs",
        target="ort",
        hint="Look.",
        metrics={"worst": 0.5, "probes": 3},
        locations=(where,),
        mismatches=(Mismatch("y", "example", "values differ", (0, 1), "1", "2", 0.1, 0.2, 0.3),),
        tables=(Table("t", ("a", "b"), (("x", 1.5), (None, True))),),
        findings=(Finding("T2M101", Severity.ERROR, "a branch", where, "Use torch.where."),),
        notes=("a note",),
    )
    return to_json(Report("export", "net.py:Net", (check,), {"torch": "2.13.0"}))


SETTINGS = """[tool.torch2mobile.check]
select = ["T2M1"]
ignore = ["T2M142"]
suppress = [{code = "T2M108", path = "net.py", reason = "known"}]
"""

# --- damage -----------------------------------------------------------------------------------

_INTEGERS = (0, -1, 1, 7, 99, 999, 2**31 - 1, -(2**31), 2**60, -(2**60), 2**63 - 1)
_TEXTS = ("", "x", "\x00", "y\n::error::", "../../etc/passwd", "é", "a" * 70_000)


def damaged_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Cut off, bits turned, a piece taken out, doubled or replaced."""
    if not raw:
        return bytes(rng.randrange(256) for _ in range(8))
    start = rng.randrange(len(raw))
    piece = raw[start : start + rng.randrange(1, 40)]
    changed = bytearray(raw)
    kind = rng.choice(("cut", "flip", "flip", "flip", "drop", "double", "noise"))
    if kind == "cut":
        return raw[:start]
    if kind == "flip":
        for _ in range(rng.choice((1, 2, 8))):
            changed[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == "drop":
        return raw[:start] + raw[start + len(piece) :]
    if kind == "double":
        return raw[:start] + piece + raw[start:]
    return raw[:start] + bytes(rng.randrange(256) for _ in piece) + raw[start + len(piece) :]


def _messages(message: Any) -> list[Any]:
    found = [message]
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_MESSAGE:
            for item in value if _repeated(descriptor) else [value]:
                found += _messages(item)
    return found


def _repeated(descriptor: Any) -> bool:
    return bool(descriptor.is_repeated)


def _scalar(descriptor: Any, rng: random.Random) -> Any:
    if descriptor.type == descriptor.TYPE_BYTES:
        return rng.choice((b"", b"\x00", b"\xff\xfe", bytes(33)))
    if descriptor.type == descriptor.TYPE_STRING:
        return rng.choice(_TEXTS)
    if descriptor.type in (descriptor.TYPE_FLOAT, descriptor.TYPE_DOUBLE):
        return rng.choice((0.0, float("nan"), float("inf"), -1e38))
    wide = descriptor.type in (descriptor.TYPE_INT64, descriptor.TYPE_UINT64)
    signed = descriptor.type not in (descriptor.TYPE_UINT64, descriptor.TYPE_UINT32)
    allowed = [n for n in _INTEGERS if (wide or -(2**31) <= n < 2**31) and (signed or n >= 0)]
    if descriptor.type == descriptor.TYPE_ENUM:
        return rng.choice([*descriptor.enum_type.values_by_number, 0])
    return rng.choice(allowed)


def damaged_model(model: Any, rng: random.Random) -> Any:
    """One to three fields of the model's messages changed, removed or doubled."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        message = rng.choice(_messages(model))
        given = [descriptor for descriptor, _ in message.ListFields()]
        every = message.DESCRIPTOR.fields
        descriptor = rng.choice(given if given and rng.random() < 0.7 else every)
        _damage_field(message, descriptor, rng)
    return model


def _damage_field(message: Any, descriptor: Any, rng: random.Random) -> None:
    name, is_message = descriptor.name, descriptor.type == descriptor.TYPE_MESSAGE
    action = rng.choice(("set", "set", "clear", "double"))
    if action == "clear":
        message.ClearField(name)
    elif _repeated(descriptor):
        values = getattr(message, name)
        if is_message:
            if values and action == "double":
                values.append(rng.choice(list(values)))
            else:
                values.add()
        elif values and action == "set":
            values[rng.randrange(len(values))] = _scalar(descriptor, rng)
        else:
            values.extend(_scalar(descriptor, rng) for _ in range(rng.choice((1, 3, 70))))
    elif is_message:
        getattr(message, name).SetInParent()
    else:
        setattr(message, name, _scalar(descriptor, rng))


_TREES: tuple[Any, ...] = (
    None, True, 0, -1, 2**70, 1.5, 1e400, "", "NaN", "\ud800", "\x1b[31m", [], {}, [[]],
    {"a": 1}, "x" * 100_000, [1, "a", None],
)  # fmt: skip


def damaged_tree(tree: Any, rng: random.Random) -> Any:
    """A JSON value with one place in it replaced, removed or put deeper."""
    places: list[tuple[Any, Any]] = []

    def collect(value: Any) -> None:
        keys = (
            range(len(value))
            if isinstance(value, list)
            else list(value)
            if isinstance(value, dict)
            else ()
        )
        for key in keys:
            places.append((value, key))
            collect(value[key])

    collect(tree)
    if not places or rng.random() < 0.05:
        return rng.choice(_TREES)
    holder, key = rng.choice(places)
    action = rng.choice(("replace", "replace", "replace", "remove", "wrap", "add"))
    if action == "replace":
        holder[key] = rng.choice(_TREES)
    elif action == "remove":
        del holder[key]
    elif action == "wrap":
        holder[key] = [holder[key]]
    elif isinstance(holder, dict):
        holder[rng.choice(("extra", "", "\ud800"))] = rng.choice(_TREES)
    else:
        holder.append(rng.choice(_TREES))
    return tree


def damaged_json(text: str, rng: random.Random) -> bytes:
    """JSON whose text, or whose tree, is damaged, or that is nested deeply."""
    roll = rng.random()
    if roll < 0.25:
        return damaged_bytes(text.encode(), rng)
    if roll < 0.3:
        depth = rng.choice((100, 2_000, 200_000))
        return b"[" * depth + (b"]" * depth if rng.random() < 0.5 else b"")
    tree = damaged_tree(json.loads(text), rng)
    return json.dumps(tree).encode()


# --- cases ------------------------------------------------------------------------------------

_LOOKS = (
    ("check",),
    ("check", "--format", "sarif"),
    ("check", "--provider", "nnapi", "--provider", "coreml"),
    ("check", "--provider", "nnapi", "--fix-dim", "N=2"),
    ("check", "--ort-version", "1.16.0"),
    ("inspect",),
    ("inspect", "--format", "json"),
)


def _model_case(folder: Path, rng: random.Random) -> Arguments:
    made = rng.choice([*MODELS.values(), lambda: external(folder)])
    path = folder / "model.onnx"
    if rng.random() < 0.6:
        path.write_bytes(damaged_model(made(), rng).SerializeToString())
    else:
        path.write_bytes(damaged_bytes(made().SerializeToString(), rng))
    command, *rest = rng.choice(_LOOKS)
    return [command, str(path), *rest]


def _report_case(folder: Path, rng: random.Random) -> Arguments:
    path = folder / "report.json"
    path.write_bytes(damaged_json(sound_report(), rng))
    return [
        "report",
        str(path),
        "--format",
        rng.choice(("text", "json", "html", "sarif", "github")),
    ]


def _bundle_case(folder: Path, rng: random.Random) -> Arguments:
    place = sound_bundle(folder)
    name = rng.choice((bundle.MANIFEST, bundle.MANIFEST, "provenance.json", "provenance.json"))
    (place / name).write_bytes(damaged_json((place / name).read_text(), rng))
    command = rng.choice(
        (("check",), ("inspect",), ("inspect", "--node", "r"), ("inspect", "--node", "relu"))
    )
    return [command[0], str(place), *command[1:]]


def _settings_case(folder: Path, rng: random.Random) -> Arguments:
    path = folder / "pyproject.toml"
    if rng.random() < 0.2:
        depth = rng.choice((50, 3_000, 100_000))
        opening, closing = rng.choice((("[", "]"), ("{a=", "}")))
        path.write_text(f"[tool.torch2mobile.check]\nselect = {opening * depth}{closing * depth}\n")
    else:
        path.write_bytes(damaged_bytes(SETTINGS.encode(), rng))
    onnx.save(dense(), folder / "model.onnx")
    return ["check", "model.onnx"]


def _verify_case(folder: Path, rng: random.Random) -> Arguments:
    place = sound_bundle(folder)
    name = rng.choice(("model.onnx", "golden/0.npz", bundle.MANIFEST))
    raw = (place / name).read_bytes()
    if name == bundle.MANIFEST:
        (place / name).write_bytes(damaged_json(raw.decode(), rng))
    elif name == "model.onnx" and rng.random() < 0.5:
        (place / name).write_bytes(damaged_model(dense(), rng).SerializeToString())
    else:
        (place / name).write_bytes(damaged_bytes(raw, rng))
    if rng.random() < 0.4:
        sound_bundle(folder / "earlier") if rng.random() < 0.5 else shutil.copytree(
            place, folder / "earlier/bundle"
        )
        first, second = rng.sample([place, folder / "earlier/bundle"], 2)
        return ["verify", str(first), "--baseline", str(second)]
    return ["verify", str(place)]


_SHARES: tuple[tuple[Callable[[Path, random.Random], Arguments], int], ...] = (
    (_model_case, 60),
    (_report_case, 15),
    (_bundle_case, 15),
    (_settings_case, 6),
    (_verify_case, 4),
)


def cases(seed: int, count: int) -> list[Case]:
    """So many cases; each draws from a generator of its own, by its number."""
    kinds = [kind for kind, share in _SHARES for _ in range(share)]
    rng = random.Random(seed)  # seeded: the same files on every run
    return [Case(f"{n}", rng.choice(kinds)) for n in range(count)]
