"""Whether a model can go there, before anything is converted; nothing is written.

A module is captured once, and a failed capture is something to report, not the end. A file is
looked at as it is, without torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile.errors import (
    CaptureError,
    LostOutputError,
    ModelFileError,
    TranslateError,
)
from torch2mobile.exporter.bundle import load_bundle
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.onnx_files import understood
from torch2mobile.pipeline import check_targets, consistency
from torch2mobile.pipeline.capturing import Captured, captured, refuse_other_sizes
from torch2mobile.pipeline.check_options import (
    CheckOptions,
    refuse_module_options,
    refuse_no_provider,
    refuse_sizes,
)
from torch2mobile.pipeline.check_report import report_of
from torch2mobile.pipeline.installed_tools import tool_versions
from torch2mobile.pipeline.io_binding import load_source
from torch2mobile.pipeline.results import CheckResult
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Capture,
    LoadedModel,
    Report,
    Request,
)
from torch2mobile.validators.coverage import level_file
from torch2mobile.validators.coverage.graph import refuse_unknown
from torch2mobile.validators.coverage.levels import LEVELS
from torch2mobile.validators.coverage.lint_context import ModuleSubject, OnnxSubject, Subject

if TYPE_CHECKING:
    from torch2mobile.exporter.translate import InMemory


def check_request(
    request: Request, options: CheckOptions, *, observer: Observer | None = None
) -> CheckResult:
    """Check what a request names: a source, or an .onnx file or bundle without loading torch."""
    consistency.check_request(request)
    path = Path(request.source)
    if path.is_dir() or path.suffix in {".onnx", ".ort"}:
        refuse_module_options(request, options)
        return check_file(path, options, observer=observer)
    load = partial(load_source, request)
    return check_loaded(load, options, subject=request.source, observer=observer)


def check_file(
    path: Path, options: CheckOptions, *, observer: Observer | None = None
) -> CheckResult:
    """Check an .onnx file, or the model of a bundle, whose lines it then names."""
    from torch2mobile.pipeline.inspection import stored_model

    inputs = load_bundle(path).manifest.inputs if path.is_dir() else ()
    if path.is_dir():
        refuse_sizes(options.fixed, inputs)
    model, origins = stored_model(path)
    refuse_unknown(model, options.fixed)
    stages = Stages(observer or SilentObserver())
    folder = (path if path.is_dir() else path.parent).absolute()
    broken = level_file.broken(model, folder)
    if broken.findings:
        return report_of([broken], options, stages, str(path))
    subject = Subject(
        None,
        OnnxSubject(model, origins, inputs),
        providers=options.providers,
        ort_version=options.ort_version,
        fixed=options.fixed,
    )
    try:
        with understood(str(path)):
            return _look(subject, options, stages, str(path))
    except ModelFileError as error:
        # What ONNX itself cannot make out of a file that it could read.
        return report_of([level_file.refused(error)], options, stages, str(path))


def check_loaded(
    load: Callable[[], LoadedModel],
    options: CheckOptions,
    *,
    subject: str = "",
    observer: Observer | None = None,
) -> CheckResult:
    """Check a module: one capture; a translation, in memory, only for a target's sake."""
    refuse_no_provider(options)
    stages = Stages(observer or SilentObserver())
    stages.observer.started("capture")
    loaded = load()
    # torch names the dimensions that were left to it (Dim.AUTO) while it captures.
    own = loaded.dynamic_shapes is None and loaded.program is None
    refuse_sizes(options.fixed, loaded.specs, named=own)
    from torch2mobile.exporter.loading import flat_module
    from torch2mobile.exporter.recurrent_layers import whole_recurrent_layers
    from torch2mobile.exporter.translations.table import operators

    mended = {target: row.what for target, row in operators().items()} if options.mend else {}
    made, error = None, None
    try:
        made = _captured(loaded, mended, options, stages)
        refuse_other_sizes(made.capture)
    except LostOutputError as lost:
        stages.add(error_check("capture", lost))
        return CheckResult(
            Report("check", subject or loaded.name, tuple(stages.checks), tool_versions())
        )
    except CaptureError as caught:
        made, error = None, caught
    module = ModuleSubject(
        loaded,
        flat_module.fill_template(getattr(loaded.flat, "template", ((), {})), loaded.specs),
        mended,
        _refusal_of(made, options, stages),
        made.capture if made else None,
        error,
    )
    onnx, no_model = _onnx_of(made, options)
    found = Subject(module, onnx, no_model, options.providers, options.ort_version, options.fixed)
    # As at export: a graph is decomposed with recurrent layers kept whole.
    with whole_recurrent_layers(plain=options.mend):
        return _look(found, options, stages, subject or loaded.name)


def _captured(
    loaded: LoadedModel, mended: Mapping[Any, str], options: CheckOptions, stages: Stages
) -> Captured[InMemory | None]:
    """As export captures: by the first strategy that translates.

    Translated only where a model is asked for, or where another strategy has to do without an
    operator that has no translation.
    """
    from torch2mobile.tensors import quiet
    from torch2mobile.validators.coverage import aten

    def translate(capture: Capture) -> InMemory | None:
        if _asked(options, capture) or capture.program is None:
            return _translated(capture, options, stages)
        # The exporter logs what is not installed while its registry loads.
        with quiet():
            lost = aten.survey(capture.program, mended).missing
        if lost:
            raise TranslateError(f"{lost[0].called} has no translation to ONNX")
        return None

    return captured(loaded, translate)


def _asked(options: CheckOptions, capture: Capture | None) -> bool:
    """Whether the runtime is asked about an ONNX model: few of its kernels take bfloat16."""
    named = options.wants_model
    if named or capture is None or capture.program is None:
        return named
    import torch

    from torch2mobile.validators.coverage.source import captured_graph

    return any(
        torch.bfloat16 in captured_graph.dtypes_of(node) or "autocast" in str(node.target)
        for node in captured_graph.nodes(capture.program)
    )


def _onnx_of(
    made: Captured[InMemory | None] | None, options: CheckOptions
) -> tuple[OnnxSubject | None, str]:
    """The ONNX model where something asks for one, or why there is none."""
    import onnx_ir

    if not _asked(options, made.capture if made else None):
        return None, ""
    if made is None:
        return None, "the module could not be captured as a graph"
    if made.refusal is not None:
        return None, f"the module cannot be translated: {made.refusal.message}"
    found = made.translation
    return (OnnxSubject(onnx_ir.to_proto(found.model), found.origins) if found else None), ""


def _refusal_of(
    made: Captured[InMemory | None] | None, options: CheckOptions, stages: Stages
) -> Callable[[], Any]:
    """What gives the exporter's error: it translates, for what the operators do not tell."""
    if made is None:
        return lambda: None
    refusal, found = made.refusal, made.translation
    if refusal is not None or (found is not None and _asked(options, made.capture)):
        return lambda: refusal
    loaded = made.capture.loaded
    return lambda: captured(loaded, lambda c: _translated(c, options, stages)).refusal


def _translated(capture: Capture, options: CheckOptions, stages: Stages) -> InMemory:
    from torch2mobile.exporter import translate

    stages.observer.started("translate")
    with tempfile.TemporaryDirectory() as scratch:
        return translate.in_memory(capture, Path(scratch), opset=options.opset, mend=options.mend)


def _look(subject: Subject, options: CheckOptions, stages: Stages, name: str) -> CheckResult:
    sections = (section for level in LEVELS for section in level(subject))
    asked = check_targets.look(subject, options.targets)
    return report_of(chain(sections, asked), options, stages, name)
