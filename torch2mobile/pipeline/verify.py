"""Is it still the same function? A bundle replayed without torch, or a file against its source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile.errors import ModelFileError, Torch2MobileError, UsageError
from torch2mobile.exporter.bundle import (
    MODEL,
    load_bundle,
    read_case,
    refuse_external_data,
    tampered_files,
)
from torch2mobile.exporter.inputs import check_against_example
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.isolation import REPLAY_MODULES, IsolatedRunner, Worker
from torch2mobile.pipeline import judging
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
    from torch2mobile.validators.parity.gate import Expected
    from torch2mobile.validators.parity.golden import Golden

Loader = Callable[[Request], LoadedModel]


def verify_bundle(
    path: Path,
    *,
    options: ParityOptions | None = None,
    observer: Observer | None = None,
    worker: Worker | None = None,
) -> VerifyResult:
    """Replay a bundle's golden data on every artefact in it; neither torch nor onnx is imported.

    ``worker`` is a process to load them in, for a caller who has started one ahead of time.
    """
    options = options or ParityOptions()
    stages = Stages(observer or SilentObserver())
    # The runtimes load in a process of their own while the files are hashed here.
    with worker or Worker(preload=REPLAY_MODULES) as process:
        bundle = _open(path)
        runners = _artifacts(bundle, options.timeout, process)
        for _, runner in runners:
            runner.begin()
        judging.check_tolerances(options, [spec.name for spec in bundle.manifest.outputs])
        stages.add(_integrity(bundle))
        cases = _golden(bundle, stages)
        for _, runner in runners:
            # What does not load is reported by the replay, which asks again.
            with contextlib.suppress(Torch2MobileError):
                runner.load()
        for name, runner in runners:
            with runner:
                _replay(stages, name, runner, bundle, cases, options)
    return _result(stages, str(path), {})


def verify_bundle_against(
    path: Path,
    request: Request,
    *,
    load: Loader | None = None,
    observer: Observer | None = None,
    scrutiny: Scrutiny | None = None,
) -> VerifyResult:
    """The whole comparison of a bundle's artefacts with the module, on fresh probes.

    Inputs that the request does not describe are as they were when the bundle was exported.
    """
    options = request.parity
    stages = Stages(observer or SilentObserver())
    check_scrutiny(path, scrutiny or Scrutiny())
    bundle = _open(path)
    stages.add(_integrity(bundle))
    loaded = (load or load_source)(_as_exported(request, bundle))
    loaded = _with_manifest_inputs(loaded, bundle)
    names = [spec.name for spec in bundle.manifest.outputs]
    runners = _artifacts(bundle, options.timeout)
    for name, runner in runners:
        check = stages.attempt("contract", partial(_interface, name, runner, bundle), target=name)
        if check is not None:
            stages.add(check)
    asked = scrutiny or Scrutiny()
    model = bundle.file(MODEL)
    look = Scrutinizer(stages, model, loaded, names, options, asked) if asked.asked else None
    _against(stages, loaded, names, runners, options, look)
    return _result(stages, str(path), {"source": bundle.manifest.source})


def verify_model_against(
    path: Path,
    request: Request,
    *,
    load: Loader | None = None,
    observer: Observer | None = None,
    scrutiny: Scrutiny | None = None,
) -> VerifyResult:
    """The whole comparison of one .onnx or .ort file with the module.

    The file need not come from torch2mobile: where its names differ from the module's, inputs and
    outputs are matched by position, and the report says so.
    """
    options = request.parity
    stages = Stages(observer or SilentObserver())
    check_scrutiny(path, scrutiny or Scrutiny())
    _check_file(path)
    loaded = (load or load_source)(request)
    with judging.onnx_runner(path, options.timeout) as runner:
        loaded = _match_inputs(loaded, [spec.name for spec in runner.inputs()], path)
        names = _match_outputs(loaded, [spec.name for spec in runner.outputs()])
        asked = scrutiny or Scrutiny()
        look = Scrutinizer(stages, path, loaded, names, options, asked) if asked.asked else None
        _against(stages, loaded, names, [(path.suffix[1:], runner)], options, look)
    return _result(stages, str(path), {"source": loaded.name})


def _result(stages: Stages, subject: str, environment: Mapping[str, str]) -> VerifyResult:
    return VerifyResult(Report("verify", subject, tuple(stages.checks), environment))


def _open(path: Path) -> Bundle:
    bundle = load_bundle(path)
    loaded = [MODEL, *(files[0] for files in bundle.manifest.targets.values() if files)]
    for model in map(bundle.file, loaded):
        if model.is_file():
            refuse_external_data(bundle.path, model, list(bundle.manifest.files))
    return bundle


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}", "Give a bundle folder or an .onnx file.")
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path} is empty", "Export the model again.")
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


def _integrity(bundle: Bundle) -> Check:
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
    for case in bundle.manifest.golden:
        try:
            feeds, outputs = read_case(bundle.file(case.file))
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


def _with_manifest_inputs(loaded: LoadedModel, bundle: Bundle) -> LoadedModel:
    """The source's model under the bundle's input specifications, which were captured."""
    names = [spec.name for spec in bundle.manifest.inputs]
    if [spec.name for spec in loaded.specs] != names:
        raise UsageError(
            f"the source takes {[s.name for s in loaded.specs]}, the bundle {names}",
            "Name the source that this bundle was exported from, with the same --input.",
        )
    specs = tuple(
        replace(own, values=given.values or own.values)
        for own, given in zip(bundle.manifest.inputs, loaded.specs, strict=True)
    )
    shapes = {
        spec.name: (spec.dtype, tuple(tensor.shape))
        for spec, tensor in zip(loaded.specs, loaded.tensors, strict=True)
    }
    check_against_example(specs, shapes)
    return replace(loaded, specs=specs)


def _match_inputs(loaded: LoadedModel, names: Sequence[str], path: Path) -> LoadedModel:
    own = [spec.name for spec in loaded.specs]
    if len(own) != len(names):
        raise UsageError(
            f"{path.name} takes {len(names)} inputs ({', '.join(names)}), the module {len(own)} "
            f"({', '.join(own)})",
            "Describe the module's inputs as the file has them, with --input.",
        )
    if set(own) == set(names):
        return loaded
    specs = tuple(replace(s, name=name) for s, name in zip(loaded.specs, names, strict=True))
    renames = dict(zip(own, names, strict=True))
    data = tuple({renames.get(k, k): v for k, v in case.items()} for case in loaded.data)
    return replace(loaded, specs=specs, data=data)


def _match_outputs(loaded: LoadedModel, names: Sequence[str]) -> list[str]:
    """The names under which the module's outputs are compared: its own if the file has them."""
    from torch2mobile.exporter.capture import check_example

    own = list(check_example(loaded)[0])
    return own if set(own) & set(names) or len(own) != len(names) else list(names)


def _against(
    stages: Stages,
    loaded: LoadedModel,
    names: Sequence[str],
    runners: Sequence[tuple[str, IsolatedRunner]],
    options: ParityOptions,
    look: Scrutinizer | None,
) -> None:
    try:
        expected: Sequence[Expected] | None = judging.module_side(
            stages, loaded, names, options, None
        )
        if expected is None:
            reason = "there is nothing repeatable to compare with"
            stages.add(Check("parity", Status.SKIPPED, reason))
            return
        if look is not None and expected:
            expected = look.decisions(expected)
        passed = [
            judging.judge(stages, name, runner, expected, options, None) for name, runner in runners
        ]
        if look is not None:
            look.mutants(expected, passed=passed[0])
    finally:
        for _, runner in runners:
            runner.close()


def load_source(request: Request) -> LoadedModel:
    """The model that a request names."""
    from torch2mobile.exporter import source
    from torch2mobile.sample_models import SAMPLES

    return source.load(request, SAMPLES)


def _as_exported(request: Request, bundle: Bundle) -> Request:
    """The request with the inputs, values and weights that the bundle was exported with."""
    given = bundle.manifest.request
    if given is None:
        return request
    request = replace(request, weights=request.weights or given.weights)
    if request.inputs:
        return request
    return replace(
        request,
        inputs=given.inputs,
        values=request.values or given.values,
        data=request.data or given.data,
    )
