"""Reading .onnx files, whoever wrote them: parsed, and told what in them no reader can make out.

A file that parses may still hold what ONNX does not allow, and what the onnx package then raises,
each time another exception, helps nobody. :func:`torch2mobile.onnx_schema.problems` is asked before
anything else looks at a model. :func:`understood` is for what it does not know.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from torch2mobile.errors import ModelFileError, near_path

if TYPE_CHECKING:
    import onnx

_ANEW = "Copy it anew, or export the model again."
_LIBRARIES = frozenset({"onnx", "google", "numpy"})
# How a field is written: bytes after their number, or so many of them.
_BYTES, _WIDTHS = 2, {1: 8, 5: 4}
# Fewer bytes of numbers, such as axes and sizes, belong to a file's outline.
_LARGE = 1024
_NUMBERS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def read_model(path: Path, *, reads: str = ".onnx files and bundles") -> onnx.ModelProto:
    """The ModelProto of a file, without its external data; ``reads`` is what a caller can read.

    Raises ModelFileError for a missing, unreadable, empty or corrupt file, and for one of another
    kind.
    """
    with reading(path):
        if not path.is_file():
            raise ModelFileError(f"there is no file {path}", near_path(path, "Check the path."))
        if path.stat().st_size == 0:
            raise ModelFileError(f"{path} is empty: it has 0 bytes, and no model in it", _ANEW)
        if is_ort(path):
            beside = path.with_suffix(".onnx")
            source = str(beside) if beside.is_file() else "the .onnx that it was made from"
            raise ModelFileError(
                f"{path} is in the .ort format, and what is read here are {reads}",
                f"Give {source}.",
            )
    model = parse(path, reads=reads)
    if not model.graph.output:
        raise ModelFileError(
            f"{path} holds no graph with outputs, which every ONNX model has", _ANEW
        )
    return model


def parse(path: Path, *, reads: str = ".onnx files and bundles") -> onnx.ModelProto:
    """The ModelProto in a file's bytes, whatever it holds; ModelFileError where they are none."""
    import onnx

    size = ""
    try:
        with mapped(path) as data:
            size = f"its {len(data):,} bytes are no whole model"
            model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except ModelFileError:
        raise
    except Exception as error:
        # What the parser says ("wire format was corrupt") is about bytes, and helps nobody.
        if path.suffix != ".onnx":
            raise ModelFileError(
                f"{path} is no ONNX file", f"What is read here are {reads}."
            ) from error
        raise ModelFileError(f"{path} is no ONNX file, or is truncated: {size}", _ANEW) from error
    strange = next(_unreadable(model), None)
    if strange is not None:
        raise ModelFileError(f"{path} is no ONNX file, or is damaged: {strange}", _ANEW)
    return model


def read_whole(path: Path) -> onnx.ModelProto:
    """The ModelProto of a file with its external data; ModelFileError where either is not sound."""
    import onnx

    model = read_model(path)
    with reading(path), understood(str(path)):
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
    return model


def outline(path: Path) -> onnx.ModelProto:
    """The ModelProto of a file but for the numbers of its graph's large initializers, never read.

    Everything else is as in the file: of a model of 400 MB this takes a hundredth of the time.
    Raises ModelFileError as :func:`read_model` does.
    """
    with contextlib.suppress(IndexError, ValueError), mapped(path) as data:
        model = _outlined(data)
        if model.graph.output and next(_unreadable(model), None) is None:
            return model
    return read_model(path)  # which says what is wrong


def _outlined(data: memoryview) -> onnx.ModelProto:
    import onnx

    fields = onnx.TensorProto.DESCRIPTOR.fields_by_name
    numbers = {fields[name].number for name in _NUMBERS}
    model = onnx.ModelProto()
    for number, whole, contents in _fields(data):
        if number != onnx.ModelProto.GRAPH_FIELD_NUMBER:
            _merge(model, whole)
            continue
        for part, each, tensor in _fields(contents):
            if part != onnx.GraphProto.INITIALIZER_FIELD_NUMBER:
                _merge(model.graph, each)
                continue
            initializer = model.graph.initializer.add()
            for kind, field, values in _fields(tensor):
                if kind not in numbers or len(values) <= _LARGE:
                    _merge(initializer, field)
    return model


def _merge(message: Any, field: memoryview) -> None:
    try:
        message.MergeFromString(field)
    except Exception as error:  # protobuf's own, for which onnx has no name
        raise ValueError("no field of this message") from error


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Number, bytes and contents of a message's fields.

    As in https://protobuf.dev/programming-guides/encoding.
    """
    at = 0
    while at < len(message):
        key, start = _varint(message, at)
        kind = key & 7
        if kind == _BYTES:
            size, start = _varint(message, start)
            end = start + size
        else:
            end = start + _WIDTHS[kind] if kind in _WIDTHS else _varint(message, start)[1]
        if end > len(message):
            raise ValueError(f"a field ends at {end} of {len(message)} bytes")
        yield key >> 3, message[at:end], message[start:end]
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, seven bits to a byte, and where what follows it begins."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


@contextlib.contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """A file's bytes without a copy of them."""
    with reading(path), path.open("rb") as file:
        empty = not path.stat().st_size  # which cannot be mapped
        yield memoryview(b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def is_ort(path: Path) -> bool:
    """Whether a file is in the .ort format, by its ending or its first bytes."""
    with path.open("rb") as file:
        return path.suffix == ".ort" or file.read(8)[4:] == b"ORTM"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError while reading a model into a ModelFileError that says what it is about."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(
            f"cannot read {path}: {error.strerror or error}", "Give a file that can be read."
        ) from error


@contextlib.contextmanager
def understood(name: str) -> Iterator[None]:
    """Turn what the onnx package raises about a model into a ModelFileError.

    An exception that our own code raises stays as it is.
    """
    try:
        yield
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            raise
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelFileError(
            f"{name} is not as ONNX defines a model: {text}",
            "Run onnx.checker.check_model(path, full_check=True) on it.",
        ) from error


def tensors(message: Any) -> Iterator[onnx.TensorProto]:
    """All tensors of a model: of graphs, subgraphs, functions, attributes, sparse or not."""
    for _, value in message.ListFields():
        single = hasattr(value, "ListFields")
        for item in [value] if single else value if isinstance(value, Sequence) else []:
            if not hasattr(item, "ListFields"):
                break
            if item.DESCRIPTOR.name == "TensorProto":
                yield item
            else:
                yield from tensors(item)


def locations(tensor: onnx.TensorProto) -> list[str]:
    """The files that a tensor says its values are in; in a sound model at most one."""
    return [entry.value for entry in tensor.external_data if entry.key == "location"]


def data_names(path: Path) -> list[str]:
    """The files that an .onnx keeps weights in, by its own names for them.

    The file is parsed only where it can have any: the key's name must stand in its bytes.
    """
    with mapped(path) as data:
        if bytes(data[4:8]) == b"ORTM" or not re.search(b"location", data):
            return []
    return list(dict.fromkeys(name for each in tensors(parse(path)) for name in locations(each)))


def own_files(path: Path) -> list[Path]:
    """An .onnx that was written here, and the file of its weights where it has one."""
    return [each for each in (path, path.with_name(f"{path.name}.data")) if each.exists()]


def save(model: onnx.ModelProto, path: Path, *, external: bool) -> None:
    """Write a model, its weights in a file beside it or in its own; an older such file goes."""
    import onnx

    data = path.with_name(f"{path.name}.data")
    data.unlink(missing_ok=True)
    onnx.save(model, path, save_as_external_data=external, location=data.name if external else None)


def leads_out(folder: Path, name: str) -> bool:
    """Whether a path, as a file names it, is not that of a file in the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not name:
        return True
    try:
        return not (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a zero byte, too long a name
        return True


def _unreadable(message: Any) -> Iterator[str]:
    """Texts that are no UTF-8: protobuf gives them as bytes, and every name may be one."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_STRING:
            texts = [value] if isinstance(value, str | bytes) else value
            yield from (f"{field.name} {t!r} is no UTF-8" for t in texts if isinstance(t, bytes))
        elif field.type == field.TYPE_MESSAGE:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield from _unreadable(item)
