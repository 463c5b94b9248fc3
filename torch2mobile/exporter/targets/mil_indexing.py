"""Operators of a MIL program that take or put what stands at certain places.

As in :mod:`torch2mobile.exporter.targets.mil_operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def slice_by_index(
    x: Tensor,
    begin: Tensor,
    end: Tensor,
    stride: Tensor | None = None,
    begin_mask: Tensor | None = None,
    end_mask: Tensor | None = None,
    squeeze_mask: Tensor | None = None,
) -> Tensor:
    """As ``x[begin:end:stride]`` does; where a mask is set, from or to the end, or one place."""
    rank = x.dim()
    no = [False] * rank
    steps = [1] * rank if stride is None else stride.tolist()
    opened, closed, single = (
        no if mask is None else mask.tolist() for mask in (begin_mask, end_mask, squeeze_mask)
    )
    places = tuple(
        first
        if single[n]
        else slice(None if opened[n] else first, None if closed[n] else last, steps[n])
        for n, (first, last) in enumerate(zip(begin.tolist(), end.tolist(), strict=True))
    )
    return torch.from_numpy(np.array(x.numpy()[places]))


def slice_by_size(x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    """From ``begin`` on; a size of -1 is all that is left."""
    for axis, (first, length) in enumerate(zip(begin.tolist(), size.tolist(), strict=True)):
        start = first % x.shape[axis] if first < 0 else first
        x = x.narrow(axis, start, x.shape[axis] - start if length == -1 else length)
    return x


def gather(
    x: Tensor, indices: Tensor, axis: Any = 0, batch_dims: Any = 0, validate_indices: Any = False
) -> Tensor:
    """The places of one dimension; negative ones count from its end."""
    _only(not int(batch_dims), "gather", "batch_dims")
    del validate_indices
    dim = int(axis) % x.dim()
    found = x.index_select(dim, _wrapped(indices, x.shape[dim]).reshape(-1))
    return found.reshape((*x.shape[:dim], *indices.shape, *x.shape[dim + 1 :]))


def gather_along_axis(
    x: Tensor, indices: Tensor, axis: Any = 0, validate_indices: Any = False
) -> Tensor:
    """For each place its own index along one dimension."""
    del validate_indices
    return torch.take_along_dim(x, _wrapped(indices, x.shape[int(axis)]), int(axis))


def gather_nd(
    x: Tensor, indices: Tensor, batch_dims: Any = 0, validate_indices: Any = False
) -> Tensor:
    """What stands at these coordinates, the last dimension of ``indices``."""
    _only(not int(batch_dims), "gather_nd", "batch_dims")
    del validate_indices
    at = [_wrapped(one, x.shape[n]) for n, one in enumerate(indices.unbind(-1))]
    return x[tuple(at)]


def scatter_nd(
    data: Tensor, indices: Tensor, updates: Tensor, mode: str = "add", validate_indices: Any = False
) -> Tensor:
    """``updates`` put, or added, at these coordinates."""
    del validate_indices
    _only(mode in {"add", "update"}, "scatter_nd", f"mode {mode}")
    at = tuple(_wrapped(one, data.shape[n]) for n, one in enumerate(indices.unbind(-1)))
    return data.index_put(at, updates, accumulate=mode == "add")


def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Any = 0,
    mode: str = "add",
    validate_indices: Any = False,
) -> Tensor:
    """``updates`` put, or added, at these places of one dimension."""
    del validate_indices
    _only(mode in {"add", "update"}, "scatter", f"mode {mode}")
    dim = int(axis) % data.dim()
    at = _wrapped(indices, data.shape[dim]).reshape(-1)
    flat = updates.reshape((*data.shape[:dim], at.numel(), *data.shape[dim + 1 :]))
    put = data.index_add if mode == "add" else data.index_copy
    return put(dim, at, flat)


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: Any = 0,
    mode: str = "add",
    validate_indices: Any = False,
) -> Tensor:
    """``updates`` put, or added, each at its own index along one dimension."""
    del validate_indices
    _only(mode in {"add", "update"}, "scatter_along_axis", f"mode {mode}")
    at = _wrapped(indices, data.shape[int(axis)])
    if mode == "add":
        return data.scatter_add(int(axis), at, updates)
    return data.scatter(int(axis), at, updates)


def _wrapped(indices: Tensor, size: int) -> Tensor:
    at = indices.long()
    return torch.where(at < 0, at + size, at)


def _only(held: bool, operator: str, what: str) -> None:
    """NotImplementedError for a form of an operator that is not evaluated."""
    if not held:
        raise NotImplementedError(f"{operator} with {what}")


_FUNCTIONS = (
    slice_by_index,
    slice_by_size,
    gather,
    gather_along_axis,
    gather_nd,
    scatter_nd,
    scatter,
    scatter_along_axis,
)
OPERATORS: Mapping[str, Callable[..., Any]] = {one.__name__: one for one in _FUNCTIONS}
