"""A bundle's artefacts, or one file, beside the module that they were made from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.exporter.bundle import MODEL
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.interfaces import Observer
from torch2mobile.pipeline import (
    candidates,
    io_binding,
    judging,
    localising,
    on_devices,
)
from torch2mobile.pipeline.baseline import drift
from torch2mobile.pipeline.bundle_contents import integrity, open_bundle
from torch2mobile.pipeline.module_side import module_side
from torch2mobile.pipeline.mutation import Scrutinizer
from torch2mobile.pipeline.replay import golden_of, on_device, result_of
from torch2mobile.pipeline.results import VerifyResult
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import (
    ArtifactEntry,
    Bundle,
    Check,
    LoadedModel,
    Match,
    ParityOptions,
    Request,
    Scrutiny,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.pipeline.localising import Localiser
    from torch2mobile.validators.parity.expected import Expected
    from torch2mobile.validators.parity.probes import Probe


def verify_against(
    path: Path,
    request: Request,
    load: io_binding.Loader | None,
    baseline: Path | None,
    asked: Scrutiny,
    observer: Observer,
    match: Match,
) -> VerifyResult:
    """The whole comparison of a bundle or a file with the module, on fresh probes."""
    on_devices.find(request.devices)  # an unknown one is refused before any work
    stages = Stages(observer)
    if path.is_dir():
        return _bundle_against(path, request, load, baseline, stages, asked)
    return _model_against(path, request, load, stages, asked, match)


def _bundle_against(
    path: Path,
    request: Request,
    load: io_binding.Loader | None,
    baseline: Path | None,
    stages: Stages,
    asked: Scrutiny,
) -> VerifyResult:
    """The whole comparison of a bundle's artefacts with the module, on fresh probes.

    Inputs that the request does not describe are as they were when the bundle was exported.
    ``baseline`` is an earlier bundle, on whose golden inputs the module is then run as well.
    """
    bundle = open_bundle(path)
    stages.add(integrity(bundle))
    labels = request.devices
    request = io_binding.as_exported(request, bundle)
    options = request.parity
    names = [spec.name for spec in bundle.manifest.outputs]
    model, asked_then = bundle.file(MODEL), bundle.manifest.request
    found, absent = candidates.of_bundle(bundle, options, "parity", besides=labels)
    try:
        for each in found:
            each.process.start()
        loaded = io_binding.loaded_for(request, load)
        loaded = io_binding.with_manifest_inputs(loaded, bundle)
        lost = io_binding.lost_outputs(loaded)
        if lost is not None:
            stages.add(lost)
            return result_of(stages, str(path), {"source": bundle.manifest.source}, request)
        compared = drift.begin(
            stages, baseline, bundle, options, loaded=loaded, source=request.source
        )
        stages.extend(absent)
        scrutinizer = Scrutinizer(stages, model, loaded, names, options, asked)
        _contracts(stages, found, bundle, compared)
        with localising.localiser(loaded, model, asked_then, options, stages.observer) as localiser:
            recorded = _recorded(stages, bundle, loaded)
            expected = _against(
                stages, loaded, names, found, options, localiser, scrutinizer, recorded
            )
            for each in found if expected else []:
                on = partial(on_device, bundle, each, options)
                on_devices.parity(stages, each.label, on, labels, expected, options, localiser)
        on_devices.side_by_side(stages, labels)
    finally:
        for each in found:
            each.process.close()
    ran_on = on_devices.versions(labels)
    return result_of(stages, str(path), {"source": bundle.manifest.source, **ran_on}, request)


def _contracts(
    stages: Stages,
    found: Sequence[candidates.Candidate],
    bundle: Bundle,
    compared: drift.Drift | None,
) -> None:
    """The contract of every artefact, and what has drifted of it since an earlier bundle."""
    inputs, outputs = bundle.manifest.inputs, bundle.manifest.outputs
    for each in found:
        look = partial(candidates.interface, each, inputs, outputs)
        check = stages.attempt("contract", look, target=each.label)
        if check is not None:
            stages.add(check)
        if compared is not None:
            compared.target_check(stages, each)


def _recorded(stages: Stages, bundle: Bundle, loaded: LoadedModel) -> list[Probe]:
    """The inputs of the bundle's golden data that the module takes."""
    from torch2mobile.validators.parity.probes import Probe

    return [
        Probe(case.probe, case.feeds, searched=True)
        for case in golden_of(bundle, stages)
        if drift.fits(case.feeds, loaded.specs)
    ]


def _model_against(
    path: Path,
    request: Request,
    load: io_binding.Loader | None,
    stages: Stages,
    asked: Scrutiny,
    match: Match,
) -> VerifyResult:
    """The whole comparison of one file with the module, in the runtime that its kind tells.

    The file need not come from torch2mobile: what it names otherwise than the module is compared
    by position, which fails unless it was to be matched so.
    """
    options = request.parity
    candidates.check_file(path)
    labels, variant = request.devices, candidates.kind_of(path)
    with candidates.runner_of(path, variant, options.timeout) as process:
        process.start()
        loaded = io_binding.loaded_for(request, load)
        lost = io_binding.lost_outputs(loaded)
        if lost is not None:
            stages.add(lost)
            return result_of(stages, str(path), {"source": loaded.name}, request)
        own = loaded
        matched = io_binding.match_file(loaded, process, path, variant, match)
        loaded, names, label = matched.loaded, matched.outputs, variant.label
        candidates.check_tolerances(options, names, [label])
        named = io_binding.names_check(label, matched, match)
        if named is not None:
            stages.add(named)
        size = candidates.size_of(path, variant)
        entry = ArtifactEntry(variant)
        found = candidates.Candidate(entry, process, matched.runner, "", size, labels)
        scrutinizer = Scrutinizer(stages, path, loaded, names, options, asked)
        with localising.localiser(loaded, path, None, options, stages.observer) as localiser:
            expected = _against(stages, loaded, names, [found], options, localiser, scrutinizer)

        def on(device: str) -> candidates.Candidate:
            other = candidates.runner_of(path, variant, options.timeout, None, device)
            runner = io_binding.match_file(own, other, path, variant, match).runner
            return candidates.Candidate(found.entry, other, runner, device, size)

        if expected:
            on_devices.parity(stages, label, on, labels, expected, options, localiser)
        on_devices.side_by_side(stages, labels)
    ran_on = on_devices.versions(labels)
    return result_of(stages, str(path), {"source": loaded.name, **ran_on}, request)


def _against(
    stages: Stages,
    loaded: LoadedModel,
    names: Sequence[str],
    found: Sequence[candidates.Candidate],
    options: ParityOptions,
    localiser: Localiser,
    scrutinizer: Scrutinizer,
    recorded: Sequence[Probe] = (),
) -> Sequence[Expected]:
    """Judge every artefact; the module's side, for devices, or nothing where there is none."""
    expected = module_side(stages, loaded, names, options, None, recorded)
    if expected is None:
        reason = "there is nothing repeatable to compare with"
        stages.add(Check("parity", Status.SKIPPED, reason))
        return ()
    expected = scrutinizer.decisions(expected)
    passed = [judging.judge(stages, each, expected, options, None, localiser) for each in found]
    if found[0].label == ONNX.label:
        judging.look_up(stages, scrutinizer.path, loaded.module)
    scrutinizer.mutants(expected, passed=passed[0])
    return expected
