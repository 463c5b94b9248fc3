"""LiteRT, which was TensorFlow Lite: a .tflite of the captured program, run by its interpreter."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile import beside
from torch2mobile.environments import Environment
from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.exporter.targets.connected import INPUT, connected
from torch2mobile.exporter.targets.converting import has_to_load, other_dtype, versions
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

# What litert-torch makes of the types that it has not.
_REPLACED = {"int64": "int32"}
_DTYPES = ("float32", "int32", "bool", *_REPLACED)
_TOOLS = ("litert-torch", "ai-edge-litert")
_EXACT = Variant(
    "litert",
    "litert",
    source="program",
    static=True,
    own_names=True,
    dtypes=_REPLACED,
    settings={"delegate": "XNNPACK"},
)
# In the quantizer's own words: weights as float16, which are float32 again before they are used.
_HALVES = {
    "regex": ".*",
    "operation": "*",
    "algorithm_key": "float_casting",
    "op_config": {
        "weight_tensor_config": {"num_bits": 16, "dtype": "FLOAT", "symmetric": True},
        "compute_precision": "FLOAT",
        "explicit_dequantize": True,
        "skip_checks": False,
        "min_weight_elements": 0,
    },
}
_LACKS = (
    "The runtime lacks an operator that the converter writes: write it otherwise, or leave out the "
    "target."
)
# How the interpreter calls what a delegate computes, beside the operators that are its part.
_DELEGATE = "DELEGATE"


class LitertRunner:
    """The first signature of a .tflite, on one thread, with XNNPACK for what that takes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._plain = self._open(keep=False)
        told = self._plain
        # Its names are those of a signature; older files have none, and then the tensors'.
        nameless: dict[str, dict[str, int]] = {"inputs": {}, "outputs": {}}
        named = next(iter(told._get_full_signature_list().values()), nameless)
        self._inputs = _tensors(told.get_input_details(), named["inputs"])
        self._outputs = _tensors(told.get_output_details(), named["outputs"])

    def _open(self, *, keep: bool) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        try:
            with warnings.catch_warnings():
                # Of the memory that keeping all values takes.
                warnings.simplefilter("ignore")
                opened = Interpreter(
                    str(self._path), num_threads=1, experimental_preserve_all_tensors=keep
                )
            opened.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise ModelFileError(
                f"LiteRT cannot load {self._path.name}: {error}",
                "Convert it again from its module.",
            ) from error
        return opened

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and sizes of the inputs, in the file's order."""
        return tuple(_spec(name, told) for name, told in self._inputs)

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and sizes of the outputs, in the file's order."""
        return tuple(_spec(name, told) for name, told in self._outputs)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the file's order."""
        self._invoke(self._plain, feeds)
        return [(name, self._plain.get_tensor(told["index"])) for name, told in self._outputs]

    def _invoke(self, opened: Any, feeds: Mapping[str, np.ndarray]) -> None:
        for name, told in self._inputs:
            opened.set_tensor(told["index"], feeds[name])
        opened.invoke()

    def layers(self) -> tuple[Layer, ...]:
        """The inputs, and the operators in the file's order; values go by their numbers."""
        operators = [Layer(name, INPUT, (), (str(told["index"]),)) for name, told in self._inputs]
        operators += [
            Layer(
                str(operator["index"]),
                operator["op_name"],
                tuple(map(str, operator["inputs"])),
                tuple(map(str, operator["outputs"])),
                channels_last=True,
            )
            for operator in self._plain._get_ops_details()
            if operator["op_name"] != _DELEGATE
        ]
        return connected(operators, {str(told["index"]) for _, told in self._outputs})

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by their numbers, from an interpreter that keeps them all."""
        opened = self._open(keep=True)
        self._invoke(opened, feeds)
        return {name: opened.get_tensor(int(name)) for name in names}


def _tensors(
    told: Iterable[Mapping[str, Any]], signature: Mapping[str, int]
) -> list[tuple[str, Mapping[str, Any]]]:
    """Inputs or outputs in the file's order, each by every name that a signature has for it."""
    names: dict[int, list[str]] = {}
    for name, index in signature.items():
        names.setdefault(index, []).append(name)
    once = {each["index"]: each for each in told}
    return [(name, each) for at, each in once.items() for name in names.get(at, [each["name"]])]


def _spec(name: str, told: Mapping[str, Any]) -> OutputSpec:
    import numpy as np

    dims = tuple("?" if size < 0 else int(size) for size in told["shape_signature"])
    return OutputSpec(name, np.dtype(told["dtype"]).name, dims)


class LitertTarget:
    """``.tflite``, by litert-torch."""

    name = "litert"
    title = "LiteRT (TensorFlow Lite; Android, iOS)"
    suffixes: tuple[str, ...] = (".tflite",)
    variants: tuple[Variant, ...] = (
        _EXACT,
        replace(
            _EXACT,
            label="litert-fp16",
            precision="float16",
            settings={**_EXACT.settings, "weights": "float16", "arithmetic": "float32"},
        ),
    )
    limits = Limits(
        "float32, int32, int64 as int32, bool",
        float16="nowhere: weights only",
        operators="litert-torch's lowerings",
    )
    environment = Environment("this Python, for LiteRT", torch=True)
    packages: tuple[str, ...] = ("ai-edge-litert", "numpy")

    def missing(self) -> Sequence[str]:
        """The command that installs the converter and the runtime, if one is not there."""
        return beside.missing(self.name, *_TOOLS)

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why LiteRT has no form for it: dtypes."""
        spec = other_dtype(model, _DTYPES)
        if spec is not None:
            return f"LiteRT's converter has no {spec.dtype}, and {spec.name} is {spec.dtype}"
        return ""

    def convert(self, job: Job) -> Artifact:
        """Write ``model.tflite`` with the example's sizes, and see that it loads."""
        digest = beside.see(self.name)
        path, tools = job.path(".tflite"), list(_TOOLS)
        _write(job, path)
        if job.variant.lossy:
            from ai_edge_quantizer.quantizer import Quantizer

            path.write_bytes(Quantizer(str(path), [_HALVES]).quantize().quantized_model)
            tools.append("ai-edge-quantizer")
        with has_to_load(lambda _: _LACKS):
            LitertRunner(path)
        made_by = versions(*tools)
        made_by |= {"sha256 of their archives": digest} if digest else {}
        return Artifact(job.variant, (path,), made_by, shapes=dict(job.shapes))

    def load(self, path: Path, variant: Variant) -> LitertRunner:  # noqa: ARG002
        """The interpreter of a .tflite file."""
        beside.see(self.name)
        return LitertRunner(path)


def _write(job: Job, path: Path) -> None:
    """The .tflite of a program; ConversionError with the operator that is not converted."""
    import litert_torch
    import torch

    program = torch.export.load(job.captured("LiteRT's converter"))
    outputs = [spec.name for spec in job.model.outputs]

    class Named(torch.nn.Module):
        """The program with the contract's names, which become those of the signature."""

        def __init__(self) -> None:
            super().__init__()
            self.program = program.module(check_guards=False)
            self.training = False

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            given = [inputs[spec.name] for spec in job.model.inputs]
            return dict(zip(outputs, self.program(*given), strict=True))

    example = {
        spec.name: torch.zeros(job.shapes[spec.name], dtype=getattr(torch, spec.dtype))
        for spec in job.model.inputs
    }
    try:
        litert_torch.convert(Named(), sample_kwargs=example).export(str(path))
    except RuntimeError as error:
        # What follows are lines of ours, and how to look at torch's logs.
        said = str(error).split("\n\nWhile executing", 1)[0]
        raise ConversionError(
            f"stopped: {said}", "Write it with other operators, or leave out the target."
        ) from error
