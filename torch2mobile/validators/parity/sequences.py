"""Calls in a row of a module that keeps state: what a file that carries the state has to give.

The module itself is called again and again, as it is used. The file starts from the same state and
is then given what it gave itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from torch2mobile import probe_sizes, sampling, sizing
from torch2mobile.copies import fresh
from torch2mobile.records import Check, InputSpec, LoadedModel, Mismatch, ParityOptions, Status
from torch2mobile.tensors import quiet, to_numpy, to_torch
from torch2mobile.validators.parity import gate, reference
from torch2mobile.validators.parity.calls import named, rewinder, run, tensors_of
from torch2mobile.validators.parity.expected import Expected, typical_of
from torch2mobile.validators.parity.probes import ELEMENT_BUDGET, Probe
from torch2mobile.validators.parity.reference import Reference
from torch2mobile.validators.parity.truth import Truth

if TYPE_CHECKING:
    from torch2mobile.interfaces import Feeds, Outputs


CALLS = 6


def expected(
    loaded: LoadedModel,
    specs: Sequence[InputSpec],
    outputs: Sequence[str],
    options: ParityOptions,
    usual: Sequence[Expected],
) -> tuple[list[Expected], Check]:
    """What a file must give in calls in a row, and whether the module's state is all there is.

    One sequence has the example's sizes; another one, where sizes vary, other ones at each call.
    """
    example = reference.example_of(loaded)
    own = [spec for spec in specs if spec.name not in {s.name for s in loaded.flat.states}]
    found: list[Expected] = []
    wrong: list[Mismatch] = []
    for what, row in (("", _alike(own, example, options)), (", sizes vary", _sized(own, options))):
        probes, given = _in_a_row(loaded, outputs, row, what)
        references = _true(loaded, reference.evaluate(loaded, outputs, probes))
        cases = reference.accepted(references)
        if len(cases) < len(probes):  # a state that the module does not take as it comes
            probes, given = probes[: len(cases)], given[: len(cases)]
        yardsticks = typical_of([*usual, *cases])
        for case, answer in zip(cases, given, strict=True):
            wrong += gate.judge_probe(case, answer, yardsticks, {})[1]
        found += cases
    return found, _check(loaded, found, wrong)


def _alike(specs: Sequence[InputSpec], example: Feeds, options: ParityOptions) -> Iterator[Feeds]:
    sizes = sizing.sizes_of(specs, {spec.name: example[spec.name].shape for spec in specs})
    yield {spec.name: example[spec.name] for spec in specs}
    for number in range(1, CALLS):
        yield _drawn(specs, sizes, options, number)


def _sized(specs: Sequence[InputSpec], options: ParityOptions) -> Iterator[Feeds]:
    usual = sizing.example_sizes(specs)
    sizes = [
        case
        for _, case, declared in probe_sizes.size_cases(specs, usual, ELEMENT_BUDGET, ())
        if declared
    ]
    for number in range(CALLS if sizes else 0):
        yield _drawn(specs, sizes[number % len(sizes)], options, CALLS + number)


def _drawn(
    specs: Sequence[InputSpec], sizes: Mapping[str, int], options: ParityOptions, number: int
) -> Feeds:
    rng = np.random.default_rng([options.seed, 7, number])
    return {spec.name: sampling.draw(spec, sizes, "example", rng) for spec in specs}


def _in_a_row(
    loaded: LoadedModel, outputs: Sequence[str], row: Iterator[Feeds], what: str
) -> tuple[list[Probe], list[Outputs]]:
    """The module called on these one after the other, up to one that it refuses."""
    states = [state.name for state in loaded.flat.states]
    carried = dict(zip(states, outputs[len(outputs) - len(states) :], strict=True))
    probes: list[Probe] = []
    answers: list[Outputs] = []
    with fresh(loaded) as own, quiet():
        rewind = rewinder()
        for number, feeds in enumerate(row, 1):
            rewind()
            before = dict(zip(states, map(to_numpy, own.flat.held()), strict=True))
            given = [to_torch(array).clone() for array in feeds.values()]
            try:
                arrays = [to_numpy(tensor).copy() for tensor in own.flat.in_use(*given)]
            except Exception:  # noqa: BLE001 (the module is the user's code)
                break
            label = f"call {number} in a row{what}"
            carries = carried if number > 1 else {}
            probes.append(Probe(label, {**feeds, **before}, searched=True, carries=carries))
            answers.append(named(outputs, arrays))
    return probes, answers


def _true(loaded: LoadedModel, references: Sequence[Reference]) -> list[Reference]:
    """With a truth whose state is true as well: noise adds up along the calls."""
    double = Truth(loaded)
    count = len(loaded.flat.states)
    found = []
    carried: list[np.ndarray] | None = None
    for item in references:
        if item.refusal:
            break
        given = tensors_of(loaded, item.probe.feeds)
        if carried is not None:
            given[-count:] = map(to_torch, carried)
        with quiet():
            truth = double(given, [array for _, array in item.outputs], run)
        carried = truth[-count:] if truth is not None else None
        known = replace(item, truth=truth, later=None) if truth is not None else item
        found.append(known)
    return found


def _check(loaded: LoadedModel, cases: Sequence[Expected], wrong: Sequence[Mismatch]) -> Check:
    states = loaded.flat.states
    names = ", ".join(f"{s.place} ({s.name})" if s.place != s.name else s.name for s in states)
    if wrong or not cases:
        return Check(
            "state",
            Status.FAILED if wrong else Status.ERROR,
            f"called in a row, the module gives something else than with {names} as inputs: it "
            "keeps more than that"
            if wrong
            else "the module takes none of the calls in a row",
            hint="Keep whatever a call leaves for the next one in buffers or tensor attributes.",
            mismatches=tuple(wrong[: gate.SHOWN]),
        )
    return Check(
        "state",
        Status.PASSED,
        f"{names}: {len(cases)} calls in a row of the module, which the file repeats from its own "
        "state",
    )
