"""What is known of a value while the source is read: a tensor, data out of one, or plain Python."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import torch

UNKNOWN: Any = type("Unknown", (), {"__repr__": lambda _: "UNKNOWN"})()
"""The object of a value that only running the code would show."""


class Kind(Enum):
    """PLAIN values are the same for all inputs of one shape; DATA is Python made of tensors."""

    PLAIN = 0
    DATA = 1
    TENSOR = 2


@dataclass(frozen=True)
class Value:
    """One value: its kind, and the Python object itself where that is known beforehand.

    ``items`` are the elements of a tuple or list. ``inputs`` are the model's inputs whose memory
    a tensor shares. ``boolean`` and ``unsized`` tensors select elements, or have a shape that
    depends on data. ``owner`` is where an attribute was read from, ``name`` its dotted name.
    """

    kind: Kind = Kind.PLAIN
    obj: Any = UNKNOWN
    items: tuple[Value, ...] | None = None
    inputs: frozenset[str] = frozenset()
    boolean: bool = False
    unsized: bool = False
    owner: Any = None
    name: str = ""

    @property
    def known(self) -> bool:
        """Whether the Python object itself is known."""
        return self.obj is not UNKNOWN

    @property
    def tensor(self) -> bool:
        """Whether it is a tensor, and no container of them."""
        return self.kind is Kind.TENSOR and self.items is None

    @property
    def decided_by_data(self) -> bool:
        """Whether its truth depends on what is in a tensor."""
        return self.items is None and self.kind is not Kind.PLAIN

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for values that make no difference to what is found in a function."""
        inner = tuple(item.key for item in self.items) if self.items is not None else None
        return self.kind, id(self.obj), inner, self.inputs, self.boolean, self.unsized


PLAIN = Value()
DATA = Value(Kind.DATA)
TENSOR = Value(Kind.TENSOR)


def of_object(obj: Any, *, owner: Any = None, name: str = "") -> Value:
    """The value of an object that is there before the code runs."""
    kind = Kind.TENSOR if isinstance(obj, torch.Tensor) else Kind.PLAIN
    listed = isinstance(obj, torch.nn.ModuleList | torch.nn.Sequential | tuple | list)
    items = None
    if listed and len(obj) < 100:
        items = tuple(of_object(child) for child in obj)
    return Value(kind, obj, items, owner=owner, name=name)


def join(values: Iterable[Value]) -> Value:
    """What may be any of these: a tensor where one is; the object only where all have it."""
    found = list(values)
    if not found:
        return PLAIN
    first = found[0]
    if all(value.key == first.key for value in found):
        return first
    items = None
    if all(v.items is not None and len(v.items) == len(first.items or ()) for v in found):
        items = tuple(join(group) for group in zip(*(v.items or () for v in found), strict=True))
    same = all(value.obj is first.obj for value in found)
    return Value(
        max((v.kind for v in found if v.items is None), key=lambda k: k.value, default=Kind.PLAIN),
        first.obj if same else UNKNOWN,
        items,
        frozenset().union(*(value.inputs for value in found)),
        all(value.boolean for value in found),
        any(value.unsized for value in found),
    )


def element(value: Value, index: Any = UNKNOWN) -> Value:
    """One element of a container, or of a tensor along its first dimension."""
    if value.items is not None:
        if isinstance(index, int) and -len(value.items) <= index < len(value.items):
            return value.items[index]
        return join(value.items)
    if value.kind is Kind.TENSOR:
        return replace(value, obj=UNKNOWN, owner=None, name="")
    return Value(value.kind)


def attribute(value: Value, name: str) -> Value:
    """An attribute of a known object, read without running any of the user's code."""
    obj = value.obj
    if isinstance(obj, types.ModuleType):
        found = getattr(obj, name, UNKNOWN)
        return of_object(found, owner=obj, name=f"{obj.__name__}.{name}")
    if isinstance(obj, super):
        method = getattr(obj, name, None)
        function = getattr(method, "__func__", UNKNOWN)
        return of_object(function, owner=getattr(method, "__self__", None))
    if isinstance(obj, torch.nn.Module):
        if name == "training":
            return Value(obj=False)
        for store in (obj._parameters, obj._buffers, obj._modules, vars(obj)):
            if name in store:
                return of_object(store[name], owner=obj, name=name)
    return _static(value, name)


def _static(value: Value, name: str) -> Value:
    """What is found without running a descriptor; a property is given as it is."""
    dotted = f"{value.name}.{name}" if value.name else name
    try:
        found = inspect.getattr_static(value.obj, name)
    except (AttributeError, TypeError):
        return Value(name=dotted)
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    elif isinstance(found, types.MemberDescriptorType | types.GetSetDescriptorType):
        found = UNKNOWN
    return of_object(found, owner=value.obj, name=dotted)
