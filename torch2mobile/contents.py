"""All that a module holds, at any depth, and how to put another thing in its place."""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import logging
import re
import types
import weakref
from pathlib import PurePath
from typing import Any

import numpy as np
import torch

TORCHS_OWN = frozenset(vars(torch.nn.Module()))


BOXES = (list, dict, set, collections.deque)


# What no call can change, or, like a captured graph and a logger, what no output follows.
_FIXED = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type,
    range,
    slice,
    property,
    types.ModuleType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.CodeType,
    types.GenericAlias,
    enum.Enum,
    re.Pattern,
    PurePath,
    inspect.Signature,
    logging.Logger,
    weakref.ref,
    np.generic,
    np.dtype,
    np.ufunc,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.Size,
    torch.fx.Graph,
    torch.jit.ScriptFunction,
    torch._ops.OpOverload,
    torch._ops.OpOverloadPacket,
)


# Functions of C's, and methods of its objects, such as a list's ``append``.
BOUND_IN_C = (types.BuiltinFunctionType, types.MethodWrapperType)


_HEAP_TYPE = 1 << 9


class Contents:
    """Everything that can be reached from a value, each once.

    ``boxes`` are what holds other things (containers, the attributes of objects, the variables of
    closures), ``opaque`` what nobody can look into, such as an iterator. Without ``functions``
    these are not looked into.
    """

    def __init__(self, *roots: Any, functions: bool = True) -> None:
        self._into_functions = functions
        self.boxes: list[Any] = []
        self.tensors: list[torch.Tensor] = []
        self.arrays: list[np.ndarray] = []
        self.functions: list[types.FunctionType] = []
        self.references: list[Any] = []
        self.opaque: list[Any] = []
        self.seen: dict[int, Any] = {}
        self.add(*roots)

    def add(self, *roots: Any) -> None:
        """And what can be reached from these."""
        waiting = list(roots)
        while waiting:
            value = waiting.pop()
            if type(value) in SIMPLE or id(value) in self.seen:
                continue
            self.seen[id(value)] = value
            plain = type(value) in _PLAIN_BOXES
            waiting += self._object(value) if plain else self._parts(value)

    def _parts(self, value: Any) -> list[Any]:  # noqa: PLR0911 (a table of kinds)
        if isinstance(value, torch.Tensor):
            self.tensors.append(value)
        elif isinstance(value, np.ndarray):
            self.arrays.append(value)
        elif isinstance(value, weakref.ref):
            self.references.append(value)
        elif isinstance(value, _FIXED):
            return []
        elif isinstance(value, tuple | frozenset):
            return list(value)
        elif isinstance(value, types.FunctionType):
            return self._function(value)
        elif isinstance(value, (types.MethodType, *BOUND_IN_C)):
            return [value.__self__, getattr(value, "__func__", None)]
        elif isinstance(value, functools.partial):
            return [value.func, value.args, value.keywords]
        elif isinstance(value, types.MappingProxyType):
            return list(value.values())
        else:
            return self._object(value)
        return []

    def _function(self, function: types.FunctionType) -> list[Any]:
        self.functions.append(function)
        if not self._into_functions:
            return []
        cells = list(function.__closure__ or ())
        self.boxes += cells
        held = [box_items(cell).values() for cell in cells]
        return [*(v for values in held for v in values), function.__defaults__, vars(function)]

    def _object(self, value: Any) -> list[Any]:
        if type(value) in _PLAIN_BOXES:
            self.boxes.append(value)
            return [*value, *value.values()] if isinstance(value, dict) else list(value)
        if isinstance(value, BOXES):
            self.boxes.append(value)
        elif isinstance(value, torch.jit.ScriptModule):
            self.opaque.append(value)
            return list(value.buffers())
        slots = _slots(value)
        attributes = getattr(value, "__dict__", None)
        if slots or isinstance(attributes, dict):
            self.boxes += [Slots(value, slots)] if slots else []
        elif not isinstance(value, BOXES):
            self.opaque.append(value)
            return []
        if not isinstance(value, BOXES) and not _is_plain(type(value)):  # type: ignore[arg-type]
            self.opaque.append(value)
        found = [*box_items(value).values()] if isinstance(value, BOXES) else []
        if isinstance(value, dict):
            found += list(value)
        found += [getattr(value, name) for name in slots if hasattr(value, name)]
        if isinstance(attributes, dict):
            found.append(attributes)
        return found


_PLAIN_BOXES = frozenset({*BOXES, collections.OrderedDict})


SIMPLE = frozenset({type(None), bool, int, float, complex, str, bytes, type, torch.dtype})


class Slots:
    """The slots of an object, as a box."""

    def __init__(self, owner: Any, names: tuple[str, ...]) -> None:
        self.owner, self.names = owner, names


def _slots(value: Any) -> tuple[str, ...]:
    return _slots_of(type(value))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=4096)
def _slots_of(kind: Any) -> tuple[str, ...]:
    found = [vars(base).get("__slots__", ()) for base in kind.__mro__]
    names = [name for each in found for name in ([each] if isinstance(each, str) else each)]
    return tuple(name for name in names if name not in {"__dict__", "__weakref__"})


@functools.lru_cache(maxsize=4096)
def _is_plain(kind: Any) -> bool:
    """Whether all that its objects hold is in their attributes: no class of C's is below it."""
    bases = [base for base in kind.__mro__ if base is not object]
    return all(base.__flags__ & _HEAP_TYPE for base in bases)


def box_items(box: Any) -> dict[Any, Any]:
    """What a box holds, by key or by number."""
    if isinstance(box, dict):
        return dict(box)
    if isinstance(box, types.CellType):
        try:
            return {0: box.cell_contents}
        except ValueError:  # not filled yet
            return {}
    if isinstance(box, Slots):
        return {name: getattr(box.owner, name) for name in box.names if hasattr(box.owner, name)}
    return dict(enumerate(box))


def set_item(box: Any, key: Any, value: Any) -> None:
    """Put a value in the place of another."""
    if isinstance(box, types.CellType):
        box.cell_contents = value
    elif isinstance(box, Slots):
        object.__setattr__(box.owner, key, value)
    elif not isinstance(box, set):
        box[key] = value
