"""A bundle replayed on its golden data: neither torch nor onnx is imported."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import limits
from torch2mobile.environments import REPLAY_MODULES, Worker
from torch2mobile.errors import BundleError, MissingToolError, ModelFileError, Torch2MobileError
from torch2mobile.exporter.bundle import (
    MODEL,
    read_case,
    read_state,
)
from torch2mobile.interfaces import Observer, SilentObserver
from torch2mobile.pipeline import (
    candidates,
    consistency,
    on_devices,
)
from torch2mobile.pipeline.bundle_contents import integrity, open_bundle
from torch2mobile.pipeline.results import VerifyResult
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    Bundle,
    Check,
    ParityOptions,
    Report,
    Request,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.validators.parity.golden import Golden


def verify_bundle(
    path: Path,
    *,
    request: Request | None = None,
    baseline: Path | None = None,
    observer: Observer | None = None,
    worker: Worker | None = None,
) -> VerifyResult:
    """Replay a bundle's golden data on every artefact in it; neither torch nor onnx is imported.

    ``baseline`` is an earlier bundle, or its manifest.json: what has drifted since, and why.
    The request's devices are replayed on besides this machine. ``worker`` is a process to load
    them in, for a caller who has started one ahead of time.
    """
    request = request or Request("")
    options = request.parity
    consistency.check_parity(options)
    on_devices.find(request.devices)  # an unknown one is refused before any work
    labels, stages = request.devices, Stages(observer or SilentObserver())
    # The runtimes load in a process of their own while the files are hashed here.
    with worker or Worker(preload=REPLAY_MODULES) as process:
        bundle = open_bundle(path)
        found, absent = candidates.of_bundle(bundle, options, "golden", process, labels)
        for each in found:
            each.process.begin()
        stages.add(integrity(bundle))
        stages.extend(absent)
        cases = golden_of(bundle, stages)
        compared = None
        if baseline is not None:
            from torch2mobile.pipeline.baseline import drift

            compared = drift.begin(stages, baseline, bundle, options, golden=cases, worker=process)
        for each in found:
            # What does not load is reported by the replay, which asks again.
            with contextlib.suppress(Torch2MobileError):
                each.process.load()
        for each in found:
            with each.process:
                _replay(stages, each, bundle, cases, options)
                if compared is not None:
                    compared.target_check(stages, each)
            on = partial(on_device, bundle, each, options)
            on_devices.golden(stages, each.label, on, labels, cases, options)
    on_devices.side_by_side(stages, labels)
    return result_of(stages, str(path), on_devices.versions(labels), request)


def on_device(
    bundle: Bundle, found: candidates.Candidate, options: ParityOptions, device: str
) -> candidates.Candidate:
    """An artefact of a bundle on a device."""
    manifest = bundle.manifest
    name = manifest.targets.get(found.label, (MODEL,))[0]
    return candidates.candidate(
        bundle.file(name),
        found.entry,
        manifest.inputs,
        manifest.outputs,
        options.timeout,
        device=device,
        size=candidates.size_in(manifest, found.label),
    )


def result_of(
    stages: Stages, subject: str, environment: Mapping[str, str], request: Request
) -> VerifyResult:
    """The result of all checks; an ERROR where nothing was held to anything."""
    compared = {c.status for c in stages.checks if c.name in {"parity", "golden"}}
    if compared == {Status.SKIPPED} and Status.FAILED not in {c.status for c in stages.checks}:
        what = "its values were held to nothing, so nothing was verified"
        stages.add(Check("verdict", Status.ERROR, what, hint="Give it a tolerance: see parity."))
    asked = on_devices.settled(request)
    return VerifyResult(Report("verify", subject, tuple(stages.checks), environment, asked))


def golden_of(bundle: Bundle, stages: Stages) -> list[Golden]:
    """A bundle's golden cases; one that cannot be read is a check of its own."""
    from torch2mobile.validators.parity.golden import Golden

    cases = []
    budget = limits.Budget()
    for case in bundle.manifest.golden:
        try:
            feeds, outputs = read_case(bundle.file(case.file), budget)
        except ModelFileError as error:
            stages.add(error_check("golden", error))
            continue
        own = case.allowed, case.limits, case.carries
        cases.append(Golden(case.probe, feeds, outputs, *own))
    return _from_the_start(cases, bundle, stages)


def _from_the_start(cases: list[Golden], bundle: Bundle, stages: Stages) -> list[Golden]:
    """Calls in a row start from the state that an app starts from."""
    try:
        first = read_state(bundle)
    except BundleError as error:
        stages.add(replace(error_check("golden", error), status=Status.FAILED))
        return cases
    return [
        replace(case, feeds={**case.feeds, **first})
        if not case.carries and following is not None and following.carries
        else case
        for case, following in itertools.zip_longest(cases, cases[1:])
    ]


def _replay(
    stages: Stages,
    found: candidates.Candidate,
    bundle: Bundle,
    cases: Sequence[Golden],
    options: ParityOptions,
) -> None:
    from torch2mobile.validators.parity.golden import golden_check

    label, manifest = found.label, bundle.manifest
    stages.observer.started(f"golden {label}")
    held = found.gate(options, held=any(label in case.limits for case in cases))
    try:
        stages.add(candidates.interface(found, manifest.inputs, manifest.outputs))
        check = golden_check(label, found.runner, cases, held.tolerances)
        stages.add(found.verdict(check, held))
    except MissingToolError as error:
        stages.add(error_check("golden", error, target=label))
    except Torch2MobileError as error:
        # In a bundle that was proven once, a file that does not load any more is a failed check.
        stages.add(replace(error_check("golden", error, target=label), status=Status.FAILED))
