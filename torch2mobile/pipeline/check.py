"""Whether a model can go there, before anything is converted; nothing is written.

A module is captured once, and a failed capture is something to report, not the end. A file is
looked at as it is, without torch.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch2mobile import limits
from torch2mobile.errors import (
    CaptureError,
    LostOutputError,
    ModelFileError,
    TranslateError,
    UsageError,
    did_you_mean,
)
from torch2mobile.exporter.bundle import load_bundle
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.onnx_files import understood
from torch2mobile.pipeline import ranges
from torch2mobile.pipeline.capturing import Captured, captured, refuse_other_sizes
from torch2mobile.pipeline.conversion import find_variants
from torch2mobile.pipeline.installed_tools import tool_versions
from torch2mobile.pipeline.io_binding import load_source
from torch2mobile.pipeline.results import CheckResult
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Capture,
    Check,
    Finding,
    InputSpec,
    LoadedModel,
    Report,
    Request,
    Severity,
    Status,
)
from torch2mobile.validators.coverage import level_file, releases
from torch2mobile.validators.coverage.accelerators import ACCELERATORS
from torch2mobile.validators.coverage.levels import LEVELS
from torch2mobile.validators.coverage.lint_context import Section, Subject
from torch2mobile.validators.coverage.rules import RULES
from torch2mobile.validators.coverage.selection import Selection, counts

if TYPE_CHECKING:
    from torch2mobile.exporter.translate import InMemory


@dataclass(frozen=True)
class CheckOptions:
    """What to look at and what counts; see :class:`Selection` and :class:`Subject`."""

    targets: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    selection: Selection = field(default_factory=Selection)
    fail_on: Severity = Severity.ERROR
    ort_version: str | None = None
    fixed: Mapping[str, int] = field(default_factory=dict)
    opset: int | None = None
    mend: bool = True

    @property
    def wants_model(self) -> bool:
        """Whether the ONNX that a module becomes is looked at."""
        return bool(self.targets or self.providers or self.ort_version or self.opset)

    def __post_init__(self) -> None:
        find_variants(self.targets)
        for name in self.providers:
            if name not in ACCELERATORS:
                raise UsageError(
                    f"check knows no provider {name!r}", did_you_mean(name, list(ACCELERATORS))
                )
        if self.ort_version is not None:
            releases.check_version(self.ort_version)
        if self.fixed and not self.providers:
            raise UsageError(
                "--fix-dim says something about an accelerator, and none is asked for",
                f"Add --provider {', or '.join(ACCELERATORS)}, or leave it out.",
            )
        for name, size in self.fixed.items():
            limits.check_number("fix_dim", size, of=name)
        if self.opset is not None:
            limits.check_number("opset", self.opset)


def severity_of(text: str) -> Severity:
    """The severity of this name; UsageError for any other."""
    if text not in tuple(Severity):
        raise UsageError(
            f"fail_on is {text!r}, which is no severity",
            f"The severities are {', '.join(s.value for s in Severity)}.",
        )
    return Severity(text)


def check_request(
    request: Request, options: CheckOptions, *, observer: Observer | None = None
) -> CheckResult:
    """Check what a request names: a source, or an .onnx file or bundle without loading torch."""
    ranges.check_request(request)
    path = Path(request.source)
    if path.is_dir() or path.suffix in {".onnx", ".ort"}:
        _refuse_module_options(request, options)
        return check_file(path, options, observer=observer)
    load = partial(load_source, request)
    return check_loaded(load, options, subject=request.source, observer=observer)


def _refuse_module_options(request: Request, options: CheckOptions) -> None:
    about = ("weights", "inputs", "values", "data", "trust", "drop_outputs")
    given = [name for name in about if getattr(request, name)]
    if options.opset is not None:
        given.append("opset")
    if not options.mend:
        given.append("no-mend")
    if request.parity.seed:
        given.append("seed")
    if given:
        flag = {"inputs": "input", "drop_outputs": "drop-output"}.get(given[0], given[0])
        raise UsageError(
            f"--{flag} says something about a module, and {request.source} is a file",
            "Leave it out, or name the module.",
        )


def _refuse_sizes(
    fixed: Mapping[str, int], inputs: Iterable[InputSpec], *, named: bool = True
) -> None:
    """UsageError for a size that these inputs cannot have; ``named``: they name all dimensions."""
    known = {str(dim.label): dim for spec in inputs for dim in spec.dims if dim.symbol is not None}
    for name, size in fixed.items():
        dim = known.get(name)
        if dim is None:
            if not named:
                continue
            listed = ", ".join(known) or "none: all its sizes are fixed"
            raise UsageError(
                f"--fix-dim {name}: no input has a dimension of that name",
                f"The model's dimensions are {listed}.",
            )
        least, most = dim.ends
        if size < least or (most is not None and size > most):
            raise UsageError(
                f"--fix-dim {name}={size}: {name} was declared as {least}..{most or ''}",
                "Give a size of that range, or declare another one with --input.",
            )
        found = dim.solved(size, {})
        if found is not None and found[2]:
            raise UsageError(
                f"--fix-dim {name}={size}: no whole {dim.symbol} gives {size}",
                f"Give a size that one does, for example {name}={least}.",
            )


def check_file(
    path: Path, options: CheckOptions, *, observer: Observer | None = None
) -> CheckResult:
    """Check an .onnx file, or the model of a bundle, whose lines it then names."""
    from torch2mobile.pipeline.inspection import stored_model

    if path.is_dir():
        _refuse_sizes(options.fixed, load_bundle(path).manifest.inputs)
    model, origins = stored_model(path)
    stages = Stages(observer or SilentObserver())
    folder = (path if path.is_dir() else path.parent).absolute()
    broken = level_file.broken(model, folder)
    if broken.findings:
        return _report([broken], options, stages, str(path))
    subject = Subject(
        name=str(path),
        providers=options.providers,
        ort_version=options.ort_version,
        fixed=options.fixed,
        model=model,
        origins=origins,
    )
    try:
        with understood(str(path)):
            return _look(subject, options, stages, str(path))
    except ModelFileError as error:
        # What ONNX itself cannot make out of a file that it could read.
        return _report([level_file.refused(error)], options, stages, str(path))


def check_loaded(
    load: Callable[[], LoadedModel],
    options: CheckOptions,
    *,
    subject: str = "",
    observer: Observer | None = None,
) -> CheckResult:
    """Check a module: one capture; a translation, in memory, only for a target's sake."""
    stages = Stages(observer or SilentObserver())
    stages.observer.started("capture")
    loaded = load()
    # torch names the dimensions that were left to it (Dim.AUTO) while it captures.
    own = loaded.dynamic_shapes is None and loaded.program is None
    _refuse_sizes(options.fixed, loaded.specs, named=own)
    from torch2mobile.exporter.loading import flat_module
    from torch2mobile.exporter.recurrent import whole_recurrent_layers
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
    found = Subject(
        name=loaded.name,
        providers=options.providers,
        ort_version=options.ort_version,
        fixed=options.fixed,
        loaded=loaded,
        capture=made.capture if made else None,
        error=error,
        **_onnx_of(made, options, stages),
        call=flat_module.fill_template(getattr(loaded.flat, "template", ((), {})), loaded.specs),
        mended=mended,
    )
    # As at export: a graph is decomposed with LSTM and GRU kept whole.
    with whole_recurrent_layers():
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

    from torch2mobile.validators.coverage.source import graph

    return any(
        torch.bfloat16 in graph.dtypes_of(node) or "autocast" in str(node.target)
        for node in graph.nodes(capture.program)
    )


def _onnx_of(
    made: Captured[InMemory | None] | None, options: CheckOptions, stages: Stages
) -> dict[str, Any]:
    """The subject's ONNX model where something asks for one, or why there is none."""
    import onnx_ir

    asked = _asked(options, made.capture if made else None)
    if made is None:
        return {"no_model": "the module could not be captured as a graph"} if asked else {}
    refusal, found = made.refusal, made.translation
    if refusal is not None:
        why = {"no_model": f"the module cannot be translated: {refusal.message}"} if asked else {}
        return {**why, "refusal": lambda: refusal}
    if found is not None and asked:
        return {"model": onnx_ir.to_proto(found.model), "origins": found.origins}
    # For what the operators alone do not tell.
    loaded = made.capture.loaded
    return {"refusal": lambda: captured(loaded, lambda c: _translated(c, options, stages)).refusal}


def _translated(capture: Capture, options: CheckOptions, stages: Stages) -> InMemory:
    from torch2mobile.exporter import translate

    stages.observer.started("translate")
    with tempfile.TemporaryDirectory() as scratch:
        return translate.in_memory(capture, Path(scratch), opset=options.opset, mend=options.mend)


def _look(subject: Subject, options: CheckOptions, stages: Stages, name: str) -> CheckResult:
    sections = (section for level in LEVELS for section in level(subject))
    return _report(sections, options, stages, name)


def _report(
    sections: Iterable[Section], options: CheckOptions, stages: Stages, name: str
) -> CheckResult:
    seen: list[Finding] = []
    for section in sections:
        stages.observer.started(f"check {section.name}")
        check = _check(section, options)
        seen += check.findings
        stages.add(check)
    codes = sorted({finding.code for finding in seen})
    report = Report(
        command="check",
        subject=name,
        checks=(*stages.checks, *_unused(options.selection, seen)),
        environment=tool_versions(),
        rules=tuple(RULES[code].info for code in codes),
    )
    return CheckResult(report)


def _check(section: Section, options: CheckOptions) -> Check:
    if section.skipped:
        return Check(section.name, Status.SKIPPED, section.skipped, target=section.target)
    findings = options.selection.apply(section.findings)
    failed = any(counts(finding, options.fail_on) for finding in findings)
    summary = section.instead or _tally(findings)
    # What failed has not passed because its error was left out; a suppression has a reason for it.
    unsaid = section.failure and not any(f.severity is Severity.ERROR for f in findings)
    status = Status.FAILED if failed else Status.SKIPPED if unsaid else Status.PASSED
    if unsaid:
        summary = f"{section.failure}, and the error is left out: {summary}"
        section = replace(section, summary="")
    return Check(
        section.name,
        status,
        f"{section.summary}: {summary}" if section.summary else summary,
        target=section.target,
        metrics=section.metrics,
        tables=section.tables,
        findings=findings,
        notes=section.notes,
    )


def _tally(findings: Iterable[Finding]) -> str:
    """``2 errors, 1 warning, 1 suppressed``, or that there is nothing."""
    words = Counter("suppressed" if f.suppressed else f.severity.value for f in findings)
    parts = [
        f"{words[s.value]} {s.value}{'s' if words[s.value] > 1 and s is not Severity.INFO else ''}"
        for s in Severity
        if words[s.value]
    ]
    if words["suppressed"]:
        parts.append(f"{words['suppressed']} suppressed")
    return ", ".join(parts) or "nothing found"


def _unused(selection: Selection, seen: list[Finding]) -> tuple[Check, ...]:
    """A suppression of nothing is left over from something, or has a slip in its path."""
    left = selection.unused(seen)
    if not left:
        return ()
    texts = tuple(f"{s.code} in {s.path} ({s.reason})" for s in left)
    summary = f"{len(left)} of {len(selection.suppress)} suppressed nothing here"
    return (Check("suppressions", Status.SKIPPED, summary, notes=texts),)
