"""Equal models are equal .ort files, and mean what ONNX Runtime wrote."""

from __future__ import annotations

import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from torch2mobile.errors import ConversionError
from torch2mobile.exporter.targets import ort_canonical
from torch2mobile.exporter.targets.ort_canonical import canonicalize

RNG = np.random.default_rng(0)

# Converts all models of a folder as a worker does, without torch, and keeps the raw files too.
CONVERT = """
import shutil, sys
sys.modules["torch"] = None
from pathlib import Path
from torch2mobile.exporter.targets import TARGETS, ort_canonical
from torch2mobile.records import Job, OnnxModel

real = ort_canonical.canonicalize

def canonicalize(path):
    shutil.copy(path, path.with_suffix(".raw.ort"))
    real(path)

ort_canonical.canonicalize = canonicalize
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    out = Path(sys.argv[2], path.stem)
    out.mkdir(parents=True)
    target = TARGETS["ort"]
    target.convert(Job(OnnxModel(path, 20, (), (), {}), target.variants[0], None, out))
"""


def weights(name, *shape):
    return numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)


def scalar(name, value, dtype=np.float32):
    return numpy_helper.from_array(np.array(value, dtype), name)


def info(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def chain(start, steps):
    """Nodes that each take the one before as the first input: (operator, other inputs, attrs)."""
    nodes, last = [], start
    for index, (op, others, attributes) in enumerate(steps):
        out = f"{start}_{index}"
        nodes.append(helper.make_node(op, [last, *others], [out], name=f"n{out}", **attributes))
        last = out
    return nodes, last


def conv_net():
    steps, initializers = [], [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "up")]
    for layer in range(4):
        initializers += [weights(f"w{layer}", 4, 4, 3, 3), weights(f"b{layer}", 4)]
        steps.append(("Conv", [f"w{layer}", f"b{layer}"], {"pads": [1, 1, 1, 1]}))
        steps.append(("HardSigmoid" if layer % 2 else "Relu", [], {}))
    steps.append(("Resize", ["", "up"], {"mode": "linear"}))
    nodes, last = chain("x", steps)
    return nodes, [info("x", "n", 4, 8, 8)], [info(last, "n", 4, 16, 16)], initializers


def transformer():
    steps, initializers = [], [scalar("c0", 0.5), scalar("c1", 1.0), scalar("c2", 0.5)]
    for layer in range(3):
        initializers += [
            weights(f"g{layer}", 8),
            weights(f"b{layer}", 8),
            weights(f"w{layer}", 8, 8),
        ]
        steps.append(("LayerNormalization", [f"g{layer}", f"b{layer}"], {"epsilon": 1e-3}))
        steps.append(("MatMul", [f"w{layer}"], {}))
        steps.append(("Mul", [f"c{layer}"], {}))
        steps.append(("Softmax", [], {"axis": -1}))
        steps.append(("Transpose", [], {"perm": [0, 2, 1]}))
    nodes, last = chain("x", steps)
    return nodes, [info("x", 1, 8, 8)], [info(last, 1, 8, 8)], initializers


def recurrent():
    initializers = [weights("w", 1, 32, 6), weights("r", 1, 32, 8), weights("b", 1, 64)]
    initializers += [weights("w2", 1, 24, 8), weights("r2", 1, 24, 8)]
    initializers.append(scalar("axis", [1], np.int64))
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r", "b"], ["l", "h", "c"], hidden_size=8),
        helper.make_node("Squeeze", ["l", "axis"], ["s"]),
        helper.make_node("GRU", ["s", "w2", "r2"], ["y"], hidden_size=8, linear_before_reset=1),
    ]
    return nodes, [info("x", 5, 1, 6)], [info("y", 5, 1, 1, 8), info("c", 1, 1, 8)], initializers


def control_flow():
    def branch(name, op):
        steps = [("Mul", [f"{name}w"], {}), (op, ["outer"], {}), ("Add", [f"{name}b"], {})]
        # The first input is of the outer graph.
        nodes, last = chain("h", steps)
        for node in nodes:
            node.name = name + node.name
        inner = [weights(f"{name}w", 4), weights(f"{name}b", 4)]
        return helper.make_graph(nodes, name, [], [info(last, 2, 4)], inner)

    branches = {"then_branch": branch("yes", "Add"), "else_branch": branch("no", "Div")}
    step = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("MatMul", ["state", "lw"], ["next"]),
    ]
    flag, count = {"kind": TensorProto.BOOL}, {"kind": TensorProto.INT64}
    ins = [info("i", **count), info("go", **flag), info("state", 2, 4)]
    outs = [info("on", **flag), info("next", 2, 4)]
    body = helper.make_graph(step, "body", ins, outs, [weights("lw", 4, 4)])
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("If", ["flag"], ["z"], **branches),
        helper.make_node("Loop", ["three", "", "z"], ["y"], body=body),
    ]
    initializers = [scalar("outer", 3.0), scalar("three", 3, np.int64)]
    return nodes, [info("x", 2, 4), info("flag", **flag)], [info("y", 2, 4)], initializers


def odd_values():
    """Strings, sequences, a NaN, an infinite attribute, an empty tensor, a sparse one."""
    words = helper.make_tensor("words", TensorProto.STRING, [3], [b"a", "é".encode(), b"a"])
    labels = {"keys_strings": ["a", "é"], "values_floats": [1.0, float("-inf")]}
    nodes = [
        helper.make_node("LabelEncoder", ["words"], ["l"], domain="ai.onnx.ml", **labels),
        helper.make_node("SequenceConstruct", ["x", "x"], ["sequence"]),
        helper.make_node("Elu", ["x"], ["e"], alpha=float("nan")),
        helper.make_node("Add", ["e", "nan"], ["n"]),
        helper.make_node("Concat", ["n", "empty"], ["y"], axis=0),
        helper.make_node("MatMul", ["x", "sparse"], ["m"]),
    ]
    outs = [info("y", 2, 4), info("l", 3), info("m", 2, 4)]
    outs.append(helper.make_tensor_sequence_value_info("sequence", TensorProto.FLOAT, [2, 4]))
    return nodes, [info("x", 2, 4)], outs, [words, scalar("nan", np.nan), weights("empty", 0, 4)]


def sparse():
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [2], [1.0, 2.0])
    return helper.make_sparse_tensor(
        values, helper.make_tensor("at", TensorProto.INT64, [2], [1, 9]), [4, 4]
    )


MODELS = [conv_net, transformer, recurrent, control_flow, odd_values]
NAMES = [model.__name__ for model in MODELS]


@pytest.fixture(scope="module")
def conversions(tmp_path_factory):
    """The folders of three conversions of all models, each in a process of its own."""
    folder = tmp_path_factory.mktemp("models")
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    for model in MODELS:
        nodes, inputs, outputs, initializers = model()
        extra = [sparse()] if model is odd_values else []
        graph = helper.make_graph(
            nodes, "g", inputs, outputs, initializers, sparse_initializer=extra
        )
        made = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        helper.set_model_props(made, {f"key{index}": str(index) for index in range(9)})
        onnx.checker.check_model(made)
        onnx.save(made, folder / f"{model.__name__}.onnx")
    outs = [folder / f"run{index}" for index in range(3)]
    for out in outs:
        subprocess.run([sys.executable, "-c", CONVERT, folder, out], check=True, timeout=120)
    return outs


@pytest.fixture
def converted(conversions, tmp_path):
    """A canonical file of its own for a test to change, and the raw one."""
    path = tmp_path / "model.ort"
    path.write_bytes((conversions[0] / "conv_net" / "conv_net.ort").read_bytes())
    return SimpleNamespace(path=path, raw=conversions[0] / "conv_net" / "conv_net.raw.ort")


def run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    feeds = {}
    for arg in session.get_inputs():
        shape = [dim if isinstance(dim, int) else 3 for dim in arg.shape]
        value = rng.standard_normal(shape).astype(np.float32)
        feeds[arg.name] = np.array(True) if arg.type == "tensor(bool)" else value
    return session.run(None, feeds)


def bits(value):
    return [bits(item) for item in value] if isinstance(value, list) else value.tobytes()


@pytest.mark.parametrize("place", [0, ort_canonical._CHUNK + 7, 3 * ort_canonical._CHUNK - 1])
def test_one_byte_of_large_weights_makes_another_file(place):
    data = bytes(3 * ort_canonical._CHUNK)
    other = bytearray(data)
    arrays = [ort_canonical._Array(memoryview(each), 1) for each in (data, other)]
    assert arrays[0] == arrays[1]
    other[place] = 1
    assert arrays[0] != arrays[1]
    assert arrays[0] != ort_canonical._Array(memoryview(data)[:-1], 1)
    assert arrays[0] != ort_canonical._Array(memoryview(data), 2)


@pytest.mark.parametrize("name", NAMES)
def test_processes_agree_on_every_byte(conversions, name):
    files = [(out / name / f"{name}.ort").read_bytes() for out in conversions]
    assert files[0] == files[1] == files[2]


def test_without_it_they_do_not_agree(conversions):
    # The reason for the module; once onnxruntime itself is deterministic, it can go.
    raw = [[(out / n / f"{n}.raw.ort").read_bytes() for n in NAMES] for out in conversions]
    if raw[0] == raw[1] == raw[2]:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} wrote the same files three times")


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_those_of_the_raw_file_to_the_bit(conversions, name):
    folder = conversions[0] / name
    assert bits(run(folder / f"{name}.ort")) == bits(run(folder / f"{name}.raw.ort"))


def test_a_canonical_file_stays_as_it_is(converted):
    before = converted.path.read_bytes()
    canonicalize(converted.path)
    assert converted.path.read_bytes() == before
    assert list(converted.path.parent.iterdir()) == [converted.path]


def shuffle(table, rng):
    for name, value in table.fields.items():
        if isinstance(value, ort_canonical.Table):
            shuffle(value, rng)
        elif isinstance(value, list):
            if f"{table.kind}.{name}" in ort_canonical._MAPS:
                rng.shuffle(value)
            for item in value:
                if isinstance(item, ort_canonical.Table):
                    shuffle(item, rng)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_maps_does_not_matter(conversions, tmp_path, name):
    canonical = (conversions[0] / name / f"{name}.ort").read_bytes()
    model = ort_canonical.parse(canonical)
    shuffle(model, random.Random(0))
    builder = ort_canonical.flatbuffers.Builder()
    builder.Finish(ort_canonical._write(builder, model), file_identifier=b"ORTM")
    path = tmp_path / "shuffled.ort"
    path.write_bytes(builder.Output())
    assert path.read_bytes() != canonical
    canonicalize(path)
    assert path.read_bytes() == canonical


def test_weights_are_aligned(tmp_path, conversions):
    model = onnx.load(conversions[0].parent / "recurrent.onnx")
    data = (conversions[0] / "recurrent" / "recurrent.ort").read_bytes()
    for tensor in model.graph.initializer[:4]:
        assert data.index(tensor.raw_data) % 16 == 0, tensor.name


def refuse(path, message):
    before = path.read_bytes()
    with pytest.raises(ConversionError, match=message) as caught:
        canonicalize(path)
    assert path.name in caught.value.message
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("size", [0, 3, 8, 40, 1000, 5000])
def test_a_cut_file_is_refused(converted, size):
    converted.path.write_bytes(converted.path.read_bytes()[:size])
    refuse(converted.path, "cannot be laid out anew")


def test_another_format_is_refused(converted):
    converted.path.write_bytes(b"\x08\x07ONNX, or anything else" * 20)
    refuse(converted.path, "does not begin like an .ort file")


def test_wrong_bytes_give_no_other_error(converted):
    data, rng = converted.path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(150):
        wrong = bytearray(data)
        for _ in range(4):
            wrong[rng.randrange(8, 2000)] = rng.randrange(256)
        converted.path.write_bytes(wrong)
        try:
            canonicalize(converted.path)
        except ConversionError:
            refused += 1
    assert refused > 50


def test_a_field_that_is_not_known_is_refused(converted, monkeypatch):
    schema = ort_canonical._schema

    def older(kind):
        return tuple(field for field in schema(kind) if (kind, field.name) != ("Node", "Domain"))

    monkeypatch.setattr(ort_canonical, "_schema", older)
    refuse(converted.path, "Node has a field that onnxruntime's Python schema lacks")


def test_a_copy_that_lost_something_is_refused(converted, monkeypatch):
    write = ort_canonical._write

    def forgetful(builder, table):
        kept = {name: value for name, value in table.fields.items() if name != "Index"}
        return write(builder, ort_canonical.Table(table.kind, kept))

    monkeypatch.setattr(ort_canonical, "_write", forgetful)
    refuse(converted.path, "the copy has another meaning")
