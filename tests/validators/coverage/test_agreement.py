"""What check says of a node against whether the installed ONNX Runtime loads it: no disagreements.

Two sources: the node models that the onnx package itself is tested with, and one made for every
operator in every version with every type that ONNX allows it.
"""

import warnings
from collections.abc import Iterator
from functools import cache

import onnx
import onnxruntime
import pytest
from onnx import defs, helper

from torch2mobile.errors import ModelFileError
from torch2mobile.validators.coverage import graph, kernels, runtime, value_types
from torch2mobile.validators.coverage.value_types import ValueType

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
        found = {v.outcome.supported for v in runtime.verdicts(graph.read(model))}
    except ModelFileError:
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
    """One node for every operator that needs no attribute, version, and type of its first input."""
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
            if not schema.deprecated and not needs:
                yield from _of_each_type(schema, opset)


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
        onnx.ValueInfoProto(name=name, type=value_types.type_proto(ValueType(kind)))
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
