"""ONNX Runtime: the .ort format for apps, the operator list for a reduced build, and the runner.

The .onnx itself is run by the same runner, so both files are judged in the same way.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.environments import HERE
from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.onnx_files import own_files
from torch2mobile.records import Artifact, Job, Limits, OnnxModel, OutputSpec, Variant

if TYPE_CHECKING:
    import numpy as np

_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bfloat16)": "bfloat16",
}
# FlatBuffers' own limit; the graph itself needs a little of it.
_FORMAT_LIMIT = 2**31 - 2**20
# These layouts run on one kind of processor only; a file with them is no file for a phone.
_PLATFORM_OPTIMIZERS = ["NchwcTransformer"]


# The .onnx itself, which ONNX Runtime loads as it is.
ONNX = Variant("onnx", "ort")


class OrtRunner:
    """An ONNX Runtime session on the CPU, for .onnx and .ort files."""

    def __init__(self, path: Path) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 2
        # Threads that spin while they wait take a shared machine's time from what they wait for.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = self._open(path, options)
        except (ModelFileError, ImportError):
            raise
        except Exception as error:
            raise ModelFileError(
                f"ONNX Runtime cannot load {path.name}: {_said(str(error))}",
                "Convert it again from its .onnx, or copy it anew."
                if path.suffix == ".ort"
                else f"Run 'torch2mobile check {path.name}', which looks at every node.",
            ) from error

    def _open(self, path: Path, options: Any) -> Any:
        import onnxruntime as ort

        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs, as the session has them."""
        return tuple(_spec(arg) for arg in self._session.get_inputs())

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the outputs, as the session has them."""
        return tuple(_spec(arg) for arg in self._session.get_outputs())

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the file's order."""
        names = [arg.name for arg in self._session.get_outputs()]
        try:
            return list(zip(names, self._session.run(None, dict(feeds)), strict=True))
        except Exception as error:
            stopped = _STOPPED.search(str(error))
            if stopped is None or "allocate memory" in stopped[3]:
                raise  # the first tells more; want of memory is told by the worker
            where, why = f"the {stopped[1]} node {stopped[2]}", stopped[3].strip()
            raise ConversionError(f"ONNX Runtime stops at {where}: {why}") from error


# The operator, the node's name, and why, without the line of ONNX Runtime's own source.
_STOPPED = re.compile(
    r"while running (\w+) node\. Name:'(.*?)' Status Message: (?:\S+:\d+ [^\n]*?\) )?([^\n]*)"
)


def _said(text: str) -> str:
    """What ONNX Runtime said, without its codes and the path, the node first where it names one."""
    text = (text.strip().splitlines() or ["it does not say why"])[0]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?", "", text)
    kernel = re.search(r"find an implementation for (\w+)\(\d+\) node with name '(.*?)'", text)
    if kernel:
        return f"it has no kernel for the {kernel[1]} node {kernel[2]} in the dtype that it has"
    node = re.search(r'In Node, \("(.*?)", ([^,]+), .*, Error (.*)', text)
    return f"the {node[2]} node {node[1] or 'without a name'}: {node[3]}" if node else text


def _spec(arg: Any) -> OutputSpec:
    dtype = _TYPES.get(arg.type, re.sub(r"^tensor\((.*)\)$", r"\1", arg.type))
    dims = tuple("?" if dim is None else dim for dim in arg.shape)
    return OutputSpec(name=arg.name, dtype=dtype, dims=dims)


class OrtTarget:
    """The .ort format and ``operators.config``, by onnxruntime's own converter."""

    name = "ort"
    title = "ONNX Runtime (Android, iOS, web)"
    suffixes: tuple[str, ...] = (".ort", ".onnx")
    variants: tuple[Variant, ...] = (Variant("ort", "ort"),)
    limits = Limits("all of ONNX Runtime's", operators="ONNX Runtime's kernels")
    environment = HERE
    packages: tuple[str, ...] = ("onnxruntime", "numpy")

    def missing(self) -> Sequence[str]:
        """The command that installs onnxruntime, if it is not there."""
        needed = ("onnxruntime", "flatbuffers")
        absent = [name for name in needed if importlib.util.find_spec(name) is None]
        return [f"pip install {name}" for name in absent]

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why the .ort format cannot hold the model: it ends at 2 GB."""
        return refused_size(model, "the .ort format")

    def convert(self, job: Job) -> Artifact:
        """Write ``model.ort`` and ``operators.config``.

        Fixed style, all optimizations but those for one processor: loads on x86, ARM and WASM.
        The operator list is reduced by type.
        """
        import onnxruntime as ort

        from torch2mobile.exporter.targets.ort_canonical import canonicalize

        target = job.path(".ort")
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(target)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 3
        ort.InferenceSession(
            str(job.model.path),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=_PLATFORM_OPTIMIZERS,
        )
        # As onnxruntime wrote it, the file would be another one on each run.
        canonicalize(target)
        config = job.out / "operators.config"
        write_config([target], config)
        return Artifact(job.variant, (target, config), {"onnxruntime": ort.__version__})

    def load(self, path: Path, variant: Variant) -> OrtRunner:  # noqa: ARG002
        """A session on the .ort or .onnx file."""
        return OrtRunner(path)


def refused_size(model: OnnxModel, what: str) -> str:
    """Why a file of one piece cannot hold the model: it ends at 2 GB; empty where it can."""
    size = sum(each.stat().st_size for each in own_files(model.path))
    if size <= _FORMAT_LIMIT:
        return ""
    return (
        f"{what} ends at 2 GB, and this model has {size / 2**30:.1f} GB: ship "
        "model.onnx with model.onnx.data, which the full ONNX Runtime package loads"
    )


def write_config(models: Sequence[Path], config: Path) -> None:
    """The operators and types that models need, for onnxruntime's --include_ops_by_config."""
    from onnxruntime.tools.ort_format_model import (
        create_config_from_models,
    )

    create_config_from_models(list(models), config, enable_type_reduction=True)
    # The tool's comments name the folder of the build machine.
    lines = [line for line in config.read_text().splitlines() if not line.startswith("#")]
    config.write_text("\n".join(lines) + "\n")
