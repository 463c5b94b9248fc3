"""The folder of a Core ML model: its parts, what its description tells, and its names."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.records import InputSpec, OnnxModel, OutputSpec

SUFFIX = ".mlpackage"
MODEL = "Data/com.apple.CoreML/model.mlmodel"
# The numbers of types of what an app gives and is given.
_ARRAYS = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32"}
_DAY = "com.github.apple.coremltools.conversion_date"


def package_of(path: Path) -> Path:
    """The .mlpackage that a model's file lies in; any other file itself."""
    return next((one for one in path.absolute().parents if one.suffix == SUFFIX), path)


def model_name(path: Path) -> str:
    """What a file is called: one that lies in a package as that is."""
    return package_of(path).name


def model_in(path: Path) -> Path:
    """The file that a runtime loads: of a package the model in it, any other itself."""
    return path / MODEL if path.suffix == SUFFIX and path.is_dir() else path


def read_model(path: Path) -> Any:
    """The specification of a ``model.mlmodel``; ModelFileError for any but an ML Program."""
    spec = _protobuf().Model()
    try:
        spec.ParseFromString(path.read_bytes())
        kind = spec.WhichOneof("Type")
    except Exception as error:
        raise ModelFileError(
            f"Core ML cannot load {path.name}: it is no model, or not whole",
            "Convert it again from its module, or copy the whole .mlpackage anew.",
        ) from error
    if kind != "mlProgram":
        raise ModelFileError(
            f"{path.name} is no ML Program, but {kind or 'empty'}",
            "Convert it with convert_to='mlprogram'.",
        )
    return spec


def _protobuf() -> ModuleType:
    """The form of the file, without the rest of coremltools, which takes seconds to import."""
    if "coremltools" in sys.modules:
        return importlib.import_module("coremltools.proto.Model_pb2")
    name = "coremltools_proto"
    if name not in sys.modules:
        spec = importlib.util.find_spec("coremltools")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError("No module named 'coremltools'", name="coremltools")
        folder = Path(spec.origin).with_name("proto")
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return importlib.import_module(f"{name}.Model_pb2")


def specs(features: Sequence[Any]) -> tuple[OutputSpec, ...]:
    """Names, dtypes and dims from a model's description; ModelFileError for other than arrays."""
    found = []
    for one in features:
        array = one.type.multiArrayType
        if array.dataType not in _ARRAYS:
            kind = one.type.WhichOneof("Type")
            raise ModelFileError(
                f"{one.name} is no array of a type that is known here, but {kind}",
                "Convert it with ct.TensorType of float32 or int32.",
            )
        ranges = array.shapeRange.sizeRanges
        dims = tuple("?" for _ in ranges) if ranges else tuple(array.shape)
        found.append(OutputSpec(one.name, _ARRAYS[array.dataType], dims))
    return tuple(found)


def settle(package: Path, model: OnnxModel) -> dict[str, str]:
    """Give a package the contract's names where Core ML can have them; the names of the others.

    The same model then has the same bytes: coremltools draws the numbers of a package's parts, and
    writes the day.
    """
    path = package / MODEL
    spec = read_model(path)
    _own_outputs(spec)
    names: dict[str, str] = {}
    for wanted, found in (
        (model.inputs, spec.description.input),
        (model.outputs, spec.description.output),
    ):
        names |= _renamed(spec, wanted, found)
    spec.description.metadata.userDefined.pop(_DAY, None)
    path.write_bytes(spec.SerializeToString(deterministic=True))
    manifest = package / "Manifest.json"
    text = manifest.read_text(encoding="utf-8")
    for number, part in json.loads(text)["itemInfoEntries"].items():
        text = text.replace(number, str(uuid.uuid5(uuid.NAMESPACE_URL, part["path"])))
    text = json.dumps(json.loads(text), indent=4, sort_keys=True)
    manifest.write_text(text + "\n", encoding="utf-8")
    return names


def _own_outputs(spec: Any) -> None:
    """Give each output an operation of its own: of an input, or of one told twice, an identity.

    Else a name of the contract would go to the input as well, or to nothing.
    """
    from coremltools.converters.mil.backend.mil.helper import create_scalar_value

    function, block = _main(spec)
    types = {out.name: out.type for op in block.operations for out in op.outputs}
    free = set(types)
    types |= {one.name: one.type for one in function.inputs}
    for place, name in enumerate(block.outputs):
        if name in free:
            free.remove(name)
            continue
        own = next(f"{name}_{n}" for n in itertools.count(1) if f"{name}_{n}" not in types)
        made = block.operations.add(type="identity")
        made.attributes["name"].CopyFrom(create_scalar_value(own))
        made.inputs["x"].arguments.add(name=name)
        made.outputs.add(name=own, type=types[name])
        types[own] = types[name]
        block.outputs[place] = spec.description.output[place].name = own


def _renamed(
    spec: Any, wanted: Sequence[InputSpec | OutputSpec], found: Sequence[Any]
) -> dict[str, str]:
    """Rename by position what can be; the names of the others."""
    from coremltools.converters.mil.mil.passes.defs.preprocess import NameSanitizer

    if len(wanted) != len(found):
        raise ConversionError(f"made {len(found)} inputs or outputs of {len(wanted)}")
    kept = {}
    for told, feature in zip(wanted, found, strict=True):
        if feature.name == told.name:
            continue
        legal = NameSanitizer().sanitize_name(told.name) == told.name
        if legal and rename(spec, feature.name, told.name):
            feature.name = told.name
        else:
            kept[told.name] = feature.name
    return kept


def rename(spec: Any, name: str, wanted: str) -> bool:
    """Rename a value of the program, in loops and branches too; False where the name is taken.

    coremltools' own function leaves loops as they are, which then read what nothing makes.
    """
    function, block = _main(spec)
    every = list(every_operation(block))
    blocks = [block, *(inner for op in every for inner in op.blocks)]
    made = [*function.inputs, *(one for op in every for one in op.outputs)]
    made += [one for inner in blocks[1:] for one in inner.inputs]
    if any(one.name == wanted for one in made):
        return False
    read = [one for op in every for key in op.inputs for one in op.inputs[key].arguments]
    for one in (*made, *read):
        if one.name == name:
            one.name = wanted
    for part in blocks:
        part.outputs[:] = [wanted if one == name else one for one in part.outputs]
    return True


def every_operation(block: Any) -> Iterator[Any]:
    """All operations of a block and of those inside it."""
    for op in block.operations:
        yield op
        for inner in op.blocks:
            yield from every_operation(inner)


def _main(spec: Any) -> tuple[Any, Any]:
    """The function that Core ML runs, and its operations."""
    function = spec.mlProgram.functions["main"]
    return function, function.block_specializations[function.opset]
