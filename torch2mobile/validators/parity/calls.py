"""The module called once, with arrays in and arrays out."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torch2mobile.copies import calm, fresh
from torch2mobile.records import LoadedModel
from torch2mobile.tensors import quiet, to_numpy, to_torch
from torch2mobile.validators.parity.compare import same

if TYPE_CHECKING:
    from torch2mobile.interfaces import Outputs


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
    with calm(), quiet():
        try:
            return _counting(loaded, attributes)
        except Exception:  # noqa: BLE001 (the module is the user's code; it is reported elsewhere)
            return [False] * len(attributes)


def _counting(loaded: LoadedModel, attributes: Sequence[tuple[torch.nn.Module, str]]) -> list[bool]:
    rewind = rewinder()

    def call(own: LoadedModel, given: Sequence[torch.Tensor]) -> list[np.ndarray]:
        rewind()
        return run(own.flat, given)

    def anew(given: Sequence[torch.Tensor]) -> list[np.ndarray]:
        with fresh(loaded) as own:
            return call(own, given)

    one = list(loaded.tensors)
    known = [(one, anew(one))]
    if not same(anew(one), known[0][1]):
        return [False] * len(attributes)
    with contextlib.suppress(Exception):  # it may refuse other values
        other = [_another(tensor) for tensor in one]
        known.append((other, anew(other)))
    row = [known[number % len(known)] for number in range(_CALLS)]
    with fresh(loaded) as own:
        later = [same(call(own, given), wanted) for given, wanted in row]
        left = [copy.copy(getattr(m, name, None)) for m, name in _in(own, loaded, attributes)]

    def alone(number: int) -> bool:
        for given, wanted in known:
            with fresh(loaded) as own:
                module, name = _in(own, loaded, attributes)[number]
                setattr(module, name, left[number])
                if not same(call(own, given), wanted):
                    return True
        return False

    found = [alone(number) for number in range(len(attributes))]
    if not same(anew(one), known[0][1]):  # the time of day, say, which changes now and then
        return [False] * len(attributes)
    return found if any(found) else [not all(later)] * len(attributes)


def _in(
    own: LoadedModel, loaded: LoadedModel, attributes: Sequence[tuple[torch.nn.Module, str]]
) -> list[tuple[torch.nn.Module, str]]:
    """The attributes of a copy that stand for those of the module."""
    pairs = zip(loaded.module.modules(), own.module.modules(), strict=True)
    twins = {id(module): twin for module, twin in pairs}
    return [(twins[id(module)], name) for module, name in attributes]


def _another(tensor: torch.Tensor) -> torch.Tensor:
    """Other values of the same shape, of which a module should take most."""
    if tensor.dtype == torch.bool:
        return ~tensor
    turned = tensor.flip(-1) if tensor.dim() else tensor
    if tensor.is_floating_point():
        return turned * 0.5
    return torch.zeros_like(tensor) if torch.equal(turned, tensor) else turned
