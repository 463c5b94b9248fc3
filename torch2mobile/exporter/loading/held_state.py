"""State that a module keeps from call to call, put in before a call and taken out after it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch2mobile.errors import InputError
from torch2mobile.exporter.loading.containers import Path, replace, walk
from torch2mobile.records import StateSpec

Attribute = tuple[str, str]


def tensors_in(value: Any) -> dict[Path, torch.Tensor]:
    """The tensors that an attribute holds, by the path to each."""
    return {path: leaf for path, leaf in walk(value) if isinstance(leaf, torch.Tensor)}


def held(module: torch.nn.Module, states: Sequence[StateSpec]) -> list[torch.Tensor]:
    """The state as it is now; InputError where a part of it is no tensor any more."""
    found = []
    for state in states:
        value = getattr(module.get_submodule(state.module), state.attribute, None)
        tensor = tensors_in(value).get(state.path)
        if tensor is None:
            raise InputError(
                f"the state {state.place} is no tensor after a call",
                "Let each call leave a tensor of the same shape there.",
            )
        found.append(tensor)
    return found


@contextlib.contextmanager
def holding(
    module: torch.nn.Module, states: Sequence[StateSpec], given: Sequence[torch.Tensor]
) -> Iterator[Callable[[], list[torch.Tensor]]]:
    """The module with this state, for one call; yields what reads the state after the call.

    Afterwards the attributes are what they were: a call leaves nothing.
    """
    parts: dict[Attribute, dict[Path, torch.Tensor]] = {}
    for state, tensor in zip(states, given, strict=True):
        # A call may write to its state, which is the caller's.
        parts.setdefault((state.module, state.attribute), {})[state.path] = tensor.clone()
    before = {key: getattr(module.get_submodule(key[0]), key[1]) for key in parts}

    def after() -> list[torch.Tensor]:
        found = held(module, states)
        if not torch.compiler.is_exporting() and torch._C._get_tracing_state() is None:
            for state, old, new in zip(states, given, found, strict=True):
                refuse_other_form(state, old, new)
        # An output of its own, also where a call returns its state, or leaves it.
        return [tensor.clone() for tensor in found]

    try:
        for key, own in parts.items():
            setattr(module.get_submodule(key[0]), key[1], _with(before[key], own))
        yield after
    finally:
        for key, value in before.items():
            setattr(module.get_submodule(key[0]), key[1], value)


def refuse_other_form(state: StateSpec, old: torch.Tensor, new: torch.Tensor) -> None:
    """InputError where a call has changed a state's shape or dtype."""
    if (old.shape, old.dtype) == (new.shape, new.dtype):
        return
    was, now = (f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in (old, new))
    raise InputError(f"a call makes the state {state.place} {now} of {was}", ONE_FORM)


ONE_FORM = (
    "A file's state has one shape and dtype: keep a buffer of the greatest size and write into it; "
    "a batch that is declared varying can be fixed; or let forward take the state and return it."
)


def _with(value: Any, own: Mapping[Path, torch.Tensor]) -> Any:
    """A nested value with these tensors in the places of others."""
    paths = iter(tensors_in(value))
    return replace(
        value, lambda leaf: own.get(next(paths), leaf) if isinstance(leaf, torch.Tensor) else leaf
    )
