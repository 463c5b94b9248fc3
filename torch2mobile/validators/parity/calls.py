"""The module called once, with arrays in and arrays out."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch2mobile.records import LoadedModel
from torch2mobile.tensors import BOXES, quiet, refill, to_numpy, to_torch, untouched
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


# So many calls in a row are looked at.
_CALLS = 6


def counting(loaded: LoadedModel, attributes: Sequence[tuple[torch.nn.Module, str]]) -> list[bool]:
    """Which attributes make a later call give something else than a fresh module does.

    On the example and on another input of its shape, always with the same random numbers. Each
    attribute alone is set to what some calls leave in it; where none alone counts, but all of
    them do, all count. None does where the module differs from call to call without them.
    """
    with untouched(loaded.module) as freshen, quiet():
        try:
            return _counting(loaded, attributes, freshen)
        except Exception:  # noqa: BLE001 (the module is the user's code; it is reported elsewhere)
            return [False] * len(attributes)


def _counting(
    loaded: LoadedModel,
    attributes: Sequence[tuple[torch.nn.Module, str]],
    freshen: Callable[[], None],
) -> list[bool]:
    rewind = rewinder()

    def call(given: Sequence[torch.Tensor]) -> list[np.ndarray]:
        rewind()
        return run(loaded.flat, given)

    one = list(loaded.tensors)
    fresh = [(one, call(one))]
    freshen()
    if not same(call(one), fresh[0][1]):
        return [False] * len(attributes)
    freshen()
    with contextlib.suppress(Exception):  # it may refuse other values
        other = [_another(tensor) for tensor in one]
        fresh.append((other, call(other)))
    freshen()
    row = [fresh[number % len(fresh)] for number in range(_CALLS)]
    later = [same(call(given), wanted) for given, wanted in row]
    left = [copy.copy(getattr(module, name, None)) for module, name in attributes]

    def alone(module: torch.nn.Module, name: str, value: Any) -> bool:
        for given, wanted in fresh:
            freshen()
            own = getattr(module, name, None)
            if isinstance(own, BOXES) and type(own) is type(value):
                refill(own, value)
            else:
                setattr(module, name, value)
            if not same(call(given), wanted):
                return True
        return False

    found = [
        alone(module, name, value) for (module, name), value in zip(attributes, left, strict=True)
    ]
    freshen()
    if not same(call(one), fresh[0][1]):  # the time of day, say, which changes now and then
        return [False] * len(attributes)
    return found if any(found) else [not all(later)] * len(attributes)


def _another(tensor: torch.Tensor) -> torch.Tensor:
    """Other values of the same shape, of which a module should take most."""
    if tensor.dtype == torch.bool:
        return ~tensor
    turned = tensor.flip(-1) if tensor.dim() else tensor
    if tensor.is_floating_point():
        return turned * 0.5
    return torch.zeros_like(tensor) if torch.equal(turned, tensor) else turned
