"""What the artefact has to equal: the module's own outputs, and the same in float64 as the truth.

With ``sums``, the only part of parity that needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from torch2mobile.copies import calm, fresh
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet, to_numpy
from torch2mobile.validators.parity import validate_truth
from torch2mobile.validators.parity.calls import named, run, tensors_of
from torch2mobile.validators.parity.channels import is_float
from torch2mobile.validators.parity.compare import same
from torch2mobile.validators.parity.expected import Expected, Picks, Rough
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.tolerance import Case, Roundings
from torch2mobile.validators.parity.truth import Lack, Truth

if TYPE_CHECKING:
    import torch

    from torch2mobile.dispatch import Operations
    from torch2mobile.validators.parity.order import Order
    from torch2mobile.validators.parity.picks import Pick

# So many probes tell what noise is usual, and so many of a module that takes long to run.
MEASURED, MEASURED_OF_HEAVY = 6, 4


@dataclass(frozen=True)
class Reference(Expected):
    """The module on one probe: what an artefact must give there, or the module's own refusal.

    ``repeatable`` is False where a second run on the same input gave something else. ``lack`` says
    why there is no truth.
    """

    refusal: str = ""
    repeatable: bool = True
    lack: Lack | None = None


def answered(references: Sequence[Reference]) -> list[Reference]:
    """Without the searched probes that the module refuses, as nobody declared those.

    One that it answers with NaN is outside of its domain; not so where NaN or an infinity was
    given, whose answer NaN may be.
    """
    return [
        replace(item, probe=replace(item.probe, outside=True))
        if item.probe.searched and item.probe.finite and _has_nan(item)
        else item
        for item in references
        if not (item.probe.searched and item.refusal) or item.probe.outside
    ]


def _has_nan(item: Reference) -> bool:
    arrays = [array for _, array in item.outputs if is_float(array)]
    return any(bool(np.isnan(array.astype(np.float64)).any()) for array in arrays)


def accepted(references: Sequence[Reference]) -> list[Expected]:
    """What an artefact must give on the probes that the module itself accepts."""
    return [item for item in references if not item.refusal]


def _rough(loaded: LoadedModel, tensors: Sequence[torch.Tensor]) -> Rough:
    def again() -> list[np.ndarray] | None:
        from torch2mobile.validators.parity.sums import CoarseSums

        try:
            with fresh(loaded, "observed") as own, quiet(), CoarseSums():
                return run(own.flat, tensors)
        except Exception:  # noqa: BLE001 (then the noise is as measured without)
            return None

    return Rough(again)


def _picks(
    loaded: LoadedModel, tensors: Sequence[torch.Tensor], arrays: Sequence[np.ndarray]
) -> Picks | None:
    """What the indices among the outputs pick; None where no output can hold any."""
    if not any(array.dtype.kind in "iu" for array in arrays):
        return None

    def again() -> list[Pick | None]:
        from torch2mobile.validators.parity.picks import picks_of

        given = [tensor.clone() for tensor in tensors]
        try:
            with fresh(loaded, "observed") as own, quiet():
                return picks_of(lambda: cast("Any", own.flat)(*given))
        except Exception:  # noqa: BLE001 (then all indices have to be equal)
            return [None] * len(arrays)

    return lru_cache(again)


def _order(loaded: LoadedModel, tensors: Sequence[torch.Tensor]) -> Order:
    from torch2mobile.validators.parity.order import Order

    def again(mode: Operations) -> list[np.ndarray]:
        with fresh(loaded, "observed") as own, quiet(), mode:
            return run(own.flat, tensors)

    return Order(again)


def _run_twice(probes: Sequence[Probe]) -> set[int]:
    """The first probe and the largest: threads that race have more to race over there."""
    sizes = [0 if probe.searched else probe.elements for probe in probes]
    return {0, sizes.index(max(sizes))} if sizes else set()


def _measured_on(probes: Sequence[Probe], count: int) -> set[int]:
    """The ``count`` probes on which the float64 run is made at once, to measure the usual noise on.

    Ordinary values at about the example's size: float64 has slower kernels, and the larger sizes
    take most of the time. On the others it is made where an artefact is not clearly within the
    usual noise.
    """
    sizes = [probe.elements for probe in probes]
    small = [
        number
        for number, (size, probe) in enumerate(zip(sizes, probes, strict=True))
        if size <= sizes[0] and probe.magnitude == 1 and not probe.searched
    ] or [0] * bool(sizes)
    steps = np.linspace(0, len(small) - 1, min(len(small), count))
    return {small[round(float(step))] for step in steps}


def evaluate(
    loaded: LoadedModel,
    outputs: Sequence[str],
    probes: Sequence[Probe],
    told: Callable[[int, int], None] | None = None,
    *,
    heavy: bool = False,
) -> list[Reference]:
    """The module on every probe, in eval mode, each from a fresh state.

    A probe that the module refuses is kept as a refusal. ``told`` is given how many are done, of
    how many. A ``heavy`` module runs less often: any of its runs gives threads enough to race over.
    """
    if not probes:
        return []
    with calm(), quiet():
        double = Truth(loaded)
    at_once = _measured_on(probes, MEASURED_OF_HEAVY if heavy else MEASURED)
    twice = {0} if heavy else _run_twice(probes)
    references = [
        replace(item, heavy=heavy)
        for item in _evaluated(loaded, outputs, probes, double, at_once, twice, told)
    ]
    checked = _undoubted(loaded, references)
    if any(item.truth is None and not item.refusal for item in (checked[n] for n in at_once)):
        # What stands in for the truth has to be measured on all probes.
        rest = set(range(len(probes))) - at_once
        checked = [
            _complete(loaded, item, double) if number in rest else item
            for number, item in enumerate(references)
        ]
        checked = _undoubted(loaded, checked)
    return checked


def _evaluated(
    loaded: LoadedModel,
    outputs: Sequence[str],
    probes: Sequence[Probe],
    double: Truth,
    at_once: Container[int],
    twice: Container[int],
    told: Callable[[int, int], None] | None,
) -> list[Reference]:
    references: list[Reference] = []
    with quiet():
        for number, probe in enumerate(probes):
            if told is not None:
                told(number, len(probes))
            tensors = tensors_of(loaded, probe.feeds)
            try:
                with fresh(loaded) as own:
                    arrays = run(own.flat, tensors)
                    repeatable = number not in twice or same(arrays, run(own.flat, tensors))
            except Exception as error:  # noqa: BLE001 (the module is the user's code)
                first = (str(error).strip().splitlines() or [""])[0]
                text = f"{type(error).__name__}: {first}"
                references.append(Reference(probe, [], refusal=text[:300]))
                continue
            item = Reference(
                probe,
                named(outputs, arrays),
                repeatable=repeatable,
                rough=_rough(loaded, tensors),
                later=_later(tensors, arrays, double),
                picks=_picks(loaded, tensors, arrays),
                order=_order(loaded, tensors),
            )
            references.append(_complete(loaded, item, double) if number in at_once else item)
    return references


def _later(
    tensors: Sequence[torch.Tensor],
    arrays: Sequence[np.ndarray],
    double: Truth,
) -> Rough:
    def again() -> list[np.ndarray] | None:
        with quiet():
            return double(tensors, arrays, run)

    return Rough(again)


def _complete(loaded: LoadedModel, item: Reference, double: Truth) -> Reference:
    """With the truth, or what stands in for it."""
    if item.refusal or item.later is None:
        return item
    truth = item.later()
    if truth is not None:
        return replace(item, truth=truth, later=None)
    tensors = tensors_of(loaded, item.probe.feeds)
    arrays = [array for _, array in item.outputs]
    roundings = _roundings(loaded, tensors, arrays)
    return replace(item, lack=double.lack, roundings=roundings, later=None)


def _roundings(
    loaded: LoadedModel,
    tensors: Sequence[torch.Tensor],
    arrays: Sequence[np.ndarray],
    *,
    others: bool = True,
) -> Roundings | None:
    from torch2mobile.validators.parity import compensated

    def again(mode: Operations) -> list[np.ndarray]:
        # Each run meets a fresh module, or what it keeps would pass for noise.
        with fresh(loaded, "observed") as own, mode:
            return run(own.flat, tensors)

    with quiet():
        return compensated.evaluate(again, arrays, others=others)


def _undoubted(loaded: LoadedModel, references: list[Reference]) -> list[Reference]:
    """No truth where the float64 run turns out to be another function."""
    known = [n for n, item in enumerate(references) if item.truth is not None]

    def roundings(number: int, *, others: bool = True) -> Roundings | None:
        item = references[known[number]]
        tensors = tensors_of(loaded, item.probe.feeds)
        arrays = [array for _, array in item.outputs]
        return _roundings(loaded, tensors, arrays, others=others)

    cases = [Case(i.outputs, i.truth, i.probe.magnitude) for i in (references[n] for n in known)]
    found = validate_truth.other_functions(cases, roundings, partial(roundings, others=False))
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
