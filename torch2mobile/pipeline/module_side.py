"""The module's side of the comparison: what it gives on every probe, and whether that holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch2mobile import sizing, user_code
from torch2mobile.pipeline.places import distinct, place_of
from torch2mobile.pipeline.stages import Stages
from torch2mobile.records import (
    Assumption,
    Capture,
    Check,
    InputSpec,
    LoadedModel,
    Location,
    ParityOptions,
    Status,
)

if TYPE_CHECKING:
    from torch2mobile.validators.parity.determinism import Unsteady
    from torch2mobile.validators.parity.domain import Settled
    from torch2mobile.validators.parity.expected import Expected
    from torch2mobile.validators.parity.exploring.flow import Flow
    from torch2mobile.validators.parity.probes import Probe
    from torch2mobile.validators.parity.reference import Reference

# So many assumptions of a capture are told.
_SHOWN = 4


def module_side(
    stages: Stages,
    loaded: LoadedModel,
    outputs: Sequence[str],
    options: ParityOptions,
    capture: Capture | None,
    recorded: Sequence[Probe] = (),
) -> list[Expected] | None:
    """The module on every probe; None where it is not fit to be compared with.

    Without a capture, the sizes at which what it assumed is not so are those of ``recorded`` that
    no other probe has, or else those by which the module's own code decides.
    """
    from torch2mobile.validators.parity import determinism, reference, reference_check
    from torch2mobile.validators.parity.exploring import flow

    stages.observer.started("reference")
    specs = capture.inputs if capture else loaded.specs
    exceptions = [] if capture is None and recorded else _exceptions(loaded, specs, capture)
    broken = [assumption for assumption, _ in exceptions]
    seen = flow.follow(loaded, reference.example_of(loaded))
    built = _built(loaded, specs, options, broken, seen)
    shapes = [probe.shapes for probe in built]
    built += [probe for probe in recorded if probe.shapes not in shapes]
    references, settled, overflown = _evaluated(stages, loaded, outputs, built, options, seen)
    again = next((item.probe for item in references if not item.repeatable), None)
    unsteady = determinism.diagnose(loaded, again) if again is not None else None
    notes = _taken_for_granted(exceptions) if capture else []
    if overflown:
        notes += [f"{', '.join(overflown)}: too large for the float16 within, and left out"]
    stages.add(_reference(loaded, references, unsteady, settled, notes))
    if unsteady is not None and unsteady.cause != "state":
        return None
    expected = reference.accepted(references)
    if not expected:
        return expected
    _modes(stages, loaded, expected)
    _state(stages, loaded, expected, unsteady)
    if loaded.flat.states:
        expected += _in_a_row(stages, loaded, specs, outputs, options, expected)
    constant = reference_check.constant_check(expected)
    if constant is not None and not options.accept_constant:
        stages.add(constant)
    return expected


def _exceptions(
    loaded: LoadedModel, specs: Sequence[InputSpec], capture: Capture | None
) -> list[tuple[Assumption, dict[str, int]]]:
    """What is taken for granted of sizes, with declared sizes at which it is not so."""
    # It loads what captures, which takes two seconds and is not needed for a bundle's own sizes.
    from torch2mobile.exporter import assumptions

    assumed = capture.assumed if capture else assumptions.decided(loaded)
    return assumptions.not_always_so(specs, loaded.tensors, assumed)


def _built(
    loaded: LoadedModel,
    specs: Sequence[InputSpec],
    options: ParityOptions,
    broken: Sequence[Assumption],
    flow: Flow,
) -> list[Probe]:
    """The probes of what was declared, and those that a run on the example suggests."""
    from torch2mobile.validators.parity import probes, reference
    from torch2mobile.validators.parity.exploring import offers

    example = reference.example_of(loaded)
    built = probes.build(
        specs, example, options, loaded.data, broken, drawn=loaded.drawn, work=flow.work
    )
    return built + offers.offers(loaded, specs, example, options, flow)


def _in_a_row(
    stages: Stages,
    loaded: LoadedModel,
    specs: Sequence[InputSpec],
    outputs: Sequence[str],
    options: ParityOptions,
    expected: Sequence[Expected],
) -> list[Expected]:
    """Calls in a row, where the file's inputs and outputs carry the state between them."""
    from torch2mobile.validators.parity import sequences

    stages.observer.started("state")
    rows, check = sequences.expected(loaded, specs, outputs, options, expected)
    stages.add(check)
    return rows


def _evaluated(
    stages: Stages,
    loaded: LoadedModel,
    outputs: Sequence[str],
    built: Sequence[Probe],
    options: ParityOptions,
    flow: Flow,
) -> tuple[Sequence[Reference], Settled | None, list[str]]:
    """The module on the probes of its domain and on what is searched beyond them.

    With what its domain is, and which probes overflow a float16 within.
    """
    from torch2mobile.validators.parity import domain, reference
    from torch2mobile.validators.parity.exploring import sides

    evaluated = partial(reference.evaluate, loaded, outputs, told=stages.probed, heavy=flow.heavy)
    references = evaluated(built)
    settled = domain.settle(loaded, references)
    if settled is not None:
        references = evaluated(settled.probes)
    overflown = [item.probe.label for item in references if domain.overflows(item)]
    references = reference.answered([i for i in references if not domain.overflows(i)])
    expected = reference.accepted(references)
    if expected:
        more = sides.searched(loaded, expected, options.seed, flow.operations)
        references = [*references, *reference.answered(evaluated(more))]
    return references, settled, overflown


def _reference(
    loaded: LoadedModel,
    references: Sequence[Reference],
    unsteady: Unsteady | None,
    settled: Settled | None,
    notes: Sequence[str],
) -> Check:
    """The check of the module by itself, with the lines at fault and what no probe tells."""
    from torch2mobile.validators.parity import reference_check

    check = reference_check.reference_check(references, unsteady, settled)
    first = [f"first at {place}" for place in _outside_places(loaded, settled)]
    untried = _untried(loaded, [item.probe for item in references])
    said = (*untried, *_without_truth(references), *notes)
    check = replace(check, notes=(*loaded.real, *loaded.copies.notes, *check.notes, *first, *said))
    if check.status is Status.FAILED:
        check = replace(check, locations=_suspects(loaded, references, unsteady))
    return check


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
    places = [place_of(step) for step in steps.values()]
    places += attribute_access.writers_of(loaded.module, [n for n in changed if n not in steps])
    places += [place_of(step) for step in unsteady.steps] if unsteady else []
    found = distinct(places)
    # A check that passed shows no lines below it, and these are worth a look.
    notes = [f"written at {place}" for place in found] if check.status is Status.PASSED else []
    layers = dict(loaded.module.named_modules())
    made = any(name.rpartition(".")[0] not in layers for name in changed)
    made = made and determinism.makes_weights(loaded, probe)
    hint = f"{reference_check.MADE if made else ''} {check.hint}".strip()
    stages.add(replace(check, locations=found, notes=tuple(notes), hint=hint))


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
    """The lines that draw random numbers, or the one that first gives NaN, or that refuses."""
    from torch2mobile.validators.parity import determinism, domain

    if unsteady is not None and unsteady.cause != "state":
        return distinct([place_of(step) for step in unsteady.steps])
    first = next((i.probe for i in references if domain.has_nan(i) and not i.probe.outside), None)
    if first is None:
        refused = next((i.probe for i in references if i.refusal and i.probe.declared), None)
        error = domain.refusal(loaded, refused) if refused is not None else None
        return distinct([user_code.from_exception(error)]) if error is not None else ()
    step = determinism.first_nan(loaded, first)
    return distinct([place_of(step)]) if step is not None else ()


def _outside_places(loaded: LoadedModel, settled: Settled | None) -> tuple[Location, ...]:
    """The line that first gives NaN, or refuses, outside of the module's domain."""
    from torch2mobile.validators.parity import determinism, domain

    if settled is None:
        return ()
    step = determinism.first_nan(loaded, settled.first)
    if step is not None:
        return distinct([place_of(step)])
    error = domain.refusal(loaded, settled.first)
    return distinct([user_code.from_exception(error)]) if error is not None else ()
