"""MNN: converted from the .onnx by the converter of its Python package, and run by that.

Only its modules are called: its scripts ``mnnconvert`` and ``mnnquant`` report to a server.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.environments import Environment
from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.exporter.targets import converting
from torch2mobile.exporter.targets.connected import connected
from torch2mobile.exporter.targets.overheard import overheard
from torch2mobile.onnx_files import outline
from torch2mobile.onnx_graph import attribute, walk
from torch2mobile.records import (
    Artifact,
    Job,
    Layer,
    Limits,
    OnnxModel,
    OutputSpec,
    Variant,
)

if TYPE_CHECKING:
    import numpy as np

_DTYPES = {"float32": "float", "int64": "int", "int32": "int"}
_EXACT = Variant(
    "mnn",
    "mnn",
    own_names=True,
    dtypes={"int64": "int32"},
    settings={"precision": "high", "winograd": False},
)
# MNN's number of the hint how much memory Winograd transforms may take; 0 turns them off.
_WINOGRAD_HINT = 3
# How MNN says what it cannot do, when it runs a file and when it converts one.
_SHAPE, _LACKS = "Compute Shape Error for ", "These Op Not Support: "
_OTHERWISE = "Write it with other operators, or leave out the target."
# The converter draws a new one for each file.
_UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class MnnRunner:
    """A module on the CPU and one thread, with its variant's settings."""

    def __init__(self, path: Path, variant: Variant) -> None:
        import MNN

        self._mnn, self._path = MNN, path
        config = {"backend": "CPU", "numThread": 1, "precision": variant.settings["precision"]}
        # The module reads it for as long as it runs.
        self._manager = MNN.nn.create_runtime_manager((config,))
        if not variant.settings["winograd"]:
            self._manager.set_hint(_WINOGRAD_HINT, 0)
        told = self._load([], []).get_info()
        self._inputs = [str(name) for name in told["inputNames"]]
        self._outputs = [str(name) for name in told["outputNames"]]
        self._module = self._load(self._inputs, self._outputs)

    def _load(self, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
        try:
            return self._mnn.nn.load_module_from_file(
                str(self._path), list(inputs), list(outputs), runtime_manager=self._manager
            )
        except Exception as error:
            raise ModelFileError(
                f"MNN cannot load {self._path.name}: it is no model, or not whole",
                "Convert it again from its .onnx, or copy it anew.",
            ) from error

    def inputs(self) -> tuple[OutputSpec, ...]:
        """The names of the inputs; MNN tells no sizes before it is fed."""
        return tuple(OutputSpec(name, "", ()) for name in self._inputs)

    def outputs(self) -> tuple[OutputSpec, ...]:
        """The names of the outputs."""
        return tuple(OutputSpec(name, "", ()) for name in self._outputs)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the file's order."""
        return self._forward(self._module, self._outputs, feeds)

    def _forward(
        self, module: Any, names: Sequence[str], feeds: Mapping[str, np.ndarray]
    ) -> list[tuple[str, np.ndarray]]:
        import numpy as np

        expr = self._mnn.expr
        given = []
        for name in self._inputs:
            array = np.ascontiguousarray(feeds[name])
            kind = getattr(expr.dtype, _DTYPES[str(array.dtype)])
            given.append(expr.const(array, list(array.shape), expr.data_format.NCHW, kind))
        answers = []
        values = module.forward(given)
        if len(values) < len(names):
            # Why, it says only where it prints.
            _, said = overheard(partial(module.forward, given))
            raise ConversionError(f"MNN stops {_stopped(said)}", _OTHERWISE)
        for found in values:
            # Images are kept in blocks of four channels.
            plain = found
            if found.data_format == expr.data_format.NC4HW4:
                plain = expr.convert(found, expr.data_format.NCHW)
            if 0 in plain.shape:  # of which MNN reads nothing
                whole = plain.dtype == expr.dtype.int
                answers.append(np.empty(plain.shape, np.int32 if whole else np.float32))
            else:
                answers.append(np.array(plain.read()).reshape(plain.shape))
        return list(zip(names, answers, strict=True))

    def layers(self) -> tuple[Layer, ...]:
        """The inputs and operators in the file's order; each has the name of what it gives."""
        operators = (
            Layer(value.name, value.op_type, tuple(one.name for one in value.inputs), (value.name,))
            for value in self._mnn.expr.load_as_list(str(self._path))
        )
        return connected(operators, self._outputs)

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by their names: MNN takes any of them for an output."""
        module = self._load(self._inputs, names)
        return dict(self._forward(module, names, feeds))


def _stopped(said: Sequence[str]) -> str:
    """Where MNN stopped and why, of what it printed; without its codes."""
    at = next((line.removeprefix(_SHAPE) for line in said if line.startswith(_SHAPE)), "")
    why = [line for line in said if not line.startswith((_SHAPE, "code=", "MNN use"))]
    where = f"at {at}, whose size it cannot make out" if at else "without an answer"
    return f"{where}: {'; '.join(why)[:200]}" if why else where


class MnnTarget:
    """``.mnn``, by MNN's own converter."""

    name = "mnn"
    title = "MNN (Android, iOS, embedded Linux)"
    suffixes: tuple[str, ...] = (".mnn",)
    variants: tuple[Variant, ...] = (
        _EXACT,
        replace(
            _EXACT,
            label="mnn-fp16",
            precision="float16",
            settings={"precision": "low", "winograd": True},
        ),
    )
    limits = Limits(
        "float32, int32, int64 as int32",
        "1 or more",
        "on ARMv8.2 (A76), not A53 or x86",
        "its converter's",
    )
    # A process of its own: the converter aborts where others raise.
    environment = Environment("this Python, for MNN")
    packages: tuple[str, ...] = ("MNN", "numpy")

    def missing(self) -> Sequence[str]:
        """The command that installs MNN, if it is not there."""
        return converting.missing(self.name, "MNN")

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why MNN has no form for it: dtypes, and inputs without dimensions."""
        spec = converting.other_dtype(model, _DTYPES)
        if spec is not None:
            return f"MNN takes and gives float32 and integers, and {spec.name} is {spec.dtype}"
        return converting.no_scalars(model, "MNN")

    def convert(self, job: Job) -> Artifact:
        """Write ``model.mnn``, and see that it loads."""
        path = job.path(".mnn")
        with tempfile.TemporaryDirectory(prefix="torch2mobile-") as folder:
            made = Path(folder) / path.name
            command = ["mnnconvert", "-f", "ONNX", "--modelFile", str(job.model.path)]
            command += ["--MNNModel", str(made), "--bizCode", "torch2mobile"]
            command += _recurrent(job.model.path)
            # The module behind its scripts, at the top level of the package's folder.
            tools = importlib.import_module("_tools")
            command += ["--fp16"] if job.variant.lossy else []
            tools.mnnconvert(command)
            # It says that it succeeded where it did not.
            if not made.is_file():
                raise _nothing_written(overheard(partial(tools.mnnconvert, command))[1])
            path.write_bytes(_same_each_time(made.read_bytes()))
        with converting.has_to_load():
            MnnRunner(path, job.variant)
        return Artifact(job.variant, (path,), converting.versions("MNN"))

    def load(self, path: Path, variant: Variant) -> MnnRunner:
        """The module of a .mnn file."""
        return MnnRunner(path, variant)


def _recurrent(path: Path) -> list[str]:
    """Recurrent layers as MNN's own: as loops, its default, LSTMs of some sizes make it die.

    Not a bidirectional GRU, whose last state its own layer leaves as it finds the memory.
    """
    loops = any(
        node.op_type == "GRU" and attribute(node, "direction") == "bidirectional"
        for _, node in walk(outline(path).graph)
    )
    return [] if loops else ["--useOriginRNNImpl"]


def _nothing_written(said: Sequence[str]) -> ConversionError:
    for line in said:
        _, found, operators = line.partition(_LACKS)
        if found:
            return ConversionError(f"MNN has no {operators.replace('ONNX::', '')}", _OTHERWISE)
    last = said[-1][:200] if said else "it does not say why"
    return ConversionError(f"wrote nothing: {last}", "Leave out the target, or update MNN.")


def _same_each_time(data: bytes) -> bytes:
    """The file with a number that follows from its content, in place of the one that was drawn."""
    blank = str(uuid.UUID(int=0)).encode()
    digest = hashlib.sha256(_UUID.sub(blank, data, count=1)).digest()
    return _UUID.sub(str(uuid.UUID(bytes=digest[:16])).encode(), data, count=1)
