"""All that a module holds at one time, at any depth: to tell whether a call changed any of it."""

from __future__ import annotations

import operator
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

from torch2mobile.contents import BOXES, SIMPLE, Contents, Slots, box_items, set_item

if TYPE_CHECKING:
    import numpy as np


def _refill(box: Any, held: Mapping[Any, Any]) -> None:
    if isinstance(box, types.CellType | Slots):
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
            type(value) is type(other) and type(value) in SIMPLE and value == other
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
