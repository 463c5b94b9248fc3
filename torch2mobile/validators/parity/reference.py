"""What the artefact has to equal: the module's own outputs, and the same in float64 as the truth.

With ``sums``, the only part of parity that needs torch.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet, to_numpy, to_torch, untouched
from torch2mobile.validators.parity.gate import Rough
from torch2mobile.validators.parity.probes import Probe
from torch2mobile.validators.parity.tolerance import is_float

if TYPE_CHECKING:
    import torch

Outputs = list[tuple[str, np.ndarray]]

# A float64 copy of the weights must fit beside everything else.
TRUTH_WEIGHT_BYTES = 4 << 30


@dataclass(frozen=True)
class Reference:
    """The module on one probe: its outputs, the float64 truth if there is one, or its refusal.

    ``repeatable`` is False where a second run on the same input gave something else. ``rough``
    gives the outputs with all sums taken in a plain loop.
    """

    probe: Probe
    outputs: Outputs
    truth: list[np.ndarray] | None = None
    refusal: str = ""
    repeatable: bool = True
    rough: Rough | None = None


def _run(flat: Any, tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    return [to_numpy(tensor).copy() for tensor in flat(*(tensor.clone() for tensor in tensors))]


def _double(flat: Any) -> Any | None:
    """The same module with the same weights in float64, or None where that is impossible."""
    weights = sum(tensor.nbytes for tensor in flat.state_dict().values())
    if weights > TRUTH_WEIGHT_BYTES:
        return None
    try:
        return copy.deepcopy(flat).double()
    except Exception:  # noqa: BLE001 (a module may refuse to be copied in any way it likes)
        return None


def _truth(double: Any, tensors: Sequence[torch.Tensor]) -> list[np.ndarray] | None:
    wide = [t.double() if t.is_floating_point() else t for t in tensors]
    try:
        # Each probe meets a fresh module, in float64 as in float32.
        with untouched(double):
            return _run(double, wide)
    except Exception:  # noqa: BLE001 (for example a dtype hard-coded in forward)
        return None


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

    A probe that the module refuses is kept as a refusal. The float64 run is left out once it
    has failed: a dtype hard-coded in forward fails everywhere.
    """
    with untouched(loaded.module), quiet():
        double = _double(loaded.flat) if loaded.program is None else None
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
            truth = _truth(double, tensors) if double is not None else None
        if truth is None or [t.shape for t in truth] != [a.shape for a in arrays]:
            double = truth = None
        references.append(
            Reference(
                probe,
                _named(outputs, arrays),
                truth,
                repeatable=repeatable,
                rough=_rough(loaded, tensors),
            )
        )
    return references


def example_of(loaded: LoadedModel) -> Mapping[str, np.ndarray]:
    """The example input as numpy arrays, by name."""
    return {
        spec.name: to_numpy(tensor)
        for spec, tensor in zip(loaded.specs, loaded.tensors, strict=True)
    }
