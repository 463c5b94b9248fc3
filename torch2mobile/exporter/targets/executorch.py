"""ExecuTorch: a .pte of the captured program, for XNNPACK's kernels or the portable ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.environments import Environment
from torch2mobile.errors import ConversionError, ModelFileError
from torch2mobile.exporter.targets import converting, pte
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

_DELEGATED = Variant("executorch", "executorch", source="program", own_names=True)
# By the numbers that ExecuTorch gives the types of tensors.
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64",
    5: "float16", 6: "float32", 7: "float64", 11: "bool",
}  # fmt: skip


class ExecutorchRunner:
    """The method ``forward`` of a .pte; inputs and outputs go by position, and have no names."""

    def __init__(self, path: Path) -> None:
        from executorch.runtime import Runtime

        self._path = path
        try:
            # The runtime reads the program for as long as it runs.
            self._program = Runtime.get().load_program(path)
            self._method: Any = self._program.load_method("forward")
        except Exception as error:
            raise ModelFileError(
                f"ExecuTorch cannot load {path.name}: {error}",
                "Convert it again from its module.",
            ) from error

    def inputs(self) -> tuple[OutputSpec, ...]:
        """The inputs by position; of sizes, a .pte has only the greatest."""
        told = self._method.metadata
        return _specs("in", [told.input_tensor_meta(n) for n in range(told.num_inputs())])

    def outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs by position."""
        told = self._method.metadata
        return _specs("out", [told.output_tensor_meta(n) for n in range(told.num_outputs())])

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs by position."""
        answers = self._execute(self._method, feeds)
        return [(f"out{n}", array) for n, array in enumerate(answers)]

    def _execute(self, method: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        import torch

        # A tensor shares memory with its array, which must be writable and in one piece.
        given = [torch.from_numpy(feeds[spec.name].copy()) for spec in self.inputs()]
        return [tensor.numpy().copy() for tensor in method.execute(given)]

    @cached_property
    def _inside(self) -> pte.Inside:
        return pte.inside(self._path)

    def layers(self) -> tuple[Layer, ...]:
        """The inputs, and the program's instructions; those of a graph of XNNPACK's one by one."""
        return self._inside.layers

    def values(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Inner values by their numbers, from the program with all of them as outputs."""
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(self._inside.data)
        answers = self._execute(program.load_method("forward"), feeds)
        found = dict(zip(self._inside.names, answers, strict=True))
        return {name: found[name] for name in names}


def _specs(prefix: str, tensors: Sequence[Any]) -> tuple[OutputSpec, ...]:
    return tuple(
        OutputSpec(f"{prefix}{n}", _DTYPES.get(told.dtype(), ""), ("?",) * len(told.sizes()))
        for n, told in enumerate(tensors)
    )


class ExecutorchTarget:
    """``.pte``, by ExecuTorch's own converter."""

    name = "executorch"
    title = "ExecuTorch (Android, iOS, embedded Linux)"
    suffixes: tuple[str, ...] = (".pte",)
    variants: tuple[Variant, ...] = (
        _DELEGATED,
        replace(_DELEGATED, label="executorch-portable", settings={"delegate": "none"}),
    )
    limits = Limits(
        "all but bfloat16 and complex",
        "any; a varying one has an end, and is no sum",
        operators="XNNPACK's and the portable kernels",
    )
    environment = Environment("this Python, for ExecuTorch", torch=True)
    packages: tuple[str, ...] = ()

    def missing(self) -> Sequence[str]:
        """The command that installs ExecuTorch, if it is not there."""
        return converting.missing(self.name, "executorch")

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why ExecuTorch has no form for it: dtypes, multiples, sizes without a greatest value."""
        spec = converting.other_dtype(model, _DTYPES.values())
        if spec is not None:
            return f"ExecuTorch has no {spec.dtype}, and {spec.name} is {spec.dtype}"
        for given in model.inputs:
            for dim in given.dims:
                if dim.symbol is not None and dim.label != dim.symbol:
                    return (
                        f"ExecuTorch's converter takes no size that is computed of others, and "
                        f"{given.name} has {dim.label}: declare a size by itself"
                    )
        why = "ExecuTorch plans its memory for the greatest size"
        return converting.without_end(model, why)

    def convert(self, job: Job) -> Artifact:
        """Write ``model.pte``, and see that it loads."""
        saved = job.captured("ExecuTorch")
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.load(saved)
        delegates = [] if job.variant.settings else [XnnpackPartitioner()]
        try:
            lowered = to_edge_transform_and_lower(program, partitioner=delegates).to_executorch()
        except Exception as error:
            told = lacking(str(error))
            if told is None:
                raise
            raise told from error
        path = job.path(".pte")
        path.write_bytes(lowered.buffer)
        with converting.has_to_load():
            ExecutorchRunner(path)
        tools = converting.versions("executorch")
        return Artifact(job.variant, (path,), tools, converting.by_position(job.model))

    def load(self, path: Path, variant: Variant) -> ExecutorchRunner:  # noqa: ARG002
        """The program of a .pte file."""
        return ExecutorchRunner(path)


def lacking(said: str) -> ConversionError | None:
    """What its long advice to its own developers says of a model: the operator that it has not."""
    found = re.search(r"Operator (?:torch\._ops\.)?(\S+) is not in Core ATen", said)
    remedy = "Write it with other operators, or leave out the target."
    return ConversionError(f"stopped: it has no {found[1]}", remedy) if found else None
