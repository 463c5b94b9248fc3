"""Is it still the same function? A bundle replayed without torch, or a file against its source."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from torch2mobile import limits
from torch2mobile.environments import REPLAY_MODULES, IsolatedRunner, Worker
from torch2mobile.errors import ModelFileError, Torch2MobileError, UsageError
from torch2mobile.exporter.bundle import (
    MODEL,
    read_case,
    refuse_external_data,
    refuse_undecodable,
    tampered_files,
)
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.interfaces import Observer, Runner, SilentObserver
from torch2mobile.onnx_files import is_ort, read_model, reading
from torch2mobile.pipeline import drift, judging, localising, matching, ranges
from torch2mobile.pipeline.contents import open_bundle
from torch2mobile.pipeline.mutation import Scrutinizer, Scrutiny, check_scrutiny
from torch2mobile.pipeline.results import VerifyResult
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Bundle,
    Check,
    LoadedModel,
    ParityOptions,
    Report,
    Request,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.pipeline.localising import Localiser
    from torch2mobile.validators.parity.golden import Golden


def verify_bundle(
    path: Path,
    *,
    options: ParityOptions | None = None,
    baseline: Path | None = None,
    observer: Observer | None = None,
    worker: Worker | None = None,
) -> VerifyResult:
    """Replay a bundle's golden data on every artefact in it; neither torch nor onnx is imported.

    ``baseline`` is an earlier bundle, or its manifest.json: what has drifted since, and why.
    ``worker`` is a process to load them in, for a caller who has started one ahead of time.
    """
    options = options or ParityOptions()
    ranges.check_parity(options)
    stages = Stages(observer or SilentObserver())
    # The runtimes load in a process of their own while the files are hashed here.
    with worker or Worker(preload=REPLAY_MODULES) as process:
        bundle = open_bundle(path)
        runners = _artifacts(bundle, options.timeout, process)
        for _, runner in runners:
            runner.begin()
        judging.check_tolerances(options, [spec.name for spec in bundle.manifest.outputs])
        stages.add(integrity(bundle))
        cases = _golden(bundle, stages)
        compared = drift.begin(stages, baseline, bundle, options, golden=cases, worker=process)
        for _, runner in runners:
            # What does not load is reported by the replay, which asks again.
            with contextlib.suppress(Torch2MobileError):
                runner.load()
        for name, runner in runners:
            with runner:
                _replay(stages, name, runner, bundle, cases, options)
                if compared is not None:
                    compared.target_check(stages, name, runner)
    return _result(stages, str(path), {})


def verify_against(
    path: Path,
    request: Request,
    *,
    load: matching.Loader | None = None,
    baseline: Path | None = None,
    scrutiny: Scrutiny | None = None,
    observer: Observer | None = None,
    match: matching.Match | None = None,
) -> VerifyResult:
    """The whole comparison with the module: of a bundle, or of one .onnx or .ort file.

    ``match`` says how the names of a file's inputs and outputs are taken: as part of its contract
    (``"name"``), or for a file from elsewhere by ``"position"``.
    """
    asked = scrutiny or Scrutiny()
    if match not in {None, *get_args(matching.Match)}:
        raise UsageError(f"match is {match!r}", "Give 'name' or 'position'.")
    if path.is_dir() and match is not None:
        raise UsageError(
            f"{path} is a bundle, and its manifest has the names",
            "Leave out --match, or give a file.",
        )
    if path.is_dir():
        return verify_bundle_against(
            path, request, load=load, baseline=baseline, scrutiny=asked, observer=observer
        )
    return verify_model_against(
        path, request, load=load, scrutiny=asked, observer=observer, match=match or "name"
    )


def verify_bundle_against(
    path: Path,
    request: Request,
    *,
    load: matching.Loader | None = None,
    baseline: Path | None = None,
    observer: Observer | None = None,
    scrutiny: Scrutiny | None = None,
) -> VerifyResult:
    """The whole comparison of a bundle's artefacts with the module, on fresh probes.

    Inputs that the request does not describe are as they were when the bundle was exported.
    ``baseline`` is an earlier bundle, on whose golden inputs the module is then run as well.
    """
    options = request.parity
    stages = Stages(observer or SilentObserver())
    asked = scrutiny or Scrutiny()
    ranges.check_request(request)
    check_scrutiny(path, asked)
    bundle = open_bundle(path)
    stages.add(integrity(bundle))
    loaded = matching.loaded_for(matching.as_exported(request, bundle), load)
    loaded = matching.with_manifest_inputs(loaded, bundle)
    names = [spec.name for spec in bundle.manifest.outputs]
    compared = drift.begin(stages, baseline, bundle, options, loaded=loaded, source=request.source)
    runners = _artifacts(bundle, options.timeout)
    model, asked_then = bundle.file(MODEL), bundle.manifest.request
    scrutinizer = Scrutinizer(stages, model, loaded, names, options, asked)
    try:
        for name, runner in runners:
            look = partial(_interface, name, runner, bundle)
            check = stages.attempt("contract", look, target=name)
            if check is not None:
                stages.add(check)
            if compared is not None:
                compared.target_check(stages, name, runner)
        with localising.localiser(loaded, model, asked_then, options, stages.observer) as localiser:
            _against(stages, loaded, names, runners, options, localiser, scrutinizer)
    finally:
        for _, runner in runners:
            runner.close()
    return _result(stages, str(path), {"source": bundle.manifest.source})


def verify_model_against(
    path: Path,
    request: Request,
    *,
    load: matching.Loader | None = None,
    observer: Observer | None = None,
    scrutiny: Scrutiny | None = None,
    match: matching.Match = "name",
) -> VerifyResult:
    """The whole comparison of one .onnx or .ort file with the module.

    The file need not come from torch2mobile: what it names otherwise than the module is compared
    by position, which fails unless it was to be matched so.
    """
    options = request.parity
    stages = Stages(observer or SilentObserver())
    asked = scrutiny or Scrutiny()
    ranges.check_request(request)
    check_scrutiny(path, asked)
    check_file(path)
    loaded = matching.loaded_for(request, load)
    with judging.onnx_runner(path, options.timeout) as runner:
        target, matched = path.suffix[1:], matching.match_file(loaded, runner, path, match)
        loaded, names = matched.loaded, matched.outputs
        named = matching.names_check(target, matched, match)
        if named is not None:
            stages.add(named)
        scrutinizer = Scrutinizer(stages, path, loaded, names, options, asked)
        with localising.localiser(loaded, path, None, options, stages.observer) as localiser:
            _against(
                stages, loaded, names, [(target, matched.runner)], options, localiser, scrutinizer
            )
    return _result(stages, str(path), {"source": loaded.name})


def _result(stages: Stages, subject: str, environment: Mapping[str, str]) -> VerifyResult:
    return VerifyResult(Report("verify", subject, tuple(stages.checks), environment))


def check_file(path: Path) -> None:
    """Refuse a file that is missing, empty or no whole model, or keeps its weights elsewhere."""
    refuse_undecodable(path.absolute(), "the file")
    with reading(path):
        is_model = path.is_file() and path.stat().st_size > 0 and is_ort(path)
    if not is_model:
        read_model(path, reads=".onnx and .ort files and bundles")
    refuse_external_data(path.parent, path, ())


def _artifacts(
    bundle: Bundle, timeout: float, worker: Worker | None = None
) -> list[tuple[str, IsolatedRunner]]:
    """A runner for the .onnx and for every target's file."""
    runners = [("onnx", judging.onnx_runner(bundle.file(MODEL), timeout, worker))]
    for name, files in bundle.manifest.targets.items():
        if name not in TARGETS or not files:
            raise UsageError(
                f"the bundle holds files for the target {name!r}, which this version does not know",
                f"The targets are {', '.join(TARGETS)}.",
            )
        path = bundle.file(files[0])
        runners.append((name, judging.target_runner(TARGETS[name], path, timeout, worker)))
    return runners


def integrity(bundle: Bundle) -> Check:
    """Whether the files are as they were written."""
    problems = tampered_files(bundle)
    if problems:
        return Check(
            "integrity",
            Status.FAILED,
            problems[0],
            hint="The bundle is not what was exported: export again, or restore the file.",
            notes=tuple(problems[1:]),
        )
    count = len(bundle.manifest.files)
    return Check("integrity", Status.PASSED, f"{count} files as they were written")


def _golden(bundle: Bundle, stages: Stages) -> list[Golden]:
    from torch2mobile.validators.parity.golden import Golden

    cases = []
    budget = limits.Budget()
    for case in bundle.manifest.golden:
        try:
            feeds, outputs = read_case(bundle.file(case.file), budget)
        except ModelFileError as error:
            stages.add(error_check("golden", error))
            continue
        cases.append(Golden(case.probe, feeds, outputs, case.allowed))
    return cases


def _replay(
    stages: Stages,
    name: str,
    runner: IsolatedRunner,
    bundle: Bundle,
    cases: Sequence[Golden],
    options: ParityOptions,
) -> None:
    from torch2mobile.validators.parity.golden import golden_check

    stages.observer.started(f"golden {name}")
    try:
        stages.add(_interface(name, runner, bundle))
        stages.add(golden_check(name, runner, cases, options.tolerances))
    except Torch2MobileError as error:
        # In a bundle that was proven once, a file that does not load any more is a failed check.
        stages.add(replace(error_check("golden", error, target=name), status=Status.FAILED))


def _interface(name: str, runner: IsolatedRunner, bundle: Bundle) -> Check:
    from torch2mobile.validators.contract import interface_problems

    problems = interface_problems(
        bundle.manifest.inputs,
        bundle.manifest.outputs,
        runner.inputs(),
        runner.outputs(),
    )
    if problems:
        return Check(
            "contract",
            Status.FAILED,
            problems[0],
            target=name,
            hint="The file is not what was proven at export: export the model again.",
            notes=tuple(problems[1:]),
        )
    return Check("contract", Status.PASSED, "inputs and outputs as exported", target=name)


def _against(
    stages: Stages,
    loaded: LoadedModel,
    names: Sequence[str],
    runners: Sequence[tuple[str, Runner]],
    options: ParityOptions,
    localiser: Localiser,
    scrutinizer: Scrutinizer,
) -> None:
    expected = judging.module_side(stages, loaded, names, options, None)
    if expected is None:
        reason = "there is nothing repeatable to compare with"
        stages.add(Check("parity", Status.SKIPPED, reason))
        return
    expected = scrutinizer.decisions(expected)
    passed = [
        judging.judge(stages, name, runner, expected, options, None, localiser)
        for name, runner in runners
    ]
    scrutinizer.mutants(expected, passed=passed[0])
