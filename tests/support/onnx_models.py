"""Small ONNX models for the tests of check: one node, or a few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

Value = tuple[str, int, Sequence[int | str] | None]


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    *,
    opset: int = 20,
    constants: Mapping[str, Any] | None = None,
    domains: Mapping[str, int] | None = None,
    ir: int = 10,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    imports = {"": opset, **(domains or {})}
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in imports.items()],
        ir_version=ir,
    )


def one(
    op: str,
    dims: Sequence[int | str] | None,
    *,
    kind: int = TensorProto.FLOAT,
    out: int | None = None,
    domain: str = "",
    constants: Mapping[str, Any] | None = None,
    opset: int = 20,
    more: Sequence[Value] = (),
    order: Sequence[str] = (),
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """A model of one node, which reads x, then the constants, then more inputs."""
    names = order or ["x", *(constants or {}), *(name for name, _, _ in more)]
    results = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(op, list(names), results, name="node", domain=domain, **attributes)
    return model(
        [node],
        [("x", kind, dims), *more],
        [(name, kind if out is None else out, None) for name in results],
        constants=constants,
        opset=opset,
        domains={domain: 1} if domain else None,
    )
