"""Where does a file start to differ from its module? The localising of verify, on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import Torch2MobileError
from torch2mobile.exporter.bundle import MODEL
from torch2mobile.exporter.targets.mlpackage import model_in
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.pipeline import candidates, consistency, io_binding, judging, localising
from torch2mobile.pipeline.bundle_contents import integrity, open_bundle
from torch2mobile.pipeline.module_side import module_side
from torch2mobile.pipeline.results import DebugResult
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    ArtifactEntry,
    Check,
    LoadedModel,
    ParityOptions,
    Report,
    Request,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.validators.parity.expected import Expected


def debug_against(
    path: Path,
    request: Request,
    *,
    probe: str = "",
    load: io_binding.Loader | None = None,
    observer: Observer | None = None,
) -> DebugResult:
    """Compare a bundle's .onnx, or an .onnx file, with its module, and localise a difference.

    On the ``probe`` of that label; without one on the smallest that fails, else on the example.
    Of another runtime's file, which shows no values of its inside, whether the conversion is at
    fault or the ONNX before it.
    """
    stages = Stages(observer or SilentObserver())
    consistency.check_request(request)
    options, path = request.parity, model_in(path)
    if path.is_dir():
        bundle = open_bundle(path)
        stages.add(integrity(bundle))
        given = io_binding.loaded_for(io_binding.as_exported(request, bundle), load)
        loaded = io_binding.with_manifest_inputs(given, bundle)
        (first, *others), absent = candidates.of_bundle(bundle, options, "parity")
        names = [spec.name for spec in bundle.manifest.outputs]
        model, asked = bundle.file(MODEL), bundle.manifest.request
        look = partial(_localise, stages, loaded, first, model, asked, options, probe)
        _debug(stages, loaded, names, look, first, others, options)
        stages.extend(absent)
    else:
        candidates.check_file(path)
        variant = candidates.kind_of(path)
        loaded = io_binding.loaded_for(request, load)
        with candidates.runner_of(path, variant, options.timeout) as process:
            # Where it differs is asked here, not how its values are called.
            matched = io_binding.match_file(loaded, process, path, variant, "position")
            loaded, names = matched.loaded, list(matched.outputs)
            candidates.check_tolerances(options, names, [variant.label])
            if matched.lost:
                stages.add(io_binding.lost_check(variant.label, matched.lost))
            found = candidates.Candidate(ArtifactEntry(variant), process, matched.runner)
            if variant == ONNX:
                look = partial(_localise, stages, loaded, found, path, None, options, probe)
                _debug(stages, loaded, names, look, found, (), options)
            else:
                look = partial(_translated, stages, loaded, options)
                _debug(stages, loaded, names, look, None, (found,), options)
    return DebugResult(Report("debug", str(path), tuple(stages.checks), {"source": loaded.name}))


def _debug(
    stages: Stages,
    loaded: LoadedModel,
    names: Sequence[str],
    onnx: Callable[[Sequence[Expected]], bool],
    first: candidates.Candidate | None,
    others: Sequence[candidates.Candidate],
    options: ParityOptions,
) -> None:
    """The .onnx on the module's probes, then what was converted from it.

    ``onnx`` looks at the ``first`` and says whether it is right; without a first one it is asked
    only where another one is wrong.
    """
    from torch2mobile.validators.parity import gate

    expected = module_side(stages, loaded, names, options, None)
    if expected is not None and not expected:
        stages.add(gate.parity_check("onnx", [], [], options))
        return
    if expected is None:
        reason = "there is nothing repeatable to compare with"
        stages.add(Check("localise", Status.SKIPPED, reason, target="onnx"))
        return
    fine: bool | None = None
    if first is not None:
        with first.process:
            fine = onnx(expected)
    for each in others:
        with each.process:
            judging.judge(stages, each, expected, options, None)
        parity = next(check for check in reversed(stages.checks) if check.name == "parity")
        if parity.status is not Status.FAILED:
            continue
        fine = onnx(expected) if fine is None else fine
        stages.add(_conversion(each.label, fine=fine))


def _conversion(label: str, *, fine: bool) -> Check:
    """Of a runtime that shows no values of its inside: is it the ONNX, or what came after?"""
    where = f"in the conversion from ONNX to {label}" if fine else "before it: see parity [onnx]"
    hint = "" if fine else "Debug the .onnx, whose values have names."
    return Check("localise", Status.PASSED, f"it starts {where}", target=label, hint=hint)


def _translated(
    stages: Stages, loaded: LoadedModel, options: ParityOptions, expected: Sequence[Expected]
) -> bool:
    """Whether the module, translated anew, is right on these probes."""
    with (
        localising.translated(loaded) as path,
        candidates.onnx_runner(path, options.timeout) as runner,
    ):
        found = candidates.Candidate(ArtifactEntry(ONNX), runner, runner)
        return judging.judge(stages, found, expected, options, None)


def _localise(
    stages: Stages,
    loaded: LoadedModel,
    found: candidates.Candidate,
    model: Path,
    asked: Request | None,
    options: ParityOptions,
    probe: str,
    expected: Sequence[Expected],
) -> bool:
    """Where an .onnx starts to differ, and whether it does not.

    ``asked`` is what the bundle was exported with.
    """
    from torch2mobile.validators.parity import gate
    from torch2mobile.validators.parity.answers import run_probes

    if probe:
        localising.choose(expected, (), probe)
    stages.observer.started("parity onnx")
    held = found.gate(options)
    try:
        answers = run_probes(found.runner, expected)
    except Torch2MobileError as error:
        stages.add(error_check("parity", error, target="onnx"))
        return False
    parity = stages.add(gate.parity_check("onnx", expected, answers, held))
    case = localising.choose(expected, parity.mismatches, probe)
    with localising.localiser(loaded, model, asked, options, stages.observer) as localiser:
        check = stages.attempt("localise", lambda: localiser.find(expected, case), target="onnx")
    if check is not None:
        stages.add(check)
    return parity.status is Status.PASSED
