"""One layout for .ort files, which ONNX Runtime lays out in the order of a hash table.

That table (of the operators' type names) is seeded by addresses: each run gives another file.
"""

from __future__ import annotations

import importlib
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
from flatbuffers import number_types

from torch2mobile.errors import ConversionError

_Value: TypeAlias = "int | bytes | _Array | Table | list[bytes | Table]"

# Vectors that are maps to whoever reads the file, and where the keys are. Sorted, the file does not
# depend on the C++ library's own maps either. All other vectors are lists and stay as they are.
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
# The only union of the schema; the generated code does not tell the classes of its members.
_UNION: dict[object, str] = {1: "TensorTypeAndShape", 2: "SequenceType", 3: "MapType"}
_IDENTIFIER = b"ORTM"
_OFFSET = 4
# Numbers are read and written as their bits: a NaN must be equal to itself.
_BITS = {
    1: number_types.Uint8Flags,
    2: number_types.Uint16Flags,
    4: number_types.Uint32Flags,
    8: number_types.Uint64Flags,
}
# ONNX Runtime itself aligns weights to 4 bytes only.
_ALIGNMENT = 16
_CHUNK = 1 << 20


@dataclass
class Table:
    """One table: what was written in it, by the field's name."""

    kind: str
    fields: dict[str, _Value]


@dataclass
class _Array:  # noqa: PLW1641 (a dataclass has none where it compares)
    """A vector of numbers or structs, as the bytes in the file."""

    data: memoryview
    count: int

    def __eq__(self, other: object) -> bool:
        # memoryviews compare element by element, which takes seconds for large weights.
        return (
            isinstance(other, _Array)
            and self.count == other.count
            and len(self.data) == len(other.data)
            and all(
                np.array_equal(self._bytes(start), other._bytes(start))
                for start in range(0, len(self.data), _CHUNK)
            )
        )

    def _bytes(self, start: int) -> Any:
        return np.frombuffer(self.data[start : start + _CHUNK], np.uint8)


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


def _read(source: Any) -> Table:
    """The table behind a generated accessor, and all below it."""
    kind, tab = type(source).__name__, source._tab
    table, offsets = Table(kind, {}), _offsets(tab)
    for field in _schema(kind):
        if offset := offsets.pop(field.slot, 0):
            if field.scalar:
                value: _Value = tab.Get(_BITS[field.scalar], tab.Pos + offset)
            elif field.element:
                value = _read_vector(source, field, offset)
            else:
                member = table.fields.get(f"{field.name}Type")
                value = _read_one(getattr(source, field.name)(), member)
            table.fields[field.name] = value
    if offsets:
        raise ValueError(f"{kind} has a field that onnxruntime's Python schema lacks")
    return table


def _offsets(tab: Any) -> dict[int, int]:
    """Where a table's fields are, by their slots; fields that are not there have no offset."""
    (distance,) = struct.unpack_from("<i", tab.Bytes, tab.Pos)
    (size,) = struct.unpack_from("<H", tab.Bytes, tab.Pos - distance)
    offsets = struct.unpack_from(f"<{size // 2 - 2}H", tab.Bytes, tab.Pos - distance + 4)
    return {slot: offset for slot, offset in enumerate(offsets) if offset}


def _read_one(value: Any, member: object = None) -> bytes | Table:
    """A string, a table, or the ``member`` of a union, whose accessor knows only its place."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, flatbuffers.table.Table):
        kind = _UNION[member]
        accessor = getattr(_module(kind), kind)()
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
        return _Array(memoryview(tab.Bytes)[start:end], count)
    get, path = getattr(source, field.name), _MAPS.get(f"{kind}.{field.name}")
    values = [_read_one(get(index)) for index in range(count)]
    return sorted(values, key=lambda value: _key(value, path)) if path else values


def _key(value: Any, path: tuple[str, ...]) -> bytes:
    """As bytes, because readers may look for it by binary search with ``strcmp``."""
    for name in path:
        value = value.fields.get(name, b"")
    return cast("bytes", value)


def _write(builder: Any, table: Table) -> int:
    """Write a table after all below it, and return its offset."""
    fields = [field for field in _schema(table.kind) if field.name in table.fields]
    values = [_write_value(builder, table.fields[field.name], field) for field in fields]
    builder.StartObject(1 + max((field.slot for field in fields), default=-1))
    for field, value in zip(fields, values, strict=True):
        if field.scalar:
            builder.Prepend(_BITS[field.scalar], value)
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
    if isinstance(value, Table):
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


def parse(data: bytes | memoryview) -> Table:
    """The whole file, its maps sorted; raises ValueError and others for what is no .ort file."""
    session = _module("InferenceSession").InferenceSession
    if not session.InferenceSessionBufferHasIdentifier(data, 0):
        raise ValueError("it does not begin like an .ort file")
    return _read(session.GetRootAs(data, 0))


def _rebuild(data: bytes) -> memoryview:
    """The same model in the layout that follows from its contents."""
    model = parse(data)
    rebuilt = built(model, len(data))
    if parse(rebuilt) != model:
        raise ValueError("the copy has another meaning")
    return rebuilt


def built(model: Table, size: int) -> memoryview:
    """The bytes of a file of about this size."""
    # The alignment of the weights takes a little more than the file had; a builder grows.
    builder = flatbuffers.Builder(min(size + 2**16, flatbuffers.Builder.MAX_BUFFER_SIZE))
    builder.Finish(_write(builder, model), file_identifier=_IDENTIFIER)
    # What Output() gives, but no copy.
    return memoryview(builder.Bytes)[builder.head :]


def canonicalize(path: Path) -> None:
    """Rewrite the .ort file ``path`` so that equal models are equal bytes.

    Raises ConversionError, and leaves the file alone, if it is not understood in full.
    """
    try:
        rebuilt = _rebuild(path.read_bytes())
    # What the accessors and the builder raise for offsets that lead nowhere, and for 2 GB.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RuntimeError,  # RecursionError as well
        TypeError,
        ValueError,
        struct.error,
    ) as error:
        raise ConversionError(
            f"wrote a file {path.name} that cannot be laid out anew: {error}",
            "Export it again; if that does not help, try another version of onnxruntime.",
        ) from error
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(rebuilt)
    beside.replace(path)
