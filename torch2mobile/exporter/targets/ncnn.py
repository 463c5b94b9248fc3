"""ncnn: converted from the .onnx by the program ``pnnx``, run by ncnn's Python package.

A Mat of ncnn has at most four dimensions, and pnnx mostly leaves out the first one of a network's
inputs and outputs, the batch. How many an input has is kept in the name of its Input layer.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile import sizing
from torch2mobile.environments import Environment, describe_exit
from torch2mobile.errors import ConversionError, ModelFileError, NotApplicableError
from torch2mobile.exporter.targets import converting
from torch2mobile.exporter.targets.overheard import heard, overheard
from torch2mobile.onnx_files import own_files
from torch2mobile.records import Artifact, Dim, Job, Layer, Limits, OnnxModel, OutputSpec, Variant

if TYPE_CHECKING:
    import numpy as np

_HALF = ("use_fp16_storage", "use_fp16_arithmetic", "use_fp16_packed")
# With these transforms, float32 convolutions lose a digit or more (5.7e-6 in place of 3.6e-7).
_WINOGRAD = ("use_winograd63_convolution", "use_winograd43_convolution")
_EXACT = Variant(
    "ncnn",
    "ncnn",
    batch=False,
    own_names=True,
    dtypes={"int64": "int32"},
    settings=dict.fromkeys((*_HALF, *_WINOGRAD), False),
)
_DTYPES = {"float32": "f32", "int64": "i64", "int32": "i32"}
_MOST_DIMS = 4
# pnnx's way to say that a tensor has no batch dimension.
_NO_BATCH = 233
# How pnnx dies where the integers that it tries are none of a table's.
_OUTSIDE = re.compile(r"running Gather node\..*?idx=(\d+) must be .*?\[-(\d+),")
_NO_TABLES = (
    "ncnn has no look-up in a table: look up in the app and let the module take the vectors, or "
    "leave out the target."
)
# What to do about a file that ncnn does not load, by what it says.
_REMEDIES = {
    "layer Gather ": _NO_TABLES,
    r"load_param \d+ (?:GRU|LSTM|RNN)": "ncnn does not take the recurrent layer as pnnx writes it: "
    "leave out the target. MNN, ExecuTorch and ONNX Runtime run it.",
    "": "A layer that does not exist stands for operators that pnnx did not translate: write them "
    "otherwise, or leave out the target.",
}
_INPUT_LAYER = re.compile(r"^(Input +)in(\d+)(?= )", re.MULTILINE)


class NcnnRunner:
    """A net on the CPU, with its variant's options."""

    def __init__(self, path: Path, variant: Variant) -> None:
        import ncnn

        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise ModelFileError(
                f"{path.name} has no weights beside it: there is no {weights.name}",
                "Keep the two files together.",
            )
        self._ncnn, self._net = ncnn, ncnn.Net()
        for name, value in variant.settings.items():
            setattr(self._net.opt, name, value)
        for file, load in ((path, self._net.load_param), (weights, self._net.load_model)):
            code, said = overheard(partial(load, str(file)))
            if code != 0:
                why = said[-1] if said else f"its code is {code}"
                raise ModelFileError(
                    f"ncnn cannot load {file.name}: {why}",
                    "Convert it again from its .onnx, or copy both files anew.",
                )
        self._ranks = {
            name: int(rank)
            for layer in self._net.layers()
            if layer.type == "Input"
            for name, _, rank in [layer.name.partition(":")]
            if rank.isdigit()
        }

    def inputs(self) -> tuple[OutputSpec, ...]:
        """The names of the inputs, with as many dims as a Mat of each has, where it is known."""
        names = sorted(self._net.input_names(), key=_number)
        return tuple(OutputSpec(name, "", ("?",) * self._ranks.get(name, 0)) for name in names)

    def outputs(self) -> tuple[OutputSpec, ...]:
        """The names of the outputs, all of which are float32."""
        names = sorted(self._net.output_names(), key=_number)
        return tuple(OutputSpec(name, "float32", ()) for name in names)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs, as the Mats have them."""
        extractor = self._fed(feeds)
        return [(spec.name, _extracted(extractor, spec.name)) for spec in self.outputs()]

    def layers(self) -> tuple[Layer, ...]:
        """All layers of the net, in the file's order."""
        blobs = [blob.name for blob in self._net.blobs()]
        return tuple(
            Layer(
                layer.name,
                layer.type,
                tuple(blobs[number] for number in layer.bottoms),
                tuple(blobs[number] for number in layer.tops),
            )
            for layer in self._net.layers()
        )

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by the names of their blobs."""
        extractor = self._fed(feeds)
        # Else each value is dropped once it was read, and computed anew for the next.
        extractor.set_light_mode(False)
        return {name: _extracted(extractor, name) for name in names}

    def _fed(self, feeds: Mapping[str, np.ndarray]) -> Any:
        import numpy as np

        extractor = self._net.create_extractor()
        for name, array in feeds.items():
            # Without the copy, the Mat would keep a pointer into an array that is gone.
            extractor.input(name, self._ncnn.Mat(np.ascontiguousarray(array)).clone())
        return extractor


def _extracted(extractor: Any, name: str) -> np.ndarray:
    import numpy as np

    code, mat = extractor.extract(name)
    if code != 0:
        raise RuntimeError(f"ncnn could not compute {name}: its code is {code}")
    return np.array(mat)


def _number(name: str) -> int:
    """Names that pnnx gives are in the order of their numbers; others as the file has them."""
    found = re.fullmatch(r"(?:in|out)(\d+)", name)
    return int(found[1]) if found else 0


class NcnnTarget:
    """``.param`` and ``.bin``, by pnnx."""

    name = "ncnn"
    title = "ncnn (Android, iOS, embedded Linux)"
    suffixes: tuple[str, ...] = (".param",)
    variants: tuple[Variant, ...] = (
        _EXACT,
        replace(
            _EXACT,
            label="ncnn-fp16",
            precision="float16",
            settings=dict.fromkeys(_HALF, True),
        ),
    )
    limits = Limits(
        "float32, int32, int64 as int32; out: float32",
        "1 to 4, and the batch",
        "on ARMv8.2 (A76), not A53 or x86",
        "no embeddings or recurrent layers",
    )
    # A process of its own: pnnx and ncnn abort where others raise.
    environment = Environment("this Python, for ncnn")
    packages: tuple[str, ...] = ("ncnn", "numpy")

    def missing(self) -> Sequence[str]:
        """The command that installs ncnn and pnnx, if one is not there."""
        return converting.missing(self.name, "ncnn", "pnnx")

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why ncnn has no form for it: dtypes, dimensions, or a batch that is never 1."""
        for spec in model.inputs:
            if spec.dtype not in _DTYPES:
                return f"ncnn takes float32 and integers, and {spec.name} is {spec.dtype}"
            if not 0 < len(spec.dims) <= _MOST_DIMS + 1:
                return f"ncnn takes 1 to 4 dimensions and a batch of 1: {spec.name} has not these"
            first = spec.dims[0]
            if first.symbol is not None and max(first.factor, first.ends[0]) > 1:
                return f"ncnn takes no batch, and the first dimension of {spec.name} is never 1"
        for output in model.outputs:
            if output.dtype != "float32":
                return f"ncnn gives float32 only, and {output.name} is {output.dtype}"
            if not output.dims:
                return f"ncnn has no numbers without dimensions, as {output.name} is one"
        return ""

    def convert(self, job: Job) -> Artifact:
        """Write ``model.ncnn.param`` and ``model.ncnn.bin``, and see that ncnn loads them."""
        with tempfile.TemporaryDirectory(prefix="torch2mobile-") as name:
            folder = Path(name)
            _run_pnnx(job, folder)
            ranks = _ranks(job, (folder / "fed.py").read_text(encoding="utf-8"))
            text = (folder / "net.param").read_text(encoding="utf-8")
            param = job.path(".ncnn.param" if job.variant.label == self.name else ".param")
            param.write_text(
                _INPUT_LAYER.sub(lambda m: f"{m[0]}:{ranks[int(m[2])]}", text), encoding="utf-8"
            )
            shutil.copyfile(folder / "net.bin", param.with_suffix(".bin"))
        with converting.has_to_load(lambda error: remedy(error.message)):
            NcnnRunner(param, job.variant)
        versions = converting.versions("ncnn", "pnnx")
        files = (param, param.with_suffix(".bin"))
        return Artifact(job.variant, files, versions, converting.by_position(job.model))

    def load(self, path: Path, variant: Variant) -> NcnnRunner:
        """The net of a .param file and the .bin beside it."""
        return NcnnRunner(path, variant)


def remedy(said: str) -> str:
    """What to do about a file that ncnn does not load, by what it says."""
    return next(told for part, told in _REMEDIES.items() if re.search(part, said))


def _run_pnnx(job: Job, folder: Path) -> None:
    """``net.param``, ``net.bin`` and ``fed.py`` in a folder; ConversionError with pnnx's words."""
    spec = importlib.util.find_spec("pnnx")
    assert spec is not None
    assert spec.origin is not None
    program = Path(spec.origin).with_name("pnnx.exe" if os.name == "nt" else "pnnx")
    # pnnx writes beside the model that it is given.
    for path in own_files(job.model.path):
        shutil.copyfile(path, folder / path.name)
    command = [str(program), job.model.path.name, f"fp16={int(job.variant.lossy)}"]
    command += ["ncnnparam=net.param", "ncnnbin=net.bin", "ncnnpy=fed.py"]
    command += _sizes(job)
    code, said = heard(command, folder)
    if code != 0 or not (folder / "net.bin").exists():
        if outside := _OUTSIDE.search(said):
            raise ConversionError(
                f"did not finish: pnnx tries the model with {outside[1]} in all integers that it "
                f"takes, and a Gather looks them up in a table of {outside[2]} rows",
                _NO_TABLES,
            )
        last = next(filter(None, map(str.strip, reversed(said.splitlines()))), "it says nothing")
        raise ConversionError(
            f"did not finish: pnnx {describe_exit(code)} ({last[:200]})",
            "Leave out the target, or try another version of pnnx.",
        )


def _sizes(job: Job) -> list[str]:
    """The example's sizes for pnnx, and others, by which it tells which of them vary."""
    first, second = [], []
    specs = job.model.inputs
    given = sizing.sizes_of(specs, job.shapes)
    terms = [term for spec in specs for dim in spec.dims for term in dim.terms]
    others = {str(term.symbol): _next(term, given) for term in terms}
    for spec in specs:
        shape = job.shapes[spec.name]
        other = [*shape[:1], *(dim.at(others) for dim in spec.dims[1:])]
        kind = _DTYPES[spec.dtype]
        first.append(f"[{','.join(map(str, shape))}]{kind}")
        second.append(f"[{','.join(map(str, other))}]{kind}")
    sizes = [f"inputshape={','.join(first)}"]
    return sizes if first == second else [*sizes, f"inputshape2={','.join(second)}"]


def _next(term: Dim, sizes: Mapping[str, int]) -> int:
    """Another size of a symbol, next to the one that it has."""
    size = sizes[str(term.symbol)]
    step = -1 if term.greatest is not None and size >= term.greatest else 1
    return max(size + step, term.least or 1)


def _ranks(job: Job, fed: str) -> list[int]:
    """How many dimensions each input has in ncnn, from the example that pnnx writes."""
    ranks = []
    for n, spec in enumerate(job.model.inputs):
        found = re.search(rf'"in{n}", .*batch_index=(\d+)\)', fed)
        batch = int(found[1]) if found else _NO_BATCH
        shape = job.shapes[spec.name]
        if batch != _NO_BATCH and (batch != 0 or shape[0] != 1):
            raise NotApplicableError(
                f"ncnn takes no batch, and pnnx takes dimension {batch} of {spec.name} for one",
                "Leave out the target, or declare the batch as a size that varies from 1.",
            )
        ranks.append(len(shape) - (batch != _NO_BATCH))
    return ranks
