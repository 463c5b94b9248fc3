"""The captured graph as an ONNX file, with the user's names and the opset that was asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch

from torch2mobile.copies import calm
from torch2mobile.errors import ExitCode, TranslateError
from torch2mobile.exporter import provenance, refusal, value_mapping
from torch2mobile.exporter.exact_constants import exact_constants
from torch2mobile.exporter.interface_names import name_dims, name_interface, values
from torch2mobile.exporter.recurrent_layers import whole_recurrent_layers
from torch2mobile.exporter.translations.row import Row
from torch2mobile.exporter.translations.table import RegistrationError, Table
from torch2mobile.records import Capture, OnnxModel, OutputSpec
from torch2mobile.tensors import quiet

PROTOBUF_LIMIT = 2**31
# What came with an IR version of its own.
_WEIGHTS, _FUNCTIONS = 4, 8  # weights that are no inputs
_TYPES = {"FLOAT8": 9, "INT4": 10, "UINT4": 10, "FLOAT4": 11}


class OpsetError(TranslateError):
    """The opset that was asked for cannot be had for this model."""


def check_opset(opset: int | None) -> None:
    """Refuse an opset that the installed onnx does not know, before any work is done."""
    newest = onnx.defs.onnx_opset_version()
    if opset is not None and not 7 <= opset <= newest:
        error = OpsetError(
            f"--opset {opset}: the installed onnx {onnx.__version__} knows opsets 7 to {newest}",
            "Ask for one of these, or leave --opset out.",
        )
        error.exit_code = ExitCode.USAGE
        raise error


@dataclass(frozen=True)
class Translation:
    """An ONNX file, the program that it was translated from, and which values are the same.

    ``program`` is the capture after the exporter's own decompositions, None for a trace. ``twins``
    has, by the name of an ONNX value, that of the program's node with the same tensor. ``mended``
    are the operators that torch2mobile translated in place of the exporter.
    """

    model: OnnxModel
    program: torch.export.ExportedProgram | None
    twins: Mapping[str, str]
    mended: tuple[Row, ...] = ()


@dataclass(frozen=True)
class InMemory:
    """A translation that is not written yet, with the origin of each of its values."""

    model: ir.Model
    origins: provenance.Origins
    program: torch.export.ExportedProgram | None
    twins: Mapping[str, str]
    mended: tuple[Row, ...] = ()


def translation(
    capture: Capture,
    path: Path,
    *,
    opset: int | None = None,
    external_data: bool = False,
    mend: bool = True,
) -> Translation:
    """Write the capture as ONNX to ``path``; weights go beside it when asked or above 2 GB.

    Without ``mend`` every operator is translated by the exporter alone. Raises TranslateError with
    the user's line for an operator that has no ONNX form, and OpsetError rather than write another
    opset than the one asked for.
    """
    made = in_memory(capture, path.parent, opset=opset, mend=mend)
    _save(made.model, path, external_data=external_data)
    written = OnnxModel(
        path=path,
        opset=made.model.opset_imports.get("", 0),
        inputs=capture.inputs,
        outputs=tuple(_output_spec(value) for value in made.model.graph.outputs),
        origins=made.origins,
    )
    return Translation(written, made.program, made.twins, made.mended)


def in_memory(
    capture: Capture, folder: Path, *, opset: int | None = None, mend: bool = True
) -> InMemory:
    """What :func:`translation` writes; raises what that raises.

    A trace is written into ``folder`` for a while.
    """
    check_opset(opset)
    table = Table()
    try:
        with calm(), quiet(), whole_recurrent_layers(plain=mend), exact_constants():
            program = None
            if capture.program is None:
                model = _trace(capture, folder, opset)
            else:
                functions = table.functions() if mend else None
                with table.overhearing():
                    model, program = _program_to_ir(capture, opset, functions)
    except (OpsetError, RegistrationError, OSError):
        raise
    except Exception as error:
        raise refusal.explain(capture, error) from error
    got = model.opset_imports.get("", 0)
    if opset is not None and got != opset:
        raise OpsetError(
            f"opset {opset} was asked for, but the exporter wrote opset {got}: "
            f"an operator in it has no form in opset {opset}",
            "Ask for a newer opset, or leave --opset out.",
        )
    if capture.program is not None:
        provenance.restore(model, capture.program)
    named = [(value, str(value.name)) for value in values(model.graph)]
    name_interface(model, capture)
    same = value_mapping.find(model, named, program) if program is not None else {}
    name_dims(model, capture)
    model.ir_version = _least_ir_version(model)
    traced = capture.program is None
    module = capture.loaded.module
    found = provenance.from_names(model, module) if traced else provenance.collect(model)
    origins = provenance.complete(model, module, found)
    _refuse_bfloat16(model, origins)
    provenance.strip(model)
    return InMemory(model, origins, program, same, tuple(table.used.values()))


def _refuse_bfloat16(model: ir.Model, origins: provenance.Origins) -> None:
    """onnxruntime's Python package takes and gives no bfloat16 arrays: nothing can be proven."""
    for value in [*model.graph.inputs, *model.graph.outputs]:
        if value.dtype == ir.DataType.BFLOAT16:
            raise TranslateError(
                f"{value.name} is bfloat16, which ONNX Runtime's Python package cannot be fed with",
                "Take and return float32, and convert inside forward: x.float().",
                tuple(one.place() for one in origins.get(str(value.name), ())),
            )


def _program_to_ir(
    capture: Capture, opset: int | None, functions: dict[Any, Any] | None
) -> tuple[ir.Model, torch.export.ExportedProgram]:
    assert capture.program is not None
    program = torch.onnx.export(
        _with_sizes_of_pieces(capture.program),
        (),
        dynamo=True,
        opset_version=opset,
        custom_translation_table=functions,
        verbose=False,
        optimize=True,
    )
    assert program is not None
    assert program.exported_program is not None
    _cast_back(program.model.graph, capture.program)
    return program.model, program.exported_program


def _with_sizes_of_pieces(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Pieces of a varying size with all their sizes listed: the exporter stops at others."""
    chunk = torch.ops.aten.chunk.default
    table = {**torch._decomp.get_decompositions([torch.ops.aten.split.Tensor])}
    table[chunk] = chunk.decompose
    for node in program.graph.nodes:
        if node.target in table:
            pieces = [size for piece in node.meta["val"] for size in piece.shape]
            if any(isinstance(size, torch.SymInt) for size in pieces):
                listed: torch.export.ExportedProgram = program.run_decompositions(table)
                return listed
    return program


def _cast_back(graph: ir.Graph, program: torch.export.ExportedProgram) -> None:
    """The outputs in the program's dtypes: the exporter leaves out a cast that comes last."""
    last = program.graph_module.graph.output_node().args[0]
    wanted = [node.meta["val"] if isinstance(node, torch.fx.Node) else None for node in last]
    if len(wanted) != len(graph.outputs):
        return
    for index, (value, own) in enumerate(zip(list(graph.outputs), wanted, strict=True)):
        if not isinstance(own, torch.Tensor) or own.is_complex():
            continue
        dtype = ir.tensor_adapters.from_torch_dtype(own.dtype)
        if value.dtype not in {None, dtype}:
            node = ir.Node(
                "", "Cast", [value], [ir.AttrInt64("to", dtype)], name=f"node_cast_{index}"
            )
            cast = node.outputs[0]
            cast.shape, cast.dtype = value.shape, dtype
            graph.append(node)
            graph.outputs[index] = cast


def _trace(capture: Capture, folder: Path, opset: int | None) -> ir.Model:
    """The TorchScript exporter; it writes a file of its own, which is then read back."""
    axes = {
        spec.name: {i: str(dim.label) for i, dim in enumerate(spec.dims) if dim.symbol}
        for spec in capture.inputs
    }
    assert capture.traced is not None
    with tempfile.TemporaryDirectory(dir=folder) as scratch, _native_prints_dropped():
        rough = Path(scratch) / "model.onnx"
        try:
            torch.onnx.export(
                capture.traced,
                capture.loaded.tensors,
                str(rough),
                dynamo=False,
                opset_version=opset,
                input_names=[spec.name for spec in capture.inputs],
                output_names=list(capture.outputs),
                dynamic_axes={name: found for name, found in axes.items() if found},
            )
        except Exception as error:
            if opset is None or "opset" not in str(error):
                raise
            raise OpsetError(
                f"opset {opset} was asked for, but a TorchScript trace cannot be written in it",
                "Leave --opset out, or rewrite what torch.export refuses (see the attempts).",
            ) from error
        model = onnx.load(rough)
    provenance.strip_proto(model)
    return ir.from_proto(model)


@contextlib.contextmanager
def _native_prints_dropped() -> Iterator[None]:
    """torch's C++ prints the whole graph on file descriptor 1 before it raises."""
    sys.stdout.flush()
    kept = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


def _output_spec(value: ir.Value) -> OutputSpec:
    shape = value.shape or ()
    dims = [dim if isinstance(dim, int) else str(dim.value or "?") for dim in shape]
    dtype = value.dtype.numpy().name if value.dtype is not None else ""
    return OutputSpec(name=str(value.name), dtype=dtype, dims=tuple(dims))


def _least_ir_version(model: ir.Model) -> int:
    """The oldest that has the model's opsets and types, so that older runtimes load it."""
    known = {d: v for d, v in model.opset_imports.items() if d in {"", "ai.onnx.ml"}}
    opsets = [onnx.helper.make_opsetid(*pair) for pair in known.items()]
    try:
        least = int(onnx.helper.find_min_ir_version_for(opsets))
    except ValueError:  # newer than the installed onnx
        return int(model.ir_version)
    names = {value.dtype.name for value in values(model.graph) if value.dtype is not None}
    needed = [ir for start, ir in _TYPES.items() if any(name.startswith(start) for name in names)]
    return max([least, _WEIGHTS, *needed, _FUNCTIONS if model.functions else 0])


def weight_bytes(model: ir.Model) -> int:
    """The size of all weights, in bytes."""
    tensors = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _save(model: ir.Model, path: Path, *, external_data: bool) -> None:
    large = weight_bytes(model) > PROTOBUF_LIMIT - 2**24
    ir.save(model, path, external_data=f"{path.name}.data" if external_data or large else None)
