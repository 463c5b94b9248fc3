"""The target level of ``check``: a model converted in memory by each target's own converter."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.environments import Worker
from torch2mobile.errors import MissingToolError, NotApplicableError, Torch2MobileError
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.pipeline.conversion import (
    convert,
    convert_check,
    example_shapes,
    find_variants,
    program_file,
)
from torch2mobile.records import Capture, Finding, Job, Location, OnnxModel, OutputSpec, Variant
from torch2mobile.validators.coverage.lint_context import Section, Subject
from torch2mobile.validators.coverage.rules import RULES

if TYPE_CHECKING:
    import onnx

_SECONDS = 300.0


def look(subject: Subject, labels: Sequence[str]) -> Iterator[Section]:
    """One section for each variant that ONNX Runtime does not run."""
    variants = [variant for variant in find_variants(labels) if variant.target != "ort"]
    if not variants:
        return
    with tempfile.TemporaryDirectory(prefix="torch2mobile-") as name, Worker() as tools:
        for variant in variants:
            why = _not_asked(subject, variant)
            if why:
                yield Section("target", target=variant.label, skipped=why)
            else:
                folder = Path(name) / variant.label
                folder.mkdir()
                yield _section(subject, variant, folder, tools)


def _not_asked(subject: Subject, variant: Variant) -> str:
    missing = TARGETS[variant.target].missing()
    if missing:
        return f"{variant.label} is not installed; run: {'; '.join(missing)}"
    if subject.model is None:
        return subject.no_model or "there is no model to convert"
    if subject.capture is None:
        return "a file has no example, by which it is converted: name the module"
    return ""


def _section(subject: Subject, variant: Variant, folder: Path, tools: Worker) -> Section:
    found: tuple[Finding, ...] = ()
    capture, summary = subject.capture, ""
    assert capture is not None
    try:
        artifact = convert(_job(subject, capture, variant, folder), tools, _SECONDS)
        summary = f"converted in memory and loaded: {convert_check(artifact).summary}"
    except MissingToolError as error:
        return Section("target", target=variant.label, skipped=f"{error.message}; {error.remedy}")
    except NotApplicableError as error:
        found = (RULES["T2M502"].found(Location(), error.message, target=variant.label),)
    except Torch2MobileError as error:
        found = tuple(_findings(subject, variant, error))
    return Section("target", found, summary=summary, target=variant.label)


def _findings(subject: Subject, variant: Variant, error: Torch2MobileError) -> Iterator[Finding]:
    """One for each node whose operator the converter names; one without a place for none."""
    rule, words = RULES["T2M501"], set(re.findall(r"\w+", error.message))
    named = [node for node in subject.graph.every_node if node.op in words]
    places = [subject.place_of(node) for node in named] or [Location()]
    for place in places:
        yield rule.found(place, error.message, target=variant.label)


def _job(subject: Subject, capture: Capture, variant: Variant, folder: Path) -> Job:
    import onnx

    assert subject.model is not None
    path = folder / "model.onnx"
    onnx.save(subject.model, path)
    outputs = tuple(map(_output, subject.model.graph.output))
    opset = next((one.version for one in subject.model.opset_import if not one.domain), 0)
    model = OnnxModel(path, opset, capture.inputs, outputs, {})
    program = program_file(capture, folder) if variant.source == "program" else None
    out = folder / "out"
    out.mkdir()
    return Job(model, variant, program, out, example_shapes(capture, variant))


def _output(value: onnx.ValueInfoProto) -> OutputSpec:
    from onnx.helper import tensor_dtype_to_np_dtype

    told = value.type.tensor_type
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in told.shape.dim
    )
    return OutputSpec(value.name, str(tensor_dtype_to_np_dtype(told.elem_type)), dims)
