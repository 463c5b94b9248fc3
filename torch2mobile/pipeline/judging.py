"""Shared by export and verify: the module's side once, then every artefact against it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch2mobile import sizing
from torch2mobile.environments import HERE, IsolatedRunner, Worker
from torch2mobile.errors import Torch2MobileError, UsageError
from torch2mobile.exporter.targets import TARGETS
from torch2mobile.exporter.targets.ort import ONNX
from torch2mobile.pipeline.bound_runner import BoundRunner
from torch2mobile.pipeline.stages import Stages, error_check
from torch2mobile.records import (
    ArtifactEntry,
    Assumption,
    Capture,
    Check,
    InputSpec,
    LoadedModel,
    Location,
    OutputSpec,
    ParityOptions,
    Status,
    Tolerance,
    Variant,
)

if TYPE_CHECKING:
    import numpy as np

    from torch2mobile.interfaces import Runner
    from torch2mobile.pipeline.localising import Localiser
    from torch2mobile.validators.parity.determinism import Unsteady
    from torch2mobile.validators.parity.domain import Settled
    from torch2mobile.validators.parity.gate import Answers, Expected
    from torch2mobile.validators.parity.probes import Probe
    from torch2mobile.validators.parity.recorder import Step
    from torch2mobile.validators.parity.reference import Reference

# So many assumptions of a capture are told.
_SHOWN = 4
_LOADER = "torch2mobile.exporter.targets:load"
# What holds a lossy artefact where the user gave nothing: its structure only.
_ANYTHING = Tolerance(atol=math.inf)


@dataclass(frozen=True)
class Candidate:
    """An artefact to be judged: how it was made, its process, and that under the contract."""

    entry: ArtifactEntry
    process: IsolatedRunner
    runner: Runner

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.entry.variant.label

    def gate(self, options: ParityOptions, *, held: bool = False) -> ParityOptions:
        """The tolerances that hold for it; a lossy one without any is held to its structure.

        ``held`` where limits were recorded for it.
        """
        own = options.for_artifact(self.label)
        if self.entry.variant.lossy and not own.tolerances and not held:
            return replace(own, tolerances={"": _ANYTHING})
        return own

    def verdict(self, check: Check, gate: ParityOptions) -> Check:
        """What a check that passed is worth: nothing was held to anything without a gate."""
        if check.status is not Status.PASSED or gate.tolerances.get("") is not _ANYTHING:
            return check
        atol = [
            row[table.columns.index("least atol")] for table in check.tables for row in table.rows
        ]
        worst = max((float(value) for value in atol if value is not None), default=0.0)
        return replace(
            check,
            status=Status.SKIPPED,
            summary=f"no tolerance is given for {self.entry.variant.precision}: off by {worst:.2g}",
            hint=f"Say how far it may be off: --atol @{self.label}=A, or --rtol @{self.label}=R.",
        )


def runner_of(
    path: Path, variant: Variant, timeout: float, worker: Worker | None = None
) -> IsolatedRunner:
    """An artefact in its runtime, in a process of its own or, if that may be shared, ``worker``."""
    target = TARGETS[variant.target]
    here = target.environment == HERE
    return IsolatedRunner(
        _LOADER,
        target,
        path,
        variant,
        timeout=timeout,
        worker=worker if here else None,
        environment=target.environment,
    )


def onnx_runner(path: Path, timeout: float, worker: Worker | None = None) -> IsolatedRunner:
    """An .onnx in ONNX Runtime, in a process of its own or in the one given."""
    return runner_of(path, ONNX, timeout, worker)


def candidate(
    path: Path,
    entry: ArtifactEntry,
    inputs: Sequence[InputSpec],
    outputs: Sequence[OutputSpec],
    timeout: float,
    worker: Worker | None = None,
) -> Candidate:
    """An artefact under the contract that these inputs and outputs are."""
    process = runner_of(path, entry.variant, timeout, worker)
    return Candidate(entry, process, BoundRunner(process, entry, inputs, outputs))


def interface(
    found: Candidate, inputs: Sequence[InputSpec], outputs: Sequence[OutputSpec]
) -> Check:
    """The contract of one artefact, as export and verify both look at it."""
    from torch2mobile.validators.contract import interface_check

    static = found.entry.variant.static
    return interface_check(found.label, inputs, outputs, found.runner, static=static)


def check_tolerances(
    options: ParityOptions, outputs: Sequence[str], labels: Sequence[str] = ()
) -> None:
    """Refuse a tolerance for an output or artefact that does not exist."""
    known = {"", *outputs}
    known |= {f"{name}@{label}" for label in labels for name in known}
    for name in options.tolerances:
        if name not in known:
            raise UsageError(
                f"a tolerance was given for {name!r}, which is no output and no artefact",
                f"The outputs are {', '.join(outputs)}"
                + (f"; the artefacts @{', @'.join(labels)}." if labels else "."),
            )


def module_side(
    stages: Stages,
    loaded: LoadedModel,
    outputs: Sequence[str],
    options: ParityOptions,
    capture: Capture | None,
) -> list[Expected] | None:
    """The module on every probe; None where it is not fit to be compared with."""
    from torch2mobile.exporter import assumptions
    from torch2mobile.validators.parity import (
        determinism,
        domain,
        probes,
        reference,
        reference_check,
    )
    from torch2mobile.validators.parity.exploring import offers, sides

    stages.observer.started("reference")
    example = reference.example_of(loaded)
    specs = capture.inputs if capture else loaded.specs
    exceptions = assumptions.exceptions(capture) if capture else []
    assumed = [assumption for assumption, _ in exceptions]
    built = probes.build(specs, example, options, loaded.data, assumed, drawn=loaded.drawn)
    built += offers.offers(loaded, specs, example, options)
    references = reference.evaluate(loaded, outputs, built)
    settled = domain.settle(loaded, references)
    if settled is not None:
        references = reference.evaluate(loaded, outputs, settled.probes)
    references = reference.answered(references)
    tried = [item.probe for item in references]
    again = next((item.probe for item in references if not item.repeatable), None)
    unsteady = determinism.diagnose(loaded, again) if again is not None else None
    check = reference_check.reference_check(references, unsteady, settled)
    first = [f"first at {place}" for place in _outside_places(loaded, settled)]
    told = (*loaded.copies.notes, *check.notes)
    said = (*_untried(loaded, tried), *_fused(loaded), *_without_truth(references))
    notes = (*told, *first, *said)
    notes += tuple(_taken_for_granted(exceptions))
    check = replace(check, notes=notes)
    if check.status is Status.FAILED:
        check = replace(check, locations=_suspects(loaded, references, unsteady))
    stages.add(check)
    if unsteady is not None and unsteady.cause != "state":
        return None
    expected = reference.accepted(references)
    if not expected:
        return expected
    _modes(stages, loaded, expected)
    _state(stages, loaded, expected, unsteady)
    more = sides.searched(loaded, expected, options.seed)
    found = reference.answered(reference.evaluate(loaded, outputs, more))
    expected = [*expected, *reference.accepted(found)]
    constant = reference_check.constant_check(expected)
    if constant is not None and not options.accept_constant:
        stages.add(constant)
    return expected


def _modes(stages: Stages, loaded: LoadedModel, expected: Sequence[Expected]) -> None:
    """A check where a submodule was left in train mode under a module in eval mode."""
    from torch2mobile.validators.parity import determinism, reference_check

    left = determinism.left_in_train_mode(loaded)
    if left:
        answer = determinism.in_its_own_modes(loaded, expected[0])
        stages.add(reference_check.modes_check(left, expected, answer))


def _state(
    stages: Stages, loaded: LoadedModel, expected: Sequence[Expected], unsteady: Unsteady | None
) -> None:
    """A check of the module in use against a fresh one, where a call leaves anything changed."""
    from torch2mobile.exporter import attribute_access
    from torch2mobile.validators.parity import determinism, reference_check

    probe = expected[0].probe
    changed = unsteady.changed if unsteady else determinism.changed_state(loaded, probe)
    if not changed and unsteady is None:
        return
    check = reference_check.state_check(changed, *determinism.sequence(loaded, expected))
    steps = determinism.writers(loaded, probe, changed)
    places = [_place(step) for step in steps.values()]
    unseen = [name for name in changed if name not in steps]
    places += attribute_access.writers_of(loaded.module, unseen)
    places += [_place(step) for step in unsteady.steps] if unsteady else []
    found = _known(places)
    # A check that passed shows no lines below it, and these are worth a look.
    notes = [f"written at {place}" for place in found] if check.status is Status.PASSED else []
    stages.add(replace(check, locations=found, notes=tuple(notes)))


def _taken_for_granted(exceptions: Sequence[tuple[Assumption, Mapping[str, int]]]) -> list[str]:
    """What the capture assumes of sizes and is not so at all of them, and where that is probed."""
    notes = [
        f"captured as if {assumption.text}, which is not so at {sizing.label_of(sizes)}: probed"
        for assumption, sizes in exceptions
    ]
    more = len(notes) - _SHOWN
    return [*notes[:_SHOWN], f"and {more} more of the kind, each probed"] if more > 0 else notes


def _without_truth(references: Sequence[Reference]) -> list[str]:
    """Why there is no float64 truth, and by which line of the user's, on how many probes."""
    from torch2mobile import user_code

    lacks = [item.lack for item in references if item.lack is not None and item.truth is None]
    notes = []
    for lack in dict.fromkeys(lacks):
        place = user_code.from_exception(lack.error) if lack.error is not None else None
        where = f" at {place}" if place else ""
        count = lacks.count(lack)
        on = "" if count == len(references) else f" on {count} probes"
        notes.append(f"the module has no float64 truth{on}: {lack.reason}{where}")
    return notes


def _untried(loaded: LoadedModel, probes: Sequence[Probe]) -> list[str]:
    """What the declared or possible inputs hold that no probe has: said, so that nobody guesses."""
    notes = [
        f"{spec.name} was tried with {_tried(spec.name, probes)}: say which values it takes with "
        "--values"
        for spec in loaded.specs
        if spec.values is None and spec.dtype.startswith(("int", "uint")) and not loaded.data
    ]
    for symbol, (greatest, tried) in _greatest(loaded, probes).items():
        if tried < greatest:
            notes.append(
                f"{symbol} was tried up to {tried} of {greatest}, to bound memory and time: "
                "real data of that size can be given with --data"
            )
    return notes


def _fused(loaded: LoadedModel) -> list[str]:
    """What PyTorch's fused path does where a mask leaves positions out, unlike the file."""
    import torch

    masked = any(spec.dtype == "bool" for spec in loaded.specs)
    layers = (torch.nn.TransformerEncoder, torch.nn.TransformerEncoderLayer)
    found = [name for name, own in loaded.module.named_modules() if isinstance(own, layers)]
    if not masked or not found or not torch.backends.mha.get_fastpath_enabled():
        return []
    note = (
        f"{found[0] or 'the module'}: in eval mode PyTorch may take a fused path, which gives 0 "
        "where a mask leaves positions out, and refuses rows that it leaves out whole; the file "
        "computes them. torch.backends.mha.set_fastpath_enabled(False), where the model is built, "
        "makes PyTorch compute them too"
    )
    return [note]


def _tried(name: str, probes: Sequence[Probe]) -> str:
    ends = [(a.min(), a.max()) for a in (probe.feeds[name] for probe in probes) if a.size]
    least, greatest = min(low for low, _ in ends), max(high for _, high in ends)
    return "0 and 1 only" if (least, greatest) == (0, 1) else f"{least}..{greatest}"


def _greatest(loaded: LoadedModel, probes: Sequence[Probe]) -> dict[str, tuple[int, int]]:
    """By symbol its declared greatest value and the greatest that a probe has."""
    tried = [
        sizing.sizes_of(loaded.specs, {name: array.shape for name, array in probe.feeds.items()})
        for probe in probes
    ]
    return {
        dim.symbol: (dim.greatest, max(sizes[dim.symbol] for sizes in tried))
        for spec in loaded.specs
        for dim in spec.dims
        if dim.symbol is not None and dim.greatest is not None
    }


def _suspects(
    loaded: LoadedModel, references: Sequence[Reference], unsteady: Unsteady | None
) -> tuple[Location, ...]:
    """The lines that draw random numbers, or the one that first gives NaN."""
    from torch2mobile.validators.parity import determinism, domain

    if unsteady is not None and unsteady.cause != "state":
        return _known([_place(step) for step in unsteady.steps])
    bad = (i.probe for i in references if domain.has_nan(i) and not i.probe.outside)
    first = next(bad, None)
    step = determinism.first_nan(loaded, first) if first is not None else None
    return _known([_place(step)]) if step is not None else ()


def _outside_places(loaded: LoadedModel, settled: Settled | None) -> tuple[Location, ...]:
    """The line that first gives NaN, or refuses, outside of the module's domain."""
    from torch2mobile import user_code
    from torch2mobile.validators.parity import determinism, domain

    if settled is None:
        return ()
    step = determinism.first_nan(loaded, settled.first)
    if step is not None:
        return _known([_place(step)])
    error = domain.refusal(loaded, settled.first)
    return _known([user_code.from_exception(error)]) if error is not None else ()


def _place(step: Step) -> Location | None:
    """An operation of a recording as a line of the user's."""
    from torch2mobile import user_code

    where = user_code.from_frames(step.frames)
    return where and replace(where, module=step.module, op=step.op)


def _known(places: Sequence[Location | None]) -> tuple[Location, ...]:
    """Each line once, by whatever operation it was found."""
    found: dict[tuple[str, int], Location] = {}
    for place in places:
        if place is not None:
            found.setdefault((place.file, place.line), place)
    return tuple(found.values())


def judge(
    stages: Stages,
    artifact: Candidate,
    expected: Sequence[Expected],
    options: ParityOptions,
    capture: Capture | None,
    localiser: Localiser | None = None,
    told: Callable[[Answers], None] | None = None,
) -> bool:
    """Parity and baked values of one artefact; True where it passed.

    ``localiser`` adds to a failure where it starts; ``told`` is given the artefact's answers, for
    a caller who measures more of them.
    """
    from torch2mobile.validators.parity import baked, gate

    target = artifact.label
    stages.observer.started(f"parity {target}")
    held = artifact.gate(options)
    try:
        answers = gate.run_probes(artifact.runner, expected)
    except Torch2MobileError as error:
        stages.add(error_check("parity", error, target=target))
        return False
    if told is not None:
        told(answers)
    parity = artifact.verdict(gate.parity_check(target, expected, answers, held), held)
    if localiser is not None:
        parity = localiser.explain(parity, expected)
    stages.add(parity)
    follows = baked.baked_check(target, expected, answers)
    if follows.status is Status.FAILED and capture is not None:
        follows = replace(follows, locations=_readers(follows.metrics, capture))
    stages.add(follows)
    return parity.status is Status.PASSED and follows.status is not Status.FAILED


def departures(capture: Capture, feeds: Mapping[str, np.ndarray]) -> tuple[Location, ...]:
    """The lines where the captured graph itself leaves the module on these inputs."""
    from torch2mobile.validators.parity import recorder

    if capture.program is None:
        return ()
    pair = recorder.departure(capture.loaded, capture.program, feeds)
    return _known([_place(step) for step in pair if step is not None]) if pair else ()


def _readers(metrics: Mapping[str, object], capture: Capture) -> tuple[Location, ...]:
    from torch2mobile.exporter import attribute_access

    names = str(metrics["inputs"]).split(", ")
    return tuple(place for name in names for place in attribute_access.readers_of(capture, name))
