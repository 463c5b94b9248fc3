"""Which values of a translation are the same tensors as those of the program behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch


def find(
    model: ir.Model,
    named: Sequence[tuple[ir.Value, str]],
    program: torch.export.ExportedProgram,
) -> dict[str, str]:
    """The program's node of every value that was ``named`` after one; outputs go by position.

    A value of another dtype or rank has lost its meaning on the way, whatever its name.
    """
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    same = {
        str(value.name): name
        for value, name in named
        if value.producer() is not None and _same_kind(value, nodes.get(name))
    }
    # A saved program may return constants beside its tensors, which have no node.
    outputs = [str(name) for name in program.graph_signature.user_outputs if name in nodes]
    if len(outputs) == len(model.graph.outputs):
        pairs = zip(model.graph.outputs, outputs, strict=True)
        same.update({str(value.name): name for value, name in pairs})
    return same


def _same_kind(value: ir.Value, tensor: Any) -> bool:
    if not isinstance(tensor, torch.Tensor) or value.shape is None:
        return False
    if value.dtype in {None, ir.DataType.UNDEFINED, ir.DataType.STRING}:
        return False
    assert value.dtype is not None
    dtype = str(tensor.dtype).removeprefix("torch.")
    return value.dtype.numpy().name == dtype and len(value.shape) == tensor.dim()
