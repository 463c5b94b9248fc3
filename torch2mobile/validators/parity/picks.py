"""Indices that a module returns: of equal values any index will do where PyTorch promises none.

``topk`` and ``sort`` promise no order of equal values, and other kernels choose otherwise. Which
values an output's indices pick is seen in a run of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from torch2mobile.dispatch import Operations, arguments
from torch2mobile.tensors import to_numpy
from torch2mobile.validators.parity.channels import SCALE_STEP, wide
from torch2mobile.validators.parity.tolerance import USUAL

_aten = torch.ops.aten
# By operator, the number of its result that holds indices.
_INDEXING = {
    _aten.topk.default: 1,
    _aten.sort.default: 1,
    _aten.sort.stable: 1,
    _aten.kthvalue.default: 1,
    _aten.median.dim: 1,
    _aten.mode.default: 1,
    _aten.max.dim: 1,
    _aten.min.dim: 1,
    _aten.argmax.default: 0,
    _aten.argmin.default: 0,
}
# Of equal values these take the first, by their documentation.
_FIRST = {_aten.max.dim, _aten.min.dim, _aten.argmax.default, _aten.argmin.default}
# These take no value twice.
_DISTINCT = {_aten.topk.default, _aten.sort.default, _aten.sort.stable}
_COPIES = {_aten._to_copy.default, _aten.clone.default, _aten.view.default}


@dataclass(frozen=True)
class Pick:
    """Indices into the last axis of ``values``; their own axis is ``axis``.

    ``first`` tells that of equal values the first is promised, ``distinct`` that none is taken
    twice.
    """

    values: np.ndarray
    indices: np.ndarray
    axis: int
    first: bool
    distinct: bool

    def as_good(self, want: np.ndarray, got: np.ndarray) -> bool:
        """Whether the indices ``got`` pick what ``want`` picks, to within a float's rounding."""
        if not np.array_equal(want.reshape(-1), self.indices.reshape(-1)):
            return False
        one, other = (self._along(array) for array in (want, got))
        size = self.values.shape[-1]
        if ((other < 0) | (other >= size)).any():
            return False
        ranked = np.sort(other, axis=-1)
        if self.distinct and (ranked[..., 1:] == ranked[..., :-1]).any():
            return False
        mine, yours = (np.take_along_axis(self.values, each, axis=-1) for each in (one, other))
        alike = (mine == yours) | (_is_nan(mine) & _is_nan(yours))
        close = near(self.values, mine, yours)
        good = (one == other) | (close & ~alike if self.first else close | alike)
        return bool(good.all())

    def _along(self, array: np.ndarray) -> np.ndarray:
        shaped = array.reshape(self.indices.shape).astype(np.int64)
        return np.moveaxis(shaped, self.axis, -1) if shaped.ndim else shaped.reshape(1)


def near(values: np.ndarray, mine: np.ndarray, yours: np.ndarray) -> np.ndarray:
    """Whether values are as near as floats of their row may always be: the usual tolerance.

    ``mine`` and ``yours`` are of the rows of ``values``. A row may hold what masks others, as -1e9:
    its scale is SCALE_STEP times their own at most.
    """
    if values.dtype.kind != "f":
        return np.zeros(mine.shape, dtype=bool)
    size = np.where(np.isfinite(values), np.abs(values), 0.0)
    own = SCALE_STEP * np.maximum(np.abs(mine), np.abs(yours))
    scale = np.minimum(size.max(axis=-1, keepdims=True, initial=0.0), own)
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.abs(mine - yours) <= USUAL["float32"].rtol * scale
    return found


def _is_nan(array: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.not_equal(array, array)
    return found


class _Recorder(Operations):
    """Keeps what every operator that gives indices took them of."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[tuple[torch.Tensor, Pick]] = []

    def operation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, and keep its values and indices."""
        result = func(*args, **kwargs)
        if func in _INDEXING:
            indices = result[_INDEXING[func]] if isinstance(result, tuple | list) else result
            self._found.append((indices, _pick(func, args, kwargs, indices)))
        elif func in _COPIES:
            known = self.of(args[0])
            if known is not None and not result.is_floating_point():
                self._found.append((result, known))
        return result

    def of(self, tensor: torch.Tensor) -> Pick | None:
        """What these indices were taken of; None for other tensors."""
        at = tensor.untyped_storage().data_ptr()
        for indices, pick in reversed(self._found):
            if indices.untyped_storage().data_ptr() == at and indices.numel() == tensor.numel():
                return pick
        return None


def _pick(func: Any, args: Sequence[Any], kwargs: dict[str, Any], indices: torch.Tensor) -> Pick:
    named = arguments(func, args, kwargs)
    source, axis = named["self"], named.get("dim")
    # Copies: what is written to them later is not what was picked.
    values = wide(to_numpy(source)) if source.is_floating_point() else to_numpy(source).copy()
    if axis is None:
        values, axis = values.reshape(-1), 0
    array = to_numpy(indices).copy()
    values = np.moveaxis(values, axis, -1) if values.ndim else values.reshape(1)
    if values.ndim > array.ndim:
        array = np.expand_dims(array, axis if axis >= 0 else axis + values.ndim)
    first = func in _FIRST or bool(named.get("stable"))
    return Pick(values, array, axis, first, func in _DISTINCT)


def picks_of(call: Callable[[], Sequence[torch.Tensor]]) -> list[Pick | None]:
    """By output of the call, what its indices pick; None where it holds none."""
    with _Recorder() as recorder:
        outputs = call()
    return [recorder.of(each) if not each.is_floating_point() else None for each in outputs]
