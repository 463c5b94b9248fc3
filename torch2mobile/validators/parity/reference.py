"""What the artefact has to equal: the module's own outputs, and the same in float64 as the truth.

With ``sums``, the only part of parity that needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet, to_numpy, to_torch, untouched
from torch2mobile.validators.parity import doubt
from torch2mobile.validators.parity.gate import Expected, Rough
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.tolerance import Case, Roundings, is_float
from torch2mobile.validators.parity.truth import Lack, Truth

if TYPE_CHECKING:
    import torch

Outputs = list[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Reference:
    """The module on one probe: its outputs, the float64 truth if there is one, or its refusal.

    ``repeatable`` is False where a second run on the same input gave something else. ``rough``
    gives the outputs with all sums taken in a plain loop. ``lack`` says why there is no truth, and
    ``roundings`` stand in for it.
    """

    probe: Probe
    outputs: Outputs
    truth: list[np.ndarray] | None = None
    refusal: str = ""
    repeatable: bool = True
    rough: Rough | None = None
    lack: Lack | None = None
    roundings: Roundings | None = None


def accepted(references: Sequence[Reference]) -> list[Expected]:
    """What an artefact must give on the probes that the module itself accepts."""
    return [
        Expected(item.probe, item.outputs, item.truth, item.rough, item.roundings)
        for item in references
        if not item.refusal
    ]


def _run(flat: Any, tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [to_numpy(tensor).copy() for tensor in flat(*(tensor.clone() for tensor in tensors))]


def _same(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(a, b, equal_nan=is_float(a)) for a, b in zip(first, second, strict=True)
    )


def _rough(loaded: LoadedModel, tensors: Sequence[torch.Tensor]) -> Rough:
    def run() -> list[np.ndarray] | None:
        from torch2mobile.validators.parity.sums import PlainSums

        try:
            with untouched(loaded.module), quiet(), PlainSums():
                return _run(loaded.flat, tensors)
        except Exception:  # noqa: BLE001 (then the noise is as measured without)
            return None

    return Rough(run)


def _named(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Outputs:
    """The outputs by name; where there are more than at the example, by number."""
    more = [f"output number {number}" for number in range(len(names), len(arrays))]
    return list(zip([*names, *more], arrays, strict=False))


def _run_twice(probes: Sequence[Probe]) -> set[int]:
    """The first probe and the largest: threads that race have more to race over there."""
    sizes = [sum(array.size for array in probe.feeds.values()) for probe in probes]
    return {0, sizes.index(max(sizes))} if sizes else set()


def evaluate(
    loaded: LoadedModel, outputs: Sequence[str], probes: Sequence[Probe]
) -> list[Reference]:
    """The module on every probe, in eval mode, with its state put back after each.

    A probe that the module refuses is kept as a refusal.
    """
    with untouched(loaded.module), quiet():
        double = Truth(loaded)
    references = []
    twice = _run_twice(probes)
    for number, probe in enumerate(probes):
        tensors = [to_torch(probe.feeds[spec.name]) for spec in loaded.specs]
        with untouched(loaded.module), quiet():
            try:
                arrays = _run(loaded.flat, tensors)
                repeatable = number not in twice or _same(arrays, _run(loaded.flat, tensors))
            except Exception as error:  # noqa: BLE001 (the module is the user's code)
                first = (str(error).strip().splitlines() or [""])[0]
                text = f"{type(error).__name__}: {first}"
                references.append(Reference(probe, [], refusal=text[:300]))
                continue
            truth = double(tensors, arrays, _run)
        references.append(
            Reference(
                probe,
                _named(outputs, arrays),
                truth,
                repeatable=repeatable,
                rough=_rough(loaded, tensors),
                lack=double.lack,
                roundings=None if truth else _roundings(loaded, tensors, arrays),
            )
        )
    return _undoubted(loaded, references)


def _roundings(
    loaded: LoadedModel,
    tensors: Sequence[torch.Tensor],
    arrays: Sequence[np.ndarray],
    *,
    others: bool = True,
) -> Roundings | None:
    from torch2mobile.validators.parity import compensated

    with untouched(loaded.module), quiet():
        return compensated.evaluate(lambda: _run(loaded.flat, tensors), arrays, others=others)


def _undoubted(loaded: LoadedModel, references: list[Reference]) -> list[Reference]:
    """No truth where the float64 run turns out to be another function."""
    known = [n for n, item in enumerate(references) if item.truth is not None]

    def roundings(number: int, *, others: bool = True) -> Roundings | None:
        item = references[known[number]]
        tensors = [to_torch(item.probe.feeds[spec.name]) for spec in loaded.specs]
        arrays = [array for _, array in item.outputs]
        return _roundings(loaded, tensors, arrays, others=others)

    cases = [Case(i.outputs, i.truth, i.probe.magnitude) for i in (references[n] for n in known)]
    found = doubt.other_functions(cases, roundings, partial(roundings, others=False))
    lack = Lack("its float64 run is another function")
    for number, given in found.items():
        item = references[known[number]]
        references[known[number]] = replace(item, truth=None, lack=lack, roundings=given)
    return references


def example_of(loaded: LoadedModel) -> Mapping[str, np.ndarray]:
    """The example input as numpy arrays, by name."""
    return {
        spec.name: to_numpy(tensor)
        for spec, tensor in zip(loaded.specs, loaded.tensors, strict=True)
    }
