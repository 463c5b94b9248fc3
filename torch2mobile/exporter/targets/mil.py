"""Evaluates the MIL program of a saved Core ML model, operator by operator, with PyTorch.

Core ML itself runs on Apple's systems only. This reads what was written, the program of
``model.mlmodel`` and its weights in ``weight.bin``, and computes what the program says; how Core ML
rounds on a device it cannot tell.
"""

from __future__ import annotations

import inspect
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch2mobile.errors import MissingToolError, ModelFileError
from torch2mobile.exporter.targets.mil_operators import LISTED, OPERATORS
from torch2mobile.exporter.targets.mlpackage import every_operation, read_model, specs
from torch2mobile.records import Layer, OutputSpec

if TYPE_CHECKING:
    from torch import Tensor

# By MIL's numbers of types.
_DTYPES = {
    1: "bool", 2: "str", 10: "float16", 11: "float32", 12: "float64",
    21: "int8", 22: "int16", 23: "int32", 24: "int64",
    31: "uint8", 32: "uint16", 33: "uint32", 34: "uint64",
}  # fmt: skip
# What stands before each tensor of a weight file: a mark, its type, its bytes and its place.
_RECORD = struct.Struct("<IIQQ")
_MARK = 0xDEADBEEF
_COMPUTED = {torch.bool, torch.int32, torch.int64, torch.float32}
_LOOP, _BRANCH = "while_loop", "cond"


class MilRunner:
    """The function ``main`` of a model's program; each value is rounded to its declared type.

    Raises ModelFileError for what is no such model, and MissingToolError for a program with
    operators, or inputs of them, that are not evaluated.
    """

    def __init__(self, path: Path) -> None:
        self._spec = read_model(path)
        function = self._spec.mlProgram.functions["main"]
        self._block = function.block_specializations[function.opset]
        self._inputs = specs(self._spec.description.input)
        self._outputs = specs(self._spec.description.output)
        made = {out.name for op in self._block.operations for out in op.outputs}
        lost = set(self._block.outputs) - made - {one.name for one in function.inputs}
        if lost:
            raise ModelFileError(
                f"no operation of the program makes {', '.join(sorted(lost))}",
                "Convert it again from its module.",
            )
        every = list(every_operation(self._block))
        unknown = {_unknown(op) for op in every} - {""}
        if unknown:
            raise _not_evaluated(", ".join(sorted(unknown)))
        self._constants = {
            op.outputs[0].name: _value(op.attributes["val"], path)
            for op in every
            if op.type == "const"
        }

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs; those that vary are not told."""
        return self._inputs

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names and dtypes of the outputs; their sizes are not told."""
        return self._outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the model's order."""
        found = self._evaluated(feeds)
        return [
            (name, found[name].numpy().astype(spec.dtype, copy=False))
            for name, spec in zip(self._block.outputs, self.outputs(), strict=True)
        ]

    def layers(self) -> tuple[Layer, ...]:
        """All inputs, then the operations that give floats, without what only sizes go through."""
        layers = [Layer(spec.name, "input", (), (spec.name,)) for spec in self.inputs()]
        shown = {layer.name for layer in layers}
        for op in self._block.operations:
            given = (
                ()
                if op.type == "const"
                else tuple(out.name for out in op.outputs if _dtype(out).startswith("float"))
            )
            read = {one.name for key in op.inputs for one in op.inputs[key].arguments}
            if given:
                layers.append(Layer(given[0], op.type, tuple(sorted(read & shown)), given))
                shown.update(given)
        return tuple(layers)

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by their names in the program."""
        found = self._evaluated(feeds)
        return {name: found[name].numpy() for name in names}

    def _evaluated(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        found = dict(self._constants)
        for spec in self.inputs():
            found[spec.name] = torch.from_numpy(np.array(feeds[spec.name], dtype=spec.dtype))
        with torch.inference_mode():
            _evaluate(self._block, found)
        return found


def _evaluate(block: Any, found: dict[str, Any]) -> list[Any]:
    """Compute a block where these values are known, which then has its own too; what it gives."""
    for op in block.operations:
        if op.type == "const":
            continue
        if op.type == _LOOP:
            answers = _looped(op, found)
        elif op.type == _BRANCH:
            (taken,) = op.inputs["pred"].arguments
            answers = _evaluate(op.blocks[0 if bool(_one(taken, found)) else 1], found)
        else:
            answers = list(_called(op, found))
        for out, value in zip(op.outputs, answers, strict=True):
            found[out.name] = value.to(getattr(torch, _dtype(out))) if _dtype(out) else value
    return [found[name] for name in block.outputs]


def _looped(op: Any, found: Mapping[str, Any]) -> list[Any]:
    """A while loop: its first block says whether its second one runs again."""
    values = [_one(argument, found) for argument in op.inputs["loop_vars"].arguments]
    again, body = op.blocks
    while True:
        given = dict(zip((one.name for one in again.inputs), values, strict=True))
        if not bool(_evaluate(again, {**found, **given})[0]):
            return values
        given = dict(zip((one.name for one in body.inputs), values, strict=True))
        values = _evaluate(body, {**found, **given})


def _unknown(op: Any) -> str:
    """The operator that has no function here, or takes what that does not; empty for any other."""
    if op.type in {"const", _LOOP, _BRANCH}:
        return ""
    if op.type not in OPERATORS:
        return str(op.type)
    known = inspect.signature(OPERATORS[op.type]).parameters
    other = sorted(set(op.inputs) - set(known))
    return f"{op.type} with {', '.join(other)}" if other else ""


def _not_evaluated(what: str) -> MissingToolError:
    return MissingToolError(
        f"the program has {what}, which is not evaluated here: nothing is known of it",
        "Export on macOS, where Core ML itself runs it, or leave out the target.",
    )


def _called(op: Any, found: Mapping[str, Any]) -> Sequence[Tensor]:
    """What an operation gives; RuntimeError that names it where it stops."""
    given = {
        key: _given(op.inputs[key].arguments, found, listed=key in LISTED) for key in op.inputs
    }
    try:
        answer = OPERATORS[op.type](**given)
    except NotImplementedError as error:
        raise _not_evaluated(str(error)) from error
    except Exception as error:
        name = op.outputs[0].name
        raise RuntimeError(f"the evaluator stops at {op.type} {name}: {error}") from error
    return list(answer) if len(op.outputs) > 1 else [answer]


def _given(arguments: Sequence[Any], found: Mapping[str, Any], *, listed: bool) -> Any:
    values = [_widened(_one(argument, found)) for argument in arguments]
    return values if listed or len(values) > 1 else values[0]


def _widened(value: Any) -> Any:
    """In a type that every operator is computed in."""
    if isinstance(value, torch.Tensor) and value.dtype not in _COMPUTED:
        return value.float() if value.is_floating_point() else value.int()
    return value


def _one(argument: Any, found: Mapping[str, Any]) -> Any:
    return found[argument.name] if argument.name else _value(argument.value, None)


def _dtype(out: Any) -> str:
    """The type of a tensor; empty for a list."""
    return _DTYPES.get(out.type.tensorType.dataType, "")


def _value(value: Any, path: Path | None) -> Any:
    """A constant as a tensor, or as text."""
    kind = value.type.tensorType
    dtype = _DTYPES.get(kind.dataType, "")
    shape = [dim.constant.size for dim in kind.dimensions]
    if value.WhichOneof("value") == "blobFileValue":
        assert path is not None
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raw = _blob(path.parent, value.blobFileValue, size)
        return torch.from_numpy(np.frombuffer(raw, dtype).reshape(shape).copy())
    held = value.immediateValue.tensor
    own = held.WhichOneof("value")
    if own is None:
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    values = getattr(held, own).values
    if dtype == "str":
        return str(values[0])
    array = np.frombuffer(values, dtype) if own == "bytes" else np.array(values, dtype)
    return torch.from_numpy(array.reshape(shape).copy())


def _blob(folder: Path, told: Any, wanted: int) -> bytes:
    """The bytes of one tensor of the weight file; ModelFileError where they are not there."""
    path = folder / told.fileName.removeprefix("@model_path/")
    raw, why = b"", "it ends before them, or is another model's"
    try:
        with path.open("rb") as file:
            file.seek(told.offset)
            mark, _, size, offset = _RECORD.unpack(file.read(_RECORD.size))
            if (mark, size) == (_MARK, wanted) and size <= path.stat().st_size:
                file.seek(offset)
                raw = file.read(wanted)
    except (OSError, ValueError, struct.error) as error:
        why = str(error)
    if len(raw) != wanted:
        raise ModelFileError(
            f"{path.name} does not hold the weights of the model: {why}",
            "Keep the .mlpackage whole.",
        )
    return raw
