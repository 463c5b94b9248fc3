"""Core ML: an .mlpackage of the captured program, by coremltools.

On macOS, Core ML itself runs what was made. Elsewhere an evaluator of the saved program does, since
coremltools has no runtime there.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.environments import Environment
from torch2mobile.errors import ModelFileError
from torch2mobile.exporter.targets import converting, mlpackage
from torch2mobile.records import Artifact, InputSpec, Job, Limits, OnnxModel, OutputSpec, Variant

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.interfaces import Runner

# What coremltools makes of the types that Core ML has not.
_REPLACED = {"int64": "int32", "bool": "float32"}
_DTYPES = ("float32", "int32", *_REPLACED)
# The operators of recurrent layers, and how many values each gives.
_RECURRENT = {"lstm": 3, "gru": 2, "rnn_tanh": 2, "rnn_relu": 2}
_MOST_DIMS = 5
_APPLE = platform.system() == "Darwin"
_EXACT = Variant(
    "coreml",
    "coreml",
    source="program",
    own_names=True,
    dtypes=_REPLACED,
    settings={"minimum_deployment_target": "iOS15"},
)


class CoremlRunner:
    """Core ML's own runtime on the CPU; macOS only."""

    def __init__(self, path: Path) -> None:
        import coremltools as ct

        self._description = mlpackage.read_model(path).description
        try:
            self._model = ct.models.MLModel(
                str(mlpackage.package_of(path)), compute_units=ct.ComputeUnit.CPU_ONLY
            )
        except Exception as error:
            raise ModelFileError(
                f"Core ML cannot load {mlpackage.package_of(path).name}: {error}",
                "Convert it again from its module.",
            ) from error

    def inputs(self) -> tuple[OutputSpec, ...]:
        """Names, dtypes and dims of the inputs; those that vary are not told."""
        return mlpackage.specs(self._description.input)

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names and dtypes of the outputs; their sizes are not told."""
        return mlpackage.specs(self._description.output)

    def run(self, feeds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All outputs in the model's order."""
        import numpy as np

        answers = self._model.predict(dict(feeds))
        return [
            (spec.name, np.asarray(answers[spec.name], dtype=spec.dtype)) for spec in self.outputs()
        ]


class CoremlTarget:
    """``.mlpackage``, a folder, by coremltools."""

    name = "coreml"
    title = "Core ML (iOS, macOS)"
    suffixes: tuple[str, ...] = (".mlmodel",)
    variants: tuple[Variant, ...] = (
        _EXACT,
        replace(_EXACT, label="coreml-fp16", precision="float16"),
    )
    limits = Limits(
        "float32, int32, int64 as int32, bool as float32",
        "1 to 5; a varying one has an end",
        "by the Neural Engine",
        "coremltools'; off macOS, the evaluator's",
    )
    environment = Environment(
        "this Python, for Core ML",
        torch=True,
        stand_in="" if _APPLE else "an evaluator of the saved program runs it, not Core ML",
    )
    packages: tuple[str, ...] = ()

    def missing(self) -> Sequence[str]:
        """The command that installs coremltools, if it is not there."""
        return converting.missing(self.name, "coremltools")

    def accepts(self, model: OnnxModel, variant: Variant) -> str:  # noqa: ARG002
        """Why Core ML has no form for it: dtypes, dimensions, sizes without an end."""
        other = converting.other_dtype(model, _DTYPES)
        if other is not None:
            return f"Core ML has no {other.dtype} here, and {other.name} is {other.dtype}"
        for spec in converting.tensors(model):
            if len(spec.dims) > _MOST_DIMS:
                return f"Core ML takes at most {_MOST_DIMS} dimensions, and {spec.name} has more"
        ends = converting.without_end(model, "Core ML wants the greatest size of an input")
        return converting.no_scalars(model, "Core ML") or ends

    def convert(self, job: Job) -> Artifact:
        """Write ``model.mlpackage``, and see that it loads."""
        saved = job.captured("coremltools")
        package = job.path(".mlpackage")
        with tempfile.TemporaryDirectory(prefix="torch2mobile-") as folder:
            made = Path(folder) / package.name
            # Its own save() writes notes of debugging, and refuses loops for them.
            shutil.copytree(_converted(job, saved).package_path, made)
            names = mlpackage.settle(made, job.model)
            shutil.rmtree(package, ignore_errors=True)
            shutil.copytree(made, package)
        path = package / mlpackage.MODEL
        with converting.has_to_load():
            self.load(path, job.variant)
        files = sorted(one for one in package.rglob("*") if one.is_file() and one != path)
        tools = converting.versions("coremltools")
        return Artifact(job.variant, (path, *files), tools, names)

    def load(self, path: Path, variant: Variant) -> Runner:  # noqa: ARG002
        """Core ML on macOS; elsewhere the evaluator of the program."""
        if _APPLE:
            return CoremlRunner(path)
        from torch2mobile.exporter.targets.mil import MilRunner

        return MilRunner(path)


def _converted(job: Job, saved: Path) -> Any:
    """The model as coremltools makes it of the captured program."""
    import logging

    import torch
    from torch._decomp import get_decompositions

    aten = torch.ops.aten
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    _teach_recurrent()
    program = torch.export.load(saved)
    _forget_computed(program)
    # What it has under no name, in other operators.
    plain = get_decompositions([aten.new_ones, aten.new_zeros, aten.new_full])
    program = program.run_decompositions(dict(plain))
    _keep_booleans(program)
    _tell_more(program)
    oldest = str(job.variant.settings["minimum_deployment_target"])
    return ct.convert(
        _ranged(program, job.model.inputs),
        convert_to="mlprogram",
        skip_model_load=True,
        minimum_deployment_target=ct.target[oldest],
        compute_precision=ct.precision.FLOAT16 if job.variant.lossy else ct.precision.FLOAT32,
    )


def _teach_recurrent() -> None:
    """Recurrent layers of a program, which coremltools converts of a trace only.

    In a program such an operator gives one tuple, in a trace several values.
    """
    from coremltools.converters.mil.frontend.torch import ops, register_torch_op

    def learn(kind: str, outputs: int) -> None:
        def convert(context: Any, node: Any) -> None:
            names = [f"{node.name}_{n}" for n in range(outputs)]
            node.outputs[:] = names
            getattr(ops, kind)(context, node)
            context.add(tuple(context[name] for name in names), torch_name=node.name)

        convert.__name__ = f"{kind}_of_program"
        register_torch_op(convert, torch_alias=[f"{kind}.input"], override=True)

    for kind, outputs in _RECURRENT.items():
        learn(kind, outputs)


def _keep_booleans(program: Any) -> None:
    """Padded masks stay booleans: coremltools pads them as numbers, which attention then adds."""
    import torch

    aten = torch.ops.aten
    graph = program.graph
    for target in (aten.pad.default, aten.constant_pad_nd.default):
        for node in graph.find_nodes(op="call_function", target=target):
            if node.meta["val"].dtype != torch.bool:
                continue
            users = list(node.users)
            with graph.inserting_after(node):
                again = graph.call_function(aten.ne.Scalar, (node, 0))
            again.meta = dict(node.meta)
            for user in users:
                user.replace_input_with(node, again)


def _tell_more(program: Any) -> None:
    """Operators as coremltools knows them.

    Maximum pooling with its stride, which PyTorch leaves out where it is the window's size, and
    Python's ``&`` by the name that it has in PyTorch.
    """
    import torch

    aten = torch.ops.aten
    for node in program.graph.find_nodes(op="call_function", target=aten.__and__.Tensor):
        node.target = aten.bitwise_and.Tensor
    for target in (aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default):
        for node in program.graph.find_nodes(op="call_function", target=target):
            if len(node.args) == 2:
                node.args = (*node.args, node.args[1])


def _forget_computed(program: Any) -> None:
    """Drop the ranges of computed sizes, at which torch stops in a program from a file."""
    for node in program.graph.find_nodes(op="placeholder"):
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        ranges = {} if mode is None or mode.shape_env is None else mode.shape_env.var_to_range
        for computed in [term for term in ranges if not term.is_Symbol]:
            del ranges[computed]


def _ranged(program: Any, specs: Sequence[InputSpec]) -> Any:
    """The program with the declared ends of all sizes, also of those that are computed of others.

    coremltools looks a size up by its text, and takes it for one of its own.
    """
    import sympy
    from torch.utils._sympy.value_ranges import ValueRanges

    given = set(program.graph_signature.user_inputs)
    nodes = [
        node for node in program.graph.nodes if node.op == "placeholder" and node.name in given
    ]
    for spec, node in zip(specs, nodes, strict=True):
        for dim, size in zip(spec.dims, node.meta["val"].shape, strict=True):
            if dim.symbol is not None and not isinstance(size, int):
                name = sympy.Symbol(str(size))
                program.range_constraints[name] = ValueRanges(*dim.ends)
    return program
