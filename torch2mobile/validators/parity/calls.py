"""The module called once, with arrays in and arrays out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet, to_numpy, to_torch, untouched
from torch2mobile.validators.parity.compare import same

Outputs = list[tuple[str, np.ndarray]]


def tensors_of(loaded: LoadedModel, feeds: Mapping[str, np.ndarray]) -> list[torch.Tensor]:
    """The inputs by name, in the module's order."""
    return [to_torch(feeds[spec.name]) for spec in loaded.specs]


def run(flat: Any, tensors: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """The outputs of a flat module; it may write to its inputs, which are copies."""
    return [to_numpy(tensor).copy() for tensor in flat(*(tensor.clone() for tensor in tensors))]


def named(names: Sequence[str], arrays: Sequence[np.ndarray]) -> Outputs:
    """The outputs by name; where there are more than at the example, by number."""
    more = [f"output number {number}" for number in range(len(names), len(arrays))]
    return list(zip([*names, *more], arrays, strict=False))


def rewinder() -> Callable[[], None]:
    """A function that puts the random states of torch, numpy and Python back to those of now."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()

    def rewind() -> None:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])

    return rewind


def remembers(loaded: LoadedModel) -> bool:
    """Whether a call gives something else after other calls than on a fresh module.

    On the example and on half of its floating-point values, all with the same random numbers.
    """
    one = list(loaded.tensors)
    other = [tensor * 0.5 if tensor.is_floating_point() else tensor for tensor in one]
    with untouched(loaded.module) as freshen, quiet():
        rewind = rewinder()
        try:
            fresh = run(loaded.flat, one)
            freshen()
            other_fresh = run(loaded.flat, other)
            freshen()
            used = []
            for tensors in (one, other, one):
                rewind()
                used.append(run(loaded.flat, tensors))
        except Exception:  # noqa: BLE001 (the module is the user's code; it is reported elsewhere)
            return False
    return not (same(used[1], other_fresh) and same(used[2], fresh))
