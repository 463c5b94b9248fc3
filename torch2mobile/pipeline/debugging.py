"""Where does a file start to differ from its module? The localising of verify, on demand."""

from __future__ import annotations

from pathlib import Path

from torch2mobile.errors import Torch2MobileError, UsageError
from torch2mobile.exporter.bundle import MODEL
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.onnx_files import is_ort
from torch2mobile.pipeline import judging, localising, matching, ranges
from torch2mobile.pipeline import verify as verification
from torch2mobile.pipeline.contents import open_bundle
from torch2mobile.pipeline.results import DebugResult
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import Check, Report, Request, Status


def debug_against(
    path: Path,
    request: Request,
    *,
    probe: str = "",
    load: matching.Loader | None = None,
    observer: Observer | None = None,
) -> DebugResult:
    """Compare a bundle's .onnx, or an .onnx file, with its module, and localise a difference.

    On the ``probe`` of that label; without one on the smallest that fails, else on the example.
    Raises UsageError for an .ort file, which does not keep the names of its values.
    """
    stages = Stages(observer or SilentObserver())
    ranges.check_request(request)
    timeout = request.parity.timeout
    if path.is_dir():
        bundle = open_bundle(path)
        stages.add(verification.integrity(bundle))
        given = matching.loaded_for(matching.as_exported(request, bundle), load)
        loaded = matching.with_manifest_inputs(given, bundle)
        names = [spec.name for spec in bundle.manifest.outputs]
        model = bundle.file(MODEL)
        with judging.onnx_runner(model, timeout) as runner:
            matched = matching.Matched(loaded, runner, names)
            _localise(stages, matched, model, bundle.manifest.request, request, probe)
    else:
        _refuse_ort(path)
        loaded = matching.loaded_for(request, load)
        with judging.onnx_runner(path, timeout) as runner:
            # Where it differs is asked here, not how its values are called.
            matched = matching.match_file(loaded, runner, path, "position")
            if matched.lost:
                stages.add(matching.lost_check("onnx", matched.lost))
            _localise(stages, matched, path, None, request, probe)
    return DebugResult(Report("debug", str(path), tuple(stages.checks), {"source": loaded.name}))


def _refuse_ort(path: Path) -> None:
    verification.check_file(path)
    if is_ort(path):
        raise UsageError(
            f"{path.name} is in the .ort format, which does not keep the graph as it was exported",
            "Debug the .onnx that it was made from; if that passes, the conversion is at fault.",
        )


def _localise(
    stages: Stages,
    matched: matching.Matched,
    model: Path,
    asked: Request | None,
    request: Request,
    probe: str,
) -> None:
    """``asked`` is what the bundle was exported with."""
    from torch2mobile.validators.parity import gate

    options = request.parity
    expected = judging.module_side(stages, matched.loaded, matched.outputs, options, None)
    if expected is None:
        reason = "there is nothing repeatable to compare with"
        stages.add(Check("localise", Status.SKIPPED, reason, target="onnx"))
        return
    if probe:
        localising.choose(expected, (), probe)
    stages.observer.started("parity onnx")
    try:
        answers = gate.run_probes(matched.runner, expected)
    except Torch2MobileError as error:
        stages.add(error_check("parity", error, target="onnx"))
        return
    parity = stages.add(gate.parity_check("onnx", expected, answers, options))
    if not expected:
        return
    case = localising.choose(expected, parity.mismatches, probe)
    loaded = matched.loaded
    with localising.localiser(loaded, model, asked, options, stages.observer) as localiser:
        found = stages.attempt("localise", lambda: localiser.find(expected, case), target="onnx")
    if found is not None:
        stages.add(found)
