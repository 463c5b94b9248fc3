"""What check says of a node against whether the installed ONNX Runtime loads it: no disagreements.

Two sources: the node models that the onnx package itself is tested with, and one made for every
operator in every version with every type that ONNX allows it.
"""

import warnings
from collections.abc import Iterator
from functools import cache
from itertools import islice

import onnx
import onnx_models as models
import onnxruntime
import pytest
from onnx import TensorProto, defs, helper

from torch2mobile import onnx_types
from torch2mobile.errors import ModelFileError
from torch2mobile.onnx_types import ValueType
from torch2mobile.records import Severity
from torch2mobile.validators.coverage import graph, kernels, level_runtime, runtime
from torch2mobile.validators.coverage.lint_context import OnnxSubject, Subject

OPTIONAL = defs.OpSchema.FormalParameterOption.Optional
INCOMPLETE = {
    # Not valid without an attribute (or output) that ONNX's schema calls optional.
    "": {"Constant", "GRU", "LSTM", "RNN", "Optional", "RegexFullMatch", "Resize", "StringSplit"},
    "ai.onnx.ml": {
        *("CategoryMapper", "FeatureVectorizer", "Imputer", "LabelEncoder", "LinearRegressor"),
        *("OneHotEncoder", "Scaler", "SVMClassifier", "SVMRegressor"),
        *("TreeEnsembleClassifier", "TreeEnsembleRegressor"),
    },
}
UNDECIDED = {"StringNormalizer"}
"""It loads where the device has the locale, which no file tells."""
OPSETS = {"": (7, 28), "ai.onnx.ml": (1, 5)}


def _loads(model: bytes) -> bool:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 (onnxruntime raises many kinds)
        return False
    return True


def _says(model: onnx.ModelProto) -> bool | None:
    """Whether check says that the model loads; None where it says that it cannot tell."""
    try:
        (section,) = level_runtime.look(Subject(onnx=OnnxSubject(model)))
        found = {v.outcome.supported for v in runtime.verdicts(graph.read(model))}
    except ModelFileError:
        return False
    if any(finding.severity is Severity.ERROR for finding in section.findings):
        return False
    return False if False in found else None if None in found else True


def _disagreements(models: Iterator[tuple[str, onnx.ModelProto]]) -> tuple[int, int, list[str]]:
    """How many models there were, how many loaded, and on which the two disagree."""
    count, loaded, found = 0, 0, []
    for name, model in models:
        loads, said = _loads(model.SerializeToString()), _says(model)
        count, loaded = count + 1, loaded + loads
        if said is None and any(node.op_type in UNDECIDED for node in model.graph.node):
            continue
        if said is not loads:
            found.append(f"{name}: check says {said}, the runtime {loads}")
    return count, loaded, found


def _single_nodes(wanted: slice) -> Iterator[tuple[str, onnx.ModelProto]]:
    """One node, without attributes, for every operator, version, and type of its first input.

    Where an attribute is required, one of its types is enough: it is refused whatever that is.
    """
    schemas = sorted(defs.get_all_schemas(), key=lambda s: (s.domain, s.name))
    known = [s for s in schemas if s.domain in OPSETS and s.name not in INCOMPLETE[s.domain]]
    for newest in known[wanted]:
        least, most = OPSETS[newest.domain]
        versions = kernels.versions(newest.domain, newest.name)
        for opset in sorted({v for v in versions if v >= least} | {most}):
            if opset < versions[0]:
                continue
            schema = defs.get_schema(newest.name, opset, newest.domain)
            needs = any(attribute.required for attribute in schema.attributes.values())
            if not schema.deprecated:
                yield from islice(_of_each_type(schema, opset), 1 if needs else None)


def _of_each_type(schema: defs.OpSchema, opset: int) -> Iterator[tuple[str, onnx.ModelProto]]:
    inputs = [p for p in schema.inputs if p.option != OPTIONAL]
    outputs = max(schema.min_output, 1)
    allowed = {
        c.type_param_str: [t for t in c.allowed_type_strs if t.startswith("tensor(")]
        for c in schema.type_constraints
    }
    varied = next((p.type_str for p in inputs if p.type_str in allowed), None)
    for kind in allowed[varied] if varied else [""]:
        types = [_type_of(p.type_str, varied, kind, allowed) for p in inputs]
        if all(types):
            yield (
                f"{schema.domain}.{schema.name}-{opset}-{kind}",
                _node(schema, types, outputs, opset),
            )


def _type_of(name: str, varied: str | None, kind: str, allowed: dict[str, list[str]]) -> str:
    if name == varied:
        return kind
    if name not in allowed:
        return name if name.startswith("tensor(") else ""
    choice = allowed[name]
    usual = "tensor(float)" if "tensor(float)" in choice else (choice or [""])[0]
    return kind if kind in choice else usual


def _node(schema: defs.OpSchema, types: list[str], outputs: int, opset: int) -> onnx.ModelProto:
    reads = [f"i{number}" for number in range(len(types))]
    gives = [f"o{number}" for number in range(outputs)]
    values = [
        onnx.ValueInfoProto(name=name, type=onnx_types.type_proto(ValueType(kind)))
        for name, kind in zip(reads, types, strict=True)
    ]
    body = helper.make_graph(
        [helper.make_node(schema.name, reads, gives, domain=schema.domain)],
        "g",
        values,
        [onnx.ValueInfoProto(name=name) for name in gives],
    )
    imports = {"": 20, schema.domain: opset}
    opsets = [helper.make_opsetid(domain, version) for domain, version in imports.items()]
    return helper.make_model(body, opset_imports=opsets, ir_version=10)


def test_a_sample_of_operators_versions_and_types() -> None:
    count, loaded, found = _disagreements(_single_nodes(slice(0, None, 9)))
    assert count > 300
    assert 0.3 * count < loaded < count  # both verdicts are there
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.parametrize("part", [slice(start, None, 9) for start in range(1, 9)])
def test_all_operators_versions_and_types(part: slice) -> None:
    _, _, found = _disagreements(_single_nodes(part))
    assert not found, "\n".join(found)


F = TensorProto.FLOAT


def _two(first: onnx.NodeProto, second: onnx.NodeProto, *, out: str = "y") -> onnx.ModelProto:
    return models.model([first, second], [("x", F, [2])], [(out, F, [2])])


def _nameless() -> onnx.ModelProto:
    model = models.one("Relu", [2])
    model.graph.name = ""
    return model


RELU, SIN = helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sin", ["h"], ["y"])
WHOLE: dict[str, tuple[onnx.ModelProto, bool]] = {
    "a later opset": (models.one("Relu", [2], opset=defs.onnx_opset_version() + 1), False),
    "the newest opset": (models.one("Relu", [2], opset=defs.onnx_opset_version()), True),
    "a later IR version": (
        models.model([RELU, SIN], [("x", F, [2])], [("y", F, [2])], ir=99),
        False,
    ),
    "sizes that do not fit": (models.one("MatMul", [2, 3], more=[("z", F, [4, 5])]), False),
    "sizes that fit": (models.one("MatMul", [2, 3], more=[("z", F, [3, 5])]), True),
    "a name that nothing gives": (models.one("Add", [2], order=["x", "nowhere"]), False),
    "an output that nothing gives": (_two(RELU, SIN, out="z"), False),
    "a name given twice": (_two(RELU, helper.make_node("Sin", ["x"], ["h"]), out="h"), False),
    "a required attribute left out": (models.one("Concat", [2]), False),
    "an attribute of another type": (models.one("Concat", [2], axis="x"), False),
    "an attribute that there is not": (models.one("Relu", [2], foo=3), False),
    "the same in a contrib operator": (
        models.one("QuickGelu", [2], domain="com.microsoft", foo=1),
        False,
    ),
    # onnx.checker refuses both.
    "nodes in any order": (_two(SIN, RELU), True),
    "a graph without a name": (_nameless(), True),
}


@pytest.mark.parametrize("case", WHOLE)
def test_whole_files_that_the_runtime_refuses_to_load(case: str) -> None:
    model, loads = WHOLE[case]
    assert (_loads(model.SerializeToString()), _says(model)) == (loads, loads)


@cache
def _backend_models() -> list[tuple[str, onnx.ModelProto]]:
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy, about the values in the tests' data
        cases = loader.load_model_tests(kind="node")
    return [(case.name, case.model) for case in cases]


@pytest.mark.slow
def test_the_node_models_of_onnx_itself() -> None:
    count, loaded, found = _disagreements(iter(_backend_models()))
    assert count > 1500
    assert 0.8 * count < loaded < count
    assert not found, "\n".join(found)


def test_a_wrong_kernel_table_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: with no kernels, everything that loads is a disagreement."""
    monkeypatch.setattr(kernels, "kernels", lambda *_: ())
    _, loaded, found = _disagreements(_single_nodes(slice(3, 12)))
    assert loaded
    assert len(found) >= loaded / 2
