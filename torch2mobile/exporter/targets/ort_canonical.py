"""One order for the parts of an .ort file that ONNX Runtime writes in the order of a hash table.

Those tables are seeded by addresses, so that the same model gives another file on each run.
"""

from __future__ import annotations

import importlib
import os
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from torch2mobile.errors import ModelFileError

_Value: TypeAlias = "int | bytes | _Array | _Table | list[bytes | _Table]"

# Vectors of tables that are maps to whoever reads the file, and where the key is. All others are
# lists and stay as they are.
_MAPS = {
    "Model.OpsetImport": ("Domain",),
    "Model.MetadataProps": ("Key",),
    "Graph.Initializers": ("Name",),
    "Graph.SparseInitializers": ("Values", "Name"),
    "Graph.NodeArgs": ("Name",),
    "Node.Attributes": ("Name",),
    "RuntimeOptimizations.Records": ("OptimizerName",),
    "KernelTypeStrResolver.OpKernelTypeStrArgs": ("OpId",),
    "OpIdKernelTypeStrArgsEntry.KernelTypeStrArgs": ("KernelTypeStr",),
}
# The schema's only union; the generated code does not tell the classes of its members.
_UNION: dict[object, str] = {1: "TensorTypeAndShape", 2: "SequenceType", 3: "MapType"}
_IDENTIFIER = b"ORTM"
_OFFSET = 4
# ONNX Runtime itself aligns weights to 4 bytes only.
_ALIGNMENT = 16


@dataclass
class _Table:
    """One table: what was written in it, by the field's name."""

    kind: str
    fields: dict[str, _Value]


@dataclass
class _Array:
    """A vector of numbers or structs, as bytes."""

    data: bytes
    count: int


class _Field(NamedTuple):
    """How a field lies in its table; of ``scalar`` and ``element`` at most one is not 0."""

    name: str
    slot: int
    scalar: int  # width of a number
    element: int  # width of a vector's element


class _Recorder:
    """Stands in for a builder, to learn from the generated functions what they would write."""

    def __init__(self) -> None:
        self.method = ""
        self.args: tuple[int, ...] = ()

    def __getattr__(self, method: str) -> Any:
        def record(*args: int) -> None:
            self.method, self.args = method, args

        return record


@cache
def _module(kind: str) -> Any:
    """The generated code of a table."""
    # This import puts the other one, under the name that the generated modules use, on the path.
    importlib.import_module("onnxruntime.tools.ort_format_model")
    return importlib.import_module(f"ort_flatbuffers_py.fbs.{kind}")


@cache
def _schema(kind: str) -> tuple[_Field, ...]:
    """The fields of a table, learned from the generated functions that add them."""
    from flatbuffers import number_types

    module, recorder, fields = _module(kind), _Recorder(), []
    prefix = f"{kind}Add"
    for name in [key.removeprefix(prefix) for key in vars(module) if key.startswith(prefix)]:
        getattr(module, prefix + name)(recorder, 0)
        slot = recorder.args[0]
        number = recorder.method.removeprefix("Prepend").removesuffix("Slot")
        flags = getattr(number_types, f"{number}Flags", None)  # UOffsetTRelative has none
        element = 0
        if start := getattr(module, f"{kind}Start{name}Vector", None):
            start(recorder, 0)
            element = recorder.args[0]
        fields.append(_Field(name, slot, flags.bytewidth if flags else 0, element))
    return tuple(fields)


def _unsigned(width: int) -> Any:
    """Numbers are read and written as their bits: a NaN must be equal to itself."""
    from flatbuffers import number_types

    return getattr(number_types, f"Uint{8 * width}Flags")


def _read(source: Any) -> _Table:
    """The table behind a generated accessor, and all below it."""
    kind, tab = type(source).__name__, source._tab
    table = _Table(kind, {})
    for field in _schema(kind):
        if offset := tab.Offset(4 + 2 * field.slot):
            if field.scalar:
                value: _Value = tab.Get(_unsigned(field.scalar), tab.Pos + offset)
            elif field.element:
                value = _read_vector(source, field, offset)
            else:
                member = table.fields.get(f"{field.name}Type", 0)
                value = _read_one(getattr(source, field.name)(), _UNION.get(member))
            table.fields[field.name] = value
    if len(table.fields) != _count(tab):
        raise ValueError(f"{kind} has a field that onnxruntime's Python schema lacks")
    return table


def _count(tab: Any) -> int:
    """How many fields are written in a table, known or not."""
    (distance,) = struct.unpack_from("<i", tab.Bytes, tab.Pos)
    (size,) = struct.unpack_from("<H", tab.Bytes, tab.Pos - distance)
    return sum(tab.Offset(slot) != 0 for slot in range(4, size, 2))


def _read_one(value: Any, member: str | None = None) -> bytes | _Table:
    """A string, a table, or a union's ``member``, whose accessor knows only where it is."""
    if isinstance(value, bytes):
        return value
    if member:
        accessor = getattr(_module(member), member)()
        accessor.Init(value.Bytes, value.Pos)
        return _read(accessor)
    return _read(value)


def _read_vector(source: Any, field: _Field, offset: int) -> _Value:
    """A vector, in the order of its keys if it has any."""
    tab, kind = source._tab, type(source).__name__
    start, count = tab.Vector(offset), tab.VectorLen(offset)
    end = start + count * field.element
    if end > len(tab.Bytes):
        raise ValueError(f"{kind}.{field.name} is longer than the file")
    if field.element != _OFFSET or hasattr(source, f"{field.name}AsNumpy"):
        return _Array(bytes(tab.Bytes[start:end]), count)
    get, path = getattr(source, field.name), _MAPS.get(f"{kind}.{field.name}")
    values = [_read_one(get(index)) for index in range(count)]
    return sorted(values, key=lambda value: _key(value, path)) if path else values


def _key(value: Any, path: tuple[str, ...]) -> bytes:
    """As bytes, because readers may look for it by binary search with ``strcmp``."""
    for name in path:
        value = value.fields.get(name, b"")
    return cast("bytes", value)


def _write(builder: Any, table: _Table) -> int:
    """Write a table after all below it, and return its offset."""
    fields = [field for field in _schema(table.kind) if field.name in table.fields]
    values = [_write_value(builder, table.fields[field.name], field) for field in fields]
    builder.StartObject(1 + max((field.slot for field in fields), default=-1))
    for field, value in zip(fields, values, strict=True):
        if field.scalar:
            builder.Prepend(_unsigned(field.scalar), value)
        else:
            builder.PrependUOffsetTRelative(value)
        builder.Slot(field.slot)
    return cast("int", builder.EndObject())


def _write_value(builder: Any, value: _Value, field: _Field) -> int:
    """The offset of a value that is written outside of its table; a number is its own."""
    if isinstance(value, int):
        return value
    if isinstance(value, bytes):
        return cast("int", builder.CreateSharedString(value))
    if isinstance(value, _Table):
        return _write(builder, value)
    if isinstance(value, _Array):
        builder.StartVector(field.element, value.count, _ALIGNMENT)
        # As CreateByteVector does it, which takes neither an alignment nor wider elements.
        builder.head -= len(value.data)
        builder.Bytes[builder.head : builder.head + len(value.data)] = value.data
    else:
        offsets = [_write_value(builder, item, field) for item in value]
        builder.StartVector(_OFFSET, len(offsets), _OFFSET)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
    return cast("int", builder.EndVector())


def _parse(data: bytes) -> _Table:
    """The whole file, its maps sorted."""
    session = _module("InferenceSession").InferenceSession
    if not session.InferenceSessionBufferHasIdentifier(data, 0):
        raise ValueError("it does not begin as an .ort file")
    return _read(session.GetRootAs(data, 0))


def canonicalize(path: Path) -> None:
    """Rewrite the .ort file ``path`` so that equal models are equal bytes."""
    from flatbuffers import Builder

    try:
        data = path.read_bytes()
        model = _parse(data)
        builder = Builder(2 * len(data))
        builder.Finish(_write(builder, model), file_identifier=_IDENTIFIER)
        rebuilt = bytes(builder.Output())
        if _parse(rebuilt) != model:
            raise ValueError("its copy has another meaning")
    except (ValueError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise ModelFileError(
            f"{path.name} cannot be brought into a fixed order: {error}",
            "Export it again; if that does not help, report the version of onnxruntime.",
        ) from error
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(rebuilt)
    os.replace(beside, path)
