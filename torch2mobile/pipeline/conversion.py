"""From the proven .onnx to a target's own files, in a worker process."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.environments import HERE, Worker
from torch2mobile.errors import (
    ConversionError,
    MissingToolError,
    NotApplicableError,
    Torch2MobileError,
    UsageError,
)
from torch2mobile.exporter.targets import TARGETS, find_variant, refuse_missing, variants
from torch2mobile.exporter.targets.mlpackage import model_name
from torch2mobile.records import Artifact, Capture, Check, Job, Metric, Status, Variant
from torch2mobile.web import WEB

if TYPE_CHECKING:
    import torch


def find_variants(labels: Sequence[str]) -> list[Variant]:
    """The variants of these labels, each once, or ``all``; UsageError for an unknown one."""
    from torch2mobile.validators.coverage.accelerators import ACCELERATORS

    for label in labels:
        if label in ACCELERATORS and label not in variants():
            raise UsageError(
                f"{label!r} is a provider of ONNX Runtime, for which nothing is converted",
                f"Ask check --provider {label} how much of the model it takes; the .onnx and "
                ".ort run there as they are.",
            )
        if label == WEB:
            raise UsageError(
                f"{label!r} is a device, for which nothing is converted",
                f"Say --device {label} to export or verify, where the .onnx and .ort run as they "
                "are; --target ort checks their operators.",
            )
    wanted = [name for label in labels for name in (variants() if label == "all" else [label])]
    return [find_variant(label) for label in dict.fromkeys(wanted)]


def convert(job: Job, tools: Worker, timeout: float) -> Artifact:
    """Write a variant's files, by the worker ``tools`` or one in the target's own environment.

    Raises NotInstalledError, NotApplicableError where the target has no form for this model, and
    ConversionError for whatever else its converter does.
    """
    target, label = TARGETS[job.variant.target], job.variant.label
    refuse_missing(job.variant)
    refused = target.accepts(job.model, job.variant)
    if refused:
        raise NotApplicableError(refused, f"Leave out --target {label}.")
    shared = target.environment == HERE and tools.alive
    worker = tools if shared else Worker(environment=target.environment)
    function = "torch2mobile.exporter.targets:convert"
    job = replace(job, model=replace(job.model, origins={}))
    try:
        artifact: Artifact = worker.call(function, target, job, timeout=timeout)
    except (NotApplicableError, MissingToolError):
        raise
    except Torch2MobileError as error:
        raise ConversionError(f"the converter for {label}{_said(error)}", error.remedy) from error
    finally:
        if not shared:
            worker.close()
    return artifact


def _said(error: Torch2MobileError) -> str:
    """After the converter's name: what it did, or, behind a colon, what it raised."""
    text = error.message.removeprefix("the worker process ")
    return f" {text}" if text[:1].islower() else f": {text}"


def convert_check(artifact: Artifact) -> Check:
    """What a converter wrote, by which tools and settings."""
    variant = artifact.variant
    size = sum(path.stat().st_size for path in artifact.files)
    names = dict.fromkeys(model_name(path) for path in artifact.files)
    summary = f"{', '.join(names)}, {size / 1024:.0f} KiB"
    made: dict[str, Metric] = {"precision": variant.precision, "bytes": size, **artifact.tools}
    made |= {f"setting {name}": str(value) for name, value in variant.settings.items()}
    return Check("convert", Status.PASSED, summary, target=variant.label, metrics=made)


def example_shapes(capture: Capture, variant: Variant) -> dict[str, tuple[int, ...]]:
    """The example's shapes, of a batch of 1 where the variant takes no other."""
    shapes = {}
    for spec, tensor in zip(capture.inputs, capture.loaded.tensors, strict=True):
        single = not variant.batch and spec.dims and spec.dims[0].symbol is not None
        shapes[spec.name] = (1, *tensor.shape[1:]) if single else tuple(tensor.shape)
    return shapes


def program_file(capture: Capture, folder: Path) -> Path | None:
    """The captured program as a file, for the converters that start from it."""
    import torch

    if capture.program is None:
        return None
    path = folder / "program.pt2"
    with _not_two_alone(capture.program):
        torch.export.save(capture.program, path)
    return path


@contextlib.contextmanager
def _not_two_alone(program: torch.export.ExportedProgram) -> Iterator[None]:
    """Sizes of up to 2 go to 3 until the context ends, and in what is saved.

    In a program that torch reads from a file sizes begin at 2, and one that also ends there is
    taken for a constant. What plans memory for the greatest size plans it for 3.
    """
    from torch.utils._sympy.value_ranges import ValueRanges

    ranges = program.range_constraints
    own = {name: found for name, found in ranges.items() if found.upper == 2}
    ranges.update({name: ValueRanges(found.lower, 3) for name, found in own.items()})
    try:
        yield
    finally:
        ranges.update(own)
