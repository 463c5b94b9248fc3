"""Ways to make an .onnx smaller, each in a process of its own: this module's worker side.

Whether a result may be used is not decided here: the pipeline compares it with the model on the
probes, takes the smallest that is equal, and keeps the model as it was where none is.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.onnx_files import data_names, read_whole, save

if TYPE_CHECKING:
    import onnx

# Makes MatMul and Add on more than two axes a Gemm between two Reshapes: more nodes, no faster.
_GROWS = "fuse_matmul_add_bias_into_gemm_batched"


def _onnxsim(model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """onnxsim's result; ValueError where it doubts that itself."""
    import onnxsim

    with contextlib.redirect_stdout(io.StringIO()):
        after, ok = onnxsim.simplify(model, **options)
    if not ok:
        raise ValueError("onnxsim's own check says that it changed the model's results")
    found: onnx.ModelProto = after
    return found


def _onnxsim_alone(model: onnx.ModelProto) -> onnx.ModelProto:
    return _onnxsim(model, skipped_optimizers=[_GROWS])


def _rewritten(model: onnx.ModelProto, *, onnxsim: bool = True) -> onnx.ModelProto:
    """What the opset has one operator for, onnxsim, and what only moves elements."""
    import onnx_ir as ir

    from torch2mobile.exporter import fusions, view_chains

    fused = ir.from_proto(model)
    if fusions.fuse(fused):
        model = ir.to_proto(fused)
    if onnxsim:
        model = _onnxsim_alone(model)
    moved = ir.from_proto(model)
    return ir.to_proto(moved) if view_chains.merge(moved) else model


def _onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    """onnxscript's optimizer and rewriter first, which torch.onnx runs on what it writes."""
    from onnxscript import optimizer, rewriter

    from torch2mobile.exporter.exact_constants import exact_constants

    with exact_constants():
        model = rewriter.rewrite(optimizer.optimize(model))
    return _rewritten(model)


# The way that leads furthest first; the others are for where it changes a result, hangs or dies.
CANDIDATES: Mapping[str, Callable[[onnx.ModelProto], onnx.ModelProto]] = {
    "onnxsim, fusions, views": _rewritten,
    "onnxsim": _onnxsim_alone,
    "fusions, views": lambda model: _rewritten(model, onnxsim=False),
    "onnxsim, all its passes": _onnxsim,
    "onnxsim, folding only": lambda model: _onnxsim(model, perform_optimization=False),
    "onnxscript, onnxsim, fusions, views": _onnxscript,
}


def candidate(name: str, source: str, target: str, external_data: bool) -> dict[str, Any]:
    """Simplify ``source`` into ``target`` one way (runs in a worker); the numbers of nodes.

    ``same`` where the graph is what it was, and nothing is written. Raises ModelFileError for what
    is no model, and through the worker WorkerCallError for whatever the way's tools raise.
    """
    before = read_whole(Path(source))
    # Not ByteSize(), which writes the whole message.
    files = [Path(source), *(Path(source).with_name(name) for name in data_names(Path(source)))]
    external_data |= sum(each.stat().st_size for each in files) > 2**31 - 2**24
    after = CANDIDATES[name](before)
    counts = {"before": len(before.graph.node), "after": len(after.graph.node)}
    alike = _interface(before) == _interface(after)
    if _same(before, after):
        return {**counts, "same": True, "alike": True}
    save(after, Path(target), external=external_data)
    return {**counts, "same": False, "alike": alike}


def _interface(model: onnx.ModelProto) -> list[list[bytes]]:
    ends = (model.graph.input, model.graph.output)
    return [[each.SerializeToString(deterministic=True) for each in end] for end in ends]


def _same(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    """Whether two graphs have the same nodes and weights by the same names."""
    # Weights are long to compare, and most simplified graphs have fewer nodes.
    if len(before.graph.node) != len(after.graph.node):
        return False
    return before.opset_import == after.opset_import and _content(before) == _content(after)


def _content(model: onnx.ModelProto) -> tuple[Any, ...]:
    graph = model.graph
    nodes = [
        (
            node.op_type,
            node.domain,
            tuple(node.input),
            tuple(node.output),
            sorted(each.SerializeToString(deterministic=True) for each in node.attribute),
        )
        for node in graph.node
    ]
    weights = {t.name: (t.data_type, tuple(t.dims), _bytes(t)) for t in graph.initializer}
    return nodes, weights, _interface(model)


def _bytes(tensor: onnx.TensorProto) -> bytes:
    from onnx import numpy_helper

    return tensor.raw_data or numpy_helper.to_array(tensor).tobytes()
