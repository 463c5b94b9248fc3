"""All that a module holds at one time, at any depth: to tell whether a call changed any of it."""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import logging
import operator
import re
import types
import weakref
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

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
            if type(value) in _SIMPLE or id(value) in self.seen:
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
            self.boxes += [_Slots(value, slots)] if slots else []
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
_SIMPLE = frozenset({type(None), bool, int, float, complex, str, bytes, type, torch.dtype})


class _Slots:
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
    if isinstance(box, _Slots):
        return {name: getattr(box.owner, name) for name in box.names if hasattr(box.owner, name)}
    return dict(enumerate(box))


def set_item(box: Any, key: Any, value: Any) -> None:
    """Put a value in the place of another."""
    if isinstance(box, types.CellType):
        box.cell_contents = value
    elif isinstance(box, _Slots):
        object.__setattr__(box.owner, key, value)
    elif not isinstance(box, set):
        box[key] = value


def _refill(box: Any, held: Mapping[Any, Any]) -> None:
    if isinstance(box, types.CellType | _Slots):
        for key, value in held.items():
            set_item(box, key, value)
        return
    box.clear()
    box.update(held if isinstance(box, dict) else held.values()) if isinstance(
        box, dict | set
    ) else box.extend(held.values())


class Snapshot:
    """What ``root`` holds now. ``seeing`` is False where a part of it cannot be looked into.

    Weights are told by their version counters, everything else by what it is and holds.
    """

    def __init__(self, root: Any) -> None:
        found = Contents(root)
        self.seeing = not found.opaque
        weights = {id(weight) for weight in root.parameters()}
        self._empty = [box for box in found.boxes if isinstance(box, BOXES) and not box]
        full = [box for box in found.boxes if not isinstance(box, BOXES) or box]
        self._boxes = [(box, box_items(box)) for box in full]
        counted = [t for t in found.tensors if id(t) in weights or is_lazy(t)]
        self._weights = [(t, _version(t)) for t in counted]
        others = [t for t in found.tensors if id(t) not in weights and not is_lazy(t)]
        self._tensors = [(t, t.detach().clone()) for t in others]
        self._arrays = [(array, array.copy()) for array in found.arrays]

    def wrote_weights(self) -> bool:
        """Whether a weight was written to."""
        return any(_version(weight) != version for weight, version in self._weights)

    def changed(self) -> bool:
        """Whether anything is not as it was."""
        return (
            any(self._empty)
            or any(not _same_items(box, held) for box, held in self._boxes)
            or self.wrote_weights()
            or any(not same_tensor(tensor, held) for tensor, held in self._tensors)
            or any(not _same_array(array, held) for array, held in self._arrays)
        )

    def put_back(self) -> None:
        """All that can be seen as it was, but for the weights."""
        for box in self._empty:
            box.clear()
        for box, held in self._boxes:
            if not _same_items(box, held):
                _refill(box, held)
        for tensor, value in self._tensors:
            if tensor.shape != value.shape:
                tensor.data = value.clone()
            elif not same_tensor(tensor, value):
                tensor.detach().copy_(value)
        for array, kept in self._arrays:
            array[...] = kept


def _version(tensor: torch.Tensor) -> int:
    # A tensor made in inference mode counts nothing, and cannot be written to outside of it.
    if is_lazy(tensor):
        return -1
    return 0 if tensor.is_inference() else tensor._version


def _same_items(box: Any, held: Mapping[Any, Any]) -> bool:
    now: Any = box if isinstance(box, dict) else box_items(box)
    if now.keys() != held.keys():
        return False
    if all(map(operator.is_, now.values(), held.values())):
        return True
    for key, value in now.items():
        other = held[key]
        if value is not other and not (
            type(value) is type(other) and type(value) in _SIMPLE and value == other
        ):
            return False
    return True


def same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same dtype, shape and values, NaN included."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.layout != torch.strided or one.is_quantized:
        return one is other
    if torch.equal(one, other):
        return True
    inexact = one.is_floating_point() or one.is_complex()
    return inexact and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _same_array(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()
