"""The target level of ``check``: a model converted in memory by each target's own converter."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import sizing, user_code
from torch2mobile.environments import Worker
from torch2mobile.errors import (
    MissingToolError,
    NotApplicableError,
    Torch2MobileError,
    UsageError,
)
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.pipeline.conversion import (
    convert,
    convert_check,
    example_shapes,
    find_variants,
    program_file,
)
from torch2mobile.records import Finding, InputSpec, Job, Location, OnnxModel, OutputSpec, Variant
from torch2mobile.validators.coverage.lint_context import OnnxSubject, Section, Subject
from torch2mobile.validators.coverage.rules import RULES

if TYPE_CHECKING:
    import onnx

_SECONDS = 300.0
# How converters that start from a captured program name its operators.
_ATEN = re.compile(r"\baten[.:]+(\w+)|\bfx node (\w+)")


def look(subject: Subject, labels: Sequence[str]) -> Iterator[Section]:
    """One section for each variant that ONNX Runtime does not run."""
    variants = [variant for variant in find_variants(labels) if variant.target != "ort"]
    if not variants:
        return
    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as name, Worker() as tools:
        for variant in variants:
            why = _not_asked(subject, variant)
            if why or subject.onnx is None:
                yield Section("target", target=variant.label, skipped=why)
            else:
                folder = Path(name) / variant.label
                folder.mkdir()
                yield _Asked(subject, subject.onnx, variant).section(folder, tools)


def _not_asked(subject: Subject, variant: Variant) -> str:
    missing = TARGETS[variant.target].missing()
    if missing:
        return f"{variant.label} is not installed; run: {'; '.join(missing)}"
    if subject.onnx is None:
        return subject.no_model or "there is no model to convert"
    return "" if subject.module is not None else _not_of_a_file(subject.onnx.model, variant)


def _not_of_a_file(model: onnx.ModelProto, variant: Variant) -> str:
    from onnx.external_data_helper import uses_external_data

    if variant.source != "onnx":
        return f"{variant.label} is converted from a captured program: name the module, not a file"
    if any(map(uses_external_data, model.graph.initializer)):
        return "the weights of the file lie in another one, which is not read: name the module"
    return ""


class _Asked:
    """One variant that is asked about a model."""

    def __init__(self, subject: Subject, onnx: OnnxSubject, variant: Variant) -> None:
        self.onnx, self.variant, self.fixed = onnx, variant, subject.fixed
        self.capture = subject.module.capture if subject.module is not None else None

    def section(self, folder: Path, tools: Worker) -> Section:
        """What its converter says, which is run."""
        variant = self.variant
        found: tuple[Finding, ...] = ()
        summary = at = ""
        try:
            job = self._job(folder)
            at = self._at(job)
            artifact = convert(job, tools, _SECONDS)
            summary = f"converted in memory and loaded{at}: {convert_check(artifact).summary}"
        except MissingToolError as error:
            skipped = f"{error.message}; {error.remedy}"
            return Section("target", target=variant.label, skipped=skipped)
        except (NotApplicableError, UsageError) as error:
            found = (RULES["T2M502"].found(Location(), error.message, target=variant.label),)
        except Torch2MobileError as error:
            found = tuple(self._findings(error.message, at))
        return Section("target", found, summary=summary, target=variant.label)

    def _at(self, job: Job) -> str:
        """The sizes that a converter was given, and may refuse alone; an example has its own."""
        if self.capture is not None and not self.fixed:
            return ""
        told = sizing.label_of(sizing.sizes_of(job.model.inputs, job.shapes))
        more = "" if self.capture is not None else " (a file of others: simplify --fix-dim)"
        return f", at {told}{more}" if told else ""

    def _findings(self, message: str, at: str) -> Iterator[Finding]:
        """One for each node whose operator the converter names; one without a place for none."""
        rule, words = RULES["T2M501"], set(re.findall(r"\w+", message))
        named = [node for node in self.onnx.graph.every_node if node.op in words]
        places = [self.onnx.place_of(node) for node in named] or list(self._captured(message))
        for place in places or [Location()]:
            yield rule.found(place, f"{message}{at}", target=self.variant.label)

    def _captured(self, message: str) -> Iterator[Location]:
        """The captured calls of the operators of PyTorch that a converter names."""
        named = {one or other for one, other in _ATEN.findall(message)}
        program = self.capture.program if self.capture is not None else None
        for node in program.graph.nodes if program is not None and named else ():
            name = str(node.target)
            if node.op == "call_function" and {*name.split(".")[1:2]} & named:
                yield replace(user_code.of_node(node), node=node.name, op=name)

    def _job(self, folder: Path) -> Job:
        import onnx

        path, proto, variant = folder / "model.onnx", self.onnx.model, self.variant
        onnx.save(proto, path)
        outputs = tuple(map(_output, proto.graph.output))
        opset = next((one.version for one in proto.opset_import if not one.domain), 0)
        out = folder / "out"
        out.mkdir()
        capture = self.capture
        if capture is None:
            specs = self.onnx.inputs or _inputs_of(proto)
            model = OnnxModel(path, opset, specs, outputs, {})
            return Job(model, variant, None, out, _shapes(specs, self.fixed, variant))
        model = OnnxModel(path, opset, capture.inputs, outputs, {})
        program = program_file(capture, folder) if variant.source == "program" else None
        return Job(model, variant, program, out, example_shapes(capture, variant))


def _inputs_of(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """The inputs of a file that are no weights."""
    from torch2mobile.pipeline.simplify_file import specs_of

    weights = {tensor.name for tensor in model.graph.initializer}
    return specs_of([_output(given) for given in model.graph.input if given.name not in weights])


def _shapes(
    specs: Sequence[InputSpec], fixed: Mapping[str, int], variant: Variant
) -> dict[str, tuple[int, ...]]:
    """Sizes for a file that says none, within its ranges; a batch of 1 where it takes no other.

    NotApplicableError for a batch of another size that is ``fixed``.
    """
    dims = {str(dim.label): dim for spec in specs for dim in spec.dims if dim.symbol is not None}
    solved = [dims[name].solved(size, {}) for name, size in fixed.items() if name in dims]
    sizes = {**sizing.example_sizes(specs), **{found[0]: found[1] for found in solved if found}}
    shapes = {}
    for spec in specs:
        shape = tuple(dim.at(sizes) for dim in spec.dims)
        if not variant.batch and spec.dims and spec.dims[0].symbol is not None:
            if fixed.get(str(spec.dims[0].label), 1) != 1:
                raise NotApplicableError(
                    f"{variant.label} takes no batch, and the first dimension of {spec.name} is "
                    f"fixed to {shape[0]}"
                )
            shape = (1, *shape[1:])
        shapes[spec.name] = shape
    return shapes


def _output(value: onnx.ValueInfoProto) -> OutputSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    told = value.type.tensor_type
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in told.shape.dim
    )
    return OutputSpec(value.name, str(tensor_dtype_to_np_dtype(told.elem_type)), dims)
